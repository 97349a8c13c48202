"""Run folders of strangers: a message that names the file, never a traceback."""

import json
import shutil

import pytest

from eql_d2.data import load_detection_data
from eql_d2.errors import DataError, ResultsError
from eql_d2.reporting import read_sides, write_report

RESULTS = "inference/lvis_instances_results.json"


@pytest.fixture
def copy(make_run, tmp_path):
    """A run of its own to damage."""
    return shutil.copytree(make_run("hostile_seed0"), tmp_path / "eql_seed0")


@pytest.mark.parametrize("value", ["1" * 400, "NaN", "Infinity", '"x"', "[]", "true2"])
def test_metrics_must_be_finite_numbers(copy, value):
    (copy / "metrics.json").write_text(f'{{"bbox/AP": 1.0, "bbox/APr": {value}}}')
    with pytest.raises(DataError, match=r"metrics\.json"):
        read_sides([copy])


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 400, "-1", "nan", "inf", "1e308", ""])
@pytest.mark.parametrize("column", ["images", "bbox/AP"])
def test_tables_of_categories_must_hold_counts_and_percents(copy, value, column):
    path = copy / "per_category.csv"
    header, first, *rest = path.read_text().split("\n")
    cells = first.split(",")
    cells[header.split(",").index(column)] = value
    path.write_text("\n".join([header, ",".join(cells), *rest]))
    if (column, value) == ("bbox/AP", ""):
        assert read_sides([copy])  # a category without ground truth
        return
    with pytest.raises(DataError, match=r"per_category\.csv is no table"):
        read_sides([copy])


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"iteration": 1e999}', f'{{"iteration": 1{"0" * 400}}}'], ids=len
)
def test_training_logs_must_hold_records(copy, line, tmp_path):
    path = copy / "metrics.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(DataError, match=r"metrics\.jsonl line 1 is no json record"):
        write_report(tmp_path / "r.html", read_sides([copy]))


def test_a_seed_of_thousands_of_digits_is_none(copy):
    (copy / "config.yaml").write_text(f"SEED: {'9' * 6000}\n")
    assert read_sides([copy])[0].runs[0].row.seed == 0  # that of the folder's name


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": [1]},
        {"category_id": {}},
        {"bbox": "x"},
        {"bbox": [1, 2, 3]},
        {"score": None},
        {"bbox": ..., "segmentation": {"size": [10**9, 10**9], "counts": "0"}},
        {"bbox": ..., "segmentation": [[1, 1, 2, 2, 3, 3]]},
        {"category_id": ...},
        None,
    ],
)
def test_results_that_are_no_detections_are_named(copy, dataset, tmp_path, change):
    records = json.loads((copy / RESULTS).read_text())
    for i, record in enumerate(records):
        if change is None:
            records[i] = "\x1b[31m"
            continue
        record |= {key: value for key, value in change.items() if value is not ...}
        for key in (key for key, value in change.items() if value is ...):
            del record[key]
    (copy / RESULTS).write_text(json.dumps(records))
    data = load_detection_data(dataset[0], dataset[2])
    with pytest.raises(ResultsError, match="which is no detection") as caught:
        write_report(tmp_path / "r.html", read_sides([copy]), data=data)
    assert RESULTS in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_short_rows_of_a_table_are_named(copy):
    path = copy / "per_category.csv"
    header, _, *rest = path.read_text().split("\n")
    path.write_text("\n".join([header, "1", *rest]))
    with pytest.raises(DataError, match=r"per_category\.csv is no table"):
        read_sides([copy])
