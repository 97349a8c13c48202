"""What every checkpoint says about itself, so that weights alone are enough to predict.

Both engines store the dictionary of :func:`checkpoint_metadata` in their ``.pth`` files under
:data:`METADATA_KEY`, beside the tensors. It holds strings, numbers, lists and dictionaries only, so
that ``torch.load(..., weights_only=True)`` reads it and no foreign code is ever run.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eql_d2 import __version__
from eql_d2.errors import UserError
from eql_d2.finite import largest_norm, nonfinite

if TYPE_CHECKING:
    from eql_d2.categories import CategoryStatistics

METADATA_KEY = "eql_d2"
FORMAT = 1
ENGINES = ("torchvision", "detectron2")
LAST_CHECKPOINT = "last_checkpoint"

_TYPES: Mapping[str, type] = {
    "format": int,
    "engine": str,
    "version": str,
    "config": str,
    "statistics": dict,
}

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def checkpoint_metadata(
    config_yaml: str,
    statistics: CategoryStatistics,
    engine: str,
    *,
    iteration: int | None = None,
) -> dict[str, Any]:
    """Describe a checkpoint: store the result under :data:`METADATA_KEY` beside the weights.

    Args:
        config_yaml: the resolved configuration as YAML text (``cfg.dump()``).
        statistics: the categories of the training data: names, dataset ids, counts, groups.
        engine: ``"torchvision"`` or ``"detectron2"``.
        iteration: number of the last finished iteration, where it is known.

    Returns:
        ``{"format", "engine", "version", "config", "statistics", "iteration"}``, plain values only.

    Raises:
        ValueError: unknown engine.
        TypeError: a value that is no plain string, number, bool, None, list or dictionary.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}")
    metadata = {
        "format": FORMAT,
        "engine": engine,
        "version": __version__,
        "config": config_yaml,
        "statistics": statistics.to_dict(),
        "iteration": iteration,
    }
    return {key: _plain(value, key) for key, value in metadata.items()}


def _plain(value: Any, name: str) -> Any:
    """Copy ``value`` with tuples as lists; anything that would need code to unpickle is refused."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_plain(k, name): _plain(v, f"{name}.{k}") for k, v in value.items()}
    raise TypeError(f"checkpoint metadata {name} must be plain data, got {type(value).__name__}")


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that ``path`` means.

    Args:
        path: a checkpoint file, or an ``OUTPUT_DIR`` whose ``last_checkpoint`` names one.

    Raises:
        UserError: nothing there, or the folder has no (valid) ``last_checkpoint``.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist; give a .pth file or an OUTPUT_DIR")
    pointer = path / LAST_CHECKPOINT
    if not pointer.is_file():
        found = sorted(p.name for p in path.glob("*.pth"))
        hint = f"give one of its files: {', '.join(found)}" if found else "it holds no .pth file"
        raise UserError(f"folder {path} has no {LAST_CHECKPOINT}; {hint}")
    name = pointer.read_text("utf-8", errors="replace").strip()
    if not name or not (path / name).is_file():
        raise UserError(f"{pointer} names {name!r}, which does not exist in {path}")
    return path / name


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a whole checkpoint onto the CPU without running any code from it.

    Args:
        path: as in :func:`resolve_checkpoint`.

    Returns:
        The stored dictionary; tensors are mapped from disk and read when they are used.

    Raises:
        UserError: missing, empty, truncated or damaged, or it holds more than tensors and plain
            values.
    """
    file = resolve_checkpoint(path)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is damaged or holds more than tensors and plain values (a Detectron2 model "
            f"zoo .pkl does); expected a checkpoint written by eql_d2. {_first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        size = file.stat().st_size
        raise UserError(
            f"{file} ({size} bytes) cannot be read as a checkpoint: truncated or damaged. Copy it "
            f"again, or use an earlier one from the same folder. {_first_line(error)}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, expected a checkpoint's dict")
    return content


def read_checkpoint_metadata(path: str | Path) -> dict[str, Any]:
    """Read what :func:`checkpoint_metadata` stored in a checkpoint; the weights stay on disk.

    Args:
        path: as in :func:`resolve_checkpoint`.

    Returns:
        The metadata; ``CategoryStatistics.from_dict(metadata["statistics"])`` has the categories.

    Raises:
        UserError: as :func:`load_checkpoint`, or the file is none of ours, its metadata are
            incomplete, or they were written in a newer format.
    """
    file = resolve_checkpoint(path)
    metadata = load_checkpoint(file).get(METADATA_KEY)
    if not isinstance(metadata, dict):
        raise UserError(
            f"{file} has no {METADATA_KEY!r} entry: it was not written by eql_d2's training, so "
            "its categories and configuration are unknown"
        )
    _check_metadata(metadata, file)
    return metadata


def check_finite(content: Mapping[str, Any], file: str | Path, *, saving: bool = False) -> None:
    """Refuse weights, buffers or momentum that hold NaN or infinity.

    A model with such values detects nothing, and whatever is trained from it is NaN too.

    Args:
        content: tensors by name, at any depth of dictionaries and lists; other values are passed
            over.
        file: where they were read, or are to be written.
        saving: they are to be written: the message then says what is left to resume from.

    Raises:
        UserError: naming the file, how many values are not finite, and the first tensors.
    """
    tensors = _float_tensors(content)
    if math.isfinite(float(largest_norm(list(tensors.values())))):
        return
    problem = nonfinite(tensors)
    if not problem:
        return
    file = Path(file)
    pointer = file.with_name(LAST_CHECKPOINT)
    last = pointer.read_text("utf-8", errors="replace").strip() if pointer.is_file() else ""
    if not saving:
        raise UserError(
            f"{file} holds NaN or infinity: {problem}. Such a model detects nothing; use an "
            "earlier checkpoint of its run (to resume from that, write its name into "
            f"{LAST_CHECKPOINT} of the same folder)"
        )
    left = f"{last}, which stays the last checkpoint" if last else "none was saved before"
    raise UserError(
        f"training diverged: {file} is not saved, as it would hold NaN or infinity: {problem}. "
        "Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED "
        f"True; then --resume from the last good checkpoint ({left})"
    )


def _float_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return all dense floating-point tensors in ``content``, by dotted names."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()  # a file may hold a container inside itself
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            if value.dtype in _FLOATS and value.layout == torch.strided and not value.is_meta:
                tensors[name] = value.detach()
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            prefix = f"{name}." if name else ""
            waiting += [(f"{prefix}{key}", item) for key, item in items][::-1]
    return tensors


def _check_metadata(metadata: Mapping[str, Any], file: Path) -> None:
    version = metadata.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{file} has metadata format {version}, written by eql_d2 {metadata.get('version')}; "
            f"this is eql_d2 {__version__}, which reads up to format {FORMAT}. Update eql_d2"
        )
    wrong = [k for k, kind in _TYPES.items() if not isinstance(metadata.get(k), kind)]
    if metadata.get("engine") not in ENGINES and "engine" not in wrong:
        wrong.append("engine")
    if wrong:
        raise UserError(f"{file}: missing or wrong in its {METADATA_KEY!r} entry: {wrong}")


def _is_zip(file: Path) -> bool:
    # Only the zip form (torch >= 1.6) can be mapped; older files are still read, whole.
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"[{type(error).__name__}: {text.splitlines()[0][:200] if text else 'no details'}]"
