"""From a predicted mask on a box to the run-length encoding of the mask of the image.

Two ways to paste, each identical to a peer to the last pixel:

* :func:`encode_masks`: bilinear samples at the image's pixel centres, at least 0.5, as Detectron2's
  ``paste_masks_in_image``; both engines of this package use it.
* :func:`encode_masks_like_torchvision`: box corners cut to whole pixels and the mask resized to
  them, above 0.5, as torchvision's Mask R-CNN does.

Shape legend: N masks of M x M samples; a crop has h rows and w columns of the image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eql_d2.inference.run_lengths import Crops, encode_crops

THRESHOLD = 0.5
# Pixels pasted at once, which bounds the memory; several bytes each.
CHUNK_PIXELS = 2**24
# Values this close to the threshold, for each of M samples along a side, are computed again as the
# peer does. Coordinates in 0..M go through about 20 roundings of float32, each way and axis taken
# together, and a value moves by no more than its coordinates do; the rest is for the products.
DOUBT_PER_SAMPLE = 32 * 2.0**-24

Floats = NDArray[np.float32]


def encode_masks(
    probabilities: Tensor, boxes: Tensor, height: int, width: int
) -> list[dict[str, Any]]:
    """Paste masks at pixel centres and encode them: pixels whose value is at least 0.5.

    Bilinear sampling is separable, so a crop is two small matrix products. Their rounding is not
    that of ``grid_sample``; the few pixels where this may matter are sampled again with it.

    Args:
        probabilities: (N, M, M) or (N, 1, M, M), the mask on its box, 0 to 1.
        boxes: (N, 4) xyxy, pixels of the image.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        N dictionaries ``{"size": [height, width], "counts": str}``.

    Raises:
        ValueError: a probability is above 1, shapes do not fit, or masks are not square.
    """
    samples = _square_masks(probabilities, boxes)
    if len(samples) and bool((samples > 1).any()):
        raise ValueError(f"probabilities must be at most 1, got {float(samples.max())}")
    boxes = boxes.detach().to(samples.device)
    edges = boxes.cpu().to(torch.float32).numpy()
    corners = np.concatenate([np.floor(edges[:, :2]), np.ceil(edges[:, 2:])], axis=1)
    encoded: list[dict[str, Any]] = []
    for part in _chunks(_crops(corners, height, width)):
        crops = _crops(corners[part], height, width)
        encoded += _encode_centres(samples[part], boxes[part], edges[part], crops)
    return encoded


def encode_masks_like_torchvision(
    probabilities: Tensor, boxes: Tensor, height: int, width: int
) -> list[dict[str, Any]]:
    """Encode ``paste_masks_in_image(probabilities, boxes, (height, width)) > 0.5`` of torchvision.

    Arguments, result and errors are those of :func:`encode_masks`.
    """
    samples = _square_masks(probabilities, boxes)
    num_samples = samples.shape[-1]
    samples = F.pad(samples, (1, 1, 1, 1))
    scale = (num_samples + 2) / num_samples
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    whole = torch.cat([centre - half, centre + half], 1).detach().to(torch.int64).cpu().numpy()
    corners = whole + np.array([0, 0, 1, 1])
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    encoded: list[dict[str, Any]] = []
    for part in _chunks(_crops(corners, height, width)):
        crops = _crops(corners[part], height, width)
        flat, views = crops.buffer()
        for sample, corner, left, top, view in zip(
            samples[part], corners[part], crops.left, crops.top, views, strict=True
        ):
            if view.size:
                sides = (int(corner[3] - corner[1]), int(corner[2] - corner[0]))
                resized = F.interpolate(sample[None, None], size=sides, mode="bilinear")[0, 0]
                above = (resized.detach() > THRESHOLD).cpu().numpy().T
                x, y = left - corner[0], top - corner[1]
                view[:] = above[x : x + view.shape[0], y : y + view.shape[1]]
        encoded += encode_crops(flat, crops)
    return encoded


def _square_masks(probabilities: Tensor, boxes: Tensor) -> Tensor:
    masks = probabilities[:, 0] if probabilities.ndim == 4 else probabilities
    if (
        (probabilities.ndim == 4 and probabilities.shape[1] != 1)
        or masks.ndim != 3
        or masks.shape[1] != masks.shape[2]
        or boxes.shape != (len(masks), 4)
    ):
        raise ValueError(
            "expected probabilities (N, M, M) or (N, 1, M, M) and boxes (N, 4), got "
            f"{tuple(probabilities.shape)} and {tuple(boxes.shape)}"
        )
    return masks.detach()


def _crops(corners: NDArray[Any], height: int, width: int) -> Crops:
    far = 2.0**31  # a crop is cut to the image anyway; keeps inf and huge boxes in int64
    edges = np.clip(np.nan_to_num(corners, nan=0.0), -far, far).astype(np.int64)
    return Crops.from_edges(edges, height, width)


def _chunks(crops: Crops) -> list[slice]:
    """Cut the masks into groups of about ``CHUNK_PIXELS`` pixels."""
    group = np.maximum(crops.stops - 1, 0) // CHUNK_PIXELS
    starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    return [slice(a, b) for a, b in pairwise(starts) if a < b]


def _encode_centres(
    samples: Tensor, boxes: Tensor, edges: Floats, crops: Crops
) -> list[dict[str, Any]]:
    flat, views = crops.buffer()
    surely, sure_views = crops.buffer()
    arrays = samples.to(torch.float32).cpu().numpy()
    plain = np.isfinite(arrays).all((1, 2)) & np.isfinite(edges).all(1)
    plain &= (edges[:, 2:] > edges[:, :2]).all(1)
    if samples.dtype not in (torch.float32, torch.float64):
        plain[:] = False  # the peer samples at coordinates of half precision
    doubt = DOUBT_PER_SAMPLE * arrays.shape[-1]
    low, high = np.float32(THRESHOLD - doubt), np.float32(THRESHOLD + doubt)
    across = _weights(crops.left, crops.columns, edges[:, 0], edges[:, 2], arrays.shape[-1])
    down = _weights(crops.top, crops.rows, edges[:, 1], edges[:, 3], arrays.shape[-1])
    for i in np.flatnonzero(crops.columns).tolist():
        if plain[i]:
            values = across[i] @ (arrays[i].T @ down[i].T)
            np.greater_equal(values, low, out=views[i])
            np.greater_equal(values, high, out=sure_views[i])
        else:
            views[i][:] = True
    doubtful = np.flatnonzero(flat != surely)
    if len(doubtful):
        flat[doubtful] = _sampled(samples, boxes, *crops.locate(doubtful))
    return encode_crops(flat, crops)


def _weights(
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    start: Floats,
    stop: Floats,
    num_samples: int,
) -> list[Floats]:
    """For each mask (pixels, M) linear interpolation weights along one axis.

    Outside the outermost samples a mask falls off to 0.
    """
    stops = np.cumsum(count)
    place = np.arange(stops[-1] if len(stops) else 0) - np.repeat(stops - count, count)
    centres = (place + np.repeat(first, count)).astype(np.float32) + np.float32(0.5)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        positions = (centres - np.repeat(start, count)) / np.repeat(stop - start, count)
        positions = positions * np.float32(num_samples) - np.float32(0.5)
        weights = np.abs(positions[:, None] - np.arange(num_samples, dtype=np.float32))
    np.subtract(1, weights, out=weights)
    np.maximum(weights, 0, out=weights)
    return np.split(weights, stops[:-1])


def _sampled(
    samples: Tensor,
    boxes: Tensor,
    mask: NDArray[np.int64],
    column: NDArray[np.int64],
    row: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether pixels are in their masks, by the operations of Detectron2's pasting."""
    found = np.empty(len(mask), dtype=np.bool_)
    starts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
    x = torch.from_numpy(column).to(samples.device, torch.float32) + 0.5
    y = torch.from_numpy(row).to(samples.device, torch.float32) + 0.5
    for a, b in pairwise(starts):
        index = int(mask[a])
        x0, y0, x1, y1 = boxes[index]
        grid = torch.stack(
            [(x[a:b] - x0) / (x1 - x0) * 2 - 1, (y[a:b] - y0) / (y1 - y0) * 2 - 1], dim=1
        )
        image = samples[index][None, None]
        values = F.grid_sample(image, grid[None, None].to(image.dtype), align_corners=False)
        found[a:b] = (values[0, 0, 0] >= THRESHOLD).cpu().numpy()
    return found
