"""Time and memory of checking and packing results of LVIS's size, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eql_d2.errors import UserError
from eql_d2.evaluation.synthetic import generate

LVIS_IMAGES = 19_809
MEMORY_LIMIT = 500.0  # megabytes that checking and packing stay below
MEGABYTE = 1e6


@dataclass(frozen=True)
class Measurement:
    """One command: what it does, its seconds, its largest memory, the file it wrote.

    Seconds of the processor tell more than those of the clock on a machine that others use.
    """

    name: str
    seconds: float
    cpu_seconds: float
    megabytes: float
    output_megabytes: float | None = None
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line of the table."""
        size = "" if self.output_megabytes is None else f"{self.output_megabytes:9.1f}"
        return (
            f"{self.name:44}{self.seconds:9.1f}{self.cpu_seconds:9.1f}{self.megabytes:9.0f}{size}"
        )


HEADER = f"{'':44}{'seconds':>9}{'CPU s':>9}{'MB':>9}{'file MB':>9}"


def make_files(
    directory: Path, num_images: int, detections_per_image: int
) -> tuple[Path, Path, Path]:
    """Annotations, the image info of a test split (the same without labels), and results.

    Made in a process of its own: what is measured here starts with this process's memory as its
    largest, so this one must stay small.
    """
    arguments = (directory, num_images, detections_per_image)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_make_files, arguments)


def _make_files(
    directory: Path, num_images: int, detections_per_image: int
) -> tuple[Path, Path, Path]:
    from eql_d2.categories.bundled import read_table  # imports torch

    table = read_table("lvis_v1")
    annotations, results = generate(
        directory, table, num_images, detections_per_image=detections_per_image
    )
    info = json.loads(annotations.read_text())
    del info["annotations"]
    for image in info["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    info_path = annotations.with_name(annotations.name.replace("annotations", "image_info"))
    info_path.write_text(json.dumps(info))
    return annotations, info_path, results


def measure(name: str, command: Sequence[str], output: Path | None = None) -> Measurement:
    """Run a command of this package and measure it.

    Raises:
        UserError: It fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError(f"{name} failed:\n{said}")
    cpu = usage.ru_utime + usage.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    size = None if output is None else output.stat().st_size / MEGABYTE
    megabytes = usage.ru_maxrss * unit / MEGABYTE
    return Measurement(name, seconds, cpu, megabytes, size, tuple(said.splitlines()))


def commands(
    tools: Path, annotations: Path, info: Path, results: Path, *, prove: bool
) -> list[tuple[str, list[str], Path | None]]:
    """What is measured: name, command, output."""
    validate, pack = str(tools / "validate_results.py"), str(tools / "pack_submission.py")
    rows: list[tuple[str, list[str], Path | None]] = []
    for name, given in (("image info", info), ("annotations", annotations)):
        command = [validate, "--annotations", str(given), "--results", str(results)]
        rows.append((f"validate against {name}", command, None))
    packed = results.with_name("submission.json"), results.with_name("submission.zip")
    for output, flags in zip(packed, ([], ["--round"]), strict=True):
        command = [pack, "--image-info", str(info), "--results", str(results)]
        command += ["--output", str(output), *flags]
        rows.append((" ".join([f"pack {output.name}", *flags]), command, output))
    again = ["--annotations", str(info), "--results", str(packed[1])]
    rows.append(("validate the packed zip", [validate, *again], None))
    if prove:
        command = [pack, "--image-info", str(annotations), "--results", str(results), "--round"]
        output = results.with_name("submission_proven.json")
        command += ["--prove", "--output", str(output)]
        rows.append(("pack --round --prove (scores both files)", command, output))
    return rows
