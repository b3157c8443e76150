"""Novel runs are told from known ones, and known ones are called novel no more often than promised."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.novelty import Novelty, area_under_roc


def features(count, seed, shift=0.0):
    stream = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(6, 6))
    return stream.normal(size=(count, 6)) @ mix + 5 + shift


@pytest.mark.parametrize("method", ["mahalanobis", "neighbours"])
def test_known_runs_are_rarely_novel_and_shifted_ones_are(method):
    rates = []
    for trial in range(20):
        found = Novelty.fit(features(200, trial), features(99, 100 + trial), 0.9, method)
        rates.append((found.score(features(200, 200 + trial)) > 1).mean())
    assert 0.07 < np.mean(rates) < 0.13
    far = found.score(features(50, 7, shift=20.0))
    assert (far > 1).mean() > 0.95
    assert area_under_roc(found.score(features(100, 8)), far) > 0.97


def test_distance_is_mahalanobis():
    x = features(400, 0)
    found = Novelty.fit(x, features(99, 1))
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    covariance = 0.9 * np.cov(z.T) + 0.1 * np.diag(np.diag(np.cov(z.T)))
    expected = [mahalanobis(row, np.zeros(6), np.linalg.inv(covariance)) for row in z[:5]]
    assert found.distance(x[:5]) == pytest.approx(expected)


def test_neighbours_are_the_nearest():
    x = features(50, 0)
    found = Novelty.fit(x, features(99, 1), method="neighbours", neighbours=3)
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    query = (features(1, 5) - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    expected = np.sort(np.linalg.norm(z - query, axis=1))[:3].mean()
    assert found.distance(features(1, 5))[0] == pytest.approx(expected)


def test_area_under_the_curve():
    assert area_under_roc([0, 1], [2, 3]) == 1.0
    assert area_under_roc([2, 3], [0, 1]) == 0.0
    assert area_under_roc([1, 1], [1, 1]) == 0.5
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert area_under_roc(a, b) == pytest.approx(np.mean(a[:, None] < b[None]))


def test_errors():
    with pytest.raises(DataError, match="method 'distance'"):
        Novelty.fit(features(9, 0), features(9, 1), method="distance")
    with pytest.raises(ShapeError, match="width 6 and 5"):
        Novelty.fit(features(9, 0), features(9, 1)[:, :5])
    with pytest.raises(DataError, match="not finite"):
        Novelty.fit(features(9, 0) * np.nan, features(9, 1))
