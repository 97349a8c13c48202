"""Category statistics: image counts, rare/common/frequent groups, tail masks."""

from eql_d2.categories.annotation_file import read_annotation_file
from eql_d2.categories.bundled import table_names
from eql_d2.categories.grouping import GROUP_NAMES, groups_by_counts, groups_by_quantiles
from eql_d2.categories.statistics import CategoryStatistics

__all__ = [
    "GROUP_NAMES",
    "CategoryStatistics",
    "groups_by_counts",
    "groups_by_quantiles",
    "read_annotation_file",
    "table_names",
]
