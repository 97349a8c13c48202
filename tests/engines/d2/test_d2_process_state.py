"""What a run changes in its process is put back, however the run ends."""

import logging
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eql_d2.errors import MissingPackageError, UserError

with suppress(MissingPackageError):
    from eql_d2.engines.d2 import process_state
    from eql_d2.engines.d2.process_state import (
        TRAINING_LOOP,
        random_state_kept,
        run_log,
        torch_switches,
    )

pytestmark = pytest.mark.detectron2

LOGGERS = ("eql_d2", "detectron2", "fvcore", TRAINING_LOOP)


def state_of_logs():
    loggers = [logging.getLogger(name) for name in LOGGERS]
    return [(x.level, x.propagate, list(x.handlers), list(x.filters)) for x in loggers]


@pytest.mark.parametrize("error", [None, RuntimeError, UserError, KeyboardInterrupt])
def test_loggers_are_put_back_however_the_run_ends(tmp_path, error):
    before = state_of_logs()
    with suppress(RuntimeError, UserError, KeyboardInterrupt), run_log(tmp_path):
        assert state_of_logs() != before
        if error is not None:
            raise error("over")
    assert state_of_logs() == before
    logging.getLogger("eql_d2").warning("after the run")
    assert "after the run" not in (tmp_path / "log.txt").read_text()


def test_a_run_writes_what_all_three_packages_say_once(tmp_path):
    folder = tmp_path / "new" / "folder"
    for number in range(2):  # a resumed run goes on in the same file
        with run_log(folder):
            for name in LOGGERS[:3]:
                logging.getLogger(name).info(f"{name} said {number}, ä")
                logging.getLogger(name).debug("not this")
    lines = (folder / "log.txt").read_text("utf-8").splitlines()
    assert len(lines) == 6
    for line, (number, name) in zip(
        lines, [(n, name) for n in range(2) for name in LOGGERS[:3]], strict=True
    ):
        assert line.endswith(f" {name}] {name} said {number}, ä")


def test_other_processes_write_files_of_their_own_and_print_nothing(
    tmp_path, monkeypatch, caplog, capsys
):
    monkeypatch.setattr(process_state.comm, "get_rank", lambda: 2)
    with caplog.at_level("INFO"), run_log(tmp_path):
        logging.getLogger("eql_d2").info("from the third")
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt.rank2"]
    assert "from the third" in (tmp_path / "log.txt.rank2").read_text()
    assert caplog.text == capsys.readouterr().out == ""


@pytest.mark.parametrize(("error", "shown"), [(UserError, False), (RuntimeError, True)])
def test_a_traceback_is_for_our_faults_and_not_for_mistakes_of_users(tmp_path, error, shown):
    with run_log(tmp_path):
        log = logging.getLogger(TRAINING_LOOP)
        try:
            raise error("what went wrong")
        except error:
            log.exception("Exception during training:")
        log.info("and an ordinary line")
    text = (tmp_path / "log.txt").read_text()
    assert ("Traceback" in text) == shown
    assert "and an ordinary line" in text


def switches():
    return torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("asked", "precision"), [(True, "high"), (False, ""), (True, "medium")])
def test_switches_of_torch(asked, precision, training):
    """Test images have many sizes: benchmarking is for training alone."""
    before = switches()
    cfg = SimpleNamespace(CUDNN_BENCHMARK=asked, FLOAT32_PRECISION=precision)
    with torch_switches(cfg, training=training):
        assert switches() == (asked and training, precision or before[1])
    assert switches() == before
    with pytest.raises(RuntimeError), torch_switches(cfg, training=training):
        raise RuntimeError("over")
    assert switches() == before


def test_random_numbers_go_on_as_if_nothing_was_drawn():
    def draw():
        return torch.rand(3).tolist() + np.random.rand(3).tolist()

    torch.manual_seed(1)
    np.random.seed(1)
    expected = [draw(), draw()]
    torch.manual_seed(1)
    np.random.seed(1)
    first = draw()
    with random_state_kept():
        inside = draw()
        torch.manual_seed(99)
        np.random.seed(99)
    assert [first, draw()] == expected
    assert inside == expected[1], "inside, the numbers go on too"
