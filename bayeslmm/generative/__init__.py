"""The PyMC code of the model, and sampling it."""
