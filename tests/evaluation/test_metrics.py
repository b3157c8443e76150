import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.evaluation.metrics import nmse, nmse_per_frame, r2, relative_error


def test_relative_error_by_hand():
    assert float(relative_error(torch.tensor([1.1, 1.0]), torch.tensor([1.0, -2.0]))) == pytest.approx(80.0, rel=1e-6)
    with pytest.raises(ValueError, match="target of 0"):
        relative_error(torch.ones(2), torch.tensor([0.0, 1.0]))


def test_mean_prediction_has_nmse_one_and_r2_zero():
    y = torch.tensor([1.0, 2.0, 6.0])
    mean = torch.full((3,), 3.0)
    assert float(nmse(mean, y)) == pytest.approx(1)
    assert float(r2(mean, y)) == pytest.approx(0)
    assert float(nmse(y, y)) == 0
    prediction = torch.tensor([1.5, 2.0, 4.0])
    assert float(nmse(prediction, y)) == pytest.approx(4.25 / 14)
    assert float(r2(prediction, y)) == pytest.approx(1 - 4.25 / 14)
    assert float(nmse(prediction, y, centred=False)) == pytest.approx(4.25 / 41)


def test_nmse_of_fields_is_a_mean_over_trajectories_of_ratios():
    truth = torch.ones(2, 1, 3, 4)
    truth[1] *= 10
    prediction = truth.clone()
    prediction[0] += 0.5
    prediction[1] += 1.0
    assert float(nmse(prediction, truth)) == pytest.approx((0.25 + 0.01) / 2)
    assert float(nmse(torch.zeros_like(truth), truth)) == pytest.approx(1)
    waves = torch.sin(torch.linspace(0, 2 * math.pi, 5)[:-1]).expand(1, 1, 1, 4) + 3
    assert float(nmse(torch.full_like(waves, 3.0), waves, centred=True)) == pytest.approx(1, rel=1e-5)


def test_nmse_per_frame():
    truth = torch.ones(2, 1, 3, 4)
    prediction = truth.clone()
    prediction[:, :, 2] = 3
    torch.testing.assert_close(nmse_per_frame(prediction, truth), torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64))


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"predictions \(3, 1\) and targets \(3,\)"):
        r2(torch.ones(3, 1), torch.ones(3))
    with pytest.raises(ShapeError, match=r"expected \(B, C, T, \*X\)"):
        nmse_per_frame(torch.ones(3), torch.ones(3))
