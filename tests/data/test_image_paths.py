import os
from pathlib import Path

import pytest

from eql_d2.data.image_paths import ImageFinder
from eql_d2.errors import DataError

V1 = {"coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg"}
V05 = {
    "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg",
    "file_name": "COCO_val2014_000000000139.jpg",
}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("image", "place"),
    [
        (V1, "train2017/000000000009.jpg"),
        (V1, "000000000009.jpg"),
        (V05, "val2017/000000000139.jpg"),
        (V05, "COCO_val2014_000000000139.jpg"),
        (V05, "000000000139.jpg"),
        ({"file_name": "a.png"}, "a.png"),
        ({"file_name": "sub/dir/a.png"}, "sub/dir/a.png"),
        ({"file_name": "sub/dir/a.png"}, "a.png"),
        ({"file_name": "a.png", "coco_url": ""}, "a.png"),
        ({"file_name": "a.png", "coco_url": None}, "a.png"),
        ({"file_name": "a.png", "coco_url": "just_a_name"}, "a.png"),
    ],
)
def test_images_are_found_with_and_without_a_trailing_slash(tmp_path, image, place, slash):
    touch(tmp_path, place)
    assert ImageFinder(f"{tmp_path}{slash}").find(image) == (tmp_path / place, True)


def test_the_split_folder_wins_over_the_file_name_and_that_over_a_flat_folder(tmp_path):
    places = ["val2017/000000000139.jpg", "COCO_val2014_000000000139.jpg", "000000000139.jpg"]
    for position in reversed(range(3)):
        touch(tmp_path, places[position])
        assert ImageFinder(tmp_path).find(V05) == (tmp_path / places[position], True)


def test_a_missing_image_is_told_at_the_place_where_it_is_expected_first(tmp_path):
    assert ImageFinder(tmp_path).find(V05) == (tmp_path / "val2017/000000000139.jpg", False)
    assert ImageFinder("nowhere").find({"file_name": "a.png"}) == (Path("nowhere/a.png"), False)


@pytest.mark.parametrize("name", ["{0}/in/side.png", "../root/in/side.png", "in/../in/side.png"])
def test_names_that_end_up_below_the_root_are_found(tmp_path, name):
    root = tmp_path / "root"
    place = touch(root, "in/side.png") / "in/side.png"
    assert ImageFinder(root).find({"file_name": name.format(root)}) == (place, True)


def test_absolute_names_are_found_below_the_root_of_all(tmp_path):
    touch(tmp_path, "else/where.png")
    image = {"file_name": str(tmp_path / "else/where.png")}
    assert ImageFinder("/").find(image) == (tmp_path / "else/where.png", True)


OUTSIDE = [
    {"file_name": "../secret.png"},
    {"file_name": "in/../../secret.png"},
    {"file_name": "..\\secret.png"},
    {"file_name": "{outside}/secret.png"},
    {"coco_url": "http://host/../secret.png"},
    {"coco_url": "http://host/in/.."},
    {"file_name": "http://host/../secret.png"},
]


@pytest.mark.parametrize("image", OUTSIDE)
def test_no_place_outside_of_the_root_is_looked_at(tmp_path, image):
    touch(tmp_path, "secret.png", "root/in/side.png")
    image = {key: name.format(outside=tmp_path) for key, name in image.items()}
    finder = ImageFinder(tmp_path / "root")
    path, exists = finder.find(image)
    assert not exists
    assert path is None or path.resolve().is_relative_to(tmp_path / "root")
    assert finder.leads_out(image)
    touch(tmp_path / "root", "secret.png")  # a flat folder that holds it
    if "secret" in str(image):
        assert ImageFinder(tmp_path / "root").find(image) == (tmp_path / "root/secret.png", True)


