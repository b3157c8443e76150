"""Source terms in time: actuators and random sines, where steps end, and gradients through them."""

import math

import numpy as np
import pytest
import torch

from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.solvers import Actuators, Burgers, Heat, KuramotoSivashinsky, RandomForcing, SineForcing, random_stream

NU = 0.5


def grid(points, length=2 * math.pi):
    return torch.arange(points, dtype=torch.float64) * (length / points)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def held_exactly(signal, switches, when):
    """Amplitude of sin x under a' = -ν a + s(t), s held between switches, from 0: exact."""
    amplitude, now = 0.0, 0.0
    edges = [*[t for t in switches if 0 < t < when], when]
    for end in edges:
        value = signal[max(i for i, t in enumerate(switches) if t <= now)]
        decay = math.exp(-NU * (end - now))
        amplitude = amplitude * decay + value * (1 - decay) / NU
        now = end
    return amplitude


def test_held_signals_are_exact_wherever_they_jump():
    """The scheme is exact for a constant source: any step that straddled a jump would show."""
    signal, switches = [1.0, -2.0, 0.5, 3.0], [0.0, 0.137, 0.5, 0.61]
    sine = torch.sin(grid(32))[None]
    actuators = Actuators(sine, torch.tensor([[signal]], dtype=torch.float64), times(*switches))
    when = [0.1, 0.2, 0.5, 0.7, 1.0]
    simulator = Heat(NU, points=32, forcing=actuators, dtype=torch.float64)
    fields = simulator.solve(torch.zeros(1, 1, 32, dtype=torch.float64), times(*when)).trajectories.fields[0, 0]
    exact = torch.tensor([held_exactly(signal, switches, t) for t in when], dtype=torch.float64)
    torch.testing.assert_close(fields, exact[:, None] * sine, rtol=0, atol=1e-13)
    legs = simulator.legs(torch.zeros(1, 1, 32), times(*when)[None])
    assert [g.observed for g in legs] == [True, False, True, True, False, True, True]


def test_linear_signals_are_exact_between_their_kinks():
    """a' = -ν a + s(t), s = 2t up to 0.3, then falling to 0 at 0.9 and staying there."""
    samples, kinks = torch.tensor([[[0.0, 0.6, 0.0]]], dtype=torch.float64), times(0.0, 0.3, 0.9)
    sine = torch.sin(grid(32))[None]
    simulator = Heat(NU, points=32, dtype=torch.float64, forcing=Actuators(sine, samples, kinks, "linear"))
    field = simulator.solve(torch.zeros(1, 1, 32, dtype=torch.float64), times(1.2)).trajectories.fields[0, 0, 0]

    def ramp(start, value, rate, duration):  # exact for a linear source
        decay = math.exp(-NU * duration)
        particular = value / NU - rate / NU**2
        return start * decay + particular * (1 - decay) + rate * duration / NU

    amplitude = ramp(ramp(0.0, 0.0, 2.0, 0.3), 0.6, -1.0, 0.6) * math.exp(-NU * 0.3)
    torch.testing.assert_close(field, amplitude * sine[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("interpolation", ["hold", "linear"])
def test_a_forcing_is_asked_at_the_times_given_wherever_they_begin(interpolation):
    sine = torch.sin(grid(32))[None]
    actuators = Actuators(
        sine, torch.tensor([[[1.0, -2.0, 0.5]]], dtype=torch.float64), times(0.0, 0.3, 0.9), interpolation
    )
    smooth = lambda t: torch.cos(3 * t)[:, None] * sine  # noqa: E731
    for forcing in (actuators, smooth):
        simulator = Heat(NU, points=32, substeps=20, forcing=forcing, dtype=torch.float64)
        run = simulator.solve(torch.zeros(1, 1, 32, dtype=torch.float64), times(0.2, 0.5, 1.0)).trajectories
        again = simulator(run.fields[:, :, 0], run.time)
        torch.testing.assert_close(again.fields, run.fields, rtol=0, atol=1e-8)
    with pytest.raises(DataError, match=r"one time is given, 0.5.*Give both, torch.tensor\(\[0.0, 0.5\]\)"):
        simulator(run.fields[:, :, 0], times(0.5))


def test_smooth_forcing_converges_with_order_four():
    """a' = -ν a + cos(ωt): the exact amplitude, and the rate at which steps approach it."""
    omega, end, errors = 7.0, 1.0, []
    exact = (NU * math.cos(omega * end) + omega * math.sin(omega * end) - NU * math.exp(-NU * end)) / (NU**2 + omega**2)
    for substeps in (4, 8, 16):
        simulator = Heat(
            NU,
            points=16,
            substeps=substeps,
            forcing=lambda t: torch.cos(omega * t)[:, None] * torch.sin(grid(16)),
            dtype=torch.float64,
        )
        field = simulator(torch.zeros(1, 1, 16, dtype=torch.float64), times(0, end)).fields[0, 0, 1]
        errors.append(float((field - exact * torch.sin(grid(16))).abs().max()))
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(rates) > 3.8 and errors[-1] < 1e-4, f"errors {errors}, rates {rates}"


def controlled(signals, interpolation="hold"):
    length, points = 22.0, 64
    profiles = Actuators.gaussian([2.0, 7.5, 13.0, 18.5], 0.8, points, length)
    actuators = Actuators(profiles, signals, times(0.0, 0.25, 0.5, 0.75), interpolation)
    simulator = KuramotoSivashinsky(
        domain_length=length, points=points, time_step=0.05, forcing=actuators, dtype=torch.float64
    )
    x = grid(points)
    initial = torch.stack([torch.cos(x), torch.sin(2 * x)])[:, None]
    return simulator.solve(initial, times(0.3, 0.6, 1.0)).trajectories.fields


@pytest.mark.parametrize("interpolation", ["hold", "linear"])
def test_gradient_of_a_cost_with_respect_to_the_signals(interpolation):
    signals = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 4, 4))).requires_grad_()
    cost = controlled(signals, interpolation).square().mean() + 0.1 * signals.square().mean()
    cost.backward()
    assert bool((signals.grad.abs() > 1e-9).all())
    for index in [(0, 0, 0), (0, 3, 1), (1, 1, 2), (1, 2, 3)]:
        costs = []
        for sign in (1, -1):
            with torch.no_grad():
                moved = signals.detach().clone()
                moved[index] += sign * 1e-5
                costs.append(float(controlled(moved, interpolation).square().mean() + 0.1 * moved.square().mean()))
        assert (costs[0] - costs[1]) / 2e-5 == pytest.approx(float(signals.grad[index]), rel=1e-6, abs=1e-10)


