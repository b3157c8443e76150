import math

import numpy as np
import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.objectives import (
    alignment,
    alpha_req,
    collapse_summary,
    lidar,
    nearest_neighbour_prediction,
    normalised_std,
    per_dimension_std,
    rank_me,
    uniformity,
)

from .embeddings import draw, pinned


def test_rank_me_pins():
    z, _ = pinned()
    assert rank_me(z, centre=False) == pytest.approx(3.250327251206748, rel=1e-10)
    assert rank_me(z) == pytest.approx(3.2369405413889947, rel=1e-10)


def test_rank_me_of_known_spectra():
    flat = torch.eye(6, dtype=torch.float64)
    assert rank_me(flat, centre=False) == pytest.approx(6, rel=1e-5)
    assert rank_me(torch.ones(256, 128), centre=False) == pytest.approx(1.0002, abs=1e-4)
    assert rank_me(torch.ones(256, 128)) == pytest.approx(1, abs=1e-3)
    sigma = [4.0, 2.0, 1.0]
    p = [s / 7 for s in sigma]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    basis = torch.linalg.qr(draw(10, 3))[0]
    assert rank_me(basis * torch.tensor(sigma), centre=False) == pytest.approx(expected, rel=1e-5)


def test_rank_me_depends_on_rows_and_offset_as_documented():
    assert rank_me(draw(64, 128)) == pytest.approx(59.3, abs=1.5)
    offset = draw(4096, 128) + 10
    assert rank_me(offset) > 4 * rank_me(offset, centre=False)


def test_summary_sees_dead_columns_and_copies():
    z = draw(400, 10)
    z[:, :2] = 0.01 * z[:, :2]
    z[:, 3] = z[:, 4]
    summary = collapse_summary(z)
    assert (summary.rows, summary.width) == (400, 10)
    assert summary.share_collapsed == pytest.approx(0.2)
    assert summary.std_min == pytest.approx(float(per_dimension_std(z).min()))
    assert summary.correlation > 2 / 90 > collapse_summary(draw(400, 10)).correlation
    constant = collapse_summary(torch.ones(5, 3))
    assert constant.std_min == 0
    assert constant.correlation == 0


def test_monitors_refuse_other_shapes():
    with pytest.raises(ShapeError, match=r"shape \(3, 2, 1\); expected \(n, D\)"):
        rank_me(torch.zeros(3, 2, 1))


# --------------------------------------------------------------------------------- LiDAR


def loop_lidar(views, delta=1e-4, epsilon=1e-8):
    views = views.numpy()
    n, q, width = views.shape
    means = [sample.mean(axis=0) for sample in views]
    mean = sum(means) / n
    between = sum(np.outer(m - mean, m - mean) for m in means) / (n - 1)
    within = sum(np.outer(e - m, e - m) for m, sample in zip(means, views, strict=True) for e in sample) / (n * (q - 1))
    within += delta * np.eye(width)
    eigenvalues = np.linalg.eigvals(np.linalg.inv(within) @ between).real
    p = eigenvalues / eigenvalues.sum() + epsilon
    return math.exp(-(p * np.log(p)).sum()), q * eigenvalues.sum() / width


def test_lidar_equals_the_definition_and_the_pin():
    views = torch.stack((draw(30, 5, seed=1), draw(30, 5, seed=2), draw(30, 5, seed=3)), dim=1)
    assert tuple(lidar(views)) == pytest.approx(loop_lidar(views), rel=1e-8)
    assert lidar(torch.stack(pinned(), dim=1)).rank == pytest.approx(1.9279051759140422, rel=1e-8)


def test_lidar_counts_what_survives_the_augmentation_and_its_signal_tells_noise_apart():
    code = torch.zeros(400, 1, 32, dtype=torch.float64)
    code[:, 0, :8] = 3 * draw(400, 8, seed=1)
    noise = draw(400, 10 * 32, seed=2).unflatten(1, (10, 32))
    informative, alone = lidar(code + noise), lidar(noise)
    assert 7.5 < informative.rank < 10
    assert informative.signal > 10
    assert alone.rank > 28  # high: the rank alone says nothing
    assert alone.signal == pytest.approx(1, abs=0.1)
    with pytest.raises(ShapeError, match=r"shape \(9, 1, 3\); expected \(n, q, D\)"):
        lidar(torch.zeros(9, 1, 3))


# --------------------------------------------------------------- spectrum, spread, agreement


