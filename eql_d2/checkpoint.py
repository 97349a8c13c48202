"""Checkpoint files: what ours say about themselves, and the one reader of everybody's.

Both engines store the dictionary of :func:`checkpoint_metadata` in their ``.pth`` files under
:data:`METADATA_KEY`, beside the tensors, so that weights alone are enough to predict.

A file of weights comes from anywhere. :func:`load_checkpoint` reads the two forms in which weights
are published, torch's and the ``.pkl`` files of Detectron2's model zoo, and never runs code from
either. Whatever is to become a model's state passes :func:`model_state`, and a model that a file
describes is built inside :func:`model_of_file`. All problems are one :class:`UserError`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import pickle
import pickletools
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from eql_d2 import __version__
from eql_d2.errors import UserError
from eql_d2.finite import largest_norm, nonfinite

if TYPE_CHECKING:
    from eql_d2.categories import CategoryStatistics

METADATA_KEY = "eql_d2"
FORMAT = 1
ENGINES = ("torchvision", "detectron2")
LAST_CHECKPOINT = "last_checkpoint"

# No checkpoint holds more, and what follows walks through all of it.
MAX_VALUES = 1_000_000
MAX_OPCODES = 5 * MAX_VALUES
MAX_DEPTH = 50
MAX_DIMENSIONS = 64  # NumPy's limit
MAX_ITERATION = 2**31 - 1
MAX_SEED = 2**63 - 1
# A model may have more numbers than its file has bytes by so many: for parts that are built and
# replaced, such as the classifier of a ResNet. Each parameter counts as so many at least, for the
# objects around it.
SMALL_MODEL = 4_000_000
MODULE_COST = 1_000

PLAIN = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device, torch.layout)
# Numbers that NumPy and torch share, by NumPy's names.
DTYPES: Mapping[str, torch.dtype] = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
}
LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch < 1.6 begins files with it
LEGACY_PICKLES = 5  # magic number, version, system, content, names of the storages
# Pickle's instructions that make objects or fetch them by other ways than GLOBAL and REDUCE.
REFUSED_OPCODES = frozenset(
    ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4")
)

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

    Two forms are read, whatever the file is called: what ``torch.save`` writes, and pickles of
    NumPy arrays, as in the model zoos of Detectron2 and Caffe2 (also those that Python 2 wrote).

    Args:
        path: as in :func:`resolve_checkpoint`.

    Returns:
        The stored dictionary of tensors and plain values; NumPy arrays are tensors in it. Tensors
        of torch's form are mapped from disk and read when they are used.

    Raises:
        UserError: missing, empty, truncated or damaged, or it holds more than dense tensors of real
            numbers and plain values, or more of them than any checkpoint.
    """
    file = resolve_checkpoint(path)
    try:
        content = _read(file)
        _check_plain(content, file.stat().st_size)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is damaged or holds more than tensors and plain values; expected a checkpoint "
            f"written by eql_d2, or weights from a model zoo. {_reason(error)}"
        ) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch and pickle raise anything at all on bytes that do not fit
        size = file.stat().st_size
        raise UserError(
            f"{file} ({size} bytes) cannot be read as a checkpoint: truncated or damaged. Copy it "
            f"again, or use an earlier one from the same folder. {_reason(error)}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, expected a checkpoint's dict")
    return content


def model_state(state: Any, source: str | Path) -> dict[str, Tensor]:
    """Return what a file calls a model's state, checked; every state that is loaded passes here.

    Args:
        state: the ``"model"`` entry of :func:`load_checkpoint`, or a dictionary of weights.
        source: the file, for messages.

    Returns:
        A new dictionary from names to tensors, with torch's versions of the modules where the file
        has them (``_metadata``), which decide how old weights are read.

    Raises:
        UserError: it is no dictionary of tensors by name, or they hold NaN or infinity.
    """
    if not isinstance(state, dict):
        raise UserError(f"{source} holds no weights, but {_kind(state)} in their place")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{source}: weights must be tensors by name, got {_kind(value)} under {name!r:.80}"
            )
    checked: OrderedDict[str, Tensor] = OrderedDict(state)
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        checked._metadata = _module_versions(versions, source)  # type: ignore[attr-defined]
    check_finite(checked, source)
    return checked


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: str | Path) -> None:
    """Take up the buffers of a saved optimizer in place, and keep the settings of this one.

    Learning rate, weight decay and momentum are saved too, but are settings: who resumes with
    another ``SOLVER.BASE_LR`` wants it to be used.

    Args:
        optimizer: SGD, as built from the configuration.
        state: ``state_dict()`` of one with the same groups of parameters.
        source: the file, for messages.

    Raises:
        UserError: the groups differ, or the buffers do not fit the parameters, or hold NaN or
            infinity.
    """
    check_finite({"optimizer": state}, source)
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        buffers = {
            index: {name: _buffer(name, value, parameter) for name, value in values.items()}
            for index, values in state["state"].items()
            for parameter in [parameters[index]]
        }
        optimizer.load_state_dict({**state, "state": buffers})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{source}: its optimizer is damaged or has other groups of parameters; were "
            "FREEZE_AT, SOLVER.WEIGHT_DECAY* or SOLVER.BIAS_LR_FACTOR changed? Resume with the "
            f"same ones, or give the file as MODEL.WEIGHTS without --resume. {_reason(error)}"
        ) from error
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)


