"""From an annotated image on disk to the tensors that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eql_d2.data import ImageRecord, Instance, decode_mask, read_pixels
from eql_d2.engines.tv.settings import InputSettings

# Boxes that are thinner than this after resizing have no usable regression target. Pixels.
MIN_BOX_SIZE = 1e-3


@dataclass(frozen=True)
class Sample:
    """One image ready for the model.

    Attributes:
        image_id: id in the annotation file.
        image: ``(3, H, W)`` float32, 0..255, channels in the configured order.
        original_size: height and width before resizing, pixels.
        target: ``boxes`` ``(n, 4)`` xyxy, ``labels`` ``(n,)`` in 0..K-1, ``masks`` ``(n, H, W)``
            uint8 where wanted; empty for test images.
    """

    image_id: int
    image: Tensor
    original_size: tuple[int, int]
    target: dict[str, Tensor]

    def pin_memory(self) -> Sample:
        """Return a copy in page-locked memory; data loaders call this before a copy to a GPU."""
        target = {name: value.pin_memory() for name, value in self.target.items()}
        return replace(self, image=self.image.pin_memory(), target=target)


class TrainingImages(Dataset[Sample]):
    """Resized and flipped training images.

    Indexed by ``(position, index)``: the position in the whole training decides the random numbers,
    so augmentation is the same for any number of workers and after a resume.

    Args:
        records: annotated images.
        settings: sizes, flip, channel order.
        seed: of the augmentation.
        with_masks: decode masks too.
    """

    def __init__(
        self, records: Sequence[ImageRecord], settings: InputSettings, seed: int, with_masks: bool
    ) -> None:
        self._records = records
        self._settings = settings
        self._seed = seed
        self._with_masks = with_masks

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        position, index = item
        record, settings = self._records[index], self._settings
        random = np.random.default_rng([self._seed, position])
        size = training_size(record.height, record.width, settings, random)
        flip = settings.flip if random.random() < 0.5 else "none"
        pixels = flip_array(_resized(record, size), flip)
        target = training_target(record, size, flip, self._with_masks)
        return Sample(
            record.image_id,
            to_tensor(pixels, settings.channel_order),
            (record.height, record.width),
            target,
        )


class TestImages(Dataset[Sample]):
    """Resized test images without annotations."""

    __test__ = False  # not a test case for pytest

    def __init__(self, records: Sequence[ImageRecord], settings: InputSettings) -> None:
        self._records = records
        self._settings = settings

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record, settings = self._records[index], self._settings
        original = (record.height, record.width)
        size = shortest_edge_size(*original, settings.min_size_test, settings.max_size_test)
        pixels = _resized(record, size)
        return Sample(record.image_id, to_tensor(pixels, settings.channel_order), original, {})


def shortest_edge_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Return the size at which the shorter side is ``shortest`` and none is above ``longest``.

    Rounds as Detectron2's ``ResizeShortestEdge``, but never to 0 pixels. 0 for ``shortest`` keeps
    the size.
    """
    if shortest == 0:
        return height, width
    scale = shortest / min(height, width)
    # In this order, because halves are rounded up and each product may miss one by a last bit.
    if height < width:
        sides = (float(shortest), scale * width)
    else:
        sides = (scale * height, float(shortest))
    if max(sides) > longest:
        scale = longest / max(sides)
        sides = (sides[0] * scale, sides[1] * scale)
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def training_size(
    height: int, width: int, settings: InputSettings, random: np.random.Generator
) -> tuple[int, int]:
    """Draw the size of a training image: one of the sizes, or any between two of them."""
    sizes = settings.min_sizes_train
    if settings.sample_size_in_range:
        shortest = int(random.integers(sizes[0], sizes[1] + 1))
    else:
        shortest = int(random.choice(sizes))
    return shortest_edge_size(height, width, shortest, settings.max_size_train)


def _resized(record: ImageRecord, size: tuple[int, int]) -> np.ndarray:
    """Read an image and resize it to the wanted ``(height, width)``."""
    return resize_pixels(read_pixels(record.path, (record.height, record.width)), size)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``(H, W, 3)`` uint8 bilinearly (anti-aliased) to ``(height, width)``."""
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def to_tensor(pixels: np.ndarray, channel_order: str) -> Tensor:
    """Turn ``(H, W, 3)`` uint8 RGB into ``(3, H, W)`` float32, 0..255, in "RGB" or "BGR" order."""
    if channel_order == "BGR":
        pixels = pixels[:, :, ::-1]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(torch.float32)


def flip_array(array: np.ndarray, flip: str) -> np.ndarray:
    """Flip ``(H, W, ...)``: "horizontal", "vertical" or "none"."""
    if flip == "none":
        return array
    return array[:, ::-1] if flip == "horizontal" else array[::-1]


def training_target(
    record: ImageRecord, size: tuple[int, int], flip: str, with_masks: bool
) -> dict[str, Tensor]:
    """Return the targets of an image, resized and flipped; crowds and slivers are left out."""
    height, width = size
    boxes = scaled_boxes(record, size)
    kept = [
        i
        for i, instance in enumerate(record.instances)
        if not instance.iscrowd and (boxes[i, 2:] - boxes[i, :2] > MIN_BOX_SIZE).all()
    ]
    boxes = boxes[kept]
    if flip == "horizontal":
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    elif flip == "vertical":
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    instances = [record.instances[i] for i in kept]
    target = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.tensor([x.category for x in instances], dtype=torch.int64),
    }
    if with_masks:
        masks = np.zeros((len(instances), height, width), np.uint8)
        for place, instance in zip(masks, instances, strict=True):
            place[:] = flip_array(scaled_mask(instance, record, size), flip)
        target["masks"] = torch.from_numpy(masks)
    return target


def scaled_boxes(record: ImageRecord, size: tuple[int, int]) -> np.ndarray:
    """Return ``(n, 4)`` float32 xyxy boxes in the resized image, clipped to it."""
    boxes = np.array([x.bbox for x in record.instances], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= np.tile([size[1] / record.width, size[0] / record.height], 2).astype(np.float32)
    return np.clip(boxes, 0, np.array([size[1], size[0]] * 2, np.float32))


def scaled_mask(instance: Instance, record: ImageRecord, size: tuple[int, int]) -> np.ndarray:
    """Decode one mask and resize it to ``size`` (nearest neighbour)."""
    mask = decode_mask(instance.segmentation, record.height, record.width)
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
