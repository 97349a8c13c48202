"""Where the images of an annotation file lie on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit


class ImageFinder:
    """Finds images below a root; each folder is listed once, not each file asked for.

    Tried in this order, all joined to the root as paths (a trailing slash changes nothing):

    1. the last two parts of ``coco_url`` (``train2017/000000391895.jpg``), LVIS's way: one split
       of LVIS takes images from several COCO folders;
    2. ``file_name`` as it stands, also with the backslashes of Windows read as slashes; one that is
       itself a URL is treated like ``coco_url``;
    3. the last part of ``coco_url``, then of ``file_name``: all images in one flat folder. Images
       of several folders may share such a name; :func:`~eql_d2.data.check_content` refuses that.

    Queries and fragments of URLs are no part of a name, and a link to nothing is no image.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._listed: dict[str, frozenset[str]] = {}

    def candidates(self, image: dict[str, Any]) -> Iterator[Path]:
        """Yield the paths at which the image may lie, the best first."""
        url, name = image.get("coco_url"), image.get("file_name")
        url_parts = _url_parts(url) if isinstance(url, str) else ()
        name = name if isinstance(name, str) else ""
        name_parts = _url_parts(name) if "://" in name else _slashed(name).parts
        if len(url_parts) > 1:
            yield self.root.joinpath(*url_parts[-2:])
        if "://" in name and len(name_parts) > 1:
            yield self.root.joinpath(*name_parts[-2:])
        elif name:
            yield self.root / name
            yield self.root / _slashed(name)
        if url_parts:
            yield self.root / url_parts[-1]
        if name_parts:
            yield self.root / name_parts[-1]

    def find(self, image: dict[str, Any]) -> tuple[Path | None, bool]:
        """Return the path of an image and whether it exists.

        Where no candidate exists the best is returned; None where the image has neither
        ``coco_url`` nor ``file_name``.
        """
        first = None
        for path in self.candidates(image):
            first = first or path
            if path.name in self._names(str(path.parent)):
                return path, True
        return first, False

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = frozenset(e.name for e in entries if e.is_file())
            except (OSError, ValueError):
                self._listed[folder] = frozenset()
        return self._listed[folder]


def _slashed(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _url_parts(url: str) -> tuple[str, ...]:
    """Return the parts of a URL's path; of what is no URL the parts as they stand."""
    try:
        path = urlsplit(url).path
    except ValueError:  # brackets that would have to hold an IPv6 address
        path = url
    return tuple(part for part in PurePosixPath(path).parts if part != "/")
