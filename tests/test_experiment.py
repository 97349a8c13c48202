"""From configuration to data, statistics, lambda and loss; and from results to metrics."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.categories import CategoryStatistics, Grouping, read_statistics, write_statistics
from eql_d2.checkpoint import METADATA_KEY, checkpoint_metadata
from eql_d2.config import default_config, load_config
from eql_d2.errors import ConfigError, DataError
from eql_d2.experiment import (
    checkpoint_categories,
    data_paths,
    finish_evaluation,
    loss_from_config,
    prepare_experiment,
    resolve_device,
    resolved_config,
    warn_of_other_categories,
)
from eql_d2.losses import EqualizationLoss, SigmoidCrossEntropyLoss

SIDE = 32
COUNTS = (6, 3, 1)  # images of the three categories, of 8
IDS = (7, 2, 90)  # sparse and unsorted


def annotation_file(path, ids=IDS, counts=COUNTS, **category_fields):
    annotations = []
    for category_id, count in zip(ids, counts, strict=False):
        for image_id in range(1, count + 1):
            box = [2.0 + category_id % 5, 3.0, 10.0, 12.0]
            x, y, w, h = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{"id": i, "name": f"category {i}", **category_fields} for i in ids]
    images = [
        {"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(1, 9)
    ]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(1, 9):
        pixels = np.full((SIDE, SIDE, 3), 20 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def cfg(tmp_path, image_folder):
    cfg = default_config()
    cfg.DATA.TRAIN_JSON = cfg.DATA.TEST_JSON = str(annotation_file(tmp_path / "train.json"))
    cfg.DATA.TRAIN_IMAGES = cfg.DATA.TEST_IMAGES = str(image_folder)
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.4
    cfg.MODEL.MASK_ON = True
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


def test_an_experiment_is_read_from_any_coco_json(cfg):
    experiment = prepare_experiment(cfg, training=True)
    assert experiment.statistics.category_ids == (2, 7, 90)
    assert experiment.statistics.image_count.tolist() == [3, 6, 1]
    assert experiment.statistics.num_images == 6
    assert experiment.lambda_ == 0.4
    assert len(experiment.train.images) == 8


def test_the_loss_gets_the_tail_of_the_training_data(cfg):
    statistics = prepare_experiment(cfg, training=True).statistics
    loss = loss_from_config(cfg, statistics)
    assert isinstance(loss, EqualizationLoss)
    assert loss.num_logits == 3
    assert loss.tail_mask.tolist() == [False, False, True]  # 1 / 6 < 0.4 <= 3 / 6
    cfg.MODEL.EQL.LOSS.NAME = "SigmoidCE"
    assert isinstance(loss_from_config(cfg, statistics), SigmoidCrossEntropyLoss)


def test_lambda_follows_from_a_wanted_tail_ratio(cfg):
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.0
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.15
    experiment = prepare_experiment(cfg, training=True)
    assert experiment.statistics.tail_ratio(experiment.lambda_) == pytest.approx(0.1)
    mask = loss_from_config(cfg, experiment.statistics).tail_mask
    assert mask.tolist() == [False, False, True]


def test_a_tail_ratio_that_selects_nothing_is_refused(cfg):
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.0
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.05
    with pytest.raises(ConfigError) as caught:
        prepare_experiment(cfg, training=True)
    assert str(caught.value).startswith("MODEL.EQL.LOSS.TAIL_RATIO: a tail ratio of 0.05 selects")
    assert str(caught.value).endswith("is 0.1: 1 category with 1 image")
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.1
    assert prepare_experiment(cfg, training=True).lambda_ == pytest.approx(2 / 6)


@pytest.mark.parametrize("name", ["EQL", "SEQL"])
def test_a_lambda_that_selects_nothing_is_refused(cfg, name):
    cfg.MODEL.EQL.LOSS.NAME = name
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.001
    with pytest.raises(ConfigError) as caught:
        prepare_experiment(cfg, training=True)
    assert str(caught.value) == (
        f"MODEL.EQL.LOSS.LAMBDA 0.001 selects no category, and {name} without a tail is its own "
        "baseline; the smallest tail here has LAMBDA 0.333333 or TAIL_RATIO 0.1: 1 category with 1 "
        "image"
    )
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.333333
    prepare_experiment(cfg, training=True)


@pytest.mark.parametrize(
    ("key", "value"), [("NAME", "SoftmaxCE"), ("THRESHOLD_FUNCTION", "gompertz")]
)
def test_lambda_may_select_nothing_where_it_only_names_what_is_logged(cfg, key, value):
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.001
    cfg.MODEL.EQL.LOSS[key] = value
    statistics = prepare_experiment(cfg, training=True).statistics
    loss_from_config(cfg, statistics)


@pytest.mark.parametrize(
    ("counts", "lambda_", "said"),
    [
        ((6, 3, 1), 1.0, ""),
        ((5, 3, 1), 1.0, "all 3 categories are tail at lambda 1"),
        ((6, 3, 0), 0.1, "holds only categories without images (1)"),
        ((6, 3, 1), 0.4, ""),
    ],
)
def test_an_odd_tail_is_warned_of(cfg, caplog, counts, lambda_, said):
    ids = [1, 2, 3]
    statistics = CategoryStatistics.from_counts(
        names=["a", "b", "c"],
        category_ids=ids,
        image_count=counts,
        instance_count=counts,
        num_images=6,
    )
    cfg.MODEL.EQL.LOSS.LAMBDA = lambda_
    with caplog.at_level("WARNING"):
        loss_from_config(cfg, statistics)
    assert said in caplog.text
    assert bool(caplog.records) == bool(said)


def test_a_loss_is_not_built_from_wrong_values(cfg):
    """Whoever builds it: runs check before they read data, other programs do not."""
    statistics = prepare_experiment(cfg, training=True).statistics
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.0
    with pytest.raises(ConfigError, match=r"EQL needs MODEL\.EQL\.LOSS\.LAMBDA"):
        loss_from_config(cfg, statistics)
    cfg.MODEL.EQL.LOSS.NAME, cfg.MODEL.EQL.LOSS.GAMMA = "SEQL", 1.5
    with pytest.raises(ConfigError) as caught:
        loss_from_config(cfg, statistics)
    assert len(caught.value.problems) == 2


def test_the_resolved_configuration_spells_everything_out(cfg, tmp_path):
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.0
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.15
    experiment = prepare_experiment(cfg, training=True)
    resolved = resolved_config(cfg, experiment)
    assert resolved.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert experiment.lambda_ == resolved.MODEL.EQL.LOSS.LAMBDA
    assert resolved.MODEL.DEVICE in ("cpu", "cuda")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == -1, "the caller's tree was changed"
    path = tmp_path / "config.yaml"
    path.write_text(resolved.dump())
    again = prepare_experiment(load_config(path), training=True)
    assert again.lambda_ == experiment.lambda_


def test_device_auto_follows_the_machine(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto") == device
    assert resolve_device("cuda:1") == "cuda:1"


def test_value_problems_stop_before_any_data_is_read(cfg):
    cfg.DATA.TRAIN_JSON = "nowhere.json"
    cfg.MODEL.EQL.LOSS.NAME = "EQLL"
    with pytest.raises(ConfigError, match="did you mean EQL"):
        prepare_experiment(cfg, training=True)


def test_all_missing_paths_are_named_together(cfg):
    cfg.DATA.TRAIN_JSON, cfg.DATA.TEST_JSON, cfg.DATA.TEST_IMAGES = "", "nowhere.json", "nodir"
    with pytest.raises(ConfigError) as caught:
        data_paths(cfg, training=True)
    assert len(caught.value.problems) == 3
    assert "DATA.TRAIN_JSON is not set" in str(caught.value)
    assert "DATA.TEST_JSON: nowhere.json does not exist" in str(caught.value)


def test_evaluation_alone_needs_no_training_images(cfg):
    cfg.DATA.TRAIN_IMAGES = "nodir"
    assert prepare_experiment(cfg, training=False).train is not None
    with pytest.raises(ConfigError, match="TRAIN_IMAGES"):
        prepare_experiment(cfg, training=True)


def test_evaluation_without_training_annotations_asks_for_statistics(cfg, tmp_path):
    counts = cfg.DATA.TRAIN_JSON
    cfg.DATA.TRAIN_JSON = ""
    with pytest.raises(ConfigError, match=r"MODEL\.EQL\.STATISTICS"):
        prepare_experiment(cfg, training=False)
    cfg.MODEL.EQL.STATISTICS = counts
    assert prepare_experiment(cfg, training=False).train is None


def test_datasets_may_lie_below_the_folder_detectron2_users_set(cfg, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "mine").mkdir(parents=True)
    annotation_file(root / "mine" / "a.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    cfg.DATA.TEST_JSON = "datasets/mine/a.json"
    assert data_paths(cfg, training=True).test_json == root / "mine" / "a.json"


def test_category_lists_and_class_counts_must_agree(cfg, tmp_path):
    cfg.DATA.TEST_JSON = str(annotation_file(tmp_path / "test.json", ids=(2, 7), counts=(1, 1)))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(ConfigError) as caught:
        prepare_experiment(cfg, training=True)
    assert "NUM_CLASSES is 80" in str(caught.value)
    assert "id 90 is 'category 90' in the former, missing in the latter" in str(caught.value)


def test_a_table_of_another_data_set_is_refused(cfg):
    cfg.MODEL.EQL.STATISTICS = "lvis_v1"
    with pytest.raises(ConfigError, match=r"MODEL\.EQL\.STATISTICS has 1203 categories"):
        prepare_experiment(cfg, training=True)


@pytest.mark.parametrize("kind", ["names", "ids"])
def test_training_and_test_files_must_have_the_same_categories(cfg, tmp_path, kind):
    path = annotation_file(tmp_path / "test.json", ids=IDS if kind == "names" else (8, 3, 91))
    document = json.loads(path.read_text())
    for category in document["categories"]:
        old = category["id"] - (kind == "ids")
        category["name"] = f"category {old}" if kind == "ids" or old != 7 else "renamed"
    path.write_text(json.dumps(document))
    cfg.DATA.TEST_JSON = str(path)
    with pytest.raises(ConfigError) as caught:
        prepare_experiment(cfg, training=True)
    (problem,) = caught.value.problems
    assert f"DATA.TRAIN_JSON {tmp_path / 'train.json'} has 3 categories" in problem
    if kind == "names":
        assert "id 7 is 'category 7' in the former, 'renamed' in the latter" in problem
    else:
        assert "id 2 is 'category 2' in the former, missing in the latter" in problem
        assert "shifted" in problem


@pytest.mark.parametrize("table", ["lvis_v0.5", "lvis_v1"])
def test_a_bundled_table_has_the_categories_of_its_data_set(cfg, tmp_path, table):
    """The tables were made of LVIS's own files, whose names they keep."""
    statistics = CategoryStatistics.from_table(table)
    path = annotation_file(tmp_path / "val.json", ids=statistics.category_ids[:3])
    document = json.loads(path.read_text())
    pairs = zip(statistics.category_ids, statistics.names, strict=True)
    document["categories"] = [{"id": i, "name": name} for i, name in pairs]
    path.write_text(json.dumps(document))
    cfg.DATA.TRAIN_JSON = cfg.DATA.TEST_JSON = str(path)
    cfg.MODEL.EQL.STATISTICS = table
    assert prepare_experiment(cfg, training=True).statistics == statistics
    document["categories"][900]["name"] += "!"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"STATISTICS has .* 1 of \d+ ids differ .*!' in"):
        prepare_experiment(cfg, training=True)


