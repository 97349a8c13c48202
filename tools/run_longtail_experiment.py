"""Compare losses on longtail_shapes: train configurations with several seeds, write one CSV.

    python tools/run_longtail_experiment.py --output-dir output/longtail_experiment
    python tools/run_longtail_experiment.py --output-dir DIR --seeds 0 1 2 --readme README.md

Every run is a call of train_net.py into DIR/NAME_seedS; the same command resumes it after an
interruption, another one refuses its folder. Writes DIR/runs.csv (a row per run) and
DIR/summary.csv (mean and deviation over seeds), and prints the table; --readme puts it between the
two marker lines of that file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from eql_d2.command_line import refuse_repeats, run_tool
from eql_d2.config import load_config
from eql_d2.errors import UserError
from eql_d2.files import check_output_folder
from eql_d2.plotting import results_summary, rows_from_runs, write_results_csv
from eql_d2.training_log import held_run

ROOT = Path(__file__).resolve().parent.parent
LOSSES = ("softmax", "sigmoid", "eql", "eql_rfs")
REQUEST = "requested.yaml"
CONFIGS = [str(ROOT / f"configs/quick/longtail_shapes_{loss}.yaml") for loss in LOSSES]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description="Compare losses on longtail_shapes.")
    parser.add_argument("--configs", nargs="+", default=CONFIGS, metavar="FILE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S")
    parser.add_argument("--engine", default="torchvision", choices=("torchvision", "detectron2"))
    parser.add_argument("--output-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="file with marker lines")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="for every run")
    args = parser.parse_args(argv)
    check_before_training(args)
    runs = []
    for seed, config in product(args.seeds, args.configs):
        runs.append(train(args, seed, config))
        rows = rows_from_runs(runs)
        write_results_csv(rows, args.output_dir / "runs.csv")
        results_summary.write_summary_csv(rows, args.output_dir / "summary.csv")
    print(table := results_summary.markdown_table(rows))
    if args.readme:
        results_summary.insert_between_markers(args.readme, table)
    return 0


def check_before_training(args: argparse.Namespace) -> None:
    """Refuse what would else only show after hours."""
    refuse_repeats("--configs (names of the files)", [Path(config).stem for config in args.configs])
    refuse_repeats("--seeds", args.seeds)
    groups = set()
    for config in args.configs:
        data = load_config(config, args.set).DATA
        groups.add((data.GROUP_MODE, data.RARE_MAX_IMAGES, data.COMMON_MAX_IMAGES))
    if len(groups) > 1:
        raise UserError(
            "APr, APc and APf of these configurations could not be compared: their "
            "groups differ (DATA.GROUP_MODE, RARE_MAX_IMAGES, COMMON_MAX_IMAGES: "
            f"{sorted(groups)}); set the same for all of them with --set"
        )
    for seed, config in product(args.seeds, args.configs):
        run, _, wanted, earlier = plan(args, seed, config)
        if wanted != earlier and held_run(run):
            raise UserError(f"{run} holds another run; remove it, or give another --output-dir")
    check_output_folder(args.output_dir, "--output-dir")
    if args.readme:
        results_summary.check_markers(args.readme)


def plan(args: argparse.Namespace, seed: int, config: str) -> tuple[Path, list[str], str, str]:
    """Return a run's folder and overrides, what is wanted of it, and what was earlier, if any."""
    run = args.output_dir / f"{Path(config).stem}_seed{seed}"
    overrides = [*args.set, "SEED", str(seed), "OUTPUT_DIR", str(run)]
    wanted = f"# engine: {args.engine}\n{load_config(config, overrides).dump()}"
    request = run / REQUEST
    return run, overrides, wanted, request.read_text("utf-8") if request.is_file() else ""


def train(args: argparse.Namespace, seed: int, config: str) -> Path:
    """Train and evaluate one run, unless it was finished as it is wanted; return its folder."""
    run, overrides, wanted, earlier = plan(args, seed, config)
    done, same = run / "finished", earlier == wanted
    if same and done.is_file():
        print(f"{run}: finished earlier", flush=True)
        return run
    print(f"{run}: {'resuming' if same else 'starting'}", flush=True)
    run.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    (run / REQUEST).write_text(wanted, "utf-8")
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file", config]
    command += ["--engine", args.engine, *(["--resume"] if same else []), *overrides]
    with (run / "log.txt").open("a", encoding="utf-8") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:  # this tool ends with 2 or 1 as well
        error = UserError if code == 2 else RuntimeError
        raise error(f"{run} ended with code {code}; its messages are in {run / 'log.txt'}")
    done.touch()
    return run


if __name__ == "__main__":
    run_tool(main)
