"""Signs of wrong ids, boxes and scores: found where they are, and nowhere else."""

import itertools
import logging

import numpy as np
import pytest

from eql_d2.errors import ResultsError
from eql_d2.evaluation import evaluate, result_checks
from eql_d2.evaluation.result_checks import ShiftTest

COCO_GAPS = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]  # ids up to 90 that no category has
SETS = {  # images, category ids, detections of an image
    "tiny": (4, np.arange(1, 6), 30),
    "small": (50, np.arange(1, 11), 20),
    "shapes": (150, np.arange(1, 41), 20),
    "coco": (250, np.setdiff1d(np.arange(1, 91), COCO_GAPS), 30),
    "lvis": (80, np.arange(1, 1231), 100),
}


class Case:
    """Images of one or two topics each; categories have a frequency and a topic."""

    def __init__(self, name, seed):
        self.num_images, self.ids, self.per_image = SETS[name]
        self.rng = np.random.default_rng(seed)
        size = len(self.ids)
        frequency = self.rng.permutation(1 / np.arange(1, size + 1))
        self.topic = self.rng.integers(0, 30, size)
        self.features = np.zeros((self.num_images, 30))
        pairs = []
        for image in range(self.num_images):
            topics = self.rng.integers(0, 30, 2)
            self.features[image, topics] = 1
            share = frequency * (1 + 20 * np.isin(self.topic, topics))
            number = min(size, 1 + self.rng.poisson(3))
            shown = self.rng.choice(size, number, replace=False, p=share / share.sum())
            pairs += (shown * self.num_images + image).tolist()
        self.pairs = np.array(pairs)

    def contains(self, image, category):
        return np.isin(category * self.num_images + image, self.pairs) & (category >= 0)

    def test(self, image, category, scores, pieces=1):
        test = ShiftTest(self.num_images, self.ids, self.pairs, self.contains)
        for part in np.array_split(np.arange(len(image)), pieces):
            test.add(image[part], category[part], scores[part])
        return test.result()

    def untrained(self, kind):
        """What a network with random weights detects: nothing that has to do with objects."""
        rng, size, number = self.rng, len(self.ids), self.num_images * self.per_image
        image = np.repeat(np.arange(self.num_images), self.per_image)
        if kind == "any":
            return image, rng.integers(0, size, number), rng.random(number)
        if kind == "one":
            return image, np.full(number, rng.integers(0, size)), rng.random(number)
        logits = np.broadcast_to(rng.normal(0, 2, size), (self.num_images, size))
        if kind == "by content":  # images of a kind get the same categories, whatever they show
            logits = logits + self.features @ rng.normal(0, 1, (30, size))
        noisy = logits[image] + rng.normal(0, 0.5, (number, size))
        return image, noisy.argmax(axis=1), 1 / (1 + np.exp(4 - noisy.max(axis=1)))

    def trained(self):
        """Most of the objects with middling scores, and a full limit of doubtful detections."""
        category, image = np.divmod(self.pairs, self.num_images)
        found = self.rng.random(len(image)) < 0.8
        noise = self.num_images * self.per_image
        scores = [0.3 * self.rng.random(found.sum()), 0.1 * self.rng.random(noise) ** 4]
        rest = self.rng.integers(0, self.num_images, noise)
        any_category = self.rng.integers(0, len(self.ids), noise)
        image = np.concatenate((image[found], rest))
        category = np.concatenate((category[found], any_category))
        return image, category, np.concatenate(scores)


@pytest.mark.parametrize("kind", ["any", "one", "favourites", "by content"])
@pytest.mark.parametrize("name", SETS)
def test_an_untrained_model_is_never_asked_about_its_ids(name, kind):
    for seed in range(4 if name == "lvis" else 25):
        case = Case(name, seed)
        assert case.test(*case.untrained(kind)) is None, seed