def checkpoint_of(path, statistics):
    metadata = checkpoint_metadata("", statistics, "torchvision")
    torch.save({"model": {"weight": torch.zeros(1)}, METADATA_KEY: metadata}, path)
    return path


def test_a_checkpoint_must_have_the_categories_of_the_data(cfg, tmp_path, caplog):
    experiment = prepare_experiment(cfg, training=True)
    same = checkpoint_of(tmp_path / "same.pth", experiment.statistics)
    assert checkpoint_categories(same) == {2: "category 2", 7: "category 7", 90: "category 90"}
    prepare_experiment(cfg, training=False, checkpoint=same)
    renamed = dataclasses.replace(experiment.statistics, names=("category 2", "b", "category 90"))
    other = checkpoint_of(tmp_path / "other.pth", renamed)
    with pytest.raises(ConfigError) as caught:
        prepare_experiment(cfg, training=False, checkpoint=other)
    (problem,) = caught.value.problems
    assert problem.startswith(f"checkpoint {other} has 3 categories, DATA.TEST_JSON ")
    assert "id 7 is 'b' in the former, 'category 7' in the latter" in problem
    assert problem.endswith("begin a new run with them as MODEL.WEIGHTS, without --resume")
    for name in ("zoo.pkl", "released.pth"):
        torch.save({"model": {}}, tmp_path / name)
        with caplog.at_level("INFO", logger="eql_d2"):
            prepare_experiment(cfg, training=False, checkpoint=tmp_path / name)
        assert f"{tmp_path / name} does not say which categories" in caplog.text


