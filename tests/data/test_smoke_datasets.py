"""The datasets of the closed box: the frames, times and groups of the public smoke data."""

import numpy as np
import pytest
import torch

from pdessl.data import simulate
from pdessl.data.drawing import draw, stack
from pdessl.data.planning import plan
from pdessl.data.recipe import load_recipe
from pdessl.solvers import ClosedBoxSmoke


# The reference paper learns from four times as many trajectories as are public.
@pytest.mark.parametrize(("name", "unlabelled"), [("smoke_buoyancy", 26624), ("smoke_buoyancy_grouped", 6656)])
def test_frames_are_steps_9_to_64_of_one_and_a_half(name, unlabelled):
    recipe = load_recipe(name)
    np.testing.assert_allclose(recipe.times, 1.5 * np.arange(9, 65))
    assert {(p.points, p.substeps) for p in plan(recipe, [draw(recipe, "test", k) for k in range(20)])} == {
        ((128, 128), 1)
    }
    assert [recipe.splits[s]["size"] for s in ("unlabelled", "labelled", "test")] == [unlabelled, 1664, 1664]


def test_one_buoyancy_per_file_where_the_public_data_have_it():
    recipe = load_recipe("smoke_buoyancy_grouped")
    assert recipe.shard_size == 32
    drawn = [draw(recipe, "unlabelled", k).parameters["buoyancy"] for k in range(96)]
    assert [len(set(drawn[i : i + 32])) for i in (0, 32, 64)] == [1, 1, 1] and len(set(drawn)) == 3
    alone = load_recipe("smoke_buoyancy")
    assert len({draw(alone, "unlabelled", k).parameters["buoyancy"] for k in range(96)}) == 96


def test_a_generated_trajectory_is_that_of_the_simulator_step_by_step():
    short = {"solver.precision": "float64", "observation.frames": 2, "observation.end": 15.0}
    recipe = load_recipe("smoke_buoyancy", overrides=short)
    found = simulate(recipe, "labelled", [5])
    drawn = draw(recipe, "labelled", 5)
    numbers, lengths = stack([drawn])
    state = recipe.initial_condition.fields(numbers, (128, 128), lengths)
    simulator = ClosedBoxSmoke(
        0.01, drawn.parameters["buoyancy"], 32.0, 128, velocity="faces", time_step=1.5, dtype=torch.float64
    )
    for _ in range(9):
        state = simulator.solve(state, torch.tensor([1.5])).trajectories.fields[:, :, 0]
    torch.testing.assert_close(found.fields[:, :, 0].double(), state, rtol=0, atol=1e-6)
    assert float(found.time[0, 0]) == 13.5 and float(found.parameters["buoyancy"]) == drawn.parameters["buoyancy"]
    assert found.boundary == ("wall", "wall")
