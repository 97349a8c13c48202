"""Reading json, compressed or not, with errors that help."""

import gc
import gzip
import io
import json
import random
import sys
import zipfile

import pytest

from eql_d2.errors import DataError, ResultsError
from eql_d2.json_files import paused_garbage_collection, read_json


@pytest.fixture(params=["orjson", "json"])
def parser(request, monkeypatch):
    """With and without the faster parser."""
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setitem(sys.modules, "orjson", None)


def test_reads_any_json_with_and_without_a_byte_order_mark(tmp_path, parser):
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
        (b"\xff\xd8\xff\xe0 a picture", "it is no text"),
        (b'{"a":' + b"[" * 200_000, "recursion"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, parser, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=message) as caught:
        read_json(path, "results file", ResultsError)
    assert f"results file {path} is not valid json (" in str(caught.value)


def compressed(text, form):
    """The bytes of a gzip, or of a zip as Macs make them."""
    if form == "gzip":
        return gzip.compress(text)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lvis/train.json", text)
        archive.writestr("__MACOSX/lvis/._train.json", "no json")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["gzip", "zip"])
def test_compressed_files_are_told_by_their_content(tmp_path, parser, form):
    path = tmp_path / "any name"
    path.write_bytes(compressed('\ufeff{"ä": 1}'.encode(), form))
    assert read_json(path, "annotation file") == {"ä": 1}
    path.write_bytes(compressed(b'{"images": [', form))
    with pytest.raises(DataError, match=r"is not valid json \(it is cut off after 12 characters"):
        read_json(path, "annotation file")
    path.write_bytes(compressed(b'{"images": []}', form)[:20])
    with pytest.raises(DataError, match=r"annotation file .*any name cannot be read: "):
        read_json(path, "annotation file")


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
