import json
import shutil

import pytest

from eql_d2.errors import DataError


@pytest.fixture
def main(script):
    return script("prepare_lvis").main


@pytest.fixture
def tree(tmp_path, shared_data):
    """A tree that is complete for the val split of LVIS v0.5; images are empty files."""
    source = shared_data / "lvis_v0.5_val_100.json"
    (tmp_path / "lvis").mkdir()
    shutil.copyfile(source, tmp_path / "lvis" / "lvis_v0.5_val.json")
    for image in json.loads(source.read_text())["images"]:
        path = tmp_path / "coco" / "/".join(image["coco_url"].split("/")[-2:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def check(main, root, *more):
    return main(["--version", "v0.5", "--root", str(root), "--splits", "val", *more])


def test_a_complete_split(main, tree, capsys):
    assert check(main, tree) == 0
    printed = capsys.readouterr().out
    assert "valid: 100 images, 977 instances, 1,230 categories" in printed
    assert "wants 100 images: 100 from val2017" in printed
    assert f"found 100: 100 in {tree / 'coco' / 'val2017'}" in printed
    assert "sha256 f32e54e92c8d1f4f" in printed
    assert "all complete" in printed


def test_images_from_two_folders_are_counted_from_the_json(main, tree, capsys):
    path = tree / "lvis" / "lvis_v0.5_val.json"
    content = json.loads(path.read_text())
    (tree / "coco" / "train2017").mkdir()
    for image in content["images"][:30]:
        name = image["coco_url"].split("/")[-1]
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
        (tree / "coco" / "val2017" / name).rename(tree / "coco" / "train2017" / name)
    path.write_text(json.dumps(content))
    assert check(main, tree) == 0
    assert "wants 100 images: 70 from val2017, 30 from train2017" in capsys.readouterr().out


def test_a_flat_folder_is_found(main, tree, capsys):
    for path in (tree / "coco" / "val2017").iterdir():
        path.rename(tree / "coco" / path.name)
    assert check(main, tree) == 0
    assert f"found 100: 100 in {tree / 'coco'}\n" in capsys.readouterr().out


def test_the_first_missing_images_are_listed(main, tree, capsys):
    names = sorted((tree / "coco" / "val2017").iterdir())
    for path in names[:7]:
        path.unlink()
    assert check(main, tree) == 2
    printed = capsys.readouterr().out
    assert "found 93" in printed
    assert "missing 7, first:" in printed
    assert sum(line.strip().startswith(str(tree)) for line in printed.splitlines()[-8:]) == 5
    assert "not complete" in printed


def test_missing_and_broken_annotations(main, tree, capsys):
    assert main(["--version", "v0.5", "--root", str(tree)]) == 2
    assert f"{tree / 'lvis' / 'lvis_v0.5_train.json'}\n  missing" in capsys.readouterr().out
    path = tree / "lvis" / "lvis_v0.5_val.json"
    path.write_text(path.read_text()[:1000])
    assert check(main, tree) == 2
    assert "is cut off" in capsys.readouterr().out


def test_the_version_is_told_from_the_categories(main, tree, capsys):
    old = tree / "lvis" / "lvis_v0.5_val.json"
    old.rename(tree / "lvis" / "lvis_v1_val.json")
    assert main(["--root", str(tree), "--splits", "val"]) == 2
    assert "categories of lvis_v0.5, not of lvis_v1" in capsys.readouterr().out


def test_categories_of_no_version_are_told(main, tree, capsys):
    path = tree / "lvis" / "lvis_v0.5_val.json"
    content = json.loads(path.read_text())
    content["categories"][5]["name"] = "something else"
    path.write_text(json.dumps(content))
    assert check(main, tree) == 2
    assert "1230 categories that are those of no LVIS version" in capsys.readouterr().out


def test_links_are_made_once_and_what_is_there_stays(main, tree, tmp_path_factory, capsys):
    root = tmp_path_factory.mktemp("other")
    links = ["--link-annotations", str(tree / "lvis"), "--link-images", str(tree / "coco")]
    assert check(main, root, *links) == 0
    assert (root / "lvis" / "lvis_v0.5_val.json").is_symlink()
    assert (root / "coco" / "val2017").resolve() == tree / "coco" / "val2017"
    assert "train2017: not linked, no" in capsys.readouterr().out
    assert check(main, root, *links) == 0
    assert "val2017: is there" in capsys.readouterr().out


def test_a_stale_link_is_replaced(main, tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("other")
    (root / "coco").mkdir()
    (root / "coco" / "val2017").symlink_to(root / "gone")
    links = ["--link-annotations", str(tree / "lvis"), "--link-images", str(tree / "coco")]
    assert check(main, root, *links) == 0


def test_nothing_to_link_is_an_error(main, tree, tmp_path):
    with pytest.raises(DataError, match="holds none of train2017, val2017"):
        check(main, tree, "--link-images", str(tmp_path / "lvis"))


def test_a_root_that_cannot_hold_links_is_an_error(main, tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("other")
    (root / "coco").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be linked .* give the paths to training"):
        check(main, root, "--link-images", str(tree / "coco"))


def test_a_circle_of_links_is_nothing_to_link(main, tmp_path_factory, capsys):
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("root")
    (source / "train2017").mkdir()
    (source / "val2017").symlink_to(source / "val2017")
    check(main, root, "--link-images", str(source))
    assert "val2017: not linked, no" in capsys.readouterr().out


def test_names_of_a_stranger_are_shown_harmless(main, tmp_path, capsys):
    (tmp_path / "lvis").mkdir()
    sizes = {"height": 5, "width": 5}
    images = [
        {"id": 1, "coco_url": 3, "file_name": "a.jpg", **sizes},
        {"id": 2, "coco_url": "http://host/\u202ex\u2066/b.jpg", **sizes},
        {"id": 3, "file_name": "../../etc/passwd", **sizes},
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "lvis" / "lvis_v1_train.json").write_text(json.dumps(content))
    assert main(["--root", str(tmp_path), "--splits", "train"]) == 2
    printed = capsys.readouterr().out
    assert r"1 from \u202ex\u2066" in printed
    assert "2 from unnamed" in printed
    assert str(tmp_path / "coco" / "passwd") in printed
    assert "etc" not in printed
