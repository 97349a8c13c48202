"""Mutated records: scored or refused, whole or in batches, but never a crash."""

import copy
import functools
import json

import numpy as np
import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation import evaluate, results
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.record_stream import stream_records
from eql_d2.evaluation.results import read_results

TRUTH = {
    "images": [{"id": 5, "height": 4, "width": 6}, {"id": 3, "height": 4, "width": 6}],
    "annotations": [],
    "categories": [{"id": 10, "name": "a"}, {"id": 2, "name": "b"}],
}
GOOD = {
    "image_id": 5,
    "category_id": 10,
    "score": 0.5,
    "bbox": [1, 0, 2, 3],
    "segmentation": {"size": [4, 6], "counts": [4, 3, 1, 3, 13]},
}


def read(records, iou_types=("bbox", "segm")):
    return read_results(records, read_ground_truth(TRUTH, need_masks=False), iou_types)


def outcome(source):
    """All arrays, or the kinds of problems of records that have every key."""
    try:
        found = read(source)
    except ResultsError as problem:
        lines = str(problem).splitlines()[1:]
        return (
            {line.partition(" (number")[0] for line in lines}
            if ": no '" not in str(problem)
            else "no key"
        )
    parts = vars(found).values()
    return [p if p is None or isinstance(p, bool) else list(map(str, p)) for p in parts]


@pytest.mark.parametrize("seed", range(3))
def test_the_size_of_batches_does_not_show(seed, monkeypatch, tmp_path):
    rng = np.random.default_rng(seed)
    path = tmp_path / "results.json"
    outcomes = []
    for _ in range(40):
        wrong = rng.random() * 0.5
        records = [mutate(rng, GOOD) if rng.random() < wrong else GOOD for _ in range(17)]
        if rng.random() < 0.3:
            records = [{key: r[key] for key in r if key != "bbox"} for r in records]
        path.write_text(json.dumps(records))
        monkeypatch.setattr(results, "BATCH", 100)
        outcomes.append(outcome(records))
        for batch in (1, 2, 5):
            monkeypatch.setattr(results, "BATCH", batch)
            assert outcome(records) == outcomes[-1]
        for chunk_bytes in (1, 300, 1 << 20):
            pieces = functools.partial(stream_records, chunk_bytes=chunk_bytes)
            monkeypatch.setattr(results, "stream_records", pieces)
            assert outcome(path) == outcomes[-1]
    assert len(set(map(str, outcomes))) > 10
    assert any(isinstance(each, list) for each in outcomes)


MUTANTS = [None, True, -1, 0, 1e308, 10**40, "x", "", [], [[]], {}, float("nan"), {"size": [4, 6]}]


def mutate(rng, record):
    """One to three changed, removed or nested values."""
    record = json.loads(json.dumps(record))
    for _ in range(int(rng.integers(1, 4))):
        key = str(rng.choice(list(GOOD)))
        target, inner = record, key
        if isinstance(record.get(key), dict) and rng.random() < 0.7:
            target, inner = record[key], str(rng.choice(["size", "counts"]))
        elif isinstance(record.get(key), list) and record[key] and rng.random() < 0.7:
            target, inner = record[key], int(rng.integers(len(record[key])))
        if isinstance(target, dict) and rng.random() < 0.2:
            target.pop(inner, None)
        else:
            target[inner] = copy.deepcopy(MUTANTS[int(rng.integers(len(MUTANTS)))])
    return record


@pytest.mark.parametrize("seed", range(4))
def test_mutated_records_are_scored_or_refused_but_never_crash(seed):
    rng = np.random.default_rng(seed)
    outcomes = {"scored": 0, "refused": 0}
    for _ in range(300):
        records = [GOOD, mutate(rng, GOOD), GOOD]
        try:
            metrics = evaluate(TRUTH, records).metrics
        except ResultsError:
            outcomes["refused"] += 1
        else:
            assert set(metrics.values()) == {None}
            outcomes["scored"] += 1
    assert outcomes["refused"] > 200
    assert outcomes["scored"] > 5
