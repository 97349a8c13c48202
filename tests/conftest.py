"""Fixtures shared by all tests."""

import contextlib
import importlib.util
import json
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores; more threads would only wait

REQUIRED = "EQL_D2_REQUIRE_DETECTRON2"
INSTALLED = importlib.util.find_spec("detectron2") is not None
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_runtest_setup(item):
    """Report each test of the engine as not run, or as failed where the engine is required."""
    if INSTALLED or item.get_closest_marker("detectron2") is None:
        return
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"Detectron2 is not installed, and {REQUIRED}=1 requires it", pytrace=False)
    pytest.skip("NOT RUN: Detectron2 is not installed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that is larger than a repository should hold."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"reference data not found: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def full_disk():
    """``with full_disk(n):`` every file is refused more than n bytes, as by a full disk."""

    @contextlib.contextmanager
    def limited(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


def png(pixels, size=None):
    """Write ``(H, W, C)`` uint8 or uint16 as a PNG by hand: Pillow writes no 16-bit colours.

    ``size``: (height, width) that the header says instead of the true one.
    """
    height, width = size or pixels.shape[:2]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(f">u{row.itemsize}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.fixture(scope="session")
def images_of_every_kind(tmp_path_factory):
    """Every mode, depth and orientation that a file can have: name -> (path, its pixels).

    The pixels are ``(H, W, 3)`` uint8 RGB, each with one side of 6 and one of 9, and come from
    what was written where that is lossless.
    """
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    grey = rng.permutation(np.linspace(0, 255, 54).astype(np.uint8)).reshape(6, 9)
    alpha = rng.integers(0, 256, (6, 9, 1)).astype(np.uint8)
    grey_rgb = np.repeat(grey[..., None], 3, axis=2)
    low_bytes = rng.integers(0, 256, (6, 9)).astype(np.uint16)
    wide = grey.astype(np.uint16) * 256 + low_bytes
    wide_rgb = rgb.astype(np.uint16) * 256 + low_bytes[..., None]
    wide_alpha = alpha.astype(np.uint16) * 257
    kinds = {}

    def add(name, image, pixels=None, **options):
        if isinstance(image, bytes):
            (folder / name).write_bytes(image)
        else:
            image.save(folder / name, **options)
        if pixels is None:  # lossy: whatever Pillow decodes
            with Image.open(folder / name) as stored:
                pixels = np.asarray(stored.convert("RGB"))
        kinds[name] = folder / name, pixels

    colour = Image.fromarray(rgb)
    for kind in ("png", "bmp", "tif", "ppm"):
        add(f"rgb.{kind}", colour, rgb)
    add("rgb.webp", colour, rgb, lossless=True)
    add("rgb.jpg", colour)
    add("luma.jpg", Image.fromarray(grey))
    add("luma.png", Image.fromarray(grey), grey_rgb)
    bits = grey > 100
    add("bilevel.png", Image.fromarray(bits), np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))
    la = Image.fromarray(np.concatenate([grey[..., None], alpha], axis=2))
    add("luma_alpha.png", la, grey_rgb)
    rgba = Image.fromarray(np.concatenate([rgb, alpha], axis=2))
    add("rgb_alpha.png", rgba, rgb)
    add("rgb_alpha.tif", rgba, rgb)
    add("rgb_alpha.webp", rgba, rgb, lossless=True, exact=True)
    few = Image.fromarray(grey).convert("P")
    add("palette.png", few, grey_rgb)
    add("palette.gif", few, grey_rgb)
    add("palette_one_transparent.png", few, grey_rgb, transparency=int(grey[2, 3]))
    add("palette_alphas.png", few, grey_rgb, transparency=bytes(range(256)))
    pa = Image.merge("PA", (few, Image.fromarray(alpha[..., 0])))
    add("palette_alpha.tif", pa, grey_rgb)
    cmyk = colour.convert("CMYK")
    add("cmyk.tif", cmyk, rgb)
    add("cmyk.jpg", cmyk)
    add("ycbcr.tif", colour.convert("YCbCr"))
    add("lab.tif", Image.frombytes("LAB", (9, 6), rgb.tobytes()))
    add("grey16.png", Image.fromarray(wide), grey_rgb)
    add("grey16.tif", Image.fromarray(wide), grey_rgb)
    add("grey16_big_endian.tif", Image.fromarray(wide.astype(">u2")), grey_rgb)
    add("grey16_alpha.png", png(np.stack([wide, wide_alpha[..., 0]], axis=2)), grey_rgb)
    add("rgb16.png", png(wide_rgb), rgb)
    add("rgb16_alpha.png", png(np.concatenate([wide_rgb, wide_alpha], axis=2)), rgb)
    add("grey16.pgm", Image.fromarray(wide.astype(np.int32)), grey_rgb)
    add("grey32.tif", Image.fromarray(wide.astype(np.int32)), grey_rgb)
    add("float.tif", Image.fromarray(grey + np.float32(0.9)), grey_rgb)
    two = {"save_all": True, "append_images": [Image.new("RGB", (9, 6))]}
    add("two_pages.tif", colour, rgb, **two)
    add("two_frames.png", colour, rgb, **two)
    add("two_frames.webp", colour, rgb, lossless=True, **two)
    add("two_frames.gif", few, grey_rgb, save_all=True, append_images=[Image.new("L", (9, 6))])
    # From the definition of the tag: where row 0 and column 0 of what is stored are when shown.
    shown = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }
    for orientation, turned in shown.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("jpg", "png", "tif", "webp"):
            name = f"orientation{orientation}.{kind}"
            lossless = {"lossless": True} if kind == "webp" else {}
            add(name, colour, turned(rgb), exif=exif, **lossless)
            if kind == "jpg":
                kinds[name] = folder / name, turned(kinds["rgb.jpg"][1])
    return kinds


@pytest.fixture(scope="session")
def unreadable_images(tmp_path_factory):
    """Files that are no images, or no whole ones, or too large ones: name -> path."""
    folder = tmp_path_factory.mktemp("unreadable")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    for kind in ("png", "jpg", "tif", "bmp", "webp", "ppm"):
        path = folder / f"truncated.{kind}"
        image.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    whole = png(np.zeros((4, 4, 3), np.uint8))
    (folder / "checksum.png").write_bytes(whole[:29] + b"\0\0\0\0" + whole[33:])
    (folder / "no_data.png").write_bytes(whole[:33])
    huge = png(np.zeros((4, 4, 3), np.uint8), size=(20_000, 20_000))
    (folder / "huge.png").write_bytes(huge)
    (folder / "folder.png").mkdir()
    names = [*sorted(path.name for path in folder.iterdir()), "missing.png"]
    return {name: folder / name for name in names}


@pytest.fixture(scope="session")
def lines_and_dots(tmp_path_factory):
    """Data with images of 5000 x 1, 1 x 5000, 1 x 1, 2 x 3 pixels: (annotation file, folder).

    Each image is one object, half of them with a polygon, half with a run-length coded mask.
    """
    folder = tmp_path_factory.mktemp("lines_and_dots")
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": f"c{i}"} for i in (1, 2)]
    for number, (width, height) in enumerate([(5000, 1), (1, 5000), (1, 1), (2, 3)] * 2, 1):
        name = f"{number}.png"
        Image.new("RGB", (width, height), (200, 30 * number, 0)).save(folder / name)
        size = {"height": height, "width": width}
        content["images"].append({"id": number, "file_name": name, **size})
        polygon = [[0, 0, width, 0, width, height, 0, height]]
        run_lengths = {"size": [height, width], "counts": [0, width * height]}
        content["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1 + number // 8,
                "bbox": [0, 0, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": polygon if number <= 4 else run_lengths,
            }
        )
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json", folder
