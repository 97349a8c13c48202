"""The lists of an annotation file in pieces: what json.load gives, or an error that names it."""

import json
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.errors import DataError
from eql_d2.submission import object_stream
from eql_d2.submission.object_stream import stream_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=8,
)


def lists_of(path):
    found = {}
    for key, batch in stream_members(path):
        found.setdefault(key, []).extend(batch)
    return found


@settings(deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=4), st.lists(VALUES, max_size=9) | VALUES, max_size=5),
    piece=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_same_as_json(tmp_path_factory, value, piece, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "object.json"
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode("utf-8", "surrogatepass") if ascii_only else text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_stream, "CHUNK_BYTES", piece)
        patch.setattr(object_stream, "LONGEST_NUMBER", 30)
        patch.setattr(object_stream, "BATCH", 2)
        assert lists_of(path) == {k: v for k, v in value.items() if isinstance(v, list)}


def test_byte_order_mark_nan_and_compression(tmp_path):
    import gzip

    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf {"a": [NaN, 1], "b": 3} \n'))
    ((key, values),) = stream_members(path)
    assert key == "a"
    assert values[0] != values[0]
    assert values[1] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a json object"),
        ("[1]", "at character 0: expected a json object"),
        ('{"a": [1, 2', "cut off"),
        ('{"a": [1, {"b": "c', "cut off"),
        ('{"a"', "cut off"),
        ('{"a": [1,]}', "Expecting value"),
        ('{"a": [1 2]}', "character 9: expected ',', got '2'"),
        ('{"a": 1,}', "expected a key in double quotes"),
        ("{'a': 1}", "expected a key in double quotes"),
        ('{"a" 1}', "expected ':', got '1'"),
        ('{"a": [1]} x', "character 11: text after the end"),
        ('{"a": [1], "a": [2]}', "the key 'a' comes twice"),
        ('{"a": ' + "[" * 100_000, "recursion"),
        ('{"a": ' + "9" * 5000 + "}", "integer string conversion"),
        ('{"a": "\x01"}', "Invalid control character"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_broken_files(tmp_path, monkeypatch, text, message, piece):
    monkeypatch.setattr(object_stream, "CHUNK_BYTES", max(piece, len(text) // 100))
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        lists_of(path)
    assert str(path) in str(caught.value)


def test_not_utf8_and_missing(tmp_path):
    path = tmp_path / "broken.json"
    path.write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(DataError, match="not UTF-8"):
        lists_of(path)
    path.write_bytes(b'{"a": ["\xc3')
    with pytest.raises(DataError, match="not UTF-8"):
        lists_of(path)
    with pytest.raises(DataError, match="cannot be read"):
        lists_of(tmp_path / "missing.json")


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    path = tmp_path / "large.json"
    monkeypatch.setattr(object_stream, "BATCH", 100)
    monkeypatch.setattr(object_stream, "CHUNK_BYTES", 1 << 16)
    item = json.dumps({"id": 1, "segmentation": [[0.5] * 500]})
    path.write_text('{"annotations": [' + ",".join([item] * 1000) + "]}")  # 2.5 MB
    tracemalloc.start()
    number = 0
    for _, batch in stream_members(path):
        number += len(batch)
        del batch
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 1000
    assert peak < 4e6, peak  # 12 MB if all were kept


def test_a_value_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(object_stream, "CHUNK_BYTES", 100)
    monkeypatch.setattr(object_stream, "LARGEST_VALUE", 1000)
    path = tmp_path / "a.json"
    path.write_text('{"images": [' + '{"id": 1},' * 500 + '{"name": "' + "x" * 100_000)
    with pytest.raises(DataError, match="no value ends within 1,000 characters"):
        lists_of(path)
    path.write_text('{"images": [' + '{"id": 1},' * 500 + '{"id": 2}]}')
    assert len(lists_of(path)["images"]) == 501  # a long list is no long value


def test_a_million_levels_are_found_without_reading_on(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": [' + "[" * 1_000_000 + "1" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="recursion"):
        lists_of(path)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