def test_alpha_req_of_power_laws():
    centred = draw(300, 65, seed=1)
    centred = torch.linalg.qr(centred - centred.mean(dim=0))[0][:, :64]
    for alpha in (0.0, 0.5, 1.0, 2.0):
        spectrum = torch.arange(1, 65, dtype=torch.float64) ** (-alpha / 2)
        assert alpha_req(centred * spectrum) == pytest.approx(alpha, abs=1e-6)
    assert alpha_req(draw(20_000, 128, seed=2) * torch.arange(1, 129) ** -0.5) == pytest.approx(1.0, abs=0.02)
    assert math.isnan(alpha_req(draw(50, 5)))
    assert math.isnan(alpha_req(draw(50, 2) @ draw(2, 40, seed=1)))


def test_alpha_req_is_the_weighted_fit_of_numpy():
    z = draw(60, 40, seed=3) @ draw(40, 40, seed=4) ** 3 + 5  # no power law: the weights and the ranks decide
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(z.numpy().T)))[::-1]
    for first, last in ((4, 40), (2, 11)):
        k = np.arange(first, last + 1)
        slope = np.polyfit(np.log(k), np.log(eigenvalues[first - 1 : last]), 1, w=np.sqrt(1 / k))[0]
        assert alpha_req(z, (first, last)) == pytest.approx(-slope, rel=1e-8)


def test_normalised_std_is_one_for_isotropic_rows_of_any_scale_and_sees_a_line_and_an_offset():
    z = draw(4000, 32)
    assert normalised_std(7 * z) == pytest.approx(1, abs=0.01)
    assert normalised_std(z + 20, centre=False) < 0.1 < 0.99 < normalised_std(z + 20)
    constant = torch.full((6, 4), 0.3)
    assert normalised_std(constant) == normalised_std(constant, centre=False) == pytest.approx(0, abs=1e-12)
    line = draw(4000, 1) @ torch.ones(1, 32, dtype=torch.float64)
    assert normalised_std(line) == pytest.approx(1, abs=0.01)  # spread, but of rank one: what RankMe is for
    assert rank_me(line) == pytest.approx(1, abs=0.01)


def test_uniformity_and_alignment_equal_the_loops():
    z, w = draw(12, 3, seed=1), draw(12, 3, seed=2)
    units = [[row / np.linalg.norm(row) for row in x.numpy()] for x in (z, w)]
    total = [math.exp(-2 * ((p - q) ** 2).sum()) for i, p in enumerate(units[0]) for q in units[0][:i]]
    assert uniformity(z) == pytest.approx(math.log(sum(total) / len(total)), rel=1e-12)
    gaps = [((p - q) ** 2).sum() for p, q in zip(*units, strict=True)]
    assert alignment(z, w) == pytest.approx(sum(gaps) / 12, rel=1e-12)
    constant = torch.full((5, 3), 0.2)
    assert uniformity(constant) == pytest.approx(0, abs=1e-12)
    assert uniformity(draw(800, 400)) == pytest.approx(-4, abs=0.05)
    assert alignment(z, 3 * z) == pytest.approx(0, abs=1e-12)
    assert alignment(draw(4000, 64), draw(4000, 64, seed=1)) == pytest.approx(2, abs=0.02)
    with pytest.raises(ShapeError, match="expected the same"):
        alignment(z, w[:5])


# ---------------------------------------------------------------------- nearest neighbours


@pytest.mark.parametrize("cosine", [True, False])
def test_nearest_neighbours_equal_the_loop(cosine):
    x, y, q = draw(40, 3, seed=1), draw(40, 2, seed=2), draw(9, 3, seed=3)
    expected = []
    for query in q.numpy():
        near = []
        for row, target in zip(x.numpy(), y.numpy(), strict=True):
            angle = -row @ query / np.linalg.norm(row) / np.linalg.norm(query)
            near.append((angle if cosine else ((row - query) ** 2).sum(), target))
        near.sort(key=lambda pair: pair[0])
        expected.append(sum(target for _, target in near[:5]) / 5)
    found = nearest_neighbour_prediction(x, y, q, neighbours=5, cosine=cosine)
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-12)


def test_nearest_neighbours_leave_the_row_itself_out():
    x = draw(2100, 4, seed=1)  # more than one block of queries
    identity = torch.arange(2100.0)
    own = nearest_neighbour_prediction(x, identity, x, neighbours=1)
    assert torch.equal(own, identity.double())
    others = nearest_neighbour_prediction(x, identity, neighbours=1)
    assert not (others == identity).any()
    smooth = x[:, 0] / x.norm(dim=1)
    error = (nearest_neighbour_prediction(x, smooth) - smooth).var() / smooth.var()
    assert float(error) < 0.05
    with pytest.raises(ShapeError, match="got 5 labelled rows; expected more than 10"):
        nearest_neighbour_prediction(x[:5], identity[:5])
    with pytest.raises(ShapeError, match="expected"):
        nearest_neighbour_prediction(x, identity[:7])
    with pytest.raises(DataError, match="not finite"):
        nearest_neighbour_prediction(torch.full((20, 2), math.nan), identity[:20])
