"""The order of training images: a pure function of the seed, so that a resume continues it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from eql_d2.data import ImageRecord


def index_stream(num_images: int, seed: int, repeat_factors: Tensor | None = None) -> Iterator[int]:
    """Yield image indices without end, shuffled anew in each epoch.

    Args:
        num_images: how many there are.
        seed: of the shuffling.
        repeat_factors: ``(num_images,)`` float; an image occurs that often in an epoch on average,
            its fraction rounded at random anew each time. None: once.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        if repeat_factors is None:
            indices = torch.arange(num_images)
        else:
            whole = repeat_factors.floor()
            extra = torch.rand(num_images, generator=generator) < repeat_factors - whole
            indices = torch.repeat_interleave(whole.to(torch.int64) + extra)
        yield from indices[torch.randperm(len(indices), generator=generator)].tolist()


def repeat_factors(records: Sequence[ImageRecord], threshold: float, sqrt: bool) -> Tensor:
    """Return how often each image is to occur in an epoch.

    An image's factor is the largest of its categories', ``max(1, sqrt(threshold / f))``, where f is
    the share of images with that category. Source: LVIS (Gupta et al., CVPR 2019), appendix B.2.

    Args:
        records: annotated images.
        threshold: t, the share of images below which a category is repeated.
        sqrt: False leaves out the square root.

    Returns:
        ``(len(records),)`` float32, all at least 1.
    """
    present = [{x.category for x in r.instances if not x.iscrowd} for r in records]
    counts = Counter(category for categories in present for category in categories)
    factors = {}
    for category, count in counts.items():
        ratio = threshold / (count / len(records))
        factors[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
    return torch.tensor([max((factors[c] for c in x), default=1.0) for x in present])


def batch_stream(
    indices: Iterator[int], batch_size: int, group_of: Callable[[int], int] | None = None
) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of ``(position, index)``; the position counts all images drawn so far.

    Args:
        indices: stream of image indices.
        batch_size: images in a batch.
        group_of: images of different groups never share a batch (to save padding); each group's
            batch comes out when it is full. None: one group.
    """
    waiting: dict[int, list[tuple[int, int]]] = {}
    for position, index in enumerate(indices):
        group = group_of(index) if group_of else 0
        batch = waiting.setdefault(group, [])
        batch.append((position, index))
        if len(batch) == batch_size:
            yield waiting.pop(group)


def orientation(record: ImageRecord) -> int:
    """Return 1 for landscape images, else 0: the groups of ``ASPECT_RATIO_GROUPING``."""
    return int(record.width > record.height)
