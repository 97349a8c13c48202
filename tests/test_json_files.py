"""Reading json, compressed or not, with errors that help."""

import contextlib
import gc
import gzip
import io
import json
import random
import subprocess
import sys
import tracemalloc
import zipfile
from collections import deque

import pytest

from eql_d2 import json_files
from eql_d2.errors import DataError, ResultsError
from eql_d2.json_files import MOST_UNPACKED, ByteSource, paused_garbage_collection, read_json


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


def bomb(path, unit, megabytes):
    """Write ``unit`` over and over, compressed, behind an opening bracket."""
    piece = unit * ((1 << 20) // len(unit))
    with contextlib.ExitStack() as stack:
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.open(path, "wb", compresslevel=6))
        else:
            archive = stack.enter_context(zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED))
            archive.writestr("padding.bin", random.Random(0).randbytes(2 << 20))
            file = stack.enter_context(archive.open("a.json", "w"))
        file.write(b"[")
        for _ in range(megabytes):
            file.write(piece)


@pytest.mark.parametrize("name", ["a.json.gz", "a.json.zip"])
def test_archives_that_unpack_to_gigabytes_are_refused_before_they_do(tmp_path, name):
    bomb(tmp_path / name, b"[],", 200)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"is refused: [\d,]+ compressed bytes became more than"):
        read_json(tmp_path / name, "annotation file")
    assert tracemalloc.get_traced_memory()[1] < 3 * MOST_UNPACKED
    tracemalloc.stop()
    with (
        ByteSource(tmp_path / name, "results file", ResultsError) as source,
        pytest.raises(ResultsError, match="limit: 200 to 1"),
    ):
        deque(iter(lambda: source.read(1 << 18), b""), maxlen=0)


@pytest.mark.parametrize("form", ["gzip", "zip"])
def test_large_files_and_dense_ones_are_no_bombs(tmp_path, monkeypatch, form):
    path = tmp_path / "a.json"
    path.write_bytes(compressed(json.dumps([0] * 200_000).encode(), form))
    assert len(read_json(path, "file")) == 200_000  # 1,000 times as large, and small all the same
    monkeypatch.setattr(json_files, "MOST_UNPACKED", 1000)
    numbers = [random.Random(i).random() for i in range(20_000)]
    path.write_bytes(compressed(json.dumps(numbers).encode(), form))
    assert read_json(path, "file") == numbers


FULL_MEMORY = """
import resource, sys
if sys.argv[2] == "json":
    sys.modules["orjson"] = None
from eql_d2.json_files import read_json
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
try:
    read_json(sys.argv[1], "annotation file")
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("parser_name", ["json", "orjson"])
def test_a_file_larger_than_the_memory_is_a_message(tmp_path, parser_name):
    pytest.importorskip(parser_name)
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b"[]," * 5_000_000 + b"[]]")
    command = [sys.executable, "-c", FULL_MEMORY, str(path), parser_name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = f"DataError annotation file {path} needs more memory than there is; it holds 15,000,004"
    assert done.stdout.startswith(said)


def test_names_in_an_archive_are_shown_harmless(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[31m\nerror: b.txt", "")
    with pytest.raises(DataError, match=r"it holds \\x1b\[31m\\nerror: b\.txt"):
        read_json(path, "file")
