"""plot_results.py: curves and bars from finished, unfinished and foreign folders."""

import importlib.util
import json
from pathlib import Path

import pytest

from eql_d2.errors import DataError, UserError

TOOL = Path(__file__).parents[2] / "tools" / "plot_results.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("plot_results_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_run(folder, log=True, metrics=True):
    folder.mkdir(parents=True)
    if log:
        lines = [json.dumps({"iteration": i, "total_loss": 3.0 / (i + 1)}) for i in range(20)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if metrics:
        (folder / "metrics.json").write_text(json.dumps({"bbox/AP": 12.5, "bbox/APr": None}))
    return str(folder)


def written(folder):
    return sorted(p.name for p in folder.iterdir())


def test_runs_give_curves_table_and_bars(tool, tmp_path):
    runs = [make_run(tmp_path / name) for name in ("eql_seed0", "eql_seed1", "sigmoid_seed0")]
    assert tool.main(["--runs", *runs, "--output", str(tmp_path / "out")]) == 0
    assert written(tmp_path / "out") == ["loss_curves.png", "metrics.png", "results.csv"]
    assert (tmp_path / "out" / "results.csv").read_text() == (
        "config,seed,bbox/AP,bbox/APr\neql,0,12.5000,\neql,1,12.5000,\nsigmoid,0,12.5000,\n"
    )


def test_the_definition_of_the_groups_is_printed(tool, tmp_path, capsys):
    run = make_run(tmp_path / "eql_seed0")
    table = tmp_path / "eql_seed0" / "per_category.csv"
    table.write_text("category_id,name,group\n1,cat,r\n")
    assert tool.main(["--runs", run, "--output", str(tmp_path / "out")]) == 0
    assert f"rare/common/frequent: as in {table}\n" in capsys.readouterr().out


def test_the_written_table_can_be_drawn_again(tool, tmp_path):
    run = make_run(tmp_path / "eql_seed0")
    tool.main(["--runs", run, "--output", str(tmp_path / "a")])
    table = str(tmp_path / "a" / "results.csv")
    assert tool.main(["--csv", table, "--output", str(tmp_path / "b")]) == 0
    pictures = [(tmp_path / f / "metrics.png").read_bytes() for f in "ab"]
    assert pictures[0] == pictures[1]
    assert written(tmp_path / "b") == ["metrics.png"]


@pytest.mark.parametrize(
    ("log", "metrics", "files"),
    [(True, False, ["loss_curves.png"]), (False, True, ["metrics.png", "results.csv"])],
)
def test_unfinished_runs(tool, tmp_path, log, metrics, files):
    run = make_run(tmp_path / "run", log, metrics)
    assert tool.main(["--runs", run, "--output", str(tmp_path / "out")]) == 0
    assert written(tmp_path / "out") == files


def test_folders_of_one_name_are_told_apart(tool, tmp_path):
    runs = [Path(make_run(tmp_path / parent / "run")) for parent in "ab"]
    assert tool.labels(runs) == {str(run): run for run in runs}
    assert tool.labels(runs[:1]) == {"run": runs[0]}


def test_a_run_that_is_named_twice_is_no_second_run(tool, tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(UserError, match="a run is named twice"):
        tool.main(["--runs", run, f"{run}/../a", "--output", str(tmp_path / "out")])


def test_nothing_to_draw(tool, tmp_path):
    empty = make_run(tmp_path / "run", log=False, metrics=False)
    with pytest.raises(UserError, match=r"no metrics\.jsonl and no metrics\.json in"):
        tool.main(["--runs", empty, "--output", str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"no such folder: .*gone"):
        tool.main(["--runs", str(tmp_path / "gone"), "--output", str(tmp_path / "out")])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        tool.main(["--csv", str(tmp_path / "gone.csv"), "--output", str(tmp_path / "out")])
    with pytest.raises(DataError, match="cannot be read"):
        tool.main(["--csv", "", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_told_first(tool, tmp_path, monkeypatch):
    run = make_run(tmp_path / "eql_seed0")
    (tmp_path / "out").write_text("a file")
    monkeypatch.setattr(tool, "plot_loss_curves", lambda *_: pytest.fail("was drawn"))
    for source in (["--runs", run], ["--csv", "any.csv"]):
        with pytest.raises(UserError, match=r"--output .*out: .*out is a file; give a folder"):
            tool.main([*source, "--output", str(tmp_path / "out")])


def test_exit_code_2_with_a_message(tool, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        tool.run_tool(lambda: tool.main(["--runs", str(tmp_path / "gone"), "--output", "out"]))
    assert error.value.code == 2
    assert capsys.readouterr().err.startswith("error: --runs: no such folder")
