"""Detectron2's mapper, with users' mistakes told as such."""

from __future__ import annotations

from typing import Any

from eql_d2.engines.d2.compat import DatasetMapper, SizeMismatchError, read_image
from eql_d2.errors import DataError


class Mapper(DatasetMapper):
    """From a record to what the model takes: reads the image, scales, flips."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one record of :mod:`eql_d2.engines.d2.datasets`.

        Raises:
            DataError: the file cannot be read as an image, or has another size than the
                annotations say.
        """
        path = dataset_dict["file_name"]
        try:
            return super().__call__(dataset_dict)
        except SizeMismatchError as error:
            height, width = read_image(path, format="RGB").shape[:2]
            raise DataError(
                f"{path} is {width} x {height} pixels (width x height, turned as its EXIF data "
                f"say), but the annotations say {dataset_dict['width']} x "
                f"{dataset_dict['height']}: their boxes would not fit. Use the images that the "
                "annotations were made for"
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from error


def message_of(error: DataError) -> str:
    """Return the message, without the traceback that it gets on its way from a loader's worker."""
    return str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
