"""A json array in pieces: what json.load gives, or an error that names the file and the byte."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eql_d2.errors import ResultsError
from eql_d2.evaluation import record_stream
from eql_d2.evaluation.record_stream import stream_records

NASTY = st.text(alphabet='{}[],:"\\ ab\n é\U0001f600\x00', max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | NASTY
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NASTY, v, max_size=3), max_leaves=8
)
RECORD = {"image_id": 5, "category_id": 3, "score": 0.25, "bbox": [1.5, 2, 3, 4]}
ENGINES = ["orjson", "json"]


@pytest.fixture(params=ENGINES)
def parser(request, monkeypatch):
    """With and without orjson."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)
    else:
        pytest.importorskip("orjson")
    return request.param


def read(path, chunk_bytes=record_stream.CHUNK_BYTES):
    batches = list(stream_records(path, chunk_bytes=chunk_bytes))
    assert all(batches), "a batch is empty"
    return [record for batch in batches for record in batch]


def refused(path, content):
    """The message of the error, the same for every size of the pieces."""
    path.write_bytes(content)
    messages = set()
    for size in (1, 7, 1 << 20):
        with pytest.raises(ResultsError) as caught:
            read(path, size)
        messages.add(str(caught.value))
    assert len(messages) == 1, messages
    return messages.pop()


@settings(max_examples=300, deadline=None)
@given(
    records=st.lists(VALUES, max_size=12),
    indent=st.sampled_from([None, 0, 1]),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (" , ", " : ")]),
    margin=st.text(" \t\r\n", max_size=3),
    mark=st.booleans(),
    chunk_bytes=st.sampled_from([1, 2, 5, 16, 100, 1000]),
)
@pytest.mark.parametrize("engine", ENGINES)
def test_equals_json_load(
    engine, records, indent, ascii_only, separators, margin, mark, chunk_bytes, tmp_path_factory
):
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only, separators=separators)
    path = tmp_path_factory.getbasetemp() / "parity.json"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + f"{margin}{text}{margin}".encode())
    with pytest.MonkeyPatch.context() as patch:
        if engine == "json":
            patch.setitem(sys.modules, "orjson", None)
        assert repr(read(path, chunk_bytes)) == repr(json.loads(text))


def _in_64_bits(value):
    """Whole numbers beyond 64 bits as floats, which is how orjson reads them."""
    return json.loads(
        json.dumps(value),
        parse_int=lambda text: int(text) if -(2**63) <= int(text) < 2**64 else float(text),
    )


@settings(max_examples=500, deadline=None)
@given(
    records=st.lists(VALUES, min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    mutations=st.integers(1, 3),
    chunk_bytes=st.sampled_from([1, 5, 50, 1000]),
)
def test_mutated_texts_are_read_as_json_does_or_refused_by_name(
    records, seed, mutations, chunk_bytes, tmp_path_factory
):
    rng = np.random.default_rng(seed)
    text = bytearray(json.dumps(records, ensure_ascii=False).encode())
    for _ in range(mutations):
        place = int(rng.integers(len(text) + 1))
        change = int(rng.integers(3))
        letter = b'{}[],:"\\ 1eN\xff\n-'[int(rng.integers(14))]
        if change == 0:
            text.insert(place, letter)
        elif change == 1:
            del text[place : place + int(rng.integers(1, 4))]
        else:
            text[place : place + 1] = bytes([letter])
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_bytes(text)
    try:
        expected = json.loads(bytes(text).decode("utf-8"))
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert repr(_in_64_bits(read(path, chunk_bytes))) == repr(_in_64_bits(expected))
    else:
        with pytest.raises(ResultsError, match=r"mutated\.json.* at byte \d+"):
            read(path, chunk_bytes)


@pytest.mark.parametrize("chunk_bytes", [1, 30, 75, 76, 77, 1000])
def test_batches_come_while_the_file_is_read(chunk_bytes, tmp_path, parser):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([RECORD] * 50))
    batches = list(stream_records(path, chunk_bytes=chunk_bytes))
    assert [record for batch in batches for record in batch] == [RECORD] * 50
    assert max(map(len, batches)) <= max(1, chunk_bytes * 2 // len(json.dumps(RECORD)) + 1)


def test_numbers_that_are_none_pass_as_in_json(tmp_path, parser):
    path = tmp_path / "a.json"
    path.write_text(
        '[{"a": NaN}, {"a": -Infinity}, {"a": Infinity}, {"a": 1e400}, {"a": "\\ud800"}]'
    )
    for chunk_bytes in (1, 1000):
        assert str(read(path, chunk_bytes)) == (
            "[{'a': nan}, {'a': -inf}, {'a': inf}, {'a': inf}, {'a': '\\ud800'}]"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a json list of detections at byte 0, got nothing: the file is empty"),
        (b"  \n", "at byte 3, got nothing"),
        (b' {"images": []}', "at byte 1, got an object, as in an annotation file"),
        (
            b'{"image_id": 1}\n{"image_id": 2}',
            "got an object, as in an annotation file or a file of one record per line",
        ),
        (b"null", "at byte 0, got 'null'"),
        (b"\xff\xfe[", r"at byte 0, got '\xff\xfe['"),
        (b"[", "at byte 1: Expecting value; was it cut off while being written?"),
        (b'[{"a": 1}, {"a"', "at byte 15: Expecting ':' delimiter; was it cut off"),
        (b'[{"a": 1}', "at byte 9: Expecting ',' delimiter; was it cut off"),
        (b'[{"a": 1}, ', "; was it cut off"),
        (b'[{"a": "b', "at byte 7: Unterminated string starting at; was it cut off"),
        (b'[{"a": 1}, ]', "at byte 11: Expecting value"),
        (b"[,{}]", "at byte 1: Expecting value"),
        (b"[{},,{}]", "at byte 4: Expecting value"),
        (b'[{"a": 1}]]', "at byte 10: text after the end of the list"),
        (b'[{"a": 1}]  [{"a": 1}]', "at byte 12: text after the end of the list"),
        (b'[{"a": 1}]\n{"a": 1}, {"a": 1}', "at byte 11: text after the end"),
        (b'[{"a": 1},\n{"a": 01}, {"a": 2}]', "at byte 18: Expecting ',' delimiter"),
        ("[{\"é\": 1}, {'a': 1}]".encode(), "at byte 13: Expecting property name"),
        (b'[{"a": "\xff\xfe"}]', "at byte 8: not UTF-8"),
        (b'[{"a": 1}, {"a": "\xe9"}, {"a": 1}]', "at byte 18: not UTF-8"),
        (b"[{]}", "at byte 2: Expecting property name"),
        (b"[" * 3000 + b"]" * 3000, "at byte 900: more than 900 levels deep"),
        (b"[" + b"9" * 5000 + b"]", "at byte 0: Exceeds the limit"),
    ],
)
def test_what_is_no_array_is_refused_with_its_place(content, message, tmp_path, parser):
    path = tmp_path / "results.json"
    text = refused(path, content)
    assert text.startswith(f"results file {path}")
    assert message in text
