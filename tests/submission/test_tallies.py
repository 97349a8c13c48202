"""Tallies over a whole file, recounted record by record; where batches end does not matter."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from eql_d2.evaluation.result_checks import LEAST
from eql_d2.submission.faults import FaultBook
from eql_d2.submission.image_info import read_image_info
from eql_d2.submission.record_checks import check_records
from eql_d2.submission.tallies import (
    BoxTally,
    FieldTally,
    ImageTally,
    LabelTally,
    RepetitionTally,
)

IMAGES = {3: (40, 60), 5: (32, 32), 8: (50, 30)}  # as the fixture ``truth`` has them
few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def tallied(tally, info, records, cuts=()):
    """What a tally notes of records that come in batches which end at ``cuts``."""
    book = FaultBook()
    ends = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    for first, stop in itertools.pairwise(ends):
        tally.add(check_records(records[first:stop], first, info, FaultBook()))
    tally.report(book)
    return book


FULL = coco_mask.encode(np.ones((40, 60), np.uint8, order="F"))["counts"].decode()
# Few values, so that records are often the same as others; some are wrong.
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.sampled_from([3, 3, 5, 99]),
            "category_id": st.sampled_from([2, 3, 10, 77]),
            "score": st.sampled_from([0.25, 0.5, 0.0, -0.0]),
        },
        optional={
            "bbox": st.sampled_from([[1, 2, 3, 4], [1.0, 2, 3, 4], [0, 2, 3, 4], [-0.0, 2, 3, 4]]),
            "segmentation": st.sampled_from(
                [{"size": [40, 60], "counts": counts} for counts in ("PUb20", FULL, [0, 2400])]
            ),
        },
    ),
    max_size=25,
)
CUTS = st.lists(st.integers(1, 24), max_size=4)


def known(record):
    return record["image_id"] in IMAGES and record["category_id"] in (2, 3, 10)


def identity(record):
    """What two records must share to be the same; -0.0 is 0.0, and 1 is 1.0."""
    mask = record.get("segmentation", {}).get("counts", "")
    text = FULL if isinstance(mask, list) else mask
    box = tuple(record["bbox"]) if "bbox" in record else None
    return record["image_id"], record["category_id"], record["score"], box, text


@few
@given(records=RECORDS, cuts=CUTS)
def test_repetitions_are_the_records_less_the_different_ones(truth, records, cuts):
    info = read_image_info(truth)
    groups = Counter(identity(record) for record in records if known(record))
    repeated = sum(groups.values()) - len(groups)
    book = tallied(RepetitionTally(info), info, records, cuts)
    assert book.counts.get("duplicates", 0) == repeated
    by_image = Counter()
    for (image, *_), number in groups.items():
        by_image[image] += number - 1
    expected = [f"image_id {i}: {n}" for i, n in sorted(by_image.items()) if n]
    assert book.examples.get("duplicates", []) == expected


@few
@given(records=RECORDS, cuts=CUTS, limit=st.integers(0, 6))
def test_images_with_too_many_detections_and_with_none(truth, records, cuts, limit):
    info = read_image_info(truth)
    tally = ImageTally(info, limit)
    book = tallied(tally, info, records, cuts)
    numbers = Counter(record["image_id"] for record in records)
    assert tally.counts.tolist() == [numbers[i] for i in sorted(IMAGES)]
    over = [i for i in sorted(IMAGES) if limit and numbers[i] > limit]
    assert book.counts.get("too-many-detections", 0) == len(over)
    assert book.examples.get("too-many-detections", []) == [
        f"image_id {i}: {numbers[i]}, limit {limit}" for i in over
    ]
    none = [i for i in sorted(IMAGES) if not numbers[i]]
    if any(numbers[i] for i in IMAGES):
        assert book.examples.get("images-without-detections", []) == [f"image_id {i}" for i in none]
    else:
        assert "images-without-detections" not in book.counts, "an empty file is another fault"


@few
@given(records=RECORDS, cuts=CUTS, required=st.sampled_from([(), ("bbox",), ("bbox", "segm")]))
def test_fields_are_for_all_records_or_for_none(truth, records, cuts, required):
    info = read_image_info(truth)
    records = [*records, "no record", ["nor this"]]
    tally = FieldTally(required)
    book = tallied(tally, info, records, cuts)
    for name, key, code in (
        ("bbox", "bbox", "bbox-missing"), ("segm", "segmentation", "mask-missing")
    ):  # fmt: skip
        has = [key in record if isinstance(record, dict) else None for record in records]
        lacking = [row for row, there in enumerate(has) if there is False]
        assert tally.with_field[name] == has.count(True)
        if name not in required and not any(has):
            lacking = []
        assert book.counts.get(code, 0) == len(lacking)
        shown = [f"record {row}: not there" for row in lacking[:3]]
        assert book.examples.get(code, []) == shown


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("cuts", [(), (1, 5, 40)])
def test_shifted_ids_are_told_with_the_change_that_fits(many_categories, shift, cuts):
    truth, records = many_categories
    info = read_image_info(truth)
    assert tallied(LabelTally(info), info, records, cuts).counts == {}
    shifted = [r | {"category_id": (r["category_id"] + shift - 1) % 30 + 1} for r in records]
    book = tallied(LabelTally(info), info, shifted, cuts)
    (text,) = book.examples["category-shift"]
    objects = {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
    hits = sum((r["image_id"], r["category_id"]) in objects for r in shifted)
    assert book.counts == {"category-shift": len(records) - hits}
    assert text.startswith(f"{hits} of {len(records)} records")
    assert text.endswith(f" with category ids {-shift:+d}")


@pytest.mark.parametrize("number", [LEAST - 1, LEAST])
def test_too_few_records_prove_nothing(truth, number):
    info = read_image_info(truth)
    label = {"image_id": 3, "category_id": 4, "score": 0.5}  # neither annotated nor absent
    book = tallied(LabelTally(info), info, [label] * number)
    assert book.counts == ({"unlabelled": number} if number == LEAST else {})
    shares = [label | {"bbox": [0.1, 0.2, 0.3, 0.4]}] * number
    book = tallied(BoxTally(info), info, shares)
    assert book.counts == ({"bbox-relative": number} if number == LEAST else {})


@few
@given(
    seed=st.integers(0, 999),
    form=st.sampled_from(["sides", "corners", "shares"]),
    odd=st.booleans(),
    cuts=CUTS,
)
def test_all_boxes_must_look_the_same_to_be_taken_for_another_form(truth, seed, form, odd, cuts):
    info = read_image_info(truth)
    rng = np.random.default_rng(seed)
    records = []
    for i in range(40):
        image = list(IMAGES)[i % 3]
        height, width = IMAGES[image]
        low = rng.uniform(0.3, 0.5, 2) * (width, height)
        high = np.minimum(low + rng.uniform(1, 9, 2), (width, height))
        second = {"corners": high, "sides": high - low, "shares": high}[form]
        box = [*low.tolist(), *second.tolist()]
        if form == "shares":
            box = [v / side for v, side in zip(box, (width, height) * 2, strict=True)]
        records.append({"image_id": image, "category_id": 2, "score": 0.5, "bbox": box})
    if odd:
        records[int(rng.integers(40))]["bbox"] = [10, 10, 5, 5]
    book = tallied(BoxTally(info), info, records, cuts)
    code = {"corners": "bbox-corners", "shares": "bbox-relative"}.get(form)
    assert book.counts == ({} if odd or code is None else {code: 40})


def test_sides_that_would_do_as_corners_are_sides_if_none_reaches_out(truth):
    """Wide objects at the upper left: either reading fits, so the usual one is believed."""
    info = read_image_info(truth)
    record = {"image_id": 3, "category_id": 2, "score": 0.5}
    inside = [record | {"bbox": [2, 3, 10, 12]}] * 40
    assert tallied(BoxTally(info), info, inside).counts == {}
    reaching = [*inside, record | {"bbox": [30, 20, 50, 39]}]
    assert tallied(BoxTally(info), info, reaching).counts == {"bbox-corners": 41}
