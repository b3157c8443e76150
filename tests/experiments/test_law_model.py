"""The law as a world model: found from a few runs with actions, it imagines what the solver does."""

import pytest
import torch

from pdessl.control import Oracle, VectorEnvironment, load_environment
from pdessl.errors import DataError, ShapeError
from pdessl.experiments.controlled_runs import ControlledRuns
from pdessl.experiments.law_model import ControlledLaw, LawModel, LawStepper, identify


def recorded(name, count=4, **overrides):
    env = load_environment(name, {"burn_in": 5.0, "control.steps": 30} | overrides)
    return env, ControlledRuns(env, {"unlabelled": count, "validation": 1}).load("unlabelled")


def test_chaos_is_found_from_a_hundred_periods_and_imagined_as_the_solver_has_it():
    env, runs = recorded("ks_control_4")
    law = identify(runs, env)
    assert set(law.terms) == {(1, 2), (1, 4), (2, 1)} and law.periods == 120
    true = {(1, 2): -1.0, (1, 4): -1.0, (2, 1): -0.5}
    for term, value in zip(law.terms, law.coefficients.tolist(), strict=True):
        assert value == pytest.approx(true[term], rel=1e-4)
    assert law.gain == pytest.approx(1.0, abs=0.05) and law.error < 1e-3
    now = VectorEnvironment(env).reset([10**6, 10**6 + 1])
    actions = torch.rand(2, 3, 20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    imagined, real = LawModel(env, law).imagine(now, actions), Oracle(env).imagine(now, actions)
    assert float((env.mean_square(imagined - real) / env.mean_square(real)).max()) < 1e-6
    assert "u_t = " in str(law) and "_xxxx" in str(law)


def test_profiles_of_actuators_are_fitted_where_they_are_not_known():
    env, runs = recorded("advection_diffusion_control", 6, burn_in=0.0)
    law = identify(runs, env, known=False)
    assert float((law.profiles - env.profiles).abs().max()) < 1e-3 * float(env.profiles.abs().max())
    assert set(law.terms) >= {(1, 1), (1, 2)}
    with pytest.raises(DataError, match="without control"):
        identify(runs[1:3], env, known=False)


def test_the_stepper_is_the_solver_for_any_power_of_the_field():
    env, _ = recorded("ks_control_4", 1)
    torch.manual_seed(0)
    law = ControlledLaw(((3, 0), (2, 1)), torch.tensor([-0.2, -0.5]).double(), env.profiles, True, 1, 0, 0, 1)
    rough = LawStepper(law, 22.0, 0.05, env.points, env.modes, substeps=1)
    fine = LawStepper(law, 22.0, 0.05, env.points, env.modes, substeps=8)
    x = torch.arange(env.points).double() * 22 / env.points
    start = env.state((torch.sin(2 * torch.pi * x / 22) + 0.3)[None])
    actions = torch.tensor([[0.5, 0.0, -0.5, 1.0]]).double()
    assert torch.allclose(rough(start, actions), fine(start, actions), rtol=1e-4, atol=1e-5)
    # The rate itself, from the field on a grid so fine that nothing is aliased.
    field = torch.fft.irfft(start, n=1024) * (1024 / env.points)
    rate = -0.2 * torch.fft.rfft(field**3) + -0.5 * torch.fft.rfft(field**2) * 1j * 2 * torch.pi / 22 * torch.arange(
        513
    )
    expected = rate[:, : env.modes] * (env.points / 1024) + torch.fft.rfft(actions @ env.profiles)[:, : env.modes]
    tiny = LawStepper(law, 22.0, 1e-5, env.points, env.modes, substeps=1)
    assert torch.allclose((tiny(start, actions) - start) / 1e-5, expected, rtol=1e-4, atol=1e-3)


def test_what_no_law_can_be_found_from_is_told():
    env, runs = recorded("ks_control_4", 2)
    with pytest.raises(DataError, match="expected two runs with actions"):
        identify(runs[:1], env)
    with pytest.raises(DataError, match="actions missing"):
        identify(runs.replace(actions=None, actuators=()), env)
    with pytest.raises(ShapeError, match="test functions"):
        identify(runs.window(slice(0, 8)), env)
    seen = load_environment("ks_control_4", {"sensors.positions": [1.0, 2.0]})
    with pytest.raises(DataError, match="seen by 2 sensors"):
        identify(runs, seen)
    law = ControlledLaw(((1, 2),), torch.tensor([1.0]).double(), env.profiles, True, 1, 0, 0, 1)
    with pytest.raises(ShapeError, match="5 actuators"):
        LawModel(load_environment("ks_control_5"), law)
