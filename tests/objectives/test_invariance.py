"""Barlow Twins, W-MSE, MMCR and SimCLR against loops over the papers' formulas, and their limits."""

import math

import numpy as np
import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.objectives import MMCR, WMSE, BarlowTwins, SimCLR, whiten

from .embeddings import draw, pair, pinned, rotation

# -------------------------------------------------------------------------- Barlow Twins


def loop_barlow(a, b, weight):
    n, width = len(a), len(a[0])

    def normalised(x):
        columns = []
        for d in range(width):
            mean = sum(x[i][d] for i in range(n)) / n
            variance = sum((x[i][d] - mean) ** 2 for i in range(n)) / n
            columns.append([(x[i][d] - mean) / math.sqrt(variance + 1e-5) for i in range(n)])
        return columns

    p, q = normalised(a), normalised(b)
    total = 0.0
    for i in range(width):
        for j in range(width):
            c = sum(p[i][k] * q[j][k] for k in range(n)) / n
            total += (c - 1) ** 2 if i == j else weight * c**2
    return total


def test_barlow_twins_equals_the_loop_and_the_pins():
    z, w = pair()
    found = float(BarlowTwins(0.3).terms(z, w).loss)
    assert found == pytest.approx(loop_barlow(z.tolist(), w.tolist(), 0.3), rel=1e-10)
    terms = BarlowTwins().terms(*pinned())
    expected = (0.015692649452890974, 0.0014639038182593408, 2.789950124437575)
    assert [float(t) for t in terms] == pytest.approx(expected, rel=1e-11)
    assert float(BarlowTwins(0.005).terms(*pinned()).loss) == pytest.approx(0.015413654440447217, rel=1e-11)


def test_barlow_twins_limits_and_invariances():
    constant = torch.full((9, 5), 2.0, dtype=torch.float64)
    assert float(BarlowTwins().terms(constant, constant).loss) == pytest.approx(5, rel=1e-12)
    copies = draw(50, 1, seed=3).expand(-1, 5)
    assert float(BarlowTwins(0.1).terms(copies, copies).loss) == pytest.approx(0.1 * 20, rel=1e-3)
    z, w = pair(40)
    scaled = BarlowTwins(0.1).terms(100 * z + 7, 0.2 * w * torch.tensor([10.0, 20.0, 30.0, 40.0]))
    assert float(scaled.loss) == pytest.approx(float(BarlowTwins(0.1).terms(z, w).loss), rel=1e-3)
    columns = torch.tensor([2, 0, 3, 1])
    assert float(BarlowTwins().terms(z[:, columns], w[:, columns]).loss) == pytest.approx(
        float(BarlowTwins().terms(z, w).loss)
    )
    floor = np.mean(
        [float(BarlowTwins().terms(draw(65, 20, seed=s), draw(65, 20, seed=s + 99)).off_diagonal) for s in range(30)]
    )
    assert floor == pytest.approx(20 * 19 / 64, rel=0.05)


def test_barlow_twins_keeps_its_digits_far_from_the_origin():
    z, w = pair(64, seed=5)
    near = float(BarlowTwins(1.0).terms(z, w).loss)
    far = float(BarlowTwins(1.0).terms((z + 100).float(), (w + 100).float()).loss)
    assert far == pytest.approx(near, rel=1e-3)


# --------------------------------------------------------------------------------- W-MSE


def loop_wmse(a, b):
    total, whitened = 0.0, []
    for x in (a.numpy(), b.numpy()):
        x = x - x.mean(axis=0)
        covariance = sum(np.outer(row, row) for row in x) / (len(x) - 1)
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        whitened.append([inverse @ row for row in x])
    for p, q in zip(*whitened, strict=True):
        p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
        total += ((p - q) ** 2).sum()
    return total / len(a)


def test_w_mse_equals_the_loop_and_the_pin():
    z, w = pair()
    assert float(WMSE().terms(z, w).loss) == pytest.approx(loop_wmse(z, w), rel=1e-10)
    assert float(WMSE().terms(*pinned()).loss) == pytest.approx(0.14858066187965457, rel=1e-10)


