import pytest

from eql_d2.categories import CategoryStatistics, read_annotation_file
from eql_d2.errors import DataError


def test_reads_an_object_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"ä": 1}'.encode())
    assert read_annotation_file(path) == read_annotation_file(str(path)) == {"ä": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "must hold a json object .* holds a list"),
        ("17", "holds a int"),
        ('{"images": [1, 2', r"is not valid json \(it is cut off"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_annotation_file(path)
    assert f"annotation file {path}" in str(caught.value)


def test_an_error_while_counting_names_the_file(tmp_path):
    path = tmp_path / "empty_object.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"empty_object.json has no list named 'images'"):
        CategoryStatistics.from_json(path)
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match=r"empty_object.json lists no category"):
        CategoryStatistics.from_json(path)
