"""Configuration: our keys as plain data, and one YAML file turned into one checked tree.

Both engines read the tree that :func:`load_config` returns. It holds every key of Detectron2 (with
Detectron2's defaults) and the keys of :data:`KEYS`. Files inherit through ``_BASE_``, resolved by
fvcore without Detectron2 and without torch.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY, CfgNode

from eql_d2.config_values import fit_value
from eql_d2.errors import ConfigError

# More than any configuration has, and more problems than anybody reads.
MAX_TEXT = 200_000
MAX_VALUES = 20_000
MAX_DEPTH = 20
MAX_PROBLEMS = 20
MAX_PROBLEM = 400


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
        "(bundled tables) or the path of an annotation file or of a category_statistics.json",
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

# What other software calls a setting, where the name of the key is another one.
OTHER_NAMES: Mapping[str, str] = {
    "lr": "SOLVER.BASE_LR",
    "learning-rate": "SOLVER.BASE_LR",
    "batch-size": "SOLVER.IMS_PER_BATCH",
    "epochs": "SOLVER.MAX_ITER",
    "iterations": "SOLVER.MAX_ITER",
    "output": "OUTPUT_DIR",
    "work-dir": "OUTPUT_DIR",
    "checkpoint": "MODEL.WEIGHTS",
    "workers": "DATALOADER.NUM_WORKERS",
    "loss": "MODEL.EQL.LOSS.NAME",
    "num-classes": "MODEL.ROI_HEADS.NUM_CLASSES",  # one of several keys that end so
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
    return _merged(defaults, _read_yaml(config_file), str(config_file), overrides)


def config_from_text(text: str, source: str, defaults: CfgNode | None = None) -> CfgNode:
    """Read the configuration that a checkpoint holds, a stranger's text, as a YAML file is read.

    Args:
        text: what ``cfg.dump()`` returned.
        source: where it stands, for messages.
        defaults: as for :func:`load_config`.

    Returns:
        The merged tree, not frozen.

    Raises:
        ConfigError: as :func:`load_config`; also where it names other files with ``_BASE_``, or is
            longer than any configuration.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{source} has {len(text)} characters; expected at most {MAX_TEXT}")
    try:
        tree = yaml.load(text, Loader=_PlainLoader)
    # PyYAML raises anything at all on tags that do not fit what they stand before.
    except Exception as error:
        raise ConfigError(f"{source} cannot be read as YAML: {_shortened(str(error))}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source} must hold a mapping of keys, got a {type(tree).__name__}")
    if BASE_KEY in tree:
        raise ConfigError(f"{source} names another file with {BASE_KEY}; it must be complete")
    return _merged(defaults, tree, source)


