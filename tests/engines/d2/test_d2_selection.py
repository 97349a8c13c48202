"""Detections are those of Detectron2's own inference, to the bit; NaN and ties included."""

import copy
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

with suppress(ImportError):
    from detectron2.modeling.roi_heads import fast_rcnn as detectron2

    from eql_d2.engines.d2.compat import (
        Box2BoxTransform,
        Boxes,
        CascadeROIHeads,
        FastRCNNOutputLayers,
        Instances,
        build_model,
    )
    from eql_d2.engines.d2.selection import Limits, fast_rcnn_inference, select_instances

pytestmark = pytest.mark.detectron2

SHAPE = (200, 260)
ODD = (float("nan"), float("inf"), -float("inf"), 1e30, -3e38)

cases = {
    "seed": st.integers(0, 2**31),
    "rois": st.integers(0, 60),
    "categories": st.integers(1, 50),
    "levels": st.sampled_from([0, 0, 1, 3, 1000]),
    "odd_share": st.sampled_from([0.0, 0.0, 0.001, 0.05]),
    "agnostic": st.booleans(),
    "limits": st.tuples(
        st.sampled_from([0.0, 1e-4, 0.05, 0.9]),
        st.sampled_from([0.3, 0.5, 0.9]),
        st.sampled_from([-1, 0, 1, 30, 300]),
    ),
}


def scatter_odd(tensor, share, generator):
    places = torch.rand(tensor.shape, generator=generator) < share
    choice = torch.randint(len(ODD), tensor.shape, generator=generator)
    return torch.where(places, torch.tensor(ODD)[choice], tensor)


