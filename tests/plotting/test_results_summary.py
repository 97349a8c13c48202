"""Mean and spread over seeds."""

import csv

import pytest

from eql_d2.errors import UserError
from eql_d2.plotting.results_summary import (
    BEGIN,
    END,
    METRICS,
    insert_between_markers,
    markdown_table,
    summarise,
    write_summary_csv,
)
from eql_d2.plotting.results_table import ResultRow


@pytest.fixture
def rows():
    values = [("eql", 0, 10.0), ("base", 0, 4.0), ("eql", 1, 12.0), ("eql", 2, 17.0)]
    return [
        ResultRow(config, seed, {"bbox/AP": ap, "bbox/APr": None, "segm/AP": ap if seed else None})
        for config, seed, ap in values
    ]


def test_mean_and_sample_deviation(rows):
    found = summarise(rows)
    assert list(found) == ["eql", "base"]
    assert found["eql"]["bbox/AP"] == pytest.approx((13.0, 13.0**0.5))
    assert found["base"]["bbox/AP"] == (4.0, None)
    assert found["eql"]["segm/AP"] == pytest.approx((14.5, 12.5**0.5))
    assert found["eql"]["bbox/APr"] is None
    assert found["base"]["segm/AP"] is None


def test_csv_has_a_row_a_configuration(rows, tmp_path):
    write_summary_csv(rows, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [(x["config"], x["runs"]) for x in lines] == [("eql", "3"), ("base", "1")]
    assert lines[0]["bbox/AP"] == "13.0000"
    assert lines[0]["bbox/AP std"] == "3.6056"
    assert lines[0]["bbox/APr"] == ""
    assert lines[1]["bbox/AP std"] == ""


def test_markdown(rows):
    header, rule, first, second = markdown_table(rows).splitlines()
    assert header.startswith("| configuration | runs | box AP | box APr | box APc | box APf | mask")
    assert rule.count("|") == header.count("|") == first.count("|") == 2 + 1 + len(METRICS)
    assert first.startswith("| eql | 3 | 13.0 ± 3.6 | n/a |")
    assert second.startswith("| base | 1 | 4.0 | n/a |")


def test_insertion_replaces_the_old_table(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    insert_between_markers(path, "new")
    insert_between_markers(path, "newer")
    assert path.read_text() == f"above\n{BEGIN}\nnewer\n{END}\nbelow\n"


@pytest.mark.parametrize("text", ["nothing", BEGIN, f"{END} {BEGIN}"])
def test_a_file_without_markers_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="lacks the lines"):
        insert_between_markers(path, "new")
    assert path.read_text() == text
