"""More than two views: multi-view objectives against loops over their formulas, the others as means over pairs."""

import numpy as np
import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.objectives import MMCR, WMSE, BarlowTwins, EmbeddedViews, LeJEPA, SimCLR, SimSiam, VICReg, as_objective
from pdessl.objectives.sigreg import draw_slices

from .embeddings import draw
from .test_sigreg import loop_sigreg


def views(count, rows=11, width=4):
    common = draw(rows, width, seed=50)
    return [common + draw(rows, width, seed=51 + v, scale=0.4) for v in range(count)]


@pytest.mark.parametrize(("count", "chosen"), [(2, None), (4, None), (4, 2), (3, 1)])
def test_lejepa_equals_the_loops(count, chosen):
    z = views(count)
    terms = LeJEPA(0.2, slices=9, seed=3).terms(*z, global_views=chosen)
    total = 0.0
    for row in range(11):
        given = [view[row].numpy() for view in z]
        centre = sum(given[:chosen]) / len(given[:chosen])
        total += sum(((view - centre) ** 2).sum() for view in given)
    invariance = total / (11 * 4 * count)
    slices = draw_slices(4, 9, torch.Generator().manual_seed(3 * 1_000_003 + 1))
    regular = np.mean([loop_sigreg(view, slices) for view in z])
    assert float(terms.invariance) == pytest.approx(invariance, rel=1e-10)
    assert float(terms.loss) == pytest.approx(0.2 * regular + 0.8 * invariance, rel=1e-10)


def test_mmcr_equals_the_loops():
    z = views(4)
    units = [[row / np.linalg.norm(row) for row in view.numpy()] for view in z]
    samples = [np.array(rows) for rows in zip(*units, strict=True)]  # (V, D) of each sample
    centroids = np.array([rows.sum(axis=0) / 4 for rows in samples])
    local = np.mean([np.linalg.svd(rows)[1].sum() for rows in samples])
    terms = MMCR(0.2).terms(*z)
    assert float(terms.loss) == pytest.approx(0.2 * local - np.linalg.svd(centroids)[1].sum(), rel=1e-10)
    assert float(terms.local) == pytest.approx(local, rel=1e-10)
    assert float(MMCR(0.2).terms(*z, global_views=2).loss) == float(terms.loss)


def test_vicreg_on_more_views_keeps_the_meaning_of_its_weights():
    z = views(3)
    found = VICReg(3.0, 2.0, 0.5)(EmbeddedViews(*z))
    gaps = [((z[i] - z[j]) ** 2).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    spread = [0.5 * torch.relu(1 - (view.var(dim=0) + 1e-4).sqrt()).mean() for view in z]
    covariances = [view.T.cov() for view in z]
    redundancy = [(c.square().sum() - c.diagonal().square().sum()) / 4 for c in covariances]
    expected = 3 * sum(gaps) / 3 + 2 * sum(2 * v + 0.5 * c for v, c in zip(spread, redundancy, strict=True)) / 3
    assert float(found.total) == pytest.approx(float(expected), rel=1e-10)
    assert float(found.named["invariance"]) == pytest.approx(float(sum(gaps)) / 3, rel=1e-10)


@pytest.mark.parametrize("make", [WMSE, BarlowTwins, SimCLR, lambda: SimSiam(torch.nn.Identity())])
def test_others_are_means_over_pairs_and_local_views_meet_global_ones_only(make):
    z, objective = views(4), make()
    one = {(v, w): float(objective.terms(z[v], z[w]).loss) for v in range(4) for w in range(v + 1, 4)}
    assert float(objective(EmbeddedViews(*z)).total) == pytest.approx(sum(one.values()) / 6, rel=1e-12)
    without = [loss for pair, loss in one.items() if pair != (2, 3)]
    assert float(objective(EmbeddedViews(*z, global_views=2)).total) == pytest.approx(sum(without) / 5, rel=1e-12)


def test_two_views_are_the_plain_call_and_a_scalar_will_do():
    z = views(2)
    for objective in (VICReg(), MMCR(0.1)):
        found, plain = objective(EmbeddedViews(*z)), objective.terms(*z)._asdict()
        assert {"loss": float(found.total), **{n: float(v) for n, v in found.named.items()}} == {
            n: float(v) for n, v in plain.items()
        }
    plain_loss = as_objective(lambda a, b: (a - b).square().mean())
    assert float(plain_loss(EmbeddedViews(*z)).total) == float((z[0] - z[1]).square().mean())


@pytest.mark.parametrize("objective", [LeJEPA(slices=8).eval(), MMCR(0.1)], ids=["LeJEPA", "MMCR"])
def test_the_order_of_global_views_does_not_matter(objective):
    z = views(4)
    base = float(objective.terms(*z, global_views=3).loss)
    assert float(objective.terms(z[2], z[0], z[1], z[3], global_views=3).loss) == pytest.approx(base, rel=1e-12)


def test_errors():
    z = views(3)
    with pytest.raises(ShapeError, match="got 1 views"):
        EmbeddedViews(*z[:1])
    with pytest.raises(ShapeError, match="got 3 views, 4 of them global"):
        EmbeddedViews(*z, global_views=4)
    with pytest.raises(ShapeError, match="LeJEPA got 3 views and global_views 0; expected 1 to 3"):
        LeJEPA().terms(*z, global_views=0)
