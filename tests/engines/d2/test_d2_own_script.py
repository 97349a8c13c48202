"""Our heads in somebody's own Detectron2 program, beside stock parts that must not notice."""

from contextlib import suppress

import pytest
import torch
import yaml

from eql_d2 import config
from eql_d2.data import generate_longtail_shapes, load_detection_data
from eql_d2.errors import ConfigError, MissingPackageError

with suppress(MissingPackageError):
    from eql_d2 import add_eql_config
    from eql_d2.engines.d2 import register
    from eql_d2.engines.d2.compat import DatasetCatalog, DefaultTrainer, build_model, get_cfg

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    train_json, train_images, *_ = generate_longtail_shapes(
        tmp_path_factory.mktemp("own") / "shapes",
        num_categories=6,
        num_train_images=12,
        num_test_images=5,
        image_size=64,
        seed=0,
    )
    name = "own_script_shapes"
    register(load_detection_data(train_json, train_images), name)
    yield train_json, name
    DatasetCatalog.remove(name)


@pytest.fixture
def cfg(shapes, tiny_config, tmp_path):
    """What a script has after the two steps of the README and its own settings of stock keys."""
    train_json, name = shapes
    tree = get_cfg()
    add_eql_config(tree)
    tiny = yaml.safe_load(tiny_config.read_text())
    del tiny["DATA"], tiny["EVALUATION"], tiny["MODEL"]["EQL"]
    tree.merge_from_other_cfg(type(tree)(tiny))
    tree.MODEL.EQL.STATISTICS = str(train_json)
    tree.MODEL.ROI_HEADS.NUM_CLASSES = 6
    tree.DATASETS.TRAIN = (name,)
    tree.INPUT.MASK_FORMAT = "bitmask"
    tree.MODEL.WEIGHTS = ""
    tree.SOLVER.MAX_ITER = 2
    tree.OUTPUT_DIR = str(tmp_path)
    return tree


def test_stock_keys_keep_detectron2s_values():
    ours, stock = get_cfg(), get_cfg()
    add_eql_config(ours)
    for name in {key.name.split(".")[0] for key in config.KEYS} - {"MODEL"}:
        del ours[name]
    del ours.MODEL["EQL"]
    assert ours.dump() == stock.dump()


def test_a_stock_baseline_builds_from_the_same_tree():
    """With every default but the device, which a machine without a GPU cannot have."""
    ours, stock = get_cfg(), get_cfg()
    add_eql_config(ours)
    with torch.device("meta"):
        models = []
        for tree in (ours, stock):
            tree.MODEL.DEVICE = "meta"
            models.append(DefaultTrainer.build_model(tree))
    mine, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in models)
    assert mine == theirs


@pytest.mark.parametrize("heads", ["EQLROIHeads", "StandardROIHeads"])
def test_detectron2s_own_trainer_trains_ours_and_the_baseline(cfg, heads):
    cfg.MODEL.ROI_HEADS.NAME = heads
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.2
    trainer = DefaultTrainer(cfg)
    trainer.train()
    assert trainer.iter == cfg.SOLVER.MAX_ITER
    loss = getattr(trainer.model.roi_heads.box_predictor, "classification_loss", None)
    assert (loss is not None) == (heads == "EQLROIHeads")
    if loss is not None:
        assert loss.tail_mask.any()
        assert not loss.tail_mask.all()


@pytest.mark.parametrize("heads", ["EQLROIHeads", "EQLCascadeROIHeads"])
@pytest.mark.parametrize("name", ["EQL", "SEQL"])
def test_a_loss_without_a_tail_is_refused(cfg, heads, name):
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.EQL.LOSS.NAME = heads, name
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    with pytest.raises(ConfigError, match=rf"^{name} needs MODEL\.EQL\.LOSS\.LAMBDA .* TAIL_RATIO"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("NAME", "EQLL", "did you mean EQL?"),
        ("GAMMA", 1.5, "GAMMA must lie in [0, 1], got 1.5"),
        ("PRIOR_PROB", 1.0, "PRIOR_PROB must lie in (0, 1)"),
        ("LAMBDA", 0.2, "both choose the tail"),
        ("THRESHOLD_PARAMETERS", [1.0], "needs 0 numbers (or none) for step"),
        ("TAIL_RATIO", 0.1, "the smallest tail ratio with a tail here is 0.182: 2 categories with"),
    ],
)
def test_the_values_that_our_tools_refuse_are_refused(cfg, key, value, said):
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.2
    cfg.MODEL.EQL.LOSS[key] = value
    with pytest.raises(ConfigError) as caught:
        build_model(cfg)
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


def test_all_that_the_two_steps_leave_to_do_is_named_at_once(cfg):
    cfg.MODEL.EQL.STATISTICS = "lvis_v1"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = get_cfg().MODEL.ROI_HEADS.NUM_CLASSES
    with pytest.raises(ConfigError) as caught:
        build_model(cfg)
    tail, classes = caught.value.problems
    assert "EQL needs MODEL.EQL.LOSS.LAMBDA" in tail
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 80 but" in classes
    assert "set it to 1203, or to -1" in classes
