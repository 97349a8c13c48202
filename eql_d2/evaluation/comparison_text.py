"""A comparison as a table, in words and as json."""

from __future__ import annotations

from typing import Any

from eql_d2.evaluation.comparison import SOURCES, Comparison, Difference
from eql_d2.evaluation.intervals import Interval
from eql_d2.evaluation.report import GROUPS_LABEL

METHODS = {
    "images": "paired bootstrap over images, expanded percentile interval",
    "categories": "bootstrap over categories, expanded percentile interval",
    "images and categories": "two-way clustering: both variances less the part in both, t interval",
    "seeds": "Welch's t interval over runs",
    "all": "variances of images-and-categories and of seeds added, t with Satterthwaite's degrees",
}
SINGLE = ("images", "categories", "seeds")
NOISE = {"images": "images", "categories": "categories", "seeds": "training"}


def verdict(difference: Difference) -> tuple[str, bool]:
    """Say in words whether a difference exceeds the noise, and whether it exceeds all measured."""
    known = {s: i for s in SOURCES if (i := difference.intervals[s]) is not None}
    if not known:
        return "noise not known: fewer than two images or categories", False
    beyond = [s for s in SINGLE if s in known and known[s].excludes_zero()]
    within = [s for s in SINGLE if s in known and not known[s].excludes_zero()]
    joint = next(s for s in ("all", "images and categories", *SINGLE) if s in known)
    clear = known[joint].excludes_zero()
    if clear and beyond:
        return f"exceeds the noise of {_listed(beyond)}", True
    if not beyond:
        return "within the noise", False
    if not within:
        return f"exceeds the noise of {_listed(beyond)} one at a time, not of all together", False
    return f"exceeds the noise of {_listed(beyond)}, not that of {_listed(within)}", False


def _listed(sources: list[str]) -> str:
    words = [NOISE[source] for source in sources]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def in_words(difference: Difference, names: tuple[str, str]) -> str:
    """One sentence on one metric."""
    if difference.value == 0:
        return f"{difference.metric}: no difference"
    way = "higher" if difference.value > 0 else "lower"
    amount = f"{names[1]} is {abs(difference.value):.2f} {way} than {names[0]}"
    return f"{difference.metric}: {amount}; {verdict(difference)[0]}"


def caveats(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    if min(comparison.num_runs) < 2:
        lines.append(
            "A side of one run: the noise of training is not measured, and runs that differ only "
            "in their seed may differ as much. Two or more runs a side tell."
        )
    elif min(comparison.num_runs) == 2:
        lines.append("Two runs on a side say little about their spread: more narrow its intervals.")
    number = len(comparison.differences)
    if number > 1:
        lines.append(
            f"{number} metrics, each with an interval of its own: decide beforehand which one "
            f"counts, or ask for {100 * (1 - (1 - comparison.confidence) / number):.6g} % "
            "intervals (Bonferroni) if any may."
        )
    few = [d.metric for d in comparison.differences if d.num_categories < 10]
    if few:
        lines.append(f"Fewer than 10 categories behind {', '.join(few)}: intervals are rough.")
    return lines


def confidence_text(comparison: Comparison) -> str:
    """The confidence in percent with all its digits: 99.99999 is not 100."""
    return f"{100 * comparison.confidence:.12g} %"


def _side(letter: str, name: str, runs: int) -> str:
    number = f"{runs} run{'s' if runs > 1 else ''}"
    return f"{letter}: {number}" if name == letter else f"{letter}: {name} ({number})"


def table(comparison: Comparison) -> str:
    """The comparison as text: numbers and intervals, then words, then caveats."""
    sides = zip("AB", comparison.names, comparison.num_runs, strict=True)
    header = "   ".join(_side(*side) for side in sides)
    columns = [s for s in SOURCES if any(d.intervals[s] for d in comparison.differences)]
    lines = [
        header,
        f"{comparison.num_images} images, {comparison.num_samples} resampled sets",
        f"{confidence_text(comparison)} intervals of B - A in percent points",
        "",
        f"{'':10}{'A':>7}{'B':>7}{'B - A':>8}" + "".join(f"{c:>24}" for c in columns),
    ]
    for d in comparison.differences:
        cells = "".join(f"{_cell(d.intervals[c]):>24}" for c in columns)
        lines.append(f"{d.metric:10}{d.first:7.2f}{d.second:7.2f}{d.value:+8.2f}{cells}")
    lines += [f"{metric:10}  n/a ({why})" for metric, why in comparison.undefined.items()]
    if comparison.groups_source:
        lines.append(f"{GROUPS_LABEL}: {comparison.groups_source}")
    lines += ["", *(in_words(d, comparison.names) for d in comparison.differences)]
    return "\n".join([*lines, "", *caveats(comparison)])


def _cell(interval: Interval | None) -> str:
    return "n/a" if interval is None else f"{interval.low:+.2f} to {interval.high:+.2f}"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values: all numbers, methods and settings."""
    metrics: dict[str, Any] = {}
    for d in comparison.differences:
        words, clear = verdict(d)
        intervals = {s: None if i is None else [i.low, i.high] for s, i in d.intervals.items()}
        metrics[d.metric] = {
            "A": d.first,
            "B": d.second,
            "difference": d.value,
            "intervals": intervals,
            "categories": d.num_categories,
            "images": d.num_images,
            "verdict": words,
            "exceeds_all_measured_noise": clear,
        }
    return {
        "A": {"name": comparison.names[0], "runs": comparison.num_runs[0]},
        "B": {"name": comparison.names[1], "runs": comparison.num_runs[1]},
        "metrics": metrics | dict.fromkeys(comparison.undefined),
        "undefined": comparison.undefined,
        "groups": comparison.groups_source or None,
        "confidence": comparison.confidence,
        "resampled_sets": comparison.num_samples,
        "images": comparison.num_images,
        "seed": comparison.seed,
        "methods": METHODS,
        "caveats": caveats(comparison),
    }
