import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.objectives import VICReg, collapse_diagnosis
from pdessl.objectives.diagnosis import CAUSES

from .embeddings import draw


def healthy(n=256, width=16):
    return draw(n, width, seed=1)


def low_rank(n=256, width=16, rank=2):
    z = draw(n, rank, seed=2) @ draw(rank, width, seed=3)
    return z / z.std(dim=0)


def dead(n=256, width=16):
    z = healthy(n, width)
    z[:, :3] = 0.2
    return z


def one_point(n=256, width=16):
    return 3 + 1e-3 * draw(n, width, seed=4)


def shrunk(n=256, width=16):
    return 1e-2 * healthy(n, width)


@pytest.mark.parametrize(
    ("cause", "make", "more"),
    [
        ("healthy", healthy, {}),
        ("healthy", lambda: 50 * healthy() + 3, {"target_std": None}),
        ("healthy", shrunk, {"target_std": None}),
        ("healthy", healthy, {"second": healthy() + 0.3 * draw(256, 16, seed=9), "features": low_rank()}),
        ("healthy", healthy, {"second": healthy() + draw(256, 16, seed=9)}),  # half as far apart as two samples
        ("complete collapse", one_point, {}),
        ("complete collapse", one_point, {"target_std": None}),
        ("complete collapse", shrunk, {}),
        ("complete collapse", lambda: torch.zeros(64, 4), {}),
        ("complete collapse", one_point, {"features": one_point()}),
        ("projector collapse", one_point, {"features": healthy()}),
        ("projector collapse", low_rank, {"features": healthy()}),
        ("projector collapse", shrunk, {"features": healthy()}),
        ("narrow embeddings", lambda: low_rank(256, 64, 6), {"features": healthy()}),
        ("dimensional collapse", low_rank, {}),
        ("dimensional collapse", low_rank, {"features": low_rank()}),
        ("dead dimensions", dead, {}),
        ("dead dimensions", lambda: 40 * dead(), {"target_std": None}),
        ("noise floor", lambda: 0.73 * draw(2048, 512, seed=1), {"batch": 64}),
        ("healthy", lambda: 0.73 * draw(2048, 512, seed=1), {"batch": 64, "debias_covariance": True}),
        ("unrelated views", healthy, {"second": draw(256, 16, seed=9)}),
        ("non-finite", lambda: torch.full((8, 3), math.nan), {}),
    ],
)
def test_each_deliberate_failure_gets_its_name_and_a_remedy(cause, make, more):
    found = collapse_diagnosis(make(), **more)
    assert found.cause == cause, found.message
    assert found.message.startswith(f"{cause}: ")
    assert found.message.endswith(CAUSES[cause])
    assert found.collapsed == ("collapse" in cause or cause == "non-finite")
    assert all(math.isfinite(v) for v in found.values.values())


@pytest.mark.parametrize(
    ("relative_to", "make", "more"),
    [
        (None, one_point, {}),
        ("relative_deviation", lambda: 30 + healthy(), {"features": 30 + healthy()}),
        ("relative_deviation", lambda: 30 + healthy(), {"features": healthy()}),
        (None, low_rank, {"features": healthy()}),
        ("std_max", shrunk, {}),
        ("std_max", shrunk, {"features": healthy()}),
        ("rank_me", low_rank, {}),
        ("features_rank_me", low_rank, {"features": low_rank()}),
        (None, healthy, {}),
    ],
)
def test_what_may_be_low_from_the_start_is_named(relative_to, make, more):
    found = collapse_diagnosis(make(), **more)
    assert found.relative_to == relative_to
    assert relative_to is None or relative_to in found.values


def test_every_cause_of_the_table_is_documented():
    assert all(cause in collapse_diagnosis.__doc__ for cause in CAUSES)


def test_a_training_that_collapses_is_diagnosed_and_one_that_is_regularised_is_not():
    """Invariance alone drives a linear encoder to a point; with the anti-collapse term it stays spread."""
    causes = {}
    for weight in (0.0, 25.0):
        torch.manual_seed(0)
        x, encoder = torch.randn(256, 8), torch.nn.Linear(8, 8)
        objective = VICReg(25.0, weight, weight / 25)
        optimiser = torch.optim.Adam(encoder.parameters(), lr=0.02)
        for _ in range(150):
            views = [encoder(x + 0.3 * torch.randn_like(x)) for _ in range(2)]
            optimiser.zero_grad()
            objective.terms(*views).loss.backward()
            optimiser.step()
        causes[weight] = collapse_diagnosis(encoder(x), batch=256 if weight else None).cause
    assert causes == {0.0: "complete collapse", 25.0: "healthy"}


def test_diagnosis_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"got \(8, 3\), \(7, 3\); expected"):
        collapse_diagnosis(torch.zeros(8, 3), torch.zeros(7, 3))
