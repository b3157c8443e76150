"""The plan of a dataset: which grid and step each trajectory gets, from one look at its initial field."""

import pytest
import torch

from pdessl import catalog
from pdessl.data import load_recipe
from pdessl.data.drawing import draw, stack
from pdessl.data.planning import build_simulator, plan

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
        torch.testing.assert_close(looked, own, rtol=0.05, atol=0)
        assert all(n % o == 0 for n, o in zip(chosen.points, recipe.observed, strict=True))
