"""A folder of images becomes pictures and a COCO json; inputs are never touched."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eql_d2.categories import CategoryStatistics
from eql_d2.data import encode_rle
from eql_d2.errors import UserError
from eql_d2.plotting import category_color, list_images, predict_images

STATISTICS = CategoryStatistics.from_counts(
    names=["cat", "dog"],
    category_ids=[17, 90],
    image_count=[500, 5],
    instance_count=[900, 5],
    num_images=510,
)


def save_image(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (128, 128, 128)).save(path)
    return path


def fake_predictor(masks=True):
    """One dog in the lower right corner, found on every image."""

    def predict(pixels):
        assert pixels.dtype == np.uint8
        height, width = pixels.shape[:2]
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height - 10 :, width - 12 :] = 1
        return SimpleNamespace(
            boxes=np.array([[width - 12.0, height - 10.0, 12.0, 10.0]], dtype=np.float32),
            scores=np.array([0.75], dtype=np.float32),
            categories=np.array([1]),
            masks=[encode_rle(mask)] if masks else None,
        )

    return predict


def test_pictures_and_json(tmp_path):
    images = [save_image(tmp_path / "in" / "a.jpg"), save_image(tmp_path / "in" / "sub" / "b.png")]
    root, found = list_images(tmp_path / "in", tmp_path / "out")
    assert found == images
    summary = predict_images(fake_predictor(), root, found, STATISTICS, tmp_path / "out")
    assert summary.num_objects == 2
    assert summary.skipped == []
    names = [p.relative_to(tmp_path / "out").as_posix() for p in summary.pictures]
    assert names == ["a_jpg_prediction.png", "sub/b_png_prediction.png"]
    picture = np.asarray(Image.open(summary.pictures[0]))
    scale = picture.shape[0] // 30
    assert scale == 12
    # The lower edge of the object's contour, and a place outside it.
    assert tuple(picture[-1, 34 * scale]) == category_color(1)
    assert abs(int(picture[25 * scale, 5 * scale, 0]) - 128) < 3

    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["images"][1] == {"id": 2, "file_name": "sub/b.png", "width": 40, "height": 30}
    assert content["categories"] == [
        {"id": 17, "name": "cat", "frequency": "f"},
        {"id": 90, "name": "dog", "frequency": "r"},
    ]
    annotation = content["annotations"][1]
    assert annotation["bbox"] == [28.0, 20.0, 12.0, 10.0]
    assert (annotation["image_id"], annotation["category_id"]) == (2, 90)
    assert annotation["area"] == 120
    assert annotation["score"] == 0.75
    assert not (tmp_path / "out" / "predictions.json.partial").exists()


def test_the_json_is_coco(tmp_path):
    from pycocotools.coco import COCO

    image = save_image(tmp_path / "in" / "a.png")
    predict_images(fake_predictor(), image.parent, [image], STATISTICS, tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out" / "predictions.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[1], catIds=[90]))
    assert coco.annToMask(annotation)[25, 30] == 1
    assert coco.annToMask(annotation).sum() == 120


def test_models_without_masks(tmp_path):
    image = save_image(tmp_path / "in" / "a.png")
    predict_images(fake_predictor(False), image.parent, [image], STATISTICS, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert "segmentation" not in content["annotations"][0]
    assert content["annotations"][0]["area"] == 120


def test_unreadable_images_are_skipped_by_name(tmp_path, unreadable_images):
    paths = list(unreadable_images.values())
    summary = predict_images(fake_predictor(), paths[0].parent, paths, STATISTICS, tmp_path)
    assert summary.pictures == []
    for path, message in zip(paths, summary.skipped, strict=True):
        assert message.startswith(f"{path} ")


def test_bad_images_are_skipped_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a.png", "c.png"):
        save_image(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_text("no image")
    root, images = list_images(tmp_path / "in", tmp_path / "out")
    summary = predict_images(fake_predictor(), root, images, STATISTICS, tmp_path / "out")
    assert len(summary.pictures) == 2
    assert len(summary.skipped) == 1
    assert "b.png cannot be read as an image" in summary.skipped[0]
    assert "[2/3] skipped" in caplog.text
    assert "[3/3] c.png: 1 objects" in caplog.text
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [i["file_name"] for i in content["images"]] == ["a.png", "c.png"]


def test_images_with_one_stem_get_two_pictures(tmp_path):
    for name in ("a.png", "a.jpg"):
        save_image(tmp_path / "in" / name)
    root, images = list_images(tmp_path / "in", tmp_path / "out")
    summary = predict_images(fake_predictor(), root, images, STATISTICS, tmp_path / "out")
    assert len({*summary.pictures}) == 2


def test_an_output_folder_inside_the_input_is_no_input(tmp_path):
    save_image(tmp_path / "a.png")
    for _ in range(2):
        root, images = list_images(tmp_path, tmp_path / "out")
        assert [p.name for p in images] == ["a.png"]
        predict_images(fake_predictor(), root, images, STATISTICS, tmp_path / "out")


def test_inputs_are_not_changed(tmp_path):
    image = save_image(tmp_path / "in" / "a.png")
    before = image.read_bytes()
    predict_images(fake_predictor(), image.parent, [image], STATISTICS, tmp_path / "out")
    assert image.read_bytes() == before
    assert [p.name for p in image.parent.iterdir()] == ["a.png"]


def test_a_single_image_is_taken_whatever_its_extension(tmp_path):
    image = save_image(tmp_path / "a.png").rename(tmp_path / "picture.dat")
    assert list_images(image, tmp_path / "out") == (tmp_path, [image])


def test_order_extensions_and_hidden_folders(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden/x.png"):
        save_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("text")
    _, images = list_images(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in images] == ["a.png", "b.JPG"]


@pytest.mark.parametrize("kind", ["missing", "empty", "same", "parent", "file", "link"])
def test_wrong_paths(tmp_path, kind):
    image = save_image(tmp_path / "in" / "a.png")
    (tmp_path / "none").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "file").touch()
    source, output, message = {
        "missing": ("gone", "out", "does not exist"),
        "empty": ("none", "out", "holds no image"),
        "same": ("in", "in", "is the folder of the input"),
        "parent": (image, "in", "is the folder of the input"),
        "link": ("in", "link", "is the folder of the input"),
        "file": ("in", "file", "is a file"),
    }[kind]
    with pytest.raises(UserError, match=message):
        list_images(tmp_path / source, tmp_path / output)


def test_an_output_in_a_circle_of_links_is_named(tmp_path):
    (tmp_path / "image.png").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"--output .*loop cannot be written to: Too many levels"):
        list_images(tmp_path / "image.png", tmp_path / "loop")
