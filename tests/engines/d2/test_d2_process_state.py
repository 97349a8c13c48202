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

PACKAGES = ("eql_d2", "detectron2", "fvcore")


def state_of_logs():
    loggers = [logging.getLogger(name) for name in (*PACKAGES, TRAINING_LOOP)]
    return [(x.level, x.propagate, list(x.handlers), list(x.filters)) for x in loggers]


@pytest.fixture
def process(monkeypatch):
    """``process(n)``: this process is the one of that rank, and nobody else prints the log."""

    def become(rank):
        monkeypatch.setattr(process_state.comm, "get_rank", lambda: rank)
        monkeypatch.setattr(logging.getLogger(), "handlers", [])

    return become


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("error", [None, RuntimeError, UserError, KeyboardInterrupt])
def test_loggers_are_put_back_however_the_run_ends(tmp_path, process, rank, error):
    process(rank)
    before = state_of_logs()
    with suppress(RuntimeError, UserError, KeyboardInterrupt), run_log(tmp_path):
        assert state_of_logs() != before
        if error is not None:
            raise error("over")
    assert state_of_logs() == before
    logging.getLogger("eql_d2").warning("after the run")
    (log,) = tmp_path.iterdir()
    assert "after the run" not in log.read_text()


def test_a_run_writes_what_all_three_packages_say_once(tmp_path):
    folder = tmp_path / "new" / "folder"
    for number in range(2):  # a resumed run goes on in the same file
        with run_log(folder):
            for name in PACKAGES:
                logging.getLogger(name).info(f"{name} said {number}, ä")
                logging.getLogger(name).debug("not this")
    lines = (folder / "log.txt").read_text("utf-8").splitlines()
    assert len(lines) == 6
    for line, (number, name) in zip(
        lines, [(n, name) for n in range(2) for name in PACKAGES], strict=True
    ):
        assert line.endswith(f" {name}] {name} said {number}, ä")


@pytest.mark.parametrize(("rank", "name"), [(0, "log.txt"), (2, "log.txt.rank2")])
def test_each_process_writes_a_file_and_the_first_one_prints(tmp_path, process, capsys, rank, name):
    process(rank)
    with run_log(tmp_path):
        logging.getLogger("eql_d2").info("once")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text().count("once") == 1
    assert capsys.readouterr().out.count("once") == (rank == 0)


def test_only_the_first_process_hands_on_to_others_that_print(tmp_path, monkeypatch, caplog):
    for rank in (0, 2):
        monkeypatch.setattr(process_state.comm, "get_rank", lambda rank=rank: rank)
        with caplog.at_level("INFO"), run_log(tmp_path):
            logging.getLogger("eql_d2").info(f"from {rank}")
    assert "from 0" in caplog.text
    assert "from 2" not in caplog.text


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
    with suppress(RuntimeError), random_state_kept():
        draw()
        raise RuntimeError("over")
    assert [first, draw()] == expected
    assert inside == expected[1], "inside, the numbers go on too"
