"""The same YAML, loss and results file on torchvision's Mask R-CNN."""

from eql_d2.engines.tv.run import load_predictor, run

__all__ = ["load_predictor", "run"]
