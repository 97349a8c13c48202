"""From a configuration tree to data, statistics and loss; and from a results file to metrics.

What both engines do before the first and after the last iteration stands here once. Nothing in
this module knows an engine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from eql_d2.categories import (
    CategoryStatistics,
    Grouping,
    read_statistics,
    table_names,
    write_statistics,
)
from eql_d2.checkpoint import (
    METADATA_KEY,
    load_checkpoint,
    read_checkpoint_metadata,
    resolve_checkpoint,
)
from eql_d2.config import KEYS, config_from_text, get_value
from eql_d2.config_checks import (
    CHECKPOINT,
    category_difference,
    config_problems,
    fit_problems,
    loss_problems,
    mask_problems,
    needs_tail,
    prediction_problems,
)
from eql_d2.data import DetectionData, generate_longtail_shapes, load_detection_data
from eql_d2.errors import ConfigError, DataError, UserError
from eql_d2.evaluation import evaluate
from eql_d2.losses import ClassificationLoss, build_loss

logger = logging.getLogger("eql_d2")


@dataclass(frozen=True)
class DataPaths:
    """Annotation files and image folders after defaults and ``datasets/`` were resolved."""

    train_json: Path | None
    train_images: Path | None
    test_json: Path
    test_images: Path


@dataclass(frozen=True)
class Experiment:
    """What a run is about, apart from the model.

    Attributes:
        train: training data; None when only evaluating and no training annotations are there.
        test: test data.
        statistics: image counts that decide tail categories; its groups are those that the run is
            evaluated with.
        lambda_: the threshold of EQL eq. 8 on image fractions; 0 when the loss uses none.
    """

    train: DetectionData | None
    test: DetectionData
    statistics: CategoryStatistics
    lambda_: float


def prepare_experiment(
    cfg: CfgNode, *, training: bool, checkpoint: Path | None = None
) -> Experiment:
    """Read the data that ``cfg`` names and check that everything fits together.

    Generates ``longtail_shapes`` on first use when ``DATA.GENERATE`` asks for it.

    Args:
        cfg: configuration tree.
        training: whether training data are needed.
        checkpoint: what is evaluated or resumed, if anything: its categories must be those of the
            data.

    Raises:
        ConfigError: every problem of the configuration and of its fit to the data, at once.
        DataError: an annotation file or its images cannot be used.
    """
    problems = config_problems(cfg)
    if problems:
        raise ConfigError(problems)
    paths = data_paths(cfg, training=training)
    test = load_detection_data(paths.test_json, paths.test_images)
    train = None
    if paths.train_json is not None:
        train = load_detection_data(
            paths.train_json, paths.train_images or "", check_images=training
        )
        if training and train.statistics.num_images == 0:
            raise DataError(f"{paths.train_json} annotates no object, so there is nothing to train")
    statistics = _statistics(cfg, train)
    others = {}
    if cfg.MODEL.EQL.STATISTICS != "train":
        others["MODEL.EQL.STATISTICS"] = _categories(statistics)
    has_masks = {f"DATA.TEST_JSON {test.json_path}": test.has_masks}
    if train is not None:
        others[f"DATA.TRAIN_JSON {train.json_path}"] = _categories(train.statistics)
        has_masks[f"DATA.TRAIN_JSON {train.json_path}"] = train.has_masks
    if checkpoint is not None:
        categories = checkpoint_categories(checkpoint)
        if categories is None:
            logger.info(
                f"{checkpoint} does not say which categories it was trained on (eql_d2 did not "
                f"write it); they are taken to be those of DATA.TEST_JSON {test.json_path}"
            )
        else:
            others[f"{CHECKPOINT} {checkpoint}"] = categories
    problems = fit_problems(cfg, test.json_path, _categories(test.statistics), others)
    problems += mask_problems(cfg, has_masks)
    if problems:
        raise ConfigError(problems)
    statistics = _with_groups(cfg, statistics, test)
    return Experiment(train, test, statistics, resolve_lambda(cfg, statistics))


def checkpoint_categories(path: Path) -> dict[int, str] | None:
    """Return the names of a checkpoint's categories by dataset id; None where it does not say.

    Files that eql_d2 did not write, such as those of Detectron2's model zoo, do not.

    Raises:
        UserError: the file cannot be read.
    """
    zoo = path.suffix in (".pkl", ".pyth")  # not read to find that out: it can take 15 seconds
    if zoo or METADATA_KEY not in load_checkpoint(path):
        return None
    return _categories(stored_statistics(read_checkpoint_metadata(path), path))


def warn_of_other_categories(weights: Path, experiment: Experiment) -> None:
    """Warn where training begins with a classifier of as many, but other, categories.

    Fine-tuning may well begin with such weights. But they fit by name and shape, so that each
    output of the classifier and each mask begins as what it was for another category.

    Raises:
        UserError: the file cannot be read.
    """
    before, now = checkpoint_categories(weights), _categories(experiment.statistics)
    if before is None or len(before) != len(now):  # layers of another size are not loaded silently
        return
    difference = category_difference(before, now)
    if difference:
        logger.warning(
            f"MODEL.WEIGHTS {weights} was trained on other categories than the training data has: "
            f"{difference}. There are {len(now)} of both, so the classifier and the masks of the "
            "former categories, in ascending order of ids, are where those of the latter begin"
        )


@dataclass(frozen=True)
class StoredModel:
    """What a checkpoint says about the model whose weights it holds, checked as from a stranger.

    Attributes:
        file: the checkpoint.
        cfg: its configuration, in which nothing names a file any more.
        statistics: its categories.
    """

    file: Path
    cfg: CfgNode
    statistics: CategoryStatistics


def read_stored_model(
    checkpoint: str | Path, engine: str, defaults: CfgNode | None = None
) -> StoredModel:
    """Read what a checkpoint says about its model; the weights stay on disk.

    Args:
        checkpoint: a file that an engine of this package wrote, or an ``OUTPUT_DIR``.
        engine: the engine that is to use it.
        defaults: as for :func:`eql_d2.config.load_config`.

    Raises:
        UserError: no such file, none of ours, or one of another engine.
        ConfigError: naming every key of its configuration that is unknown, of a wrong type, or out
            of the range that a model can be built with.
        DataError: its categories contradict each other.
    """
    file = resolve_checkpoint(checkpoint)
    metadata = read_checkpoint_metadata(file)
    if metadata["engine"] != engine:
        raise UserError(
            f"{file} was written by the {metadata['engine']} engine; use that engine to load it"
        )
    source = f"the configuration in {file}"
    cfg = config_from_text(metadata["config"], source, defaults)
    statistics = stored_statistics(metadata, file)
    problems = [f"{source}: {problem}" for problem in prediction_problems(cfg)]
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if not problems and num_classes != len(statistics):
        problems.append(
            f"{source}: MODEL.ROI_HEADS.NUM_CLASSES is {num_classes}, but the file describes "
            f"{len(statistics)} categories"
        )
    if problems:
        raise ConfigError(problems)
    cfg.MODEL.WEIGHTS = cfg.OUTPUT_DIR = ""
    for key in ("TRAIN_JSON", "TRAIN_IMAGES", "TEST_JSON", "TEST_IMAGES", "GENERATE"):
        cfg.DATA[key] = ""
    return StoredModel(file, cfg, statistics)


def stored_statistics(metadata: Mapping[str, Any], file: Path) -> CategoryStatistics:
    """Return the categories that a checkpoint describes.

    Args:
        metadata: :func:`eql_d2.checkpoint.read_checkpoint_metadata` of it.
        file: for messages.

    Raises:
        DataError: they contradict each other.
    """
    try:
        return CategoryStatistics.from_dict(metadata["statistics"])
    except DataError as error:
        raise DataError(f"the categories in {file}: {error}") from error


def data_paths(cfg: CfgNode, *, training: bool) -> DataPaths:
    """Resolve ``DATA.*``, making the generated data set when it is asked for and not there.

    A relative path that starts with ``datasets/`` and does not exist here is looked up below
    ``$DETECTRON2_DATASETS``, as Detectron2 users expect.

    Raises:
        ConfigError: naming every key that is not set or names nothing that exists.
    """
    data = cfg.DATA
    if data.GENERATE:
        shapes = data.LONGTAIL_SHAPES
        made = generate_longtail_shapes(
            shapes.DIR,
            num_categories=shapes.NUM_CATEGORIES,
            num_train_images=shapes.NUM_TRAIN_IMAGES,
            num_test_images=shapes.NUM_TEST_IMAGES,
            image_size=shapes.IMAGE_SIZE,
            seed=shapes.SEED,
        )
        return DataPaths(*(Path(p) for p in made))
    found: dict[str, Path | None] = {}
    problems = []
    for key in ("TRAIN_JSON", "TRAIN_IMAGES", "TEST_JSON", "TEST_IMAGES"):
        path = _below_datasets(data[key]) if data[key] else None
        needed = training or key.startswith("TEST")
        if path is None and needed:
            problems.append(f"DATA.{key} is not set; give the path on the command line or in YAML")
        elif path is not None and not path.exists():
            if needed:
                problems.append(f"DATA.{key}: {path} does not exist")
            path = None
        found[key] = path
    if problems:
        raise ConfigError(problems)
    test_json, test_images = found["TEST_JSON"], found["TEST_IMAGES"]
    assert test_json is not None
    assert test_images is not None
    return DataPaths(found["TRAIN_JSON"], found["TRAIN_IMAGES"], test_json, test_images)


def resolve_lambda(cfg: CfgNode, statistics: CategoryStatistics) -> float:
    """Return lambda: as given, or from the wanted tail ratio, or 0 when neither is set.

    Raises:
        ConfigError: no tail has so small a ratio, or the loss needs a tail and no category is below
            lambda. The message names the smallest value that selects one.
    """
    loss = cfg.MODEL.EQL.LOSS
    lambda_ = float(loss.LAMBDA)
    if lambda_ == 0 and loss.TAIL_RATIO > 0:
        try:
            return statistics.lambda_for_tail_ratio(loss.TAIL_RATIO)
        except ConfigError as error:
            raise ConfigError(f"MODEL.EQL.LOSS.TAIL_RATIO: {error}") from error
    if needs_tail(cfg) and not statistics.tail_mask(lambda_).any():
        ratio = statistics.smallest_tail_ratio()
        least = statistics.lambda_for_tail_ratio(ratio)
        raise ConfigError(
            f"MODEL.EQL.LOSS.LAMBDA {lambda_:g} selects no category, and {loss.NAME} without a "
            f"tail is its own baseline; the smallest tail here has LAMBDA {least:.6g} or "
            f"TAIL_RATIO {ratio:g}: {statistics.describe_tail(least)}"
        )
    return lambda_


def loss_from_config(cfg: CfgNode, statistics: CategoryStatistics) -> ClassificationLoss:
    """Build the classification loss that ``MODEL.EQL.LOSS`` names.

    Raises:
        ConfigError: naming all wrong values of ``MODEL.EQL.LOSS``, or as :func:`resolve_lambda`.
    """
    problems = loss_problems(cfg)
    if problems:
        raise ConfigError(problems)
    lambda_ = resolve_lambda(cfg, statistics)
    if needs_tail(cfg):
        _warn_of_odd_tail(statistics, lambda_)
    loss = cfg.MODEL.EQL.LOSS
    return build_loss(
        loss.NAME,
        image_fraction=statistics.image_fraction,
        lambda_=lambda_,
        threshold_function=loss.THRESHOLD_FUNCTION,
        threshold_parameters=tuple(loss.THRESHOLD_PARAMETERS),
        exclude_background=loss.EXCLUDE_BACKGROUND,
        gamma=loss.GAMMA,
        prior_prob=loss.PRIOR_PROB,
    )


def resolved_config(cfg: CfgNode, experiment: Experiment) -> CfgNode:
    """Return a copy in which everything that depends on data or machine is spelled out.

    The copy is what a run writes to ``config.yaml`` and into its checkpoints: it trains the same
    model again even where the data are not there to count.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(experiment.statistics.names)
    cfg.MODEL.EQL.LOSS.LAMBDA = experiment.lambda_
    cfg.MODEL.EQL.LOSS.TAIL_RATIO = 0.0
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    return cfg


