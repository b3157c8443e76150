import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.probes import PENALTIES, fit_ridge, linear_probe


def problem(n=20, d=6, seed=0, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.arange(1.0, d + 1) + 5
    y = x @ torch.randn(d, generator=generator, dtype=torch.float64) / 10
    return x, y + noise * torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(20, 6), (8, 30)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_equals_an_independent_solver(n, d, penalty):
    x, y = problem(n, d)
    mean, std = x.mean(0), x.std(0, correction=0)
    other = Ridge(alpha=penalty * n, solver="cholesky").fit(((x - mean) / std).numpy(), y.numpy())
    new = problem(7, d, seed=1)[0]
    expected = other.predict(((new - mean) / std).numpy())
    np.testing.assert_allclose(fit_ridge(x, y, (penalty,)).predict(new)[:, 0].numpy(), expected, rtol=1e-9, atol=1e-10)


def test_small_penalty_is_least_squares():
    x, y = problem()
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(design, y[:, None]).solution
    torch.testing.assert_close(fit_ridge(x, y, (1e-14,)).predict(x), design @ solution, rtol=1e-8, atol=1e-8)


def test_leave_one_out_error_equals_refitting_without_each_row():
    x, y = problem(12, 5)
    penalty = 0.1
    mean, std = x.mean(0), x.std(0, correction=0)
    z = (x - mean) / std
    errors = []
    for i in range(12):
        keep = [j for j in range(12) if j != i]
        # The standardisation is that of all rows and the penalty that of n rows; only the fit leaves the row out.
        model = Ridge(alpha=penalty * 12).fit(z[keep].numpy(), y[keep].numpy())
        errors.append((model.predict(z[i : i + 1].numpy())[0] - float(y[i])) ** 2)
    assert fit_ridge(x, y, (penalty,)).leave_one_out == pytest.approx(np.mean(errors), rel=1e-9)


def test_the_penalty_follows_the_noise():
    quiet = fit_ridge(*problem(30, 20, noise=1e-6))
    loud = fit_ridge(*problem(30, 20, noise=10.0))
    assert quiet.penalty <= 1e-6 < 0.1 <= loud.penalty
    assert {quiet.penalty, loud.penalty} <= set(PENALTIES)


def test_constant_columns_are_ignored():
    x, y = problem()
    with_constant = torch.cat([x, torch.full((len(x), 1), 0.1, dtype=x.dtype)], 1)
    torch.testing.assert_close(fit_ridge(with_constant, y).predict(with_constant), fit_ridge(x, y).predict(x))


def test_probe_recovers_a_power_law_and_scores_in_per_cent():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    values = torch.exp(features @ torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64) - 3)
    probe = linear_probe(features[:40], values[:40])
    scores = probe.score(features[40:], values[40:])
    assert scores.relative_error < 1e-3
    assert scores.r2 == pytest.approx(1)
    assert scores.nmse == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(probe.predict(features), values, rtol=1e-5, atol=0)


def test_errors():
    x, y = problem()
    with pytest.raises(DataError, match="positive and finite"):
        linear_probe(x, y - 100)
    with pytest.raises(ShapeError, match=r"features \(20, 6\) and targets \(19,\)"):
        fit_ridge(x, y[:19])
    with pytest.raises(DataError, match="not finite"):
        fit_ridge(x * float("nan"), y)
    with pytest.raises(ValueError, match="penalties"):
        fit_ridge(x, y, (0.0,))
    with pytest.raises(ShapeError, match=r"expected \(n, 6\)"):
        fit_ridge(x, y).predict(x[:, :3])
