"""Reading json with errors that help, writing files whole or not at all."""

import gc
import json
import os
import random

import pytest

from eql_d2.errors import DataError, ResultsError, UserError
from eql_d2.files import (
    atomic_path,
    atomic_text_file,
    check_output_folder,
    paused_garbage_collection,
    read_json,
)


def test_reads_any_json_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    for content in ({"ä": 1}, [1, None], "text"):
        for mark in (b"", b"\xef\xbb\xbf"):
            path.write_bytes(mark + json.dumps(content, ensure_ascii=False).encode())
            assert read_json(path, "file") == read_json(str(path), "file") == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a": 1,, "b": 2}', r"near '.*,, "),
        (b"<html>not found</html>", "near '<html>"),
        (b'{"images": [{"id": 1}, {"id"', "is cut off after 28 characters"),
        (b'{"images": [{"name": "half a str', "is cut off"),
        (b'{"images": [1, 2', "is cut off"),
        (b'[{"score": 0.', "is cut off"),
        (b'[{"score": fals\n', "is cut off"),
        (b"no_json", "near 'no_json'"),
        (b'{"a": x, "b": 1}', r"near '.*x, "),
        (b"PK\x03\x04\xff\xfe\x00", "zip archive, unpack"),
        (b"\x1f\x8b\xff\xfe\x00", "gzip archive, unpack"),
        (b"\xff\xd8\xff\xe0 a picture", "it is no text"),
        (b'{"a":' + b"[" * 200_000, "recursion"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=message) as caught:
        read_json(path, "results file", ResultsError)
    assert f"results file {path} is not valid json (" in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"thing .*missing.json cannot be read: No such file"):
        read_json(tmp_path / "missing.json", "thing")
    with pytest.raises(DataError, match="cannot be read: it is a folder"):
        read_json(tmp_path, "thing")
    with pytest.raises(DataError, match=r"cannot be read: .*null"):
        read_json("bad\0name", "thing")


def test_every_truncation_of_a_file_is_a_data_error(tmp_path):
    text = json.dumps({"images": [{"id": 1, "file_name": "a b.png", "x": [1.5, True, None]}]})
    path = tmp_path / "cut.json"
    for length in random.Random(0).sample(range(len(text)), 40):
        path.write_text(text[:length])
        with pytest.raises(DataError):
            read_json(path, "file")


def test_garbage_collection_is_paused_and_comes_back():
    assert gc.isenabled()
    with paused_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(DataError), paused_garbage_collection():
        raise DataError("while reading")
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_atomic_file_appears_whole_and_an_error_keeps_the_old_one(tmp_path):
    path = tmp_path / "new" / "b.txt"
    with atomic_text_file(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(TypeError), atomic_text_file(path) as file:
        file.writelines(["other", 5])
    assert path.read_text("utf-8") == "ä\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_atomic_path_has_the_ending_that_writers_look_at(tmp_path):
    with atomic_path(tmp_path / "a.b.png") as partial:
        assert partial.suffix == ".png"
        assert partial.parent == tmp_path
        partial.write_bytes(b"x")
    assert os.listdir(tmp_path) == ["a.b.png"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_text_file(tmp_path / "link.txt") as file:
        file.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_what_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"), atomic_text_file(path) as file:
            file.write("text")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_errors_of_the_block_are_not_taken_for_errors_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_text_file(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert os.listdir(tmp_path) == []


def test_an_output_folder_is_checked_without_a_trace(tmp_path):
    for folder in (tmp_path, tmp_path / "a" / "b"):
        assert check_output_folder(str(folder), "--output") == folder
    assert os.listdir(tmp_path) == []


def test_an_output_folder_that_cannot_be_used_is_named_with_its_flag(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(UserError, match=rf"--output {folder}: .*file is a file; give a folder"):
            check_output_folder(folder, "--output")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"--output .*link cannot be written to: No such file"):
        check_output_folder(tmp_path / "link", "--output")

    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(UserError, match=r"--output .* cannot be written to: Permission denied"):
        check_output_folder(tmp_path / "new", "--output")
