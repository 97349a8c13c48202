"""What the evaluation benchmark measures: this package, others, and the least there is to do.

``python -m eql_d2.evaluation.benchmark_candidates CANDIDATE ANNOTATIONS RESULTS KIND`` runs one of
them in this process and prints one line of json: seconds, memory, and metrics in percent.
"""

from __future__ import annotations

import itertools
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eql_d2.json_files import parse_json, paused_garbage_collection

MAX_DETECTIONS = 300
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
Json = dict[str, Any]
Metrics = dict[str, float | None]


def _ours(annotations: Path, results: Path, kind: str) -> Json:
    from eql_d2.evaluation.annotations import read_ground_truth
    from eql_d2.evaluation.results import read_results
    from eql_d2.evaluation.scoring import evaluate_arrays

    def read_annotations() -> Any:
        return read_ground_truth(annotations, need_masks=kind == "segm")

    def evaluate(truth: Any, detections: Any) -> Metrics:
        evaluation = evaluate_arrays(truth, detections, [kind], MAX_DETECTIONS)
        metrics = {name: evaluation.metrics[f"{kind}/{name}"] for name in METRICS}
        rows = evaluation.categories
        return metrics | {f"category {row.category_id}": row.ap[kind] for row in rows}

    return _timed(read_annotations, lambda truth: read_results(results, truth, [kind]), evaluate)


def _lvis(annotations: Path, results: Path, kind: str) -> Json:
    np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 predates NumPy 1.24
    import lvis

    logging.getLogger("lvis").setLevel(logging.ERROR)

    def read(truth: Any) -> Any:
        return lvis.LVISResults(truth, _records(results, kind), max_dets=MAX_DETECTIONS)

    def evaluate(truth: Any, detections: Any) -> Metrics:
        evaluation = lvis.LVISEval(truth, detections, kind)
        evaluation.run()
        metrics = {name: _percent(evaluation.results[name]) for name in METRICS}
        precision = np.moveaxis(evaluation.eval["precision"][..., 0], 2, 0)
        ids = sorted(truth.cats)
        return metrics | {
            f"category {i}": None if part.max() == -1 else float(part.mean()) * 100
            for i, part in zip(ids, precision, strict=True)
        }

    return _timed(lambda: lvis.LVIS(str(annotations)), read, evaluate)


def _faster_coco_eval(annotations: Path, results: Path, kind: str) -> Json:
    from faster_coco_eval import COCO, COCOeval_faster

    names = ("AP_all", "AP_50", "AP_75", "AP_small", "AP_medium", "AP_large", "APr", "APc", "APf")

    def read(truth: Any) -> Any:
        return truth.loadRes(_highest(_records(results, kind)))

    def evaluate(truth: Any, detections: Any) -> Metrics:
        quiet = lambda *_: None  # noqa: E731
        evaluation = COCOeval_faster(truth, detections, kind, print_function=quiet, lvis_style=True)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        found = evaluation.stats_as_dict
        return {ours: _percent(found[name]) for ours, name in zip(METRICS, names, strict=True)}

    return _timed(lambda: COCO(str(annotations)), read, evaluate)


def _json_alone(annotations: Path, results: Path, kind: str) -> Json:
    """Parse both files whole with the fastest parser there is, collection of garbage paused."""

    def parse(path: Path) -> Any:
        with paused_garbage_collection():
            return parse_json(path.read_bytes())

    return _timed(lambda: parse(annotations), lambda _: parse(results), lambda *_: None)


def _mask_iou_alone(annotations: Path, results: Path, kind: str) -> Json:
    """Time ``pycocotools.mask.iou`` on all there is to compare, everything else prepared.

    That is every labelled detection with every object of its image and category.
    """
    from pycocotools import mask as coco_mask

    from eql_d2.evaluation.annotations import read_ground_truth
    from eql_d2.evaluation.matches import select_detections
    from eql_d2.evaluation.results import read_results

    def read(truth: Any) -> Any:
        detections = read_results(results, truth, ["segm"])
        assert detections.masks is not None
        sizes = truth.sizes.tolist()
        pairs: dict[tuple[int, int], tuple[list[Json], list[Json], list[bool]]] = {}
        keys = zip(truth.image.tolist(), truth.category.tolist(), strict=True)
        for key, counts, crowd in zip(keys, truth.masks, truth.crowd.tolist(), strict=True):
            _, objects, flags = pairs.setdefault(key, ([], [], []))
            objects.append({"size": sizes[key[0]], "counts": counts})
            flags.append(crowd)
        kept = select_detections(truth, detections)
        keys = zip(detections.image[kept].tolist(), detections.category[kept].tolist(), strict=True)
        for key, counts in zip(keys, detections.masks.take(kept), strict=True):
            if key in pairs:
                pairs[key][0].append({"size": sizes[key[0]], "counts": counts})
        return [call for call in pairs.values() if call[0]]

    def evaluate(_: Any, calls: Any) -> None:
        for call in calls:
            coco_mask.iou(*call)

    return _timed(lambda: read_ground_truth(annotations, need_masks=True), read, evaluate)


CANDIDATES: dict[str, Callable[[Path, Path, str], Json]] = {
    "eql_d2": _ours,
    "lvis": _lvis,
    "faster-coco-eval": _faster_coco_eval,
    "json parser alone": _json_alone,
    "pycocotools mask IoU alone": _mask_iou_alone,
}


def _timed(
    read_annotations: Callable[[], Any],
    read_results: Callable[[Any], Any],
    evaluate: Callable[[Any, Any], Metrics | None],
) -> Json:
    times = [time.perf_counter()]
    truth = read_annotations()
    times.append(time.perf_counter())
    detections = read_results(truth)
    times.append(time.perf_counter())
    metrics = evaluate(truth, detections)
    times.append(time.perf_counter())
    annotations, read, after = (b - a for a, b in itertools.pairwise(times))
    return {
        "annotations": annotations,
        "read": read,
        "evaluate": after,
        "megabytes": _peak_bytes() / 1e6,
        "metrics": metrics,
    }


def _peak_bytes() -> int:
    """The largest memory of this process; not ``ru_maxrss``, which begins with its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(li for li in status.read_text().splitlines() if li.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _records(results: Path, kind: str) -> list[Json]:
    """The records with what ``kind`` needs alone, so that it decides the size class."""
    with results.open(encoding="utf-8") as file:
        records: list[Json] = json.load(file)
    for record in records:
        record.pop("segmentation" if kind == "bbox" else "bbox", None)
    return records


def _highest(records: list[Json]) -> list[Json]:
    """The highest scores of each image, which faster-coco-eval would take for each category."""
    images: dict[int, list[Json]] = {}
    for record in records:
        images.setdefault(record["image_id"], []).append(record)
    return [
        record
        for image in images.values()
        for record in sorted(image, key=lambda r: -r["score"])[:MAX_DETECTIONS]
    ]


def _percent(value: float) -> float | None:
    return None if value == -1 else float(value) * 100


if __name__ == "__main__":
    name, annotation_path, results_path, iou_type = sys.argv[1:]
    print(json.dumps(CANDIDATES[name](Path(annotation_path), Path(results_path), iou_type)))
