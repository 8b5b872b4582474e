"""Formulas and algorithms over arrays, which know nothing of genetics' files and labels."""
