"""LVIS average precision, and the metrics beside it, from a results file."""

from eql_d2.evaluation.average_precision import IOU_TYPES, evaluate
from eql_d2.evaluation.image_lists import read_image_ids
from eql_d2.evaluation.report import CategoryRow, Evaluation
from eql_d2.evaluation.scoring import METRICS
from eql_d2.evaluation.writer import ImageDetections, ResultsWriter, concatenate_results

__all__ = [
    "IOU_TYPES",
    "METRICS",
    "CategoryRow",
    "Evaluation",
    "ImageDetections",
    "ResultsWriter",
    "concatenate_results",
    "evaluate",
    "read_image_ids",
]
