"""Files of records: memory, compression, damage, and that they are closed."""

import gzip
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from eql_d2 import json_files
from eql_d2.errors import ResultsError
from eql_d2.evaluation import record_stream
from eql_d2.evaluation.record_stream import stream_records

RECORD = {"image_id": 5, "category_id": 3, "score": 0.25, "bbox": [1.5, 2, 3, 4]}


def read(path, chunk_bytes=record_stream.CHUNK_BYTES):
    batches = list(stream_records(path, chunk_bytes=chunk_bytes))
    assert all(batches), "a batch is empty"
    return [record for batch in batches for record in batch]


def test_a_record_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(record_stream, "LARGEST_RECORD", 1000)
    path = tmp_path / "results.json"
    path.write_bytes(b'[{"a": 1}, {"a": "' + b"x" * 100_000)
    with pytest.raises(ResultsError, match="at byte 9: no record ends within"):
        read(path, 100)


def test_memory_follows_the_pieces_and_not_the_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([RECORD] * 40_000))
    read(path, 1 << 14)  # what the first use imports is not of the file
    peaks = []
    for chunk_bytes in (1 << 14, path.stat().st_size + 1):
        tracemalloc.start()
        assert sum(map(len, stream_records(path, chunk_bytes=chunk_bytes))) == 40_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] * 20 < peaks[1]
    assert peaks[0] < 60 * (1 << 14)  # parsed records are 20 times as large, and two pieces live


def test_compressed_files_are_told_by_their_content(tmp_path):
    text = json.dumps([RECORD] * 300).encode()
    path = tmp_path / "results.json"
    path.write_bytes(gzip.compress(text))
    assert read(path, 1000) == [RECORD] * 300
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "text")
        archive.writestr("folder/results.json", text)
    assert read(path, 1000) == [RECORD] * 300
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.json", text)
    with pytest.raises(ResultsError, match=r"one \.json file, it holds readme.txt, folder/res"):
        read(path)


@pytest.mark.parametrize("form", ["gzip", "zip"])
def test_broken_compressed_files_are_refused_by_name(form, tmp_path):
    path = tmp_path / "results.json"
    text = json.dumps([RECORD | {"score": i / 999} for i in range(500)]).encode()
    if form == "gzip":
        path.write_bytes(gzip.compress(text))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("results.json", text)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        if rng.random() < 0.3:
            del broken[int(rng.integers(10, len(broken))) :]
        else:
            broken[int(rng.integers(4, len(broken)))] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            records = read(path, 1000)
        except ResultsError as problem:
            refused += str(path) in str(problem)
        else:
            assert records == json.loads(text)
    assert refused > 200


def test_unreadable_files_and_folders(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read: No such file"):
        read(tmp_path / "absent.json")
    with pytest.raises(ResultsError, match="cannot be read: it is a folder"):
        read(tmp_path)


def test_the_file_is_closed_when_reading_stops_early(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([RECORD] * 100))
    opened = []
    original = json_files.ByteSource._open
    keep = lambda self, stack: opened.append(original(self, stack)) or opened[-1]  # noqa: E731
    monkeypatch.setattr(json_files.ByteSource, "_open", keep)
    records = stream_records(path, chunk_bytes=100)
    next(records)
    assert not opened[0].closed
    records.close()
    assert opened[0].closed


@pytest.mark.parametrize("unit", [b"\\\\", b'\\"', b"x"])
def test_a_string_without_end_takes_no_more_memory_than_the_file(tmp_path, unit):
    """A pattern for whole strings took 100 bytes for each backslash."""
    path = tmp_path / "results.json"
    path.write_bytes(b'[{"a":"' + unit * (500_000 // len(unit)))
    tracemalloc.start()
    with pytest.raises(ResultsError, match="was it cut off"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 20 * path.stat().st_size
    tracemalloc.stop()


def test_a_million_levels_are_a_message(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"[" * 1_000_000)
    with pytest.raises(ResultsError, match="more than 900 levels deep"):
        read(path)


def test_brackets_and_quotes_in_strings_end_nothing(tmp_path):
    records = [{"a": '"}, {[\\', "b": ["\\\\", '\\"', "]"]}] * 50
    path = tmp_path / "results.json"
    path.write_text(json.dumps(records))
    for size in (1, 7, 64, 1000):
        assert read(path, size) == records


@pytest.mark.parametrize("size", [1, 13, 1000])
def test_text_behind_the_list_is_found_wherever_the_pieces_end(tmp_path, size):
    path = tmp_path / "results.json"
    for number in range(1, 130):
        path.write_bytes(b'[{"a": [' + b"1" * number + b"]}, 2] \n ]")
        with pytest.raises(ResultsError, match="text after the end of the list"):
            read(path, size)
