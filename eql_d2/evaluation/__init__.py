"""LVIS average precision from a results file."""

from eql_d2.evaluation.average_precision import evaluate
from eql_d2.evaluation.report import Evaluation
from eql_d2.evaluation.writer import ImageDetections, ResultsWriter, concatenate_results

__all__ = ["Evaluation", "ImageDetections", "ResultsWriter", "concatenate_results", "evaluate"]
