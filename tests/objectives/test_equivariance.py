import math

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.objectives import ParameterEquivariance, calibrate

from .embeddings import draw


def test_equals_the_loop():
    h, h_prime, d, d_prime = (draw(9, 2, seed=s) for s in range(4))
    terms = ParameterEquivariance("viscosity", torch.nn.Identity()).terms(h, h_prime, d, d_prime)
    total = 0.0
    for i in range(9):
        for p in range(2):
            total += float(h[i, p] - h_prime[i, p] - (d[i, p] - d_prime[i, p])) ** 2
    assert float(terms.loss) == pytest.approx(total / 18, rel=1e-12)
    assert float(terms.error) == pytest.approx(math.sqrt(total / 18), rel=1e-12)
    assert float(terms.difference) == pytest.approx(float(((d - d_prime) ** 2).mean()), rel=1e-12)


def test_a_head_that_moves_with_the_parameter_has_zero_loss_whatever_it_adds_from_the_invariants():
    log_parameter, invariant, d, d_prime = (draw(20, 1, seed=s)[:, 0] for s in range(4))
    h = log_parameter + d + invariant**3
    h_prime = log_parameter + d_prime + invariant**3
    assert float(ParameterEquivariance("viscosity", torch.nn.Identity()).terms(h, h_prime, d, d_prime).loss) < 1e-28
    constant = ParameterEquivariance("viscosity", torch.nn.Identity()).terms(
        torch.zeros_like(d), torch.zeros_like(d), d, d_prime
    )
    assert float(constant.loss) == float(constant.difference)


def test_gradient_precision_and_swap():
    h, h_prime, d, d_prime = (draw(6, 1, seed=s)[:, 0] for s in range(4))
    objective = ParameterEquivariance("viscosity", torch.nn.Identity())
    leaves = (h.clone().requires_grad_(), h_prime.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: objective.terms(a, b, d, d_prime).loss, leaves)
    assert torch.equal(objective.terms(h, h_prime, d, d_prime).loss, objective.terms(h_prime, h, d_prime, d).loss)
    with torch.autocast("cpu", torch.bfloat16):
        inside = objective.terms(h.float(), h_prime.float(), d, d_prime).loss
    assert inside.dtype == torch.float32
    assert float(inside) == pytest.approx(float(objective.terms(h, h_prime, d, d_prime).loss), rel=1e-5)


def test_errors():
    ones = torch.ones(4)
    with pytest.raises(ShapeError, match=r"shift' \(3,\); expected four tensors of one shape"):
        ParameterEquivariance("viscosity", torch.nn.Identity()).terms(ones, ones, ones, ones[:3])
    with pytest.raises(DataError, match="view 3, row 1"):
        ParameterEquivariance("viscosity", torch.nn.Identity()).terms(
            ones, ones, torch.tensor([0, math.nan, 0, 0]), ones
        )


def test_a_few_labels_fix_what_known_shifts_leave_open():
    log_parameter, invariants = draw(40, 1, seed=1)[:, 0], draw(40, 2, seed=2)
    h = log_parameter - 0.7 + 0.3 * invariants[:, 0]
    labelled, rest = slice(0, 6), slice(6, None)
    found = calibrate(h[labelled], log_parameter[labelled], invariants[labelled])
    assert found.weights.tolist() == pytest.approx([0.7, -0.3, 0], abs=1e-10)
    torch.testing.assert_close(found.predict(h[rest], invariants[rest]), log_parameter[rest], rtol=1e-9, atol=1e-9)
    assert found.residual < 1e-10 < found.offset_residual
    one = calibrate(log_parameter[:1] + 2, log_parameter[:1])  # one label, where only the constant is open
    torch.testing.assert_close(one.predict(log_parameter + 2), log_parameter)
    with pytest.raises(ShapeError, match=r"h \(2,\), .* invariants \(2, 2\); expected .* n >= 1 \+ Q"):
        calibrate(h[:2], log_parameter[:2], invariants[:2])
    with pytest.raises(DataError, match="not finite"):
        calibrate(h, log_parameter.log())
