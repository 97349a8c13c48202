"""Detectron2 is optional: what its names do where it is missing, old or half installed."""

import ast
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import eql_d2
from eql_d2.command_line import DETECTRON2_COMMIT
from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import compat

ENGINE = Path(eql_d2.__file__).parent / "engines" / "d2"
LAZY_NAMES = ("EQLROIHeads", "EQLCascadeROIHeads", "add_eql_config")
# The commands are one a line, as a user would paste them.
INSTALL = (
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2',
    DETECTRON2_COMMIT,
    "setuptools<81",
)


def run_without(package, code):
    """Run ``code`` in a Python where importing ``package`` fails as if it were not installed."""
    block = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r} or name.startswith({package!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
    return subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, check=False
    )


def test_names_without_detectron2_give_the_install_line():
    code = f"""
import eql_d2
from eql_d2.errors import MissingPackageError
for name in {LAZY_NAMES!r}:
    try:
        getattr(eql_d2, name)
    except MissingPackageError as error:
        print(error)
    else:
        raise SystemExit(f"{{name}} loaded")
try:
    from eql_d2 import EQLROIHeads
except ImportError as error:
    print(error)
"""
    done = run_without("detectron2", code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4, "one line each"
    for line in lines:
        assert "not installed" in line
        for part in INSTALL:
            assert part in line


def test_import_loads_neither_engine_nor_detectron2():
    code = (
        "import sys, eql_d2; print([m for m in sys.modules if 'engines' in m or 'detectron2' in m])"
    )
    done = run_without("nothing", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_unknown_names_are_no_lazy_names():
    with pytest.raises(AttributeError, match="EQLRoiHead"):
        _ = eql_d2.EQLRoiHead
    assert set(LAZY_NAMES) <= set(dir(eql_d2))


def test_all_of_detectron2_is_imported_in_one_place():
    files = sorted(ENGINE.glob("*.py"))
    assert len(files) > 10
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = [name for name in names if name.split(".")[0] == "detectron2"]
            assert not found or path.name == "compat.py", f"{path.name} imports {found}"


@pytest.mark.detectron2
def test_names_load_with_detectron2():
    from eql_d2 import EQLCascadeROIHeads, EQLROIHeads, add_eql_config

    assert compat.ROI_HEADS_REGISTRY.get("EQLROIHeads") is EQLROIHeads
    assert compat.ROI_HEADS_REGISTRY.get("EQLCascadeROIHeads") is EQLCascadeROIHeads
    cfg = compat.get_cfg()
    add_eql_config(cfg)
    assert cfg.MODEL.EQL.LOSS.NAME == "EQL"


@pytest.mark.detectron2
def test_nothing_is_imported_for_nothing():
    text = "".join(p.read_text() for p in ENGINE.glob("*.py") if p.name != "compat.py")
    own = {"INSTALL", "import_problem"}
    # BoxMode and the like are used by this package; EventStorage and the like by its tests.
    text += "".join(p.read_text() for p in Path(__file__).parent.glob("*.py"))
    unused = [name for name in compat.__all__ if name not in own and name not in text]
    assert not unused


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("x", name="detectron2.newthing"), "has no module detectron2.newthing"),
        (ModuleNotFoundError("x", name="pkg_resources"), "setuptools<81"),
        (ImportError("libtorch.so: cannot open", name="detectron2._C"), "libtorch.so"),
        (ImportError("cannot import name 'get_cfg'", name="detectron2.config"), "'get_cfg'"),
    ],
)
def test_other_problems_are_named_in_one_line(error, expected):
    message = compat.import_problem(error)
    assert expected in message
    assert "pip install" in message
    assert "\n" not in message
    assert issubclass(MissingPackageError, UserError)


@pytest.mark.detectron2
def test_half_an_installation_is_reported_without_a_chain_of_imports():
    code = """
from eql_d2.errors import MissingPackageError
try:
    import eql_d2.engines.d2
except MissingPackageError as error:
    print(error)
"""
    done = run_without("omegaconf", code)
    assert done.returncode == 0, done.stderr
    assert "omegaconf" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert DETECTRON2_COMMIT in done.stdout
