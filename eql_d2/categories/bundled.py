"""The tables that come with the package: counts of the LVIS training sets."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from eql_d2.errors import ConfigError


def table_names() -> tuple[str, ...]:
    """Names that :func:`read_table` knows."""
    files = resources.files("eql_d2.categories").joinpath("tables").iterdir()
    return tuple(sorted(f.name[: -len(".json")] for f in files if f.name.endswith(".json")))


def read_table(name: str) -> dict[str, Any]:
    """Return the content of a table.

    Raises:
        ConfigError: there is no such table; the message lists those there are.
    """
    if name not in table_names():
        raise ConfigError(
            f"no category table is named {name!r}; there are {', '.join(table_names())}. "
            "Statistics of your own data come from CategoryStatistics.from_json"
        )
    file = resources.files("eql_d2.categories").joinpath("tables", f"{name}.json")
    return json.loads(file.read_text("utf-8"))
