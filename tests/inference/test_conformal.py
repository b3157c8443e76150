"""Conformal intervals hold what they promise, and the test would notice if they were 20 % too narrow."""

import math

import numpy as np
import pytest

from pdessl.evaluation.intervals import coverage
from pdessl.inference.conformal import CrossConformal


def calibrated(truth, lower, scale=None, upper=None, shrink=1.0):
    """The rule of one model, calibrated on runs that it has not seen."""
    upper = lower if upper is None else upper
    scores = np.maximum(lower - truth, truth - upper) / (1 if scale is None else scale)
    return CrossConformal(scores * shrink, np.zeros(len(truth), dtype=np.int64))


def interval(rule, level, lower, scale=None, upper=None):
    scale = np.ones(len(lower)) if scale is None else scale
    return rule.ends(lower[None], scale[None], level, None if upper is None else upper[None])


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
        rule = calibrated(y[part], mu[part], None if s is None else s[part], shrink=shrink)
        rest = slice(calibration, None)
        low, high = interval(rule, level, mu[rest], None if s is None else s[rest])
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
    rule = calibrated(y[:2000], low[:2000], x[:2000], high[:2000])
    a, b = interval(rule, 0.9, low[2000:], x[2000:], high[2000:])
    measured = coverage(y[2000:], a, b, 0.9)
    assert measured.low - 0.01 <= measured.share <= measured.high + 0.01 and measured.honest
    wide = calibrated(y[:2000], -9 * x[:2000], upper=9 * x[:2000])
    assert (wide.scores < 0).mean() > 0.9
    a, b = interval(wide, 0.9, -0.1 * x[2000:], upper=0.1 * x[2000:])
    assert (a <= b).all()


def test_adaptive_widths_follow_the_scale_and_cover_both_halves():
    y, mu, s = runs(6000, 1)
    for scale in (s, None):
        rule = calibrated(y[:3000], mu[:3000], None if scale is None else scale[:3000])
        low, high = interval(rule, 0.9, mu[3000:], None if scale is None else scale[3000:])
        hard = s[3000:] > np.median(s[3000:])
        shares = [((low <= y[3000:]) & (y[3000:] <= high))[part].mean() for part in (hard, ~hard)]
        if scale is None:
            assert shares[0] < 0.85 and shares[1] > 0.95
        else:
            assert min(shares) > 0.87
