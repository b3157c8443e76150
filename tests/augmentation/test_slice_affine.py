"""Slice-affine maps: identity, inverse, associativity, batching."""

import pytest
import torch

from pdessl.augmentation.slice_affine import SliceAffine, compose
from pdessl.errors import ShapeError


def random_map(seed, time, d=2, m=3, curved=True):
    g = torch.Generator().manual_seed(seed)
    b, frames = time.shape

    def draw(*shape):
        return 0.5 * torch.randn(b, frames, *shape, generator=g, dtype=torch.float64)

    b2 = draw(m, d, d)
    return SliceAffine(
        time=time,
        new_time=1.3 * time + 0.1,
        s=torch.eye(d, dtype=torch.float64) + 0.3 * draw(d, d),
        r=draw(d),
        m=torch.eye(m, dtype=torch.float64) + 0.3 * draw(m, m),
        b0=draw(m),
        b1=draw(m, d),
        b2=(b2 + b2.transpose(-1, -2)) if curved else None,
    )


@pytest.fixture
def points():
    g = torch.Generator().manual_seed(9)
    time = torch.rand(2, 4, generator=g, dtype=torch.float64)
    x = torch.randn(2, 4, 5, 2, generator=g, dtype=torch.float64)
    u = torch.randn(2, 4, 5, 3, generator=g, dtype=torch.float64)
    return time, x, u


@pytest.mark.parametrize("curved", [(True, True), (True, False), (False, True), (False, False)])
def test_compose_is_one_after_the_other(points, curved):
    time, x, u = points
    first = random_map(0, time, curved=curved[0])
    second = random_map(1, first.new_time, curved=curved[1])
    once = compose(first, second).apply(x, u)
    twice = second.apply(*first.apply(x, u))
    for a, b in zip(once, twice, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_composition_is_associative_and_has_a_unit(points):
    time, x, u = points
    f = random_map(0, time)
    g = random_map(1, f.new_time)
    h = random_map(2, g.new_time)
    left, right = compose(compose(f, g), h).apply(x, u), compose(f, compose(g, h)).apply(x, u)
    assert torch.allclose(left[0], right[0], atol=1e-12)
    assert torch.allclose(left[1], right[1], atol=1e-11)
    unit = compose(SliceAffine.identity(time, 2, 3), f).apply(x, u)
    assert torch.equal(unit[0], f.apply(x, u)[0])
    assert torch.allclose(unit[1], f.apply(x, u)[1], atol=1e-14)


@pytest.mark.parametrize("curved", [True, False])
def test_inverse(points, curved):
    time, x, u = points
    f = random_map(3, time, curved=curved)
    back = f.inverse().apply(*f.apply(x, u))
    assert torch.allclose(back[0], x, atol=1e-12)
    assert torch.allclose(back[1], u, atol=1e-11)
    assert torch.equal(f.inverse().new_time, time)


def test_batched_equals_one_by_one(points):
    time, x, u = points
    f = random_map(4, time)
    whole = f.apply(x, u)
    for i in range(2):
        alone = f[i : i + 1].apply(x[i : i + 1], u[i : i + 1])
        assert torch.equal(alone[0], whole[0][i : i + 1])
        assert torch.equal(alone[1], whole[1][i : i + 1])


def test_wrong_shapes_are_refused(points):
    time, x, u = points
    f = random_map(5, time)
    with pytest.raises(ShapeError, match="must be"):
        f.apply(x[..., :1], u)
    with pytest.raises(ShapeError, match="new_time"):
        compose(f, random_map(6, time[:, :2]))
