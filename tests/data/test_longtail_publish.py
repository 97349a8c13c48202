"""A generated set on disk: found again, repaired, never written over what is not its own."""

import hashlib
import json
import os
import shutil
import signal

import pytest

from eql_d2.data import generate_longtail_shapes
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


def digests(directory):
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory): hashlib.sha256(p.read_bytes()).digest() for p in files}


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made[0].parent, tmp_path / "set")
    return tmp_path / "set"


def test_a_set_that_is_there_is_used(copied, monkeypatch):
    monkeypatch.setattr(generate, "_write", lambda *_: pytest.fail("was written again"))
    paths = generate_longtail_shapes(copied, **SMALL)
    assert paths[0] == copied / "train.json"
    assert generate_longtail_shapes(str(copied), **SMALL) == paths


@pytest.mark.parametrize("damage", ["image lost", "image cut", "json changed"])
def test_a_damaged_set_is_made_again(copied, damage, caplog):
    sound = digests(copied)
    if damage == "image lost":
        (copied / "train" / "000003.png").unlink()
    elif damage == "image cut":
        path = copied / "test" / "000002.png"
        path.write_bytes(path.read_bytes()[:100])
    else:
        (copied / "train.json").write_text("{}")
    generate_longtail_shapes(copied, **SMALL)
    assert "changed or damaged" in caplog.text
    assert digests(copied) == sound
    assert os.listdir(copied.parent) == ["set"]


FOREIGN = ("my_subset.json", "train/.DS_Store", "mine/deep/notes.txt")


@pytest.fixture
def foreign(copied):
    """Files of the user's own in the folder of a set."""
    for name in FOREIGN:
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text("mine")
    (copied / "linked").symlink_to(copied / "mine", target_is_directory=True)
    return copied


def test_files_of_others_do_no_harm_to_a_sound_set(foreign, monkeypatch, caplog):
    monkeypatch.setattr(generate, "_write", lambda *_: pytest.fail("was written again"))
    generate_longtail_shapes(foreign, **SMALL)
    assert not caplog.records
    assert all((foreign / name).read_text() == "mine" for name in FOREIGN)


def test_a_damaged_set_is_not_made_again_over_files_of_others(foreign):
    (foreign / "train" / "000003.png").unlink()
    before = digests(foreign)
    with pytest.raises(DataError, match=r"4 files of yours, such as linked; move them"):
        generate_longtail_shapes(foreign, **SMALL)
    assert digests(foreign) == before
    (foreign / "linked").unlink()
    for name in FOREIGN:
        (foreign / name).unlink()
    generate_longtail_shapes(foreign, **SMALL)
    assert (foreign / "train" / "000003.png").exists()


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
    # Moving the other's set away would take it from under those who read it.
    monkeypatch.setattr(generate.Path, "rename", lambda *_: pytest.fail("was moved"))
    paths = generate_longtail_shapes(tmp_path / "set", **SMALL)
    assert digests(paths[0].parent) == digests(made[0].parent)
    assert os.listdir(tmp_path) == ["set"]


def test_the_checksum_is_that_of_sets_made_earlier(made):
    """A set is not made again because a newer version would sum its files up in another way."""
    root = made[0].parent
    images = [f"{s}/{name}" for s in ("train", "test") for name in sorted(os.listdir(root / s))]
    digest = hashlib.sha256()
    for name in ("test.json", "train.json", *images):
        digest.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    assert json.loads((root / "parameters.json").read_text())["sha256"] == digest.hexdigest()


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "large_disk")
    train_json = generate_longtail_shapes(tmp_path / "set", **SMALL)[0]
    assert train_json == tmp_path / "set" / "train.json"
    assert (tmp_path / "large_disk" / "train.json").exists()
    assert (tmp_path / "set").is_symlink()
