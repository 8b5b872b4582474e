"""Relatedness matrices, relatives, population structure."""
