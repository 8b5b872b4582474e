"""One model: its specification, fits, posterior, checks and comparison."""
