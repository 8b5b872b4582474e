"""K = U diag(S) U', behind one protocol."""