def resolve_device(name: str) -> str:
    """Turn ``auto`` into ``cuda`` where a GPU can be used, else ``cpu``."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def finish_evaluation(
    cfg: CfgNode, experiment: Experiment, results_path: str | Path
) -> dict[str, float | None]:
    """Score a results file and leave metrics, tables and pictures in ``OUTPUT_DIR``.

    Prints the table, writes ``metrics.json`` and ``per_category.csv``, beside them
    ``category_statistics.json`` with the groups they are about, and draws
    ``EVALUATION.NUM_PICTURES`` test images into ``pictures/``.

    Returns:
        flat metrics in percent, ``None`` where undefined.
    """
    output_dir = Path(cfg.OUTPUT_DIR)
    statistics = experiment.statistics
    evaluation = evaluate(
        experiment.test.json_path,
        results_path,
        iou_types=("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",),
        groups=statistics.groups,
        groups_source=str(statistics.grouping),
    )
    print(evaluation.table(), flush=True)
    evaluation.write(output_dir)
    write_statistics(statistics, output_dir)
    number = cfg.EVALUATION.NUM_PICTURES
    if number:
        from eql_d2.plotting import save_prediction_pictures  # matplotlib is slow to import

        save_prediction_pictures(
            experiment.test,
            results_path,
            output_dir / "pictures",
            number,
            groups=statistics.groups,
        )
        logger.info(f"pictures of predictions next to ground truth: {output_dir / 'pictures'}")
    return evaluation.metrics


def _categories(statistics: CategoryStatistics) -> dict[int, str]:
    """Return category names by dataset id, in contiguous order."""
    return dict(zip(statistics.category_ids, statistics.names, strict=True))


def _warn_of_odd_tail(statistics: CategoryStatistics, lambda_: float) -> None:
    """Say so where the tail is all categories, or none that is ever trained on."""
    tail = statistics.tail_mask(lambda_)
    if tail.all():
        logger.warning(
            f"all {len(tail)} categories are tail at lambda {lambda_:g} "
            "(MODEL.EQL.LOSS.LAMBDA or TAIL_RATIO), which is meant to select the rarest alone"
        )
    elif not statistics.image_count[tail].any():
        logger.warning(
            f"the tail at lambda {lambda_:g} (MODEL.EQL.LOSS.LAMBDA) holds only categories without "
            f"images ({int(tail.sum())}): none that has images is tail"
        )


def _below_datasets(path: str) -> Path:
    root = os.environ.get("DETECTRON2_DATASETS")
    if root and path.startswith("datasets/") and not Path(path).exists():
        return Path(root) / path.removeprefix("datasets/")
    return Path(path)


def _statistics(cfg: CfgNode, train: DetectionData | None) -> CategoryStatistics:
    source = cfg.MODEL.EQL.STATISTICS
    if source == "train":
        if train is None:
            raise ConfigError(
                "MODEL.EQL.STATISTICS is train but DATA.TRAIN_JSON names no file; set one of them "
                f"({', '.join(table_names())} or the path of an annotation file for the former)"
            )
        return train.statistics
    if source in table_names():
        return CategoryStatistics.from_table(source)
    return read_statistics(_below_datasets(source))


def _with_groups(
    cfg: CfgNode, statistics: CategoryStatistics, test: DetectionData
) -> CategoryStatistics:
    """Return the statistics with the r/c/f groups of the run.

    LVIS files carry their official groups; they win unless a ``DATA`` grouping key was changed.
    """
    keys = ("DATA.GROUP_MODE", "DATA.RARE_MAX_IMAGES", "DATA.COMMON_MAX_IMAGES")
    changed = any(get_value(cfg, k.name) != k.default for k in KEYS if k.name in keys)
    if test.frequency is not None and not changed:
        return replace(statistics, groups=test.frequency, grouping=Grouping("frequency"))
    data = cfg.DATA
    return statistics.with_groups(
        mode=data.GROUP_MODE, rare_max=data.RARE_MAX_IMAGES, common_max=data.COMMON_MAX_IMAGES
    )
