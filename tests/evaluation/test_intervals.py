"""Conformal quantiles, measured coverage, and what chance allows of it."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.intervals import conformal_quantile, coverage, share_by_chance


def test_the_quantile_is_the_order_statistic():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))  # n = 99
    assert conformal_quantile(scores, 0.9) == 90.0
    assert conformal_quantile(scores, 0.95) == 95.0
    assert conformal_quantile(scores[:9], 0.9) == max(scores[:9])
    assert conformal_quantile(scores[:8], 0.9) == math.inf  # eight runs cannot promise 90 %


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
        coverage([1.0, 2.0], [1.0], [2.0], 0.9)
