import gc
import json
import random

import pytest

from eql_d2.categories import CategoryStatistics, paused_garbage_collection, read_json
from eql_d2.errors import DataError


def test_reads_an_object_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"ä": 1}).encode())
    assert read_json(path) == {"ä": 1}
    assert read_json(str(path)) == {"ä": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"[1, 2]", "holds a list"),
        (b"17", "holds a int"),
        (b'{"a": 1,, "b": 2}', "not valid json"),
        (b"<html>not found</html>", "not valid json"),
        (b'{"images": [{"id": 1}, {"id"', "is cut off"),
        (b'{"images": [{"name": "half a str', "is cut off"),
        (b'{"images": [1, 2', "is cut off"),
        (b"PK\x03\x04\xff\xfe\x00", "zip archive, unpack"),
        (b"\x1f\x8b\xff\xfe\x00", "gzip archive, unpack"),
        (b"\xff\xd8\xff\xe0 a picture", "not a json file"),
        (b'{"a":' + b"[" * 200_000, "json"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"missing.json does not exist"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(DataError, match="is a folder"):
        read_json(tmp_path)


def test_every_truncation_of_a_file_is_a_data_error(tmp_path):
    text = json.dumps({"images": [{"id": 1, "file_name": "a b.png", "x": [1.5, True, None]}]})
    path = tmp_path / "cut.json"
    for length in random.Random(0).sample(range(len(text)), 40):
        path.write_text(text[:length])
        with pytest.raises(DataError):
            read_json(path)


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


def test_an_error_while_counting_names_the_file(tmp_path):
    path = tmp_path / "empty_object.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"empty_object.json has no list named 'images'"):
        CategoryStatistics.from_json(path)
