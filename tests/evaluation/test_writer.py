"""The results file while it is written, when it is done, and when the writer fails."""

import json

import numpy as np
import pytest

from eql_d2.errors import ResultsError, UserError
from eql_d2.evaluation import ImageDetections, ResultsWriter, concatenate_results

RLE = {"size": [4, 6], "counts": "4314=0"}


def detections(n, masks=False, seed=0):
    rng = np.random.default_rng(seed)
    return ImageDetections(
        boxes=rng.random((n, 4)).astype(np.float32),
        scores=rng.random(n).astype(np.float32),
        categories=rng.integers(0, 3, n),
        masks=[RLE] * n if masks else None,
    )


@pytest.mark.parametrize("masks", [False, True])
def test_round_trip(tmp_path, masks):
    path = tmp_path / "inference" / "results.json"
    parts = [(4, detections(3, masks)), (9, detections(0, masks)), (2, detections(2, masks, 1))]
    with ResultsWriter(path, category_ids=[10, 20, 90]) as writer:
        for image_id, part in parts:
            writer.add(np.int64(image_id), part)
    records = json.loads(path.read_text())
    assert [r["image_id"] for r in records] == [4, 4, 4, 2, 2]
    expected = [part for _, part in parts if len(part)]
    ids = np.array([10, 20, 90])[np.concatenate([p.categories for p in expected])]
    assert [r["category_id"] for r in records] == ids.tolist()
    assert [r["score"] for r in records] == np.concatenate([p.scores for p in expected]).tolist()
    assert [r["bbox"] for r in records] == np.concatenate([p.boxes for p in expected]).tolist()
    assert [r.get("segmentation") for r in records] == [RLE if masks else None] * 5


def test_no_detections_is_an_empty_list(tmp_path):
    with ResultsWriter(tmp_path / "results.json", [1]) as writer:
        writer.add(1, detections(0))
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_counts_as_bytes_become_text(tmp_path):
    part = detections(1)
    rle = {"size": np.array([4, 6]), "counts": b"4314=0"}
    part = ImageDetections(part.boxes, part.scores, part.categories, [rle])
    with ResultsWriter(tmp_path / "results.json", [1, 2, 3]) as writer:
        writer.add(1, part)
    assert json.loads((tmp_path / "results.json").read_text())[0]["segmentation"] == RLE


def test_file_has_its_name_only_when_whole(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("older")
    with ResultsWriter(path, [1, 2, 3]) as writer:
        writer.add(1, detections(2))
        assert path.read_text() == "older"
    assert len(json.loads(path.read_text())) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_older_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("older")

    def fail():
        with ResultsWriter(path, [1, 2, 3]) as writer:
            writer.add(1, detections(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_many_images_stream_to_disk(tmp_path):
    """What was added is on its way to the disk, not in the writer."""
    with ResultsWriter(tmp_path / "results.json", [1, 2, 3]) as writer:
        for image_id in range(50):
            writer.add(image_id, detections(100))
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_size > 400_000
    records = json.loads((tmp_path / "results.json").read_text())
    assert len(records) == 5000
    assert len((tmp_path / "results.json").read_text().splitlines()) == 5002


def replaced(part, **changes):
    fields = {name: getattr(part, name) for name in ("boxes", "scores", "categories", "masks")}
    return ImageDetections(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.array([0.1, np.nan])}, "image 6 .* not finite.*diverged"),
        ({"boxes": np.array([[0, 0, 1, 1], [0, 0, np.inf, 1]])}, "image 6 .* not finite"),
        ({"categories": np.array([0, 3])}, r"category index 3; expected 0\.\.2"),
        ({"categories": np.array([-1, 0])}, r"category index -1; expected 0\.\.2"),
    ],
)
def test_detections_that_cannot_be_written(tmp_path, changes, message):
    writer = ResultsWriter(tmp_path / "results.json", [1, 2, 3])
    with writer, pytest.raises(ResultsError, match=message):
        writer.add(6, replaced(detections(2), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": np.zeros((2, 5))},
        {"boxes": np.zeros((3, 4))},
        {"scores": np.zeros((2, 1))},
        {"categories": np.zeros(1, int)},
        {"masks": [RLE]},
    ],
)
def test_parts_that_do_not_belong_together(changes):
    with pytest.raises(ValueError, match="must have the shapes"):
        replaced(detections(2), **changes)


def test_writer_needs_its_block(tmp_path):
    with pytest.raises(RuntimeError, match="with"):
        ResultsWriter(tmp_path / "results.json", [1]).add(1, detections(0))


def test_shards_of_several_processes_are_joined(tmp_path):
    shards = [tmp_path / f"results.{rank}.json" for rank in range(3)]
    for rank, shard in enumerate(shards):
        with ResultsWriter(shard, [1, 2, 3]) as writer:
            for image_id in range(rank):
                writer.add(10 * rank + image_id, detections(2, masks=True, seed=rank))
    joined = tmp_path / "results.json"
    concatenate_results(shards, joined)
    expected = [record for shard in shards for record in json.loads(shard.read_text())]
    assert len(expected) == 6
    assert json.loads(joined.read_text()) == expected
    concatenate_results(shards[:1], joined)
    assert json.loads(joined.read_text()) == []


@pytest.mark.parametrize("number", [1, 2000], ids=["fails at the end", "fails on the way"])
def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(tmp_path, full_disk, number):
    path = tmp_path / "results.json"
    writer = ResultsWriter(path, [1, 2, 3])
    with full_disk(100), pytest.raises(UserError, match=r"results\.json cannot be written"), writer:
        writer.add(1, detections(number))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="outside of its"):
        writer.add(1, detections(1))


def test_shards_stay_when_they_cannot_be_joined(tmp_path, full_disk):
    shard = tmp_path / "shard.json"
    with ResultsWriter(shard, [1, 2, 3]) as writer:
        writer.add(1, detections(5))
    with full_disk(100), pytest.raises(UserError, match=r"all\.json cannot be written"):
        concatenate_results([shard], tmp_path / "all.json")
    assert list(tmp_path.iterdir()) == [shard]
