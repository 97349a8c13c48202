"""Tables of runs: what is written is read, and wrong cells are named."""

import json

import pytest

from eql_d2.categories import CategoryStatistics, Grouping, write_statistics
from eql_d2.errors import DataError, UserError
from eql_d2.plotting import (
    ResultRow,
    groups_source,
    read_results_csv,
    rows_from_runs,
    write_results_csv,
)


def csv_file(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_text(text)
    return path


def test_what_is_written_is_read(tmp_path):
    rows = [
        ResultRow("EQL, lambda 0.1", 0, {"bbox/AP": 13.25, "bbox/APr": None}),
        ResultRow("sigmoid", 3, {"bbox/AP": 0.0, "segm/AP": 7.5}),
    ]
    path = tmp_path / "new" / "r.csv"
    write_results_csv(rows, path)
    assert path.read_text().splitlines()[0] == "config,seed,bbox/AP,bbox/APr,segm/AP"
    assert read_results_csv(path) == [
        ResultRow("EQL, lambda 0.1", 0, {"bbox/AP": 13.25, "bbox/APr": None, "segm/AP": None}),
        ResultRow("sigmoid", 3, {"bbox/AP": 0.0, "bbox/APr": None, "segm/AP": 7.5}),
    ]


def test_other_columns_are_ignored_in_any_order(tmp_path):
    path = csv_file(tmp_path, "engine,bbox/AP,seconds,seed,config\ntv,12.5,fast,1,EQL\n")
    assert read_results_csv(path) == [ResultRow("EQL", 1, {"bbox/AP": 12.5})]


@pytest.mark.parametrize("cell", ["", "n/a", "null", "None", "NaN", " "])
def test_undefined_cells(tmp_path, cell):
    path = csv_file(tmp_path, f"config,seed,bbox/AP\nEQL,1,{cell}\n")
    assert read_results_csv(path)[0].metrics == {"bbox/AP": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config,bbox/AP\nEQL,1\n", r"lacks the column\(s\) seed"),
        ("seed,bbox/AP\n1,1\n", r"lacks the column\(s\) config"),
        ("config,seed,AP\nEQL,1,3\n", "lacks the column.* metrics such as bbox/AP"),
        ("", "lacks the column"),
        ("config,seed,bbox/AP\n", "has a header but no rows"),
        ("config,seed,bbox/AP\nEQL,0,3\nEQL,one,3\n", "line 3: invalid literal"),
        ("config,seed,bbox/AP\nEQL,1,high\n", "line 2: could not convert"),
        ("config,seed,bbox/AP\nEQL,1,inf\n", "line 2: metric must be finite"),
        ("config,seed,bbox/AP\nEQL,1\n", "line 2: fewer cells than the header"),
    ],
)
def test_wrong_tables_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_results_csv(csv_file(tmp_path, text))


def test_no_table(tmp_path):
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_results_csv(tmp_path / "gone.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_results_csv(tmp_path / "image.csv")


def run(tmp_path, name, content, config=None):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "metrics.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


@pytest.mark.parametrize(
    ("name", "config"),
    [("eql_seed3", "eql"), ("eql-s3", "eql"), ("eql_s_3", "eql"), ("eql-seed-3", "eql")],
)
def test_seeds_of_a_configuration_come_together(tmp_path, name, config):
    (row,) = rows_from_runs([run(tmp_path, name, {"bbox/AP": 3, "bbox/APr": None, "time": 4})])
    assert row == ResultRow(config, 3, {"bbox/AP": 3.0, "bbox/APr": None})


def test_names_without_a_seed_stay_whole(tmp_path):
    rows = rows_from_runs([run(tmp_path, n, {"bbox/AP": 1}) for n in ("r50", "eqls", "lvis_v1")])
    assert [(r.config, r.seed) for r in rows] == [("r50", -1), ("eqls", -1), ("lvis_v1", -1)]


def test_the_seed_of_the_configuration_wins(tmp_path):
    config = "MODEL:\n  SEED: 4\nSEED: 11\nVERSION: 2\n"
    (row,) = rows_from_runs([run(tmp_path, "eql_seed3", {"bbox/AP": 1}, config)])
    assert (row.config, row.seed) == ("eql", 11)
    nested = run(tmp_path, "sig_seed2", {"bbox/AP": 1}, "MODEL:\n  SEED: 4\n")
    assert rows_from_runs([nested])[0].seed == 2


def test_unfinished_runs_are_left_out(tmp_path):
    (tmp_path / "unfinished").mkdir()
    finished = run(tmp_path, "done", {"bbox/AP": 1})
    assert [r.config for r in rows_from_runs([tmp_path / "unfinished", finished])] == ["done"]


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"bbox/AP": "high"}', '{"bbox/AP": [1]}'])
def test_damaged_metrics_are_named(tmp_path, content):
    with pytest.raises(DataError, match=r"metrics\.json is no flat json of metrics"):
        rows_from_runs([run(tmp_path, "bad", content)])