def test_a_link_of_the_users_may_lead_out_but_dots_behind_it_may_not(tmp_path):
    touch(tmp_path, "elsewhere/a.png", "secret.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    finder = ImageFinder(tmp_path / "root")
    assert finder.find({"file_name": "link/a.png"}) == (tmp_path / "root/link/a.png", True)
    assert finder.find({"file_name": "link/../secret.png"})[1] is False


@pytest.mark.parametrize("image", [{}, {"file_name": ""}, {"file_name": 3, "coco_url": 4}])
def test_an_image_without_any_name_has_no_path(tmp_path, image):
    assert ImageFinder(tmp_path).find(image) == (None, False)


@pytest.mark.parametrize("name", ["bad\0name.png", "x" * 5000, "\ud800.png", "../..", "."])
def test_strange_names_are_not_found(tmp_path, name):
    assert ImageFinder(tmp_path).find({"file_name": name})[1] is False


def test_a_folder_is_no_image(tmp_path):
    touch(tmp_path, "train2017/1.jpg")
    assert ImageFinder(tmp_path).find({"file_name": "train2017"})[1] is False


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    touch(tmp_path, *(f"train2017/{i}.jpg" for i in range(20)))
    calls = []
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: calls.append(folder) or scandir(folder))
    finder = ImageFinder(tmp_path)
    for i in range(20):
        assert finder.find({"coco_url": f"http://host/train2017/{i}.jpg"})[1]
    assert calls == [str(tmp_path / "train2017")]


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ({"file_name": "train\\b.jpg"}, "train/b.jpg"),
        ({"file_name": "train\\b.jpg"}, "b.jpg"),
        ({"file_name": "train\\b.jpg"}, "train\\b.jpg"),
        ({"coco_url": "http://host/train/b.jpg?x=1&y=a/b"}, "train/b.jpg"),
        ({"coco_url": "http://host/train/b.jpg?x=1#top"}, "b.jpg"),
        ({"file_name": "http://host/some/train/b.jpg?x=1"}, "train/b.jpg"),
        ({"file_name": "http://host/train/b.jpg"}, "b.jpg"),
        ({"file_name": "http://host/b.jpg"}, "b.jpg"),
        ({"file_name": "what?.jpg#1"}, "what?.jpg#1"),
        ({"coco_url": "http://[broken/train/b.jpg"}, "train/b.jpg"),
    ],
)
def test_names_of_windows_and_of_the_web(tmp_path, image, place):
    touch(tmp_path, place)
    assert ImageFinder(tmp_path).find(image) == (tmp_path / place, True)


def test_a_link_to_nothing_is_no_image_and_one_to_an_image_is(tmp_path):
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "sound.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    finder = ImageFinder(tmp_path)
    assert finder.find({"file_name": "broken.jpg"}) == (tmp_path / "broken.jpg", False)
    assert finder.find({"file_name": "sound.jpg"}) == (tmp_path / "sound.jpg", True)


def with_names(content, *names):
    content["images"] = [
        {"id": i, "height": 10, "width": 20, **name}
        for i, name in zip((7, 5, 600), names, strict=True)
    ]
    return content


def test_names_that_lead_out_are_one_problem_with_count_and_examples(content, load, tmp_path):
    touch(tmp_path, "a.jpg")
    names = [{"file_name": name} for name in ("../../etc/passwd", "/etc/passwd", "a.jpg")]
    with pytest.raises(DataError) as caught:
        load(with_names(content(), *names), check_images=True)
    assert f"2 x image whose name leads out of the image folder {tmp_path};" in str(caught.value)
    assert "image 7 ('../../etc/passwd'), image 5 ('/etc/passwd')" in str(caught.value)


@pytest.mark.parametrize("name", ["a\0.jpg", "a\n.jpg", "\x1b[31m.jpg"])
def test_names_with_control_characters_are_refused(content, load, name):
    names = [{"file_name": name}, {"file_name": "b.jpg"}, {"coco_url": f"http://host/x/{name}"}]
    with pytest.raises(DataError, match="2 x image whose name has control characters") as caught:
        load(with_names(content(), *names))
    assert name not in str(caught.value)


def test_two_images_of_different_names_may_not_be_one_file(content, load, tmp_path):
    names = [{"file_name": f"{folder}/b.jpg"} for folder in ("x", "y")] + [{"file_name": "c.jpg"}]
    touch(tmp_path, "b.jpg", "c.jpg")
    value = with_names(content(), *names)
    with pytest.raises(DataError, match="two images with different names: images 7 and 5 are both"):
        load(value, check_images=True)
    touch(tmp_path, "x/b.jpg")
    assert len(load(value, check_images=True).images) == 3


def test_one_image_may_be_listed_twice(content, load, tmp_path):
    touch(tmp_path, "x/b.jpg")
    data = load(with_names(content(), *[{"file_name": "x/b.jpg"}] * 3), check_images=True)
    assert {image.path for image in data.images} == {str(tmp_path / "x" / "b.jpg")}
