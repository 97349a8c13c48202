"""What a checkpoint says of its model and categories, from somebody who means harm.

Each text and each table goes through ``tools/predict.py`` with weights that are good: one message,
no traceback, no memory, and nothing is written where the configuration says.
"""

import importlib.util
import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.checkpoint import METADATA_KEY, checkpoint_metadata
from eql_d2.command_line import run_tool
from eql_d2.config import load_config
from eql_d2.engines.tv.model import build_model as build_tv_model
from eql_d2.engines.tv.reading import read_settings
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.experiment import loss_from_config

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import build_model as build_d2_model
    from eql_d2.engines.d2.compat import get_cfg


TOOL = Path(__file__).parents[1] / "tools" / "predict.py"
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
ENGINES = [
    pytest.param("torchvision", id="torchvision"),
    pytest.param("detectron2", id="detectron2", marks=pytest.mark.detectron2),
]


def changed(**values):
    """The good configuration with other values: ``MODEL__FPN__OUT_CHANNELS=3``."""
    tree = yaml.safe_load(TINY)
    for name, value in values.items():
        *parents, leaf = name.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return yaml.safe_dump(tree)


def anchors(sizes, ratios=((1.0,),)):
    ratios = [list(one) for one in ratios]
    return changed(
        MODEL__ANCHOR_GENERATOR__SIZES=sizes, MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS=ratios
    )


