"""Category statistics: image counts, rare/common/frequent groups, tail masks."""

from eql_d2.categories.annotation_file import paused_garbage_collection, read_json
from eql_d2.categories.bundled import table_names
from eql_d2.categories.grouping import GROUP_NAMES, groups_by_counts, groups_by_quantiles
from eql_d2.categories.statistics import CategoryStatistics

__all__ = [
    "GROUP_NAMES",
    "CategoryStatistics",
    "groups_by_counts",
    "groups_by_quantiles",
    "paused_garbage_collection",
    "read_json",
    "table_names",
]
