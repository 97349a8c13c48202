"""How image counts reach a model that is built from a configuration alone."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from eql_d2.categories import CategoryStatistics, write_statistics
from eql_d2.config import add_eql_config
from eql_d2.data import generate_longtail_shapes
from eql_d2.errors import ConfigError, DataError, MissingPackageError
from eql_d2.files import STATISTICS_FILE

with suppress(MissingPackageError):
    from eql_d2.engines.d2.compat import get_cfg
    from eql_d2.engines.d2.statistics import (
        statistics_from_config,
        with_num_classes,
    )

pytestmark = pytest.mark.detectron2


@pytest.fixture
def cfg():
    tree = get_cfg()
    add_eql_config(tree)
    tree.MODEL.ROI_HEADS.NUM_CLASSES = -1
    return tree


def test_prepared_counts_come_back_equal(cfg, statistics, tmp_path):
    path = write_statistics(statistics.with_groups(mode="quantiles"), tmp_path / "new" / "folder")
    assert path.name == STATISTICS_FILE
    cfg.MODEL.EQL.STATISTICS = str(path)
    assert statistics_from_config(cfg) == statistics.with_groups(mode="quantiles")


def test_machines_that_write_at_the_same_time_do_not_meet(statistics, tmp_path, monkeypatch):
    write_text = Path.write_text

    def overtaken(path, *args):
        """Between writing and renaming, another machine does both."""
        done = write_text(path, *args)
        monkeypatch.setattr(Path, "write_text", write_text)
        write_statistics(statistics, tmp_path)
        return done

    monkeypatch.setattr(Path, "write_text", overtaken)
    path = write_statistics(statistics, tmp_path)
    assert list(tmp_path.iterdir()) == [path], "a temporary file was left"
    assert json.loads(path.read_text()) == statistics.to_dict()


def test_prepared_counts_are_read_again_when_they_change(cfg, statistics, tmp_path):
    import os

    path = write_statistics(statistics, tmp_path)
    cfg.MODEL.EQL.STATISTICS = str(path)
    assert statistics_from_config(cfg).num_images == 1000
    content = json.loads(path.read_text()) | {"num_images": 2000}
    path.write_text(json.dumps(content))
    os.utime(path, (1, 1))
    assert statistics_from_config(cfg).num_images == 2000


@pytest.mark.parametrize(("table", "count"), [("lvis_v0.5", 1230), ("lvis_v1", 1203)])
def test_tables(cfg, table, count):
    cfg.MODEL.EQL.STATISTICS = table
    assert len(statistics_from_config(cfg)) == count
    assert with_num_classes(cfg).MODEL.ROI_HEADS.NUM_CLASSES == count
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == -1


def test_annotation_files_for_scripts_of_others(cfg, tmp_path):
    train_json, *_ = generate_longtail_shapes(
        tmp_path / "shapes",
        num_categories=4,
        num_train_images=8,
        num_test_images=4,
        image_size=64,
        seed=1,
    )
    expected = CategoryStatistics.from_json(train_json)
    cfg.MODEL.EQL.STATISTICS = str(train_json)
    assert statistics_from_config(cfg).image_count.tolist() == expected.image_count.tolist()
    cfg.MODEL.EQL.STATISTICS = "train"
    cfg.DATA.TRAIN_JSON = str(train_json)
    assert len(statistics_from_config(cfg)) == 4


def test_no_source_is_an_error_that_names_both_keys(cfg):
    with pytest.raises(ConfigError, match=r"MODEL\.EQL\.STATISTICS .* DATA\.TRAIN_JSON") as caught:
        statistics_from_config(cfg)
    assert "lvis_v1" in str(caught.value)


def test_a_file_that_is_not_there(cfg, tmp_path):
    cfg.MODEL.EQL.STATISTICS = str(tmp_path / STATISTICS_FILE)
    with pytest.raises(DataError, match=STATISTICS_FILE):
        statistics_from_config(cfg)


@pytest.mark.parametrize("number", [80, 1230])  # Detectron2's default, and the other LVIS's
def test_other_class_count(cfg, number):
    cfg.MODEL.EQL.STATISTICS = "lvis_v1"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = number
    message = rf"NUM_CLASSES is {number} .* 1203 categories; set it to 1203, or to -1"
    with pytest.raises(ConfigError, match=message):
        statistics_from_config(cfg)