@pytest.mark.parametrize("name", ["shapes", "coco", "lvis"])
def test_a_trained_model_is_asked_only_if_its_ids_are_shifted(name):
    words = {
        -1: "each category id replaced by the next one of the annotations",
        1: "each category id replaced by the one before it",
    }
    if name != "coco":
        words = {-1: "category ids +1", 1: "category ids -1"}
    for seed in range(5):
        case = Case(name, seed)
        image, category, scores = case.trained()
        assert case.test(image, category, scores) is None
        for shift, change in words.items():
            place = category + shift
            inside = (place >= 0) & (place < len(case.ids))
            shifted = image[inside], place[inside], scores[inside]
            found = case.test(*shifted)
            assert found is not None, (seed, shift)
            assert found.change == change
            back = case.contains(image[inside], category[inside])
            assert found.hits_changed == back.sum()
            assert found.mass_changed == pytest.approx(scores[inside][back].sum())
            now = case.contains(shifted[0], shifted[1])
            assert (found.hits, found.mass) == (now.sum(), pytest.approx(scores[inside][now].sum()))


@pytest.mark.parametrize("start", [0, 1])
def test_numbers_of_categories_for_sparse_ids(start):
    """A model's 0..79 or 1..80 for COCO's 1..90, seen where all of them happen to exist."""
    for seed in range(5):
        case = Case("coco", seed)
        image, category, scores = case.trained()
        place = np.searchsorted(case.ids, category + start)
        exists = case.ids[place] == category + start
        assert exists.mean() < 1
        found = case.test(image[exists], place[exists], scores[exists])
        assert found is not None
        assert found.change == (
            f"the ids taken as numbers, from {start}, of the annotations' categories"
        )


def test_neither_pieces_nor_the_scale_of_scores_matter():
    case = Case("shapes", 0)
    image, category, scores = case.trained()
    category = (category + 1) % len(case.ids)
    expected = case.test(image, category, scores)
    for pieces, scale in itertools.product((2, 77), (1, 1e-6, 100)):
        found = case.test(image, category, scores * scale, pieces)
        assert found.change == expected.change
        assert found.mass == pytest.approx(expected.mass * scale)


def naive_evidence(case, image, category, scores, target):
    """The excess and its standard errors, one sum after the other from the definitions."""
    objects = {divmod(pair, case.num_images)[::-1] for pair in case.pairs.tolist()}
    rows = list(zip(image.tolist(), category.tolist(), scores.tolist(), strict=True))
    total = sum(s for *_, s in rows)
    moved = [k for k, t in enumerate(target) if t != k]
    by_category = dict.fromkeys(moved, 0.0)
    by_image = dict.fromkeys(range(case.num_images), 0.0)
    unchanged = 0.0
    images = [sum(s for i, _, s in rows if i == j) for j in by_image]
    for k in moved:
        mass = sum(s for _, c, s in rows if c == k)
        for j, weight in enumerate(images):
            seen = sum(s for i, c, s in rows if (i, c) == (j, k))
            chance = mass * weight / total
            by_category[k] += (seen - chance) * ((j, target[k]) in objects)
            by_image[j] += (seen - chance) * ((j, target[k]) in objects)
            unchanged += (seen - chance) * ((j, k) in objects)
    errors = [sum(v**2 for v in part.values()) ** 0.5 for part in (by_category, by_image)]
    return sum(by_category.values()) / total, unchanged / total, max(errors) / total


@pytest.mark.parametrize("seed", range(6))
def test_the_evidence_is_what_its_description_says(seed, monkeypatch):
    case = Case("tiny", seed)
    case.ids = np.array([1, 2, 4, 5, 6])
    image, category, scores = (part[:60] for part in case.trained())
    test = ShiftTest(case.num_images, case.ids, case.pairs, case.contains)
    test.add(image, category, scores)
    assert len(test._changed) == 6  # all different for these ids
    for hits in test._changed:
        value, before, error = naive_evidence(case, image, category, scores, hits.target.tolist())
        for errors, clearer in itertools.product((0.5, 1.5, 4.0), (0.5, 2.0)):
            monkeypatch.setattr(result_checks, "STANDARD_ERRORS", errors)
            monkeypatch.setattr(result_checks, "CLEARER", clearer)
            stands = value > errors * error and value > clearer * max(before, 0)
            assert test._evidence(hits) == (pytest.approx(value) if stands else 0)


# --- what evaluation says -------------------------------------------------------------------------


