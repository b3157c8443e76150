"""More nodes along periodic axes: fields between their nodes, products that do not alias, noise that is alike there."""

import math

import pytest
import torch

from pdessl.data import load_recipe, simulate
from pdessl.experiments.law_text import candidate_table
from pdessl.operators import Projection, Term, choose, discover, load_law, save_law, weak_grams, weak_products
from pdessl.operators.refinement import refined
from pdessl.trajectory import Trajectories


def waves(points, numbers, frames=20, boundary=("periodic",), count=3):
    """Sums of sine waves of these numbers along every axis, on so many points along each."""
    generator = torch.Generator().manual_seed(0)
    d = len(boundary)
    x = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
    t = torch.linspace(0, 1, frames, dtype=torch.float64)
    u = torch.zeros(count, 1, frames, *[points] * d, dtype=torch.float64)
    for k in numbers:
        a, p, w = torch.rand(3, count, 1, generator=generator, dtype=torch.float64)
        phase = (6 * p + 3 * w * t).reshape(count, frames, *[1] * d)
        for axis in range(d):
            phase = phase + (k * x).reshape([points if i == axis else 1 for i in range(d)])
        u = u + ((0.5 + a).reshape(count, 1, *[1] * d) * torch.sin(phase))[:, None]
    return Trajectories(
        fields=u,
        time=t.expand(count, -1),
        space=tuple(x.expand(count, -1) for _ in boundary),
        lengths=torch.full((count, d), 2 * math.pi, dtype=torch.float64),
        parameters={},
        axis_names=("x", "y")[:d],
        boundary=boundary,
    )


@pytest.mark.parametrize("boundary", [("periodic",), ("periodic", "periodic")])
@pytest.mark.parametrize("times", [2, 3])
def test_between_their_nodes_fields_are_the_waves_that_the_nodes_tell_apart(boundary, times):
    coarse, fine = (waves(n, (1, 3, 5), 4, boundary) for n in (12, 12 * times))
    found = refined(coarse, times)
    assert torch.allclose(found.fields, fine.fields, rtol=0, atol=1e-12)
    for axis, nodes in enumerate(found.space):
        assert torch.allclose(nodes, fine.space[axis], rtol=0, atol=1e-12)
    kept = found.fields[(..., *[slice(None, None, times)] * len(boundary))]
    assert torch.allclose(kept, coarse.fields, rtol=0, atol=1e-12)


def test_axes_with_walls_and_waves_of_two_nodes_keep_their_values():
    runs = waves(8, (1,), 4, ("periodic", "wall"))
    assert refined(runs, 2).fields.shape[2:] == (4, 16, 8)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    high = refined(runs.replace(fields=sign[:, None].expand_as(runs.fields).clone()), 2).fields[0, 0, 0, :, 0]
    assert torch.allclose(high, torch.cos(torch.arange(16, dtype=torch.float64) * math.pi / 2), rtol=0, atol=1e-12)


def test_products_of_waves_of_few_nodes_are_those_on_a_fine_grid():
    # Of waves 7 and 5 the squares are 14, 12, 10 and 2: on 16 nodes 14 is taken for 2, on 32 nothing is.
    terms = (Term((1,), (2,)), Term((2,), (1,)))
    coarse, fine = (waves(n, (5, 7)) for n in (16, 32))
    true = weak_products(fine, Projection(terms, (4, 4)))
    finer = Projection(terms, (4, 4), refined=2)
    assert torch.allclose(weak_products(finer.read(coarse), finer), true, rtol=0, atol=1e-9 * float(true.abs().max()))
    plain = weak_products(coarse, Projection(terms, (4, 2)))
    assert float((plain[:, 1] - true[:, 1, :, ::2]).norm() / true[:, 1].norm()) > 0.3
    assert float((plain[:, 0] - true[:, 0, :, ::2]).norm() / true[:, 0].norm()) < 0.3


@pytest.mark.parametrize(
    ("boundary", "points", "width", "orders"),
    [
        (("periodic",), 32, (4, 9), [(1,), (2,)]),
        (("periodic",), 32, (4, 4), [(0,), (1,), (2,), (3,), (4,)]),  # narrow ones see waves that the nodes lack
        (("periodic",), 15, (4, 4), [(2,), (4,)]),
        (("periodic", "wall"), 14, (4, 4, 4), [(4, 0), (2, 2), (0, 2)]),
        (("periodic", "periodic"), 14, (4, 4, 4), [(4, 0), (2, 2), (0, 1)]),
    ],
)
@pytest.mark.parametrize("high_pass", [0, 2])
def test_noise_of_fields_that_were_refined_is_removed_without_bias(boundary, points, width, orders, high_pass):
    generator = torch.Generator().manual_seed(3)
    runs = waves(points, (1,), 16, boundary, count=48)
    runs = runs.replace(fields=0.1 * torch.randn(runs.fields.shape, generator=generator, dtype=torch.float64))
    projection = Projection(tuple(Term((1,), o) for o in orders), width, refined=2, high_pass=high_pass)
    grams = weak_grams(runs, projection, level=torch.full((48, 1), 0.1))
    measured, expected = grams.halves.mean(dim=(0, 1)).diagonal(), grams.noise.mean(dim=0).diagonal()
    assert torch.allclose(measured, expected, rtol=0.1)


def test_chaos_on_two_nodes_a_unit_is_read_where_its_products_alias(tmp_path):
    recipe = load_recipe("kuramoto_sivashinsky", None, {"observation.points": 32})
    runs = simulate(recipe, "labelled", range(40))
    truth = runs.parameters["hyperviscosity"]
    found = {}
    for given in (False, None):
        law = discover(runs.without_parameters(), half_width=(9, 5), rank=1, resamples=0, refined=given)
        found[given] = abs(float(torch.corrcoef(torch.stack([law.encode(runs)[0][:, 0], truth]))[0, 1]))
    assert law.projection.refined == 2  # as waves have fewer than six nodes
    assert found[None] > 0.95 and found[None] > found[False] + 0.1
    table = candidate_table(law).splitlines()
    assert table[1].startswith("9x5 of 2n") and table[-1].startswith("of 2n: on twice as many nodes")
    save_law(law, tmp_path)
    assert load_law(tmp_path).projection == law.projection
    assert torch.equal(load_law(tmp_path).encode(runs)[0], law.encode(runs)[0])


def test_rates_along_the_flow_are_read_on_more_nodes_where_that_is_asked_for():
    stream = waves(16, (1, 2), 14, ("periodic", "periodic"), count=4).fields[:, 0]
    velocity = torch.stack([stream.roll(-1, 3) - stream.roll(1, 3), stream.roll(1, 2) - stream.roll(-1, 2)], dim=1)
    runs = waves(16, (1,), 14, ("periodic", "periodic"), count=4).replace(fields=velocity, field_names=("u", "v"))
    for given in (None, True):
        made = choose(runs, rank=0, half_width=(4, 4, 4), centred=False, advected=True, refined=given, high_pass=0)
        assert made.projection.advected == (0, 1) and made.projection.refined == (2 if given else 1)
