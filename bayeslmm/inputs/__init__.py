"""Data in: genotypes of every format, phenotypes, simulated cohorts."""
