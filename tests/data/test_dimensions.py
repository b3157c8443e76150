"""Datasets of two axes and several fields: draws, grids, noise and coordinates, with an exactly solvable model."""

import math
import sys

import numpy as np
import pytest
import torch

import pdessl.data
from pdessl.data import DatasetRecipe, load_recipe
from pdessl.errors import ResolutionError, SchemaError
from pdessl.solvers import FAMILIES, InitialCondition, Simulator, Solution, random_stream


class Waves(InitialCondition):
    """Two fields A cos(kπx/Lx) cos(πy/Ly) between walls, at cell centres, with amplitudes drawn from [1, 2]."""

    dimensions = 2

    def __init__(self, number=2):
        self.number = number

    @property
    def highest(self):
        return self.number

    def draw(self, stream):
        return torch.from_numpy(stream.uniform(1, 2, 2))

    def fields(self, draws, points, lengths):
        x, y = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in points)
        wave = torch.cos(self.number * math.pi * x)[:, None] * torch.cos(math.pi * y)
        return draws[:, :, None, None] * wave


class Fading(Simulator):
    """∂u/∂t = -rate u for both fields: exact on every grid."""

    equation = "heat"
    field_names = ("hot", "cold")
    parameter_names = ("rate",)
    dimensions = 2
    boundary = ("wall", "wall")

    def __init__(self, rate, domain_length=1.0, points=64, shift=0.0, **settings):
        super().__init__({"rate": rate}, domain_length, points, **settings)
        self.shift = shift

    def solve(self, initial, times, observed=None, sampling="points"):
        initial, times = self._checked(initial, times)
        nodes = self._observed(observed, sampling)
        decay = torch.exp(-self.parameter("rate", initial)[:, None] * times)
        whole = initial[:, :, None] * decay[:, None, :, None, None] + self.shift
        blocks = [whole.shape[3] // nodes[0], whole.shape[4] // nodes[1]]
        seen = torch.nn.functional.avg_pool2d(whole.flatten(0, 2)[:, None], blocks)
        fields = seen.reshape(*whole.shape[:3], *nodes)
        return Solution(self.trajectories(fields, times, initial), torch.zeros(len(initial)))

    def points_needed(self, initial):
        return torch.full((len(initial),), 30.0, dtype=torch.float64)

    def step_needed(self, initial, courant=1.0):
        return courant * 0.1 / self.parameter("rate", initial)


CONTENT = {
    "title": "Fading waves",
    "equation": "heat",
    "domain": {"x": 2.0, "y": {"distribution": "uniform", "low": 1.0, "high": 4.0}, "unit": "m"},
    "initial_condition": {"family": "waves", "number": 2},
    "parameters": {"rate": {"distribution": "uniform", "low": 0.2, "high": 0.5, "per": 4}},
    "solver": {"simulator": "fading_model.Fading"},
    "observation": {"points": {"x": 16, "y": 8}, "frames": 5, "start": 1.0, "end": 2.0, "noise": {"cold": 0.5}},
    "fields": {"hot": {"unit": "K"}, "cold": {"unit": "K"}},
    "splits": {"unlabelled": {"size": 6, "labels": False}, "test": {"size": 10}},
    "shard_size": 3,
}


# What one dimension leaves of it.
LINE = {"domain": {"length": 2.0, "x": None, "y": None}, "observation.points": 16}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setitem(FAMILIES, "waves", Waves)
    monkeypatch.setitem(sys.modules, "fading_model", sys.modules[__name__])
    return DatasetRecipe("fading", CONTENT)


def test_fields_axes_lengths_and_units_of_a_box(recipe, tmp_path):
    store = pdessl.data.generate(recipe, tmp_path / "s", progress=False, overrides={"observation.noise": 0.0})
    data = store.load("test")
    assert data.fields.shape == (10, 2, 5, 16, 8) and data.field_names == ("hot", "cold")
    assert data.boundary == ("wall", "wall") and data.axis_names == ("x", "y")
    assert bool((data.lengths[:, 0] == 2.0).all()) and len(set(data.lengths[:, 1].tolist())) == 10
    torch.testing.assert_close(data.space[1], data.lengths[:, 1:] * (torch.arange(8) + 0.5) / 8)
    ratio = data.fields[:, :, 1:] / data.fields[:, :, :1]
    decay = torch.exp(-data.parameters["rate"][:, None] * torch.tensor([0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(ratio, decay[:, None, :, None, None].expand_as(ratio).float())
    sheet = store.to_xarray("test")
    assert sheet.hot.dims == ("trajectory", "time", "x", "y") and sheet.hot.attrs["units"] == "K"
    assert sheet.length_y.attrs["units"] == "m" and sheet.x.attrs["units"] == "m"


def test_the_shorter_axis_gets_fewer_points_and_the_grid_is_reported(recipe, tmp_path):
    """30 points are needed on the longest axis, 13 at the narrowest on the other, never below 3 highest + 1."""
    store = pdessl.data.generate(recipe, tmp_path / "s", progress=False)
    grids = {}
    for shard in store.manifest["splits"]["test"]["shards"]:
        for grid, count in shard["solver_points"].items():
            grids[grid] = grids.get(grid, 0) + count
    lengths = store.load("test").lengths
    expected = {}
    for x, y in lengths.tolist():
        wanted = [max(7, 30 * x / max(x, y)), max(7, 30 * y / max(x, y))]
        multiple = next(m for m in (1, 2, 3, 4, 6, 8) if 16 * m >= wanted[0] and 8 * m >= wanted[1])
        name = f"{16 * multiple}x{8 * multiple}"
        expected[name] = expected.get(name, 0) + 1
    assert grids == expected and len(grids) > 1
    text = str(pdessl.data.inspect(store.path))
    assert all(f"{grid} points: " in text for grid in grids) and "cold 0.5" in text


def test_noise_is_per_field_and_moves_nothing_else(recipe):
    noisy = pdessl.data.simulate(recipe, "test", range(10)).fields
    clean = pdessl.data.simulate(load_recipe(recipe, overrides={"observation.noise": 0.0}), "test", range(10)).fields
    torch.testing.assert_close(noisy[:, 0], clean[:, 0], rtol=0, atol=0)
    added = (noisy - clean)[:, 1]
    assert abs(float(added.std()) / 0.5 - 1) < 0.05 and abs(float(added.mean())) < 0.05


def test_a_parameter_per_group_is_shared_by_consecutive_trajectories_whatever_the_shards(recipe, tmp_path):
    rate = pdessl.data.simulate(recipe, "test", range(10)).parameters["rate"]
    assert len(set(rate[:4].tolist())) == len(set(rate[4:8].tolist())) == 1 and len(set(rate.tolist())) == 3
    stored = pdessl.data.generate(recipe, tmp_path / "s", progress=False).load("test").parameters["rate"]
    assert torch.equal(stored, rate)
    expected = random_stream(0, "test", 1, "group:rate").uniform(0.2, 0.5)
    assert float(rate[5]) == expected
    single = pdessl.data.simulate(
        load_recipe(recipe, overrides={"parameters.rate": {"distribution": "uniform", "low": 0.2, "high": 0.5}}),
        "test",
        range(10),
    )
    assert len(set(single.parameters["rate"].tolist())) == 10


def test_arguments_reach_the_simulator(recipe):
    shifted = load_recipe(recipe, overrides={"solver.arguments": {"shift": 3.0}, "observation.noise": 0.0})
    plain = load_recipe(recipe, overrides={"observation.noise": 0.0})
    difference = pdessl.data.simulate(shifted, "test", [2]).fields - pdessl.data.simulate(plain, "test", [2]).fields
    torch.testing.assert_close(difference, torch.full_like(difference, 3.0))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"domain": {"x": 2.0, "y": None}}, "domain: missing key 'y'"),
        ({"domain": {"length": 2.0, "x": 2.0}}, "unknown key 'length'"),
        ({"domain": {"x": 2.0, "y": -1.0}}, "domain.y: expected > 0"),
        ({"observation.points": {"x": 16, "y": None}}, "observation.points.y: expected an integer >= 2, found None"),
        ({"observation.points": {"x": 16, "y": 1}}, "observation.points.y: expected an integer >= 2"),
        ({"solver.points": {"x": 32, "y": 30}}, "30 is not a multiple of the 8 observed points. Use 32"),
        ({"solver.points": {"x": 32, "z": 30}}, "unknown key 'z'"),
        ({"observation.noise": {"cold": -1.0}}, "noise.cold: expected a number >= 0"),
        ({"observation.noise": {"warm": 1.0}}, "observation.noise: unknown key 'warm'"),
        ({"parameters.rate.per": 0}, "rate.per: expected an integer >= 1"),
        ({"initial_condition": {"family": "sine_series"}, **LINE}, "Families that fit: waves"),
        ({"initial_condition.record": "yes"}, "record: expected true or false"),
    ],
)
def test_schema_errors(recipe, overrides, message, monkeypatch):
    for name in [n for n, family in FAMILIES.items() if family.dimensions == 2 and n != "waves"]:
        monkeypatch.delitem(FAMILIES, name)
    with pytest.raises(SchemaError) as caught:
        load_recipe(recipe, overrides=overrides)
    assert message in str(caught.value)


