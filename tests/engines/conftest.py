"""What the tests of both engines share."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
RESULTS = "inference/lvis_instances_results.json"


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def graded_results():
    """``graded_results(test_json, path)``: of each category another share of objects is found.

    APr, APc and APf thus differ, whatever the groups are.
    """

    def write(test_json, path):
        content = json.loads(Path(test_json).read_text())
        ids = sorted(category["id"] for category in content["categories"])
        records = []
        for place, category in enumerate(ids, 1):
            own = [a for a in content["annotations"] if a["category_id"] == category]
            records += [
                {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
                | {"score": 0.9}
                for a in own[: -(-place * len(own) // len(ids))]
            ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records))
        return path

    return write


@pytest.fixture
def assert_tools_agree(tmp_path, capsys):
    """Check that each tool gives the numbers of a quantile run from its folder alone."""

    def check(run, test_json):
        metrics = json.loads((run / "metrics.json").read_text())
        by_group = {k: v for k, v in metrics.items() if k.endswith(("APr", "APc", "APf"))}
        assert len(set(by_group.values())) >= 3, "the test must tell the groups apart"
        source = f"thirds of the categories by training images (quantiles), from {run}"
        words = f"{source}/category_statistics.json"

        given = ["--annotations", str(test_json)]
        results, scores = ["--results", str(run / RESULTS)], tmp_path / "scores"
        capsys.readouterr()
        load_tool("evaluate").main([*given, *results, "--output-dir", str(scores)])
        assert f"rare/common/frequent: {words}\n" in capsys.readouterr().out
        assert json.loads((scores / "metrics.json").read_text()) == metrics
        table = (scores / "per_category.csv").read_text()
        assert table == (run / "per_category.csv").read_text()

        other = tmp_path / "other"
        shutil.copytree(run, other)
        out = tmp_path / "out.json"
        pair = [str(run), str(other), *given, "--resamples", "100", "--json", str(out)]
        load_tool("compare_results").main(pair)
        assert f"rare/common/frequent: {words}\n" in capsys.readouterr().out
        compared = json.loads(out.read_text())
        assert compared["groups"] == words
        assert {k: compared["metrics"][k]["A"] for k in by_group} == pytest.approx(by_group)

        page = tmp_path / "page.html"
        pair = ["--runs", str(run), str(other), "--output", str(page), "--resamples", "100"]
        load_tool("report").main([*pair, *given])
        text = page.read_text()
        assert f"r, c, f: rare, common and frequent categories ({words})" in text
        assert f"Rare, common, frequent: {words}." in text
        for letter, name in (("r", "rare"), ("c", "common"), ("f", "frequent")):
            number = sum(line.split(",")[2] == letter for line in table.splitlines())
            assert f"<li><b>{number}</b><span>{name}</span></li>" in text
        for value in by_group.values():
            assert text.count(f">{value:.1f}<") >= 2, "in the metrics of both runs"
            assert text.count(f">{value:.2f}<") >= 2, "on both sides of their comparison"
        assert "no category is" not in text
        assert "training images with the category" in text

    return check
