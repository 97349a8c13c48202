"""What is said of a difference: in words, as a table, as json."""

import dataclasses
import itertools
import json

import pytest

from eql_d2.evaluation.comparison import SOURCES, Comparison, Difference
from eql_d2.evaluation.comparison_text import (
    as_json,
    caveats,
    confidence_text,
    in_words,
    table,
    verdict,
)
from eql_d2.evaluation.intervals import Interval

BEYOND, WITHIN, UNKNOWN = Interval(0.5, 2.0), Interval(-0.5, 2.0), None
NOISE = {"images": "images", "categories": "categories", "seeds": "training"}
JOINT = ("all", "images and categories", "images", "categories", "seeds")


def difference(metric="bbox/AP", first=20.0, second=21.25, behind=12, **intervals):
    """A difference with an interval for each source; those not named are unknown."""
    given = {key.replace("_", " "): value for key, value in intervals.items()}
    return Difference(metric, first, second, behind, 60, dict.fromkeys(SOURCES) | given)


def comparison(*differences, **changes):
    whole = Comparison(("A", "B"), (3, 3), differences, {}, 0.95, 1000, 60, 7)
    return dataclasses.replace(whole, **changes)


def test_a_verdict_is_clear_only_if_the_widest_known_noise_is_exceeded():
    """All 243 combinations, told from the intervals alone."""
    for some in itertools.product([BEYOND, WITHIN, UNKNOWN], repeat=5):
        intervals = dict(zip(SOURCES, some, strict=True))
        words, clear = verdict(difference(**intervals))
        known = [source for source in JOINT if intervals[source] is not None]
        single = [source for source in NOISE if source in known]
        beyond = [source for source in single if intervals[source] is BEYOND]
        assert clear == (bool(beyond) and intervals[known[0]] is BEYOND), some
        if not known:
            assert words == "noise not known: fewer than two images or categories"
            continue
        told = [source for source, word in NOISE.items() if word in words]
        one_by_one = bool(beyond) and not clear and beyond == single
        assert words.endswith("one at a time, not of all together") == one_by_one, some
        assert (", not that of " in words) == (bool(beyond) and not clear and not one_by_one), some
        assert told == (single if ", not that of " in words else beyond), some
        assert words.startswith("exceeds the noise of " if beyond else "within the noise"), some


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_must_be_outside_on_either_side(sign):
    ends = sorted((0.1 * sign, 2.0 * sign))
    beyond = Interval(*ends)
    assert verdict(difference(images=beyond)) == ("exceeds the noise of images", True)
    touching = Interval(*sorted((0.0, 2.0 * sign)))
    assert verdict(difference(images=touching)) == ("within the noise", False)


def test_lists_of_sources_read_as_english():
    two = difference(images=BEYOND, categories=BEYOND, images_and_categories=BEYOND)
    assert verdict(two)[0] == "exceeds the noise of images and categories"
    three = difference(images=BEYOND, categories=BEYOND, seeds=BEYOND, all=BEYOND)
    assert verdict(three)[0] == "exceeds the noise of images, categories and training"
    some = difference(images=WITHIN, categories=BEYOND, seeds=WITHIN, all=WITHIN)
    assert verdict(some)[0] == "exceeds the noise of categories, not that of images and training"


def test_sentences_name_the_better_side():
    up, down = difference(images=BEYOND), difference(first=21.25, second=20.0, images=WITHIN)
    same = difference(second=20.0, images=WITHIN)
    names = ("old", "new")
    assert in_words(up, names) == (
        "bbox/AP: new is 1.25 higher than old; exceeds the noise of images"
    )
    assert in_words(down, names) == "bbox/AP: new is 1.25 lower than old; within the noise"
    assert in_words(same, names) == "bbox/AP: no difference"


