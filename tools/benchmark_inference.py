"""Measure choosing boxes and encoding masks at LVIS's settings against Detectron2 and torchvision.

python tools/benchmark_inference.py --json inference.json
python tools/benchmark_inference.py --peers torchvision --repetitions 1
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torchvision

from eql_d2.command_line import run_tool
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.files import check_output_file, write_json
from eql_d2.inference.benchmark import Measurement, box_cases, mask_cases, measure
from eql_d2.losses.benchmark import hardware_name

PEERS = {"detectron2": "eql_d2.engines.d2.benchmark", "torchvision": "eql_d2.engines.tv.benchmark"}


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and refuse what cannot work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--json", type=Path, metavar="OUT", help="also write the measurements to this file")
    add("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    add("--repetitions", type=int, default=3, metavar="N", help="timed runs of each (median)")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on a CPU")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_output_file(options.json, "--json")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    if min(options.repetitions, options.threads) < 1:
        raise UserError("--repetitions and --threads must be 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parse_options(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    setting = {
        "hardware": hardware_name(device),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": options.threads,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "repetitions": options.repetitions,
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    print("boxes: number of candidates above 1e-4; masks: 300 of 28 x 28 in a 480 x 640 image")
    print(Measurement.HEADER, flush=True)
    results = []
    boxes, masks = box_cases(), mask_cases()
    for peer in options.peers:
        try:
            module = importlib.import_module(PEERS[peer])
        except MissingPackageError as error:
            print(f"{peer} is left out: {error}")
            continue
        for comparison in module.comparisons(boxes, masks, device):
            results.append(measure(comparison, repetitions=options.repetitions, device=device))
            print(results[-1].row(), flush=True)
    if options.json is not None:
        content = setting | {"measurements": [asdict(row) for row in results]}
        write_json(options.json, content)
    different = [row for row in results if not row.identical]
    if different:
        raise RuntimeError(f"{len(different)} results differ from the peer's")


if __name__ == "__main__":
    run_tool(main)
