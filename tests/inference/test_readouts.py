import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from pdessl.errors import DataError
from pdessl.evaluation.intervals import conformal_quantile
from pdessl.inference.affine import AffineReadout
from pdessl.inference.conformal import CrossConformal
from pdessl.inference.readouts import (
    Estimator,
    HeadReadout,
    NeighbourReadout,
    fit_estimator,
    label_weights,
    readout_arrays,
    readout_from,
)
from pdessl.models import Head, fit_ridge
from pdessl.models.ridge import left_out_residuals


def linear(n, width=5, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, width, generator=generator, dtype=torch.float64)
    truth = torch.linspace(1, -1, width, dtype=torch.float64)
    return z, z @ truth + noise * torch.randn(n, generator=generator, dtype=torch.float64)


def test_residuals_with_a_run_left_out_are_those_of_fits_without_it():
    z, y = linear(12)
    readout = fit_ridge(z, y, penalties=(0.1,))
    x = ((z - readout.centre) / readout.scale).numpy()
    expected = []
    for i in range(12):
        kept = np.arange(12) != i
        # Our penalty is κ n with n = 12 rows, centring is of the rows that are kept.
        fit = Ridge(alpha=0.1 * 12).fit(x[kept], y.numpy()[kept])
        expected.append(y.numpy()[i] - fit.predict(x[i : i + 1])[0])
    assert np.allclose(left_out_residuals(readout, z, y)[:, 0].numpy(), expected, atol=1e-10)


def test_one_model_is_split_conformal():
    rng = np.random.default_rng(0)
    truth, prediction, scale = rng.normal(size=(3, 57))
    scale = np.exp(scale)
    new, new_scale = rng.normal(size=9), np.exp(rng.normal(size=9))
    ours = CrossConformal(np.abs(truth - prediction) / scale, np.zeros(57, dtype=np.int64))
    for level in (0.5, 0.9):
        low, high = ours.ends(new[None], new_scale[None], level)
        q = conformal_quantile(np.abs(truth - prediction) / scale, level)
        assert np.allclose(low, new - q * new_scale)
        assert np.allclose(high, new + q * new_scale)


def test_several_models_are_the_written_out_quantiles():
    """CV+ as the source writes it: the ⌊α(n+1)⌋-th smallest of μ - R and the ⌈(1-α)(n+1)⌉-th smallest of μ + R."""
    rng = np.random.default_rng(1)
    n, k, level = 23, 4, 0.8
    scores, fold = np.abs(rng.normal(size=n)), rng.integers(0, k, n)
    predictions, scales = rng.normal(size=(k, 6)), np.exp(rng.normal(size=(k, 6)))
    low, high = CrossConformal(scores, fold).ends(predictions, scales, level)
    for j in range(6):
        below = sorted(predictions[fold[i], j] - scores[i] * scales[fold[i], j] for i in range(n))
        above = sorted(predictions[fold[i], j] + scores[i] * scales[fold[i], j] for i in range(n))
        assert low[j] == below[int(np.floor((1 - level) * (n + 1) + 1e-9)) - 1]
        assert high[j] == above[int(np.ceil(level * (n + 1) - 1e-9)) - 1]


def test_too_few_runs_give_an_infinite_interval_and_levels_are_checked():
    few = CrossConformal(np.ones(8), np.zeros(8, dtype=np.int64))
    low, high = few.ends(np.zeros((1, 2)), np.ones((1, 2)), 0.9)
    assert (low == -np.inf).all()
    assert (high == np.inf).all()
    assert np.isfinite(few.ends(np.zeros((1, 2)), np.ones((1, 2)), 0.8)).all()
    for level in (0, 1, 90):
        with pytest.raises(DataError, match=r"lies between 0 and 1, e.g. 0.9"):
            few.ends(np.zeros((1, 2)), np.ones((1, 2)), level)


def test_intervals_widen_where_predictions_are_worse():
    """Noise that grows from 0.1 to 1 with the prediction: widths must follow, and be constant for constant noise."""
    generator = torch.Generator().manual_seed(3)
    z = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(400, generator=generator, dtype=torch.float64)
    changing = fit_estimator(z, 3 * z[:, 0] + noise * (0.1 + 0.9 * z[:, 0]))
    low, high = changing.scale(torch.tensor([[0.05], [0.95]], dtype=torch.float64))
    assert high > 2 * low
    constant = fit_estimator(z, 3 * z[:, 0] + 0.1 * noise)
    assert constant.spread is None
    assert (constant.scale(z) == 1).all()
    assert fit_estimator(z, 3 * z[:, 0] + noise * z[:, 0], interval="constant").spread is None


