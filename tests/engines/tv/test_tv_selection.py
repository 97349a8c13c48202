"""The choice of detections equals a plain search over all candidates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from eql_d2.engines.tv.selection import select_boxes
from eql_d2.inference import selection

CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
SIZE = (60, 80)


def random_case(seed, num_rois=40, num_classes=6, regressions=6):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_rois, 2, generator=generator) * 50
    sides = torch.rand(num_rois, 2, generator=generator) * 25 + 2
    proposals = torch.cat([corners, corners + sides], 1)
    scores = torch.rand(num_rois, num_classes, generator=generator) ** 3
    deltas = torch.randn(num_rois, regressions, 4, generator=generator) * 0.5
    return scores, deltas, proposals


def plain_search(scores, deltas, proposals, *, score_threshold, nms_threshold, max_detections):
    """Decode everything; walk down the scores and keep what overlaps nothing kept of its class."""
    candidates = []
    for roi in range(scores.shape[0]):
        for category in range(scores.shape[1]):
            if scores[roi, category] > score_threshold:
                column = category if deltas.shape[1] > 1 else 0
                box = CODER.decode(deltas[roi, column][None], [proposals[roi][None]])[0, 0]
                box = torch.stack([box[0::2].clamp(0, 80), box[1::2].clamp(0, 60)], 1).flatten()
                if box[2] - box[0] >= 0.01 and box[3] - box[1] >= 0.01:
                    candidates.append((float(scores[roi, category]), roi, category, box))
    candidates.sort(key=lambda c: -c[0])
    kept = []
    for candidate in candidates:
        rivals = [k[3] for k in kept if k[2] == candidate[2]]
        if rivals and box_iou(candidate[3][None], torch.stack(rivals)).max() > nms_threshold:
            continue
        kept.append(candidate)
    return kept[:max_detections]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("regressions", [6, 1])
@pytest.mark.parametrize("max_detections", [1, 7, 500])
def test_equals_a_plain_search(seed, regressions, max_detections):
    limits = {"score_threshold": 0.05, "nms_threshold": 0.4, "max_detections": max_detections}
    case = random_case(seed, regressions=regressions)
    found = select_boxes(*case, SIZE, CODER, **limits)
    wanted = plain_search(*case, **limits)
    assert len(wanted) == len(found.boxes)
    assert found.scores.tolist() == [w[0] for w in wanted]
    assert found.categories.tolist() == [w[2] for w in wanted]
    torch.testing.assert_close(found.boxes, torch.stack([w[3] for w in wanted]), rtol=0, atol=1e-5)


def test_looks_at_more_candidates_when_the_first_ones_suppress_each_other(monkeypatch):
    monkeypatch.setattr(selection, "CANDIDATES_PER_DETECTION", 1)
    limits = {"score_threshold": 0.0, "nms_threshold": 0.1, "max_detections": 12}
    case = random_case(1)
    case[2][:20] = case[2][0]  # twenty ROIs at one place
    case[0][:20] += 1.0  # and they are the best
    case[1][:] = 0
    found = select_boxes(*case, SIZE, CODER, **limits)
    wanted = plain_search(*case, **limits)
    assert found.scores.tolist() == [w[0] for w in wanted]
    assert found.categories.tolist() == [w[2] for w in wanted]


def test_decodes_few_of_many_candidates(monkeypatch):
    decoded = []
    decode = BoxCoder.decode
    monkeypatch.setattr(BoxCoder, "decode", lambda *a: (decoded.append(len(a[1])), decode(*a))[1])
    scores, deltas, proposals = random_case(0, num_rois=300, num_classes=100, regressions=1)
    found = select_boxes(
        *(scores, deltas, proposals, SIZE, CODER),
        **{"score_threshold": 1e-4, "nms_threshold": 0.5, "max_detections": 20},
    )
    assert len(found.boxes) == 20
    assert sum(decoded) <= 2000  # of almost 30,000 above the threshold


def test_nothing_above_the_threshold_gives_empty_tensors():
    scores, deltas, proposals = random_case(0)
    found = select_boxes(
        *(scores, deltas, proposals, SIZE, CODER),
        **{"score_threshold": 1.0, "nms_threshold": 0.5, "max_detections": 20},
    )
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.categories.shape == found.rois.shape == (0,)


def test_no_proposals_give_empty_tensors():
    found = select_boxes(
        *(torch.zeros(0, 6), torch.zeros(0, 6, 4), torch.zeros(0, 4), SIZE, CODER),
        **{"score_threshold": 0.1, "nms_threshold": 0.5, "max_detections": 20},
    )
    assert found.boxes.shape == (0, 4)


class Stub(RoIHeads):
    """torchvision's heads, of which only the post-processing is used."""

    def __init__(self, score_threshold, nms_threshold, max_detections):
        nn.Module.__init__(self)
        self.box_coder = CODER
        self.score_thresh = score_threshold
        self.nms_thresh = nms_threshold
        self.detections_per_img = max_detections


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    num_rois=st.integers(0, 60),
    num_classes=st.integers(1, 50),
    levels=st.sampled_from([0, 0, 2, 300]),
    odd_share=st.sampled_from([0.0, 0.01, 0.3]),
    score_threshold=st.sampled_from([0.0, 1e-4, 0.05]),
    nms_threshold=st.sampled_from([0.3, 0.5, 0.9]),
    max_detections=st.sampled_from([0, 1, 30, 300]),
)
def test_equals_torchvisions_post_processing(
    seed, num_rois, num_classes, levels, odd_share, **limits
):
    """Also for equal logits, numbers that are not finite and boxes without area."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rois, num_classes + 1, generator=generator) * 2
    if levels:
        logits = (logits * levels).round() / levels
    _, deltas, proposals = random_case(seed, num_rois, num_classes, num_classes + 1)
    proposals[::5, 2] = proposals[::5, 0]
    proposals[1::2] = proposals[: len(proposals) // 2 * 2 : 2]
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
    for tensor in (logits, deltas):
        places = torch.rand(tensor.shape, generator=generator) < odd_share / (num_classes + 1)
        tensor[places] = odd[torch.randint(4, (int(places.sum()),), generator=generator)]
    boxes, scores, labels = Stub(*limits.values()).postprocess_detections(
        logits, deltas.flatten(1), [proposals], [SIZE]
    )
    foreground = torch.softmax(logits, -1)[:, 1:]
    found = select_boxes(foreground, deltas[:, 1:], proposals, SIZE, CODER, **limits)
    assert torch.equal(found.boxes, boxes[0])
    assert torch.equal(found.scores, scores[0])
    assert torch.equal(found.categories, labels[0] - 1)
