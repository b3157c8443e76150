"""Rates along the flow: what is carried does not change, however far it goes between two frames."""

import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.operators import Projection, Term, discover, load_law, save_law, weak_products
from pdessl.operators.advection import traced
from pdessl.trajectory import Trajectories

from .test_latent import heat_waves


def plane(fields, duration, nodes):
    count, frames = len(fields), fields.shape[2]
    x = (torch.arange(nodes, dtype=torch.float64) * 2 * math.pi / nodes).expand(count, -1)
    return Trajectories(
        fields=fields,
        time=torch.linspace(0, duration, frames, dtype=torch.float64).expand(count, -1),
        space=(x, x),
        lengths=torch.full((count, 2), 2 * math.pi, dtype=torch.float64),
        field_names=("u", "v", "s")[: fields.shape[1]],
        axis_names=("x", "y"),
        boundary=("periodic", "periodic"),
    )


def carried(viscosity=0.02, nodes=32, frames=13, duration=6.0, count=2):
    """s carried by a uniform velocity, which diffuses meanwhile; crests pass nodes faster than frames could show."""
    generator = torch.Generator().manual_seed(0)
    u, v = (2.0 + torch.rand(2, count, 1, 1, 1, generator=generator, dtype=torch.float64)).unbind()
    t = torch.linspace(0, duration, frames, dtype=torch.float64)[:, None, None]
    x = torch.arange(nodes, dtype=torch.float64) * 2 * math.pi / nodes
    s = 0
    for k, n in ((1, 2), (2, -1), (3, 1)):
        phase = k * (x[:, None] - u * t) + n * (x - v * t)
        s = s + torch.exp(-viscosity * (k**2 + n**2) * t) * torch.sin(phase + k)
    return plane(torch.stack([u.expand_as(s), v.expand_as(s), s], dim=1), duration, nodes)


def test_what_is_carried_has_no_rate_but_its_own():
    still, runs = carried(viscosity=0.0), carried()
    step = float(runs.time_step[0])
    assert (still.fields[:, :2].flatten(2).amax(dim=2) * step / float(runs.grid_spacing[0, 0]) > 4).all()
    found = traced(still, (0, 1))
    assert found.fields.shape == (2, 6, 12, 32, 32) and math.isclose(float(found.time[0, 0]), step / 2)
    at_node = still.fields[:, 2].diff(dim=1) / step
    assert found.fields[:, 5].square().mean() < 1e-3 * at_node.square().mean()
    assert torch.allclose(found.fields[:, :2], still.fields[:, :2, 1:]) and found.fields[:, 3:5].abs().max() < 1e-12
    turned = torch.tensor([-1.0, -1, 1, -1, -1, 1], dtype=torch.float64)[:, None, None, None]
    mirrored = traced(runs.replace(fields=runs.fields.flip((3, 4)) * turned[:3]), (0, 1)).fields
    # A mirrored flow is the mirror image of the flow.
    assert torch.allclose(mirrored, traced(runs, (0, 1)).fields.flip((3, 4)) * turned, atol=1e-12)


def test_paths_end_at_walls():
    runs = carried()
    walled = runs.replace(boundary=("wall", "wall"))
    found, periodic = traced(walled, (0, 1)).fields, traced(runs, (0, 1)).fields
    assert torch.isfinite(found).all() and torch.allclose(found[..., 12:20, 12:20], periodic[..., 12:20, 12:20])


def test_the_time_derivative_along_the_flow_is_that_of_the_equation():
    nu, runs = 0.02, carried()
    s = (0, 0, 1)
    terms = (Term((1, 0, 1), (1, 0)), Term((0, 1, 1), (0, 1)), Term(s, (2, 0)), Term(s, (0, 2)))
    law = torch.tensor([-1.0, -1.0, nu, nu], dtype=torch.float64)

    def unexplained(advected):
        projection = Projection(terms, (3, 4, 4), (Term(s, (0, 0), 1),), advected=advected)
        products = weak_products(projection.read(runs), projection)
        rest = products[:, 4] - torch.einsum("k,bk...->b...", law, products[:, :4])
        return float(rest.square().mean() / products[:, 4].square().mean())

    assert unexplained((0, 1)) < 1e-3
    assert unexplained(()) > 0.1  # at nodes no sum over frames resolves what passes them


def vortices(count=10, nodes=16, frames=14):
    """Taylor-Green vortices that decay, u = A sin(k x + a) cos(k y + b) exp(-2 ν k² t), ν different in every run."""
    generator = torch.Generator().manual_seed(1)
    nu, a, b, size = (torch.rand(count, generator=generator, dtype=torch.float64) for _ in range(4))
    nu = 0.05 + 0.2 * nu
    t = torch.linspace(0, 2, frames, dtype=torch.float64)[:, None, None]
    x = torch.arange(nodes, dtype=torch.float64) * 2 * math.pi / nodes
    a, b, size, rate = (n[:, None, None, None] for n in (6 * a, 6 * b, 0.5 + size, nu))
    decay = size * torch.exp(-2 * rate * t)
    u = decay * torch.sin(x[:, None] + a) * torch.cos(x + b)
    v = -decay * torch.cos(x[:, None] + a) * torch.sin(x + b)
    return plane(torch.stack([u, v], dim=1), 2.0, nodes), nu


def test_a_law_is_found_read_and_written_along_the_flow(tmp_path):
    runs, nu = vortices()
    w = (0, 0, 1)
    how = {"half_width": (3, 3, 3), "rank": 1, "divergence_free": True, "resamples": 0}
    law = discover(runs, advected=True, noise_removed=False, **how)
    assert law.projection.advected == (0, 1) and law.candidates[0].advected
    codes = law.encode(runs)[0][:, 0]
    assert torch.corrcoef(torch.stack([codes, nu]))[0, 1].abs() > 0.999
    assert w in {term.powers for term, keep in zip(law.terms, law.fitted.kept.any(dim=0)[0], strict=True) if keep}
    save_law(law, tmp_path / "law")
    assert torch.equal(load_law(tmp_path / "law").encode(runs)[0][:, 0], codes)
    tried = discover(runs, advected=None, **how).candidates
    assert {c.advected for c in tried} == {True, False}


def test_a_velocity_is_needed():
    with pytest.raises(ShapeError, match="no two of the fields u over x are a velocity without divergence"):
        discover(heat_waves(), half_width=(6, 6), advected=True)
