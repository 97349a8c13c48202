"""Figures from metrics and annotation files; matplotlib is imported inside functions."""
