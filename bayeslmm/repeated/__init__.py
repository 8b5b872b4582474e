"""Repeated measures: likelihood of means and deviations, the model, its PyMC code."""
