"""End to end on a tiny generated set: train, resume, evaluate, predict; one process and two."""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eql_d2.checkpoint import METADATA_KEY, read_checkpoint_metadata
from eql_d2.data import read_pixels
from eql_d2.errors import ConfigError, DataError, MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import load_predictor, run, running
    from eql_d2.engines.d2.compat import PathManager
    from eql_d2.engines.d2.trainer import Trainer

pytestmark = pytest.mark.detectron2

LOSSES = ("total_loss", "loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")


def log_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_everything_is_where_it_is_looked_for(trained):
    folder, metrics = trained
    for name in (
        "config.yaml",
        "category_statistics.json",
        "model_0000001.pth",
        "model_0000003.pth",
        "model_final.pth",
        "inference/lvis_instances_results.json",
        "metrics.json",
        "per_category.csv",
        "log.txt",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert len(list((folder / "pictures").glob("*.png"))) == 1
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert {f"{kind}/AP{group}" for kind in ("bbox", "segm") for group in "rcf"} <= set(metrics)
    assert [p.name for p in (folder / "inference").iterdir()] == ["lvis_instances_results.json"]


def test_the_log_has_every_iteration_with_losses_and_statistics(trained):
    folder, _ = trained
    lines = log_of(folder)
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert line["total_loss"] == pytest.approx(sum(line[name] for name in LOSSES[1:]))
        assert line["lr"] > 0
        assert 0 <= line["cls/tail_gradient_share"] <= 1
        assert not any("cls_accuracy" in name for name in line)
    assert "bbox/AP" in lines[1], "TEST.EVAL_PERIOD 2 evaluates after the second iteration"
    assert "bbox/AP" not in lines[0]
    assert "eta:" in (folder / "log.txt").read_text()


def test_a_schedule_that_never_reaches_its_rate_is_told_once(trained, options, tmp_path, caplog):
    folder, _ = trained
    assert "SOLVER.WARMUP_ITERS" not in (folder / "log.txt").read_text()
    short = ("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "[2]", "MODEL.MASK_ON", "False")
    run(options(tmp_path, *short))
    log = (tmp_path / "log.txt").read_text()
    assert log.count("SOLVER.BASE_LR is 0.01, but the learning rate reaches at most 1e-05: ") == 1
    assert log.count("SOLVER.STEPS [2] are not below SOLVER.MAX_ITER 1: ") == 1
    assert sum("SOLVER.WARMUP_ITERS" in record.getMessage() for record in caplog.records) == 1


def test_checkpoints_describe_themselves(trained):
    folder, _ = trained
    metadata = read_checkpoint_metadata(folder / "model_0000001.pth")
    assert metadata["engine"] == "detectron2"
    assert metadata["iteration"] == 1
    assert metadata["config"] == (folder / "config.yaml").read_text()
    content = torch.load(folder / "model_final.pth", weights_only=True)
    assert METADATA_KEY in content
    assert content["model"]["roi_heads.box_predictor.cls_score.weight"].shape == (6, 32)


def test_evaluation_alone_repeats_the_numbers(trained, options, tmp_path):
    folder, metrics = trained
    again = run(options(tmp_path, "MODEL.WEIGHTS", folder, eval_only=True))
    assert again == metrics
    results = "inference/lvis_instances_results.json"
    assert (tmp_path / results).read_bytes() == (folder / results).read_bytes()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_evaluation_alone_takes_the_last_checkpoint_where_no_weights_are_named(
    trained, options, tmp_path, caplog
):
    folder, metrics = trained
    for name in ("model_final.pth", "last_checkpoint"):
        shutil.copy(folder / name, tmp_path)
    with caplog.at_level("INFO", "eql_d2"):
        assert run(options(tmp_path, eval_only=True)) == metrics
    assert f"evaluating the last checkpoint of OUTPUT_DIR: {tmp_path}" in caplog.text


def test_evaluating_during_training_changes_nothing_of_it(options, tmp_path):
    short = ("SOLVER.MAX_ITER", 3, "MODEL.MASK_ON", "False", "SOLVER.CHECKPOINT_PERIOD", 100)
    run(options(tmp_path / "never", *short))
    run(options(tmp_path / "always", *short, "TEST.EVAL_PERIOD", 1))
    never, always = log_of(tmp_path / "never"), log_of(tmp_path / "always")
    assert "bbox/AP" in always[0]
    assert [r["total_loss"] for r in never] == [r["total_loss"] for r in always]


def test_an_image_of_another_size_ends_the_run_with_a_message(options, tmp_path, tiny_config):
    """From a worker of the data loader, through the training loop, without any traceback."""
    shapes = tiny_config.parent / "shapes"
    content = json.loads((shapes / "train.json").read_text())
    for image in content["images"]:
        image["height"] = 65
    for annotation in content["annotations"]:
        del annotation["segmentation"]  # which tells the size too, and would be seen earlier
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    paths = {"TRAIN_JSON": tmp_path / "wrong.json", "TRAIN_IMAGES": shapes / "train"}
    paths |= {"TEST_JSON": shapes / "test.json", "TEST_IMAGES": shapes / "test"}
    overrides = [item for key, path in paths.items() for item in (f"DATA.{key}", path)]
    overrides += ["DATA.GENERATE", "", "MODEL.MASK_ON", "False", "DATALOADER.NUM_WORKERS", 1]
    chosen = options(tmp_path / "out", *overrides)
    with pytest.raises(DataError) as caught:
        run(chosen)
    assert re.fullmatch(
        r"/\S+\.png is 64 x 64 pixels .* annotations say 64 x 65: [^\n]*", str(caught.value)
    )
    assert "Traceback" not in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize(("part", "kind"), [("train", "truncated.jpg"), ("test", "huge.png")])
def test_an_unreadable_image_ends_the_run_with_its_name(
    options, unreadable_images, tmp_path, tiny_config, part, kind
):
    """From a worker of the data loader, without its traceback."""
    shapes = tmp_path / "shapes"
    shutil.copytree(tiny_config.parent / "shapes", shapes)
    damaged = sorted((shapes / part).glob("*.png"))[0]
    shutil.copy(unreadable_images[kind], damaged)
    extra = ("DATA.GENERATE", "", "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 6)
    for name in ("train", "test"):
        extra += (f"DATA.{name.upper()}_JSON", shapes / f"{name}.json")
        extra += (f"DATA.{name.upper()}_IMAGES", shapes / name)
    with pytest.raises(DataError) as caught:
        run(options(tmp_path / "out", *extra))
    assert str(caught.value).startswith(f"{damaged} ")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in (tmp_path / "out" / "log.txt").read_text()


def test_lines_and_dots_are_trained_on_tested_and_predicted(options, lines_and_dots, tmp_path):
    annotations, folder = lines_and_dots
    data = ("DATA.GENERATE", "", "MODEL.EQL.LOSS.TAIL_RATIO", 0.5, "SOLVER.MAX_ITER", 4)
    data += ("INPUT.MAX_SIZE_TRAIN", 128, "INPUT.MAX_SIZE_TEST", 128)
    for part in ("TRAIN", "TEST"):
        data += (f"DATA.{part}_JSON", annotations, f"DATA.{part}_IMAGES", folder)
    metrics = run(options(tmp_path / "out", *data, "EVALUATION.NUM_PICTURES", 8))
    assert metrics["segm/AP"] is not None
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 8
    predict = load_predictor(tmp_path / "out", score_threshold=0.0)
    for path in sorted(folder.glob("*.png")):
        predict(read_pixels(path))


def test_predictions_need_the_checkpoint_alone(trained, tiny_config):
    folder, _ = trained
    predict = load_predictor(folder, device="cpu")
    records = json.loads((folder / "inference/lvis_instances_results.json").read_text())
    test_json = json.loads(next((tiny_config.parent / "shapes").rglob("*test*.json")).read_text())
    image = next(i for i in test_json["images"] if i["id"] == records[0]["image_id"])
    name = image.get("file_name") or image["coco_url"].rsplit("/", 1)[-1]
    path = next((tiny_config.parent / "shapes").rglob(Path(name).name))
    expected = [r for r in records if r["image_id"] == image["id"]]
    found = predict(np.asarray(Image.open(path).convert("RGB")))
    assert found.scores.tolist() == [r["score"] for r in expected]
    assert found.boxes.tolist() == [r["bbox"] for r in expected]
    assert list(found.masks) == [r["segmentation"] for r in expected]


def test_predictor_options_and_refusals(trained, tmp_path):
    folder, _ = trained
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    assert len(load_predictor(folder, device="cpu", max_detections=2)(image)) == 2
    strict = load_predictor(folder, device="cpu", score_threshold=0.999)
    nothing = strict(image)
    assert len(nothing) == 0
    assert nothing.masks == []
    for wrong in (image[..., 0], image.astype(np.float32), image[..., :2]):
        with pytest.raises(ValueError, match="uint8"):
            strict(wrong)
    metadata = read_checkpoint_metadata(folder) | {"engine": "torchvision"}
    torch.save({METADATA_KEY: metadata, "model": {}}, tmp_path / "tv.pth")
    with pytest.raises(UserError, match="torchvision engine"):
        load_predictor(tmp_path / "tv.pth")


def test_the_same_seed_gives_the_same_run(options, tmp_path):
    short = ("SOLVER.MAX_ITER", 2, "MODEL.MASK_ON", "False", "TEST.DETECTIONS_PER_IMAGE", 1)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run(options(tmp_path / name, *short, "SEED", seed))
    a, b, c = ([line["total_loss"] for line in log_of(tmp_path / name)] for name in "abc")
    assert a == b
    assert a != c


def test_weights_that_are_not_there(options, tmp_path):
    with pytest.raises(ConfigError, match=r"--eval-only needs MODEL\.WEIGHTS"):
        run(options(tmp_path, eval_only=True))
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
        run(options(tmp_path, "MODEL.WEIGHTS", tmp_path / "nowhere.pth"))
    with pytest.raises(ConfigError, match=r"nowhere\.pkl does not exist"):
        run(options(tmp_path, "MODEL.WEIGHTS", tmp_path / "nowhere.pkl"))
    assert not (tmp_path / "config.yaml").exists(), "nothing should have been started"


def test_weights_that_cannot_be_downloaded(options, tmp_path, monkeypatch):
    asked = []

    def offline(url):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(PathManager, "get_local_path", offline)
    with pytest.raises(ConfigError, match=r"cannot be fetched \(OSError: no route to host\)"):
        run(options(tmp_path, "MODEL.WEIGHTS", "detectron2://R-50.pkl?matching_heuristics=True"))
    assert asked == ["detectron2://R-50.pkl"]


@pytest.mark.parametrize("address", ["foo://bar.pkl", "foo://bar.pth", "file:///no/such.pth"])
def test_addresses_of_no_known_kind_are_named(options, tmp_path, address):
    with pytest.raises(ConfigError, match=rf"MODEL.WEIGHTS {address} cannot be fetched"):
        run(options(tmp_path, "MODEL.WEIGHTS", address))


# Every sum that a process makes must be over the same things, whoever makes it: all anchors and
# all proposals count, each image has as many, and none is drawn at random or flipped.
WITHOUT_CHANCE = (
    *("MODEL.MASK_ON", "False", "INPUT.RANDOM_FLIP", "none", "SOLVER.IMS_PER_BATCH", "4"),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "2048", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "4096"),
    *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", "False", "MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.3]"),
)


def test_one_process_and_two_train_the_same_model(options, tmp_path):
    """Losses agree to the rounding of float32 sums over four iterations and their updates."""
    run(options(tmp_path / "one", *WITHOUT_CHANCE))
    metrics = run(options(tmp_path / "two", *WITHOUT_CHANCE, "TEST.EVAL_PERIOD", 2, num_gpus=2))
    assert "bbox/AP" in metrics
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [line["iteration"] for line in two] == [0, 1, 2, 3]
    names = [name for name in LOSSES if name != "loss_mask"]
    assert sum(line["loss_box_reg"] for line in one) > 0, "no foreground: nothing was compared"
    for left, right in zip(one, two, strict=True):
        for name in names:
            assert left[name] == pytest.approx(right[name], rel=1e-5), (left["iteration"], name)
        assert left["lr"] == right["lr"]
    assert "bbox/AP" in two[1]
    assert "bbox/AP" not in one[1]


def own_data(tiny_config, folder, change_train=None, change_test=None):
    """Overrides that name the generated data as one's own, with categories that were changed."""
    shapes = tiny_config.parent / "shapes"
    overrides = ["DATA.GENERATE", ""]
    for part, change in (("train", change_train), ("test", change_test)):
        document = json.loads((shapes / f"{part}.json").read_text())
        old = sorted((c["id"], c["name"]) for c in document["categories"])
        new = change(old) if change else old
        ids = {i: j for (i, _), (j, _) in zip(old, new, strict=True)}
        document["categories"] = [{"id": i, "name": name} for i, name in new]
        for annotation in document["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        for image in document["images"]:  # lists of ids, which are not followed
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                image.pop(key, None)
        path = folder / f"own_{part}.json"
        path.write_text(json.dumps(document))
        overrides += [f"DATA.{part.upper()}_JSON", path]
        overrides += [f"DATA.{part.upper()}_IMAGES", shapes / part]
    return overrides


OTHER_CATEGORIES = {
    "renamed": (lambda c: [(c[0][0], "cat"), *c[1:]], "in the former, 'cat' in the latter"),
    "shifted": (lambda c: [(i + 1, name) for i, name in c], "the ids seem to be shifted"),
    "exchanged": (
        lambda c: [(c[0][0], c[1][1]), (c[1][0], c[0][1]), *c[2:]],
        "2 of 6 ids differ",
    ),
}


@pytest.fixture
def finished(trained, tmp_path):
    """Folder with the last checkpoint of a run, as files that may be changed."""
    folder, _ = trained
    for name in ("model_final.pth", "last_checkpoint"):
        shutil.copy(folder / name, tmp_path)
    return tmp_path


@pytest.fixture
def no_processes(monkeypatch):
    def work(*_args):
        raise AssertionError("processes were started")

    monkeypatch.setattr(running, "launch", work)


@pytest.mark.parametrize("kind", OTHER_CATEGORIES)
@pytest.mark.usefixtures("no_processes")
def test_a_checkpoint_of_other_categories_is_neither_scored_nor_resumed(
    finished, options, tiny_config, tmp_path, kind
):
    change, said = OTHER_CATEGORIES[kind]
    data = own_data(tiny_config, tmp_path, change, change)
    file = finished / "model_final.pth"
    for fields in ({"eval_only": True}, {"resume": True}):
        with pytest.raises(ConfigError) as caught:
            run(options(finished, *data, "SOLVER.MAX_ITER", 6, **fields))
        (problem,) = caught.value.problems
        assert problem.startswith(f"checkpoint {file} has 6 categories, DATA.TEST_JSON ")
        assert said in problem
    with pytest.raises(ConfigError, match=f"checkpoint {file} has 6 categories"):
        run(options(tmp_path / "b", *data, "MODEL.WEIGHTS", file, eval_only=True))


@pytest.mark.parametrize("kind", ["renamed", "shifted"])
@pytest.mark.usefixtures("no_processes")
def test_training_and_test_files_of_other_categories_are_refused(
    options, tiny_config, tmp_path, kind
):
    change, said = OTHER_CATEGORIES[kind]
    data = own_data(tiny_config, tmp_path, change_test=change)
    with pytest.raises(ConfigError, match=r"DATA\.TRAIN_JSON .* has 6 categories") as caught:
        run(options(tmp_path / "out", *data))
    assert said in str(caught.value)


def test_fine_tuning_on_other_categories_says_what_the_weights_were(
    finished, options, tiny_config, tmp_path, caplog, monkeypatch
):
    change, said = OTHER_CATEGORIES["renamed"]
    monkeypatch.setattr(running, "launch", lambda *_: None)
    monkeypatch.setattr(running, "_finish", lambda *_: {})
    weights = ("MODEL.WEIGHTS", finished / "model_final.pth")
    with caplog.at_level("WARNING", logger="eql_d2"):
        run(options(tmp_path / "same", *own_data(tiny_config, tmp_path), *weights))
        assert "other categories" not in caplog.text
        run(options(tmp_path / "b", *own_data(tiny_config, tmp_path, change, change), *weights))
    assert f"{finished / 'model_final.pth'} was trained on other categories" in caplog.text
    assert said in caplog.text


def test_weights_without_categories_are_evaluated_and_this_is_said(
    finished, options, tmp_path, caplog, trained
):
    content = torch.load(finished / "model_final.pth", weights_only=True)
    torch.save({"model": content["model"]}, tmp_path / "released.pth")
    weights = ("MODEL.WEIGHTS", tmp_path / "released.pth")
    with caplog.at_level("INFO", logger="eql_d2"):
        assert run(options(tmp_path / "b", *weights, eval_only=True)) == trained[1]
    assert f"{tmp_path / 'released.pth'} does not say which categories" in caplog.text


@pytest.mark.parametrize("fields", [{"eval_only": True}, {"resume": True}, {}])
def test_weights_that_are_not_finite_end_a_run(finished, options, tmp_path, fields):
    file = finished / "model_final.pth"
    content = torch.load(file, weights_only=True)
    content["model"]["roi_heads.box_predictor.cls_score.weight"][0, 0] = float("nan")
    torch.save(content, file)
    before = file.read_bytes()
    wanted = rf"{file} holds NaN or infinity: 1 of .*first: roi_heads\.box_predictor\.cls_score"
    folder = finished if fields else tmp_path / "new"
    with pytest.raises(UserError, match=wanted):
        run(options(folder, "MODEL.WEIGHTS", file, "SOLVER.MAX_ITER", 6, **fields))
    with pytest.raises(UserError, match=wanted):
        load_predictor(file, device="cpu")
    assert file.read_bytes() == before


def test_buffers_that_are_not_finite_are_not_saved(options, tmp_path, monkeypatch):
    def poison(trainer):
        if trainer.iter == 2:  # in training, nothing reads it
            buffers = dict(trainer.model.named_buffers())
            buffers["model.backbone.bottom_up.stem.conv1.norm.running_var"].fill_(float("nan"))

    monkeypatch.setattr(Trainer, "after_backward", poison)
    batch_norm = ("MODEL.RESNETS.NORM", "BN", "MODEL.MASK_ON", "False")
    wanted = r"model_0000003\.pth is not saved.*first: backbone\.\S+\.running_var, 64 of 64"
    with pytest.raises(UserError, match=wanted) as caught:
        run(options(tmp_path, *batch_norm))
    assert "(model_0000001.pth, which stays the last checkpoint)" in str(caught.value)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000001.pth"]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    monkeypatch.undo()
    run(options(tmp_path, *batch_norm, resume=True))
