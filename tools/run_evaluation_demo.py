"""The whole way from training to a checked submission, each step a command that is shown first.

    python tools/run_evaluation_demo.py --output-dir output/evaluation_demo
    python tools/run_evaluation_demo.py --output-dir DIR --runs RUN_A RUN_B

Trains sigmoid cross-entropy and EQL on longtail_shapes (short recipes; finished runs stay, others
are resumed), or takes two finished runs on the same test images. Then: metrics, comparison of the
runs, submission file, validator, metrics of that file, which must be the same, and a results page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eql_d2.command_line import from_one, run_tool
from eql_d2.config import load_config
from eql_d2.errors import UserError
from eql_d2.files import STATISTICS_FILE, check_output_folder
from eql_d2.submission.ap_change import metric_changes

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [ROOT / f"configs/quick/longtail_shapes_{loss}.yaml" for loss in ("sigmoid", "eql")]
RESULTS = "inference/lvis_instances_results.json"
LARGEST_CHANGE = 1e-9  # percent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Train, evaluate, compare, pack and check.")
    parser.add_argument("--output-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--runs", nargs=2, type=Path, metavar=("RUN_A", "RUN_B"))
    parser.add_argument("--iterations", type=int, default=200, metavar="N", help="of training")
    parser.add_argument("--engine", default="torchvision", choices=("torchvision", "detectron2"))
    parser.add_argument("--num-gpus", type=from_one, default=1, help="processes of training")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="for both runs")
    args = parser.parse_args(argv)
    out = check_output_folder(args.output_dir, "--output-dir")
    runs: list[Path] = args.runs or [out / config.stem for config in CONFIGS]
    flags = ["--engine", args.engine, "--num-gpus", args.num_gpus, "SOLVER.MAX_ITER"]
    flags += [args.iterations, "SOLVER.STEPS", f"[{args.iterations * 3 // 4}]", *args.set]
    for config, run in zip(CONFIGS, runs, strict=True):
        if not args.runs and not (run / "metrics.json").is_file():
            tool("train_net", "--config-file", config, "--resume", *flags, "OUTPUT_DIR", run)
    gt, images = [data_of(run) for run in runs][1]  # both are runs
    packed, again, scored = out / "submission.zip", out / "submission", out / "metrics"
    given = ["--annotations", gt]
    names = [run.resolve().name for run in runs]
    names = names if names[0] != names[1] else ["A", "B"]  # each has a folder below
    groups = {run: ["--groups-from", run] for run in runs if (run / STATISTICS_FILE).is_file()}
    for run, name in zip(runs, names, strict=True):
        files = ["--results", run / RESULTS, "--output-dir", scored / name]
        tool("evaluate", *given, *groups.get(run, []), *files)
    tool("compare_results", *runs, *given, "--names", *names)
    tool("pack_submission", "--image-info", gt, "--results", runs[1] / RESULTS, "--output", packed)
    tool("validate_results", *given, "--results", packed)
    tool("evaluate", *given, *groups.get(runs[1], []), "--results", packed, "--output-dir", again)
    tool("report", "--runs", *runs, *given, "--images", images, "--output", out / "report.html")
    folders = (scored / names[1], again)
    before, after = (json.loads((f / "metrics.json").read_text("utf-8")) for f in folders)
    change = max(metric_changes(before, after).values(), default=0.0)
    if change > LARGEST_CHANGE:
        raise RuntimeError(f"the submission has other metrics: {before} became {after}")
    print(f"\nSubmission and results score alike: largest change {change:.1e} of a percent.")
    return 0


def data_of(run: Path) -> tuple[Path, Path]:
    """Test annotations and test images, from the configuration of a run."""
    data = load_config(str(run / "config.yaml"), []).DATA
    if data.GENERATE:
        return Path(data.LONGTAIL_SHAPES.DIR, "test.json"), Path(data.LONGTAIL_SHAPES.DIR, "test")
    return Path(data.TEST_JSON), Path(data.TEST_IMAGES)


def tool(name: str, *arguments: object) -> None:
    """Show a command and run it; the way ends where one fails."""
    words = [f"tools/{name}.py", *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    if code := subprocess.call([sys.executable, ROOT / words[0], *words[1:]]):
        raise UserError(f"tools/{name}.py ended with code {code}")


if __name__ == "__main__":
    run_tool(main)
