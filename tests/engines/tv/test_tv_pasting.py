"""Pasting a mask equals bilinear sampling of the whole image."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eql_d2.engines.tv.pasting import paste_mask


def sampled_everywhere(probabilities, box, height, width):
    """grid_sample of the mask at every pixel centre, zero outside."""
    x0, y0, x1, y1 = (float(v) for v in box)
    xs = (torch.arange(width, dtype=torch.float64) + 0.5 - x0) / (x1 - x0) * 2 - 1
    ys = (torch.arange(height, dtype=torch.float64) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]
    mask = torch.from_numpy(probabilities).double()[None, None]
    return F.grid_sample(mask, grid, align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("seed", range(20))
def test_equals_grid_sample(seed):
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(-10, 40, 2)
    box = np.array([x0, y0, x0 + rng.uniform(0.5, 50), y0 + rng.uniform(0.5, 50)], np.float32)
    probabilities = rng.random((28, 28)).astype(np.float32)
    wanted = sampled_everywhere(probabilities, box, 48, 56)
    found = paste_mask(probabilities, box, 48, 56)
    assert found.shape == (48, 56)
    assert found.dtype == np.uint8
    clear = np.abs(wanted - 0.5) > 1e-4
    assert np.array_equal(found[clear], (wanted >= 0.5)[clear])
    assert clear.mean() > 0.99


def test_a_full_mask_fills_its_box():
    found = paste_mask(np.ones((28, 28), np.float32), np.array([4.0, 6, 14, 26]), 40, 40)
    wanted = np.zeros((40, 40), np.uint8)
    wanted[6:26, 4:14] = 1
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "box", [[50, 50, 60, 60], [-9, -9, -2, -2], [5, 5, 5, 5], [7, 3, 7, 20], [40, 0, 40, 9]]
)
def test_boxes_outside_or_without_area_give_no_pixels(box):
    found = paste_mask(np.ones((28, 28), np.float32), np.array(box, np.float32), 40, 40)
    assert found.shape == (40, 40)
    assert found.sum() == 0
