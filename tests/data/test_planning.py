"""The plan of a dataset: which grid and step each trajectory gets, from one look at its initial field."""

import re

import pytest
import torch

import pdessl.data
from pdessl import catalog
from pdessl.data import load_recipe
from pdessl.data.drawing import draw, stack
from pdessl.data.planning import build_simulator, check_before_starting, plan
from pdessl.errors import DataError, ResolutionError

PLANNED = [
    name
    for name in catalog.names("datasets")
    if "format" not in catalog.read("datasets", name) and load_recipe(name).grids() is None
]


@pytest.mark.parametrize("name", PLANNED)
def test_a_field_is_looked_at_once_and_gives_the_step_on_every_grid(name, monkeypatch):
    recipe = load_recipe(name)
    draws = [draw(recipe, "test", k) for k in range(2)]
    family, made = recipe.initial_condition, []
    fields = type(family).fields
    with monkeypatch.context() as patched:
        patched.setattr(type(family), "fields", lambda *given: made.append(given[2]) or fields(*given))
        planned = plan(recipe, draws)
    (probe,) = made
    numbers, lengths = stack(draws)
    for row, chosen in enumerate(planned):
        simulator = build_simulator(recipe, draws[row : row + 1], chosen.points)
        looked, own = (
            simulator.step_needed(family.fields(numbers[row : row + 1], grid, lengths[row : row + 1]))
            for grid in (probe, chosen.points)
        )
        # An extreme may lie between the nodes of the coarser grid.
        torch.testing.assert_close(looked, own, rtol=0.1, atol=0)
        assert all(n % o == 0 for n, o in zip(chosen.points, recipe.observed, strict=True))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"observation.frames": 10**13}, DataError, r"one trajectory of 10+ frames .*Lower observation.frames"),
        ({"observation.points": 10**13}, DataError, r"one trajectory .*observation.points"),
        ({"solver.points": 32 * 10**12}, DataError, r"Lower solver.points to at most"),
        ({"shard_size": 10**12, "splits.unlabelled.size": 10**12}, DataError, r"a shard of .*Use shard_size \d+ or"),
        ({"observation.end": 1e300}, ResolutionError, r"needs .* steps .*Use observation.end \S+ or less"),
        ({"solver.courant": 1e-300}, ResolutionError, r"needs .* steps .*or a larger solver.courant"),
    ],
)
def test_absurd_sizes_and_times_are_refused_before_anything_is_allocated(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        pdessl.data.generate("burgers_small", tmp_path / "s", overrides=settings, progress=False)
    assert not (tmp_path / "s").exists()


def test_the_number_that_is_said_to_do_does(tmp_path):
    with pytest.raises(ResolutionError) as caught:
        check_before_starting(load_recipe("burgers_small", overrides={"solver.courant": 1e-9}))
    end = float(re.search(r"observation.end (\S+) or less", str(caught.value))[1])
    settings = {"solver.courant": 1e-9, "observation.end": 0.99 * end}
    check_before_starting(load_recipe("burgers_small", overrides=settings))


def test_noise_that_makes_observed_values_infinite_is_refused(tmp_path):
    said = r"observation.noise 1e\+308 observed values of 'u' are not finite.*Use less than 3e\+37"
    with pytest.raises(DataError, match=said):
        pdessl.data.simulate(load_recipe("burgers_small", overrides={"observation.noise": 1e308}), "test", [0])
