"""Reading annotation files, up to LVIS v1's training annotations of 1 GB."""

from __future__ import annotations

import os
from typing import Any

from eql_d2.errors import DataError
from eql_d2.json_files import read_json


def read_annotation_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object that a COCO or LVIS annotation file holds, its content unchecked.

    Raises:
        DataError: the file cannot be read, is not json, or holds something other than an object.
    """
    content = read_json(path, "annotation file")
    if not isinstance(content, dict):
        raise DataError(
            f"annotation file {path} must hold a json object with images, annotations and "
            f"categories, but holds a {type(content).__name__}"
        )
    return content
