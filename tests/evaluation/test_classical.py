import math

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.classical import least_squares_viscosity, weak_form_viscosity
from pdessl.trajectory import Trajectories

VISCOSITY = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)


def exact(points=64, frames=65, duration=4.0, length=2 * math.pi, noise=0.0, seed=0):
    """Cole-Hopf: u = -2 ν θ_x / θ with θ a positive solution of the heat equation."""
    nu = VISCOSITY[:, None, None]
    k0 = 2 * math.pi / length
    t = torch.linspace(0, duration, frames, dtype=torch.float64)
    x = torch.arange(points, dtype=torch.float64) * length / points
    theta, slope = (
        torch.ones(3, frames, points, dtype=torch.float64),
        torch.zeros(3, frames, points, dtype=torch.float64),
    )
    for mode, amplitude, phase in ((1, 0.6, 0.3), (2, 0.25, 1.1), (3, 0.08, 2.0)):
        k = mode * k0
        decay = amplitude * torch.exp(-nu * k**2 * t[None, :, None])
        theta = theta + decay * torch.cos(k * x + phase)
        slope = slope - decay * k * torch.sin(k * x + phase)
    u = -2 * nu * slope / theta
    u = u + noise * torch.randn(u.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Trajectories(
        fields=u[:, None],
        time=t.expand(3, -1).clone(),
        space=(x.expand(3, -1).clone(),),
        lengths=torch.full((3, 1), length, dtype=torch.float64),
        parameters={"viscosity": VISCOSITY},
    )


def error(estimate):
    return ((estimate - VISCOSITY).abs() / VISCOSITY).max().item()


@pytest.mark.parametrize("length", [2 * math.pi, 1.7])
def test_nearly_exact_on_clean_resolved_data(length):
    duration = 4.0 * (length / (2 * math.pi)) ** 2  # the same number of decay times in the smaller box
    runs = exact(length=length, duration=duration)
    assert error(least_squares_viscosity(runs)) < 1e-5
    assert error(weak_form_viscosity(runs)) < 1e-5


@pytest.mark.parametrize("half_width", [(1, 3), (4, 12), (12, 4)])
def test_the_weak_form_is_exact_for_any_width(half_width):
    assert error(weak_form_viscosity(exact(), half_width=half_width)) < 1e-3
    assert error(weak_form_viscosity(exact(points=128, frames=129), half_width=half_width)) < 1e-4


def test_noise_biases_plain_least_squares_to_zero_and_the_weak_form_much_less():
    level = 0.02 * float(exact().fields.std())
    runs = exact(noise=level)
    plain, weak = least_squares_viscosity(runs), weak_form_viscosity(runs, half_width=(8, 8))
    assert (plain < 0.2 * VISCOSITY).all()
    assert error(weak) < 0.15
    assert error(weak) < error(plain) / 4


def test_the_known_noise_level_removes_the_bias_of_the_weak_form():
    level = 0.1 * float(exact().fields.std())
    estimates = {0.0: [], level: []}
    for seed in range(20):
        runs = exact(noise=level, seed=seed)
        for assumed in estimates:
            estimates[assumed].append(weak_form_viscosity(runs, half_width=(5, 5), noise_level=assumed))
    bias = {assumed: error(torch.stack(values).mean(dim=0)) for assumed, values in estimates.items()}
    assert bias[0.0] > 0.1
    assert bias[level] < bias[0.0] / 2


def test_a_boost_leaves_the_estimate():
    runs = exact(points=128, frames=129)
    assert torch.allclose(least_squares_viscosity(runs), VISCOSITY, rtol=1e-5)
    # x' = x + c t, u' = u + c with c a whole number of points per frame, so that the grid is hit exactly
    shift = float(runs.grid_spacing[0, 0] / runs.time_step[0])
    boosted = torch.stack([runs.fields[:, 0, i].roll(i, dims=-1) for i in range(129)], dim=1)[:, None] + shift
    assert torch.allclose(weak_form_viscosity(runs.replace(fields=boosted)), VISCOSITY, rtol=0.05)


def test_what_does_not_fit_is_refused():
    runs = exact()
    with pytest.raises(ShapeError, match="one field on one space axis"):
        least_squares_viscosity(runs.replace(fields=runs.fields.repeat(1, 2, 1, 1), field_names=("u", "v")))
    with pytest.raises(DataError, match="use whole runs"):
        weak_form_viscosity(runs.window(slice(None), slice(0, 32)))
    with pytest.raises(ShapeError, match="needs 41 of"):
        weak_form_viscosity(runs.window(slice(0, 40)), half_width=(20, 5))
    uneven = runs.time.clone()
    uneven[:, 1:] += 0.01
    with pytest.raises(DataError, match="equally spaced"):
        least_squares_viscosity(runs.replace(time=uneven))
    with pytest.raises(ValueError, match="power 2 >= 3"):
        weak_form_viscosity(runs, power=2)
