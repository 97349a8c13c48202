"""How image counts reach ``from_config``, which sees a configuration and nothing else.

Detectron2 builds every part of a model from ``cfg`` alone. The loss needs image counts, which are
no configuration. :func:`eql_d2.engines.d2.run` therefore writes the counts of its experiment once
to a ``category_statistics.json`` on each machine and lets ``MODEL.EQL.STATISTICS`` name that file
in the tree that models are built from; every process reads those few kilobytes instead of the
annotations. The saved ``config.yaml`` keeps what the user wrote.

Whoever uses the heads in a training script of their own sets ``MODEL.EQL.STATISTICS`` to a bundled
table or to an annotation file, ``MODEL.EQL.LOSS.LAMBDA`` or ``TAIL_RATIO``, and
``MODEL.ROI_HEADS.NUM_CLASSES`` to the number of categories or -1, and needs nothing else of this
package. No dataset name is read.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from eql_d2.categories import CategoryStatistics, read_statistics, table_names
from eql_d2.errors import ConfigError
from eql_d2.files import STATISTICS_FILE


def statistics_from_config(cfg: Any) -> CategoryStatistics:
    """Return the image counts that ``MODEL.EQL.STATISTICS`` names.

    Args:
        cfg: Detectron2's tree with the keys of :func:`eql_d2.config.add_eql_config`.

    Raises:
        ConfigError: no counts can be found, or there are not as many as
            ``MODEL.ROI_HEADS.NUM_CLASSES`` says.
        DataError: the file cannot be read.
    """
    source = cfg.MODEL.EQL.STATISTICS
    if source == "train":
        source = cfg.DATA.TRAIN_JSON
        if not source:
            raise ConfigError(
                "MODEL.EQL.STATISTICS is train but DATA.TRAIN_JSON is empty; set the former to "
                f"one of {', '.join(table_names())} or to the path of an annotation file"
            )
    statistics = _read(source, _modified(source))
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if num_classes not in (-1, len(statistics)):
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes} but MODEL.EQL.STATISTICS {source} has "
            f"{len(statistics)} categories; set it to {len(statistics)}, or to -1 to take it from "
            "there"
        )
    return statistics


def with_num_classes(cfg: Any) -> Any:
    """Return ``cfg`` with ``NUM_CLASSES`` -1 ("as many as the data have") spelled out.

    Raises:
        ConfigError, DataError: as :func:`statistics_from_config`.
    """
    statistics = statistics_from_config(cfg)
    if len(statistics) == cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(statistics)
    return cfg


def _modified(source: str) -> float:
    path = Path(source)
    path = path / STATISTICS_FILE if path.is_dir() else path
    return path.stat().st_mtime if path.is_file() else 0.0


@lru_cache(maxsize=4)  # a cascade asks three times, and an annotation file can take half a minute
def _read(source: str, modified: float) -> CategoryStatistics:
    del modified  # part of the cache key: a file that changed is read again
    if source in table_names():
        return CategoryStatistics.from_table(source)
    return read_statistics(source)