def _merged(
    defaults: CfgNode | None, tree: Mapping[str, Any], source: str, overrides: Sequence[str] = ()
) -> CfgNode:
    """Return the defaults with what a file and a command line set, both checked."""
    cfg = default_config(defaults)
    _check_extent(tree, source)
    entries = [(k, v, source) for k, v in leaves(tree, cfg)]
    entries += [(k, v, "command line") for k, v in parse_overrides(overrides)]
    problems = []
    known = [name for name, _ in leaves(cfg)]
    for name, value, origin in entries:
        problem = _merge_value(cfg, name, value, known)
        if problem:
            problems.append(f"{origin}: {_shortened(problem)}")
        if len(problems) == MAX_PROBLEMS:
            problems.append(f"{origin}: what follows was not checked")
            break
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
            (the message holds the corrected order), a number stands where a key is expected, or a
            key has no value.
    """
    items = list(overrides)
    for i, item in enumerate(items):
        if item.startswith("--"):
            flag = items[i : i + 2] if item in value_flags else [item]
            rest = items[:i] + items[i + len(flag) :]
            raise ConfigError(
                f"{item} stands among the KEY VALUE overrides and would be taken for one of them. "
                f"Put flags first: ... {' '.join(flag + rest)}"
            )
    pairs: list[tuple[str, str]] = []
    while items:
        key = items.pop(0)
        if not re.match(r"[A-Za-z_]", key):
            place = f" after {' '.join(pairs[-1])}" if pairs else ""
            raise ConfigError(
                f"{key} stands where a key such as SOLVER.MAX_ITER is expected{place}; overrides "
                "are KEY VALUE pairs (or KEY=VALUE), and a list is one word: SOLVER.STEPS [60,80]"
            )
        if "=" in key:
            key, _, value = key.partition("=")
        elif items:
            value = items.pop(0)
        else:
            raise ConfigError(f"override {key} has no value; write {key} VALUE or {key}=VALUE")
        pairs.append((key, value))
    return pairs


def find_key(name: str) -> str | None:
    """Return the key that a flag of other software such as ``--batch-size`` likely means, or None.

    Besides :data:`OTHER_NAMES` that is a key whose last part has nearly this name, if there is one.
    """
    word = name.lstrip("-").lower().replace("_", "-")
    if word in OTHER_NAMES:
        return OTHER_NAMES[word]
    by_leaf: dict[str, list[str]] = {}
    for key, _ in leaves(default_config()):
        by_leaf.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    close = difflib.get_close_matches(word.replace("-", "_").upper(), by_leaf, n=1, cutoff=0.85)
    if not close:
        return None
    keys = by_leaf[close[0]]
    whole = [key for key in keys if key == close[0]]  # SEED, beside DATA.LONGTAIL_SHAPES.SEED
    return (whole or keys)[0] if whole or len(keys) == 1 else None


def get_value(cfg: CfgNode, name: str) -> Any:
    """Return the value of the dotted key ``name``."""
    node: Any = cfg
    for part in name.split("."):
        node = node[part]
    return node


def changed_keys(cfg: CfgNode, defaults: CfgNode | None = None) -> dict[str, Any]:
    """Return the keys whose value differs from the defaults, with their values."""
    base = dict(leaves(default_config() if defaults is None else defaults))
    return {k: v for k, v in leaves(cfg) if k not in base or _plain(base[k]) != _plain(v)}


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
    # ValueError, LookupError: of PyYAML, for dates and tags that do not fit their values.
    except (yaml.YAMLError, OSError, RecursionError, ValueError, LookupError) as error:
        raise ConfigError(f"{path} cannot be read as YAML with _BASE_: {error}") from error
    except (TypeError, AttributeError, AssertionError):  # fvcore takes mappings for granted
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, and its _BASE_ if it names one")
    return tree


class _PlainLoader(yaml.SafeLoader):
    """Plain YAML without merge keys, with which a few lines can stand for gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse ``<<``; nothing that ``cfg.dump()`` returns has it."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not read here", key.start_mark
                )


def _check_extent(tree: Mapping[str, Any], source: str) -> None:
    """Refuse a tree that no walk ends in: anchors let a few lines repeat themselves without end."""
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(
                f"{source} has more than {MAX_VALUES} values, or is nested more than {MAX_DEPTH} "
                "deep; no configuration is"
            )
        if isinstance(value, Mapping):
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(item, depth + 1) for item in value]


def _shortened(problem: str) -> str:
    return problem if len(problem) <= MAX_PROBLEM else f"{problem[:MAX_PROBLEM]} ..."


def leaves(
    tree: Mapping[str, Any], like: Any = None, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted name, value)``; where ``like`` has a non-mapping, a mapping is a value."""
    for key, value in tree.items():
        below = like.get(key) if isinstance(like, Mapping) else None
        is_value = isinstance(like, Mapping) and key in like and not isinstance(below, Mapping)
        if isinstance(value, Mapping) and value and not is_value:
            yield from leaves(value, below, f"{prefix}{key}.")
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
    leaf = name.rsplit(".", 1)[-1]
    other = OTHER_NAMES.get(leaf.lower().replace("_", "-"))
    if other:
        return f"; did you mean {other}?"
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
    if not close:
        close = [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1]
    return f"; did you mean {close[0]}?" if close else ""