def test_a_graph_changes_nothing():
    signals = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 4, 4)))
    with torch.no_grad():
        plain = controlled(signals)
    torch.testing.assert_close(controlled(signals.requires_grad_()).detach(), plain, rtol=0, atol=1e-13)


def test_gaussian_profiles_are_periodic_and_of_any_dimension():
    profiles = Actuators.gaussian([0.0, 5.0], 1.0, 40, 10.0)
    assert profiles.shape == (2, 40) and float(profiles[0, 0]) == 1.0
    torch.testing.assert_close(profiles[0, 1:], profiles[0, 1:].flip(0))
    torch.testing.assert_close(profiles[1], profiles[0].roll(20))
    plane = Actuators.gaussian([[1.0, 2.0]], 0.5, (16, 32), (4.0, 8.0))
    assert plane.shape == (1, 16, 32)
    along = [Actuators.gaussian([c], 0.5, n, length)[0] for c, n, length in ((1.0, 16, 4.0), (2.0, 32, 8.0))]
    torch.testing.assert_close(plane[0], along[0][:, None] * along[1])


def test_signals_at_their_times_and_outside():
    samples = torch.tensor([[[1.0, 3.0, 2.0]]], dtype=torch.float64).expand(5, 1, 3)
    when = times(-1.0, 0.0, 0.25, 1.0, 9.0)
    profile = torch.ones(1, 8, dtype=torch.float64)
    held = Actuators(profile, samples, times(0.0, 0.5, 1.0)).values(when)[:, 0]
    torch.testing.assert_close(held, times(1.0, 1.0, 1.0, 2.0, 2.0))
    joined = Actuators(profile, samples, times(0.0, 0.5, 1.0), "linear").values(when)[:, 0]
    torch.testing.assert_close(joined, times(1.0, 1.0, 2.0, 2.0, 2.0))


def test_times_per_trajectory():
    """Runs that differ in the unit of time only."""
    factor = torch.tensor([1.0, 2.0], dtype=torch.float64)
    signals = torch.tensor([[[1.0, -1.0]], [[0.5, -0.5]]], dtype=torch.float64)
    actuators = Actuators(torch.sin(grid(16))[None], signals, times(0.0, 0.3) * factor[:, None])
    simulator = Heat(NU / factor, points=16, forcing=actuators, dtype=torch.float64)
    fields = simulator.solve(
        torch.zeros(2, 1, 16, dtype=torch.float64), times(0.2, 0.5) * factor[:, None]
    ).trajectories.fields
    torch.testing.assert_close(fields[1], fields[0], rtol=0, atol=1e-14)
    with pytest.raises(DataError, match="between different outputs in different trajectories"):
        simulator.solve(torch.zeros(2, 1, 16, dtype=torch.float64), times(0.2, 0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(2, 16), torch.ones(1, 3, 4), times(0, 1, 2, 3)), ShapeError, "do not fit"),
        ((torch.ones(3, 16), torch.ones(1, 3, 4), times(0, 1, 2)), ShapeError, "one per sample"),
        ((torch.ones(3, 16), torch.ones(1, 3, 2), times(1, 1)), DataError, "must increase"),
        ((torch.ones(3, 16), torch.ones(1, 3, 1) / 0, times(0)), DataError, "signals are not finite"),
        ((torch.ones(3, 16), torch.ones(1, 3, 1), times(0), "cubic"), DataError, "Known: hold, linear"),
    ],
)
def test_bad_actuators(arguments, error, message):
    with pytest.raises(error, match=message):
        Actuators(*arguments)


