"""What must not matter to an evaluation, and what is said to be behind its numbers, recounted."""

import copy
import re
from collections import Counter

import numpy as np
import pytest

from eql_d2.evaluation import evaluate
from eql_d2.evaluation.annotations import read_ground_truth
from eql_d2.evaluation.thresholds import AREA_RANGES

METRICS = ("ap", "ar", "fixed", "pool", "agnostic", "proposals")
SIZES = {"": 0, "s": 1, "m": 2, "l": 3}
GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
SEEDS = pytest.mark.parametrize("seed", range(6))


@pytest.fixture
def distinct(random_case):
    """``distinct(seed)``: a random case in which no two scores are equal."""

    def make(seed, number=60):
        truth, records = random_case(seed, number)
        order = np.random.default_rng(seed).permutation(len(records))
        for record, place in zip(records, order.tolist(), strict=True):
            record["score"] = (place + 1) / (len(records) + 1)
        return truth, records

    return make


def score(truth, records, **options):
    return evaluate(
        truth,
        records,
        **{"metrics": METRICS, "max_detections": 8, "max_per_category": 7, **options},
    )


@SEEDS
def test_the_order_of_records_images_and_categories(seed, distinct):
    truth, records = distinct(seed)
    expected = score(truth, records)
    rng = np.random.default_rng(seed)
    mixed = copy.deepcopy(truth)
    for key in ("images", "categories"):
        rng.shuffle(mixed[key])
    rng.shuffle(records)
    assert score(mixed, records) == expected


@SEEDS
def test_only_the_order_of_scores(seed, distinct):
    truth, records = distinct(seed)
    expected = score(truth, records).metrics
    bent = [record | {"score": record["score"] ** 3 / 2} for record in records]
    assert score(truth, bent).metrics == expected