def grouped_run(tmp_path, name, groups, names=("cat", "dog, big"), statistics=None):
    """A run with the table of its categories, and perhaps statistics with other groups."""
    folder = run(tmp_path, name, {"bbox/AP": 1})
    rows = [f'{i},"{n}",{g}' for i, (n, g) in enumerate(zip(names, groups, strict=True), 1)]
    (folder / "per_category.csv").write_text("\n".join(["category_id,name,group", *rows]) + "\n")
    if statistics is not None:
        counts = {"image_count": [1, 2], "instance_count": [1, 2], "num_images": 3}
        written = CategoryStatistics.from_counts(
            names=names, category_ids=[1, 2], groups=statistics,
            grouping=Grouping("quantiles"), **counts,
        )  # fmt: skip
        write_statistics(written, folder)
    return folder


def test_runs_with_different_groups_make_no_table(tmp_path):
    first, same = grouped_run(tmp_path, "a", "rf"), grouped_run(tmp_path, "b", "rf")
    bare = run(tmp_path, "bare", {"bbox/AP": 1})
    animals = grouped_run(tmp_path, "animals", "ff", names=("cat", "cow"))
    assert len(rows_from_runs([first, same, bare, animals])) == 4
    other = grouped_run(tmp_path, "c", "rc")
    with pytest.raises(UserError) as caught:
        rows_from_runs([first, bare, other])
    message = str(caught.value)
    words = f"category 'dog, big' (id 2) is frequent in {first} and common in {other}"
    assert words in message
    assert "--groups-from TRAIN_JSON" in message, "neither run holds its statistics"
    written = grouped_run(tmp_path, "written", "rc", statistics="rc")
    with pytest.raises(UserError, match=f"--groups-from {written} "):
        rows_from_runs([first, written])
    with pytest.raises(UserError, match=r"is rare in .* and in no group in "):
        rows_from_runs([first, grouped_run(tmp_path, "d", ("", ""))])


def test_the_definition_of_the_groups_is_that_of_the_metrics(tmp_path):
    none = grouped_run(tmp_path, "none", ("", ""))
    assert groups_source([none, run(tmp_path, "bare", {"bbox/AP": 1})]) == ""
    same = grouped_run(tmp_path, "same", "rf", statistics="rf")
    path = same / "category_statistics.json"
    words = f"thirds of the categories by training images (quantiles), from {path}"
    assert groups_source([none, same]) == words
    scored_again = grouped_run(tmp_path, "again", "rf", statistics="rc")
    assert groups_source([scored_again]) == f"as in {scored_again / 'per_category.csv'}"


def test_damaged_tables_of_categories_are_named(tmp_path):
    folder = run(tmp_path, "bad", {"bbox/AP": 1})
    (folder / "per_category.csv").write_text("category_id,name\n1,x\n")
    with pytest.raises(DataError, match=r"per_category\.csv is no table as evaluate\.py writes it"):
        rows_from_runs([folder])
