"""Files of weights from somebody who means harm, or from a broken disk: nothing runs, one message.

Each file goes through everything that reads weights: training and evaluation of both engines.
"""

import collections
import copyreg
import io
import os
import pickle
import struct
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eql_d2 import checkpoint
from eql_d2.checkpoint import METADATA_KEY, load_checkpoint, model_of_file, model_state
from eql_d2.engines.tv import checkpoints as tv
from eql_d2.engines.tv.checkpoints import Progress, checkpoint_name, save_checkpoint
from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2.checkpointer import Checkpointer
    from eql_d2.engines.d2.compat import build_lr_scheduler, get_cfg
    from eql_d2.engines.d2.resuming import LRScheduler
    from eql_d2.engines.d2.trainer import Trainer

needs_detectron2 = pytest.mark.detectron2
MARKER = "ran"  # what the files try to create in the working directory


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


GOOD = network().state_dict()


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Built(Calls):
    """Unpickling this makes a harmless object and calls its ``__setstate__``."""

    def __reduce__(self):
        return (Victim, (), MARKER)


class Victim:
    def __setstate__(self, state):
        Path(state).touch()


class New:
    """Unpickled with NEWOBJ (protocol 2) or NEWOBJ_EX (with keywords)."""

    def __new__(cls, *names, **keywords):
        for name in (*names, *keywords.values()):
            Path(name).touch()
        return object.__new__(cls)

    def __getnewargs__(self):
        return (MARKER,)


class NewWithKeywords(New):
    def __getnewargs_ex__(self):
        return (), {"name": MARKER}


TOUCH = Calls(Path.touch, Path(MARKER))


def instruction(name, *operands):
    """An instruction of a pickle by name, with its operands."""
    return getattr(pickle, name) + b"".join(operands)


def text(value):
    encoded = value.encode()
    return instruction("BINUNICODE", struct.pack("<I", len(encoded)), encoded)


def name_of(module, name):
    return instruction("GLOBAL", f"{module}\n{name}\n".encode())


def call(module, name, *arguments):
    """A call of a function with arguments that are instructions already."""
    return name_of(module, name) + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def whole(*instructions):
    return b"\x80\x04" + b"".join(instructions) + pickle.STOP


def weights(value):
    """A model zoo's file with one weight, which is an instruction."""
    return whole(
        pickle.EMPTY_DICT, pickle.MARK, text("__author__"), text("nobody"), text("model"),
        pickle.EMPTY_DICT, text("0.bias"), value, pickle.SETITEM, pickle.SETITEMS,
    )  # fmt: skip


def number(value):
    return pickle.dumps(value, protocol=2)[2:-1]


def plain(value):
    """The instructions for a plain value, without a frame around them."""
    return pickle.dumps(value, protocol=3)[2:-1]


def dtype(name, *state):
    made = call("numpy", "dtype", text(name), pickle.NEWFALSE, pickle.NEWTRUE)
    return made + plain(state) + pickle.BUILD if state else made


def array(kind, raw, shape=(3,), module="numpy.core.multiarray"):
    """NumPy's instructions for an array; ``kind`` and ``raw`` are instructions."""
    begun = call(module, "_reconstruct", name_of("numpy", "ndarray"), plain((0,)), plain(b"b"))
    state = plain(1) + plain(shape) + kind + pickle.NEWFALSE + raw
    return begun + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


FLOAT = dtype("f4", 3, "<", None, None, None, -1, -1, 0)
BYTES = plain(bytes(12))


def circle():
    items = []
    items.append(items)
    return items


def deep(depth):
    items = []
    for _ in range(depth):
        items = [items]
    return items


def repeated():
    """A few lists that hold 10^30 values, all told."""
    items = ["ha"]
    for _ in range(30):
        items = [items] * 10
    return items