def test_whitened_rows_have_identity_covariance_and_what_changes_them():
    z, w = pair(30)
    white = whiten(z)
    torch.testing.assert_close(white.T.cov(), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    general = draw(4, 4, seed=8)
    # Any linear map only rotates the whitened rows: their inner products stay.
    moved = whiten(z @ general + 3)
    torch.testing.assert_close(moved @ moved.T, white @ white.T, rtol=1e-8, atol=1e-9)
    assert (moved - white).abs().max() > 0.1
    lower = torch.tril(general) + 3 * torch.eye(4, dtype=torch.float64)
    base = float(WMSE().terms(z, w).loss)
    assert float(WMSE().terms(z @ lower.T - 1, w).loss) == pytest.approx(base, rel=1e-9)
    assert float(WMSE().terms(draw(5000, 3, seed=9), draw(5000, 3, seed=10)).loss) == pytest.approx(2, abs=0.08)


def test_shrinkage_whitens_a_mean_of_covariance_and_identity():
    z, _ = pair(30)
    white, shrunk = whiten(z, 0.25), 0.75 * np.cov(z.numpy().T) + 0.25 * np.eye(4)
    inverse = np.linalg.inv(np.linalg.cholesky(shrunk))
    expected = (z.numpy() - z.numpy().mean(axis=0)) @ inverse.T
    np.testing.assert_allclose(white.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_w_mse_sub_batches_are_whitened_separately():
    z, w = pair(23)
    objective = WMSE(sub_batch=10)
    found = float(objective.terms(z, w).loss)
    kept = torch.randperm(23, generator=torch.Generator().manual_seed(1))[:20]
    halves = [loop_wmse(z[part], w[part]) for part in kept.split(10)]
    assert found == pytest.approx(sum(halves) / 2, rel=1e-10)


def test_w_mse_refuses_what_it_cannot_whiten():
    z, w = pair(30)
    z[:, 3] = z[:, 2] - z[:, 1]
    with pytest.raises(DataError, match="30 rows of width 4: their covariance is singular.*sub_batch >= 2 D"):
        WMSE().terms(z, w)
    with pytest.raises(DataError, match="collapsed"):
        WMSE().terms(torch.full((30, 4), 0.3), torch.full((30, 4), 0.3))
    assert float(WMSE(shrinkage=0.1).terms(z, w).loss) < 4
    with pytest.raises(ValueError, match="3 rows to whiten .* of width 4; expected more rows than columns, better 8"):
        WMSE(sub_batch=3).terms(z, w)
    with pytest.raises(ValueError, match="shrinkage 1"):
        WMSE(shrinkage=1)


# ---------------------------------------------------------------------------------- MMCR


def loop_mmcr(a, b, weight):
    units = [[row / np.linalg.norm(row) for row in x.numpy()] for x in (a, b)]
    centroids = np.array([(p + q) / 2 for p, q in zip(*units, strict=True)])
    local = np.mean([np.linalg.norm(np.array(rows), ord="nuc") for rows in zip(*units, strict=True)])
    return weight * local - np.linalg.norm(centroids, ord="nuc")


def test_mmcr_equals_the_loop_and_the_pins():
    z, w = pair()
    assert float(MMCR(0.2).terms(z, w).loss) == pytest.approx(loop_mmcr(z, w, 0.2), rel=1e-10)
    assert float(MMCR().terms(*pinned()).loss) == pytest.approx(-4.944016096036823, rel=1e-11)
    assert float(MMCR(0.005).terms(*pinned()).loss) == pytest.approx(-4.936333968428665, rel=1e-11)


def test_mmcr_limits_and_invariances():
    constant = torch.full((16, 6), 0.3, dtype=torch.float64)
    assert float(MMCR().terms(constant, constant).loss) == pytest.approx(-4, rel=1e-12)
    frame = torch.eye(6, dtype=torch.float64).repeat(3, 1)
    best = MMCR().terms(frame, 5 * frame)
    assert float(best.loss) == pytest.approx(-math.sqrt(18 * 6), rel=1e-12)
    assert float(best.saturation) == pytest.approx(1, rel=1e-12)
    z, w = pair()
    base, turn = float(MMCR(0.1).terms(z, w).loss), rotation(4)
    scales = draw(14, 1, seed=3).exp()
    assert float(MMCR(0.1).terms(scales * z @ turn, w @ turn).loss) == pytest.approx(base, rel=1e-10)


# -------------------------------------------------------------------------------- SimCLR


def loop_nt_xent(a, b, temperature, groups=None):
    rows = [row / np.linalg.norm(row) for row in (*a.numpy(), *b.numpy())]
    n, total = len(a), 0.0
    for i in range(2 * n):
        partner, denominator = (i + n) % (2 * n), 0.0
        for k in range(2 * n):
            same_run = groups is not None and groups[i % n] == groups[k % n] and k % n != i % n
            if k != i and not same_run:
                denominator += math.exp(rows[i] @ rows[k] / temperature)
        total += -rows[i] @ rows[partner] / temperature + math.log(denominator)
    return total / (2 * n)


def test_nt_xent_equals_the_loop_and_the_pins():
    z, w = pair()
    assert float(SimCLR(0.3).terms(z, w).loss) == pytest.approx(loop_nt_xent(z, w, 0.3), rel=1e-10)
    groups = torch.arange(14) // 3
    assert float(SimCLR(0.3).terms(z, w, groups).loss) == pytest.approx(
        loop_nt_xent(z, w, 0.3, groups.tolist()), rel=1e-10
    )
    assert float(SimCLR(0.1).terms(*pinned()).loss) == pytest.approx(0.12889336897088766, rel=1e-11)
    assert float(SimCLR(0.5).terms(*pinned()).loss) == pytest.approx(1.374874243855451, rel=1e-11)


def test_nt_xent_limits_and_invariances():
    constant = torch.full((9, 4), 0.3, dtype=torch.float64)
    assert float(SimCLR().terms(constant, constant).loss) == pytest.approx(math.log(17), rel=1e-12)
    orthonormal = torch.eye(7, dtype=torch.float64)
    terms = SimCLR(0.2).terms(orthonormal, 3 * orthonormal)
    assert float(terms.loss) == pytest.approx(math.log(1 + 12 * math.exp(-5)), rel=1e-12)
    assert float(terms.accuracy) == 1
    assert float(terms.cosine) == pytest.approx(1)
    z, w = pair()
    turn, scales = rotation(4), draw(14, 1, seed=3).exp()
    assert float(SimCLR().terms(scales * z @ turn, w @ turn).loss) == pytest.approx(
        float(SimCLR().terms(z, w).loss), rel=1e-10
    )
    assert math.isfinite(float(SimCLR(1e-3).terms(z.float(), w.float()).loss))  # exp(1/τ) alone would overflow
    with pytest.raises(ShapeError, match=r"groups \(13,\); expected one integer per row, \(14,\)"):
        SimCLR().terms(z, w, torch.zeros(13, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature is 0"):
        SimCLR(0)
