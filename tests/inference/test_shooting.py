"""The simulator, fitted: exact on clean runs, better than the weak form on noisy ones, and honest about its error."""

import pytest
import torch

import pdessl
from pdessl.data import load_recipe
from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.classical import weak_form
from pdessl.experiments.estimates import Classical, equation_estimates
from pdessl.inference.shooting import shoot


def runs_of(dataset, count=6, **observation):
    recipe = load_recipe(dataset, overrides={f"observation.{n}": v for n, v in observation.items()})
    return pdessl.simulate(recipe, "test", range(count))


def relative(found, runs, name):
    truth = runs.parameters[name].double()
    return (found - truth).abs() / truth


def test_clean_runs_give_their_parameter_back_and_nothing_of_a_label_is_read():
    runs = runs_of("burgers", count=3, noise=0.0, points=128, frames=16, end=2.0)
    bare = runs.replace(parameters={})
    found = shoot("burgers", bare, "viscosity")
    assert relative(found.value[:, 0], runs, "viscosity").max() < 2e-3
    assert (found.frames == 16).all() and found.misfit.max() < 1e-2


@pytest.mark.parametrize(
    "dataset, name, settings",
    [
        ("burgers", "viscosity", {"frames": 24, "end": 3.0}),
        ("kdv", "dispersion", {"frames": 24, "end": 6.0}),
        ("kuramoto_sivashinsky", "hyperviscosity", {"frames": 24, "end": 76.6, "points": 64}),
    ],
)
def test_noisy_runs_are_read_better_than_by_the_weak_form(dataset, name, settings):
    runs = runs_of(dataset, **settings)
    found = shoot(runs.equation, runs, name)
    ours = relative(found.value[:, 0], runs, name).mean()
    weak = relative(weak_form(runs.equation, runs, name), runs, name).mean()
    assert ours < 0.7 * weak
    # Six runs: the truth is within a few of the errors that are stated, and these are no larger than they must be.
    score = (found.value[:, 0] - runs.parameters[name].double()) / found.error[:, 0]
    assert score.abs().max() < 4 and score.square().mean() > 0.05


def test_two_parameters_are_found_together():
    runs = runs_of("kdv", count=4, frames=24, end=6.0)
    known = runs.replace(parameters={})
    found = shoot(runs.equation, known, ("steepening", "dispersion"))
    for i, name in enumerate(("steepening", "dispersion")):
        assert relative(found.value[:, i], runs, name).max() < 0.05, name
    with pytest.raises(DataError, match="value of steepening is not known"):
        shoot(runs.equation, known, "dispersion")


def test_a_run_is_fitted_the_same_alone():
    runs = runs_of("burgers", count=3, frames=16, end=2.0)
    together, alone = shoot("burgers", runs, "viscosity"), shoot("burgers", runs[[1]], "viscosity")
    # The grid and the number of modes are those of the batch: to the accuracy of a fit.
    assert abs(together.value[1, 0] - alone.value[0, 0]) < 0.5 * alone.error[0, 0]


def test_it_is_a_row_among_the_classical_estimates():
    runs = runs_of("burgers", count=1, frames=12, end=2.0)
    found, reasons = equation_estimates(Classical(shooting=True), "burgers", "viscosity", runs)
    assert not reasons
    assert torch.equal(found["shooting"], shoot("burgers", runs, "viscosity").value[:, 0])
    plane = pdessl.simulate("navier_stokes_2d", "test", range(1))
    found, reasons = equation_estimates(Classical(shooting=True), plane.equation, "viscosity", plane)
    assert "shooting" not in found and "simulator on a periodic interval" in reasons["shooting"]


def test_what_cannot_be_fitted_is_said():
    runs = runs_of("burgers", count=2, frames=16, end=2.0)
    with pytest.raises(DataError, match="has no parameter 'viscosty'; it has viscosity"):
        shoot("burgers", runs, "viscosty")
    with pytest.raises(ShapeError, match="windows of 40 frames of runs with 16"):
        shoot("burgers", runs, "viscosity", frames=[40])
    with pytest.raises(ShapeError, match="expected 4 frames or more"):
        shoot("burgers", runs.window(slice(0, 3)), "viscosity")
    with pytest.raises(DataError, match="has none. There are some of advection_diffusion, burgers"):
        shoot("fisher_kpp", runs, "viscosity")
