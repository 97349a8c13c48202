"""Every Detectron2 name this package uses, imported in this one place.

Supported are Detectron2 0.6 built from a commit of 2023 or later; the one that is tested is
``eql_d2.command_line.DETECTRON2_COMMIT``. Where a name is missing, importing this module raises
:class:`~eql_d2.errors.MissingPackageError` with one line that says what to install.
"""

from __future__ import annotations

import importlib

from eql_d2.command_line import DETECTRON2_INSTALL as INSTALL
from eql_d2.errors import MissingPackageError


def import_problem(error: ImportError) -> str:
    """Say in one line why Detectron2 cannot be used, and what mends it."""
    missing = (error.name or "").split(".")[0]
    if missing == "detectron2" and isinstance(error, ModuleNotFoundError):
        try:
            version = importlib.import_module("detectron2").__version__
        except ImportError:
            return f"Detectron2 is needed and is not installed. Install it with: {INSTALL}"
        return (
            f"Detectron2 {version} has no module {error.name}; install a supported one: {INSTALL}"
        )
    if missing == "pkg_resources":
        return 'Detectron2 needs pkg_resources, gone in setuptools 81: pip install "setuptools<81"'
    return f"Detectron2 cannot be used here: {error}. Install a supported one with: {INSTALL}"


try:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import configurable, get_cfg
    from detectron2.data import (
        DatasetCatalog,
        DatasetMapper,
        MetadataCatalog,
        build_detection_test_loader,
        build_detection_train_loader,
    )
    from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
    from detectron2.data.transforms import (
        AugInput,
        NoOpTransform,
        ResizeShortestEdge,
        ResizeTransform,
    )
    from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
    from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
    from detectron2.layers import ShapeSpec, cat, paste_masks_in_image
    from detectron2.modeling import (
        ROI_HEADS_REGISTRY,
        FastRCNNOutputLayers,
        StandardROIHeads,
        build_model,
    )
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.postprocessing import detector_postprocess
    from detectron2.modeling.roi_heads import CascadeROIHeads
    from detectron2.modeling.roi_heads.fast_rcnn import (
        fast_rcnn_inference as stock_fast_rcnn_inference,
    )
    from detectron2.solver import build_lr_scheduler, build_optimizer
    from detectron2.structures import Boxes, BoxMode, ImageList, Instances
    from detectron2.utils import comm
    from detectron2.utils.collect_env import collect_env_info
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import (
        CommonMetricPrinter,
        EventStorage,
        EventWriter,
        JSONWriter,
        TensorboardXWriter,
        get_event_storage,
    )
    from detectron2.utils.file_io import PathManager
except ImportError as _error:
    raise MissingPackageError(import_problem(_error)) from _error

__all__ = [
    "INSTALL",
    "ROI_HEADS_REGISTRY",
    "AugInput",
    "Box2BoxTransform",
    "BoxMode",
    "Boxes",
    "CascadeROIHeads",
    "CommonMetricPrinter",
    "DatasetCatalog",
    "DatasetEvaluator",
    "DatasetMapper",
    "DefaultTrainer",
    "DetectionCheckpointer",
    "EventStorage",
    "EventWriter",
    "FastRCNNOutputLayers",
    "HookBase",
    "ImageList",
    "Instances",
    "JSONWriter",
    "MetadataCatalog",
    "NoOpTransform",
    "PathManager",
    "RepeatFactorTrainingSampler",
    "ResizeShortestEdge",
    "ResizeTransform",
    "ShapeSpec",
    "StandardROIHeads",
    "TensorboardXWriter",
    "TrainerBase",
    "TrainingSampler",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "build_lr_scheduler",
    "build_model",
    "build_optimizer",
    "cat",
    "collect_env_info",
    "comm",
    "configurable",
    "detector_postprocess",
    "get_cfg",
    "get_event_storage",
    "hooks",
    "import_problem",
    "inference_on_dataset",
    "paste_masks_in_image",
    "seed_all_rng",
    "stock_fast_rcnn_inference",
]
