"""Detections of images, in the form that results files take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eql_d2.data import DetectionData
from eql_d2.engines.tv.progress import format_duration
from eql_d2.engines.tv.samples import TestImages, resize_pixels, shortest_edge_size, to_tensor
from eql_d2.engines.tv.settings import InputSettings, Settings
from eql_d2.evaluation import ImageDetections, ResultsWriter
from eql_d2.inference import encode_masks
from eql_d2.training_log import RESULTS_FILE

logger = logging.getLogger("eql_d2.engines.tv")

Predictor = Callable[[np.ndarray], ImageDetections]


def image_detections(
    output: dict[str, Tensor], size: tuple[int, int], original_size: tuple[int, int]
) -> ImageDetections:
    """Turn one image's output into boxes (xywh) and masks of the original image.

    Args:
        output: ``boxes`` (xyxy), ``scores``, ``labels`` and maybe ``masks``, pixels of ``size``.
        size: height and width at which the model saw the image.
        original_size: height and width of the image, pixels.
    """
    height, width = original_size
    boxes = output["boxes"].cpu().numpy().astype(np.float32)
    boxes = boxes * np.tile([width / size[1], height / size[0]], 2).astype(np.float32)
    masks = None
    if "masks" in output:
        masks = encode_masks(output["masks"], torch.from_numpy(boxes), height, width)
    corners_to_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return ImageDetections(
        corners_to_sides,
        output["scores"].cpu().numpy(),
        output["labels"].cpu().numpy(),
        masks,
    )


@torch.no_grad()
def write_results(
    model: nn.Module, data: DetectionData, settings: Settings, output_dir: Path
) -> Path:
    """Detect on every test image, one at a time, and stream the results file.

    Returns:
        path of the results file, which has its name only when it is complete.
    """
    images = TestImages(data.images, settings.input)
    loader = DataLoader(
        images,
        batch_size=None,
        num_workers=settings.loader.num_workers,
        # Its own generator: else an evaluation would change the training that goes on after it.
        generator=torch.Generator(),
    )
    device = torch.device(settings.device)
    path = output_dir / RESULTS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    logger.info(f"evaluation: {len(images)} images")
    with ResultsWriter(path, data.category_ids) as writer:
        for sample in _with_progress(loader, len(images)):
            (output,) = model([sample.image.to(device)])
            size = (sample.image.shape[1], sample.image.shape[2])
            writer.add(sample.image_id, image_detections(output, size, sample.original_size))
    model.train(was_training)
    return path


def _with_progress(loader: Iterable, total: int) -> Iterable:
    """Yield items, logging progress and time left about every 20 seconds."""
    start = last = time.monotonic()
    for done, item in enumerate(loader):
        now = time.monotonic()
        if now - last > 20:
            last = now
            left = (now - start) / done * (total - done)
            logger.info(f"evaluation {done}/{total} images  left {format_duration(left)}")
        yield item
    logger.info(f"evaluation: {total} images in {format_duration(time.monotonic() - start)}")


def predictor(model: nn.Module, settings: InputSettings, device: torch.device) -> Predictor:
    """Return a function from one ``(H, W, 3)`` uint8 RGB image to its detections."""
    model.eval()

    @torch.no_grad()
    def predict(pixels: np.ndarray) -> ImageDetections:
        height, width = pixels.shape[:2]
        size = shortest_edge_size(height, width, settings.min_size_test, settings.max_size_test)
        image = to_tensor(resize_pixels(pixels, size), settings.channel_order)
        (output,) = model([image.to(device)])
        return image_detections(output, size, (height, width))

    return predict
