"""Test images through the model, detections to disk, and from there to the one results file.

Every process writes its detections to a shard of its own; nothing is gathered over the network.
Whoever joins the shards needs neither model nor GPU, so the other processes may be gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from eql_d2.engines.d2.compat import DatasetEvaluator, Instances, detector_postprocess
from eql_d2.errors import UserError
from eql_d2.evaluation import ImageDetections, ResultsWriter, concatenate_results
from eql_d2.inference import encode_masks
from eql_d2.training_log import RESULTS_FILE


class RawDetections(nn.Module):
    """A detector whose output still has the masks as samples on their boxes.

    Detectron2 pastes each into a picture as large as the image, only to encode that; here they are
    encoded from their boxes, by :func:`image_detections`.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap ``model``, a GeneralizedRCNN."""
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, batch: list[dict[str, Any]]) -> list[Instances]:
        """Return each image's detections in pixels of the image as the model saw it."""
        return self.model.inference(batch, do_postprocess=False)  # type: ignore[operator]


def image_detections(instances: Instances, height: int, width: int) -> ImageDetections:
    """Scale one image's raw detections to the original image and encode their masks.

    Boxes and masks are those of Detectron2's ``detector_postprocess``, to the bit.

    Args:
        instances: an output of :class:`RawDetections`; stays as it is.
        height: of the original image, pixels.
        width: of the original image, pixels.
    """
    fields = dict(instances.get_fields())
    fields["pred_boxes"] = fields["pred_boxes"].clone()  # is scaled in place
    if "pred_masks" in fields:
        fields["mask_samples"] = fields.pop("pred_masks")  # under its own name it is pasted
    scaled = detector_postprocess(Instances(instances.image_size, **fields), height, width)
    corners = scaled.pred_boxes.tensor.detach()
    masks = None
    if scaled.has("mask_samples"):
        masks = encode_masks(scaled.mask_samples, corners, height, width)
    boxes = corners.cpu().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    return ImageDetections(
        boxes=boxes,
        scores=scaled.scores.detach().cpu().numpy(),
        categories=scaled.pred_classes.cpu().numpy(),
        masks=masks,
    )


class DetectionWriter(DatasetEvaluator):
    """Hands each image's detections to a :class:`ResultsWriter`; keeps and scores nothing."""

    def __init__(self, writer: ResultsWriter) -> None:
        """Write to ``writer``, which the caller opens and closes."""
        self._writer = writer

    def process(self, inputs: list[dict[str, Any]], outputs: list[Instances]) -> None:
        """Add the detections of a batch, an output of :class:`RawDetections`."""
        for image, output in zip(inputs, outputs, strict=True):
            height = image.get("height", output.image_size[0])
            width = image.get("width", output.image_size[1])
            self._writer.add(image["image_id"], image_detections(output, height, width))


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