def dumped(value, protocol=2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.setrecursionlimit", lambda _: None)
        return pickle.dumps(value, protocol=protocol)


PICKLES = {
    # --- code ------------------------------------------------------------------------------------
    "code instead of weights": dumped(TOUCH),
    "code among weights": dumped({"model": {"0.bias": TOUCH}, "__author__": "x"}),
    "code as author": dumped({"model": {"0.bias": np.zeros(3)}, "__author__": TOUCH}),
    "code in the latest protocol": dumped({"model": TOUCH}, pickle.HIGHEST_PROTOCOL),
    "code in the oldest protocol": dumped({"model": TOUCH}, 0),
    "code as a name": dumped({("key", TOUCH): 1}),
    "code in blobs": dumped({"blobs": {"conv1_w": TOUCH}}),
    "code in an array": dumped({"model": {"0.bias": np.array([TOUCH])}, "__author__": "x"}),
    "os.system": whole(call("os", "system", text(f"touch {MARKER}"))),
    "posix.system": whole(call("posix", "system", text(f"touch {MARKER}"))),
    "eval": whole(call("builtins", "eval", text(f"open({MARKER!r}, 'w')"))),
    "eval of Python 2": whole(call("__builtin__", "eval", text(f"open({MARKER!r}, 'w')"))),
    "exec": whole(call("builtins", "exec", text(f"open({MARKER!r}, 'w')"))),
    "open": whole(call("io", "open", text(MARKER), text("w"))),
    "getattr": whole(call("builtins", "getattr", name_of("os", "system"), text("__call__"))),
    "a name with dots": whole(call("os", "path.os.system", text(f"touch {MARKER}"))),
    "a name of NumPy with dots": whole(call("numpy", "dtype.__class__.mro", text("x"))),
    "numpy.load": whole(call("numpy", "load", text("x.npy"), pickle.NONE, pickle.NEWTRUE)),
    "numpy's runstring": whole(
        call("numpy.testing._private.utils", "runstring", text(f"open({MARKER!r}, 'w')"), plain({}))
    ),
    "torch.load": whole(call("torch", "load", text("x.pth"))),
    "a partial": whole(call("functools", "partial", name_of("os", "system"))),
    "STACK_GLOBAL": whole(
        text("os"),
        text("system"),
        pickle.STACK_GLOBAL,
        pickle.MARK,
        text(f"touch {MARKER}"),
        pickle.TUPLE,
        pickle.REDUCE,
    ),
    "INST": b"(S'touch ran'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch ran'\no.",
    "NEWOBJ": dumped(New(), 2),
    "NEWOBJ_EX": dumped(NewWithKeywords(), 4),
    "__setstate__": dumped(Built(None)),
    "a persistent id": whole(text("x"), pickle.BINPERSID),
    "a persistent id as text": b"Px\n.",
    "an extension code": whole(pickle.EXT1, b"\xf0", plain(()), pickle.REDUCE),
    "a name that is never called": weights(name_of("os", "system")),
    "a changed function": whole(
        name_of("numpy", "dtype"), plain(({}, {"__name__": "x"})), pickle.BUILD
    ),
    "a changed class": whole(
        name_of("collections", "OrderedDict"), plain({"__setitem__": 1}), pickle.BUILD
    ),
    "a changed array": weights(array(FLOAT, BYTES) + plain({"x": 1}) + pickle.BUILD),
    "a call of a text": whole(text("os.system"), plain(()), pickle.REDUCE),
    # --- arrays that are none --------------------------------------------------------------------
    "an array of objects": dumped({"model": {"0.bias": np.array([{}])}, "__author__": "x"}),
    "an array of text": dumped({"model": {"0.bias": np.array(["abc"])}, "__author__": "x"}),
    "an array of dates": dumped({"a": np.array(["2020-01-01"], "M8[D]")}),
    "a complex array": dumped({"model": {"0.bias": np.zeros(3, "c8")}, "__author__": "x"}),
    "a structured array": dumped({"model": {"0.bias": np.zeros(3, "f4,i4")}, "__author__": "x"}),
    "a byte-swapped array": dumped({"model": {"0.bias": np.zeros(3, ">f4")}, "__author__": "x"}),
    "a long double": dumped({"model": {"0.bias": np.zeros(3, "g")}, "__author__": "x"}),
    "an array with too few bytes": weights(array(FLOAT, plain(bytes(11)))),
    "an array with too many bytes": weights(array(FLOAT, plain(bytes(13)))),
    "an array of 4 TB": weights(array(FLOAT, BYTES, (10**12,))),
    "an array of a negative shape": weights(array(FLOAT, BYTES, (-3, -1))),
    "an array of shape 1.5": weights(array(FLOAT, BYTES, (1.5, 2))),
    "an array of shape True": weights(array(FLOAT, plain(bytes(4)), (True,))),
    "an array of shape text": weights(array(FLOAT, BYTES, "abc")),
    "an array of 10^5 dimensions": weights(array(FLOAT, plain(bytes(4)), (1,) * 10**5)),
    "an array whose bytes are a list": weights(array(FLOAT, plain([0, 0, 0]))),
    "an array whose bytes are no Latin-1": weights(array(FLOAT, text("\u2022" * 12))),
    "an array without a dtype": weights(array(text("f4"), BYTES)),
    "an array of itself": weights(array(FLOAT + pickle.DUP, BYTES)),
    "a dtype with fields": weights(array(dtype("f4", 3, "<", None, ("a",), {}), BYTES)),
    "a dtype that is a number": weights(array(call("numpy", "dtype", number(4)), BYTES)),
    "a dtype that is a list": weights(array(call("numpy", "dtype", plain(["f4"])), BYTES)),
    "a dtype with half a state": weights(array(dtype("f4", 3), BYTES)),
    "a dtype as a weight": weights(FLOAT),
    "an array that was only begun": weights(
        call("numpy.core.multiarray", "_reconstruct", name_of("numpy", "ndarray"))
    ),
    "numpy.zeros": weights(call("numpy", "zeros", number(10**12))),
    "a subclass of an array": weights(call("numpy", "matrix", plain([1]))),
    "items for an array": weights(array(FLOAT, BYTES) + plain(0) + plain(1) + pickle.SETITEM),
    "more items for an array": weights(
        array(FLOAT, BYTES) + pickle.MARK + array(FLOAT, BYTES) + pickle.ADDITEMS
    ),
    "one array's bytes for a thousand": whole(
        plain(bytes(10**6)),
        pickle.BINPUT,
        b"\x00",
        pickle.POP,
        pickle.EMPTY_DICT,
        pickle.MARK,
        *(text(f"{i}") + array(FLOAT, pickle.BINGET + b"\x00", (250_000,)) for i in range(1000)),
        pickle.SETITEMS,
    ),
    # --- sizes that are claimed ------------------------------------------------------------------
    "bytes of 10^12 zeros": weights(call("builtins", "bytes", number(10**12))),
    "a bytearray of 10^12 zeros": weights(call("builtins", "bytearray", number(10**12))),
    "bytes in another encoding": weights(call("_codecs", "encode", text("a" * 9), text("rot13"))),
    "an exabyte of bytes": weights(instruction("BINBYTES8", struct.pack("<Q", 2**60))),
    "an exabyte in a bytearray": weights(instruction("BYTEARRAY8", struct.pack("<Q", 2**60))),
    "an exabyte of text": weights(instruction("BINUNICODE8", struct.pack("<Q", 2**60))),
    "a gigabyte in a bytearray": weights(instruction("BYTEARRAY8", struct.pack("<Q", 2**30))),
    "a frame of an exabyte": b"\x80\x04" + instruction("FRAME", struct.pack("<Q", 2**60)) + b"}.",
    "a number of two gigabytes": weights(instruction("LONG4", struct.pack("<i", 2**31 - 1))),
    "a number of 10^5 digits": weights(pickle.LONG + b"9" * 10**5 + b"L\n"),
    "a number of 10^5 bits": weights(plain(1 << 10**5)),
    "a memo of 2^32 places": whole(pickle.EMPTY_DICT, pickle.LONG_BINPUT, b"\xff" * 4),
    "a list that holds itself": dumped(circle()),
    "a dictionary that holds a circle": dumped({"model": {"a": circle()}}),
    "lists of lists of lists": b"\x80\x04" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "a list nested 100 deep": dumped({"model": {"a": deep(100)}}),
    "lists of 10^30 values": dumped({"model": {"a": repeated()}}),
    "tuples of 10^30 values": dumped({"model": {"a": tuple(repeated())}}),
    # --- what is no pickle of weights ------------------------------------------------------------
    "an empty file": b"",
    "text": b"hello, not weights\n",
    "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "json": b'{"model": {}}',
    "noise": bytes(range(256)) * 9,
    "a picture": b"\x89PNG\r\n\x1a\n" * 9,
    "zeros": bytes(1000),
    "a STOP alone": b".",
    "a MARK alone": b"(.",
    "half a pickle": dumped({"model": dict(GOOD), "__author__": "x"})[:50],
    "a GET of nothing": whole(pickle.BINGET, b"\x07"),
    "an unknown instruction": b"\x80\x04\xff.",
    "a pickled list": dumped([1, 2, 3]),
    "a pickled number": dumped(3),
    "a pickled text": dumped("weights"),
    "a dictionary of lists": dumped({"model": [1, 2], "__author__": "x"}),
    "a dictionary with an unhashable name": whole(
        pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.NONE, pickle.SETITEM
    ),
    "names that are numbers": dumped({"model": {1: np.zeros(3, "f4")}, "__author__": "x"}),
    "weights that are text": dumped({"model": {"0.bias": "x"}, "__author__": "x"}),
    "weights that are numbers": dumped({"model": {"0.bias": 1.5}, "__author__": "x"}),
    "weights under other names": dumped({"model": {"x": np.zeros(3, "f4")}, "__author__": "x"}),
    "weights of other shapes": dumped({"model": {"0.bias": np.zeros(4, "f4")}, "__author__": "x"}),
    "blobs that are a list": dumped({"blobs": []}),
    "no weights at all": dumped({"model": {}, "__author__": "x"}),
    "two names for one weight": dumped({"blobs": {"a_b": np.zeros(3), "a.b": np.zeros(3)}}),
    "a pyramid level without a number": dumped({"blobs": {"fpn_resX_sum_w": np.zeros(3)}}),
    "a classifier without dimensions": dumped({"blobs": {"cls_score_b": np.array(1.5)}}),
}


def saved(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def in_order(items, **attributes):
    """A state dictionary with attributes, as torch's has ``_metadata``."""
    made = collections.OrderedDict(items)
    made.__dict__.update(attributes)
    return made


def zipped(*, compression=zipfile.ZIP_STORED, **entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def compressed():
    """A checkpoint in a compressed archive: 1 GB of zeros would be 1 MB."""
    stream = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(saved({"model": dict(GOOD)})))
    with source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    return stream.getvalue()


def compressed_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to torch they are new
        return torch.eye(3).to_sparse_csr()


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will drop them
        return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


TORCH_FILES = {
    "code in torch's form": saved({"model": TOUCH}),
    "code beside good weights": saved({"model": GOOD, "other": TOUCH}),
    "code in torch's old form": saved({"model": TOUCH}, _use_new_zipfile_serialization=False),
    "a function in torch's form": saved({"model": GOOD, "other": os.system}),
    "a class in torch's form": saved({"model": GOOD, "other": Victim()}),
    "a NumPy scalar in torch's form": saved({"model": {"0.bias": np.float64(1)}}),
    "a bytearray of 10^12 zeros in torch's form": saved(
        {"model": {"0.bias": Calls(bytearray, 10**12)}}
    ),
    "a tensor of 4 TB in torch's form": saved({"model": {"a": Calls(torch.FloatTensor, 10**12)}}),
    "half a file": saved({"model": GOOD})[:700],
    "a file without its end": saved({"model": GOOD})[:-10],
    "half a file in the old form": saved({"model": GOOD}, _use_new_zipfile_serialization=False)[
        :-20
    ],
    "a zip of garbage": b"PK\x03\x04" + bytes(range(256)) * 9,
    "a zip of text": zipped(readme_dot_txt="hello"),
    "a zip with a broken pickle": zipped(a__data_dot_pkl="hello", a__version="3"),
    "a compressed zip": compressed(),
    "a tensor alone": saved(torch.zeros(3)),
    "a list of tensors": saved([torch.zeros(3)]),
    "None": saved(None),
    "an empty dictionary": saved({}),
    "a dictionary without a model": saved({"optimizer": {}, "iteration": 3}),
    "a model that is None": saved({"model": None}),
    "a model that is a list": saved({"model": [torch.zeros(3)]}),
    "a model that is a tensor": saved({"model": torch.zeros(3)}),
    "a model that is text": saved({"model": "resnet50"}),
    "a model in a model": saved({"model": {"model": GOOD}}),
    "a value that is None": saved({"model": {**GOOD, "0.bias": None}}),
    "a value that is text": saved({"model": {**GOOD, "0.bias": "x"}}),
    "a value that is a list": saved({"model": {**GOOD, "0.bias": [1.0, 2.0, 3.0]}}),
    "a name that is a number": saved({"model": {**GOOD, 7: torch.zeros(3)}}),
    "a name that is a tuple": saved({"model": {**GOOD, ("a", 1): torch.zeros(3)}}),
    "a name that is None": saved({"model": {**GOOD, None: torch.zeros(3)}}),
    "names of another model": saved({"model": {f"net.{k}": v for k, v in GOOD.items()}}),
    "other shapes": saved({"model": {k: torch.zeros(7, 7) for k in GOOD}}),
    "a sparse tensor": saved({"model": {**GOOD, "0.weight": torch.eye(3)[:, :2].to_sparse()}}),
    "a compressed sparse tensor": saved({"model": {"0.weight": compressed_rows()}}),
    "a complex tensor": saved({"model": {**GOOD, "0.bias": torch.zeros(3, dtype=torch.cfloat)}}),
    "a quantized tensor": saved({"model": {**GOOD, "0.bias": quantized()}}),
    "a meta tensor": saved({"model": {**GOOD, "0.bias": torch.zeros(3, device="meta")}}),
    "a tensor of 4 TB without content": saved(
        {"model": {**GOOD, "0.bias": torch.zeros(1).expand(10**12)}}
    ),
    "a tensor of 4 TB on no device": saved(
        {"model": {**GOOD, "0.bias": torch.zeros(10**12, device="meta")}}
    ),
    "a circle in torch's form": saved({"model": GOOD, "other": circle()}),
    "10^30 values in torch's form": saved({"model": GOOD, "other": repeated()}),
    "a number of 10^5 bits in torch's form": saved({"model": GOOD, "iteration": 1 << 2000}),
    "versions that are a list": saved({"model": in_order(GOOD, _metadata=[1])}),
    "versions that are text": saved({"model": in_order(GOOD, _metadata={"": {"version": "x"}})}),
    "versions of nothing": saved({"model": in_order(GOOD, _metadata={"": 3})}),
}


FILES = {
    **{name: (content, ".pkl") for name, content in PICKLES.items()},
    **{name: (content, ".pth") for name, content in TORCH_FILES.items()},
    "code in a file of pycls": (saved({"model_state": TOUCH}), ".pyth"),
    "a file of pycls without weights": (saved({"model": GOOD}), ".pyth"),
    "a pickle called a checkpoint": (PICKLES["code among weights"], ".pth"),
    "a pickle without an ending": (PICKLES["os.system"], ""),
}


class InputOfResNets:
    """Stands for the torchvision engine's settings: it begins with the weights of a file."""

    def __init__(self, weights):
        self.weights = str(weights)


def detectron2(*, strict):
    return lambda path: Checkpointer(network(), strict=strict).load(str(path), checkpointables=[])


READERS = [
    pytest.param(lambda p: tv.load_initial_weights(network(), InputOfResNets(p)), id="tv-train"),
    pytest.param(lambda p: tv.load_weights(network(), p), id="tv-eval"),
    pytest.param(detectron2(strict=False), id="d2-train", marks=needs_detectron2),
    pytest.param(detectron2(strict=True), id="d2-eval", marks=needs_detectron2),
]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own, in which nothing may appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(copyreg, "_inverted_registry", {0xF0: ("os", "getcwd")})
    yield
    assert not (tmp_path / MARKER).exists(), "code of the file ran"


def write(folder, name):
    content, ending = FILES[name]
    path = folder / f"weights{ending}"
    path.write_bytes(content)
    return path


def test_there_are_more_than_a_hundred():
    assert len(FILES) > 140


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
def test_hostile_and_damaged_weights(tmp_path, name, reader):
    path = write(tmp_path, name)
    with pytest.raises(UserError) as refusal:
        reader(path)
    message = str(refusal.value)
    assert len(message) < 1000
    assert "weights" in message
    assert "weights_only" not in message, "torch's advice to read it with code"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_code_would_run_if_pickle_read_it(tmp_path):
    """Else the tests above would show nothing."""
    for name in ("code among weights", "os.system", "INST", "NEWOBJ", "NEWOBJ_EX", "__setstate__"):
        with suppress(Exception):
            pickle.loads(PICKLES[name])
        assert (tmp_path / MARKER).exists(), name
        (tmp_path / MARKER).unlink()


# --- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_a_good_file_is_read(tmp_path, reader):
    """Else the tests above would show nothing."""
    path = tmp_path / "weights.pth"
    torch.save({"model": GOOD, METADATA_KEY: {"engine": engine_of(reader)}}, path)
    reader(path)


def engine_of(reader):
    return "torchvision" if reader.__code__.co_names[0] == "tv" else "detectron2"


class TorchvisionRun:
    """What is needed to save and resume a run of the torchvision engine."""

    def __init__(self, folder):
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.path = folder / checkpoint_name(3)

    def save(self):
        step(self.model, self.optimizer)
        metadata = {"engine": "torchvision"}
        save_checkpoint(self.path, self.model, self.optimizer, Progress(3, seed=7), metadata)
        return self.path

    def resume(self):
        tv.resume(self.path, self.model, self.optimizer)


class Detectron2Run:
    """The same for Detectron2's engine."""

    def __init__(self, folder):
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = Trainer(self.model, [], self.optimizer)
        cfg = get_cfg()
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 9, ()
        hook = LRScheduler(self.optimizer, build_lr_scheduler(cfg, self.optimizer))
        self.trainer.register_hooks([hook])
        self.checkpointer = Checkpointer(
            self.model, str(folder), metadata={"engine": "detectron2"}, trainer=self.trainer
        )

    def save(self):
        step(self.model, self.optimizer)
        self.checkpointer.save("model_0000002", iteration=2)
        return Path(self.checkpointer.get_checkpoint_file())

    def resume(self):
        self.checkpointer.resume_or_load("", resume=True)


def step(model, optimizer):
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()


def _momentum(content):
    """The dictionary of the first parameter's buffers."""
    return content.get("trainer", content)["optimizer"]["state"][0]


def _optimizer(content):
    return content.get("trainer", content)["optimizer"]


RUNS = [
    pytest.param(TorchvisionRun, id="torchvision"),
    pytest.param("Detectron2Run", id="detectron2", marks=needs_detectron2),
]
# Changes to a good checkpoint's content, in place.
DAMAGED_RUNS = {
    "no iteration": lambda c: c.pop("iteration"),
    "an iteration that is text": lambda c: c.update(iteration="3"),
    "an iteration that is a tensor": lambda c: c.update(iteration=torch.tensor([3, 4])),
    "an iteration that is True": lambda c: c.update(iteration=True),
    "iteration 1.5": lambda c: c.update(iteration=1.5),
    "a negative iteration": lambda c: c.update(iteration=-1),
    "iteration 10^18": lambda c: c.update(iteration=10**18),
    "iteration 10^99": lambda c: c.update(iteration=10**99),
    "no model": lambda c: c.pop("model"),
    "a model that is a list": lambda c: c.update(model=[1]),
    "no optimizer": lambda c: c.get("trainer", c).pop("optimizer"),
    "an optimizer that is a list": lambda c: c.get("trainer", c).update(optimizer=[1]),
    "an optimizer that is None": lambda c: c.get("trainer", c).update(optimizer=None),
    "an optimizer without state": lambda c: _optimizer(c).pop("state"),
    "an optimizer without groups": lambda c: _optimizer(c).pop("param_groups"),
    "an optimizer whose groups are a number": lambda c: _optimizer(c).update(param_groups=3),
    "an optimizer with an empty group": lambda c: _optimizer(c).update(param_groups=[{}]),
    "an optimizer whose state is a list": lambda c: _optimizer(c).update(state=[1]),
    "buffers of no parameter": lambda c: _optimizer(c)["state"].update({99: {}}),
    "buffers by name": lambda c: _optimizer(c)["state"].update({"x": {}}),
    "buffers that are a tensor": lambda c: _optimizer(c)["state"].update({0: torch.zeros(3)}),
    "momentum of another shape": lambda c: _momentum(c).update(momentum_buffer=torch.zeros(7)),
    "momentum that is text": lambda c: _momentum(c).update(momentum_buffer="x"),
    "sparse momentum": lambda c: _momentum(c).update(momentum_buffer=torch.eye(3).to_sparse()),
    "the state of Adam": lambda c: _momentum(c).update(exp_avg=torch.zeros(3, 2)),
    "a function in the optimizer": lambda c: _optimizer(c).update(other=os.system),
}
DAMAGED_TORCHVISION = {
    "no seed": lambda c: c.pop("seed"),
    "a seed that is text": lambda c: c.update(seed="7"),
    "a seed of 100 bits": lambda c: c.update(seed=1 << 100),
    "no random numbers": lambda c: c.pop("rng"),
    "random numbers of another length": lambda c: c.update(rng=torch.zeros(9, dtype=torch.uint8)),
    "random numbers of another type": lambda c: c.update(rng=torch.zeros(5056)),
    "random numbers that are text": lambda c: c.update(rng="x"),
    "random numbers that are garbage": lambda c: c.update(rng=torch.zeros_like(c["rng"]) + 255),
}
DAMAGED_DETECTRON2 = {
    "no training state": lambda c: c.pop("trainer"),
    "a training state that is a list": lambda c: c.update(trainer=[1]),
    "a training state that is empty": lambda c: c.update(trainer={}),
    "no loss scale": lambda c: c["trainer"].pop("scaler"),
    "hooks that are a list": lambda c: c["trainer"].update(hooks=[1]),
    "a schedule that is a list": lambda c: c["trainer"]["hooks"].update(LRScheduler=[1]),
    "a schedule without its place": lambda c: c["trainer"]["hooks"].update(LRScheduler={"x": 1}),
    "a schedule at text": lambda c: c["trainer"]["hooks"].update(LRScheduler={"last_epoch": "x"}),
    "the trainer at text": lambda c: c["trainer"].update(iteration="x"),
}
RESUMING = [
    *((name, change, run) for name, change in DAMAGED_RUNS.items() for run in RUNS),
    *((name, change, RUNS[0]) for name, change in DAMAGED_TORCHVISION.items()),
    *((name, change, RUNS[1]) for name, change in DAMAGED_DETECTRON2.items()),
]


@pytest.mark.parametrize(
    ("change", "run"),
    [
        pytest.param(change, *run.values, marks=run.marks, id=f"{run.id}: {name}")
        for name, change, run in RESUMING
    ],
)
def test_damaged_training_states(tmp_path, change, run):
    made = (TorchvisionRun if run is TorchvisionRun else Detectron2Run)(tmp_path)
    path = made.save()
    made.resume()
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(UserError) as refusal:
        made.resume()
    assert len(str(refusal.value)) < 1000


def test_momentum_is_a_copy_of_the_file(tmp_path):
    """Else a run whose own next checkpoint replaces the file would read what is no more there."""
    run = TorchvisionRun(tmp_path)
    path = run.save()
    run.resume()
    before = [value["momentum_buffer"].clone() for value in run.optimizer.state.values()]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    after = [value["momentum_buffer"] for value in run.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# --- what may be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", ["numpy", "numpy.core", "numpy._core"])
def test_pickles_of_arrays_are_read_to_the_bit(tmp_path, protocol, module):
    arrays = {
        "float": np.linspace(0, 1, 6, dtype="f4").reshape(2, 3),
        "double in columns": np.asfortranarray(np.linspace(0, 1, 6).reshape(2, 3)),
        "half": np.ones((2, 2, 2), "f2"),
        "bytes": np.arange(256, dtype="u1"),
        "number": np.array(3),
        "nothing": np.zeros((0, 4), "i2"),
        "every other": np.arange(10, dtype="i4")[::2],
    }
    arrays["the same"] = arrays["float"]
    rest = {
        "__author__": "nobody", "matching_heuristics": True, "set": {1, 2}, "bytes": b"a\xff",
        "no bytes": b"", "ordered": collections.OrderedDict(a=1), "float": np.float32(1.5),
        "int": np.int64(-7), "tuple": (1, (2.5, None)), "large": 2**40,
    }  # fmt: skip
    content = pickle.dumps({"model": arrays, **rest}, protocol=protocol)
    if module != "numpy" and protocol < 4:  # where names are stored as lines
        content = content.replace(b"cnumpy._core.", f"c{module}.".encode())
        content = content.replace(b"cnumpy.core.", f"c{module}.".encode())
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    read = load_checkpoint(path)
    for name, array_ in arrays.items():
        value = read["model"][name].numpy()
        assert value.dtype == array_.dtype
        assert np.array_equal(value, array_)
    assert read["model"]["the same"] is read["model"]["float"]
    assert {k: v for k, v in read.items() if k != "model"} == rest


def python2_pickle(arrays):
    """What Python 2 wrote for a dictionary of arrays; text and bytes are 8-bit strings in it."""

    def short(value):
        return pickle.SHORT_BINSTRING + bytes([len(value)]) + value

    def one(value):
        kind = value.dtype.str[1:].encode()
        dtype = (
            b"cnumpy\ndtype\n" + short(kind) + b"K\x00K\x01\x87R"
            b"(K\x03" + short(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        shape = b"(" + b"".join(b"K" + bytes([n]) for n in value.shape) + b"t"
        raw = pickle.BINSTRING + struct.pack("<i", value.nbytes) + value.tobytes()
        begun = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return begun + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"

    items = b"".join(short(name.encode()) + one(value) for name, value in arrays.items())
    return b"\x80\x02}(" + items + b"u."


def test_pickles_of_python_2_are_read_as_pickle_reads_them(tmp_path):
    arrays = {"conv1_w": np.linspace(-1, 1, 6, dtype="f4").reshape(2, 3), "b": np.arange(5)}
    content = python2_pickle(arrays)
    expected = pickle.loads(content, encoding="latin1")
    assert all(np.array_equal(expected[name], arrays[name]) for name in arrays)
    (tmp_path / "weights.pkl").write_bytes(content)
    read = load_checkpoint(tmp_path / "weights.pkl")
    assert list(read) == list(expected)
    assert all(np.array_equal(read[name].numpy(), expected[name]) for name in expected)


def test_more_values_than_any_checkpoint_has(tmp_path, monkeypatch):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x04" + b"N" * 2000 + b"}.")
    assert load_checkpoint(path) == {}
    monkeypatch.setattr(checkpoint, "MAX_OPCODES", 1000)
    with pytest.raises(UserError, match="more than 1000 instructions"):
        load_checkpoint(path)
    torch.save({"model": list(range(1000))}, path)
    with pytest.raises(UserError, match="more than 1000 instructions"):
        load_checkpoint(path)


def test_versions_of_modules_are_kept(tmp_path):
    """They decide whether weights without some buffers are old or damaged."""
    path = tmp_path / "weights.pth"
    torch.save({"model": GOOD}, path)
    state = model_state(load_checkpoint(path)["model"], path)
    assert state._metadata == {"": {"version": 1}, "0": {"version": 1}, "1": {"version": 2}}


def test_a_model_is_stopped_while_it_grows(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(bytes(1000))
    made = 0

    def build(sizes):
        nonlocal made
        with model_of_file(path):
            for inputs, outputs in sizes:
                nn.Linear(inputs, outputs)
                made += 1

    with pytest.raises(UserError, match=r"larger model than a file of 1000 bytes"):
        build([(10_000, 10_000)])
    assert made == 0
    with pytest.raises(UserError, match="larger model"):
        build([(1, 1)] * 10**6)
    assert 100 < made < 10_000
    with pytest.raises(UserError, match=r"no model that can be built. \[TypeError: "):
        build([("x", 1)])
    nn.Linear(10, 10_000_000)  # not counted after the block
