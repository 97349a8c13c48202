"""Markup: what is text stays text."""

import pytest

from eql_d2.reporting.markup import Html, element, join, table


def test_text_and_attributes_are_escaped():
    found = element("p", '<b>"x" & y</b>', title='"><script>')
    assert found == (
        '<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;&quot;x&quot; &amp; y&lt;/b&gt;</p>'
    )


def test_markup_is_kept_and_nothing_is_left_out():
    assert element("p", element("b", "x"), None, "y") == "<p><b>x</b>y</p>"
    assert join(["<", Html("<br>")], " ") == "&lt; <br>"


@pytest.mark.parametrize(
    ("attributes", "written"),
    [
        ({"class_": "a"}, ' class="a"'),
        ({"data_filters": "t"}, ' data-filters="t"'),
        ({"hidden": True, "title": None, "open": False}, " hidden"),
        ({"x": 1.0}, ' x="1"'),
        ({"x": 0.126}, ' x="0.13"'),
        ({"x": 10}, ' x="10"'),
        ({"x": 100.0}, ' x="100"'),
    ],
)
def test_attributes(attributes, written):
    assert element("i", **attributes) == f"<i{written}></i>"


def test_void_elements_have_no_end():
    assert element("img", src="data:,") == '<img src="data:,">'


def test_tables_name_their_rows_and_columns():
    found = table("What <it> shows", ["name", "AP"], [["a&b", "1"], ["c", "2"]])
    assert "<caption>What &lt;it&gt; shows</caption>" in found
    assert found.count('scope="col"') == 2
    assert found.count('scope="row"') == 2
    assert "a&amp;b" in found
    with pytest.raises(ValueError, match="zip"):
        table("x", ["name", "AP"], [["a", "1", "too many"]])
