"""Detections for single images from a checkpoint alone, without any data set on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from eql_d2.categories import CategoryStatistics
from eql_d2.checkpoint import read_checkpoint_metadata, resolve_checkpoint
from eql_d2.config import default_config
from eql_d2.engines.d2.checkpointer import Checkpointer
from eql_d2.engines.d2.compat import ResizeShortestEdge, build_model, get_cfg
from eql_d2.engines.d2.evaluator import RawDetections, image_detections
from eql_d2.engines.d2.statistics import write_statistics
from eql_d2.errors import UserError
from eql_d2.evaluation import ImageDetections
from eql_d2.experiment import resolve_device


class Predictor:
    """Maps an (H, W, 3) uint8 RGB image to its detections."""

    def __init__(self, model: nn.Module, *, image_format: str, resize: ResizeShortestEdge) -> None:
        """Take over a model with its weights.

        Args:
            model: a GeneralizedRCNN.
            image_format: order of the channels the model was trained on, ``"RGB"`` or ``"BGR"``.
            resize: the test-time scaling.
        """
        self._model = RawDetections(model.eval())
        self._image_format = image_format
        self._resize = resize

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> ImageDetections:
        """Detect; boxes and masks are in the pixels of ``image``.

        Raises:
            ValueError: ``image`` is no (H, W, 3) uint8 array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        ordered = image[:, :, ::-1] if self._image_format == "BGR" else image
        resized = self._resize.get_transform(ordered).apply_image(ordered)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        (output,) = self._model([{"image": tensor}])
        return image_detections(output, height, width)


def load_predictor(
    checkpoint: str | Path,
    *,
    device: str = "auto",
    score_threshold: float | None = None,
    max_detections: int | None = None,
) -> Predictor:
    """Build the model that a checkpoint describes, with its weights.

    Args:
        checkpoint: a file that this engine's training wrote, or its ``OUTPUT_DIR``.
        device: ``auto``, ``cpu``, ``cuda`` ...
        score_threshold: lowest score that is reported; the training configuration's where None.
        max_detections: most detections of an image; the training configuration's where None.

    Raises:
        UserError: no such file, none of ours, or one of the torchvision engine.
    """
    file = resolve_checkpoint(checkpoint)
    metadata = read_checkpoint_metadata(file)
    if metadata["engine"] != "detectron2":
        raise UserError(
            f"{file} was written by the {metadata['engine']} engine; use that engine to load it"
        )
    cfg = config_from_yaml(metadata["config"])
    cfg.MODEL.DEVICE = resolve_device(device)
    if score_threshold is not None:
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
    if max_detections is not None:
        cfg.TEST.DETECTIONS_PER_IMAGE = max_detections
    statistics = CategoryStatistics.from_dict(metadata["statistics"])
    with tempfile.TemporaryDirectory(prefix="eql_d2_") as directory:
        cfg.MODEL.EQL.STATISTICS = str(write_statistics(statistics, directory))
        model = build_model(cfg)
    Checkpointer(model, metadata=metadata, strict=True).load(str(file))
    size = cfg.INPUT.MIN_SIZE_TEST
    resize = ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)
    return Predictor(model, image_format=cfg.INPUT.FORMAT, resize=resize)


def config_from_yaml(text: str) -> Any:
    """Return Detectron2's tree for the text of a saved ``config.yaml``."""
    cfg = default_config(get_cfg())
    cfg.merge_from_other_cfg(type(cfg)(yaml.safe_load(text)))
    return cfg