def test_grids_and_steps_that_do_not_do_are_refused_with_those_that_would(recipe, tmp_path):
    with pytest.raises(ResolutionError, match=r"16x16 points do not resolve.*'auto' or at least 32x\d+"):
        pdessl.data.generate(recipe, tmp_path / "a", overrides={"solver.points": 16, "domain.y": 2.0})
    steep = {"solver.time_step": 2.0, "parameters.rate": 20.0}
    with pytest.raises(ResolutionError, match=r"time_step 2 makes inner steps of 0.25, 50.0 times.*at most 0.005 "):
        pdessl.data.generate(recipe, tmp_path / "a", overrides=steep)
    assert not (tmp_path / "a").exists()
    unchecked = {**steep, "solver.check_resolution": False}
    assert pdessl.data.generate(recipe, tmp_path / "b", overrides=unchecked, progress=False).complete


def test_one_length_is_one_number_for_all_axes(recipe):
    one = {"length": {"distribution": "uniform", "low": 1.0, "high": 4.0}}
    square = load_recipe(recipe, overrides={"domain": {"x": None, "y": None, **one}})
    lengths = pdessl.data.simulate(square, "test", range(4)).lengths
    assert torch.equal(lengths[:, 0], lengths[:, 1]) and len(set(lengths[:, 0].tolist())) == 4


