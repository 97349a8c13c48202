"""Files of every kind become the same RGB for everyone; unreadable ones are named."""

import warnings

import numpy as np
import pytest
from PIL import Image

from eql_d2.data import read_pixels
from eql_d2.errors import DataError


def test_every_kind_of_file_becomes_its_pixels(images_of_every_kind):
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (path, wanted) in images_of_every_kind.items():
            pixels = read_pixels(path)
            assert pixels.dtype == np.uint8
            if not np.array_equal(pixels, wanted):
                wrong.append(name)
    assert wrong == []
    assert len(images_of_every_kind) > 60


def test_every_mode_that_a_file_can_have_is_there(images_of_every_kind):
    modes = {Image.open(path).mode for path, _ in images_of_every_kind.values()}
    assert modes >= {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"}
    assert modes >= {"I", "I;16", "I;16B", "F"}


@pytest.mark.parametrize("top", [300, 65535])
def test_the_scale_does_not_depend_on_the_content(tmp_path, top):
    values = np.full((2, 2), 40 * 256, np.uint16)
    values[0, 0] = top
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_pixels(tmp_path / "a.png")[1] == 40).all()


def test_values_beyond_the_scale_are_clipped(tmp_path):
    values = np.array([[-5.0, np.nan, 254.9, 1e9]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 0, 254, 255]
    Image.fromarray(np.array([[-5, 65535, 70_000]], np.int32)).save(tmp_path / "b.tif")
    assert read_pixels(tmp_path / "b.tif")[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("dtype", "top", "expected"),
    [(np.float32, 1, "0 to 1, would all be black"), (np.uint16, 200, "0 to 200, would all be")],
)
def test_another_scale_is_refused_and_not_trained_on_as_black(tmp_path, dtype, top, expected):
    Image.fromarray(np.linspace(0, top, 12).reshape(3, 4).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif cannot be read .*{expected}.* 8 bits"):
        read_pixels(tmp_path / "a.tif")
    Image.fromarray(np.zeros((3, 4), dtype)).save(tmp_path / "black.tif")
    assert not read_pixels(tmp_path / "black.tif").any()


def test_damaged_exif_data_do_not_make_the_pixels_unreadable(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8))
    image.save(tmp_path / "a.png", exif=b"Exif\0\0II*\0garbage")
    assert np.array_equal(read_pixels(tmp_path / "a.png"), np.asarray(image))


def test_another_size_than_annotated_is_told_with_both(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png", exif=exif)
    assert read_pixels(tmp_path / "a.png", (9, 6)).shape == (9, 6, 3)
    with pytest.raises(
        DataError, match=r"a\.png is 6 x 9 pixels .*, but the annotations say 9 x 6"
    ):
        read_pixels(tmp_path / "a.png", (6, 9))


def test_a_turned_square_is_turned_although_its_stored_size_fits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_pixels(tmp_path / "a.png", (5, 5)), pixels[::-1, ::-1])


def test_unreadable_files_are_named_with_the_reason_and_what_to_do(unreadable_images):
    assert len(unreadable_images) > 10
    for path in unreadable_images.values():
        with pytest.raises(DataError) as caught:
            read_pixels(path)
        message = str(caught.value)
        assert message.startswith(f"{path} ")
        if path.name == "huge.png":
            assert "more than 178,956,970 pixels" in message
            assert "smaller copy" in message
        else:
            assert "cannot be read as an image: " in message
            assert message.endswith("Replace the file or leave it out")


def test_every_damage_is_a_message(tmp_path, images_of_every_kind):
    """Whatever bytes are wrong: pixels, or a message that names the file."""
    rng = np.random.default_rng(0)
    refused, readable = [], 0
    for path, _ in images_of_every_kind.values():
        data = np.frombuffer(path.read_bytes(), np.uint8)
        damaged = tmp_path / path.name
        for _ in range(3):
            changed = data.copy()
            changed[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
            damaged.write_bytes(changed[: rng.integers(len(data) // 2, 2 * len(data))].tobytes())
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's, of what it repairs
                    read_pixels(damaged)
                readable += 1
            except DataError as error:
                refused.append((damaged, str(error)))
    assert min(readable, len(refused)) > 20
    assert all(message.startswith(f"{path} ") for path, message in refused)
