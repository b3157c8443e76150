"""Laws integrated in time: exact solutions, the simulators themselves, starts without noise, codes from a context."""

import math

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.operators import Candidate, LatentOperator, Projection, Term
from pdessl.operators.fit import Fitted
from pdessl.operators.following import CoarseStep, codes_of, follow, shortened
from pdessl.operators.integration import LawFlow
from pdessl.operators.library import curl_form, rates
from pdessl.solvers import Burgers, NavierStokes2D, velocity_of_vorticity
from pdessl.trajectory import Trajectories


def law_of(terms, constant, varying, targets=(), derived=(), fields=("u",), axes=("x",), width=(6, 6)):
    """Return a law with coefficients written down; ``varying`` says which term each code is the coefficient of."""
    targets = targets or rates(len(fields), len(axes))
    c0 = torch.tensor(constant, dtype=torch.float64).reshape(len(targets), len(terms))
    slopes = torch.zeros(len(varying), *c0.shape, dtype=torch.float64)
    for r, (e, k) in enumerate(varying):
        slopes[r, e, k] = 1.0
    kept = torch.ones(1 + len(varying), *c0.shape, dtype=torch.bool)
    candidate = Candidate(width, False, True, len(varying), 1.0, 0.0)
    return LatentOperator(
        projection=Projection(tuple(terms), width, tuple(targets), tuple(derived)),
        fitted=Fitted(c0, slopes, kept, tuple(varying)),
        noise_removed=True,
        field_names=fields,
        axis_names=axes,
        level=torch.zeros(len(fields)),
        spread=torch.full((len(varying),), 1e-3, dtype=torch.float64),
        candidates=(candidate,),
        errors=torch.zeros(1 + len(varying), *c0.shape),
        count=4,
        tolerance=0.0,
    )


def runs_of(fields, times, lengths, names=("u",)):
    count, sizes = len(fields), fields.shape[3:]
    axes = [torch.arange(n).double() * ell / n for n, ell in zip(sizes, lengths, strict=True)]
    return Trajectories(
        fields=fields,
        time=times.double().expand(count, -1),
        space=tuple(a.expand(count, -1) for a in axes),
        lengths=torch.tensor(lengths, dtype=torch.float64).expand(count, -1),
        field_names=names,
        axis_names=("x", "y")[: len(sizes)],
        boundary=("periodic",) * len(sizes),
    )


LINEAR = (Term((1,), (1,)), Term((1,), (2,)), Term((1,), (3,)))
BURGERS = (Term((1,), (2,)), Term((2,), (1,)))


def test_linear_laws_are_exact():
    x, t = torch.arange(32).double() * 2 * math.pi / 32, torch.linspace(0, 2, 9).double()
    nu, c, d = torch.tensor([0.1, 0.3]).double(), -0.7, 0.05
    phase = 3 * (x[None, None] + (c * t)[None, :, None]) - 27 * d * t[None, :, None]
    u = torch.exp(-9 * nu[:, None, None] * t[:, None]) * torch.cos(phase)
    runs = runs_of(u[:, None], t, (2 * math.pi,))
    law = law_of(LINEAR, [c, 0.0, d], [(0, 1)])
    found = follow(law, runs.window(slice(0, 1)).replace(time=t[:1].expand(2, -1)), 8, nu[:, None], filtered=False)
    assert not found.fields.isnan().any()
    flow = LawFlow(law, runs, nu[:, None])
    _, fields = flow.advance(flow.modes(runs.fields[:, :, 0]), runs.time_step, 8)
    torch.testing.assert_close(fields, runs.fields[:, :, 1:], rtol=0, atol=1e-12)


