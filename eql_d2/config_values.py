"""Values of configuration keys: read from text, checked against the type of the default."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from typing import Any

HELD = {"numbers": (int, float), "text": (str,), "True or False": (bool,)}


def fit_value(value: Any, default: Any) -> Any:
    """Return ``value`` in the type of ``default``.

    Text is read as a Python literal unless the key holds text. A whole number stands for a float,
    a tuple for a list and the reverse; everything else must have the default's type, and what a
    list holds must be numbers or text as in the default. Every number must be finite.

    Args:
        value: as given in YAML or on the command line.
        default: the key's; None takes anything.

    Raises:
        TypeError: it does not fit; the message says what was expected, without the key's name.
    """
    if isinstance(value, str) and not isinstance(default, str):
        value = _literal(value)
    if isinstance(default, (list, tuple)):
        value = _fit_list(value, default)
    elif default is not None and type(value) not in _fitting_types(default):
        raise TypeError(f"must be {_describe(default)}, got {value!r}")
    if not all(_is_finite(item) for item in items([value]) if isinstance(item, (int, float))):
        raise TypeError(f"must be finite, got {_shown(value)}")
    return float(value) if isinstance(default, float) else value


def _fit_list(value: Any, default: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"must be {_describe(default)}, got {value!r}")
    samples = list(items(default))
    if default and not any(isinstance(item, (list, tuple)) for item in default):
        nested = [item for item in value if isinstance(item, (list, tuple, dict))]
        if nested:
            raise TypeError(f"must be {_describe(default)}, got the list {nested[0]!r} inside it")
    for held, kinds in HELD.items():
        if samples and all(type(item) in kinds for item in samples):
            bad = [item for item in items(value) if type(item) not in kinds]
            if bad:
                raise TypeError(f"must hold {held}, as in {_written(default)}; got {bad[0]!r}")
    return type(default)(value)


def items(value: Any) -> Iterator[Any]:
    """What a list holds, at any depth."""
    for item in value:
        if isinstance(item, (list, tuple)):
            yield from items(item)
        else:
            yield item


def _fitting_types(default: Any) -> tuple[type, ...]:
    return (float, int) if isinstance(default, float) else (type(default),)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number above all floats
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text  # such as {[]: 1}, or what is nested too deep


def _describe(default: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    if isinstance(default, (list, tuple)):
        return f"a list such as {_written(default)}"
    name = names.get(type(default), f"a {type(default).__name__}")
    return f"{name} (default {default!r})"


def _written(default: list[Any] | tuple[Any, ...]) -> str:
    """The default as one writes it on a command line."""
    return repr(list(default)).replace("(", "[").replace(",)", "]").replace(")", "]")