LAUGHS = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30))
TEXTS = {
    # --- no configuration ------------------------------------------------------------------------
    "nothing": "",
    "text": "hello",
    "a list": "- 1\n- 2",
    "a number": "3",
    "no YAML": "MODEL: {",
    "zero bytes": "MODEL: \0",
    "binary": "\x1b[2J\x07",
    "brackets": "[" * 3000,
    "a megabyte": "# " + "x" * 10**6,
    # --- code and other files --------------------------------------------------------------------
    "a call": "!!python/object/apply:os.system ['touch ran']",
    "a call as a value": TINY + "OUTPUT_DIR: !!python/object/apply:os.system ['touch ran']\n",
    "an object": TINY + "OUTPUT_DIR: !!python/object/new:pathlib.Path ['ran']\n",
    "a name": TINY + "OUTPUT_DIR: !!python/name:os.system\n",
    "a module": TINY + "OUTPUT_DIR: !!python/module:antigravity\n",
    "a tuple": TINY + "SOLVER: {STEPS: !!python/tuple [1]}\n",
    "a tag of nobody": TINY + "OUTPUT_DIR: !mine x\n",
    "another file": TINY + "_BASE_: /etc/passwd\n",
    "another file of the network": TINY + "_BASE_: https://localhost/x.yaml\n",
    "other files": TINY + "_BASE_: [/etc/passwd, ~/x.yaml]\n",
    # --- tags that do not fit --------------------------------------------------------------------
    "an int that is none": TINY + "SEED: !!int ''\n",
    "a bool that is none": TINY + "SEED: !!bool x\n",
    "a time that is none": TINY + "SEED: !!timestamp x\n",
    "a date": TINY + "SEED: 2020-01-01\n",
    "a date that is none": TINY + "SEED: 2020-13-99\n",
    "a set": TINY + "SEED: !!set {1, 2}\n",
    "bytes": TINY + "SEED: !!binary aGVsbG8=\n",
    "a number of 10^4 digits": TINY + f"SEED: {'9' * 10_000}\n",
    "nested text": changed(MODEL__PIXEL_MEAN="[" * 50_000),
    "minus signs": changed(MODEL__PIXEL_MEAN="-" * 50_000 + "1"),
    # --- repetition ------------------------------------------------------------------------------
    "billions of laughs": "a0: &a0 [ha]\n" + LAUGHS + "\nMODEL: {PIXEL_MEAN: *a29}",
    "laughs in mappings": LAUGHS.replace("[", "{x: [").replace("]", "]}").replace("*a0", "1"),
    "merged laughs": "a: &a {x: 1}\nb: {<<: [*a, *a]}\n",
    "a list of itself": TINY + "SEED: &a [*a]\n",
    "a mapping of itself": TINY + "SEED: &a {x: *a}\n",
    "a mapping of itself as a group": "MODEL: &a {MODEL: *a}\n",
    "an anchor that is none": "MODEL: *a\n",
    "ten thousand keys": "\n".join(f"K{i}: 1" for i in range(10_000)),
    "a list of 10^5 numbers": changed(MODEL__PIXEL_MEAN=[1.0] * 50_000),
    # --- keys and types --------------------------------------------------------------------------
    "an unknown key": changed(MODEL__ROI_HEADS__NUM_CLASES=3),
    "an unknown group": changed(FOO__BAR=3),
    "a key that is a number": TINY + "7: 3\n",
    "a key that is a list": TINY + "? [a, b]\n: 3\n",
    "a key of 10^4 letters": TINY + f"{'x' * 10_000}: 1\n",
    "a number for a group": "MODEL: 3",
    "a list for a group": "MODEL: [1]",
    "a group for a number": TINY.replace("OUT_CHANNELS: 32", "OUT_CHANNELS: {X: 3}"),
    "a list for a number": changed(MODEL__FPN__OUT_CHANNELS=[32]),
    "a text for a number": changed(MODEL__FPN__OUT_CHANNELS="many"),
    "half a channel": changed(MODEL__FPN__OUT_CHANNELS=32.5),
    "a number for text": changed(MODEL__ROI_HEADS__NAME=3),
    "None for a number": changed(MODEL__FPN__OUT_CHANNELS=None),
    "text among numbers": changed(MODEL__PIXEL_MEAN=[1.0, 2.0, "x"]),
    # --- sizes -----------------------------------------------------------------------------------
    "10^8 classes": changed(MODEL__ROI_HEADS__NUM_CLASSES=10**8),
    "4 classes": changed(MODEL__ROI_HEADS__NUM_CLASSES=4),
    "no classes": changed(MODEL__ROI_HEADS__NUM_CLASSES=0),
    "as many classes as data": changed(MODEL__ROI_HEADS__NUM_CLASSES=-1),
    "a ResNet of 10^9 layers": changed(MODEL__RESNETS__DEPTH=10**9),
    "a ResNet of 19 layers": changed(MODEL__RESNETS__DEPTH=19),
    "10^9 channels": changed(MODEL__FPN__OUT_CHANNELS=10**9),
    "10^5 channels": changed(MODEL__FPN__OUT_CHANNELS=10**5),
    "no channels": changed(MODEL__FPN__OUT_CHANNELS=0),
    "-1 channels": changed(MODEL__FPN__OUT_CHANNELS=-1),
    "10^99 channels": changed(MODEL__FPN__OUT_CHANNELS=10**99),
    "a layer of 10^9": changed(MODEL__ROI_BOX_HEAD__FC_DIM=10**9),
    "a layer of 10^5": changed(MODEL__ROI_BOX_HEAD__FC_DIM=10**5),
    "10^7 layers": changed(MODEL__ROI_BOX_HEAD__NUM_FC=10**7),
    "10^5 layers": changed(MODEL__ROI_BOX_HEAD__NUM_FC=10**5),
    "10^5 narrow layers": changed(MODEL__ROI_BOX_HEAD__NUM_FC=10**5, MODEL__ROI_BOX_HEAD__FC_DIM=1),
    "-1 layers": changed(MODEL__ROI_BOX_HEAD__NUM_FC=-1),
    "10^5 convolutions": changed(MODEL__ROI_MASK_HEAD__NUM_CONV=10**5),
    "masks of 10^9 channels": changed(MODEL__ROI_MASK_HEAD__CONV_DIM=10**9),
    "10^5 groups": changed(MODEL__RESNETS__NUM_GROUPS=10**5),
    "a group of 10^5": changed(MODEL__RESNETS__WIDTH_PER_GROUP=10**5),
    "a stem of 10^5": changed(MODEL__RESNETS__STEM_OUT_CHANNELS=10**5),
    "boxes pooled to 10^6": changed(MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION=10**6),
    "masks pooled to 10^6": changed(MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION=10**6),
    "masks pooled to 0": changed(MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION=0),
    "10^9 samples a bin": changed(MODEL__ROI_BOX_HEAD__POOLER_SAMPLING_RATIO=10**9),
    "10^9 proposals": changed(MODEL__RPN__POST_NMS_TOPK_TEST=10**9),
    "10^9 candidates": changed(MODEL__RPN__PRE_NMS_TOPK_TEST=10**9),
    "-1 proposals": changed(MODEL__RPN__POST_NMS_TOPK_TEST=-1),
    "10^9 detections": changed(TEST__DETECTIONS_PER_IMAGE=10**9),
    "images of 10^9": changed(INPUT__MIN_SIZE_TEST=10**9, INPUT__MAX_SIZE_TEST=10**9),
    "images of -5": changed(INPUT__MIN_SIZE_TEST=-5),
    "a thousand anchors": anchors([[float(i) for i in range(1, 1000)]]),
    "other anchors on each level": anchors([[1.0], [2.0, 3.0], [4.0]]),
    "no anchors": anchors([[]]),
    "anchors without lists": anchors([1, 2, 3]),
    "anchors of NaN": anchors([[float("nan")]]),
    "anchors of a negative ratio": anchors([[8.0]], [[-1.0, 1.0, 2.0]]),
    "means of NaN": changed(MODEL__PIXEL_MEAN=[float("nan")] * 3),
    "infinite means": changed(MODEL__PIXEL_MEAN=[float("inf")] * 3),
    "two means": changed(MODEL__PIXEL_MEAN=[1.0, 2.0]),
    "NaN as a threshold": changed(MODEL__ROI_HEADS__NMS_THRESH_TEST=float("nan")),
    # --- names -----------------------------------------------------------------------------------
    "another architecture": changed(MODEL__META_ARCHITECTURE="os.system"),
    "another backbone": changed(MODEL__BACKBONE__NAME="os.system"),
    "another norm": changed(MODEL__RESNETS__NORM="os.system"),
    "other heads": changed(MODEL__ROI_HEADS__NAME="StandardROIHeads"),
    "another box head": changed(MODEL__ROI_BOX_HEAD__NAME="x"),
    "another loss": changed(MODEL__EQL__LOSS__NAME="eval"),
    "another pooler": changed(MODEL__ROI_BOX_HEAD__POOLER_TYPE="x"),
    "another level": changed(MODEL__RPN__IN_FEATURES=["p2", "p3", "x"]),
    "no level": changed(MODEL__ROI_HEADS__IN_FEATURES=[]),
    "a probability of 7": changed(MODEL__EQL__LOSS__PRIOR_PROB=7.0),
    "a threshold function of nobody": changed(MODEL__EQL__LOSS__THRESHOLD_FUNCTION="eval"),
}
# These could be built, but not with the weights of the file.
OTHER_MODELS = {
    "another ResNet": changed(MODEL__RESNETS__DEPTH=34),
    "a layer more": changed(MODEL__ROI_BOX_HEAD__NUM_FC=2),
    "wider layers": changed(MODEL__ROI_BOX_HEAD__FC_DIM=65),
    "other anchors": anchors([[16.0]]),
    "another loss": changed(MODEL__EQL__LOSS__NAME="SoftmaxCE"),
}
GOOD = STATISTICS.to_dict()
ROW = GOOD["categories"][0]
TABLES = {
    "nothing": {},
    "rows alone": {"categories": GOOD["categories"]},
    "no rows": {**GOOD, "categories": []},
    "rows that are a number": {**GOOD, "categories": 3},
    "rows that are text": {**GOOD, "categories": "cat"},
    "rows by name": {**GOOD, "categories": {"cat": ROW}},
    "rows that are tensors": {**GOOD, "categories": torch.zeros(3, 5)},
    "rows of text": {**GOOD, "categories": ["cat", "dog", "bird"]},
    "empty rows": {**GOOD, "categories": [{}, {}, {}]},
    "a row of itself": {**GOOD, "categories": [GOOD]},
    "two rows": {**GOOD, "categories": GOOD["categories"][:2]},
    "the same row thrice": {**GOOD, "categories": [ROW, ROW, ROW]},
    "a million rows": {**GOOD, "categories": [ROW] * 100_000},
    "no images": {**GOOD, "num_images": 0},
    "images as text": {**GOOD, "num_images": "510"},
    "images as NaN": {**GOOD, "num_images": float("nan")},
    "10^30 images": {**GOOD, "num_images": 10**30},
    "2^63 images": {**GOOD, "num_images": 2**63},
}


