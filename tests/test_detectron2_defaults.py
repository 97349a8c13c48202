"""The bundled table of Detectron2's keys is what the real Detectron2 says."""

import pytest
import yaml

from eql_d2.config import detectron2_defaults

pytestmark = pytest.mark.detectron2


def test_the_bundled_defaults_are_detectron2s_own():
    from detectron2.config import get_cfg

    assert yaml.safe_load(get_cfg().dump()) == yaml.safe_load(detectron2_defaults().dump())
