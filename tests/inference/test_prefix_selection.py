"""Selection on a prefix equals threshold, batched_nms and cut over all candidates, to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, nms, remove_small_boxes

from eql_d2.inference import selection
from eql_d2.inference.selection import SHIFTED_UP_TO, select_detections

LIMIT = SHIFTED_UP_TO["cpu"]


def make_case(seed, rois, categories, *, levels=0, nan_share=0.0, places=12):
    """Scores (R, K) and boxes (R, K, 4) around a few places; ``levels`` scores make ties."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rois, categories, generator=generator) ** 3
    if levels:
        scores = (scores * levels).ceil() / levels
    centres = torch.rand(places, 2, generator=generator) * 300
    place = torch.randint(places, (rois,), generator=generator)
    noise = torch.randn(rois, categories, 4, generator=generator) * 6
    sides = torch.rand(rois, 1, 2, generator=generator) * 60
    corners = centres[place][:, None] + noise[..., :2]
    boxes = torch.cat([corners, corners + (sides + noise[..., 2:]).clamp(min=0)], dim=2)
    for tensor in (scores, boxes):
        missing = torch.rand(tensor.shape, generator=generator) < nan_share
        tensor[missing] = float("nan")
    return scores, boxes


def select(scores, boxes, **options):
    return select_detections(scores, lambda rois, categories: boxes[rois, categories], **options)


def peer(
    scores, boxes, *, score_threshold, nms_threshold, max_detections, min_side=None, first_label=0
):
    """Every candidate through torchvision's batched_nms."""
    rois, categories = torch.where(scores > score_threshold)
    boxes, values = boxes[rois, categories], scores[rois, categories]
    if min_side is not None:
        large = remove_small_boxes(boxes, min_side)
        boxes, values, rois, categories = (x[large] for x in (boxes, values, rois, categories))
    kept = batched_nms(boxes, values, categories + first_label, nms_threshold)
    kept = kept[:max_detections] if max_detections >= 0 else kept
    return boxes[kept], values[kept], categories[kept], rois[kept]


def assert_same(found, wanted):
    for name, theirs in zip(("boxes", "scores", "categories", "rois"), wanted, strict=True):
        mine = getattr(found, name)
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name


cases = {
    "seed": st.integers(0, 2**31),
    "rois": st.integers(0, 60),
    "categories": st.integers(1, 60),
    "levels": st.sampled_from([0, 0, 1, 3, 50, 1000]),
    "score_threshold": st.sampled_from([0.0, 1e-4, 0.05, 0.9, -1.0, 2.0]),
    "nms_threshold": st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    "max_detections": st.sampled_from([-1, 0, 1, 5, 30, 300, 10_000]),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(**cases)
def test_equals_the_peer(seed, rois, categories, levels, **options):
    scores, boxes = make_case(seed, rois, categories, levels=levels)
    assert_same(select(scores, boxes, **options), peer(scores, boxes, **options))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    nan_share=st.sampled_from([0.0, 0.01, 0.5]),
    min_side=st.sampled_from([0.01, 5.0, 40.0]),
    first_label=st.sampled_from([0, 1]),
    **cases,
)
def test_equals_the_peer_with_small_and_undefined_boxes(
    seed, rois, categories, levels, nan_share, **options
):
    scores, boxes = make_case(seed, rois, categories, levels=levels, nan_share=nan_share)
    assert_same(select(scores, boxes, **options), peer(scores, boxes, **options))


OPTIONS = {"score_threshold": 1e-4, "nms_threshold": 0.5, "max_detections": 20}


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_both_sides_of_the_size_at_which_the_peer_changes_its_ways(extra):
    """Overlaps are the threshold's to within the rounding of the shift between categories."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(LIMIT + extra, 1, 2, generator=generator) * 1300
    boxes = torch.cat([corners, corners + 90.0], 2)
    boxes[1::2] = boxes[: (LIMIT + extra) // 2 * 2 : 2]
    boxes[1::2, :, 0] += 30.0  # IoU 60 / 120 with the one before, give or take
    boxes[1::2, :, 2] += 30.0
    scores = torch.rand(LIMIT + extra, 1, generator=generator) + 0.1
    options = OPTIONS | {"max_detections": LIMIT, "first_label": 1202}
    assert_same(select(scores, boxes, **options), peer(scores, boxes, **options))


def test_the_two_ways_of_the_peer_differ_on_that_case():
    """Else the test above would not tell one from the other."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(400, 2, generator=generator) * 1300
    boxes = torch.cat([corners, corners + 90.0], 1)
    boxes[1::2] = boxes[::2] + torch.tensor([30.0, 0, 30, 0])
    scores = torch.rand(400, generator=generator)
    shifted = batched_nms(boxes, scores, torch.full((400,), 1202), 0.5)
    assert sorted(shifted.tolist()) != sorted(nms(boxes, scores, 0.5).tolist())


