"""Measure the time and memory of the equalization loss against other ways to write it.

python tools/benchmark_loss.py --json loss.json
python tools/benchmark_loss.py --sizes 64x32 --dtypes float32 --repetitions 2 --no-compile
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from eql_d2.command_line import from_zero, run_tool
from eql_d2.errors import UserError
from eql_d2.files import check_output_file, write_json
from eql_d2.losses.benchmark import Measurement, candidates, environment, make_batch, measure

SIZES = [(1024, 1203), (4096, 1203), (8192, 1230)]
DTYPES = ["float32", "bfloat16"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(argv)
    if options.json is not None:
        check_output_file(options.json, "--json")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its start and stop
    torch.set_num_threads(options.threads)
    setting = environment(device) | {"seed": options.seed, "repetitions": options.repetitions}
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    print("forward + backward; time and memory: ratios to (a); loss error: relative, to float64")
    losses = candidates(compiled=not options.no_compile)
    results: list[Measurement] = []
    for rois, categories in options.sizes:
        for dtype in options.dtypes:
            print(f"\n{rois} x {categories} {dtype}\n{Measurement.HEADER}", flush=True)
            batch = make_batch(rois, categories, getattr(torch, dtype), device, options.seed)
            results += measure(losses, batch, repetitions=options.repetitions, progress=_progress)
            print("\n".join(row.row() for row in results[-len(losses) :]), flush=True)
    if options.json is not None:
        content = setting | {"measurements": [asdict(row) for row in results]}
        write_json(options.json, content)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--json", type=Path, metavar="OUT", help="also write the measurements to this file")
    add("--sizes", type=_size, nargs="+", default=SIZES, metavar="RxC", help="ROIs x categories")
    add("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    add("--repetitions", type=_positive, default=50, metavar="N", help="timed passes (median)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--threads", type=_positive, default=torch.get_num_threads(), metavar="N", help="on a CPU")
    add("--seed", type=from_zero, default=0, metavar="N")
    add("--no-compile", action="store_true", help="leave torch.compile out (it needs a compiler)")
    return parser


def _progress(text: str) -> None:
    print(f"\r{text:40}\r", end="", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    rois, _, categories = text.partition("x")
    return _positive(rois), _positive(categories)


if __name__ == "__main__":
    run_tool(main)
