"""Generation: trajectories that blow up, settings that are refused, and every dataset that is shipped."""

import os
import sys

import pytest
import torch

import pdessl.data
from pdessl.data import load_recipe
from pdessl.errors import CatalogError, DataError, ResolutionError
from pdessl.solvers import Burgers


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store"
    return pdessl.data.generate("burgers_small", path, overrides={"shard_size": 4}, progress=False)


class Fragile(Burgers):
    """Blows up for every initial field whose first value is positive."""

    def solve(self, initial, times, observed=None, sampling="points"):
        solution = super().solve(initial, times, observed, sampling)
        solution.trajectories.fields[initial[:, 0, 0] > 0] = float("inf")
        return solution


class Broken(Burgers):
    """Never finite."""

    def solve(self, initial, times, observed=None, sampling="points"):
        solution = super().solve(initial, times, observed, sampling)
        solution.trajectories.fields[:] = float("nan")
        return solution


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "fragile_simulators", sys.modules[__name__])


def test_non_finite_trajectories_are_drawn_again_counted_and_reported(importable, uninterrupted, tmp_path):
    overrides = {"solver.simulator": "fragile_simulators.Fragile", "observation.noise": 0.0, "shard_size": 4}
    store = pdessl.data.generate("burgers_small", tmp_path / "s", overrides=overrides, progress=False)
    test = store.load("test").check_finite()
    assert bool((test.fields[:, 0, 0, 0] <= 0).all())
    assert test.index.tolist() == list(range(8))
    # About every second draw is rejected: 80 accepted among Geometric(1/2) attempts.
    assert 40 < store.rejected_draws < 140
    assert f"{store.rejected_draws} draws were not finite" in str(pdessl.data.inspect(store.path))
    kept = [k for k, field in enumerate(uninterrupted.load("test").fields) if simulated_first(k) <= 0]
    assert kept, "some first draws are kept, and equal those of the sound simulator"
    clean = pdessl.data.simulate(load_recipe("burgers_small", overrides={"observation.noise": 0.0}), "test", kept)
    torch.testing.assert_close(test[kept].fields, clean.fields, rtol=0, atol=1e-6)


def simulated_first(k):
    recipe = load_recipe("burgers_small", overrides={"observation.noise": 0.0})
    return float(pdessl.data.simulate(recipe, "test", [k]).fields[0, 0, 0, 0])


def test_a_solver_that_never_works_is_an_error_not_an_endless_loop(importable, tmp_path):
    with pytest.raises(DataError, match="not finite in 20 draws.*solver.courant"):
        pdessl.data.generate(
            "burgers_small", tmp_path / "s", overrides={"solver.simulator": "fragile_simulators.Broken"}, progress=False
        )
    assert os.listdir(tmp_path / "s") == ["manifest.json"]


def test_under_resolved_settings_are_refused_before_anything_is_written(tmp_path):
    overrides = {
        "solver.points": 64,
        "parameters.viscosity": {"distribution": "log_uniform", "low": 0.005, "high": 0.1},
    }
    with pytest.raises(ResolutionError, match=r"64 points do not resolve .*viscosity.*'auto' or at least \d+"):
        pdessl.data.generate("burgers_small", tmp_path / "s", overrides=overrides)
    assert not (tmp_path / "s").exists()


def test_unknown_name_writes_nothing(tmp_path):
    with pytest.raises(CatalogError, match="Did you mean"):
        pdessl.data.generate("burgrs", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_per_trajectory_domain_lengths(tmp_path):
    overrides = {"domain.length": {"distribution": "uniform", "low": 4.0, "high": 8.0}}
    store = pdessl.data.generate(
        "burgers_small", tmp_path / "s", size={"unlabelled": 0, "labelled": 0}, overrides=overrides, progress=False
    )
    data = store.load("test")
    assert len(set(data.lengths[:, 0].tolist())) == 8 and data.lengths.min() >= 4 and data.lengths.max() <= 8
    torch.testing.assert_close(data.grid_spacing * 32, data.lengths)
    assert "spacing 0." in str(pdessl.data.inspect(store.path))


def test_a_bar_is_shown_when_asked_and_nothing_otherwise(tmp_path, capfd):
    sizes = {"unlabelled": 4, "labelled": 0, "validation": 0, "test": 0}
    pdessl.data.generate("burgers_small", tmp_path / "quiet", size=sizes)
    assert capfd.readouterr() == ("", "")
    pdessl.data.generate("burgers_small", tmp_path / "bar", size=sizes, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "unlabelled" in err and "4/4" in err


def test_default_time_stepping_error_is_far_below_the_noise():
    """The default dataset's own settings against a grid twice as fine with an eighth of the step."""
    recipe = load_recipe("burgers", overrides={"observation.noise": 0.0})
    fine = load_recipe("burgers", overrides={"observation.noise": 0.0, "solver.points": 2048, "solver.courant": 1.0})
    error = (
        pdessl.data.simulate(recipe, "test", range(6)).fields - pdessl.data.simulate(fine, "test", range(6)).fields
    ).abs()
    level = load_recipe("burgers").observation["noise"]
    assert error.max() < 0.25 * level and error.square().mean().sqrt() < 0.01 * level, (
        error.max(),
        error.square().mean().sqrt(),
    )
