"""Two traits: likelihood, posterior, genetic correlation."""
