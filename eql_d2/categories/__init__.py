"""Category statistics: image counts, rare/common/frequent groups, tail masks."""

from eql_d2.categories.annotation_file import read_json
from eql_d2.categories.grouping import GROUP_NAMES, groups_by_counts, groups_by_quantiles
from eql_d2.categories.statistics import CategoryStatistics, table_names

__all__ = [
    "GROUP_NAMES",
    "CategoryStatistics",
    "groups_by_counts",
    "groups_by_quantiles",
    "read_json",
    "table_names",
]
