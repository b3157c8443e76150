"""What every objective obeys, whatever it computes."""

import inspect
import math

import pytest
import torch
from torch import nn

import pdessl.objectives
from pdessl.cli.catalogs import entries
from pdessl.errors import DataError, ShapeError
from pdessl.objectives import (
    BYOL,
    SIE,
    BarlowTwins,
    GroupAction,
    SIGReg,
    SimCLR,
    SimSiam,
    VarianceCovariance,
    VICReg,
    WeightedSum,
)

from .cases import CASES, WIDTH, build, call, extras
from .embeddings import draw

DRAWING = ["lejepa", "temporal jepa chunks", "w-mse sub-batches"]
# The gradient that is returned is, by intent, not that of the value.
STOPPED = ["simsiam", "simsiam vc", "masked jepa", "masked jepa sigreg", "temporal jepa sigreg"]
TWO_VIEWS = ["vicreg", "vicreg debiased", "barlow twins", "w-mse", "mmcr", "simclr", "lejepa", "simsiam", "simsiam vc"]


def views(rows=20, scale=0.8):
    z = draw(rows, WIDTH, seed=1, scale=scale)
    return z, z + draw(rows, WIDTH, seed=2, scale=0.3 * scale)


def values(terms):
    return torch.stack([torch.as_tensor(t).detach().double() for t in terms])


@pytest.mark.parametrize("name", [n for n in CASES if n != "w-mse sub-batches"])
def test_the_order_of_the_samples_does_not_matter(name):
    z, w = views()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    shuffled = {key: value[order] for key, value in extras().items()}
    objective = build(name).eval()
    there = values(call(name, objective, z[order], w[order], shuffled))
    torch.testing.assert_close(there, values(call(name, objective, z, w)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_views_may_be_swapped(name):
    z, w = views()
    objective = build(name).eval()
    torch.testing.assert_close(objective.terms(w, z).loss, objective.terms(z, w).loss, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in CASES if n not in STOPPED])
def test_gradients_match_finite_differences(name):
    z, w = (v.requires_grad_() for v in views(12))
    objective = build(name).eval()  # the same random numbers at every call
    assert torch.autograd.gradcheck(lambda a, b: call(name, objective, a, b).loss, (z, w), fast_mode=True)


def in_dtype(name, dtype, z, w):
    objective = build(name).to(dtype)
    e = {key: value.to(dtype) if value.is_floating_point() else value for key, value in extras(len(z)).items()}
    leaves = [v.to(dtype).requires_grad_() for v in (z, w)]
    loss = call(name, objective, *leaves, e).loss
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("value", [0.25, 0.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [n for n in CASES if n != "w-mse"])
def test_loss_and_gradient_are_finite_at_exact_collapse(name, dtype, value):
    z = torch.full((16, WIDTH), value)
    loss, gradients = in_dtype(name, dtype, z, z)
    assert torch.isfinite(loss)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_finite_over_the_range_of_half_precision(name, dtype):
    z, w = views(64)
    for scale, finite_gradient in ((1e-3, True), (8.0, True), (1e-7, False), (1e4, False)):
        loss, gradients = in_dtype(name, dtype, scale * z, scale * w)
        assert torch.isfinite(loss), scale
        # At 1e-7 and 1e4 a true gradient may exceed the largest float16.
        assert not finite_gradient or all(torch.isfinite(g).all() for g in gradients), scale


@pytest.mark.parametrize("name", CASES)
def test_autocast_does_not_lower_the_precision(name):
    z, w = (v.float() for v in views(64))
    e = {key: v.float() if v.is_floating_point() else v for key, v in extras(64).items()}
    objective = build(name).float().eval()
    plain = call(name, objective, z, w, e)
    with torch.autocast("cpu", torch.bfloat16):
        inside = call(name, objective, z, w, e)
    assert inside.loss.dtype == torch.float32
    if any(isinstance(m, nn.Linear) for m in objective.modules()) or name == "cross-forecast":
        torch.testing.assert_close(values(inside), values(plain), rtol=0.05, atol=0.01)  # the network is in bfloat16
    else:
        assert torch.equal(values(inside), values(plain))
    exact = call(name, build(name).eval(), z.double(), w.double(), {k: v.double() for k, v in e.items()})
    torch.testing.assert_close(values(plain), values(exact), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", DRAWING)
def test_random_numbers_continue_after_a_restart_and_rest_in_evaluation(name):
    z, w = views()
    whole = build(name)
    first = call(name, whole, z, w).loss
    saved = {key: value.clone() for key, value in whole.state_dict().items()}
    second, third = (float(call(name, whole, z, w).loss) for _ in range(2))
    assert len({float(first), second, third}) == 3  # each step draws anew
    resumed = build(name)
    resumed.load_state_dict(saved)
    assert [float(call(name, resumed, z, w).loss) for _ in range(2)] == [second, third]
    resumed.eval()
    assert float(call(name, resumed, z, w).loss) == float(call(name, build(name).eval(), z, w).loss)
    resumed.train()
    assert float(call(name, resumed, z, w).loss) == float(call(name, whole, z, w).loss)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("cross-")])
def test_errors_name_what_was_found(name):
    z, w = views()
    objective, e = build(name), extras()
    with pytest.raises(ShapeError, match=r"19|must have the same rows|one shape"):
        call(name, objective, z, w[:19], e)
    bad = w.clone()
    bad[5, 2] = math.inf
    with pytest.raises(DataError, match="NaN or infinite entries, first in view 2, row 5"):
        call(name, objective, z, bad, e)


@pytest.mark.parametrize("name", ["byol", "simsiam", "vicregl", "temporal jepa", "masked jepa", "sie"])
def test_any_anti_collapse_term_can_be_given(name):
    z, w = views()
    kind = type(build(name))
    needed = {BYOL: (nn.Identity(),), SimSiam: (nn.Identity(),), SIE: (GroupAction(2, 4).double(), 2)}.get(kind, ())
    alone = call(name, kind(*needed, regulariser=None), z, w)
    for given, terms in (
        ("vc", {"variance", "covariance"}),
        ("sigreg", {"gaussianity"}),
        (VarianceCovariance(2, 0.1), {"variance", "covariance"}),
        (SIGReg(0.3), {"gaussianity"}),
        (lambda rows: rows.square().mean(), set()),
    ):
        found = call(name, kind(*needed, regulariser=given), z, w)
        assert terms < set(found._fields)

        assert float((found.loss - alone.loss).detach()) == pytest.approx(float(found.regularity), rel=1e-9)
        assert float(found.regularity) > 0


@pytest.mark.parametrize("objective", [VICReg, BarlowTwins, SimCLR])
def test_statistics_need_two_rows(objective):
    with pytest.raises(ValueError, match="got 1 rows over all processes.*at least 2"):
        objective().terms(torch.zeros(1, 4), torch.zeros(1, 4))


def test_each_objective_says_in_one_line_what_it_is_and_when_to_choose_it():
    listed = [
        value
        for value in (getattr(pdessl.objectives, name) for name in pdessl.objectives.__all__)
        if inspect.isclass(value) and issubclass(value, nn.Module) and hasattr(value, "choose_when")
    ]
    tested = {type(build(name)) for name in CASES}
    assert set(listed) == tested | {VarianceCovariance, SIGReg, WeightedSum}
    printed = entries("objectives")
    assert set(printed) == {value.__name__ for value in listed}
    for value in listed:
        assert printed[value.__name__].endswith(f"when: {value.choose_when}")
        assert 20 < len(value.choose_when) <= 100
        assert "\n" not in value.choose_when
        assert len(inspect.getdoc(value).splitlines()[0]) > 30
