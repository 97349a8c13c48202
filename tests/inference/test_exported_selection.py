"""Detections of a model that is being exported are the model's own, for other inputs too."""

import pytest
import torch

from eql_d2.inference import is_exporting, select_detections

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


class Answer(torch.nn.Module):
    """1 where it is being exported, else 0."""

    def forward(self, x):
        return x + (1 if is_exporting() else 0)


@pytest.mark.parametrize(
    "export",
    [
        lambda module, x: torch.jit.trace(module, (x,), check_trace=False),
        lambda module, x: torch.export.export(module, (x,), strict=False).module(),
        lambda module, x: torch.export.export(module, (x,), strict=True).module(),
        lambda module, x: torch.compile(module, backend="eager", fullgraph=True),
    ],
    ids=["trace", "export", "strict export", "compile"],
)
def test_the_ways_of_exporting_are_told_from_eager_mode(export):
    x = torch.zeros(2)
    assert Answer()(x).tolist() == [0, 0]
    assert export(Answer(), x)(x).tolist() == [1, 1]
    assert Answer()(x).tolist() == [0, 0]


@pytest.mark.parametrize("min_side", [None, 1.0])
@pytest.mark.parametrize("max_detections", [20, 0, -1])
def test_a_traced_selection_fits_other_scores_and_other_numbers_of_rois(min_side, max_detections):
    """More than a thousand candidates, so that outside of a trace the best alone are looked at."""

    def select(scores, boxes):
        found = select_detections(
            scores,
            lambda rois, categories: boxes[rois] + categories[:, None],
            score_threshold=1e-4,
            nms_threshold=0.5,
            max_detections=max_detections,
            min_side=min_side,
            first_label=1,
        )
        return found.boxes, found.scores, found.categories, found.rois

    def case(seed, rois):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(rois, 2, generator=generator) * 200
        sides = torch.rand(rois, 2, generator=generator) * 40
        scores = torch.rand(rois, 50, generator=generator)
        return scores, torch.cat([corners, corners + sides], 1)

    traced = torch.jit.trace(select, case(0, 40), check_trace=False)
    for inputs in (case(1, 60), case(2, 25), case(3, 1)):
        for one, other in zip(traced(*inputs), select(*inputs), strict=True):
            assert torch.equal(one, other)
    nothing = torch.zeros(3, 50), torch.zeros(3, 4)
    assert [len(x) for x in traced(*nothing)] == [0] * 4
