"""From :class:`~eql_d2.data.DetectionData` to what Detectron2 trains and tests on.

The records of a data set are packed into one file of pickled bytes that every process and every
data loader worker on a machine maps into memory: 100,000 LVIS images are then held once, not once
a process, and the annotations are parsed once.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from eql_d2.data import DetectionData, ImageRecord, Instance
from eql_d2.engines.d2.compat import BoxMode, DatasetCatalog, MetadataCatalog
from eql_d2.errors import DataError


def training_dicts(
    data: DetectionData, *, masks: bool, keep_empty: bool = False
) -> list[dict[str, Any]]:
    """Return images with annotations in Detectron2's dataset format.

    Crowd regions are left out, as Detectron2's own mapper leaves them out.

    Args:
        data: the training data.
        masks: include segmentations, which every instance must then have.
        keep_empty: keep images without any (non-crowd) instance.

    Raises:
        DataError: no image is left.
    """
    dicts = []
    for image in data.images:
        annotations = [_annotation(i, masks) for i in image.instances if not i.iscrowd]
        if annotations or keep_empty:
            dicts.append({**_image_dict(image), "annotations": annotations})
    if not dicts:
        raise DataError(f"{data.json_path}: no image has an annotation to train on")
    return dicts


def test_dicts(data: DetectionData) -> list[dict[str, Any]]:
    """Return all images, without annotations, in Detectron2's dataset format."""
    return [_image_dict(image) for image in data.images]


def needs_bitmasks(dicts: Iterable[dict[str, Any]]) -> bool:
    """Whether a segmentation is run-length coded, which Detectron2's polygon masks cannot hold."""
    annotations = (a for record in dicts for a in record["annotations"])
    return any(isinstance(a.get("segmentation"), dict) for a in annotations)


def register(data: DetectionData, name: str) -> str:
    """Make ``data`` known to Detectron2 under any name; nothing is read from the name.

    For Detectron2's own tools (visualizers, other trainers); :func:`eql_d2.engines.d2.run` does
    not need it. Registering a name again replaces it.

    Args:
        data: any data set of this package.
        name: a new name.

    Returns:
        ``name``, for ``DATASETS.TRAIN`` of such a tool.
    """
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(
        name, lambda: training_dicts(data, masks=data.has_masks, keep_empty=True)
    )
    MetadataCatalog.get(name).set(
        thing_classes=list(data.names),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(data.category_ids)},
        json_file=str(data.json_path),
        evaluator_type="lvis" if data.federated else "coco",
    )
    return name


class PackedDataset(Dataset):
    """Records in one memory-mapped file; opening it costs nothing, whatever its size."""

    def __init__(self, path: str | Path) -> None:
        """Open what :meth:`write` wrote."""
        self.path = Path(path)
        self._ends = np.load(_index_path(self.path))
        self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")

    @classmethod
    def write(cls, records: Sequence[dict[str, Any]], path: str | Path) -> PackedDataset:
        """Write ``records`` to ``path`` (and an index beside it) and open them."""
        path = Path(path)
        ends = np.zeros(len(records), dtype=np.int64)
        with path.open("wb") as stream:
            for i, record in enumerate(records):
                stream.write(pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL))
                ends[i] = stream.tell()
        np.save(_index_path(path), ends)
        return cls(path)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends iteration, which goes through this method
        start = self._ends[index - 1] if index else 0
        # Pickles are safe here: this run wrote them, into a private temporary folder of its own.
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())

    def __reduce__(self) -> tuple[type[PackedDataset], tuple[Path]]:
        return PackedDataset, (self.path,)  # a data loader worker maps the file, and copies nothing


def _index_path(path: Path) -> Path:
    return path.with_suffix(".index.npy")


def _image_dict(image: ImageRecord) -> dict[str, Any]:
    return {
        "file_name": image.path,
        "image_id": image.image_id,
        "height": image.height,
        "width": image.width,
    }


def _annotation(instance: Instance, masks: bool) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        "bbox": list(instance.bbox),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": instance.category,
    }
    if masks:
        assert instance.segmentation is not None, "checked before training"
        annotation["segmentation"] = instance.segmentation
    return annotation
