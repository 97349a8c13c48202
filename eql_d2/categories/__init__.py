"""Category statistics: image counts, rare/common/frequent groups, tail masks."""
