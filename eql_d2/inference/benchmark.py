"""Time of choosing detections and of encoding masks, beside a peer in the same run.

The inputs are made up, in the sizes of LVIS: 1000 ROIs, 1203 categories, threshold 1e-4, 300 kept.

Shape legend: R ROIs, K categories, N masks of M x M samples.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROIS, CATEGORIES, MASKS, MASK_SIDE = 1000, 1203, 300, 28
SCORE_THRESHOLD, NMS_THRESHOLD, MAX_DETECTIONS = 1e-4, 0.5, 300
IMAGE = (800, 1066)  # height and width at which a network sees a 480 x 640 image
ORIGINAL = (480, 640)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

# Mean and deviation of foreground logits: a new classifier with prior probability 0.001, and one
# that is sure of most pairs, of which a quarter pass the threshold.
LOGITS = {"fresh": (-6.9, 0.2), "trained": (-10.5, 2.0)}
# Pixels of the original image: the side of a mean box.
BOX_SIDES = {"small": 30.0, "medium": 80.0, "large": 200.0}


@dataclass(frozen=True)
class BoxCase:
    """What a box head gives for one image.

    Attributes:
        name: what it stands for.
        logits: (R, K) foreground logits.
        deltas: (R, 4 K) box regression.
        proposals: (R, 4) xyxy boxes, pixels.
    """

    name: str
    logits: Tensor
    deltas: Tensor
    proposals: Tensor


@dataclass(frozen=True)
class MaskCase:
    """What a mask head gives for one image: (N, M, M) samples and (N, 4) xyxy boxes."""

    name: str
    samples: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Comparison:
    """One thing done in two ways.

    Attributes:
        task: what is done.
        peer: who else does it.
        case: with what.
        number: candidates above the threshold, or masks.
        ours: the way of this package.
        theirs: the peer's.
    """

    task: str
    peer: str
    case: str
    number: int
    ours: Callable[[], Any]
    theirs: Callable[[], Any]


@dataclass(frozen=True)
class Measurement:
    """Medians of a :class:`Comparison` and whether both results are identical."""

    task: str
    peer: str
    case: str
    number: int
    seconds: float
    peer_seconds: float
    ratio: float
    identical: bool

    HEADER: ClassVar[str] = (
        f"{'task':7}{'peer':13}{'case':14}{'number':>9}{'peer ms':>11}{'ours ms':>10}"
        f"{'ratio':>8}  identical"
    )

    def row(self) -> str:
        """One line of the table under :attr:`HEADER`."""
        times = f"{self.peer_seconds * 1e3:11.1f}{self.seconds * 1e3:10.2f}{self.ratio:8.1f}"
        what = f"{self.task:7}{self.peer:13}{self.case:14}{self.number:9}"
        return f"{what}{times}  {'yes' if self.identical else 'NO'}"


def make_box_case(
    name: str, *, rois: int = ROIS, categories: int = CATEGORIES, ties: bool = False, seed: int = 0
) -> BoxCase:
    """Draw the output of a box head.

    Args:
        name: a key of :data:`LOGITS`.
        rois: R, in heaps of about 20 as a proposal network leaves them.
        categories: K.
        ties: round the logits as half precision does, so that many scores are equal.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = LOGITS[name]
    logits = torch.randn(rois, categories, generator=generator) * deviation + mean
    if ties:
        logits = logits.to(torch.float16).to(torch.float32)
    deltas = torch.randn(rois, 4 * categories, generator=generator) * 0.2
    place = torch.randint(-(-rois // 20), (rois,), generator=generator)
    limits = torch.tensor([IMAGE[1], IMAGE[0]], dtype=torch.float32)
    centres = (torch.rand(rois, 2, generator=generator) * limits)[place]
    centres = centres + torch.randn(rois, 2, generator=generator) * 15
    sides = torch.exp(torch.randn(rois, 2, generator=generator) * 0.8)[place] * 80
    sides = sides * torch.exp(torch.randn(rois, 2, generator=generator) * 0.2)
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    boxes = torch.minimum(boxes.clamp(min=0), limits.repeat(2))
    return BoxCase(f"{name}, ties" if ties else name, logits, deltas, boxes)


def make_mask_case(name: str, *, number: int = MASKS, seed: int = 0) -> MaskCase:
    """Draw smooth masks on boxes of log-normal sides; ``name`` is a key of :data:`BOX_SIDES`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 1, 7, 7, generator=generator) * 4
    samples = F.interpolate(coarse, size=MASK_SIDE, mode="bicubic").sigmoid()[:, 0]
    limits = torch.tensor([ORIGINAL[1], ORIGINAL[0]], dtype=torch.float32)
    sides = torch.exp(torch.randn(number, 2, generator=generator) * 0.6) * BOX_SIDES[name]
    sides = torch.minimum(sides, limits)
    corners = torch.rand(number, 2, generator=generator) * (limits - sides)
    return MaskCase(name, samples, torch.cat([corners, corners + sides], 1))


def box_cases() -> list[BoxCase]:
    """A new model, a trained one, and one whose best scores tie."""
    return [make_box_case("fresh"), make_box_case("trained"), make_box_case("trained", ties=True)]


def mask_cases() -> list[MaskCase]:
    """Boxes of three sizes."""
    return [make_mask_case(name) for name in BOX_SIDES]


def encode_whole(pictures: Tensor) -> list[dict[str, Any]]:
    """Encode (N, H, W) bool masks one by one with pycocotools, as evaluators do."""
    from pycocotools import mask as mask_api

    encoded = []
    for picture in pictures.cpu().numpy():
        rle = mask_api.encode(np.asfortranarray(picture, dtype=np.uint8))
        size = [int(side) for side in rle["size"]]
        encoded.append({"size": size, "counts": rle["counts"].decode("ascii")})
    return encoded


def measure(comparison: Comparison, *, repetitions: int, device: torch.device) -> Measurement:
    """Run both ways in turn, after one run of each that is compared and not timed."""
    identical = _equal(comparison.ours(), comparison.theirs())
    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(_seconds(comparison.ours, device))
        theirs.append(_seconds(comparison.theirs, device))
    seconds, peer_seconds = statistics.median(ours), statistics.median(theirs)
    return Measurement(
        comparison.task,
        comparison.peer,
        comparison.case,
        comparison.number,
        seconds,
        peer_seconds,
        peer_seconds / seconds,
        identical,
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _equal(ours: Any, theirs: Any) -> bool:
    """Compare lists of RLEs, or tuples of tensors."""
    if isinstance(ours, tuple):
        pairs = zip(ours, theirs, strict=True)
        return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    return bool(ours == theirs)