@SEEDS
def test_what_the_ids_are(seed, distinct):
    """Ids that keep their order may be any numbers; those of objects may be anything."""
    truth, records = distinct(seed)
    expected = score(truth, records).metrics
    moved = copy.deepcopy(truth)
    rename = lambda i: 3 * i + 1  # noqa: E731
    for record in [*moved["images"], *moved["annotations"], *moved["categories"]]:
        record["id"] = rename(record["id"])
    for record in moved["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            record[key] = [rename(i) for i in record[key]]
    renamed = [
        record | {key: rename(record[key]) for key in ("image_id", "category_id")}
        for record in [*moved["annotations"], *records]
    ]
    moved["annotations"] = renamed[: len(truth["annotations"])]
    assert score(moved, renamed[len(truth["annotations"]) :]).metrics == expected


@SEEDS
def test_detections_of_what_nobody_looked_for(seed, distinct):
    """In images where a category is neither annotated nor marked absent, whatever their score."""
    truth, records = distinct(seed)
    truth["images"][0]["neg_category_ids"] = []
    truth["categories"].append({"id": 60, "name": "seen elsewhere", "frequency": "r"})
    elsewhere = truth["annotations"][0] | {"image_id": truth["images"][-1]["id"], "id": 99}
    truth["annotations"].append(elsewhere | {"category_id": 60})
    shown = {(a["image_id"], a["category_id"]) for a in truth["annotations"] if a["area"] > 0}
    noise = [
        record | {"category_id": category["id"], "score": record["score"] / 2 + 0.5}
        for image in truth["images"]
        for category in truth["categories"]
        for record in records
        if record["image_id"] == image["id"]
        and (image["id"], category["id"]) not in shown
        and category["id"] not in image["neg_category_ids"]
    ]
    assert noise, "everything is labelled, so the test shows nothing"
    limits = {"max_detections": 1000, "max_per_category": 1000}
    for metric in ("ap", "ar", "fixed", "pool"):
        options = limits | {"metrics": [metric]}
        found = score(truth, records + noise, **options)
        assert found.metrics == score(truth, records, **options).metrics, metric


@SEEDS
def test_the_input_is_left_as_it_was(seed, distinct):
    truth, records = distinct(seed)
    before = copy.deepcopy((truth, records))
    score(truth, records)
    assert (truth, records) == before


def counted_objects(truth, area):
    """Category ids of the objects that count in an area range, by the definition of LVIS."""
    low, high = AREA_RANGES[area]
    return [
        a["category_id"]
        for a in truth["annotations"]
        if a["area"] > 0 and low <= a["area"] <= high and not a.get("ignore", 0)
    ]


@SEEDS
def test_what_is_said_to_be_behind_ap_and_recall(seed, distinct):
    truth, records = distinct(seed)
    support = score(truth, records, metrics=["ap", "ar", "fixed"]).support
    frequency = {c["id"]: c["frequency"] for c in truth["categories"]}
    assert {"AP", "APr", "ARl@8", "APs_fixed"} <= set(support)
    for name, text in support.items():
        letter = re.fullmatch(r"A[PR](\d\d|[smlrcf])?(_fixed|@8)?", name)[1] or ""
        behind = set(counted_objects(truth, SIZES.get(letter, 0)))
        every = set(frequency)
        if letter in GROUPS:
            every = {c for c in every if frequency[c] == letter}
            assert GROUPS[letter] in text
            if not every:
                assert text.startswith(f"no category is {GROUPS[letter]}; --groups-from"), name
                continue
        assert text.startswith(f"{len(behind & every)} of {len(every)} "), (name, text)


@SEEDS
def test_what_is_said_to_be_behind_pools_and_merged_categories(seed, distinct):
    truth, records = distinct(seed)
    support = score(truth, records, metrics=["pool", "agnostic", "proposals"]).support
    frequency = {c["id"]: c["frequency"] for c in truth["categories"]}
    assert {"APr_pool", "APm_agnostic", "ARs@100"} <= set(support)
    for name, text in support.items():
        letter = re.match(r"A[PR](\d\d|[smlrcf])?[_@]", name)[1] or ""
        objects = counted_objects(truth, SIZES.get(letter, 0))
        members = [c for c, f in frequency.items() if letter not in GROUPS or f == letter]
        number = sum(category in members for category in objects)
        if not members:
            assert text.startswith(f"no category is {GROUPS[letter]}; --groups-from"), name
            continue
        assert re.match(rf"{number} (\w+ )?objects", text), (name, text)
        if name.endswith("_pool"):
            assert f"objects of {len(members)} categories" in text


@SEEDS
def test_rows_of_categories_by_counting(seed, distinct):
    truth, records = distinct(seed)
    rows = score(truth, records, metrics=["ap"]).categories
    objects = [a for a in truth["annotations"] if a["area"] > 0]
    kept = []
    for image in truth["images"]:
        mine = [r for r in records if r["image_id"] == image["id"]]
        shown = {a["category_id"] for a in objects if a["image_id"] == image["id"]}
        shown |= set(image["neg_category_ids"])
        best = sorted(mine, key=lambda r: -r["score"])[:8]
        kept += [r["category_id"] for r in best if r["category_id"] in shown]
    instances, detections = Counter(a["category_id"] for a in objects), Counter(kept)
    pairs = Counter(c for _, c in {(a["image_id"], a["category_id"]) for a in objects})
    assert sum(detections.values()) < len(records), "the limit cuts nothing"
    for row, category in zip(rows, sorted(truth["categories"], key=lambda c: c["id"]), strict=True):
        c = category["id"]
        assert (row.category_id, row.name, row.group) == (
            c,
            category["name"],
            category["frequency"],
        )
        assert (row.images, row.instances, row.detections) == (
            pairs[c],
            instances[c],
            detections[c],
        )


@SEEDS
def test_taking_objects_is_taking_lines_of_the_file(seed, random_case):
    truth = random_case(seed)[0]
    whole = read_ground_truth(truth, need_masks=True)
    usable = [a for a in truth["annotations"] if a["area"] > 0]
    chosen = np.random.default_rng(seed).permutation(len(usable))[: len(usable) // 2 + 1]
    part = whole.take(chosen)
    fewer = truth | {"annotations": [usable[i] for i in chosen.tolist()]}
    again = read_ground_truth(fewer, need_masks=True)
    assert len(usable) == len(whole.image)
    for name in vars(again):
        ours, theirs = getattr(part, name), getattr(again, name)
        if name == "masks":
            ours, theirs = list(ours), list(theirs)
        np.testing.assert_array_equal(ours, theirs, name)
