"""Reading json files, from a table of 100 KB to LVIS v1's training annotations of 1 GB."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eql_d2.errors import DataError


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Switch cyclic garbage collection off for a while.

    Parsing creates millions of objects, none in a cycle, and every one of them makes the collector
    walk over all the others again: about half of the time on a large file.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object that a json file holds.

    Raises:
        DataError: there is no such file, it is empty, not text, not json, cut off at its end
            (said so), or holds something other than an object.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist (looked from {Path.cwd()})") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; a json file is expected") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a json file: {_archive_hint(path)}{error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not text.strip():
        raise DataError(f"{path} is empty; was its download or its writing interrupted?")
    try:
        with paused_garbage_collection():
            content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(_not_json(path, text, error)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as json: {error}") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path} must hold a json object with images, annotations and categories, "
            f"but holds a {type(content).__name__}"
        )
    return content


def _archive_hint(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"PK\x03\x04"):
        return "it is a zip archive, unpack it first; "
    if head.startswith(b"\x1f\x8b"):
        return "it is a gzip archive, unpack it first; "
    return ""


def _not_json(path: Path, text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return (
            f"{path} is cut off: its json stops after {len(text):,} characters ({error.msg}). "
            "Was its download or its writing interrupted?"
        )
    start = text[max(0, error.pos - 20) : error.pos + 20]
    return f"{path} is not valid json: {error} near {start!r}"
