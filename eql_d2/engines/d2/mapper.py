"""Detectron2's mapper, reading images as the whole package does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from eql_d2.data import read_pixels
from eql_d2.engines.d2 import compat
from eql_d2.engines.d2.compat import AugInput, DatasetMapper, NoOpTransform, ResizeTransform


class ResizeShortestEdge(compat.ResizeShortestEdge):
    """Detectron2's, but a side that its rounding makes 0 pixels keeps 1, so that Pillow resizes."""

    def get_transform(self, image: np.ndarray) -> Any:
        """Return the resizing of an ``(H, W, C)`` image."""
        transform = super().get_transform(image)
        if isinstance(transform, ResizeTransform):  # the size 0 asks for none
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


class CopiedLines(NoOpTransform):
    """Copies masks one pixel wide or high.

    NumPy takes them for contiguous even after a flip; torch refuses their negative strides.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return an ``(H, W)`` mask as it is, or its copy."""
        return segmentation.copy() if 1 in segmentation.shape else segmentation


class Mapper(DatasetMapper):
    """From a record to what the model takes: reads the image, scales, flips."""

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        """Return Detectron2's arguments, with augmentations that take images of any size."""
        arguments = super().from_config(cfg, is_train)
        augmentations = [
            ResizeShortestEdge(a.short_edge_length, a.max_size, a.sample_style, a.interp)
            if type(a) is compat.ResizeShortestEdge
            else a
            for a in arguments["augmentations"]
        ]
        return {**arguments, "augmentations": [*augmentations, CopiedLines()]}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one record of :mod:`eql_d2.engines.d2.datasets`.

        Detectron2's own method has no place for another way of reading the file, so this is it
        for records without proposals and without semantic segmentation.

        Raises:
            DataError: the file cannot be read as an image, or has another size than the
                annotations say.
        """
        record = copy.deepcopy(dataset_dict)  # transforming the annotations changes them
        pixels = read_pixels(record["file_name"], (record["height"], record["width"]))
        if self.image_format == "BGR":
            pixels = pixels[:, :, ::-1]
        augmented = AugInput(pixels)
        transforms = self.augmentations(augmented)
        image = augmented.image
        record["image"] = torch.from_numpy(image.transpose(2, 0, 1).copy())
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, image.shape[:2])
        return record
