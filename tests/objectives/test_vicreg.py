import math
import warnings

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.objectives import VICReg, covariance_term, equilibrium_std, invariance_term, variance_term

from .embeddings import draw, pinned

# ------------------------------------------------- references, from the formulas, with loops


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def loop_invariance(a, b):
    return mean((a[i][d] - b[i][d]) ** 2 for i in range(len(a)) for d in range(len(a[0])))


def loop_variance(z):
    n, width, total = len(z), len(z[0]), 0.0
    for d in range(width):
        m = mean(z[i][d] for i in range(n))
        var = sum((z[i][d] - m) ** 2 for i in range(n)) / (n - 1)
        total += max(0.0, 1 - math.sqrt(var + 1e-4))
    return total / width / 2


def loop_covariance(z):
    n, width, total = len(z), len(z[0]), 0.0
    means = [mean(z[i][d] for i in range(n)) for d in range(width)]
    for i in range(width):
        for j in range(width):
            if i != j:
                total += (sum((z[k][i] - means[i]) * (z[k][j] - means[j]) for k in range(n)) / (n - 1)) ** 2
    return total / width


def loop_debiased_covariance(z):
    """Mean over distinct 4-tuples of rows (a, b, c, d) of the unbiased kernel of cov_ij², summed over i != j."""
    n, width = len(z), len(z[0])
    total, count = 0.0, 0
    for a in range(n):
        for b in range(n):
            for c in range(n):
                for d in range(n):
                    if len({a, b, c, d}) < 4:
                        continue
                    count += 1
                    for i in range(width):
                        for j in range(width):
                            if i != j:
                                first = (z[a][i] - z[b][i]) * (z[a][j] - z[b][j]) / 2
                                second = (z[c][i] - z[d][i]) * (z[c][j] - z[d][j]) / 2
                                total += first * second
    return total / count / width


@pytest.mark.parametrize("shape", [(2, 1), (13, 4), (16, 5)])
def test_terms_equal_the_loops(shape):
    z, z_prime = draw(*shape, seed=1, scale=0.7), draw(*shape, seed=2, scale=0.4) + 3
    terms = VICReg(3.0, 2.0, 0.5).terms(z, z_prime)
    a, b = z.tolist(), z_prime.tolist()
    s, v, c = loop_invariance(a, b), loop_variance(a) + loop_variance(b), loop_covariance(a) + loop_covariance(b)
    expected = torch.tensor([3 * s + 2 * v + 0.5 * c, s, v, c], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(terms), expected, rtol=1e-10, atol=1e-12)


def test_debiased_covariance_is_the_u_statistic_over_distinct_rows():
    z = draw(6, 3, seed=3) ** 3  # heavy tails: a correction that assumes Gaussian features fails here
    torch.testing.assert_close(
        float(covariance_term(z, debias=True)), loop_debiased_covariance(z.tolist()), rtol=1e-10, atol=0
    )


def test_pinned_values():
    z, z_prime = pinned()
    terms = VICReg().terms(z, z_prime)
    expected = (6.963745928464058, 0.02016165153523577, 0.24031373288897634, 0.4518613178587556)
    torch.testing.assert_close(torch.stack(terms), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    debiased = [float(covariance_term(v, debias=True)) for v in (z, z_prime)]
    assert debiased == pytest.approx([0.13653635750943413, 0.11975130329996875], rel=1e-11)
    assert float(invariance_term(z, z_prime)) == pytest.approx(float(terms.invariance), rel=1e-14)
    assert float(variance_term(z) + variance_term(z_prime)) == pytest.approx(float(terms.variance), rel=1e-14)


# ------------------------------------------------------------------ invariances and limits


def test_what_leaves_the_terms_unchanged_and_what_does_not():
    z, z_prime = draw(12, 5, seed=4, scale=0.5), draw(12, 5, seed=5, scale=0.5)
    z[:, 1] += z[:, 0]
    base = torch.stack(VICReg().terms(z, z_prime))
    rows, columns = torch.randperm(12, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 1, 4, 0, 2])
    for same in ((z[rows], z_prime[rows]), (z_prime, z), (z[:, columns], z_prime[:, columns])):
        torch.testing.assert_close(torch.stack(VICReg().terms(*same)), base, rtol=1e-12, atol=1e-13)
    shifted = VICReg().terms(z + 7, z_prime - 5)
    torch.testing.assert_close(torch.stack(shifted[2:]), base[2:], rtol=1e-10, atol=1e-12)
    rotation = torch.linalg.qr(draw(5, 5, seed=6))[0]
    rotated = VICReg().terms(z @ rotation, z_prime @ rotation)
    torch.testing.assert_close(rotated.invariance, base[1], rtol=1e-12, atol=0)
    assert abs(float(rotated.covariance - base[3])) > 1e-3


