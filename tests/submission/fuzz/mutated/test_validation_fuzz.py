"""Thousands of broken results files: each is named as broken, the same way as a slow validator.

``EQL_D2_FUZZ_FILES=20000 pytest tests/submission/fuzz -s`` runs more of them and
prints what they were.
"""

import functools
import gzip
import io
import json
import os
import zipfile
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eql_d2.errors import ResultsError
from eql_d2.evaluation import evaluate
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.submission import validate_results, validation

SEED = 20260101
FILES = int(os.environ.get("EQL_D2_FUZZ_FILES", "500"))
PIECE_SIZES = (7, 1000, 5000, 1 << 22, 1 << 22, 1 << 22)  # bytes read at once


def parsed(data):
    """What Python's own reader makes of the file; None if it is no json list."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except Exception:
            return None
    elif data.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if name.endswith(".json")]
                data = archive.read(names[0]) if len(names) == 1 else b""
        except Exception:
            return None
    try:
        records = json.loads(data.decode("utf-8").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return records if isinstance(records, list) else None


def check_that_valid_means_usable(truth, records, official_ap):
    """A file without errors is scored, its masks decode, and the official code takes it too."""
    kinds = [k for k, key in (("bbox", "bbox"), ("segm", "segmentation")) if key in records[0]]
    ours = evaluate(truth, records, iou_types=kinds).metrics
    for record in records:
        if "segmentation" in record:
            assert coco_mask.decode(record["segmentation"]).shape == tuple(
                record["segmentation"]["size"]
            )
    for kind in kinds if official_ap else ():
        theirs = official_ap(truth, records, kind)
        assert ours[f"{kind}/AP"] == pytest.approx(theirs, abs=1e-9)


def report_or_error(path, truth):
    """Anything but this error is a failure."""
    try:
        return validate_results(truth, path, max_detections=25)
    except ResultsError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' and lvis' own
def test_mutated_files(tmp_path, monkeypatch, truth, mutated, slow_validator, official_ap):
    slow = slow_validator(truth, max_detections=25)
    path = tmp_path / "results.json"
    outcomes, codes, used = Counter(), Counter(), Counter()
    for index in range(FILES):
        rng = np.random.default_rng((SEED, index))
        data, changes = mutated(rng)
        used.update(changes)
        path.write_bytes(data)
        size = PIECE_SIZES[rng.integers(len(PIECE_SIZES))] if len(data) < 20_000 else 1 << 22
        stream = functools.partial(stream_records, chunk_bytes=size)
        monkeypatch.setattr(validation, "stream_records", stream)
        records = parsed(data)
        report = report_or_error(path, truth)
        if isinstance(report, str):
            assert records is None, (index, changes, report)
            assert str(path) in report
            outcomes["no json list"] += 1
            continue
        assert records is not None, (index, changes, "passed a file that is no json list")
        found = {fault.code: fault.count for fault in report.faults}
        assert found == slow(records), (index, changes)
        assert report.num_records == len(records)
        codes.update(found.keys())
        str(report)
        json.dumps(report.to_dict())
        outcomes["errors" if report.errors else "warnings" if report.warnings else "clean"] += 1
        if not report.errors:
            oracle = official_ap if index % 5 == 0 else None
            check_that_valid_means_usable(truth, records, oracle)
    print(f"\n{FILES} files: {dict(outcomes)}\nfiles with each fault: {dict(codes.most_common())}")
    assert set(outcomes) == {"no json list", "errors", "warnings", "clean"}
    assert min(outcomes.values()) >= FILES // 100
