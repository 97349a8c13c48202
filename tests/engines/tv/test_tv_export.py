"""A traced model detects on another image what the model itself does, or says that it cannot."""

import pytest
import torch

from eql_d2.losses import build_loss

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
CATEGORIES = 60  # with these ROIs more pairs above the threshold than batched_nms takes at once


class Flat(torch.nn.Module):
    """One image's detections as a tuple, which is what traces return."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        (found,) = self.model([image])
        return found["boxes"], found["scores"], found["labels"], found["masks"]


@pytest.fixture
def flat_of(model_of):
    @torch.no_grad()
    def make(loss, threshold, *overrides):
        fraction = torch.linspace(0.001, 0.6, CATEGORIES, dtype=torch.float64)
        model = model_of(
            *("MODEL.ROI_HEADS.NUM_CLASSES", CATEGORIES, "TEST.DETECTIONS_PER_IMAGE", 30),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", threshold, *overrides),
            *("MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 1000),
            loss=build_loss(loss, image_fraction=fraction, lambda_=0.1, prior_prob=0.04),
        )
        predictor = model.roi_heads.box_predictor
        features = []
        hook = predictor.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        Flat(model.eval())(noise(0))
        hook.remove()
        # Logits of a spread of one: sigmoids that are 1 would be ties, whose order is no promise.
        spread = float(features[0].std()) * features[0].shape[1] ** 0.5
        torch.nn.init.normal_(predictor.cls_score.weight, std=1 / spread)
        torch.nn.init.normal_(predictor.bbox_pred.weight, std=1 / spread)
        return Flat(model)

    return make


def noise(seed, height=64, width=96):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator).float()
    image[:, : seed * 20] /= 4
    return image


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "threshold", "pooler"),
    [
        ("EQL", 1e-4, "ROIAlignV2"),
        ("EQL", 0.05, "ROIAlignV2"),
        ("EQL", 1e-4, "ROIAlign"),
        ("SoftmaxCE", 1e-4, "ROIAlignV2"),
        ("SEQL", 0.02, "ROIAlign"),
    ],
)
@torch.no_grad()
def test_a_traced_model_detects_the_same_on_another_image(flat_of, loss, threshold, pooler):
    keys = ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MODEL.ROI_MASK_HEAD.POOLER_TYPE")
    model = flat_of(loss, threshold, *(x for key in keys for x in (key, pooler)))
    traced = torch.jit.trace(model, (noise(0),), check_trace=False)
    for image in (noise(0), noise(1), noise(2)):
        assert_same(traced(image), model(image))
    assert len(model(noise(1))[0]) > 5


@torch.no_grad()
def test_a_trace_fits_none_one_and_many_detections(flat_of):
    """A trace made with one detection held the shape of one."""
    model = flat_of("EQL", 0.0)
    images = [noise(seed) for seed in range(3)]
    best = sorted((float(model(image)[1][0]), i) for i, image in enumerate(images))
    none, one, many = (images[i] for _, i in best)
    model.model.roi_heads.score_thresh = (best[0][0] + best[1][0]) / 2
    assert not len(model(none)[0])
    second = float(model(one)[1][1]) if len(model(one)[0]) > 1 else 0.0
    model.model.roi_heads.score_thresh = max(model.model.roi_heads.score_thresh, second)
    assert len(model(one)[0]) == 1
    for example in (one, many, none):
        traced = torch.jit.trace(model, (example,), check_trace=False)
        for image in images:
            assert_same(traced(image), model(image))


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 64), (80, 96)])
@torch.no_grad()
def test_a_traced_model_refuses_an_image_of_another_size(flat_of, size):
    """It would clip boxes to the size it was traced with."""
    traced = torch.jit.trace(flat_of("EQL", 1e-4), (noise(0),), check_trace=False)
    with pytest.raises(RuntimeError, match="must match the existing size"):
        traced(noise(1, *size))