def test_the_guess_of_the_error_stays_within_bounds_far_away():
    generator = torch.Generator().manual_seed(3)
    z = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(400, generator=generator, dtype=torch.float64)
    estimator = fit_estimator(z, 3 * z[:, 0] + noise * (0.1 + 0.9 * z[:, 0]))
    scale = estimator.scale(torch.tensor([[-50.0], [50.0]], dtype=torch.float64))
    assert np.allclose(np.log(scale[scale > np.exp(estimator.typical)]), estimator.typical + np.log(4))
    assert (scale <= 4 * np.exp(estimator.typical) * (1 + 1e-12)).all()


def test_neighbours_predict_the_mean_of_the_nearest():
    z = torch.tensor([[0.0], [1.0], [2.0], [10.0]], dtype=torch.float64)
    readout = NeighbourReadout.fit(z, torch.tensor([1.0, 2.0, 3.0, 100.0], dtype=torch.float64), neighbours=2)
    assert readout.predict(torch.tensor([[0.4]])).tolist() == [1.5]
    estimator = fit_estimator(*linear(40), kind="neighbours")
    assert isinstance(estimator, Estimator)


def test_a_head_is_read_column_by_column_on_its_own_scale():
    head = Head(5, 2).eval()
    z = torch.randn(3, 5, dtype=torch.float64)
    expected = 2.0 + 3.0 * head(z.float())[:, 1].double()
    assert torch.allclose(HeadReadout(head, 1, (5.0, 2.0), (7.0, 3.0)).predict(z), expected.detach())


def test_predictions_stay_near_the_labels():
    z = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
    estimator = fit_estimator(z, 2 * z[:, 0])
    far = torch.tensor([[-9.0], [0.5], [9.0]], dtype=torch.float64)
    assert np.allclose(estimator.predict(far), [-1, 1, 3], atol=1e-3)


def test_unknown_kinds_are_refused():
    with pytest.raises(DataError, match="no readout 'forest'.* Choose ridge, neighbours, mean, affine, best"):
        fit_estimator(*linear(10), kind="forest")
    with pytest.raises(DataError, match="cannot save a readout of class object"):
        readout_arrays(object())
    with pytest.raises(ValueError, match="kind 'head'"):
        readout_from({"kind": "head", "column": 0, "offset": 0, "factor": 1}, {}, None)


@pytest.mark.parametrize("kind", ["ridge", "neighbours", "mean", "affine"])
def test_weights_are_repetitions(kind):
    """A run of weight 2 is that run twice."""
    z, y = linear(12, width=1)
    counts = torch.tensor([1, 2, 1, 3, 1, 1, 2, 1, 1, 1, 1, 1])
    z, y = z + 4, 10 * z[:, 0] + y + 20
    if kind == "neighbours":  # all runs are near
        found = NeighbourReadout(z.mean(0), z.std(0), z, y, 12, counts.double()).predict(z)
        torch.testing.assert_close(found, ((counts * y).sum() / counts.sum()).expand(12))
        return
    fits = {
        "ridge": lambda z, y, w: fit_ridge(z, y, (1e-3,), w).predict,
        "mean": lambda z, y, w: fit_estimator(z, y, "mean", "constant", weights=w).readout.predict,
        "affine": lambda z, y, w: AffineReadout.fit(z, y, w).predict,
    }
    twice = fits[kind](z.repeat_interleave(counts, 0), y.repeat_interleave(counts), None)
    torch.testing.assert_close(fits[kind](z, y, counts.double())(z), twice(z), rtol=1e-9, atol=1e-9)


def test_labels_without_errors_count_alike_and_residuals_lose_the_share_of_the_label():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    errors = torch.where(torch.arange(200) % 4 == 0, 2.0, 0.0).double()
    noise = torch.randn(2, 200, generator=generator).double()
    y = z[:, 0] + 0.1 * noise[0] + errors * noise[1]
    weights, share = label_weights(z, y, errors, "ridge")
    assert float(weights.mean()) == pytest.approx(1) and float(weights[1] / weights[0]) > 100
    assert float(share[1]) == 1 and float(share[0]) == pytest.approx(0.05, rel=0.3)
    same, ones = label_weights(z, y, torch.zeros(200, dtype=torch.float64), "ridge")
    assert bool((same == 1).all()) and bool((ones == 1).all())
    exact, plain = (fit_ridge(z, y, weights=w).weights.item() / fit_ridge(z, y).scale.item() for w in (weights, None))
    assert abs(exact - 1) < abs(plain - 1)
