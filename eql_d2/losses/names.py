"""The error for a name that a configuration got wrong."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from eql_d2.errors import ConfigError


def unknown_name(key: str, name: str, known: Collection[str]) -> ConfigError:
    """Make the error that names the key, what it takes, and the known name nearest to ``name``."""
    folded = {candidate.casefold(): candidate for candidate in known}
    nearest = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    hint = f"; did you mean {folded[nearest[0]]!r}?" if nearest else ""
    return ConfigError(f"{key}: unknown name {name!r}, expected one of {', '.join(known)}{hint}")
