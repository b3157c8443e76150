import math

import pytest
import torch
from torch import nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives import SIE, GroupAction, VICReg, composition_error, variance_term

from .cases import fixed
from .embeddings import draw

FORMS = ["affine", "exponential"]


@pytest.mark.parametrize("form", FORMS)
def test_the_action_is_exactly_the_identity_at_the_identity(form):
    action, z = fixed(GroupAction(3, 5, form)), draw(7, 5)
    assert torch.equal(action(z, torch.zeros(7, 3, dtype=torch.float64)), z)
    assert not torch.equal(action(z, draw(7, 3, seed=1)), z)
    fresh = GroupAction(3, 5, form)
    assert torch.equal(fresh(z.float(), draw(7, 3, seed=1).float()), z.float())


@pytest.mark.parametrize("form", FORMS)
def test_the_action_equals_its_matrix_row_by_row(form):
    action, z, g = fixed(GroupAction(2, 4, form)), draw(6, 4), draw(6, 2, seed=1)
    for row in range(6):
        total = sum(float(g[row, k]) * action.generators[k] for k in range(2))
        if form == "exponential":
            power, matrix = torch.eye(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
            for order in range(40):
                matrix = matrix + power
                power = power @ total / (order + 1)
        else:
            matrix = torch.eye(4, dtype=torch.float64) + total
        torch.testing.assert_close(action(z, g)[row], matrix @ z[row], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(action.matrix(g)[row], matrix, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
def test_the_exponential_of_small_and_large_elements(scale):
    action, z = fixed(GroupAction(2, 4, "exponential")), draw(6, 4)
    g = (draw(6, 2, seed=1) * scale).requires_grad_()
    skew = action.generators.detach() - action.generators.detach().mT
    with torch.no_grad():
        action.generators.copy_(skew)  # rotations: the result stays of order one
    expected = torch.linalg.matrix_exp(torch.einsum("bk,kij->bij", g, skew))
    moved = action(z, g)
    torch.testing.assert_close(moved, torch.einsum("bij,bj->bi", expected, z), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(moved.norm(dim=1), z.norm(dim=1), rtol=1e-9, atol=0)
    assert torch.autograd.gradcheck(lambda e: action(z, e), g, fast_mode=True, atol=1e-4)


def test_the_exponential_action_is_inverted_by_the_inverse_element_and_composes_along_one_generator():
    action, z, g = fixed(GroupAction(1, 4, "exponential")), draw(6, 4), draw(6, 1, seed=1)
    torch.testing.assert_close(action(action(z, g), -g), z, rtol=1e-10, atol=1e-12)
    assert float(composition_error(action, g, 2 * g, 3 * g).max()) < 1e-12
    affine = fixed(GroupAction(1, 4))
    assert float(composition_error(affine, g, 2 * g, 3 * g).min()) > 1e-4


def loss_by_hand(z, w, moved, split, kappa):
    invariant = float(((z[:, :split] - w[:, :split]) ** 2).mean())
    equivariant = float(((moved - w[:, split:]) ** 2).mean())
    rest = float(VICReg(0, 10, 1).terms(z, w).loss) + 10 * float(variance_term(moved))
    return 10 * invariant + 10 * kappa * equivariant + rest


def test_equals_the_formula():
    action, z, w, g = fixed(GroupAction(2, 4)), draw(9, 6), draw(9, 6, seed=1), draw(9, 2, seed=2)
    moved = action(z[:, 2:], g).detach()
    terms = SIE(action, 2).terms(z, w, g)
    assert float(terms.loss.detach()) == pytest.approx(loss_by_hand(z, w, moved, 2, 0.45), rel=1e-12)
    assert float(terms.unmoved) == pytest.approx(float(((z[:, 2:] - w[:, 2:]) ** 2).mean()), rel=1e-12)
    still = SIE(action, 2).terms(z, w, torch.zeros_like(g))
    assert float(still.equivariance.detach()) == float(still.unmoved)


def test_without_an_equivariant_part_it_is_vicreg():
    z, w, g = draw(9, 6), draw(9, 6, seed=1), draw(9, 2, seed=2)
    found = SIE(nn.Identity(), 6, equivariance=0).terms(z, w, g)
    assert float(found.loss) == pytest.approx(float(VICReg(10, 10, 1).terms(z, w).loss), rel=1e-12)
    whole = SIE(GroupAction(2, 6), 0).terms(z, w, g)
    assert float(whole.invariance) == 0
    assert math.isfinite(float(whole.loss.detach()))


def fit(action, z, w, g):
    """Least error of the action over its generators."""
    optimiser = torch.optim.LBFGS(action.parameters(), max_iter=100, line_search_fn="strong_wolfe", tolerance_change=0)

    def closure():
        optimiser.zero_grad()
        loss = (action(z, g) - w).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(closure().detach())


def test_a_shear_is_fitted_by_both_forms_and_a_rotation_by_the_exponential_only():
    nilpotent = torch.zeros(4, 4, dtype=torch.float64)
    nilpotent[0, 2], nilpotent[1, 3] = 1.0, -0.7
    generator = torch.zeros(4, 4, dtype=torch.float64)
    generator[0, 1], generator[1, 0], generator[2, 3], generator[3, 2] = 1.0, -1.0, 1.0, -1.0
    z, g = draw(200, 4), draw(200, 1, seed=1)
    for form in FORMS:
        sheared = torch.einsum("bij,bj->bi", torch.linalg.matrix_exp(g[:, :, None] * nilpotent), z)
        assert fit(GroupAction(1, 4, form).double(), z, sheared, g) < 1e-10
        turned = torch.einsum("bij,bj->bi", torch.linalg.matrix_exp(g[:, :, None] * generator), z)
        error = fit(GroupAction(1, 4, form).double(), z, turned, g)
        assert error < 1e-10 if form == "exponential" else error > 0.05


def test_for_generators_that_do_not_commute_the_composed_element_predicts_and_the_difference_does_not():
    """Translation b and scaling a of the line, (a, b): x -> e^a x + b, acting on z = (x, 1): A = [[a, b'], [0, 0]]."""
    a, b = (draw(400, 2, seed=s, scale=0.8) for s in (1, 2))  # two views: strengths of each generator
    x = draw(400, 1, seed=3)[:, 0]
    views = [torch.stack((a[:, v].exp() * x + b[:, v], torch.ones_like(x)), dim=1) for v in (0, 1)]
    # g₂∘g₁⁻¹: x -> e^(a₂-a₁) (x - b₁) + b₂; its logarithm's coordinates are (s, t), exp: x -> e^s x + t (e^s - 1)/s.
    s = a[:, 1] - a[:, 0]
    t = (b[:, 1] - s.exp() * b[:, 0]) * s / torch.expm1(s)
    composed, difference = torch.stack((s, t), dim=1), torch.stack((s, b[:, 1] - b[:, 0]), dim=1)
    errors = [fit(GroupAction(2, 2, "exponential").double(), *views, g) for g in (composed, difference)]
    assert errors[0] < 1e-10
    assert errors[1] > 1e-2


def test_swapped_views_use_the_inverse_element():
    action, z, g = fixed(GroupAction(1, 3, "exponential")), draw(8, 3), draw(8, 1, seed=1)
    w = action(z, g).detach()
    objective = SIE(action, 0)
    assert float(objective.terms(z, w, g).equivariance.detach()) < 1e-24
    assert float(objective.terms(w, z, -g).equivariance.detach()) < 1e-24
    assert float(objective.terms(w, z, g).equivariance.detach()) > 1e-3


def test_one_row_keeps_its_axis_and_errors():
    action = GroupAction(2, 4)
    assert action(torch.ones(1, 4), torch.ones(1, 2)).shape == (1, 4)
    diverged = GroupAction(1, 2, "exponential")
    nn.init.constant_(diverged.generators, math.nan)
    assert diverged(torch.ones(3, 2), torch.ones(3, 1)).isnan().all()
    with pytest.raises(ShapeError, match=r"element \(1, 3\); expected \(B, 4\) and \(B, 2\)"):
        action(torch.ones(1, 4), torch.ones(1, 3))
    with pytest.raises(SchemaError, match="form 'linear'"):
        GroupAction(2, 4, "linear")
    z = draw(9, 6)
    with pytest.raises(ShapeError, match="7 invariant columns"):
        SIE(action, 7).terms(z, z, draw(9, 2))
    with pytest.raises(ValueError, match="equivariance -1"):
        SIE(action, 2, equivariance=-1)
