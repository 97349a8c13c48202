"""predict.py: the engine comes from the checkpoint, the names too; exit codes are kept."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.categories import CategoryStatistics
from eql_d2.checkpoint import METADATA_KEY, checkpoint_metadata
from eql_d2.errors import MissingPackageError, UserError

TOOL = Path(__file__).parents[2] / "tools" / "predict.py"
STATISTICS = CategoryStatistics.from_counts(
    names=["cat", "dog", "bird"],
    category_ids=[3, 17, 90],
    image_count=[500, 50, 5],
    instance_count=[900, 60, 5],
    num_images=510,
)
TINY = """
MODEL:
  DEVICE: cpu
  MASK_ON: true
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: BN, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: [p2, p3, p4], PRE_NMS_TOPK_TEST: 50, POST_NMS_TOPK_TEST: 20}
  ROI_HEADS: {NAME: EQLROIHeads, IN_FEATURES: [p2, p3], NUM_CLASSES: 3}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 64, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD:
    {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 32, POOLER_RESOLUTION: 14}
  EQL: {LOSS: {NAME: EQL, LAMBDA: 0.05}}
INPUT: {MIN_SIZE_TEST: 64, FORMAT: RGB}
TEST: {DETECTIONS_PER_IMAGE: 5}
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("predict_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeEngine:
    """Finds one dog everywhere, and remembers how it was asked."""

    def load_predictor(self, checkpoint, *, device, score_threshold):
        self.arguments = (checkpoint, device, score_threshold)
        return lambda pixels: SimpleNamespace(
            boxes=np.array([[1.0, 1.0, 8.0, 6.0]]),
            scores=np.array([0.8]),
            categories=np.array([1]),
            masks=None,
        )


@pytest.fixture
def fake(tool, monkeypatch):
    engine = FakeEngine()
    monkeypatch.setattr(tool, "detectron2_problem", lambda: None)
    original = importlib.import_module
    monkeypatch.setattr(
        tool.importlib,
        "import_module",
        lambda name: engine if name.startswith("eql_d2.engines.") else original(name),
    )
    return engine


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (48, 40), (128, 128, 128)).save(folder / name)
    return folder


def write_checkpoint(folder, engine="torchvision", config="", model=None):
    folder.mkdir(exist_ok=True)
    metadata = checkpoint_metadata(config, STATISTICS, engine)
    torch.save({"model": model or {}, METADATA_KEY: metadata}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
    return folder


def arguments(tmp_path, weights, images, *more):
    paths = ["--weights", weights, "--input", images, "--output", tmp_path / "out", *more]
    return [str(p) for p in paths]


@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_a_folder_with_either_engine(tool, fake, tmp_path, images, engine, capsys):
    run = write_checkpoint(tmp_path / "run", engine)
    assert tool.main(arguments(tmp_path, run, images)) == 0
    assert fake.arguments == (run / "model_final.pth", "auto", 0.3)
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["cat", "dog", "bird"]
    assert [a["category_id"] for a in content["annotations"]] == [17, 17]
    assert len(list((tmp_path / "out").glob("*_prediction.png"))) == 2
    printed = capsys.readouterr().out
    assert f"{engine}, 3 categories; 2 images" in printed
    assert "2 objects in 2 images, 0 images skipped" in printed


def test_the_engine_of_the_checkpoint_is_imported(tool, monkeypatch):
    asked = []
    monkeypatch.setattr(tool, "detectron2_problem", lambda: None)
    monkeypatch.setattr(tool.importlib, "import_module", asked.append)
    tool.load_engine("torchvision", Path("x.pth"))
    tool.load_engine("detectron2", Path("x.pth"))
    assert asked == ["eql_d2.engines.tv", "eql_d2.engines.d2"]


def test_flags_reach_the_engine(tool, fake, tmp_path, images):
    run = write_checkpoint(tmp_path / "run")
    more = ("--score-threshold", "0.05", "--device", "cpu")
    assert tool.main(arguments(tmp_path, run / "model_final.pth", images / "a.png", *more)) == 0
    assert fake.arguments == (run / "model_final.pth", "cpu", 0.05)


def test_bad_images_are_skipped(tool, fake, tmp_path, images, capsys):
    (images / "a.png").write_text("broken")
    run = write_checkpoint(tmp_path / "run")
    assert tool.main(arguments(tmp_path, run, images)) == 0
    assert "1 objects in 1 images, 1 images skipped" in capsys.readouterr().out


def test_no_readable_image_is_an_error(tool, fake, tmp_path, images):
    for image in images.iterdir():
        image.write_text("broken")
    run = write_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"none of 2 images could be read, first: .*a\.png"):
        tool.main(arguments(tmp_path, run, images))


def test_detectron2_is_asked_for_with_its_install_line(tool, tmp_path, images, monkeypatch):
    monkeypatch.setattr(tool, "detectron2_problem", lambda: "Detectron2 is not installed")
    run = write_checkpoint(tmp_path / "run", "detectron2")
    with pytest.raises(MissingPackageError, match=r"not installed\. Install it with: pip install"):
        tool.main(arguments(tmp_path, run, images))


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "high"])
def test_a_wrong_threshold_is_a_usage_error(tool, tmp_path, images, value):
    with pytest.raises(SystemExit) as error:
        tool.main(arguments(tmp_path, tmp_path, images, f"--score-threshold={value}"))
    assert error.value.code == 2


def test_exit_code_2_without_traceback(tmp_path, images):
    command = [sys.executable, str(TOOL), *arguments(tmp_path, tmp_path / "gone.pth", images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: checkpoint ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def tiny_run(tmp_path):
    """An output folder of the torchvision engine with a small randomly initialised model."""
    from eql_d2.config import load_config
    from eql_d2.engines.tv.model import build_model
    from eql_d2.engines.tv.reading import read_settings
    from eql_d2.losses import build_loss

    (tmp_path / "tiny.yaml").write_text(TINY)
    cfg = load_config(tmp_path / "tiny.yaml")
    torch.manual_seed(0)
    loss = build_loss("EQL", image_fraction=STATISTICS.image_fraction, lambda_=0.05)
    model = build_model(read_settings(cfg), loss, STATISTICS.tail_mask(0.05))
    return write_checkpoint(tmp_path / "run", "torchvision", cfg.dump(), model.state_dict())


def test_torchvision_engine_from_the_checkpoint_alone(tool, tmp_path, tiny_run, images):
    importlib.import_module("torchvision")
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(noise).save(images / "noise.png")
    more = ("--score-threshold", "0", "--device", "cpu")
    assert tool.main(arguments(tmp_path, tiny_run, images, *more)) == 0
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    assert sizes == {1: (40, 48), 2: (40, 48), 3: (70, 90)}
    found = [a for a in content["annotations"] if a["image_id"] == 3]
    assert 1 <= len(found) <= 5
    for annotation in found:
        x, y, width, height = annotation["bbox"]
        assert annotation["category_id"] in STATISTICS.category_ids
        assert annotation["segmentation"]["size"] == [70, 90]
        assert min(x, y) >= 0
        assert x + width <= 90.01
        assert y + height <= 70.01
    with Image.open(tmp_path / "out" / "noise_png_prediction.png") as picture:
        assert picture.size == (90 * 6, 70 * 6)
