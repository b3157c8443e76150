"""Symmetries of the controlled equation: transform state and actions, then step, is step, then transform."""

import pytest
import torch

from pdessl.augmentation import ActuatedSymmetries
from pdessl.augmentation.actuated import moved, moves_of
from pdessl.control import load_environment
from pdessl.errors import SymmetryError
from pdessl.experiments.controlled_runs import ControlledRuns


def runs_of(name, count=2):
    env = load_environment(name, {"burn_in": 20.0, "control.steps": 4})
    return env, ControlledRuns(env, {"unlabelled": count, "validation": 1}).load("unlabelled")


@pytest.mark.parametrize(("name", "shifts"), [("ks_control_4", 4), ("ks_control_5", 5)])
def test_moving_state_and_actions_commutes_with_the_solver(name, shifts):
    env, runs = runs_of(name)
    runs = runs.replace(actions=runs.actions + 0.3 * torch.randn(runs.actions.shape, dtype=torch.float64))
    start = env.state(runs.fields[:, 0, 0])
    runs = runs.replace(fields=env.field(env.rollout(start, runs.actions.mT))[:, None])
    moves = moves_of(runs)
    assert len(moves) == 2 * shifts and sum(m.mirrored for m in moves) == shifts
    assert moves[0].order == tuple(range(shifts)) and not moves[0].shift
    for number in range(len(moves)):
        other = moved(runs, moves, torch.full((len(runs),), number))
        stepped = env.field(env.rollout(env.state(other.fields[:, 0, 0]), other.actions.mT))
        assert torch.allclose(stepped, other.fields[:, 0], rtol=0, atol=1e-8), moves[number]
    assert not torch.allclose(moved(runs, moves, torch.full((2,), 1)).fields, runs.fields, atol=0.1)


def test_actuators_at_uneven_places_leave_what_maps_them_to_themselves():
    uneven = {"actuators.positions": [0.0, 3.0, 11.0, 14.0], "burn_in": 0.0, "control.steps": 2}
    env = load_environment("ks_control_4", uneven)
    runs = ControlledRuns(env, {"unlabelled": 1, "validation": 1}).load("unlabelled")
    moves = moves_of(runs)
    assert [m.mirrored for m in moves] == [False, False, True, True]
    assert [m.shift for m in moves] == pytest.approx([0.0, 0.5, 3 / 22, 14 / 22])


def test_draws_are_those_of_the_generator_and_all_occur():
    _, runs = runs_of("ks_control_4", 64)
    drawn = [ActuatedSymmetries()(runs, torch.Generator().manual_seed(s))[1] for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert set(drawn[0].tolist()) == set(range(8))
    with pytest.raises(SymmetryError, match="named equation"):
        ActuatedSymmetries()(runs.replace(actions=None, actuators=()))