def test_independent_unit_gaussian_views_have_invariance_two():
    assert float(invariance_term(draw(4000, 16, seed=7), draw(4000, 16, seed=8))) == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_at_exact_collapse_the_loss_is_24_75_and_the_gradient_finite(dtype):
    z = torch.full((8, 4), 0.25, dtype=dtype, requires_grad=True)
    loss = VICReg().terms(z, z.detach().clone()).loss
    assert float(loss.detach()) == pytest.approx(24.75, rel=1e-6)
    loss.backward()
    assert torch.isfinite(z.grad).all()


def test_variance_far_from_the_origin_keeps_its_digits_in_float32():
    z = draw(256, 4, seed=9, scale=0.1)
    far = (z + 100).float()
    assert float(variance_term(far)) == pytest.approx(float(variance_term(far.double())), rel=1e-4)


def test_covariance_floor_of_decorrelated_features_and_its_removal():
    n, width = 32, 64
    draws = [draw(n, width, seed=s) for s in range(60)]
    values = torch.tensor([[float(covariance_term(z, debias=d)) for d in (False, True)] for z in draws])
    assert values[:, 0].mean() == pytest.approx((width - 1) / (n - 1), rel=0.03)
    assert abs(float(values[:, 1].mean())) < 4 * float(values[:, 1].std()) / math.sqrt(60)


def test_gradients_match_finite_differences():
    z, z_prime = draw(7, 3, seed=10, scale=0.6), draw(7, 3, seed=11, scale=0.6)
    for debias in (False, True):
        objective = VICReg(debias_covariance=debias)
        assert torch.autograd.gradcheck(
            lambda a, b, f=objective: f.terms(a, b).loss, (z.requires_grad_(), z_prime.requires_grad_())
        )


# ---------------------------------------------------------------------------- arithmetic


def test_autocast_does_not_lower_the_precision():
    z, z_prime = draw(64, 32, seed=12).float(), draw(64, 32, seed=13).float()
    plain = VICReg().terms(z, z_prime)
    with torch.autocast("cpu", torch.bfloat16):
        inside = VICReg().terms(z, z_prime)
        terms = (invariance_term(z, z_prime), covariance_term(z))
    assert all(t.dtype == torch.float32 for t in inside)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    assert torch.equal(terms[0], plain.invariance)
    assert torch.equal(terms[1], covariance_term(z))


def test_float16_embeddings_do_not_overflow():
    z = draw(2048, 8, seed=14, scale=8).half()
    assert torch.isfinite(VICReg().terms(z, z).loss)


# ------------------------------------------------------------------------------ messages


def test_errors_name_what_was_found_and_expected():
    z = torch.zeros(64, 8)
    with pytest.raises(ShapeError, match=r"z \(64, 8\) and z' \(32, 8\); the two views must have the same rows"):
        VICReg().terms(z, z[:32])
    with pytest.raises(ShapeError, match=r"shape \(64, 8, 1\).*expected \(B, D\)"):
        VICReg().terms(z[..., None], z[..., None])
    with pytest.raises(ValueError, match="got 1 rows over all processes.*at least 2"):
        VICReg().terms(z[:1], z[:1])
    bad = z.clone()
    bad[5, 2] = math.inf
    with pytest.raises(DataError, match="1 rows hold NaN or infinite entries, first in view 2, row 5"):
        VICReg().terms(z, bad)
    with pytest.raises(ValueError, match="at least 4 rows"):
        VICReg(debias_covariance=True).terms(z[:3], z[:3])
    with pytest.raises(ValueError, match="variance is -1"):
        VICReg(variance=-1)


def test_the_noise_floor_is_warned_of_once_with_the_width_that_avoids_it():
    objective, z = VICReg(), draw(64, 512)
    message = r"64 rows and width 512 .* near std 0.73, not 1. Use width <= 197, a larger batch, or debias_covariance"
    with pytest.warns(UserWarning, match=message):
        objective.terms(z, z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective.terms(z, z)
        VICReg().terms(z[:, :197], z[:, :197])
        VICReg(debias_covariance=True).terms(z, z)


@pytest.mark.parametrize(
    ("n", "width", "expected"), [(32, 512, 0.57), (64, 512, 0.73), (256, 512, 1.0), (32, 128, 0.91), (2048, 8192, 0.92)]
)
def test_equilibrium_std(n, width, expected):
    assert equilibrium_std(n, width) == pytest.approx(expected, abs=0.005)
