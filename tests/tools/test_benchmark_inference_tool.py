"""The benchmark of inference: its numbers, its file, and what it does without a peer."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError
from eql_d2.inference import benchmark
from eql_d2.inference.benchmark import Comparison, make_box_case, make_mask_case, measure

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_inference.py"


@pytest.fixture
def tool(monkeypatch):
    """The tool with small cases."""
    spec = importlib.util.spec_from_file_location("benchmark_inference", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = {"rois": 60, "categories": 40}
    boxes = [make_box_case("fresh", **small), make_box_case("trained", **small, ties=True)]
    monkeypatch.setattr(module, "box_cases", lambda: boxes)
    monkeypatch.setattr(module, "mask_cases", lambda: [make_mask_case("small", number=4)])
    return module


def test_measures_beside_torchvision(tool, tmp_path, capsys):
    out = tmp_path / "inference.json"
    threads = str(torch.get_num_threads())
    arguments = ["--peers", "torchvision", "--repetitions", "1", "--threads", threads]
    tool.main([*arguments, "--json", str(out)])
    content = json.loads(out.read_text())
    rows = content["measurements"]
    assert [row["task"] for row in rows] == ["boxes", "boxes", "masks"]
    assert all(row["identical"] for row in rows)
    assert rows[0]["number"] == 60 * 40
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"])
    text = capsys.readouterr().out
    assert text.count(" yes") == 3
    assert content["hardware"] in text


@pytest.mark.detectron2
def test_measures_beside_detectron2(tool, capsys):
    tool.main(["--peers", "detectron2", "--repetitions", "1"])
    assert capsys.readouterr().out.count(" yes") == 3


def test_a_missing_peer_is_left_out(tool, monkeypatch, capsys):
    def missing(name):
        raise MissingPackageError("Detectron2 is needed")

    monkeypatch.setattr(tool.importlib, "import_module", missing)
    tool.main(["--peers", "detectron2"])
    assert "detectron2 is left out: Detectron2 is needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", f"{__file__}/out.json"], "is a file; give a folder"),
        (["--repetitions", "0"], "1 or more"),
    ],
)
def test_wrong_commands_are_refused(tool, arguments, message):
    with pytest.raises(UserError, match=message):
        tool.main(arguments)


def test_a_difference_is_found_and_ends_the_run(tool, monkeypatch, capsys):
    comparison = Comparison("masks", "peer", "case", 1, lambda: [1], lambda: [2])
    row = measure(comparison, repetitions=1, device=torch.device("cpu"))
    assert not row.identical
    assert row.row().endswith("NO")
    monkeypatch.setattr(tool, "measure", lambda *_, **__: row)
    with pytest.raises(RuntimeError, match="3 results differ"):
        tool.main(["--peers", "torchvision", "--repetitions", "1"])


def test_the_cases_are_as_large_as_they_say():
    fresh = torch.sigmoid(make_box_case("fresh").logits) > benchmark.SCORE_THRESHOLD
    assert fresh.numel() == 1000 * 1203
    assert fresh.all()
    trained = torch.sigmoid(make_box_case("trained").logits) > benchmark.SCORE_THRESHOLD
    assert 250_000 < int(trained.sum()) < 350_000
    tied = make_box_case("trained", rois=50, ties=True).logits
    assert len(tied.unique()) < tied.numel() / 4
    areas = [make_mask_case(name).boxes for name in benchmark.BOX_SIDES]
    means = [float((b[:, 2:] - b[:, :2]).prod(1).mean()) for b in areas]
    assert means == sorted(means)
    assert means[0] < 3000 < 30_000 < means[2]