def row(**changes):
    return {**GOOD, "categories": [{**ROW, **changes}, *GOOD["categories"][1:]]}


TABLES |= {
    "a name that is a number": row(name=7),
    "a name that is a list": row(name=["cat"]),
    "a name that is None": row(name=None),
    "a name that is a tensor": row(name=torch.zeros(3)),
    "an id that is text": row(id="3"),
    "an id that is 1.5": row(id=1.5),
    "an id that is True": row(id=True),
    "an id of another row": row(id=17),
    "an id that is a list": row(id=[3]),
    "an id of 65 bits": row(id=2**64),
    "an id of 64 bits": row(id=2**63),
    "a negative count": row(image_count=-1),
    "negative instances": row(instance_count=-1),
    "a count of 10^18 images": row(image_count=10**18),
    "a count of 64 bits": row(instance_count=2**63),
    "a count that is text": row(image_count="5"),
    "a count that is NaN": row(image_count=float("nan")),
    "a count that is a tensor": row(image_count=torch.tensor([1, 2])),
    "a group of nobody": row(frequency="x"),
    "a group that is a list": row(frequency=["r"]),
}
METADATA = {
    "a list": lambda m: [m],
    "text": lambda m: "torchvision",
    "a tensor": lambda m: torch.zeros(3),
    "no configuration": lambda m: {k: v for k, v in m.items() if k != "config"},
    "a configuration that is a dictionary": lambda m: {**m, "config": {"MODEL": {}}},
    "a configuration that is bytes": lambda m: {**m, "config": b"MODEL: {}"},
    "an engine of nobody": lambda m: {**m, "engine": "os"},
    "an engine that is a list": lambda m: {**m, "engine": ["torchvision"]},
    "an engine that is a tensor": lambda m: {**m, "engine": torch.zeros(3)},
    "format 10^18": lambda m: {**m, "format": 10**18},
    "a format that is text": lambda m: {**m, "format": "1"},
    "statistics that are a list": lambda m: {**m, "statistics": [1]},
    "the other engine": lambda m: {
        **m,
        "engine": "detectron2" if m["engine"] == "torchvision" else "torchvision",
    },
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Function from an engine to good weights for the good configuration."""
    folder = tmp_path_factory.mktemp("weights")
    file = folder / "tiny.yaml"
    file.write_text(TINY)
    made = {}

    def of(engine):
        if engine not in made:
            torch.manual_seed(0)
            if engine == "torchvision":
                cfg = load_config(file)
                mask = STATISTICS.tail_mask(cfg.MODEL.EQL.LOSS.LAMBDA)
                loss = loss_from_config(cfg, STATISTICS)
                model = build_tv_model(read_settings(cfg), loss, mask)
            else:
                cfg = load_config(file, defaults=get_cfg())
                cfg.MODEL.EQL.STATISTICS = str(write_statistics(STATISTICS, folder))
                model = build_d2_model(cfg)
            made[engine] = model.state_dict()
        return made[engine]

    return of


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Function that saves weights with any metadata, and predicts from them."""
    spec = importlib.util.spec_from_file_location("predict_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (128, 128, 128)).save(tmp_path / "image.png")

    def run(metadata, model):
        torch.save({"model": model, METADATA_KEY: metadata}, tmp_path / "model.pth")
        arguments = "--weights model.pth --input image.png --output out --device cpu"
        return tool.main(arguments.split())

    return run


def good_metadata(engine, config=TINY):
    return checkpoint_metadata(config, STATISTICS, engine)


def refusal(predict, tmp_path, metadata, model=None):
    with pytest.raises(UserError) as refused:
        predict(metadata, model or {"weight": torch.zeros(3)})
    message = str(refused.value)
    assert len(message) < 12_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.png", "model.pth"]
    return message


def test_there_are_more_than_a_hundred():
    assert len(TEXTS) + len(OTHER_MODELS) + len(TABLES) + len(METADATA) > 130


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TEXTS)
def test_hostile_configurations(predict, tmp_path, engine, name):
    message = refusal(predict, tmp_path, good_metadata(engine, TEXTS[name]))
    assert "the configuration in model.pth" in message


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OTHER_MODELS)
def test_configurations_of_other_models(predict, tmp_path, weights, engine, name):
    metadata = good_metadata(engine, OTHER_MODELS[name])
    assert "model.pth" in refusal(predict, tmp_path, metadata, weights(engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TABLES)
def test_hostile_categories(predict, tmp_path, engine, name):
    message = refusal(predict, tmp_path, {**good_metadata(engine), "statistics": TABLES[name]})
    assert "model.pth" in message
    assert "fit" not in message, "it was not the weights"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METADATA)
