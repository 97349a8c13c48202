"""How the suite itself reports these tests where Detectron2 is missing."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
# Both outcomes in one process: importing torch is what takes the time.
RUN_TWICE = """
import importlib.util, os, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "detectron2" else real(name, *a)
import pytest
for required in "01":
    os.environ["EQL_D2_REQUIRE_DETECTRON2"] = required
    code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
    print("EXIT", int(code))
"""


def test_tests_are_collected_and_reported_as_not_run():
    tests = [FOLDER / "test_d2_output_layers.py", ROOT / "tests" / "test_detectron2_defaults.py"]
    done = subprocess.run(
        [sys.executable, "-c", RUN_TWICE, *map(str, tests)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    optional, required, _ = done.stdout.split("EXIT")
    assert "NOT RUN: Detectron2 is not installed" in optional
    assert "requires it" in required
    counts = []
    for report, outcome in ((optional, "skipped"), (required, "error")):
        summary = [line for line in report.splitlines() if outcome in line][-1]
        assert "passed" not in summary
        counts.append(int(summary.split()[0]))
    assert counts[0] == counts[1] > 20, "every test is reported, not only its file"
    assert required.lstrip().startswith("0"), "missing, but not required: no failure"
    assert done.stdout.rstrip().endswith("EXIT 1"), "missing and required: a failure"
