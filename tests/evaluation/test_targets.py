import math

import pytest
import torch

from pdessl.errors import DataError
from pdessl.evaluation.targets import power_spectrum_targets


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
