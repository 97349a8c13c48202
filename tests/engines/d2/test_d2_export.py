"""Exported models detect on another image what the model itself does, as stock heads' exports do.

Detectron2's own ways are taken (``tests/test_export_torchscript.py`` there): ``TracingAdapter`` and
``scripting_with_instances``. Stock cascades cannot be scripted, and no GeneralizedRCNN passes
``torch.export``; there ours stop where stock models do.
"""

from contextlib import suppress

import pytest
import torch
from torch import Tensor

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.errors import MissingPackageError

with suppress(ImportError, MissingPackageError):
    from detectron2.export import TracingAdapter, scripting_with_instances
    from detectron2.utils.testing import convert_scripted_instances, reload_script_model

    from eql_d2.engines.d2.compat import Boxes, FastRCNNOutputLayers, Instances, build_model

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning"),
]

CATEGORIES = 60  # with these ROIs more pairs above the threshold than batched_nms takes at once
FIELDS = ("pred_boxes", "scores", "pred_classes", "pred_masks")


@pytest.fixture
def model_of(tiny_cfg, tmp_path):
    """Function from heads, loss and threshold to a model with scores that are spread out."""
    counts = [max(1, 600 // (k + 1)) for k in range(CATEGORIES)]
    statistics = CategoryStatistics.from_counts(
        names=[f"thing {k}" for k in range(CATEGORIES)],
        category_ids=range(CATEGORIES),
        image_count=counts,
        instance_count=counts,
        num_images=1000,
    )

    def make(heads="EQLROIHeads", loss="EQL", threshold=1e-4):
        cfg = tiny_cfg
        cfg.MODEL.EQL.STATISTICS = str(write_statistics(statistics, tmp_path))
        cfg.MODEL.EQL.LOSS.NAME, cfg.MODEL.EQL.LOSS.LAMBDA = loss, 0.02
        cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 200, 1000
        cfg.MODEL.ROI_HEADS.NAME = heads
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = CATEGORIES
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = "Cascade" in heads
        cfg.TEST.DETECTIONS_PER_IMAGE = 30
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        predictors = model.roi_heads.box_predictor
        for predictor in predictors if "Cascade" in heads else [predictors]:
            torch.nn.init.normal_(predictor.cls_score.weight, std=0.01)
            torch.nn.init.constant_(predictor.cls_score.bias, -2.0)
            torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.01)
        return model

    return make


def images():
    """Two images that differ in size and in their number of proposals."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(0, 256, (3, 64, 96), generator=generator).float()
    second = torch.randint(0, 256, (3, 80, 64), generator=generator).float()
    second[:, :40] /= 4
    return first, second


def detect(model, *batch):
    inputs = [{"image": image} for image in batch]
    return model.inference(inputs, do_postprocess=False)[0]


def assert_same(found, wanted):
    assert len(found) == len(wanted) > 5
    for field in FIELDS:
        one, other = (x.get(field) for x in (found, wanted))
        one, other = (x.tensor if isinstance(x, Boxes) else x for x in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=lambda m, f=field: f + m)


@torch.no_grad()
def traced(model, image):
    """Return a function from an image to what the model traced on ``image`` detects."""
    wrapper = TracingAdapter(model, (image,), detect).eval()
    trace = torch.jit.trace(wrapper, (image,), check_trace=False)
    return lambda other: wrapper.outputs_schema(trace(other))


@pytest.mark.parametrize(
    ("heads", "threshold"),
    [
        ("EQLROIHeads", 1e-4),
        ("EQLROIHeads", 0.05),
        ("EQLCascadeROIHeads", 1e-4),
        ("EQLCascadeROIHeads", 0.05),
        ("StandardROIHeads", 1e-4),  # else the test asks more than stock heads give
    ],
)
@torch.no_grad()
def test_a_traced_model_detects_the_same_on_another_image(model_of, heads, threshold):
    model = model_of(heads, threshold=threshold)
    first, second = images()
    counts = [len(model.proposal_generator(*rpn_inputs(model, i))[0][0]) for i in (first, second)]
    assert counts[0] != counts[1], "a number baked into the trace would go unnoticed"
    run = traced(model, first)
    assert_same(run(second), detect(model, second))
    assert_same(run(first), detect(model, first))


def rpn_inputs(model, image):
    batch = model.preprocess_image([{"image": image}])
    return batch, model.backbone(batch.tensor)


@pytest.mark.parametrize("loss", ["SoftmaxCE", "SEQL"])
@torch.no_grad()
def test_a_trace_holds_the_scores_of_every_loss(model_of, loss):
    model = model_of(loss=loss)
    first, second = images()
    assert_same(traced(model, first)(second), detect(model, second))


@pytest.mark.parametrize(
    ("heads", "loss"),
    [
        ("EQLROIHeads", "EQL"),
        ("EQLROIHeads", "SigmoidCE"),
        ("EQLROIHeads", "SoftmaxCE"),
        ("EQLROIHeads", "SEQL"),
        ("StandardROIHeads", "EQL"),
    ],
)
@torch.no_grad()
def test_a_scripted_model_detects_the_same(model_of, heads, loss):
    model = model_of(heads, loss)
    script = scripted(model)
    first, second = images()
    for batch in ([first, second], [second]):
        assert_same(convert_scripted_instances(detect(script, *batch)), detect(model, *batch))


def scripted(model):
    fields = {
        "proposal_boxes": Boxes,
        "objectness_logits": Tensor,
        "pred_boxes": Boxes,
        "scores": Tensor,
        "pred_classes": Tensor,
        "pred_masks": Tensor,
    }
    return reload_script_model(scripting_with_instances(model, fields))


def test_a_cascade_cannot_be_scripted_as_stock_ones_cannot(model_of):
    for heads in ("CascadeROIHeads", "EQLCascadeROIHeads"):
        with pytest.raises(RuntimeError, match=r"_forward_box' is being compiled"):
            scripted(model_of(heads))


class Inference(torch.nn.Module):
    """One image's detections from ROI features and proposals, for ``torch.export``."""

    def __init__(self, predictor, method):
        super().__init__()
        self.predictor, self.method = predictor, method

    def forward(self, features, boxes):
        proposals = Instances((64, 96))
        proposals.proposal_boxes = Boxes(boxes)
        ((found,), _) = self.method(self.predictor, self.predictor(features), [proposals])
        return found.pred_boxes.tensor, found.scores, found.pred_classes


@torch.no_grad()
def test_torch_export_stops_where_it_stops_for_the_stock_layer(model_of):
    """At Detectron2's branch on whether all boxes are finite: no number of the example stays."""
    predictor = model_of().roi_heads.box_predictor
    for method in (FastRCNNOutputLayers.inference, type(predictor).inference):
        example = torch.randn(7, 32), torch.rand(7, 4)
        with pytest.raises(RuntimeError, match="data-dependent") as caught:
            torch.export.export(Inference(predictor, method), example, strict=False)
        assert "valid_mask.all()" in str(caught.value)
