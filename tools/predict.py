"""Predict on an image or a folder of images, from a checkpoint alone.

    python tools/predict.py --weights OUTPUT_DIR --input IMAGES --output DIR

The checkpoint says which engine wrote it, what the model looks like and how its categories are
called; no data set is needed. DIR gets a drawn picture an image and predictions.json (COCO).
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from eql_d2.checkpoint import read_checkpoint_metadata, resolve_checkpoint
from eql_d2.command_line import DETECTRON2_INSTALL, detectron2_problem, run_tool
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.experiment import stored_statistics
from eql_d2.plotting import list_images, predict_images

ENGINE_MODULES = {"torchvision": "eql_d2.engines.tv", "detectron2": "eql_d2.engines.d2"}


def load_engine(name: str, checkpoint: Path) -> ModuleType:
    """Import the engine that a checkpoint names.

    Raises:
        MissingPackageError: it needs Detectron2, which does not work here.
    """
    problem = detectron2_problem() if name == "detectron2" else None
    if problem:
        raise MissingPackageError(
            f"{checkpoint} was trained with Detectron2. {problem}. Install it with: "
            f"{DETECTRON2_INSTALL}"
        )
    return importlib.import_module(ENGINE_MODULES[name])


def score(text: str) -> float:
    """Parse a score threshold."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; 0 when at least one image could be read."""
    parser = argparse.ArgumentParser(description="Predict on images from a checkpoint alone.")
    parser.add_argument(
        "--weights", required=True, metavar="CHECKPOINT", help="a .pth file or an OUTPUT_DIR"
    )
    parser.add_argument("--input", required=True, metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--output", required=True, metavar="DIR", help="not the input's folder")
    parser.add_argument(
        "--score-threshold", type=score, default=0.3, metavar="S", help="default: 0.3"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 ...")
    args = parser.parse_args(argv)
    root, images = list_images(args.input, args.output)
    checkpoint = resolve_checkpoint(args.weights)
    metadata = read_checkpoint_metadata(checkpoint)
    statistics = stored_statistics(metadata, checkpoint)
    predictor = load_engine(metadata["engine"], checkpoint).load_predictor(
        checkpoint, device=args.device, score_threshold=args.score_threshold
    )
    print(
        f"{checkpoint}: {metadata['engine']}, {len(statistics.names)} categories; "
        f"{len(images)} images, score >= {args.score_threshold:g}"
    )
    done = predict_images(predictor, root, images, statistics, args.output)
    if not done.pictures:
        raise UserError(f"none of {len(images)} images could be read, first: {done.skipped[0]}")
    print(
        f"{done.num_objects} objects in {len(done.pictures)} images, {len(done.skipped)} images "
        f"skipped; pictures and predictions.json are in {args.output}"
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