def test_a_forcing_of_another_shape_is_refused():
    simulator = Heat(NU, points=16, forcing=lambda t: torch.ones(len(t), 8))
    with pytest.raises(ShapeError, match=r"the forcing has shape \(2, 8\), expected \(2, 1, 16\) or \(2, 16\)"):
        simulator.solve(torch.zeros(2, 1, 16), times(1.0))
    with pytest.raises(DataError, match="width must be > 0"):
        Actuators.gaussian([0.0], 0.0, 8, 1.0)


# -------------------------------------------------------------------------------------- sines


def test_random_sines_are_the_formula_and_drive_burgers():
    family = SineForcing(terms=3, amplitude=0.6, frequency=0.8, wave_numbers=(1, 4))
    draws = torch.stack([family.draw(random_stream(0, "a", k, "forcing")) for k in range(2)])
    when = times(0.3, 1.7)
    x = grid(48).numpy()
    found = family.forcing(draws, 48)(when)
    for row in range(2):
        terms = (a * np.sin(w * when[row].item() + n * x + p) for a, w, n, p in draws[row].numpy().T)
        np.testing.assert_allclose(found[row].numpy(), sum(terms), atol=1e-14)
    settings = {"domain_length": 16.0, "substeps": 20, "dtype": torch.float64}
    still = torch.zeros(2, 1, 96, dtype=torch.float64)
    fine = Burgers(2.0, points=96, forcing=family.forcing(draws, 96), **settings)(still, times(0.0, 2.0)).fields
    coarse = Burgers(2.0, points=48, forcing=family.forcing(draws, 48), **settings)(still[..., ::2], times(0.0, 2.0))
    assert float(fine[:, 0, 1].std()) > 0.05
    torch.testing.assert_close(coarse.fields, fine[..., ::2], rtol=0, atol=1e-6)


def test_random_sines_are_drawn_in_their_ranges():
    family = SineForcing(terms=4, amplitude=0.5, frequency=0.4, wave_numbers=(1, 3))
    draws = torch.stack([family.draw(random_stream(0, "a", k, "forcing")) for k in range(300)])
    low, high = draws.amin(dim=(0, 2)), draws.amax(dim=(0, 2))
    assert bool((low[:2] > torch.tensor([-0.5, -0.4])).all() and (low[:2] < torch.tensor([-0.49, -0.39])).all())
    assert bool((high[:2] < torch.tensor([0.5, 0.4])).all() and (high[:2] > torch.tensor([0.49, 0.39])).all())
    assert set(draws[:, 2].flatten().tolist()) == {1.0, 2.0, 3.0} and 6.2 < float(high[3]) < 2 * math.pi
    with pytest.raises(SchemaError, match="9 points keep those below 3"):
        family.forcing(draws, 9)


@pytest.mark.parametrize("arguments", [{"terms": 0}, {"amplitude": 0.0}, {"frequency": -1.0}, {"wave_numbers": (2, 1)}])
def test_bad_families(arguments):
    with pytest.raises(SchemaError):
        SineForcing(**arguments)


# -------------------------------------------------------------------------------------- drawn anew in every interval


def test_random_forces_are_the_formula_held_over_their_interval_with_the_stated_spectrum():
    family = RandomForcing(amplitude=0.6, interval=0.5, duration=2.0, wave_numbers=(1, 3), slope=1.0)
    draws = torch.stack([family.draw(random_stream(0, "a", k, "forcing")) for k in range(500)])
    assert draws.shape == (500, 6, 4)
    force = family.forcing(draws, 32)
    size = 0.6 * np.array([1.0, 1 / 2, 1 / 3]) / math.sqrt(1 + 1 / 4 + 1 / 9)
    angle = np.arange(1, 4)[:, None] * 2 * math.pi * np.arange(32) / 32
    a, b = draws[3, :3, 2].numpy(), draws[3, 3:, 2].numpy()
    expected = (size * a) @ np.cos(angle) + (size * b) @ np.sin(angle)
    for time in (1.0, 1.2, 1.49):
        np.testing.assert_allclose(
            force(torch.full((500,), time, dtype=torch.float64))[3].numpy(), expected, atol=1e-12
        )
    everywhere = torch.stack([force(torch.full((500,), t, dtype=torch.float64)) for t in (0.1, 0.6, 1.1, 1.6)])
    assert float(everywhere.std()) == pytest.approx(0.6, rel=0.05)
    with pytest.raises(SchemaError, match="9 points keep those below 3"):
        family.forcing(draws, 9)
    for wrong in ({"amplitude": -1.0}, {"interval": 3.0}, {"wave_numbers": (2, 1)}, {"interpolation": "cubic"}):
        with pytest.raises(SchemaError, match="RandomForcing"):
            RandomForcing(**{"amplitude": 0.6, "interval": 0.5, "duration": 2.0} | wrong)
