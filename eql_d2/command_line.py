"""What the tools share: Detectron2's training command line, and exit codes.

Exit codes of every tool: 0 done; 2 the user's input or command is wrong (a message, no
traceback), or a disk is full; 1 an internal error (the traceback is the report); 130 interrupted;
141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from eql_d2.config import KEYS, find_key, parse_overrides
from eql_d2.errors import MissingPackageError, UserError
from eql_d2.files import (
    DISK_ERRORS,
    PATH_ERRORS,
    STATISTICS_FILE,
    AnyPath,
    TerminalFormatter,
    terminal_text,
)

if TYPE_CHECKING:
    from eql_d2.categories import CategoryStatistics

VALUE_FLAGS = (
    "--config-file",
    "--engine",
    "--num-gpus",
    "--num-machines",
    "--machine-rank",
    "--dist-url",
)
FREQUENCY = "frequency"  # --groups-from: the field of that name in the annotations
ENGINES = ("auto", "detectron2", "torchvision")
DETECTRON2_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
DETECTRON2_INSTALL = (
    'pip install "setuptools<81" wheel && pip install --no-build-isolation '
    f'"git+https://github.com/facebookresearch/detectron2.git@{DETECTRON2_COMMIT}"'
)


@dataclass(frozen=True)
class TrainOptions:
    """The command line of ``train_net.py``; ``overrides`` are the trailing KEY VALUE items."""

    config_file: str
    engine: str = "auto"
    num_gpus: int | None = None
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    resume: bool = False
    overwrite: bool = False
    eval_only: bool = False
    overrides: tuple[str, ...] = ()


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and leave the process with the exit code that its outcome means."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(TerminalFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        code = main() or 0
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        print(terminal_text(f"error: {error}", keep_lines=True), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # such as `| head`, which has read enough
        _leave_standard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK_ERRORS | PATH_ERRORS:
            raise
        _leave_standard_output()
        fix = "make room" if error.errno in DISK_ERRORS else "fix its permissions"
        message = f"error: {error}; {fix}, or choose another place"
        print(terminal_text(message, keep_lines=True), file=sys.stderr)
        sys.exit(2)


def _leave_standard_output() -> None:
    """Print what is left, or, where nobody takes it, spare the interpreter from failing on it."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # there may be no file behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_train_options(argv: Sequence[str] | None = None) -> TrainOptions:
    """Parse ``train_net.py``'s arguments.

    Raises:
        ConfigError: a flag stands among the overrides, or an override has no value.
        SystemExit: with code 2, for unknown flags (argparse).
    """
    parser = _train_parser()
    given = list(sys.argv[1:] if argv is None else argv)
    unknown = _unknown_flags(given)
    if unknown:
        parser.error("; ".join(f"unknown flag {flag}{_meant(flag)}" for flag in unknown))
    parse_overrides(_after_flags(given), VALUE_FLAGS)  # before argparse misses what was swallowed
    args = parser.parse_args(given)
    if args.machine_rank >= args.num_machines:
        parser.error(
            f"--machine-rank {args.machine_rank} must be below --num-machines {args.num_machines}"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        parser.error("--num-machines above 1 needs --dist-url tcp://HOST:PORT of machine rank 0")
    return TrainOptions(**{**vars(args), "overrides": tuple(args.overrides)})


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train and evaluate Mask R-CNN with a long-tail classification loss.",
        epilog="KEY VALUE pairs (or KEY=VALUE) after the flags override the config file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML recipe")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="auto: detectron2 where it imports, else torchvision (default)",
    )
    parser.add_argument(
        "--num-gpus",
        type=from_zero,
        metavar="N",
        help="processes on this machine, one per GPU; with MODEL.DEVICE cpu, N CPU processes "
        "(default: 1)",
    )
    parser.add_argument("--num-machines", type=from_one, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=from_zero, default=0, metavar="RANK")
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="rendezvous, tcp://HOST:PORT; auto picks a free port (one machine only)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue OUTPUT_DIR's run from its last checkpoint"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the files of the run that OUTPUT_DIR holds before training a new one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and stop")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which categories are rare, common and frequent.

    They mean what ``DATA.GROUP_MODE`` and its thresholds mean, with the same defaults, and fit
    ``CategoryStatistics.with_groups(args.group_mode, args.rare_max, args.common_max)``.
    """
    defaults = {key.name: key.default for key in KEYS}
    mode = defaults["DATA.GROUP_MODE"]
    rare, common = defaults["DATA.RARE_MAX_IMAGES"], defaults["DATA.COMMON_MAX_IMAGES"]
    parser.add_argument(
        "--group-mode",
        choices=("counts", "quantiles"),
        default=mode,
        help=f"groups by training images, or thirds of the categories (default: {mode})",
    )
    parser.add_argument(
        "--rare-max", type=int, default=rare, metavar="N",
        help=f"rare: at most N images (default: {rare})",
    )  # fmt: skip
    parser.add_argument(
        "--common-max", type=int, default=common, metavar="N",
        help=f"common: at most N images (default: {common})",
    )  # fmt: skip


def add_groups_from(parser: argparse.ArgumentParser) -> None:
    """Add ``--groups-from`` and the options of :func:`add_group_options`, for tools that score.

    Read the answer with :func:`group_sources` and :func:`chosen_groups`.
    """
    parser.add_argument(
        "--groups-from",
        metavar="SOURCE",
        help="which categories are rare, common and frequent: training annotations, whose images "
        f"are counted; a run's {STATISTICS_FILE}, or its folder; or the word frequency for that "
        "field of --annotations (default: the groups of the run whose folder the results lie in, "
        "else that field)",
    )
    add_group_options(parser)
    # None tells "not given": the groups of a run stay as they are unless others are asked for.
    parser.set_defaults(group_mode=None, rare_max=None, common_max=None)


@dataclass(frozen=True)
class ChosenGroups:
    """The groups to score with; the defaults mean those of the annotations.

    Attributes:
        letters: "r", "c" or "f" by category id; None: the ``frequency`` of the annotations.
        source: in words, how the groups were formed and where they come from.
        training_images: images by category id; None where they are not known.
    """

    letters: dict[int, str] | None = None
    source: str = ""
    training_images: dict[int, int] | None = None


def group_sources(args: argparse.Namespace, results: Sequence[AnyPath]) -> list[Path]:
    """Return the files that the groups come from: as ``--groups-from`` says, else those of runs.

    Args:
        args: of a parser with :func:`add_groups_from`.
        results: results files. Those at ``RUN/inference/`` belong to the run that left its groups
            in ``RUN/category_statistics.json``.
    """
    if args.groups_from == FREQUENCY:
        return []
    if args.groups_from is not None:
        file = Path(args.groups_from) / STATISTICS_FILE
        return [file if file.is_file() else Path(args.groups_from)]
    folders = [Path(file).parent for file in results]
    folders = [f if f.name else Path(os.path.abspath(f)) for f in folders]  # given from inside
    files = [f.parent / STATISTICS_FILE for f in folders if f.name == "inference"]
    return [file for file in dict.fromkeys(files) if file.is_file()]


def chosen_groups(args: argparse.Namespace, sources: Sequence[Path]) -> ChosenGroups:
    """Read the groups.

    Args:
        args: of a parser with :func:`add_groups_from`.
        sources: as :func:`group_sources` found them.

    Raises:
        UserError: runs have different groups, or groups are to be formed without image counts.
        DataError: a file cannot be read, or holds neither annotations nor statistics.
    """
    given = {"mode": args.group_mode, "rare_max": args.rare_max, "common_max": args.common_max}
    given = {name: value for name, value in given.items() if value is not None}
    chosen: list[tuple[str, CategoryStatistics]] = []
    if sources:
        from eql_d2.categories import read_statistics  # imports torch

        read = [(str(source), read_statistics(source)) for source in sources]
        if args.groups_from is None:
            # Earlier versions did not say how groups were formed, nor always score with these.
            read = [(source, statistics) for source, statistics in read if statistics.grouping]
        chosen = [(source, s.with_groups(**given) if given else s) for source, s in read]
    if not chosen and given:
        raise UserError(
            "--group-mode, --rare-max and --common-max form groups from image counts; say with "
            "--groups-from which: training annotations or a run folder"
        )
    if not chosen:
        return ChosenGroups()
    source, statistics = chosen[0]
    letters = dict(zip(statistics.category_ids, statistics.groups, strict=True))
    for other, others in chosen[1:]:
        _refuse_other_groups(source, letters, other, others)
    counts = statistics.image_count.tolist()
    words = f"{statistics.grouping or 'as given'}, from {source}"
    images = dict(zip(statistics.category_ids, counts, strict=True))
    return ChosenGroups(letters, words, images)


def _refuse_other_groups(
    first: str, letters: dict[int, str], second: str, statistics: CategoryStatistics
) -> None:
    others = dict(zip(statistics.category_ids, statistics.groups, strict=True))
    different = [i for i in sorted({*letters, *others}) if letters.get(i) != others.get(i)]
    if different:
        pair = " and ".join(repr(groups.get(different[0], "none")) for groups in (letters, others))
        raise UserError(
            f"{first} and {second} have different groups: {len(different)} categories, first id "
            f"{different[0]} ({pair}). Choose one of them for all results with --groups-from"
        )


def refuse_repeats(flag: str, values: Sequence[object]) -> None:
    """Refuse repeated values, where each names something of its own.

    Raises:
        UserError: naming the flag and the repeated values.
    """
    twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise UserError(f"{flag}: {', '.join(twice)} is repeated; those runs would share a folder")


def choose_engine(name: str) -> tuple[str, str]:
    """Return ``(engine, reason)`` for the value of ``--engine``.

    Raises:
        MissingPackageError: Detectron2 was asked for and cannot be imported.
    """
    if name not in ENGINES:
        raise UserError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "torchvision":
        return name, "asked for by --engine"
    problem = detectron2_problem()
    if name == "detectron2":
        if problem:
            raise MissingPackageError(
                f"--engine detectron2: {problem}. Install it with: {DETECTRON2_INSTALL}"
            )
        return name, "asked for by --engine"
    if problem:
        return "torchvision", f"{problem}; --engine detectron2 tells how to install it"
    return "detectron2", "it is installed"


def detectron2_problem() -> str | None:
    """Say why Detectron2 cannot be used here, or None when it can."""
    if importlib.util.find_spec("detectron2") is None:
        return "Detectron2 is not installed"
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        return f"Detectron2 is installed but its compiled part does not load ({error})"
    return None


def _unknown_flags(arguments: Sequence[str]) -> list[str]:
    """Return the flags that do not exist, in front of the overrides or among them."""
    known = {*_flags(), "-h", "--help"}
    leading = True  # further on, -1 is a value
    unknown: list[str] = []
    items = iter(arguments)
    for item in items:
        if leading and item in VALUE_FLAGS:
            next(items, None)
        elif item.startswith("--") or (leading and item.startswith("-")):
            unknown += {item.split("=")[0]} - known
        else:
            leading = False
    return unknown


def _flags() -> list[str]:
    """Return the flags of the training command line, which :class:`TrainOptions` names."""
    names = [field.name for field in fields(TrainOptions) if field.name != "overrides"]
    return [f"--{name.replace('_', '-')}" for name in names]


def _meant(flag: str) -> str:
    """Say which setting or flag an unknown flag likely means."""
    key = find_key(flag)
    if key is not None:
        return f": did you mean {key}? (settings are KEY VALUE pairs after the flags)"
    close = difflib.get_close_matches(flag, _flags(), n=1)
    return f": did you mean {close[0]}?" if close else f" (the flags are {', '.join(_flags())})"


def _after_flags(arguments: Sequence[str]) -> Sequence[str]:
    """Return what follows the leading flags and their values."""
    start = 0
    while start < len(arguments) and arguments[start].startswith("-"):
        start += 2 if arguments[start] in VALUE_FLAGS else 1
    return arguments[start:]


def from_zero(text: str) -> int:
    """Parse an argument that is a whole number from 0 (to 64 bits, as seeds and sizes are)."""
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def from_one(text: str) -> int:
    """Parse an argument that is a whole number from 1."""
    value = from_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be a whole number from 1, got 0")
    return value