def burgers_runs(points=256, noise=0.0):
    viscosity = torch.tensor([0.06, 0.12, 0.25]).double()
    x = torch.arange(points).double() * 2 * math.pi / points
    u = torch.sin(x) + 0.4 * torch.cos(2 * x + torch.tensor([[0.3], [1.1], [2.0]]).double())
    times = torch.linspace(0, 2, 41).double()
    solved = Burgers(viscosity, points=points, time_step=2.5e-3, dtype=torch.float64)(u[:, None], times)
    fields = solved.fields[..., :: points // 64].double()
    generator = torch.Generator().manual_seed(0)
    noisy = fields + noise * torch.randn(fields.shape, generator=generator, dtype=torch.float64)
    return runs_of(noisy, times, (2 * math.pi,)), fields, viscosity[:, None]


def test_the_law_of_the_simulator_follows_the_simulator():
    runs, truth, viscosity = burgers_runs()
    law = law_of(BURGERS, [0.0, -0.5], [(0, 0)])
    found = follow(law, runs.window(slice(0, 9)), 32, viscosity, filtered=False)
    error = (found.fields - truth[:, :, 9:]).square().mean().sqrt() / truth[:, :, 9:].square().mean().sqrt()
    assert error < 2e-5


def test_codes_are_read_and_noise_is_filtered_out_of_the_start():
    runs, truth, viscosity = burgers_runs(noise=0.05)
    law, context = law_of(BURGERS, [0.0, -0.5], [(0, 0)]), runs.window(slice(0, 16))
    found, plain = follow(law, context, 20, rounds=2), follow(law, context, 20, filtered=False)
    raw = (context.fields[:, :, -1] - truth[:, :, 15]).square().mean().sqrt()
    assert (found.start - truth[:, :, 15]).square().mean().sqrt() < 0.4 * raw
    assert ((found.codes - viscosity) / viscosity).abs().mean() < 0.05

    def error(f):
        return (f.fields - truth[:, :, 16:36]).square().mean().sqrt()

    assert error(found) < 0.5 * error(plain)
    later = runs.fields.clone()
    later[:, :, 16:] = 9.0  # nothing after the context is read
    assert torch.equal(follow(law, runs.replace(fields=later).window(slice(0, 16)), 20, rounds=2).fields, found.fields)


def test_a_law_of_the_vorticity_follows_a_flow_whose_pressure_is_not_measured():
    viscosity = torch.tensor([0.03, 0.1]).double()
    x = torch.arange(64).double() * 2 * math.pi / 64
    a, b = x[:, None], x[None, :]
    w = torch.stack([torch.sin(a) * torch.cos(2 * b + s) + torch.cos(2 * a - b) for s in (0.2, 1.4)])
    times = torch.linspace(0, 1, 6).double()
    start = velocity_of_vorticity(w, torch.full((2, 2), 2 * math.pi).double()) + 0.3  # and a mean flow
    solved = NavierStokes2D(viscosity, points=64, time_step=5e-3, outputs=("u", "v"), dtype=torch.float64)(start, times)
    runs = runs_of(solved.fields.double()[..., ::2, ::2], times, (2 * math.pi, 2 * math.pi), ("u", "v"))
    form = curl_form(("u", "v"), ("x", "y"), (0, 1))
    zero = torch.zeros(1, len(form.terms), dtype=torch.float64)

    def at(powers, orders):
        return form.terms.index(Term(powers, orders))

    # w_t = -(u v)_yy... : the curl of -∇·(u u)
    zero[0, at((2, 0, 0), (1, 1))], zero[0, at((0, 2, 0), (1, 1))] = 1.0, -1.0
    zero[0, at((1, 1, 0), (2, 0))], zero[0, at((1, 1, 0), (0, 2))] = -1.0, 1.0
    terms = list(form.terms)
    # One code for both second derivatives: ν Δw.
    law = law_of(terms, zero.tolist(), [(0, at((0, 0, 1), (2, 0)))], form.targets, form.derived, ("u", "v"), ("x", "y"))
    law.fitted.varying[0, 0, at((0, 0, 1), (0, 2))] = 1.0
    found = follow(law, runs.window(slice(0, 1)).replace(time=times[:1].expand(2, -1)), 1, viscosity[:, None],
                   filtered=False)  # fmt: skip
    flow = LawFlow(law, runs, viscosity[:, None], refine=2)
    torch.testing.assert_close(found.start.double(), runs.fields[:, :, 0], rtol=0, atol=1e-6)
    _, fields = flow.advance(flow.modes(runs.fields[:, :, 0]), runs.time_step, 5)
    torch.testing.assert_close(fields, runs.fields[:, :, 1:], rtol=0, atol=2e-5)


def test_a_law_that_is_ill_posed_or_wild_stays_finite():
    runs, _, viscosity = burgers_runs()
    backwards = follow(law_of(BURGERS, [0.0, -0.5], [(0, 0)]), runs.window(slice(0, 9)), 10, -viscosity, refine=1)
    wild = follow(law_of(BURGERS, [0.0, 40.0], [(0, 0)]), runs.window(slice(0, 9)), 4, 0 * viscosity, refine=1)
    for found in (backwards, wild):
        assert found.fields.isfinite().all()
        assert found.fields.abs().max() < 100 * runs.fields.abs().max()


def test_what_cannot_be_integrated_is_refused():
    runs, _, viscosity = burgers_runs()
    law = law_of(BURGERS, [0.0, -0.5], [(0, 0)])
    with pytest.raises(DataError, match="not periodic.*condition='operator'"):
        follow(law, runs.replace(boundary=("wall",)).window(slice(0, 9)), 2, viscosity)
    with pytest.raises(ShapeError, match="7 or more. Give a longer context"):
        shortened(law, 6)
    with pytest.raises(ShapeError, match="a row per run"):
        follow(law, runs.window(slice(0, 9)), 2, viscosity[:2])
    with pytest.raises(DataError, match="second order in time"):
        waves = law_of(BURGERS, [0.0, -0.5], [(0, 0)], targets=rates(1, 1, 2))
        follow(waves, runs.window(slice(0, 9)), 2, viscosity)
    with pytest.raises(DataError, match="Choose or rename fields"):
        follow(law, runs.replace(field_names=("w",)).window(slice(0, 9)), 2, viscosity)


def test_a_coarse_step_is_near_the_law_has_gradients_and_leaves_runs_it_cannot_step():
    runs, _, viscosity = burgers_runs()
    law, context = law_of(BURGERS, [0.0, -0.5], [(0, 0)]), runs.window(slice(0, 9))
    fine = follow(law, context, 1, viscosity, filtered=False).fields[:, :, 0]
    step = CoarseStep(law)(context, viscosity)
    start = context.fields[:, :, -1].clone().requires_grad_()
    found = step(start)
    change = (fine - start).abs().max()
    assert (found - fine).abs().max() < 0.05 * change
    # Mass is conserved, and so is its derivative: every node's value counts alike.
    (slope,) = torch.autograd.grad(found.sum(), start)
    torch.testing.assert_close(slope, torch.ones_like(slope))
    # Further columns of a condition are not the law's.
    more = torch.cat([viscosity, viscosity + 1], dim=1)
    assert torch.equal(CoarseStep(law)(context, more)(start), found)
    wild = CoarseStep(law_of(BURGERS, [0.0, 400.0], [(0, 0)]))(context, 0 * viscosity)
    assert torch.equal(wild(start), start)
    assert torch.equal(codes_of(law, context, rounds=0), shortened(law, 9).encode(context)[0])
