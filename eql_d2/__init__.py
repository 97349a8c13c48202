"""Equalization loss (Tan et al., CVPR 2020) and its relatives for long-tailed detection."""

__version__ = "0.1.0"
