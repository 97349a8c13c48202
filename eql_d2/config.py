"""Configuration: our keys as plain data, and one YAML file turned into one checked tree.

Both engines read the tree that :func:`load_config` returns. It holds every key of Detectron2 (with
Detectron2's defaults) and the keys of :data:`KEYS`. Files inherit through ``_BASE_``, resolved by
fvcore without Detectron2 and without torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from eql_d2.config_values import fit_value
from eql_d2.errors import ConfigError


@dataclass(frozen=True)
class Key:
    """One configuration key: its dotted name, its default and what it means."""

    name: str
    default: Any
    comment: str


KEYS: tuple[Key, ...] = (
    # --- the loss ------------------------------------------------------------------------------
    Key("MODEL.EQL.LOSS.NAME", "EQL", "EQL, SigmoidCE, SoftmaxCE or SEQL (eql_d2.losses.LOSSES)"),
    Key(
        "MODEL.EQL.LOSS.LAMBDA",
        0.0,
        "lambda of T(f) = 1[f < lambda]: a category is tail if its share of the annotated training "
        "images is below it (EQL eq. 8). LVIS v0.5: 0.00177, v1: 0.0011. 0 means: use TAIL_RATIO. "
        "With a soft THRESHOLD_FUNCTION it only says which categories the logged tail shares "
        "(cls/tail_...) are about, and may be 0: none",
    ),
    Key(
        "MODEL.EQL.LOSS.TAIL_RATIO",
        0.0,
        "TR(lambda), the share of the tail in all image counts (EQL eq. 12), from which lambda is "
        "computed when LAMBDA is 0. The paper's good region is 0.02 to 0.10",
    ),
    Key("MODEL.EQL.LOSS.THRESHOLD_FUNCTION", "step", "step, exponential or gompertz (EQL Table 3)"),
    Key(
        "MODEL.EQL.LOSS.THRESHOLD_PARAMETERS",
        [],
        "exponential: [a, n]; gompertz: [a, b, c]; empty: the values of EQL Table 3",
    ),
    Key("MODEL.EQL.LOSS.EXCLUDE_BACKGROUND", True, "E(r) of EQL eq. 7; False: Table 4's ablation"),
    Key("MODEL.EQL.LOSS.GAMMA", 0.9, "SEQL: probability that a tail category is left out (eq. 11)"),
    Key("MODEL.EQL.LOSS.PRIOR_PROB", 0.001, "initial probability of every sigmoid classifier"),
    Key(
        "MODEL.EQL.STATISTICS",
        "train",
        "where image counts come from: train (the training annotations), lvis_v0.5, lvis_v1 "
        "(bundled tables) or the path of an annotation file",
    ),
    Key("MODEL.EQL.LOG_PERIOD", 20, "iterations between two records of the tail/non-tail shares"),
    # --- the data ------------------------------------------------------------------------------
    Key("DATA.TRAIN_JSON", "", "training annotations, COCO or LVIS json"),
    Key("DATA.TRAIN_IMAGES", "", "folder of the training images"),
    Key("DATA.TEST_JSON", "", "test annotations, COCO or LVIS json"),
    Key("DATA.TEST_IMAGES", "", "folder of the test images"),
    Key("DATA.GROUP_MODE", "counts", "r/c/f groups by image counts, or by quantiles (small sets)"),
    Key("DATA.RARE_MAX_IMAGES", 10, "rare: at most this many training images (mode counts)"),
    Key("DATA.COMMON_MAX_IMAGES", 100, "common: at most this many training images (mode counts)"),
    Key("DATA.GENERATE", "", "longtail_shapes: generate the data set below when it is not there"),
    Key("DATA.LONGTAIL_SHAPES.DIR", "datasets/longtail_shapes", "where it is written"),
    Key("DATA.LONGTAIL_SHAPES.NUM_CATEGORIES", 40, "categories"),
    Key("DATA.LONGTAIL_SHAPES.NUM_TRAIN_IMAGES", 600, "training images"),
    Key("DATA.LONGTAIL_SHAPES.NUM_TEST_IMAGES", 200, "test images"),
    Key("DATA.LONGTAIL_SHAPES.IMAGE_SIZE", 160, "side of the square images, pixels"),
    Key("DATA.LONGTAIL_SHAPES.SEED", 0, "seed of the generator"),
    # --- after training ------------------------------------------------------------------------
    Key("EVALUATION.NUM_PICTURES", 4, "test images drawn with predictions next to ground truth"),
)

# Detectron2 defaults that fit no user of our own tools. -1 classes: as many as the data have.
CHANGED_DEFAULTS: Mapping[str, Any] = {
    "MODEL.DEVICE": "auto",
    "MODEL.ROI_HEADS.NUM_CLASSES": -1,
}


def detectron2_defaults() -> CfgNode:
    """Return Detectron2's keys with their defaults, from the table bundled with this package."""
    text = resources.files("eql_d2").joinpath("detectron2_defaults.json").read_text("utf-8")
    return CfgNode(json.loads(text))


def default_config(detectron2: CfgNode | None = None) -> CfgNode:
    """Return the tree that our own tools start from: all keys, with :data:`CHANGED_DEFAULTS`.

    Args:
        detectron2: Detectron2's own ``get_cfg()``, which is left as it is; the bundled table of
            the same keys where it is left out.
    """
    cfg = detectron2_defaults() if detectron2 is None else detectron2.clone()
    add_eql_config(cfg)
    for name, value in CHANGED_DEFAULTS.items():
        node, leaf = _node(cfg, name)
        node[leaf] = value
    return cfg


