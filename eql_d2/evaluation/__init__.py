"""LVIS average precision from a results file."""