@pytest.mark.parametrize(
    ("runs", "said"),
    [((1, 1), "A side of one run"), ((1, 5), "A side of one run"), ((5, 1), "A side of one run"),
     ((2, 3), "Two runs on a side"), ((3, 2), "Two runs on a side"), ((3, 3), None)],
)  # fmt: skip
def test_few_runs_are_told_by_the_smaller_side(runs, said):
    lines = caveats(comparison(difference(), num_runs=runs))
    assert [line[: len(said)] for line in lines] == [said] if said else lines == []


def test_many_metrics_ask_for_wider_intervals():
    """Bonferroni: the chances of error of all metrics add up to that of one."""
    several = [difference(f"bbox/AP{n}") for n in ("", "r", "c", "f")]
    (line,) = caveats(comparison(*several))
    assert line.startswith("4 metrics, each with an interval of its own")
    assert "98.75 % intervals" in line
    assert caveats(comparison(*several, confidence=0.9))[0].count("97.5 % intervals") == 1
    assert caveats(comparison(several[0])) == []


def test_few_categories_are_named():
    some = [difference("bbox/APr", behind=9), difference("bbox/APc", behind=10)]
    assert caveats(comparison(*some))[-1] == (
        "Fewer than 10 categories behind bbox/APr: intervals are rough."
    )


@pytest.mark.parametrize(
    ("confidence", "text"), [(0.95, "95 %"), (0.9999999, "99.99999 %"), (0.5, "50 %")]
)
def test_the_confidence_has_all_its_digits(confidence, text):
    assert confidence_text(comparison(confidence=confidence)) == text


def test_the_table_holds_every_number_in_its_column():
    first = difference(images=Interval(-1.234, 2.0), seeds=Interval(0.006, 3.0))
    second = difference("segm/APr", 7.0, 5.5, images=Interval(-4.0, -0.001))
    whole = comparison(
        first, second, names=("A", "seesaw"), num_runs=(1, 2), undefined={"bbox/APf": "why not"}
    )
    lines = table(whole).splitlines()
    assert lines[0] == "A: 1 run   B: seesaw (2 runs)"
    assert lines[1] == "60 images, 1000 resampled sets"
    header = lines[4].split()
    assert header == ["A", "B", "B", "-", "A", "images", "seeds"], "no column for the unknown"
    assert lines[5].split() == [
        "bbox/AP", "20.00", "21.25", "+1.25", "-1.23", "to", "+2.00", "+0.01", "to", "+3.00"
    ]  # fmt: skip
    assert lines[6].split() == [
        "segm/APr", "7.00", "5.50", "-1.50", "-4.00", "to", "-0.00", "n/a"
    ]  # fmt: skip
    assert lines[7] == "bbox/APf    n/a (why not)"
    width = len(lines[4])
    assert [len(line) for line in lines[5:7]] == [width, width], "columns do not line up"
    for text in (in_words(first, whole.names), in_words(second, whole.names), *caveats(whole)):
        assert text in lines


def test_json_is_complete_and_plain():
    one = difference(images=BEYOND, seeds=WITHIN, all=WITHIN)
    whole = comparison(one, undefined={"bbox/APr": "no rare ones"}, num_runs=(2, 4))
    content = json.loads(json.dumps(as_json(whole)))
    assert content["metrics"]["bbox/APr"] is None
    assert content["undefined"] == {"bbox/APr": "no rare ones"}
    entry = content["metrics"]["bbox/AP"]
    assert entry["difference"] == 1.25
    assert entry["intervals"] == dict.fromkeys(SOURCES) | {
        "images": [0.5, 2.0], "seeds": [-0.5, 2.0], "all": [-0.5, 2.0]
    }  # fmt: skip
    assert (entry["verdict"], entry["exceeds_all_measured_noise"]) == verdict(one)
    assert (content["A"]["runs"], content["B"]["runs"]) == (2, 4)
    assert (content["seed"], content["images"], content["resampled_sets"]) == (7, 60, 1000)
    assert content["caveats"] == caveats(whole)
