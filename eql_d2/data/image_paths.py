"""Where the images of an annotation file lie on disk."""

from __future__ import annotations

import os
import unicodedata
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

    No place outside of the root is looked at: names such as ``../other/1.jpg`` and ``/data/1.jpg``
    are a stranger's, and could make any file of this machine an image. A name that is inside after
    all is fine (``/data/1.jpg`` below the root ``/data``, or below ``/``, the root for files with
    absolute names), and the third way still finds an image that the root holds. Links inside the
    root, which are the user's own, may lead anywhere.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._whole_root = os.path.abspath(root)
        self._listed: dict[str, frozenset[str]] = {}

    def candidates(self, image: dict[str, Any]) -> Iterator[Path]:
        """Yield the paths below the root at which the image may lie, the best first."""
        for name in self._relative_names(image):
            path = self._below_root(name)
            if path is not None:
                yield path

    def leads_out(self, image: dict[str, Any]) -> bool:
        """Whether one of the places that the names of an image ask for is not below the root."""
        return any(self._below_root(name) is None for name in self._relative_names(image))

    def _below_root(self, name: str) -> Path | None:
        """The path of a name below the root, None if it is not below it."""
        if ".." not in name and not os.path.isabs(name):
            return self.root / name
        path = os.path.normpath(os.path.join(self._whole_root, name))
        inside = os.path.relpath(path, self._whole_root)
        if inside == os.curdir or inside.split(os.sep)[0] == os.pardir:
            return None
        return self.root / inside

    @staticmethod
    def _relative_names(image: dict[str, Any]) -> Iterator[str]:
        """Yield the names that are joined to the root, the best first."""
        url, name = image.get("coco_url"), image.get("file_name")
        url_parts = _url_parts(url) if isinstance(url, str) else ()
        name = name if isinstance(name, str) else ""
        name_parts = _url_parts(name) if "://" in name else _slashed(name).parts
        if len(url_parts) > 1:
            yield "/".join(url_parts[-2:])
        if "://" in name and len(name_parts) > 1:
            yield "/".join(name_parts[-2:])
        elif name:
            yield name
            yield str(_slashed(name))
        if url_parts:
            yield url_parts[-1]
        if name_parts:
            yield name_parts[-1]

    def find(self, image: dict[str, Any]) -> tuple[Path | None, bool]:
        """Return the path of an image and whether it exists.

        Where no candidate exists the best is returned; None where there is none, because the image
        has neither ``coco_url`` nor ``file_name``, or only names that lead out of the root.
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


def has_control_characters(image: dict[str, Any]) -> bool:
    """Whether a name of an image holds controls, such as NUL or a new line."""
    names = "".join(n for key in ("coco_url", "file_name") if isinstance(n := image.get(key), str))
    return not names.isprintable() and any(unicodedata.category(c) == "Cc" for c in names)


def _slashed(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _url_parts(url: str) -> tuple[str, ...]:
    """Return the parts of a URL's path; of what is no URL the parts as they stand."""
    try:
        path = urlsplit(url).path
    except ValueError:  # brackets that would have to hold an IPv6 address
        path = url
    return tuple(part for part in PurePosixPath(path).parts if part != "/")