def test_fine_tuning_warns_where_outputs_mean_other_categories(cfg, tmp_path, caplog):
    experiment = prepare_experiment(cfg, training=True)
    same = checkpoint_of(tmp_path / "same.pth", experiment.statistics)
    fewer = CategoryStatistics.from_counts(
        names=["x"], category_ids=[1], image_count=[1], instance_count=[1], num_images=1
    )
    fewer = checkpoint_of(tmp_path / "fewer.pth", fewer)
    torch.save({}, tmp_path / "foreign.pth")
    with caplog.at_level("WARNING", logger="eql_d2"):
        for weights in (same, fewer, tmp_path / "foreign.pth"):
            warn_of_other_categories(weights, experiment)
        assert caplog.text == ""
        renamed = dataclasses.replace(experiment.statistics, names=("a", "b", "c"))
        warn_of_other_categories(checkpoint_of(tmp_path / "other.pth", renamed), experiment)
    assert "other.pth was trained on other categories" in caplog.text
    assert "id 2 is 'a' in the former, 'category 2' in the latter" in caplog.text


def test_the_statistics_of_another_run_stand_in_for_the_training_file(cfg, tmp_path):
    written = prepare_experiment(cfg, training=True).statistics
    write_statistics(written, tmp_path / "first")
    cfg.DATA.TRAIN_JSON = ""
    cfg.MODEL.EQL.STATISTICS = str(tmp_path / "first" / "category_statistics.json")
    cfg.DATA.GROUP_MODE = "quantiles"
    statistics = prepare_experiment(cfg, training=False).statistics
    assert statistics == written.with_groups("quantiles")


