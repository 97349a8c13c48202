"""The training log of a run that was stopped behind its last checkpoint."""

import json

import pytest

from eql_d2.training_log import keep_records


def records(*iterations):
    return [json.dumps({"iteration": i, "total_loss": 1.5}) for i in iterations]


@pytest.mark.parametrize(("start", "kept"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_records_from_the_first_new_iteration_on_are_dropped(tmp_path, start, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(records(0, 1, 2)) + "\n")
    keep_records(path, start)
    assert path.read_text().splitlines() == records(*kept)


@pytest.mark.parametrize("broken", ['{"iteration": 1, "tot', "[]", "{}", ""])
def test_what_a_killed_run_left_half_written_is_dropped(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*records(0), broken]))
    keep_records(path, 5)
    assert path.read_text() == records(0)[0] + "\n", "the next record would join the last line"


@pytest.mark.parametrize("start", [0, 7])
def test_a_log_that_is_not_there_is_begun(tmp_path, start):
    keep_records(tmp_path / "metrics.jsonl", start)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