def test_hostile_metadata(predict, tmp_path, engine, name):
    assert "model.pth" in refusal(predict, tmp_path, METADATA[name](good_metadata(engine)))


@pytest.mark.parametrize("engine", ENGINES)
def test_all_problems_are_named_at_once(predict, tmp_path, engine):
    text = changed(
        MODEL__ROI_HEADS__NUM_CLASES=3, MODEL__FPN__OUT_CHANNELS="many", TEST__DETECTIONS=5
    )
    message = refusal(predict, tmp_path, good_metadata(engine, text))
    for part in (
        "3 problems",
        "did you mean MODEL.ROI_HEADS.NUM_CLASSES?",
        "MODEL.FPN.OUT_CHANNELS must be a whole number",
        "unknown key TEST.DETECTIONS",
        "the configuration in model.pth",
    ):
        assert part in message


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_written_where_the_configuration_says(predict, tmp_path, weights, engine):
    """And none of the files that it names is needed."""
    text = changed(
        OUTPUT_DIR=str(tmp_path / "theirs"),
        MODEL__WEIGHTS="/nowhere/weights.pth",
        MODEL__EQL__STATISTICS="/nowhere/train.json",
        DATA__TRAIN_JSON="/nowhere/train.json",
        DATA__GENERATE="longtail_shapes",
        DATA__LONGTAIL_SHAPES__DIR=str(tmp_path / "shapes"),
    )
    assert predict(good_metadata(engine, text), weights(engine)) == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["image.png", "model.pth", "out"]
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["cat", "dog", "bird"]


def test_the_exit_code_is_2(predict, capsys):
    with pytest.raises(SystemExit) as left:
        run_tool(lambda: predict(good_metadata("torchvision", "- 1"), {}))
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "error: the configuration in model.pth must hold a mapping of keys, got a list\n"
    )