def test_training_without_a_single_object_is_refused(cfg, tmp_path):
    cfg.DATA.TRAIN_JSON = str(annotation_file(tmp_path / "empty.json", counts=(0, 0, 0)))
    with pytest.raises(DataError, match="annotates no object"):
        prepare_experiment(cfg, training=True)


def test_groups_come_from_training_counts_where_the_file_has_none(cfg):
    statistics = prepare_experiment(cfg, training=True).statistics
    assert statistics.groups == ("r", "r", "r")
    cfg.DATA.RARE_MAX_IMAGES, cfg.DATA.COMMON_MAX_IMAGES = 1, 3
    statistics = prepare_experiment(cfg, training=True).statistics
    assert statistics.groups == ("c", "f", "r")
    assert statistics.grouping == Grouping("counts", 1, 3)


def test_the_files_own_groups_win_until_a_grouping_key_is_changed(cfg, tmp_path):
    path = annotation_file(tmp_path / "lvis.json")
    content = json.loads(path.read_text())
    for category, letter in zip(content["categories"], "fcr", strict=True):  # ids 7, 2, 90
        category["frequency"] = letter
    path.write_text(json.dumps(content))
    cfg.DATA.TEST_JSON = str(path)
    statistics = prepare_experiment(cfg, training=True).statistics
    assert statistics.groups == ("c", "f", "r"), "in the order of the ids, not of the file"
    assert statistics.grouping == Grouping("frequency")
    cfg.DATA.RARE_MAX_IMAGES = 1
    statistics = prepare_experiment(cfg, training=True).statistics
    assert statistics.groups == ("c", "c", "r")
    assert statistics.grouping == Grouping("counts", 1, 100)


def test_a_results_file_becomes_metrics_tables_and_pictures(cfg, tmp_path, capsys):
    cfg.DATA.RARE_MAX_IMAGES, cfg.DATA.COMMON_MAX_IMAGES = 1, 3
    experiment = prepare_experiment(cfg, training=True)
    truth = json.loads((tmp_path / "train.json").read_text())["annotations"]
    results = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")}
        | {"score": 0.9, "segmentation": rectangle_rle(a["bbox"])}
        for a in truth
        if a["category_id"] != 90
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    metrics = finish_evaluation(cfg, experiment, path)
    output = tmp_path / "output"
    assert metrics["bbox/APf"] == metrics["segm/APc"] == pytest.approx(100.0)
    assert metrics["bbox/APr"] == 0.0
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert (output / "per_category.csv").is_file()
    assert len(list((output / "pictures").glob("*.png"))) >= cfg.EVALUATION.NUM_PICTURES
    printed = capsys.readouterr().out
    assert "APr" in printed
    assert "rare/common/frequent: at most 1, at most 3, more training images (counts)\n" in printed
    written = read_statistics(output)
    assert written == experiment.statistics
    assert written.grouping == Grouping("counts", 1, 3)


def rectangle_rle(box):
    from pycocotools import mask as coco_mask

    x, y, w, h = (int(v) for v in box)
    pixels = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(pixels)
    return {"size": rle["size"], "counts": rle["counts"].decode()}