def box_case(seed=0, size=100):
    """Annotations with boxes all over their images, and detections near them."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6 * size, (60, 2))
    boxes = np.hstack((corner, rng.uniform(5, 0.4 * size, (60, 2)))).round(1)
    truth = {
        "images": [{"id": i, "height": size, "width": size} for i in range(6)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": i + 1, "image_id": i % 6, "category_id": 1 + i % 2, "bbox": box, "iscrowd": 0}
            for i, box in enumerate(boxes.tolist())
        ],
    }
    records = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": float(score),
         "bbox": [a["bbox"][0] + 1, *a["bbox"][1:]]}
        for a, score in zip(truth["annotations"], rng.random(60), strict=True)
    ]  # fmt: skip
    return truth, records


def said(truth, records, **options):
    return evaluate(truth, records, **{"iou_types": ["bbox"]} | options).warnings


def test_scores_above_1_are_told_and_change_nothing(caplog):
    truth, records = box_case()
    expected = evaluate(truth, records, iou_types=["bbox"])
    assert expected.warnings == ()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    percent = [r | {"score": 100 * r["score"]} for r in records]
    evaluation = evaluate(truth, percent, iou_types=["bbox"])
    assert evaluation.metrics == expected.metrics
    above = [i for i, record in enumerate(percent) if record["score"] > 1]
    (warning,) = evaluation.warnings
    assert warning.startswith(
        f"{len(above)} of 60 scores are outside 0..1 (first: record {above[0]}, score "
        f"{percent[above[0]]['score']:g})"
    )
    assert warning in caplog.text
    assert evaluation.table().endswith(f"warning: {warning}")


def test_only_the_chosen_images_are_spoken_of():
    truth, records = box_case()
    records[0]["score"] = 7.0  # of image 0
    assert said(truth, records, image_ids=[1, 2]) == ()
    assert "1 of 10 scores" in said(truth, records, image_ids=[0])[0]
    records[8]["score"] = -0.5  # of image 2, its second
    assert (
        "1 of 20 scores are outside 0..1 (first: record 8, "
        in said(truth, records, image_ids=[1, 2])[0]
    )


def test_corners_and_shares_are_told_and_the_ap_stays_the_official_one(official):
    truth, records = box_case()
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category in truth["categories"]:
        category["frequency"] = "f"
    for annotation in truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    corners = []
    for record in records:
        x, y, w, h = record["bbox"]
        corners.append(record | {"bbox": [x, y, x + w, y + h]})
    evaluation = evaluate(truth, corners, iou_types=["bbox"])
    (warning,) = evaluation.warnings
    assert warning.startswith("every one of 60 boxes looks like two corners x1, y1, x2, y2")
    assert evaluation.metrics["bbox/AP"] == pytest.approx(
        official(truth, corners, "bbox")["AP"], abs=1e-12
    )
    shares = [r | {"bbox": [v / 100 for v in r["bbox"]]} for r in records]
    assert said(truth, shares)[0].startswith("every one of 60 boxes lies within 0..1")
    corners[30] = records[30] | {"bbox": [50, 50, 10, 10]}
    assert said(truth, corners) == (), "one box that cannot be corners: so none is"


def test_boxes_in_images_of_unknown_size_are_not_judged():
    truth, records = box_case()
    for image in truth["images"]:
        del image["height"], image["width"]
    corners = [r | {"bbox": [1, 1, 50, 50]} for r in records]
    assert said(truth, corners) == ()


def test_boxes_that_come_from_masks_are_told_of(random_case):
    truth, records = random_case(21)
    whole = evaluate(truth, records)
    assert whole.warnings == ()
    masks = [{k: v for k, v in r.items() if k != "bbox"} for r in records]
    (line,) = evaluate(truth, masks).warnings
    assert line == (
        "the detections have no 'bbox': the boxes scored are those around their masks, with the "
        "masks' areas, as lvis does"
    )
    assert evaluate(truth, masks, iou_types=["segm"]).warnings == ()


def test_ids_that_do_not_exist_are_refused_with_the_usual_reason():
    truth, records = box_case()
    lower = [r | {"category_id": r["category_id"] - 1} for r in records]
    with pytest.raises(
        ResultsError, match="30 of 60 records: 'category_id' is not in the"
    ) as caught:
        evaluate(truth, lower, iou_types=["bbox"])
    assert "not a model's indices from 0" in str(caught.value)
