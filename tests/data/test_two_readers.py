"""What training and what evaluation make of odd annotations: one row a kind, both behaviours.

Training leaves out what cannot be trained on; evaluation keeps what the official ``lvis`` scores.
The docstring of :func:`eql_d2.evaluation.annotations.read_ground_truth` says the same in words.
"""

import json

import pytest

from eql_d2.data import load_detection_data
from eql_d2.data.masks import decode_mask
from eql_d2.errors import DataError
from eql_d2.evaluation.annotations import read_ground_truth

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
LEFT_OUT = "left out"
WHOLE = "mask of 400 pixels"
UNMASKED = "object, ignored for masks"


def rle(counts, size=(40, 60)):
    return {"segmentation": {"size": list(size), "counts": counts}}


# Kind of annotation, what differs from a sound one, training, evaluation.
TABLE = [
    ("sound", {}, WHOLE, WHOLE),
    # --- boxes ---------------------------------------------------------------------------------
    ("box that reaches out of the image", {"bbox": [50, 30, 30, 30]}, WHOLE, WHOLE),
    ("box outside the image", {"bbox": [70, 5, 10, 10]}, LEFT_OUT, WHOLE),
    ("box far larger than the image", {"bbox": [-100, -100, 300, 300]}, LEFT_OUT, WHOLE),
    ("box without width", {"bbox": [10, 10, 0, 20]}, LEFT_OUT, WHOLE),
    ("box without width or area", {"bbox": [10, 10, 0, 20], "area": 0}, LEFT_OUT, LEFT_OUT),
    ("box with a negative side", {"bbox": [10, 10, -5, 20]}, LEFT_OUT, LEFT_OUT),
    ("box of three numbers", {"bbox": [10, 10, 5]}, LEFT_OUT, LEFT_OUT),
    ("box that is not finite", {"bbox": [10, 10, float("nan"), 9]}, LEFT_OUT, LEFT_OUT),
    ("area of zero", {"area": 0}, WHOLE, LEFT_OUT),
    # --- segmentations -------------------------------------------------------------------------
    ("polygon outside the image", {"segmentation": [[70, 45, 80, 45, 80, 55]]},
     "mask of 0 pixels", "mask of 0 pixels"),
    ("run lengths without a pixel", rle([2400]), LEFT_OUT, "mask of 0 pixels"),
    ("polygon of two points", {"segmentation": [[10, 10, 30, 30]]}, LEFT_OUT, UNMASKED),
    ("text as segmentation", {"segmentation": "PUb20"}, LEFT_OUT, UNMASKED),
    ("run lengths of another size", rle([100, 100, 800], (20, 50)), LEFT_OUT, UNMASKED),
    ("run lengths that do not add up", rle([100, 100]), LEFT_OUT, UNMASKED),
    ("broken polygon beside a sound one", {"segmentation": [SQUARE, [1, 1, 2]]}, WHOLE, UNMASKED),
    ("no segmentation", {"segmentation": None}, "no mask", UNMASKED),
    # --- flags and ids -------------------------------------------------------------------------
    ("crowd in a COCO file", {"iscrowd": 1}, "crowd", "crowd"),
    ("crowd in an LVIS file", {"iscrowd": 1}, "crowd", WHOLE),
    ("ignore", {"ignore": 1}, WHOLE, "ignored"),
    ("image that the file does not list", {"image_id": 99}, LEFT_OUT, LEFT_OUT),
    ("category that the file does not list", {"category_id": 99}, "refused", LEFT_OUT),
]  # fmt: skip


@pytest.fixture
def annotated(tmp_path):
    """``annotated(change, lvis)``: a file with a sound annotation but for ``change``, and others.

    The sound ones are of category 1, so that the odd one, of category 2, is in the minority.
    """

    def write(change, lvis):
        image = {"id": 1, "height": 40, "width": 60, "file_name": "a.jpg"}
        if lvis:
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        common = {"image_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "segmentation": [SQUARE]}
        sound = [{"id": i, "category_id": 1, "iscrowd": 0} | common for i in (1, 2, 3)]
        odd = {"id": 4, "category_id": 2, "iscrowd": 0} | common | change
        content = {
            "images": [image],
            "categories": [{"id": 1, "name": "sound"}, {"id": 2, "name": "odd"}],
            "annotations": [*sound, odd],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return tmp_path / "annotations.json"

    return write


def in_training(path):
    try:
        data = load_detection_data(path, ".", check_images=False)
    except DataError:
        return "refused"
    found = [i for image in data.images for i in image.instances if i.category == 1]
    counted = int(data.statistics.instance_count[1])
    if not found:
        assert counted == 0
        return LEFT_OUT
    (instance,) = found
    assert counted == (not instance.iscrowd)
    if instance.iscrowd:
        return "crowd"
    if instance.segmentation is None:
        return "no mask"
    return f"mask of {decode_mask(instance.segmentation, 40, 60).sum()} pixels"


def in_evaluation(path):
    truth = read_ground_truth(path, need_masks=True)
    found = [i for i in range(len(truth.category)) if truth.category[i] == 1]
    if not found:
        return LEFT_OUT
    (index,) = found
    if truth.crowd[index] or truth.ignored[index]:
        return "crowd" if truth.crowd[index] else "ignored"
    if truth.without_mask[index]:
        return UNMASKED
    return f"mask of {truth.mask_areas[index]:.0f} pixels"


@pytest.mark.parametrize(
    ("kind", "change", "training", "evaluation"), TABLE, ids=[row[0] for row in TABLE]
)
def test_what_each_reader_makes_of_it(annotated, kind, change, training, evaluation):
    path = annotated(change, lvis="COCO" not in kind)
    assert (in_training(path), in_evaluation(path)) == (training, evaluation)