def stored_number(content: Any, name: str, source: str | Path, maximum: int = MAX_ITERATION) -> int:
    """Return an iteration or a seed that a checkpoint stores for resuming.

    Raises:
        UserError: it is not there, or is no whole number from 0 to ``maximum``.
    """
    value = content.get(name) if isinstance(content, dict) else None
    if type(value) is not int or not 0 <= value <= maximum:
        raise UserError(
            f"{source} cannot be resumed: its {name!r} must be a whole number from 0 to {maximum}, "
            f"got {value!s:.80}"
        )
    return value


@contextlib.contextmanager
def model_of_file(file: Path) -> Iterator[None]:
    """Build a model inside this block whose size a file decides.

    A model with more numbers than the file has bytes could never be loaded from it: it is refused
    while it grows, before its memory is touched.

    Raises:
        UserError: the model is larger than the file, or cannot be built.
    """
    left = file.stat().st_size + SMALL_MODEL

    def spend(module: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal left
        if value is not None:
            left -= max(value.numel(), MODULE_COST)
        if left < 0:
            raise UserError(
                f"it describes a larger model than a file of {file.stat().st_size} bytes can hold"
            )

    handles = [
        register_module_parameter_registration_hook(spend),
        register_module_buffer_registration_hook(spend),
    ]
    try:
        yield
    except UserError as error:
        raise UserError(f"the configuration in {file}: {error}") from error
    # Detectron2 and torch raise anything at all (AssertionError, KeyError ...) on keys that do not
    # fit each other. As these are the keys of a file, the file is at fault.
    except Exception as error:
        raise UserError(
            f"the configuration in {file} describes no model that can be built. {_reason(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


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


def _read(file: Path) -> Any:
    with file.open("rb") as stream:
        start = stream.read(len(LEGACY_MAGIC))
        if start == LEGACY_MAGIC:
            stream.seek(0)
            for _ in range(LEGACY_PICKLES):
                _check_torch_pickle(stream)
            return torch.load(file, map_location="cpu", weights_only=True)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise pickle.UnpicklingError("compressed entries, which torch never writes")
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    with archive.open(entry) as content:
                        _check_torch_pickle(content)
        # This form (torch >= 1.6) can be mapped; older files are read whole.
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return _ArrayUnpickler(view).load()


def _check_torch_pickle(stream: IO[bytes]) -> None:
    """Refuse what ``weights_only`` lets through although it makes gigabytes from one number."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if number > MAX_OPCODES:
            raise pickle.UnpicklingError(f"more than {MAX_OPCODES} instructions")
        if opcode.name == "GLOBAL" and re.search(r"(\bbytearray|Tensor)$", str(argument)):
            raise pickle.UnpicklingError(argument)


def _check_plain(content: Any, size: int) -> None:
    """Refuse what is no plain value, dense tensor of real numbers or container of them.

    What follows may then copy, compare and print it: containers in circles, or shared so often that
    a walk never ends, are refused by their depth and by the number of values.
    """
    waiting = [(content, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise pickle.UnpicklingError(
                f"more than {MAX_VALUES} values, or nested more than {MAX_DEPTH} deep"
            )
        if isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, Tensor):
            _check_tensor(value, size)
        elif isinstance(value, int) and value.bit_length() > 64:
            raise pickle.UnpicklingError("a number of more than 64 bits")
        elif not isinstance(value, PLAIN):
            raise pickle.UnpicklingError(_kind(value))


def _check_tensor(value: Tensor, size: int) -> None:
    odd = [
        *([] if type(value) in (Tensor, nn.Parameter) else [type(value).__name__]),
        *([] if value.layout is torch.strided else [str(value.layout)]),
        *([] if value.device.type == "cpu" else [f"on device {value.device.type}"]),
        *(["quantized"] if value.is_quantized else []),
        *(["complex"] if value.is_complex() else []),
    ]
    if odd:
        raise pickle.UnpicklingError(f"a tensor that is {', '.join(odd)}; expected dense real ones")
    if value.dim() > MAX_DIMENSIONS:
        raise pickle.UnpicklingError(f"a tensor of {value.dim()} dimensions")
    if value.numel() * value.element_size() > size:
        raise pickle.UnpicklingError(
            f"a tensor of shape {list(value.shape)} in a file of {size} bytes"
        )


def _module_versions(versions: Any, source: str | Path) -> dict[str, dict[str, int]]:
    """Keep of torch's ``_metadata`` what it writes there: the version of each module."""
    if isinstance(versions, dict) and all(isinstance(v, dict) for v in versions.values()):
        kept = {
            name: {k: v for k, v in entry.items() if k == "version"}
            for name, entry in versions.items()
        }
        if all(type(n) is int for entry in kept.values() for n in entry.values()):
            return kept
    raise UserError(f"{source}: the module versions beside its weights are damaged")


def _buffer(name: str, value: Any, parameter: Tensor) -> Tensor | None:
    """Return a copy of a parameter's momentum: torch would use the file's own memory."""
    if name != "momentum_buffer":
        raise ValueError(f"{name!r:.80} is no buffer of SGD")
    if value is None:
        return None
    if value.shape != parameter.shape:
        raise ValueError(f"{name} of shape {list(value.shape)}, not {list(parameter.shape)}")
    return value.detach().clone()


class _DType:
    """A NumPy dtype in a pickle, as torch's."""

    def __init__(self, name: Any) -> None:
        if name not in DTYPES:
            raise pickle.UnpicklingError(
                f"an array of dtype {name!r:.40}; expected one of {', '.join(DTYPES)}"
            )
        self.torch = DTYPES[name]

    def check_state(self, state: Any) -> None:
        """Refuse structured and byte-swapped numbers."""
        _, order, subdtype, names, fields, *_ = state
        native = "<" if sys.byteorder == "little" else ">"
        if order not in ("|", "=", native) or (subdtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("an array of structured or byte-swapped numbers")


# Pickle's reader in pure Python, whose parts can be replaced; the one in C makes room for as many
# values as a file claims to have. Its attributes are no part of the standard library's types.
_PythonUnpickler: Any = pickle._Unpickler


class _ArrayUnpickler(_PythonUnpickler):
    """Reads pickles of NumPy arrays, scalars, strings, numbers and containers, and nothing else.

    Nothing is ever imported: the few names that such pickles hold stand for methods of this class,
    which check what they are given, and make torch's tensors. They copy each byte of the file twice
    at most.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, view: Any) -> None:
        """Begin to read a mapped file, which never reads more than there is."""
        super().__init__(view, encoding="latin1")  # as Detectron2 reads what Python 2 wrote
        self._view = view
        self._left = 2 * len(view)  # protocols 0 to 2 hold arrays as text: text, bytes, array
        self._functions: dict[str, Callable[..., Any]] = {
            "_codecs.encode": self._encode,
            "builtins.bytes": self._empty_bytes,
            "builtins.set": self._set,
            "collections.OrderedDict": self._ordered_dict,
            "numpy.dtype": self._dtype,
            "multiarray._reconstruct": self._reconstruct,
            "multiarray.scalar": self._scalar,
            "numeric._frombuffer": self._from_buffer,
        }

    def load(self) -> Any:
        """Return the content, with tensors in place of arrays.

        Raises:
            pickle.UnpicklingError: it holds something else, or more than any checkpoint.
        """
        for number, (opcode, _, _) in enumerate(pickletools.genops(self._view)):
            if number > MAX_OPCODES:
                raise pickle.UnpicklingError(f"more than {MAX_OPCODES} instructions")
            if opcode.name in REFUSED_OPCODES:
                raise pickle.UnpicklingError(f"the instruction {opcode.name}")
        self._view.seek(0)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """Return the method that stands for a name."""
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of _reconstruct, which needs none
        # numpy.core is numpy._core since NumPy 2; Python 2 called builtins otherwise.
        short = re.sub(r"^numpy\.(_?core)\.", "", module).replace("__builtin__", "builtins")
        try:
            return self._functions[f"{short}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None

    def _reduce(self) -> None:
        """Call one of the methods below."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is known for known in self._functions.values()):
            raise pickle.UnpicklingError(f"a call of {_kind(function)}")
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        """Give an array its content, and a dtype its byte order."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _DType):
            target.check_state(state)
        elif isinstance(target, Tensor):
            _, shape, dtype, fortran, raw = state
            target.data = self._tensor(raw, dtype, shape, fortran)
        elif not isinstance(target, OrderedDict):  # whose attributes are torch's module versions
            raise pickle.UnpicklingError(f"a state for {_kind(target)}")

    def _bytearray(self) -> None:
        """Read bytes; pickle's own makes room for as many as the file claims to have."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def _append(self) -> None:
        item = self.stack.pop()
        self._last(list).append(item)

    def _extend(self) -> None:
        items = self.pop_mark()
        self._last(list).extend(items)

    def _add(self) -> None:
        items = self.pop_mark()
        self._last(set).update(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._last(dict)[key] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._last(dict).update(zip(items[::2], items[1::2], strict=True))

    def _last(self, kind: type) -> Any:
        """Return the container that is being filled: never a tensor, which has such methods too."""
        if not isinstance(self.stack[-1], kind):
            raise pickle.UnpicklingError(f"items for {_kind(self.stack[-1])}")
        return self.stack[-1]

    dispatch.update(
        {
            pickle.REDUCE[0]: _reduce,
            pickle.BUILD[0]: _build,
            pickle.BYTEARRAY8[0]: _bytearray,
            pickle.APPEND[0]: _append,
            pickle.APPENDS[0]: _extend,
            pickle.ADDITEMS[0]: _add,
            pickle.SETITEM[0]: _set_item,
            pickle.SETITEMS[0]: _set_items,
        }
    )

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise pickle.UnpicklingError("more bytes in its arrays than in the file")

    def _encode(self, text: str, encoding: str) -> bytes:
        """How protocols 0 to 2 write bytes."""
        self._spend(len(text))
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r:.40}")
        return text.encode("latin1")

    def _empty_bytes(self) -> bytes:
        return b""

    def _set(self, items: list[Any]) -> set[Any]:
        self._spend(len(items))
        return set(items)

    def _ordered_dict(self, pairs: list[Any] | tuple[()] = ()) -> OrderedDict[Any, Any]:
        self._spend(len(pairs))
        return OrderedDict(pairs)

    def _dtype(self, name: Any, *_: Any) -> _DType:
        return _DType(name)

    def _reconstruct(self, *_: Any) -> Tensor:
        """Begin an array, whose content follows."""
        return torch.empty(0)

    def _scalar(self, dtype: Any, raw: Any) -> int | float:
        return self._tensor(raw, dtype, (), False).item()

    def _from_buffer(self, raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Tensor:
        return self._tensor(raw, dtype, shape, order == "F")

    def _tensor(self, raw: Any, dtype: Any, shape: Any, fortran: Any) -> Tensor:
        if isinstance(raw, str):  # bytes, to Python 2
            raw = raw.encode("latin1")
        if not isinstance(dtype, _DType) or not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array of objects")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r:.80}")
        if len(raw) != math.prod(shape) * dtype.torch.itemsize:
            raise pickle.UnpicklingError(
                f"an array of shape {shape!r:.80} and {dtype.torch} with {len(raw)} bytes"
            )
        self._spend(len(raw))
        if not raw:
            return torch.empty(shape, dtype=dtype.torch)
        flat = torch.frombuffer(bytearray(raw), dtype=dtype.torch)
        return (
            flat.view(shape[::-1]).permute(*range(len(shape))[::-1])
            if fortran
            else flat.view(shape)
        )


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def _reason(error: Exception) -> str:
    """Return the type and the first telling line of an error."""
    # torch's long advice, to load without weights_only, is none for a stranger's file.
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [x for x in lines if x and "weights_only" not in x and "load failed" not in x]
    text = telling[0].removeprefix("WeightsUnpickler error: ") if telling else "no details"
    return f"[{type(error).__name__}: {text.partition('. Please use')[0][:200]}]"
