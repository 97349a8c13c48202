import hashlib
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eql_d2.data import decode_mask, generate_longtail_shapes, load_detection_data
from eql_d2.data.longtail_shapes import generate
from eql_d2.errors import ConfigError, DataError

SMALL = {
    "num_categories": 9,
    "num_train_images": 24,
    "num_test_images": 12,
    "image_size": 64,
    "seed": 3,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set: training json, training images, test json, test images."""
    return generate_longtail_shapes(tmp_path_factory.mktemp("made") / "set", **SMALL)


@pytest.fixture(scope="module")
def default_set(tmp_path_factory):
    """The set of the main job, in smaller images."""
    return generate_longtail_shapes(tmp_path_factory.mktemp("default") / "set", image_size=64)


def digests(directory):
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory): hashlib.sha256(p.read_bytes()).digest() for p in files}


def test_the_layout_is_as_told(made):
    train_json, train_images, test_json, test_images = made
    root = train_json.parent
    assert made == (root / "train.json", root / "train", root / "test.json", root / "test")
    assert len(list(train_images.glob("*.png"))) == 24
    assert len(list(test_images.glob("*.png"))) == 12
    assert sorted(os.listdir(root)) == [
        "parameters.json",
        "test",
        "test.json",
        "train",
        "train.json",
    ]
    assert os.listdir(root.parent) == ["set"]
    assert test_json.stat().st_mode & 0o044


def test_it_loads_without_any_remark(made, caplog):
    for annotations, images in (made[:2], made[2:]):
        data = load_detection_data(annotations, images)
        assert data.federated
        assert data.has_frequency
        assert data.has_masks
    assert not caplog.records


def test_images_and_masks_agree(made):
    data = load_detection_data(*made[2:])
    objects = 0
    for record in data.images:
        pixels = np.asarray(Image.open(record.path)).astype(int)
        assert pixels.shape == (record.height, record.width, 3) == (64, 64, 3)
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > 20
        for instance in record.instances:
            mask = decode_mask(instance.segmentation, 64, 64).astype(bool)
            assert coloured[mask].all()
            ys, xs = np.nonzero(mask)
            assert instance.bbox == (
                xs.min(),
                ys.min(),
                np.ptp(xs) + 1,
                np.ptp(ys) + 1,
            )
            objects += 1
    assert objects > 12


def test_the_default_set_has_three_groups_and_a_balanced_test_set(default_set):
    train = load_detection_data(*default_set[:2]).statistics
    test = load_detection_data(*default_set[2:]).statistics
    assert Counter(train.groups) == {"r": 14, "c": 17, "f": 9}
    assert train.num_images == 600
    assert sorted(train.image_count.tolist()) == sorted(generate.longtail_image_counts(40, 600))
    assert set(test.image_count.tolist()) == {20}
    assert int(test.instance_count.min()) >= 20
    assert train.names == test.names
    frequency = {
        c["id"]: c["frequency"] for c in json.loads(default_set[2].read_text())["categories"]
    }
    assert tuple(frequency[i] for i in train.category_ids) == train.groups


def test_equal_parameters_give_equal_bytes_and_another_seed_does_not(made, tmp_path):
    again = generate_longtail_shapes(tmp_path / "again", **SMALL)
    assert digests(again[0].parent) == digests(made[0].parent)
    other = generate_longtail_shapes(tmp_path / "other", **{**SMALL, "seed": 4})
    assert digests(other[0].parent).keys() == digests(made[0].parent).keys()
    assert not set(digests(other[0].parent).values()) & set(digests(made[0].parent).values())


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made[0].parent, tmp_path / "set")
    return tmp_path / "set"


def test_a_set_that_is_there_is_used(copied, monkeypatch):
    monkeypatch.setattr(generate, "_write", lambda *_: pytest.fail("was written again"))
    paths = generate_longtail_shapes(copied, **SMALL)
    assert paths[0] == copied / "train.json"
    assert generate_longtail_shapes(str(copied), **SMALL) == paths


@pytest.mark.parametrize("damage", ["image lost", "image cut", "json changed", "file added"])
def test_a_damaged_set_is_made_again(copied, damage, caplog):
    sound = digests(copied)
    if damage == "image lost":
        (copied / "train" / "000003.png").unlink()
    elif damage == "image cut":
        path = copied / "test" / "000002.png"
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "json changed":
        (copied / "train.json").write_text("{}")
    else:
        (copied / "train" / "more.png").write_bytes(b"x")
    generate_longtail_shapes(copied, **SMALL)
    assert "changed or damaged" in caplog.text
    assert digests(copied) == sound
    assert os.listdir(copied.parent) == ["set"]


def test_a_set_with_other_parameters_is_refused_and_kept(copied):
    before = digests(copied)
    with pytest.raises(DataError, match=r"with num_categories 9, not 10, seed 3, not 4\. Choose"):
        generate_longtail_shapes(copied, **{**SMALL, "num_categories": 10, "seed": 4})
    assert digests(copied) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "mine"),
        ("parameters.json", "[1]"),
        ("parameters.json", "{"),
        ("parameters.json", '{"made_with": 3, "sha256": 4}'),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="holds no longtail_shapes set"):
        generate_longtail_shapes(tmp_path, **SMALL)
    assert (tmp_path / name).read_text() == text


def test_an_empty_folder_is_used_and_a_file_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert generate_longtail_shapes(tmp_path / "empty", **SMALL)[0].exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        generate_longtail_shapes(tmp_path / "file", **SMALL)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        generate_longtail_shapes(tmp_path / "file" / "set", **SMALL)


def test_bad_parameters_leave_nothing(tmp_path):
    with pytest.raises(ConfigError, match="image_size"):
        generate_longtail_shapes(tmp_path / "set", **{**SMALL, "image_size": 8})
    assert not os.listdir(tmp_path)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "paint_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_longtail_shapes(tmp_path / "set", **SMALL)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_leaves_no_half_set(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(generate, "_write_json", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        child = os.fork()
        if child == 0:
            generate_longtail_shapes(tmp_path / "set", **SMALL)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    assert not (tmp_path / "set").exists()
    assert generate_longtail_shapes(tmp_path / "set", **SMALL)[0].exists()


def test_another_process_that_is_faster_wins(made, tmp_path, monkeypatch):
    write = generate._write

    def overtaken(directory, parameters):
        write(directory, parameters)
        shutil.copytree(made[0].parent, tmp_path / "set")

    monkeypatch.setattr(generate, "_write", overtaken)
    paths = generate_longtail_shapes(tmp_path / "set", **SMALL)
    assert digests(paths[0].parent) == digests(made[0].parent)
    assert os.listdir(tmp_path) == ["set"]


def test_the_record_says_what_the_set_was_made_with(made):
    record = json.loads((made[0].parent / "parameters.json").read_text())
    assert record["made_with"] == {**SMALL, "version": generate.VERSION}
    assert len(record["sha256"]) == 64
    assert isinstance(made[0], Path)
