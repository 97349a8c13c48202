"""Category statistics: image counts, rare/common/frequent groups, tail masks."""

from eql_d2.categories.annotation_file import read_annotation_file
from eql_d2.categories.bundled import table_names
from eql_d2.categories.grouping import (
    GROUP_NAMES,
    Grouping,
    groups_by_counts,
    groups_by_quantiles,
)
from eql_d2.categories.statistics import CategoryStatistics, read_statistics, write_statistics

__all__ = [
    "GROUP_NAMES",
    "CategoryStatistics",
    "Grouping",
    "groups_by_counts",
    "groups_by_quantiles",
    "read_annotation_file",
    "read_statistics",
    "table_names",
    "write_statistics",
]