def make_case(seed, rois, categories, levels, odd_share, agnostic):
    """Scores (R, K), deltas (R, 4K or 4) and proposals (R, 4) at a few places of the image."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rois, categories, generator=generator) ** 3
    if levels:
        scores = (scores * levels).ceil() / levels
    deltas = torch.randn(rois, 4 * (1 if agnostic else categories), generator=generator) * 0.3
    places = torch.rand(10, 2, generator=generator) * 200
    centre = places[torch.randint(10, (rois,), generator=generator)]
    half = torch.rand(rois, 2, generator=generator) * 40
    proposals = torch.cat([centre - half, centre + half], 1).clamp(0, 200)
    scores, deltas = (scatter_odd(x, odd_share, generator) for x in (scores, deltas))
    return scores, deltas, scatter_odd(proposals, odd_share / 10, generator)


def as_proposals(boxes, shape=SHAPE):
    proposals = Instances(shape)
    proposals.proposal_boxes = Boxes(boxes)
    return proposals


def with_background(scores):
    return torch.cat([scores, scores.new_zeros(len(scores), 1)], 1)


def assert_same(found, wanted):
    (mine, my_rois), (theirs, their_rois) = found, wanted
    assert mine.image_size == theirs.image_size
    assert list(mine.get_fields()) == list(theirs.get_fields())
    assert torch.equal(mine.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(mine.scores, theirs.scores)
    assert torch.equal(mine.pred_classes, theirs.pred_classes)
    assert torch.equal(my_rois, their_rois)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(**cases)
def test_decoding_and_selecting_equals_detectron2(limits, **case):
    scores, deltas, proposals = make_case(**case)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    boxes = transform.apply_deltas(deltas, proposals)
    wanted = detectron2.fast_rcnn_inference([boxes], [with_background(scores)], [SHAPE], *limits)
    found = select_instances(scores, deltas, as_proposals(proposals), transform, Limits(*limits))
    assert_same(found, (wanted[0][0], wanted[1][0]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(background=st.sampled_from([0.0, 0.7, float("nan"), float("inf")]), **cases)
def test_the_function_stands_in_for_detectron2s(limits, background, **case):
    scores, _, proposals = make_case(**case)
    boxes = proposals.repeat(1, 1 if case["agnostic"] else case["categories"])
    boxes = scatter_odd(boxes, case["odd_share"], torch.Generator().manual_seed(1))
    scores = with_background(scores)
    scores[::7, -1] = background
    before = boxes.clone(), scores.clone()
    arguments = ([boxes, boxes[:5]], [scores, scores[:5]], [SHAPE, (90, 90)], *limits)
    found, wanted = fast_rcnn_inference(*arguments), detectron2.fast_rcnn_inference(*arguments)
    for pair in range(2):
        assert_same(*((x[0][pair], x[1][pair]) for x in (found, wanted)))
    for now, then in zip((boxes, scores), before, strict=True):
        assert torch.equal(now.nan_to_num(7), then.nan_to_num(7)), "the input was edited"


def test_odd_numbers_do_occur():
    """Else the tests above compared rows that are all finite, or none."""
    scores, deltas, proposals = make_case(3, 60, 50, 0, 0.001, False)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    finite = transform.apply_deltas(deltas, proposals).isfinite().all(1) & scores.isfinite().all(1)
    assert 5 < int(finite.sum()) < 55
    # An infinite width delta is clamped, and its box finite: such a row stays.
    deltas[:, :] = 0
    deltas[4, 2] = float("inf")
    limits = Limits(-1.0, 1.0, -1)
    scores, proposals = scores.nan_to_num(0, 0, 0), proposals.nan_to_num(0, 9, 9).clamp(0, 99)
    _, rois = select_instances(scores, deltas, as_proposals(proposals), transform, limits)
    assert 4 in rois


def test_lvis_size():
    """1203 categories: few of 120,000 candidates are decoded, and nothing is different."""
    case = {"levels": 0, "odd_share": 0.0, "agnostic": False}
    scores, deltas, proposals = make_case(11, 100, 1203, **case)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    limits = (1e-4, 0.5, 300)
    boxes = transform.apply_deltas(deltas, proposals)
    wanted = detectron2.fast_rcnn_inference([boxes], [with_background(scores)], [SHAPE], *limits)
    decoded = []

    class Counting(Box2BoxTransform):
        def apply_deltas(self, deltas, boxes):
            decoded.append(deltas.numel() // 4)
            return super().apply_deltas(deltas, boxes)

    counting = Counting((10.0, 10.0, 5.0, 5.0))
    found = select_instances(scores, deltas, as_proposals(proposals), counting, Limits(*limits))
    assert_same(found, (wanted[0][0], wanted[1][0]))
    assert sum(decoded) < 0.2 * scores.numel()


def test_the_output_layer_infers_as_detectron2s(tiny_cfg):
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1e-4
    heads = build_model(tiny_cfg).roi_heads.eval()
    layer = heads.box_predictor
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 5, generator=generator) * 2
    deltas = torch.randn(400, 20, generator=generator)
    proposals = [
        as_proposals(make_case(seed, count, 1, 0, 0.0, True)[2])
        for seed, count in ((1, 250), (2, 0), (3, 150))
    ]
    found = layer.inference((logits, deltas), proposals)
    wanted = FastRCNNOutputLayers.inference(layer, (logits, deltas), proposals)
    assert len(found[0]) == len(wanted[0]) == 3
    for pair in range(3):
        assert_same(*((x[0][pair], x[1][pair]) for x in (found, wanted)))
    assert len(wanted[1][0]) > 5


@pytest.mark.parametrize("threshold", [1e-4, 0.02])
def test_a_cascade_infers_as_detectron2s(tiny_cfg, threshold):
    tiny_cfg.MODEL.ROI_HEADS.NAME = "EQLCascadeROIHeads"
    tiny_cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    tiny_cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS = [tiny_cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS[0]]
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
    torch.manual_seed(4)
    heads = build_model(tiny_cfg).roi_heads.eval()
    for predictor in heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.3)
        torch.nn.init.constant_(predictor.cls_score.bias, -2.0)
    features = {name: torch.randn(1, 32, 64 // s, 64 // s) for name, s in heads_strides(heads)}
    proposals = [as_proposals(make_case(5, 300, 1, 0, 0.0, True)[2] / 4, (64, 64))]
    with torch.no_grad():
        (found,) = heads._forward_box(features, copy.deepcopy(proposals))
        (wanted,) = CascadeROIHeads._forward_box(heads, features, copy.deepcopy(proposals))
    assert len(wanted) > 5
    nothing = torch.zeros(0)
    assert_same((found, nothing), (wanted, nothing))


def heads_strides(heads):
    scales = heads.box_pooler.level_poolers
    return zip(heads.box_in_features, (round(1 / p.spatial_scale) for p in scales), strict=True)
