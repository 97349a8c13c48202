"""All Detectron2 glue. Importing it registers the ROI heads; it needs Detectron2.

``MODEL.ROI_HEADS.NAME: EQLROIHeads`` (or ``EQLCascadeROIHeads``) then works in any Detectron2
program whose configuration went through :func:`eql_d2.config.add_eql_config`, which adds keys and
changes none; what the program must set then is said in :mod:`eql_d2.engines.d2.statistics`.
"""

from eql_d2.config import add_eql_config
from eql_d2.engines.d2.datasets import register
from eql_d2.engines.d2.output_layers import EQLFastRCNNOutputLayers
from eql_d2.engines.d2.predictor import load_predictor
from eql_d2.engines.d2.roi_heads import EQLCascadeROIHeads, EQLROIHeads
from eql_d2.engines.d2.running import run

__all__ = [
    "EQLCascadeROIHeads",
    "EQLFastRCNNOutputLayers",
    "EQLROIHeads",
    "add_eql_config",
    "load_predictor",
    "register",
    "run",
]
