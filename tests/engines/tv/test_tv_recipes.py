"""Every recipe of the repository, seen by this engine."""

from pathlib import Path

import pytest

from eql_d2.config import load_config
from eql_d2.engines.tv.reading import read_settings
from eql_d2.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
QUICK = sorted((CONFIGS / "quick").glob("*.yaml"))
LVIS = sorted(CONFIGS.glob("LVIS*/*.yaml"))


def test_there_are_recipes_to_look_at():
    assert len(QUICK) == 7
    assert len(LVIS) >= 24


@pytest.mark.parametrize("path", QUICK, ids=lambda p: p.stem)
def test_quick_recipes_run_without_a_warning(path, caplog):
    settings = read_settings(load_config(path))
    assert settings.backbone.depth == 18
    assert not caplog.records


@pytest.mark.parametrize("path", LVIS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_lvis_recipes_need_local_weights_and_no_cascade(path):
    """The weights are Detectron2's by address; apart from them only cascade heads are refused."""
    wanted = {"MODEL.WEIGHTS"}
    if "cascade" in path.stem:
        wanted |= {"MODEL.ROI_HEADS.NAME"}
    with pytest.raises(ConfigError) as caught:
        read_settings(load_config(path))
    assert {problem.split()[0].rstrip(":") for problem in caught.value.problems} == wanted
    if "cascade" not in path.stem:
        settings = read_settings(load_config(path, ["MODEL.WEIGHTS", ""]))
        assert settings.roi.num_classes in (1203, 1230)
        assert settings.roi.max_detections == 300
