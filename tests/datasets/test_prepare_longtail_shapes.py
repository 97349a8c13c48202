from pathlib import Path

import pytest

from eql_d2.config import load_config
from eql_d2.data import load_detection_data
from eql_d2.errors import ConfigError

RECIPE = Path(__file__).resolve().parents[2] / "configs/quick/longtail_shapes_base.yaml"
SMALL = ["--categories", "5", "--train-images", "12", "--test-images", "6", "--image-size", "64"]


@pytest.fixture
def main(script):
    return script("prepare_longtail_shapes").main


def test_the_set_is_made_and_its_keys_are_printed(main, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "set"), *SMALL, "--seed", "2"]) == 0
    printed = capsys.readouterr().out
    assert "5 categories" in printed
    words = printed.split()
    values = {key: words[words.index(f"DATA.{key}") + 1] for key in ("TEST_JSON", "TEST_IMAGES")}
    assert len(load_detection_data(values["TEST_JSON"], values["TEST_IMAGES"]).images) == 6
    first = (tmp_path / "set" / "train.json").stat().st_mtime_ns
    assert main(["--output", str(tmp_path / "set"), *SMALL, "--seed", "2"]) == 0
    assert (tmp_path / "set" / "train.json").stat().st_mtime_ns == first


def test_the_defaults_are_those_of_the_quick_recipes(script, monkeypatch):
    module, asked = script("prepare_longtail_shapes"), {}

    def generate(directory, **parameters):
        asked.update(parameters, dir=directory)
        raise ConfigError("enough")

    monkeypatch.setattr(module, "generate_longtail_shapes", generate)
    with pytest.raises(ConfigError, match="enough"):
        module.main([])
    recipe = load_config(RECIPE).DATA
    assert recipe.GENERATE == "longtail_shapes"
    assert asked == {key.lower(): value for key, value in recipe.LONGTAIL_SHAPES.items()}


def test_impossible_sizes_are_refused(main, tmp_path):
    with pytest.raises(ConfigError, match="num_categories must be"):
        main(["--output", str(tmp_path / "set"), "--categories", "0"])
