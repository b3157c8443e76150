"""Common coordinates of two views, and the element between them."""

import math

import pytest
import torch

from pdessl.augmentation import LieAugmentation
from pdessl.augmentation.relative import relative_element, source_positions
from pdessl.trajectory import Trajectories


def plane_waves(batch=6, frames=24, points=48):
    """A field whose value tells where it was: u = sin(x - phase) + t."""
    time = torch.linspace(0, 2, frames, dtype=torch.float64).expand(batch, frames).contiguous()
    x = torch.arange(points, dtype=torch.float64).expand(batch, points).contiguous() * 2 * math.pi / points
    return Trajectories(
        fields=(torch.sin(x)[:, None, None] + time[:, None, :, None]),
        time=time,
        space=(x,),
        lengths=torch.full((batch, 1), 2 * math.pi, dtype=torch.float64),
        parameters={"viscosity": torch.ones(batch, dtype=torch.float64)},
        equation="burgers",
    )


STRENGTHS = {"space_translation": 0.5, "galilean_boost": 0.3, "scaling": 0.1, "projective": 0.2}


def test_positions_say_where_the_values_came_from():
    batch = plane_waves()
    augment = LieAugmentation("burgers", STRENGTHS, window=(12, 20), reflections=True)
    view, elements = augment(batch, torch.Generator().manual_seed(0))
    assert any(r.any() and not r.all() for r in elements.reflected.values())
    places = source_positions(view, elements)
    assert places.shape == (6, 12, 20, 2)
    t, x = places.unbind(-1)
    # undo what was done to the values: reflection, then u' = M u + b0 + b1 x
    u = view.fields[:, 0]
    for drawn in elements.reflected.values():
        u = torch.where(drawn[:, None, None], -u, u)
    g = elements.map
    relative = x - elements.centre[:, 1, None, None]
    before = (u - g.b0[..., 0, None] - g.b1[..., 0, 0, None] * relative) / g.m[..., 0, 0, None]
    torch.testing.assert_close(before, torch.sin(x) + t, rtol=0, atol=2e-4)  # the spline's error


def test_an_element_is_zero_for_equal_views_and_adds_up_where_flows_commute():
    batch = plane_waves()
    augment = LieAugmentation("burgers", {"space_translation": 0.5, "galilean_boost": 0.3})
    zero = {n: torch.zeros(6, dtype=torch.float64) for n in ("space_translation", "galilean_boost")}
    boost = torch.linspace(-0.4, 0.4, 6, dtype=torch.float64)
    _, still = augment.transform(batch, zero)
    _, once = augment.transform(batch, zero | {"galilean_boost": boost})
    _, twice = augment.transform(batch, zero | {"galilean_boost": 2 * boost})
    assert torch.equal(relative_element(batch, once, once), torch.zeros(6, 6, dtype=torch.float64))
    one = relative_element(batch, still, once)
    torch.testing.assert_close(one, relative_element(batch, once, twice))
    torch.testing.assert_close(relative_element(batch, once, still), -one)
    torch.testing.assert_close(one[:, 3], boost)


def test_an_element_is_composed_where_flows_do_not_commute():
    batch = plane_waves()
    augment = LieAugmentation("burgers", {"galilean_boost": 0.3, "scaling": 0.1, "viscosity_scaling": 0.1},
                              moves=("viscosity",), window=(12, 24))  # fmt: skip
    first = augment(batch, torch.Generator().manual_seed(1))[1]
    second = augment(batch, torch.Generator().manual_seed(2))[1]
    g = relative_element(batch, first, second, ["viscosity"])
    assert g.shape == (6, 1 + 1 + 1 + 1 + 2 + 1)
    stretch = [e.strengths["scaling"] for e in (first, second)]
    scale = [e.strengths["scaling"] + e.strengths["viscosity_scaling"] for e in (first, second)]
    torch.testing.assert_close(g[:, 0], 2 * (stretch[1] - stretch[0]))
    torch.testing.assert_close(g[:, 1], (scale[1] - scale[0]).exp() - 1)
    moved = [e.strengths["viscosity_scaling"] for e in (first, second)]
    torch.testing.assert_close(g[:, 6], 2 * (moved[1] - moved[0]))
    m = (scale[1] - 2 * stretch[1] - scale[0] + 2 * stretch[0]).exp()
    torch.testing.assert_close(g[:, 2], m - 1)
    boosts = [e.map.b0[:, 0, 0] for e in (first, second)]
    torch.testing.assert_close(g[:, 3], boosts[1] - m * boosts[0])
    # carrying the first view on to the second and back is the identity
    back = relative_element(batch, second, first, ["viscosity"])
    torch.testing.assert_close((1 + g[:, 1]) * (1 + back[:, 1]), torch.ones(6, dtype=torch.float64))


def test_a_reflection_counts():
    batch = plane_waves()
    augment = LieAugmentation("burgers", {"space_translation": 0.5}, reflections=True)
    (name,) = augment.reflections
    flip = torch.tensor([True, False] * 3)
    _, still = augment.transform(batch, {})
    _, flipped = augment.transform(batch, {}, reflected={name: flip})
    g = relative_element(batch, still, flipped)
    assert torch.equal(g[:, 1], torch.where(flip, -2.0, 0.0).double())
    assert torch.equal(g[:, 2], torch.where(flip, -2.0, 0.0).double())


def test_displacements_take_the_shorter_way_round():
    batch = plane_waves()
    augment = LieAugmentation("burgers", {"space_translation": 0.5})
    far = torch.full((6,), 0.9 * 2 * math.pi, dtype=torch.float64)
    _, still = augment.transform(batch, {})
    _, moved = augment.transform(batch, {"space_translation": far})
    assert relative_element(batch, still, moved)[:, 5].tolist() == pytest.approx([0.1] * 6)