def add_eql_config(cfg: CfgNode) -> None:
    """Add those of :data:`KEYS` that ``cfg`` lacks, in place; what it has keeps its value."""
    for key in KEYS:
        node, leaf = _node(cfg, key.name)
        if leaf not in node:
            node[leaf] = list(key.default) if isinstance(key.default, list) else key.default


def load_config(
    config_file: str | Path, overrides: Sequence[str] = (), defaults: CfgNode | None = None
) -> CfgNode:
    """Read a YAML file and command-line overrides into one tree, checking every key and type.

    Args:
        config_file: YAML file, with ``_BASE_`` inheritance.
        overrides: ``KEY VALUE`` pairs or ``KEY=VALUE`` items, applied last.
        defaults: tree to start from; Detectron2's own ``get_cfg()`` in its engine. The bundled
            table of the same keys where it is left out.

    Returns:
        The merged tree, not frozen.

    Raises:
        ConfigError: naming every unknown key (with the nearest known one), every value of a wrong
            type, a missing file, invalid YAML, or a flag among the overrides.
    """
    cfg = default_config(defaults)
    source = str(config_file)
    entries = [(k, v, source) for k, v in _leaves(_read_yaml(config_file), cfg)]
    entries += [(k, v, "command line") for k, v in parse_overrides(overrides)]
    problems = []
    known = [name for name, _ in _leaves(cfg, None)]
    for name, value, origin in entries:
        problem = _merge_value(cfg, name, value, known)
        if problem:
            problems.append(f"{origin}: {problem}")
    if problems:
        raise ConfigError(problems)
    return cfg


def parse_overrides(
    overrides: Sequence[str], value_flags: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Turn ``["A.B", "1", "C.D=2"]`` into ``[("A.B", "1"), ("C.D", "2")]``.

    Args:
        overrides: what stands after the flags of a command line.
        value_flags: flags of that command line that take a value, for the corrected order.

    Raises:
        ConfigError: a ``--flag`` stands among the overrides, where it would have been swallowed
            (the message holds the corrected order), or a key has no value.
    """
    items = list(overrides)
    for i, item in enumerate(items):
        if item.startswith("--"):
            flag = items[i : i + 2] if item in value_flags else [item]
            rest = items[:i] + items[i + len(flag) :]
            raise ConfigError(
                f"{item} stands after the first KEY VALUE override and would be taken for a value. "
                f"Put flags first: ... {' '.join(flag + rest)}"
            )
    pairs = []
    while items:
        key = items.pop(0)
        if "=" in key:
            key, _, value = key.partition("=")
        elif items:
            value = items.pop(0)
        else:
            raise ConfigError(f"override {key} has no value; write {key} VALUE or {key}=VALUE")
        pairs.append((key, value))
    return pairs


def get_value(cfg: CfgNode, name: str) -> Any:
    """Return the value of the dotted key ``name``."""
    node: Any = cfg
    for part in name.split("."):
        node = node[part]
    return node


def changed_keys(cfg: CfgNode, defaults: CfgNode | None = None) -> dict[str, Any]:
    """Return the keys whose value differs from the defaults, with their values."""
    base = dict(_leaves(default_config() if defaults is None else defaults, None))
    return {k: v for k, v in _leaves(cfg, None) if k not in base or _plain(base[k]) != _plain(v)}


def _node(cfg: CfgNode, name: str) -> tuple[CfgNode, str]:
    """Return the node that holds the dotted key ``name``, making it if need be, and its leaf."""
    *parents, leaf = name.split(".")
    node = cfg
    for parent in parents:
        if parent not in node:
            node[parent] = type(cfg)()
        node = node[parent]
    return node, leaf


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _read_yaml(config_file: str | Path) -> dict[str, Any]:
    path = Path(config_file)
    if not path.is_file():
        hint = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        nearest = f"; did you mean {path.parent / hint[0]}?" if hint else ""
        raise ConfigError(f"config file {path} does not exist{nearest}")
    try:
        tree = CfgNode.load_yaml_with_base(str(path), allow_unsafe=False)
    except (yaml.YAMLError, OSError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML with _BASE_: {error}") from error
    except (TypeError, AttributeError, AssertionError):  # fvcore takes mappings for granted
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, and its _BASE_ if it names one")
    return tree


def _leaves(tree: Mapping[str, Any], like: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted name, value)``; where ``like`` has a non-mapping, a mapping is a value."""
    for key, value in tree.items():
        below = like.get(key) if isinstance(like, Mapping) else None
        is_value = isinstance(like, Mapping) and key in like and not isinstance(below, Mapping)
        if isinstance(value, Mapping) and value and not is_value:
            yield from _leaves(value, below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge_value(cfg: CfgNode, name: str, value: Any, known: Sequence[str]) -> str | None:
    """Set one key; return what is wrong with it, or None."""
    if name not in known:
        return f"unknown key {name}{_nearest(name, known)}"
    *parents, leaf = name.split(".")
    try:
        value = fit_value(value, get_value(cfg, name))
    except TypeError as error:
        return f"{name} {error}"
    (get_value(cfg, ".".join(parents)) if parents else cfg)[leaf] = value
    return None


def _nearest(name: str, known: Sequence[str]) -> str:
    below = [k for k in known if k.startswith(f"{name}.")]
    if below:
        return f", which is a group of keys such as {below[0]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        leaf = name.rsplit(".", 1)[-1]
        close = [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1]
    return f"; did you mean {close[0]}?" if close else ""
