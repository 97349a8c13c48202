"""Matplotlib figures that leave the caller's backend and settings alone.

Figures are made without pyplot, on an Agg canvas of their own: no window system is needed, and a
notebook that plots with another backend notices nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eql_d2.files import terminal_text, write_bytes

DPI = 120
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10.0,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "svg.hashsalt": "eql_d2",
}
LINE_STYLES = ("-", "--", "-.", ":")
# Okabe and Ito's hues that are dark enough for lines and bars on white.
SERIES_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextmanager
def figure(path: str | Path, width: float, height: float) -> Iterator[Any]:
    """Give a figure to draw on, and write it to ``path`` when the block ends without an error.

    Args:
        path: ``.png``, ``.svg`` or ``.pdf``; its folder is made.
        width: inches.
        height: inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    with matplotlib.rc_context():
        # rcdefaults() also leaves the backend alone; the user's own matplotlibrc does not count
        # here, so that the same numbers give the same picture everywhere.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        page = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(page)
        yield page
        # Version and date would make equal figures different files.
        stamps = {
            ".png": {"Software": None},
            ".svg": {"Date": None},
            ".pdf": {"CreationDate": None},
        }
        ending, buffer = path.suffix.lower(), io.BytesIO()
        page.savefig(buffer, format=ending.removeprefix("."), metadata=stamps.get(ending))
        write_bytes(path, buffer.getvalue())


def figure_text(text: str) -> str:
    """Return a name from a file for matplotlib, to which text between two ``$`` is a formula."""
    return terminal_text(text).replace("$", r"\$")


def series_style(index: int) -> dict[str, Any]:
    """Return colour and line style of the index-th series; 28 differ."""
    return {
        "color": SERIES_COLORS[index % len(SERIES_COLORS)],
        "linestyle": LINE_STYLES[index // len(SERIES_COLORS) % len(LINE_STYLES)],
    }
