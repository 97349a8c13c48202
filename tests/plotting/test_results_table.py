"""Tables of runs: what is written is read, and wrong cells are named."""

import json

import pytest

from eql_d2.errors import DataError
from eql_d2.plotting import ResultRow, read_results_csv, rows_from_runs, write_results_csv


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
