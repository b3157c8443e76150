import math

import pytest
import torch

from pdessl import Trajectories
from pdessl.errors import DataError
from pdessl.evaluation.targets import power_spectrum_targets, with_target
from pdessl.models import fit_ridge


def test_the_spectrum_is_that_of_the_field_and_does_not_move_with_it():
    a = torch.tensor([[0.3, -0.4], [0.5, 0.1]], dtype=torch.float64)  # run, wave number 1 and 2
    b = torch.tensor([[0.1, 0.7], [-0.2, 0.3]], dtype=torch.float64)
    x = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    angle = 0.7 * torch.tensor([1.0, 2.0], dtype=torch.float64)
    # cos(l (x - s)) = cos(ls) cos(lx) + sin(ls) sin(lx)
    moved_a = a * angle.cos() - b * angle.sin()
    moved_b = a * angle.sin() + b * angle.cos()
    for cosine, sine in ((a, b), (moved_a, moved_b)):
        parameters = {f"initial_cosine_{k + 1}": cosine[:, k] for k in range(2)}
        parameters |= {f"initial_sine_{k + 1}": sine[:, k] for k in range(2)}
        found = power_spectrum_targets({**parameters, "viscosity": a[:, 0]})
        assert set(found) == {"initial_power_1", "initial_power_2"}
        torch.testing.assert_close(found["initial_power_1"], (a[:, 0] ** 2 + b[:, 0] ** 2) / 2)
        u = sum(cosine[:, k, None] * torch.cos((k + 1) * x) + sine[:, k, None] * torch.sin((k + 1) * x) for k in (0, 1))
        torch.testing.assert_close(sum(found.values()), u.square().mean(dim=1))


def test_missing_coefficients_are_named():
    one = torch.ones(2)
    with pytest.raises(DataError, match="no recorded initial coefficients.*they have: viscosity.*record: true"):
        power_spectrum_targets({"viscosity": one})
    with pytest.raises(DataError, match="no 'initial_sine_3'"):
        power_spectrum_targets({"initial_cosine_3": one})


def test_shift_invariant_features_carry_the_powers_and_nothing_of_the_coefficients():
    """Autocorrelations do not change with a translation: a ridge on them finds powers, and of coefficients the mean."""
    stream = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 600, 2, generator=stream, dtype=torch.float64)
    x = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    u = sum(a[:, k, None] * torch.cos((k + 1) * x) + b[:, k, None] * torch.sin((k + 1) * x) for k in (0, 1))
    features = torch.stack([(u * u.roll(lag, dims=1)).mean(dim=1) for lag in range(9)], dim=1)
    parameters = {f"initial_cosine_{k + 1}": a[:, k] for k in range(2)}
    parameters |= {f"initial_sine_{k + 1}": b[:, k] for k in range(2)}
    targets = parameters | power_spectrum_targets(parameters)
    for name, values in targets.items():
        found = fit_ridge(features[:400], values[:400]).predict(features[400:])[:, 0]
        error = float((found - values[400:]).square().mean() / values[400:].var(correction=0))
        assert error < 1e-6 if "power" in name else error > 0.9, name


def test_powers_are_added_to_runs_that_are_asked_for_them():
    one = torch.ones(2, dtype=torch.float64)
    runs = Trajectories(
        fields=torch.zeros(2, 1, 3, 4),
        time=torch.arange(3.0).double().expand(2, -1),
        space=(torch.arange(4.0).double().expand(2, -1),),
        lengths=4 * one[:, None],
        parameters={"initial_cosine_2": 3 * one, "initial_sine_2": 4 * one, "viscosity": one},
    )
    assert with_target(runs, "initial_power_2").parameters["initial_power_2"].tolist() == [12.5, 12.5]
    assert with_target(runs, "viscosity") is with_target(runs, "initial_power") is runs
    bare = runs.without_parameters()
    assert with_target(bare, "initial_power_2") is bare
    with pytest.raises(DataError, match="no 'initial_power_1'. Did you mean 'initial_power_2'"):
        with_target(runs, "initial_power_1")
