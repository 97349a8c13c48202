"""Images of every mode become RGB; unreadable ones are named."""

import numpy as np
import pytest
from PIL import Image

from eql_d2.errors import DataError, UserError
from eql_d2.plotting import read_image, write_png

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def test_png_comes_back_and_is_the_same_file_every_time(tmp_path):
    write_png(RGB, tmp_path / "new" / "a.png")
    write_png(RGB, tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), RGB)
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "I", "F"])
def test_other_modes_become_rgb(tmp_path, mode):
    grey = Image.fromarray(np.linspace(0, 255, 54).reshape(6, 9).astype(np.uint8))
    if mode.startswith(("I", "F")):
        image = Image.fromarray((np.asarray(grey).astype(np.float64) * 257).astype(np.uint16))
        image = image if mode == "I;16" else image.convert(mode)
    else:
        image = grey.convert("RGB").convert(mode)
    path = tmp_path / ("image.tif" if mode in ("CMYK", "F", "I") else "image.png")
    image.save(path)
    pixels = read_image(path)
    assert pixels.shape == (6, 9, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].mean() < 10
    assert pixels[-1, -1].mean() > 245


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[:2, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert (pixels[:2] == 0).all()
    assert (pixels[2:] == 255).all()


def test_exif_orientation_is_applied_unless_the_stored_size_fits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (9, 6, 3)
    assert read_image(tmp_path / "a.png", (9, 6)).shape == (9, 6, 3)
    assert np.array_equal(read_image(tmp_path / "a.png", (6, 9)), RGB)


def test_wrong_size_is_named(tmp_path):
    write_png(RGB, tmp_path / "a.png")
    with pytest.raises(DataError, match=r"is 6 x 9 pixels .* for 7 x 9"):
        read_image(tmp_path / "a.png", (7, 9))


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "missing", "folder"])
def test_unreadable_files_are_named(tmp_path, kind):
    path = tmp_path / "broken.png"
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        write_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), path)
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image"):
        read_image(path)


def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(tmp_path, full_disk):
    with full_disk(20), pytest.raises(UserError, match=r"a\.png cannot be written"):
        write_png(RGB, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
