"""Where the images of an annotation file lie on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any


class ImageFinder:
    """Finds images below a root; each folder is listed once, not each file asked for.

    Tried in this order, all joined to the root as paths (a trailing slash changes nothing):

    1. the last two parts of ``coco_url`` (``train2017/000000391895.jpg``), LVIS's way: one split
       of LVIS takes images from several COCO folders;
    2. ``file_name`` as it stands;
    3. the last part of ``coco_url``, then of ``file_name``: all images in one flat folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._listed: dict[str, frozenset[str]] = {}

    def candidates(self, image: dict[str, Any]) -> Iterator[Path]:
        """Yield the paths at which the image may lie, the best first."""
        url, name = image.get("coco_url"), image.get("file_name")
        url_parts = PurePosixPath(url).parts if isinstance(url, str) and url else ()
        if len(url_parts) > 1:
            yield self.root.joinpath(*url_parts[-2:])
        if isinstance(name, str) and name:
            yield self.root / name
        if url_parts:
            yield self.root / url_parts[-1]
        if isinstance(name, str) and name:
            yield self.root / Path(name).name

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
                    self._listed[folder] = frozenset(e.name for e in entries if not e.is_dir())
            except (OSError, ValueError):
                self._listed[folder] = frozenset()
        return self._listed[folder]
