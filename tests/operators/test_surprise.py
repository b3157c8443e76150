"""Departures from a law show where and when they happen."""

import pytest
import torch

from pdessl.operators import discover, surprise

from .test_latent import heat_waves, runs_of


@pytest.fixture(scope="module")
def law():
    return discover(heat_waves(), half_width=(6, 6), noise_removed=False, resamples=0)


def switched(count=6, frames=80, at=40):
    """Heat waves whose diffusivity doubles at a frame; the field is continuous there."""
    runs = heat_waves(count=count, frames=frames, seed=3)
    nu = runs.parameters["viscosity"]
    t, x = runs.time[:, :, None], runs.space[0][:, None, :]
    after = (t - t[:, at : at + 1]).clamp_min(0)
    fields = 0
    for k in (1, 2):
        fields = fields + torch.exp(-nu[:, None, None] * k**2 * (t + after)) * torch.sin(k * x + k)
    return runs_of(fields[:, None], parameters={"viscosity": nu})


def test_the_mean_square_of_novelty_is_the_residual_of_the_run(law):
    runs = heat_waves(seed=5)
    backwards = runs.replace(fields=runs.fields.flip(2) + 0.3 * runs.fields)
    found = surprise(law, backwards)
    assert found.novelty.shape == (24, 1, 28, 48) and found.frames.shape == (24, 28)
    halves = found.novelty.square().flatten(1).mean(dim=1)
    assert torch.allclose(halves, law.residual(backwards), rtol=2e-2, atol=1e-5)
    assert torch.allclose(found.per_frame("novelty").mean(dim=1), halves)
    assert torch.allclose(found.per_place("novelty").mean(dim=1), halves)


def test_values_do_not_depend_on_units(law):
    runs = heat_waves(count=5, seed=5)
    found = surprise(law, runs.replace(fields=runs.fields + 0.1 * runs.fields.flip(2)))
    scaled = surprise(law, runs.replace(fields=7 * (runs.fields + 0.1 * runs.fields.flip(2))))
    assert torch.allclose(found.novelty, scaled.novelty, atol=1e-9)


def test_runs_of_the_law_surprise_nowhere(law):
    found = surprise(law, heat_waves(seed=9))
    assert float(found.per_frame("novelty").max()) < 1e-3
    assert bool(found.surprise[:, :, :13].isnan().all()) and float(found.per_frame()[:, 13:].max()) < 1e-2


def test_a_parameter_that_changes_on_the_way_shows_at_its_frame(law):
    runs = switched()
    found = surprise(law, runs)
    score = found.per_frame()
    changed = runs.time[0, 40]
    before, after = found.frames[0] < changed - 6 * runs.time_step[0], found.frames[0] > changed + 6 * runs.time_step[0]
    before[:13] = False
    assert float(score[:, before].amax()) < 0.02 * float(score[:, after].amax(dim=1).min())
    # The first frame above a tenth of the largest is where the window first touches the change.
    first = (score.nan_to_num() > 0.1 * score.nan_to_num().amax(dim=1, keepdim=True)).int().argmax(dim=1)
    assert bool(((found.frames[0, first] - changed).abs() <= 7 * runs.time_step[0]).all())
    # With the code of the whole run nothing says when.
    assert float(law.residual(runs).min()) > 50 * float(law.residual(heat_waves()).max())


def test_a_place_where_something_else_acts_is_seen(law):
    runs = heat_waves(count=4, seed=5)
    pushed = runs.fields.clone()
    pushed[:, 0, 15:25, 30] += 0.3 * pushed.abs().amax()
    score = surprise(law, runs.replace(fields=pushed)).per_place()
    places = surprise(law, runs).places[0][0]
    assert bool(((places[score.argmax(dim=1)] - runs.space[0][0, 30]).abs() <= 6.01 * runs.grid_spacing[0, 0]).all())


def test_a_law_without_codes_is_surprised_by_what_is_new():
    runs = heat_waves(count=1).fields
    factors = torch.linspace(0.5, 2, 12, dtype=torch.float64)[:, None, None, None]
    law = discover(runs_of(factors * runs), half_width=(6, 6), noise_removed=False, resamples=0)
    assert law.rank == 0
    found = surprise(law, heat_waves(count=3, seed=8))
    assert torch.equal(found.novelty, found.surprise) and float(found.per_frame().max()) > 0.1
