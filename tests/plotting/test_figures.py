"""Figures leave the caller's matplotlib alone and are the same file every time."""

import subprocess
import sys

import matplotlib
import pytest
from PIL import Image

from eql_d2.errors import UserError
from eql_d2.plotting.figures import DPI, figure, series_style


def draw(path):
    with figure(path, 3.0, 2.0) as page:
        page.add_subplot().plot([1, 2, 3])
    return path


def test_size_and_folder(tmp_path):
    with Image.open(draw(tmp_path / "new" / "a.png")) as image:
        assert image.size == (3 * DPI, 2 * DPI)


@pytest.mark.parametrize("extension", ["png", "svg", "pdf"])
def test_equal_figures_are_equal_files(tmp_path, extension):
    first = draw(tmp_path / f"a.{extension}").read_bytes()
    assert first == draw(tmp_path / f"b.{extension}").read_bytes()
    assert len(first) > 500


def test_settings_of_the_caller_stay_and_do_not_matter(tmp_path):
    plain = draw(tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9, "axes.facecolor": "red"}):
        assert draw(tmp_path / "b.png").read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 31
        assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_backend_stays_and_pyplot_is_not_imported(tmp_path):
    code = f"""
import sys, matplotlib
matplotlib.use("svg")
import eql_d2.plotting
assert "matplotlib.figure" not in sys.modules
from eql_d2.plotting.figures import figure
with figure({str(tmp_path / "a.png")!r}, 2, 2) as page:
    page.add_subplot().plot([1, 2])
assert matplotlib.rcParams["backend"] == "svg", matplotlib.rcParams["backend"]
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_plotting_imports_without_matplotlib_and_pillow():
    code = """
import sys
sys.modules["matplotlib"] = sys.modules["PIL"] = sys.modules["pycocotools"] = None
import eql_d2.plotting
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failed_figure_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), figure(tmp_path / "a.png", 2, 2):
        raise ZeroDivisionError
    assert not (tmp_path / "a.png").exists()


def test_28_series_differ():
    styles = {tuple(series_style(i).values()) for i in range(28)}
    assert len(styles) == 28
    assert series_style(28) == series_style(0)


@pytest.mark.parametrize("extension", ["png", "svg", "pdf"])
def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(tmp_path, full_disk, extension):
    draw(tmp_path / f"a.{extension}")  # what the first figure writes elsewhere is not of this one
    with full_disk(100), pytest.raises(UserError, match=rf"b\.{extension} cannot be written"):
        draw(tmp_path / f"b.{extension}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{extension}"]
