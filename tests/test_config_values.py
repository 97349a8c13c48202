"""Values from YAML and the command line, in the type of the key's default."""

import pytest

from eql_d2.config import load_config
from eql_d2.config_values import fit_value
from eql_d2.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "default", "fitted"),
    [
        ("0", 0.05, 0.0),
        (1, 0.05, 1.0),
        ("1e-3", 0.05, 0.001),
        ("3", 600, 3),
        ("2024", "output", "2024"),
        ("[640, 672]", (800,), (640, 672)),
        ((0.5, 1), [1.0], [0.5, 1]),
        ("[[16], [32]]", [[64, 128]], [[16], [32]]),
        ("True", False, True),
        ("anything", None, "anything"),
        ([], (3000,), ()),
        ("[True, False]", [False], [True, False]),
    ],
)
def test_values_that_fit(value, default, fitted):
    found = fit_value(value, default)
    assert found == fitted
    assert type(found) is type(fitted)


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("None", 600, r"must be a whole number \(default 600\), got None"),
        (None, "output", r"must be text \(default 'output'\), got None"),
        ("1.5", 600, "a whole number"),
        ("True", 600, "a whole number"),
        ("1", False, "True or False"),
        (True, 0.5, "a number"),
        ("640", (800,), r"must be a list such as \[800\], got 640"),
        ('["a"]', (3000,), r"must hold numbers, as in \[3000\]; got 'a'"),
        ("[[16, None]]", [[32]], "got None"),
        ("[[1, 2], 3]", (3000,), r"must be a list such as \[3000\], got the list \[1, 2\] inside"),
        ("[1]", ["res2"], "must hold text"),
        ("[1]", [False], "must hold True or False"),
        ("[True]", [1], "must hold numbers"),
        (float("nan"), 0.5, "must be finite, got nan"),
        ("1e999", 0.5, "must be finite, got inf"),
        ("-1e999", 0.5, "must be finite, got -inf"),
        ("nan", 0.5, "must be a number"),
        ("inf", 0.5, "must be a number"),
        (10**400, 0.5, r"must be finite, got 1000+\.\.\."),
        (10**400, 5, "must be finite"),
        (float("inf"), 5, "a whole number"),
        (float("inf"), "output", "must be text"),
        (float("nan"), None, "must be finite"),
        ([1.0, float("nan")], (800.0,), "must be finite"),
        ("[[16], [1e999]]", [[32]], "must be finite"),
        ([float("inf")], [], "must be finite"),
    ],
)
def test_values_that_do_not_fit(value, default, message):
    with pytest.raises(TypeError, match=message):
        fit_value(value, default)


@pytest.mark.parametrize(
    "text", ["{[]: 1}", "[" * 9999, "-" * 99_999 + "1"], ids=["unhashable", "deep", "long"]
)
def test_text_that_is_no_literal(text):
    with pytest.raises(TypeError, match="must be a whole number"):
        fit_value(text, 600)


def test_what_a_message_asks_for_is_accepted(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("MODEL: {EQL: {LOSS: {TAIL_RATIO: 0.05}}}\n")
    cfg = load_config(path, ["MODEL.EQL.LOSS.TAIL_RATIO", "0", "MODEL.EQL.LOSS.LAMBDA", "0.01"])
    assert cfg.MODEL.EQL.LOSS.TAIL_RATIO == 0.0
    with pytest.raises(ConfigError, match=r"command line: SOLVER\.MAX_ITER must be a whole number"):
        load_config(path, ["SOLVER.MAX_ITER", "None"])
