"""The order of training images."""

from collections import Counter
from itertools import islice

import pytest
import torch

from eql_d2.data import ImageRecord, Instance
from eql_d2.engines.tv.sampler import batch_stream, index_stream, orientation, repeat_factors


def records_with(*categories):
    return [
        ImageRecord(i, "", 10, 10, [Instance(c, (0, 0, 1, 1), None, False) for c in entry])
        for i, entry in enumerate(categories)
    ]


def test_each_epoch_is_another_permutation():
    drawn = list(islice(index_stream(10, seed=3), 30))
    epochs = [drawn[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert drawn == list(islice(index_stream(10, seed=3), 30))
    assert drawn != list(islice(index_stream(10, seed=4), 30))


def test_repeats_come_as_often_as_asked():
    factors = torch.tensor([1.0, 2.0, 1.25])
    counts = Counter(islice(index_stream(3, 0, factors), 17000))
    shares = [counts[i] / 17000 * 4.25 for i in range(3)]
    assert shares == pytest.approx([1.0, 2.0, 1.25], rel=0.03)


def test_whole_repeats_are_exact_in_each_epoch():
    drawn = list(islice(index_stream(3, 0, torch.tensor([1.0, 3.0, 2.0])), 60))
    for start in range(0, 60, 6):
        assert Counter(drawn[start : start + 6]) == {0: 1, 1: 3, 2: 2}


def test_repeat_factors_follow_the_rarest_category():
    records = records_with([0], [0, 0], [0, 1], [0], [])
    factors = repeat_factors(records, 0.4, sqrt=True)
    assert factors.tolist() == pytest.approx([1, 1, 2**0.5, 1, 1])
    assert repeat_factors(records, 0.4, sqrt=False).tolist() == pytest.approx([1, 1, 2, 1, 1])


def test_crowds_repeat_nothing():
    crowd = Instance(1, (0, 0, 1, 1), None, True)
    records = records_with([0], [0], [0], [0])
    records[2].instances.append(crowd)
    assert repeat_factors(records, 0.5, sqrt=True).tolist() == [1, 1, 1, 1]


@pytest.mark.detectron2
@pytest.mark.parametrize("sqrt", [True, False])
def test_repeat_factors_are_detectron2s(sqrt):
    from detectron2.data import samplers

    generator = torch.Generator().manual_seed(0)
    entries = []
    for _ in range(50):
        number = int(torch.randint(0, 4, (), generator=generator))
        weights = torch.tensor([8.0, 4, 2, 1, 0.3])
        drawn = torch.multinomial(weights, 5, generator=generator)[:number]
        entries.append(drawn.tolist())
    records = records_with(*entries)
    theirs = samplers.RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        [{"annotations": [{"category_id": c} for c in entry]} for entry in entries], 0.5, sqrt
    )
    torch.testing.assert_close(repeat_factors(records, 0.5, sqrt), theirs)


def test_batches_number_their_images():
    batches = list(islice(batch_stream(iter([5, 6, 7, 8]), 2), 2))
    assert batches == [[(0, 5), (1, 6)], [(2, 7), (3, 8)]]


def test_batches_hold_one_orientation():
    records = [ImageRecord(i, "", 10, width, []) for i, width in enumerate([20, 5, 20, 20, 10, 20])]
    stream = index_stream(6, seed=0)
    batches = list(islice(batch_stream(stream, 2, lambda i: orientation(records[i])), 60))
    for batch in batches:
        assert len({orientation(records[i]) for _, i in batch}) == 1
    positions = [p for batch in batches for p, _ in batch]
    assert len(set(positions)) == 120
    assert max(positions) <= 121  # at most one image of each group is waiting


def test_skipping_batches_equals_going_on():
    def stream():
        return batch_stream(index_stream(7, 1, torch.linspace(1, 2, 7)), 3, lambda i: i % 2)

    assert list(islice(stream(), 5, 12)) == list(islice(stream(), 12))[5:]
