"""Pictures of predictions next to ground truth, from a small annotation file."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from eql_d2.data import encode_rle, load_detection_data
from eql_d2.errors import DataError, ResultsError
from eql_d2.plotting import category_color, save_ground_truth_pictures, save_prediction_pictures
from eql_d2.plotting.instances import MASK_OPACITY
from eql_d2.plotting.pictures import GAP, drawing_threshold, side_by_side

SIZE, SCALE = 120, 4
SQUARE = [30, 30, 90, 30, 90, 90, 30, 90]


@pytest.fixture
def data(tmp_path):
    """Three grey images; category ids 7, 30, 5 sort to 5, 7, 30."""
    images, annotations = [], []
    for i, category in enumerate([7, 30, 7], 1):
        name = f"im age{i}.png"
        Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(tmp_path / name)
        images.append({"id": i, "file_name": name, "height": SIZE, "width": SIZE})
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": category,
                "bbox": [30, 30, 60, 60],
                "area": 3600,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            }
        )
    names = {7: "cat", 30: "dog", 5: "bird"}
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
    }
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(content))
    return load_detection_data(path, tmp_path)


def record(image_id, category_id=7, score=0.9, mask=True):
    result = {"image_id": image_id, "category_id": category_id, "score": score}
    result["bbox"] = [10.0, 50.0, 40.0, 50.0]
    if mask:
        pixels = np.zeros((SIZE, SIZE), dtype=np.uint8)
        pixels[50:100, 10:50] = 1
        result["segmentation"] = encode_rle(pixels)
    return result


def panels(path):
    """Split a written picture into its captions and its two panels."""
    pixels = np.asarray(Image.open(path))
    side = SIZE * SCALE
    body = pixels[-side:]
    return pixels[:-side], body[:, :side], body[:, side + GAP :]


def tint(category):
    color = np.array(category_color(category))
    return np.rint(128 * (1 - MASK_OPACITY) + color * MASK_OPACITY).astype(np.uint8)


def test_ground_truth_left_and_predictions_right(data, tmp_path):
    results = [record(1, 5, 0.9)]
    path = save_prediction_pictures(data, results, tmp_path / "out", 1, score_threshold=0.3)[0]
    assert path.name == "1_im_age1.png"
    caption, truth, predictions = panels(path)
    assert truth.shape == predictions.shape == (SIZE * SCALE, SIZE * SCALE, 3)
    assert np.array_equal(truth[60 * SCALE, 80 * SCALE], tint(1))
    assert np.array_equal(predictions[60 * SCALE, 80 * SCALE], [128, 128, 128])
    assert np.array_equal(predictions[80 * SCALE, 30 * SCALE], tint(0))
    assert np.array_equal(truth[80 * SCALE, 20 * SCALE], [128, 128, 128])
    assert (caption == 255).mean() > 0.8
    assert (caption < 80).any()


def test_results_from_a_file_equal_results_in_memory(data, tmp_path):
    results = [record(1), record(2, 30, 0.4)]
    # With the byte order mark that some editors leave.
    (tmp_path / "results.json").write_text(json.dumps(results), "utf-8-sig")
    from_file = save_prediction_pictures(data, tmp_path / "results.json", tmp_path / "a", 3)
    from_memory = save_prediction_pictures(data, results, tmp_path / "b", 3)
    assert len(from_file) == len(from_memory) == 3
    for one, other in zip(from_file, from_memory, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_predictions_below_the_threshold_are_not_drawn(data, tmp_path):
    kept = save_prediction_pictures(data, [record(1)], tmp_path / "a", 1, score_threshold=0.9)
    gone = save_prediction_pictures(data, [record(1)], tmp_path / "b", 1, score_threshold=0.91)
    place = (80 * SCALE, 30 * SCALE)
    assert np.array_equal(panels(kept[0])[2][place], tint(1))
    assert np.array_equal(panels(gone[0])[2][place], [128, 128, 128])


def test_no_predictions_at_all_still_gives_pictures(data, tmp_path):
    paths = save_prediction_pictures(data, [], tmp_path / "a", 2)
    assert [p.is_file() for p in paths] == [True, True]


def test_boxes_without_masks(data, tmp_path):
    path = save_prediction_pictures(data, [record(1, mask=False)], tmp_path / "a", 1)[0]
    predictions = panels(path)[2]
    assert tuple(predictions[75 * SCALE, 10 * SCALE]) == category_color(1)
    assert np.array_equal(predictions[80 * SCALE, 30 * SCALE], [128, 128, 128])


def test_an_empty_mask_of_a_weak_model_is_drawn_as_its_box(data, tmp_path):
    empty = record(1) | {"segmentation": encode_rle(np.zeros((SIZE, SIZE), dtype=np.uint8))}
    path = save_prediction_pictures(data, [empty], tmp_path / "a", 1)[0]
    without = save_prediction_pictures(data, [record(1, mask=False)], tmp_path / "b", 1)[0]
    assert path.read_bytes() == without.read_bytes()


def test_other_groups_choose_other_images(data, tmp_path):
    by_groups = save_prediction_pictures(data, [], tmp_path, 1, groups=("f", "f", "r"))
    assert by_groups[0].name.startswith("2_")


def test_ground_truth_alone(data, tmp_path):
    paths = save_ground_truth_pictures(data, tmp_path / "out", 9)
    assert len(paths) == 3
    pixels = np.asarray(Image.open(paths[0]))
    assert pixels.shape[1] == SIZE * SCALE
    assert np.array_equal(pixels[-SIZE * SCALE :][60 * SCALE, 80 * SCALE], tint(1))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"a": 1}, "must be a list of records"),
        ([1], "must be a list of records"),
        ([{"image_id": 1}], "must be a list of records"),
        ([record(1, 99)], r"category ids that .*gt\.json lacks: \{99\}"),
    ],
)
def test_wrong_results_are_named(data, tmp_path, results, message):
    with pytest.raises(ResultsError, match=message):
        save_prediction_pictures(data, results, tmp_path / "out", 3)


@pytest.mark.parametrize("text", ["", "[{", "no json"])
def test_damaged_results_file(data, tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json is not valid json"):
        save_prediction_pictures(data, tmp_path / "results.json", tmp_path / "out", 1)


def test_an_image_of_another_size_than_annotated(data, tmp_path):
    Image.new("RGB", (50, 40)).save(data.images[0].path)
    with pytest.raises(DataError, match=r"is 50 x 40 pixels"):
        save_ground_truth_pictures(data, tmp_path / "out", 3)


def test_unreadable_images_are_named(data, tmp_path, unreadable_images):
    for path in unreadable_images.values():
        images = [dataclasses.replace(image, path=str(path)) for image in data.images]
        with pytest.raises(DataError, match=re.escape(f"{path} ")):
            save_ground_truth_pictures(dataclasses.replace(data, images=images), tmp_path, 1)


def test_drawing_threshold_shows_as_many_predictions_as_objects():
    scores = [0.1, 0.4, 0.2, 0.3]
    assert drawing_threshold(scores, 2) == pytest.approx(0.3)
    assert drawing_threshold(scores, 1) == pytest.approx(0.4)
    assert drawing_threshold(scores, 400) == pytest.approx(0.1)
    assert drawing_threshold([0.9, 0.8], 1) == 0.5
    assert drawing_threshold([0.001] * 9, 3) == 0.05
    assert drawing_threshold([], 3) == drawing_threshold(scores, 0) == 0.5


def test_side_by_side_keeps_the_panels_and_shortens_text():
    red = np.full((50, 100, 3), (255, 0, 0), dtype=np.uint8)
    blue = np.full((50, 100, 3), (0, 0, 255), dtype=np.uint8)
    page = side_by_side("long title " * 30, [("long caption " * 30, red), ("b", blue)])
    assert page.shape[1] == 200 + GAP
    assert np.array_equal(page[-50:, :100], red)
    assert np.array_equal(page[-50:, -100:], blue)
    assert (page[-50:, 100:-100] == 255).all()
    # Neither text runs into the margin of the page or into the neighbour's caption.
    assert (page[:-50, -4:] == 255).all()
    assert (page[:-50][-18:, 100 : 100 + GAP] == 255).all()