def test_looks_at_more_candidates_when_the_first_ones_suppress_each_other(monkeypatch):
    monkeypatch.setattr(selection, "CANDIDATES_PER_DETECTION", 1)
    scores, boxes = make_case(1, 400, 6)
    boxes[:200] = boxes[0, 0]  # half of the ROIs at one place
    scores[:200] += 1.0  # and they are the best
    decoded = []

    def decode(rois, categories):
        decoded.append(len(rois))
        return boxes[rois, categories]

    found = select_detections(scores, decode, **OPTIONS)
    assert decoded[0] == 20
    assert len(decoded) > 2
    assert_same(found, peer(scores, boxes, **OPTIONS))


def test_looks_at_few_of_many_candidates():
    scores, boxes = make_case(0, 300, 100, places=200)
    decoded = []

    def decode(rois, categories):
        decoded.append(len(rois))
        return boxes[rois, categories]

    found = select_detections(scores, decode, **OPTIONS)
    assert_same(found, peer(scores, boxes, **OPTIONS))
    assert sum(decoded) <= 1000, "of 30,000"


def test_ties_cost_one_pass_over_all_candidates_or_stand_by_place():
    scores, boxes = make_case(3, 60, 60, levels=40)
    decoded = []

    def decode(rois, categories):
        decoded.append(len(rois))
        return boxes[rois, categories]

    exact = select_detections(scores, decode, **OPTIONS)
    assert decoded[-1] == int((scores > 1e-4).sum())
    assert_same(exact, peer(scores, boxes, **OPTIONS))
    decoded.clear()
    by_place = select_detections(scores, decode, **OPTIONS, exact_ties=False)
    assert max(decoded) < 1000
    assert torch.equal(by_place.scores, exact.scores)
    place = by_place.rois * 60 + by_place.categories
    tied = by_place.scores[1:] == by_place.scores[:-1]
    assert tied.any()
    assert (place[1:] > place[:-1])[tied].all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(**cases)
def test_by_place_equals_a_stable_search(seed, rois, categories, levels, **options):
    scores, boxes = make_case(seed, rois, categories, levels=levels)
    found = select(scores, boxes, **options, exact_ties=False)
    everything = peer(scores, boxes, **options | {"max_detections": -1})
    order = torch.sort(everything[3] * categories + everything[2]).indices  # by place ...
    order = order[torch.sort(everything[1][order], descending=True, stable=True).indices]
    wanted = options["max_detections"]
    order = order[:wanted] if wanted >= 0 else order
    assert_same(found, [x[order] for x in everything])


def test_infinite_scores_come_first_and_undefined_ones_never():
    scores, boxes = make_case(5, 50, 40)
    scores[7, 3], scores[8] = float("inf"), float("nan")
    found = select(scores, boxes, **OPTIONS)
    assert (found.rois[0], found.categories[0]) == (7, 3)
    assert 8 not in found.rois
    assert_same(found, peer(scores, boxes, **OPTIONS))


def test_inputs_stay_as_they_are():
    scores, boxes = make_case(6, 50, 40, levels=9, nan_share=0.1)
    before = scores.clone(), boxes.clone()
    select(scores, boxes, **OPTIONS, min_side=1.0)
    assert torch.equal(scores.nan_to_num(-1), before[0].nan_to_num(-1))
    assert torch.equal(boxes.nan_to_num(-1), before[1].nan_to_num(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_choose_the_same_candidates(dtype):
    """Only the choice: the peer compares boxes of the scores' type."""
    scores, boxes = make_case(7, 60, 50, levels=300)
    scores, boxes = scores.to(dtype), boxes.to(dtype)
    if dtype in (torch.float16, torch.bfloat16):
        flat = scores.reshape(-1)
        found = selection._best_candidates(flat, 200, 3000, 0.0)
        wanted = torch.sort(flat, descending=True, stable=True).indices[:200]
        assert torch.equal(found, wanted)
    else:
        assert_same(select(scores, boxes, **OPTIONS), peer(scores, boxes, **OPTIONS))
