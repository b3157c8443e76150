import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.objectives import VICReg, VICRegL
from pdessl.objectives.vicregl import match_nearest, squared_distances

from .embeddings import draw

ROWS, TOKENS, WIDTH = 10, 6, 3


def case(seed=0):
    z, w = draw(ROWS, 4, seed=seed), draw(ROWS, 4, seed=seed + 1)
    a, b = (draw(ROWS, TOKENS * WIDTH, seed=seed + s).unflatten(1, (TOKENS, WIDTH)) for s in (2, 3))
    p, q = (draw(ROWS, TOKENS * 2, seed=seed + s).unflatten(1, (TOKENS, 2)) for s in (4, 5))
    return z, w, a, b, p, q


def loop_matches(table, count):
    """(token, partner) of the ``count`` tokens whose nearest partner is nearest."""
    nearest = []
    for i, row in enumerate(table):
        j = min(range(len(row)), key=lambda j, row=row: row[j])
        nearest.append((row[j], i, j))
    return [(i, j) for _, i, j in sorted(nearest)[:count]]


def loop_local(a, b, distance, count, reach=None):
    """Mean over directions of 25 s + 25 v + 0.5 c, statistics at each rank of match over the batch; and s."""
    losses, invariances = [], []
    for first, second, turn in ((a, b, False), (b, a, True)):
        left, right, squares, counted = [], [], 0.0, 0
        for k in range(len(a)):
            table = [[distance(k, j, i) if turn else distance(k, i, j) for j in range(TOKENS)] for i in range(TOKENS)]
            pairs = loop_matches(table, count)
            left.append(torch.stack([first[k, i] for i, _ in pairs]))
            right.append(torch.stack([second[k, j] for _, j in pairs]))
            for i, j in pairs:
                if reach is None or table[i][j] <= reach**2:
                    squares += float(((first[k, i] - second[k, j]) ** 2).mean())
                    counted += 1
        invariances.append(squares / max(counted, 1))
        loss = 25 * invariances[-1]
        for rank in range(len(left[0])):
            terms = VICReg(0, 25, 0.5).terms(
                torch.stack([x[rank] for x in left]), torch.stack([x[rank] for x in right])
            )
            loss += float(terms.loss) / len(left[0])
        losses.append(loss)
    return sum(losses) / 2, sum(invariances) / 2


@pytest.mark.parametrize("reach", [None, 0.7])
def test_equals_the_loops(reach):
    z, w, a, b, p, q = case()
    place, place_loss = lambda k, i, j: float(((p[k, i] - q[k, j]) ** 2).sum()), None
    alike = lambda k, i, j: float(((a[k, i] - b[k, j]) ** 2).sum())  # noqa: E731
    place_loss, place_invariance = loop_local(a, b, place, 4, reach)
    alike_loss, alike_invariance = loop_local(a, b, alike, TOKENS)
    expected = 0.75 * float(VICReg(25, 25, 0.5).terms(z, w).loss) + 0.25 * (place_loss + alike_loss)
    terms = VICRegL(location_matches=4, max_distance=reach).terms(z, w, a, b, p, q)
    assert float(terms.loss) == pytest.approx(expected, rel=1e-10)
    assert float(terms.location) == pytest.approx(place_invariance, rel=1e-10)
    assert float(terms.feature) == pytest.approx(alike_invariance, rel=1e-10)
    assert float(terms.matched) == (1 if reach is None else pytest.approx(float(terms.matched)))


def grid(n=8, length=2.0):
    return (torch.arange(n, dtype=torch.float64) * length / n)[None, :, None].expand(ROWS, -1, 1)


def test_a_known_shift_is_matched_exactly_on_a_circle_and_up_to_the_edge_on_a_line():
    n, length = 8, 2.0
    tokens = draw(ROWS, n * WIDTH, seed=7).unflatten(1, (n, WIDTH))
    shifted = tokens.roll(1, dims=1)
    # The second view shows the field moved by one token: its tokens lie, pulled back, one spacing to the left.
    back = grid() - length / n
    z = draw(ROWS, 4, seed=8)
    exact = VICRegL(location_matches=None).terms(z, z, tokens, shifted, grid(), back % length, [length])
    assert float(exact.location) == 0
    kept, partner, gap = match_nearest(squared_distances(grid(), back, [length]), None)
    assert torch.equal((kept + 1) % n, partner)
    assert float(gap.max()) < 1e-24
    identity, same, _ = match_nearest(squared_distances(grid(), grid()), None)
    assert torch.equal(identity, same)
    # On a line the first token of the second view has left: within half a spacing all but one token have a partner.
    cut = VICRegL(location_matches=None, max_distance=length / n / 2).terms(z, z, tokens, shifted, grid(), back)
    assert float(cut.matched) == pytest.approx(1 - 1 / n)
    assert float(cut.location) == 0
    assert float(VICRegL(location_matches=None).terms(z, z, tokens, shifted, grid(), back).location) > 0


def test_distances_wrap_on_the_axes_that_repeat():
    p, q = torch.tensor([[[0.1, 0.1]]]), torch.tensor([[[0.9, 0.9]]])
    assert float(squared_distances(p, q)) == pytest.approx(2 * 0.8**2)
    assert float(squared_distances(p, q, [1.0, math.inf])) == pytest.approx(0.2**2 + 0.8**2)
    lengths = torch.tensor([[1.0, 2.0]])
    assert float(squared_distances(p, q, lengths)) == pytest.approx(0.2**2 + 0.8**2)


def test_an_alpha_of_one_is_the_global_loss_alone():
    z, w, *maps = case(20)
    assert float(VICRegL(alpha=1.0).terms(z, w, *maps).loss) == pytest.approx(
        float(VICReg(25, 25, 0.5).terms(z, w).loss)
    )


def test_errors():
    z, w, a, b, p, q = case()
    with pytest.raises(ShapeError, match=r"positions \(10, 5, 2\); expected one position for each token"):
        VICRegL().terms(z, w, a, b, p[:, :5], q[:, :5])
    with pytest.raises(ShapeError, match=r"shape \(10, 18\) for view 1; expected \(B, N, D\)"):
        VICRegL().terms(z, w, a.flatten(1), b.flatten(1), p, q)
    with pytest.raises(ValueError, match="alpha 2"):
        VICRegL(alpha=2)
    with pytest.raises(ValueError, match="0 and None matches"):
        VICRegL(location_matches=0)
