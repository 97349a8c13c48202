"""The count of allocated bytes."""

import torch

from eql_d2.losses.allocations import peak_bytes

CPU = torch.device("cpu")
SIZE = 400_000


def array():
    return torch.empty(SIZE, dtype=torch.uint8)


def test_counts_what_is_held_at_once():
    def two_then_one():
        first, second = array(), array()
        del first, second
        array()

    assert 2 * SIZE <= peak_bytes(two_then_one, CPU) < 2.1 * SIZE


def test_counts_what_operators_take_for_themselves():
    floats = torch.ones(SIZE // 4)
    assert SIZE <= peak_bytes(lambda: floats.double().sum(), CPU) < 2.1 * SIZE


def test_what_was_there_before_is_not_counted():
    held = [array()]
    assert SIZE <= peak_bytes(lambda: held.append(array()), CPU) < 1.1 * SIZE
    assert peak_bytes(held.clear, CPU) == 0
