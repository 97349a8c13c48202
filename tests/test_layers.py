"""Who may import what: the dependency table of the design, enforced from the import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "eql_d2"

# Third-party packages each part may import at module level ("" is the package's own root).
ALLOWED = {
    "losses": {"torch"},
    "categories": {"torch", "numpy"},
    "data": {"numpy", "torch"},
    "evaluation/benchmark_candidates.py": {"numpy"},
    "evaluation": {"numpy"},
    "submission": {"numpy"},
    "plotting": {"numpy"},
    "reporting": {"numpy"},
    "inference": {"numpy", "torch", "torchvision"},
    "engines/tv": {"torch", "torchvision", "numpy", "fvcore", "yaml", "PIL", "pycocotools"},
    "engines/d2": {"torch", "numpy", "fvcore", "yaml", "detectron2", "pycocotools", "PIL"},
    "__init__.py": set(),
    "errors.py": set(),
    "files.py": set(),
    "finite.py": {"torch"},
    "json_files.py": set(),
    "annotation_checks.py": set(),
    "config.py": {"fvcore", "yaml"},
    "config_values.py": set(),
    "config_checks.py": {"fvcore", "torch"},
    "command_line.py": set(),
    "checkpoint.py": {"torch"},
    "experiment.py": {"fvcore", "torch"},
    "training_log.py": set(),
}
# What may additionally be imported inside functions, where only those who call them pay.
ALLOWED_INSIDE = {
    "data": {"pycocotools", "PIL", "orjson"},
    "evaluation/benchmark_candidates.py": {"pycocotools", "lvis", "faster_coco_eval"},
    "evaluation": {"pycocotools", "orjson"},
    "submission": {"orjson"},
    "plotting": {"matplotlib", "PIL", "pycocotools"},
    "inference": {"pycocotools"},
    "json_files.py": {"orjson"},
    "reporting": {"PIL"},
    "experiment.py": {"matplotlib"},
}
# Parts of eql_d2 each part may import (besides itself and the leaves below).
LEAVES = {"errors", "files", "json_files", "annotation_checks"}
BELOW = {
    "errors.py": set(),
    "files.py": set(),
    "json_files.py": set(),
    "annotation_checks.py": set(),
    "losses": set(),
    "categories": set(),
    "data": {"categories"},
    "evaluation/benchmark_candidates.py": {"evaluation"},
    "evaluation": set(),
    "submission": {"categories", "evaluation"},
    "plotting": {"categories", "data", "evaluation"},
    "reporting": {"categories", "data", "evaluation", "plotting"},
    "inference": set(),
}
EVERYTHING_BELOW = {
    *BELOW,
    "config",
    "config_values",
    "config_checks",
    "checkpoint",
    "experiment",
    "finite",
    "command_line",
    "training_log",
}
BELOW["engines/tv"] = BELOW["engines/d2"] = EVERYTHING_BELOW


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE).as_posix()
    return next((p for p in ALLOWED if relative == p or relative.startswith(f"{p}/")), relative)


def source_files() -> list[Path]:
    files = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "engines" / "__init__.py"]
    assert len(files) > 25, "the package was not found"
    return files


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return ``(dotted module, at module level)`` of every import; typing-only ones left out."""
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", top))
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inside)

    visit(ast.parse(path.read_text()), True)
    return found


@pytest.mark.parametrize("path", source_files(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_third_party_imports_follow_the_table(path):
    part = part_of(path)
    assert part in ALLOWED, f"{path} belongs to no part of the dependency table"
    for module, top in imports(path):
        root = module.split(".")[0]
        if root in sys.stdlib_module_names or root == "eql_d2":
            continue
        allowed = ALLOWED[part] if top else ALLOWED[part] | ALLOWED_INSIDE.get(part, set())
        where = "at module level" if top else "inside a function"
        assert root in allowed, f"{path.name} imports {module} {where}"


@pytest.mark.parametrize(
    "path",
    [p for p in source_files() if part_of(p) in BELOW],  # the root's modules tie the parts together
    ids=lambda p: p.relative_to(PACKAGE).as_posix(),
)
def test_lower_layers_never_import_higher_ones(path):
    part = part_of(path)
    for module, _ in imports(path):
        if not module.startswith("eql_d2."):
            continue
        imported = module.removeprefix("eql_d2.")
        allowed = {part, *LEAVES, *BELOW[part]}
        assert any(
            imported == a.replace("/", ".") or imported.startswith(a.replace("/", ".") + ".")
            for a in allowed
        ), f"{path.name} of {part} imports {module}"


HEAVY = ("numpy", "torchvision", "detectron2", "fvcore", "yaml", "pycocotools", "matplotlib", "PIL")


@pytest.mark.parametrize("module", ["eql_d2", "eql_d2.losses", "eql_d2.categories"])
def test_imports_with_torch_alone(module):
    """Everything but torch is blocked; torch itself lives without NumPy."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Block())
import {module}
print("imported", sorted(m for m in {HEAVY!r} if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "imported []" in done.stdout


def test_no_tool_holds_logic_of_its_own():
    tools = sorted((PACKAGE.parent / "tools").glob("*.py"))
    assert len(tools) >= 6
    for tool in tools:
        assert len(tool.read_text().splitlines()) <= 120, f"{tool.name} is longer than 120 lines"
