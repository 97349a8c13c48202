"""Test images through the model, detections to disk, and from there to the one results file.

Every process writes its detections to a shard of its own; nothing is gathered over the network.
Whoever joins the shards needs neither model nor GPU, so the other processes may be gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eql_d2.data import encode_rle
from eql_d2.engines.d2.compat import DatasetEvaluator, Instances
from eql_d2.errors import UserError
from eql_d2.evaluation import ImageDetections, ResultsWriter, concatenate_results

RESULTS_FILE = Path("inference") / "lvis_instances_results.json"


def image_detections(instances: Instances) -> ImageDetections:
    """Convert one image's output of Detectron2, in the image's own pixels, to plain arrays."""
    boxes = instances.pred_boxes.tensor.detach().cpu().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    masks = None
    if instances.has("pred_masks"):
        masks = [encode_rle(mask) for mask in instances.pred_masks.cpu().numpy()]
    return ImageDetections(
        boxes=boxes,
        scores=instances.scores.detach().cpu().numpy(),
        categories=instances.pred_classes.cpu().numpy(),
        masks=masks,
    )


class DetectionWriter(DatasetEvaluator):
    """Hands each image's detections to a :class:`ResultsWriter`; scores nothing."""

    def __init__(self, writer: ResultsWriter) -> None:
        """Write to ``writer``, which the caller opens and closes."""
        self._writer = writer

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add the detections of a batch."""
        for image, output in zip(inputs, outputs, strict=True):
            self._writer.add(image["image_id"], image_detections(output["instances"]))


def shard_path(directory: str | Path, rank: int, world_size: int) -> Path:
    """Return where process ``rank`` of ``world_size`` leaves its detections."""
    return Path(directory) / f"shard_{rank:05d}_of_{world_size:05d}.json"


def join_shards(directory: str | Path, world_size: int) -> Path:
    """Join the shards of all processes into the results file beside them, and delete them.

    The order is that of one process, since each holds a contiguous part of the test set.

    Returns:
        the results file.

    Raises:
        UserError: a shard is missing.
    """
    directory = Path(directory)
    shards = [shard_path(directory, rank, world_size) for rank in range(world_size)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {world_size} processes left no detections in {directory} (first: "
            f"{missing[0]}); on several machines OUTPUT_DIR must be a folder they all share"
        )
    path = directory / RESULTS_FILE.name
    if world_size == 1:
        shards[0].replace(path)
        return path
    concatenate_results(shards, path)
    for shard in shards:
        shard.unlink()
    return path
