"""A fan in the wall of a box whose strength is drawn anew in every interval and stored nowhere."""

import math

import numpy as np
import pytest
import torch

from pdessl.data import simulate
from pdessl.data.recipe import load_recipe
from pdessl.errors import SchemaError, ShapeError
from pdessl.solvers import ClosedBoxSmoke, RandomFan, random_stream

SMALL = {"solver.points": 24, "observation.points": 24, "observation.frames": 4, "observation.end": 24.0}
CALM = {"forcing.amplitude": 0.0}


def at(force, time, count):
    return force(torch.full((count,), time, dtype=torch.float64))


def test_it_is_the_formula_on_every_wall_held_over_its_interval():
    for wall, axis, sign in (("left", 0, 1), ("right", 0, -1), ("lower", 1, 1), ("upper", 1, -1)):
        family = RandomFan(0.5, 3.0, 12.0, wall, place=0.3, width=0.1, depth=0.2, mean=0.25)
        draws = torch.stack([family.draw(random_stream(0, "a", k, "forcing")) for k in range(400)])
        assert draws.shape == (400, 1, 4)
        found = at(family.forcing(draws, (16, 24)), 7.0, 400)[5].numpy()
        x, y = (np.arange(16) + 0.5) / 16, (np.arange(24) + 0.5) / 24
        along, inside = (y[None, :], x[:, None]) if axis == 0 else (x[:, None], y[None, :])
        depth = inside if sign > 0 else 1 - inside
        expected = float(draws[5, 0, 2]) * np.exp(-depth / 0.2 - (along - 0.3) ** 2 / 0.02)
        np.testing.assert_allclose(found[axis], sign * expected, atol=1e-12)
        assert not found[1 - axis].any() and not found[2].any()  # across the wall only, and no smoke is made
        assert np.array_equal(found, at(family.forcing(draws, (16, 24)), 8.9, 400)[5].numpy())
    assert float(draws.mean()) == pytest.approx(0.25, abs=4 * 0.5 / math.sqrt(draws.numel()))
    assert float(draws.std()) == pytest.approx(0.5, rel=0.08)


def test_numbers_out_of_range_and_other_grids_are_refused():
    given = {"amplitude": 0.5, "interval": 3.0, "duration": 12.0}
    for wrong in ({"amplitude": -1.0}, {"interval": 20.0}, {"wall": "ceiling"}, {"place": 1.0}, {"depth": 0.0}):
        with pytest.raises(SchemaError, match="RandomFan"):
            RandomFan(**(given | wrong))
    family = RandomFan(**given)
    draws = family.draw(random_stream(0, "a", 0, "forcing"))[None]
    with pytest.raises(ShapeError, match="a grid of 1 axes; expected 2"):
        family.forcing(draws, 64)
    with pytest.raises(SchemaError, match="use more points or a larger fan"):
        family.forcing(draws, (8, 8))
    with pytest.raises(SchemaError, match=r"'random_fan' acts on the fields u, v, s with 2 .* Burgers has u and 1"):
        load_recipe("burgers", overrides={"forcing": {"family": "random_fan", **given}})
    box = {"forcing": {"family": "random", **given}}
    with pytest.raises(SchemaError, match="'random' acts on one field with 1 .* ClosedBoxSmoke has u, v, s and 2"):
        load_recipe("smoke_buoyancy_small", overrides=box)


def test_the_fan_moves_smoke_is_not_stored_and_tells_nothing_of_what_follows():
    recipe, still = (load_recipe("smoke_hidden_fan", overrides=SMALL | extra) for extra in ({}, CALM))
    whole, calm = (simulate(one, "test", range(2)) for one in (recipe, still))
    assert whole.actions is None and set(whole.parameters) <= {"viscosity", "buoyancy"}
    apart = (whole.fields - calm.fields).square().mean(dim=(3, 4)).sqrt()
    assert float(apart[:, 0].min()) > 0.05 * float(calm.fields[:, 0].std())
    # Runs with the same strengths up to an interval are the same up to there, and not after it.
    draws = torch.stack([recipe.forcing.draw(random_stream(0, "test", k, "forcing", 0)) for k in range(2)])
    other, start = draws.clone(), whole.fields[:, :, 0].double()
    other[:, :, 3:] += 1.0
    times = 3.0 * torch.arange(6, dtype=torch.float64)
    given = {"viscosity": 0.01, "buoyancy": 0.35, "points": 24, "time_step": 1.5, "check_resolution": False}
    runs = [ClosedBoxSmoke(**given, forcing=recipe.forcing.forcing(d, (24, 24)))(start, times) for d in (draws, other)]
    same = [torch.equal(runs[0].fields[:, :, t], runs[1].fields[:, :, t]) for t in range(6)]
    assert same == [True, True, True, True, False, False]
