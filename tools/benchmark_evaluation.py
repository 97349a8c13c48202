"""Measure evaluation at the size of LVIS v1 val: time, memory, equality, growth.

python tools/benchmark_evaluation.py --json evaluation.json
python tools/benchmark_evaluation.py --kinds segm --candidates eql_d2 "pycocotools mask IoU alone"
python tools/benchmark_evaluation.py --images 200 --detections 50
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eql_d2.categories.bundled import read_table
from eql_d2.command_line import from_one, from_zero, run_tool
from eql_d2.errors import UserError
from eql_d2.evaluation.benchmark import HEADER, OURS, Measurement, growth, measure, ratios
from eql_d2.evaluation.benchmark_candidates import CANDIDATES
from eql_d2.evaluation.synthetic import generate
from eql_d2.files import check_output_file, check_output_folder, write_json

PEERS = ("lvis", "faster-coco-eval")
GIGABYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.85 / 1e9


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--images", type=from_one, nargs="+", default=[1000, 5000, 19809], metavar="N")
    add("--detections", type=from_one, default=300, metavar="N", help="of each image")
    add("--kinds", nargs="+", default=["bbox", "segm"], choices=["bbox", "segm"])
    add("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    add("--peer-images", type=int, default=5000, metavar="N", help=f"largest size for {PEERS}")
    add("--gigabytes", type=float, default=GIGABYTES, metavar="G", help="memory of a process")
    add("--table", default="lvis_v1", help="the bundled table of category counts")
    add("--seed", type=from_zero, default=0, metavar="N")
    add("--directory", type=Path, metavar="DIR", help="keep the generated files here")
    add("--json", type=Path, metavar="OUT", help="also write the measurements to this file")
    options = parser.parse_args(argv)
    if not 0 < options.gigabytes < 1e9:
        raise UserError(f"--gigabytes must be above 0 and below 1e9, got {options.gigabytes}")
    if options.json is not None:
        check_output_file(options.json, "--json")
    check_output_folder(options.directory or tempfile.gettempdir(), "--directory")
    setting = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": options.seed,
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    print(f"one process each; difference: to {OURS}, in percent AP\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        found = _run(options, options.directory or Path(temporary))
    print(f"\ntimes what {OURS} takes", *ratios(found), sep="\n")
    print("\ngrowth: time and memory ~ images^exponent", *growth(found), sep="\n")
    if options.json is not None:
        content = setting | {"measurements": [row.record() for row in found]}
        write_json(options.json, content)


def _run(options: argparse.Namespace, directory: Path) -> list[Measurement]:
    found: list[Measurement] = []
    for images in options.images:
        size = {"detections_per_image": options.detections, "seed": options.seed}
        files = generate(directory, read_table(options.table), images, **size)
        for kind in options.kinds:
            reference = None
            for candidate in options.candidates:
                if candidate in PEERS and images > options.peer_images:
                    continue
                if candidate.startswith("pycocotools mask") and kind != "segm":
                    continue
                row = measure(candidate, kind, images, *files, gigabytes=options.gigabytes)
                reference = row if candidate == OURS else reference
                print(row.row(reference), flush=True)
                found.append(row)
    return found


if __name__ == "__main__":
    run_tool(main)