def test_recorded_coefficients_are_those_of_the_stored_field(tmp_path):
    overrides = {"initial_condition.record": True, "observation.noise": 0.0, "initial_condition.mean": 0.4}
    plain = load_recipe("burgers_small")
    recipe = load_recipe("burgers_small", overrides=overrides)
    assert recipe.hash != plain.hash
    store = pdessl.data.generate(recipe, tmp_path / "s", size={"unlabelled": 2, "labelled": 0}, progress=False)
    data = store.load("test")
    length, x = data.lengths[:, :1], data.space[0]
    series = data.parameters["initial_mean"][:, None].expand_as(x).clone()
    terms = series.clone()
    for wave in (1, 2, 3):
        angle = 2 * math.pi * wave * x / length
        series += data.parameters[f"initial_cosine_{wave}"][:, None] * torch.cos(angle)
        series += data.parameters[f"initial_sine_{wave}"][:, None] * torch.sin(angle)
    torch.testing.assert_close(series.float(), data.fields[:, 0, 0], rtol=0, atol=1e-6)
    for j in range(1, 6):
        amplitude, number, phase = (data.parameters[f"term_{n}_{j}"] for n in ("amplitude", "wave_number", "phase"))
        terms += amplitude[:, None] * torch.sin(2 * math.pi * number[:, None] * x / length + phase[:, None])
    # The dataset rescales the fluctuation to a root mean square of 0.6; the terms are as they were drawn.
    fluctuation = terms - data.parameters["initial_mean"][:, None]
    rescaled = 0.6 * fluctuation / fluctuation.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(
        rescaled + data.parameters["initial_mean"][:, None], data.fields[:, 0, 0].double(), rtol=0, atol=1e-6
    )
    assert data.parameters["viscosity"].shape == (8,) and not store.load("unlabelled").parameters


def test_times_stretched_per_trajectory(tmp_path):
    """Heat modes decay by the stretched times; the factor has its own stream and moves no other draw."""
    overrides = {
        "observation.time_scale": {"distribution": "uniform", "low": 0.5, "high": 1.5},
        "observation.noise": 0.0,
    }
    data = pdessl.data.simulate(load_recipe("heat", overrides=overrides), "test", range(5))
    plain = pdessl.data.simulate(load_recipe("heat", overrides={"observation.noise": 0.0}), "test", range(5))
    torch.testing.assert_close(data.fields[:, :, 0], plain.fields[:, :, 0])
    scale = data.time[:, -1] / 4.0
    assert scale.min() > 0.5 and scale.max() < 1.5 and len(set(scale.tolist())) == 5
    torch.testing.assert_close(data.time, scale[:, None] * torch.from_numpy(np.linspace(0, 4, 64)))
    modes = torch.fft.rfft(data.fields[:, 0].double())[..., 1:5].abs()
    k2 = torch.arange(1, 5, dtype=torch.float64) ** 2
    rate = data.parameters["diffusivity"][:, None, None] * k2
    torch.testing.assert_close(modes, modes[:, :1] * torch.exp(-rate * data.time[..., None]), rtol=1e-4, atol=1e-4)


def test_a_run_that_blows_up_but_stays_finite_is_drawn_again(recipe, monkeypatch, tmp_path):
    solve = Fading.solve

    def exploding(self, initial, times, observed=None, sampling="points"):
        solution = solve(self, initial, times, observed, sampling)
        solution.trajectories.fields[initial[:, 0, 0, 0] > 1.3] = 1e9
        return solution

    monkeypatch.setattr(Fading, "solve", exploding)
    store = pdessl.data.generate(recipe, tmp_path / "s", progress=False)
    assert store.load("test").fields.abs().max() < 10
    shards = [s for split in store.manifest["splits"].values() for s in split["shards"]]
    assert store.rejected_draws == sum(s["blown_up_draws"] for s in shards) > 3
    # A shared parameter stays when one member of its group is drawn again.
    assert len(set(store.load("test").parameters["rate"].tolist())) == 3
