"""Conformal intervals hold what they promise, and the test would notice if they were 20 % too narrow."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.intervals import Conformal, conformal_quantile, coverage, share_by_chance


def runs(count, seed):
    """Truths and predictions whose error grows with a scale that is known up to a factor."""
    stream = np.random.default_rng(seed)
    scale = stream.uniform(0.2, 2.0, count)
    truth = stream.normal(size=count)
    return truth, truth + scale * stream.normal(size=count), 3 * scale


def many(level, shrink=1.0, adaptive=False, trials=300, calibration=60, test=60):
    """Truths inside over all trials; each trial calibrates anew, so that the guarantee is the marginal one."""
    inside = 0
    for trial in range(trials):
        y, mu, s = runs(calibration + test, trial)
        s = s if adaptive else None
        part = slice(0, calibration)
        found = Conformal.calibrate(y[part], mu[part], level, None if s is None else s[part])
        found = Conformal(found.level, found.quantile * shrink, found.count)
        rest = slice(calibration, None)
        low, high = found.interval(mu[rest], None if s is None else s[rest])
        inside += int(((low <= y[rest]) & (y[rest] <= high)).sum())
    return inside, trials * test


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_coverage_is_nominal_within_binomial_error_and_the_test_notices_narrow_intervals(level, adaptive):
    inside, total = many(level, adaptive=adaptive)
    # Calibration is shared by the runs of a trial, so the spread is wider than binomial: measured 2.1 times at most.
    spread = 4 * math.sqrt(level * (1 - level) / total) * 1.5
    exact = math.ceil(61 * level) / 61  # what split conformal covers on average with 60 calibration runs
    assert abs(inside / total - exact) < spread
    narrow, _ = many(level, 0.8, adaptive)
    assert narrow / total < exact - spread


def test_conformalised_quantiles_repair_bad_quantiles():
    stream = np.random.default_rng(0)
    x = stream.uniform(0.2, 2.0, 4000)
    y = x * stream.normal(size=4000)
    low, high = -0.3 * x, 0.3 * x  # far too narrow, but of the right shape
    found = Conformal.calibrate(y[:2000], low[:2000], 0.9, scale=x[:2000], upper=high[:2000])
    a, b = found.interval(low[2000:], x[2000:], high[2000:])
    measured = coverage(y[2000:], a, b, 0.9)
    assert measured.low - 0.01 <= measured.share <= measured.high + 0.01 and measured.honest
    wide = Conformal.calibrate(y[:2000], -9 * x[:2000], 0.9, upper=9 * x[:2000])
    assert wide.quantile < 0
    a, b = wide.interval(-0.1 * x[2000:], upper=0.1 * x[2000:])
    assert (a <= b).all()


def test_adaptive_widths_follow_the_scale_and_cover_both_halves():
    y, mu, s = runs(6000, 1)
    for scale in (s, None):
        found = Conformal.calibrate(y[:3000], mu[:3000], 0.9, None if scale is None else scale[:3000])
        low, high = found.interval(mu[3000:], None if scale is None else scale[3000:])
        hard = s[3000:] > np.median(s[3000:])
        shares = [((low <= y[3000:]) & (y[3000:] <= high))[part].mean() for part in (hard, ~hard)]
        if scale is None:
            assert shares[0] < 0.85 and shares[1] > 0.95
        else:
            assert min(shares) > 0.87


def test_the_quantile_is_the_order_statistic():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))  # n = 99
    assert conformal_quantile(scores, 0.9) == 90.0
    assert conformal_quantile(scores, 0.95) == 95.0
    assert conformal_quantile(scores[:9], 0.9) == max(scores[:9])
    assert conformal_quantile(scores[:8], 0.9) == math.inf  # eight runs cannot promise 90 %
    low, high = Conformal(0.9, math.inf, 8).interval([1.0])
    assert low[0] == -math.inf and high[0] == math.inf


def test_measured_coverage_comes_with_what_chance_allows():
    found = coverage([0, 1, 2, 3], [-1, 0, 5, 2], [1, 2, 6, 4], 0.9)
    assert found.share == 0.75 and found.width == pytest.approx(1.75)
    assert (found.low, found.high) == tuple(v / 4 for v in binom.interval(0.95, 4, 0.9))


@pytest.mark.parametrize("calibration", [19, 60, None])
def test_the_share_that_chance_allows_counts_the_draw_of_the_calibration_runs(calibration):
    """Intervals that keep their promise leave the band once in 20 times."""
    stream, level, test = np.random.default_rng(0), 0.9, 200
    shares = []
    for _ in range(2000):
        scores = stream.normal(size=calibration or 1) ** 2
        q = conformal_quantile(scores, level) if calibration else 2.7055434540954146  # of chi-squared
        shares.append((stream.normal(size=test) ** 2 <= q).mean())
    low, high = share_by_chance(level, test, calibration)
    inside = np.mean([low <= s <= high for s in shares])
    assert 0.94 < inside < 0.98
    found = coverage([0.0] * test, [-1.0] * test, [1.0] * test, level, calibration)
    assert (found.low, found.high) == (low, high)
    if calibration:
        assert low < share_by_chance(level, test)[0]
        assert share_by_chance(level, test, 5) == (1.0, 1.0)


def test_errors():
    with pytest.raises(DataError, match="0 scores"):
        conformal_quantile([], 0.9)
    with pytest.raises(DataError, match=r"level 1\.5"):
        conformal_quantile([1.0], 1.5)
    with pytest.raises(ShapeError, match="as many of each"):
        Conformal.calibrate([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="scales > 0"):
        Conformal.calibrate([1.0], [1.0], scale=[0.0])
