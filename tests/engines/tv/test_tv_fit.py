"""A run that fits its data, and prediction from its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eql_d2.command_line import TrainOptions
from eql_d2.engines.tv import load_predictor, run
from eql_d2.errors import UserError


@pytest.fixture(scope="module")
def fitted(tiny_config, squares, tmp_path_factory):
    """A run that was trained until it fits the squares, and its metrics."""
    folder = tmp_path_factory.mktemp("fitted")
    overrides = [
        *(*squares.overrides, "OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", "100"),
        *("SOLVER.STEPS", "[80]", "SOLVER.BASE_LR", "0.02", "SOLVER.WARMUP_ITERS", "20"),
        *("SOLVER.IMS_PER_BATCH", "4", "MODEL.EQL.LOSS.LAMBDA", "0.4"),
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
    ]
    return folder, run(TrainOptions(str(tiny_config), overrides=tuple(overrides)))


def test_it_learns(fitted):
    _, metrics = fitted
    assert metrics["bbox/AP50"] > 90
    assert metrics["bbox/AP"] > 60
    assert metrics["segm/AP50"] > 90
    assert metrics["segm/AP"] > 60


def test_prediction_needs_the_checkpoint_only(fitted, squares):
    folder, _ = fitted
    predict = load_predictor(folder / "model_final.pth", device="cpu", score_threshold=0.3)
    document = json.loads(Path(squares.json).read_text())
    pixels = np.asarray(Image.open(f"{squares.images}/1.png"))
    found = predict(pixels)
    truth = [a for a in document["annotations"] if a["image_id"] == 101]
    wanted = sorted((3, 7, 20).index(a["category_id"]) for a in truth)
    assert sorted(found.categories[: len(truth)].tolist()) == wanted
    assert (found.scores > 0.3).all()
    assert found.masks[0]["size"] == [64, 64]
    assert len(load_predictor(folder, device="cpu", max_detections=1)(pixels)) == 1


def test_prediction_scales_with_the_image(fitted, squares):
    """An image of twice the size is found at twice the coordinates."""
    folder, _ = fitted
    predict = load_predictor(folder, device="cpu", score_threshold=0.5)
    image = Image.open(f"{squares.images}/1.png")
    small = predict(np.asarray(image))
    large = predict(np.asarray(image.resize((128, 128), Image.Resampling.NEAREST)))
    assert large.masks[0]["size"] == [128, 128]
    order = np.argsort(small.categories), np.argsort(large.categories)
    assert np.abs(small.boxes[order[0]] * 2 - large.boxes[order[1]]).max() < 8


def test_a_damaged_checkpoint_is_named(fitted, tmp_path):
    whole = (fitted[0] / "model_final.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.pth"):
        load_predictor(tmp_path / "half.pth", device="cpu")
