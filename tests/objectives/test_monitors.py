import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.objectives import collapse_summary, per_dimension_std, rank_me

from .embeddings import draw, pinned


def test_rank_me_pins():
    z, _ = pinned()
    assert rank_me(z, centre=False) == pytest.approx(3.250327251206748, rel=1e-10)
    assert rank_me(z) == pytest.approx(3.2369405413889947, rel=1e-10)


def test_rank_me_of_known_spectra():
    flat = torch.eye(6, dtype=torch.float64)
    assert rank_me(flat, centre=False) == pytest.approx(6, rel=1e-5)
    assert rank_me(torch.ones(256, 128), centre=False) == pytest.approx(1.0002, abs=1e-4)
    assert rank_me(torch.ones(256, 128)) == pytest.approx(1, abs=1e-3)
    sigma = [4.0, 2.0, 1.0]
    p = [s / 7 for s in sigma]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    basis = torch.linalg.qr(draw(10, 3))[0]
    assert rank_me(basis * torch.tensor(sigma), centre=False) == pytest.approx(expected, rel=1e-5)


def test_rank_me_depends_on_rows_and_offset_as_documented():
    assert rank_me(draw(64, 128)) == pytest.approx(59.3, abs=1.5)
    offset = draw(4096, 128) + 10
    assert rank_me(offset) > 4 * rank_me(offset, centre=False)


def test_summary_sees_dead_columns_and_copies():
    z = draw(400, 10)
    z[:, :2] = 0.01 * z[:, :2]
    z[:, 3] = z[:, 4]
    summary = collapse_summary(z)
    assert (summary.rows, summary.width) == (400, 10)
    assert summary.share_collapsed == pytest.approx(0.2)
    assert summary.std_min == pytest.approx(float(per_dimension_std(z).min()))
    assert summary.correlation > 2 / 90 > collapse_summary(draw(400, 10)).correlation
    constant = collapse_summary(torch.ones(5, 3))
    assert constant.std_min == 0
    assert constant.correlation == 0


def test_monitors_refuse_other_shapes():
    with pytest.raises(ShapeError, match=r"shape \(3, 2, 1\); expected \(n, D\)"):
        rank_me(torch.zeros(3, 2, 1))
