"""The affine readout of codes."""

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.inference.affine import AffineReadout


def test_an_affine_map_comes_back_from_three_labels_and_beyond_their_range():
    codes = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None]
    for labels, count in ((0.2 + 0.1 * codes[:, 0], 3), (0.2 + 0.1 * codes[:, 0], 30), (0.1 * (codes[:, 0] + 3), 10)):
        readout = AffineReadout.fit(codes[:count], labels[:count])
        assert torch.allclose(readout.predict(codes), labels, rtol=1e-8)


def test_two_labels_suffice_for_codes_that_are_the_parameter_but_for_a_factor():
    generator = torch.Generator().manual_seed(1)
    codes = 1 + torch.rand(30, 2, generator=generator, dtype=torch.float64)
    for j in (0, 1):
        readout = AffineReadout.fit(codes[:2], -2 * codes[:2, j])
        assert torch.allclose(readout.predict(codes), -2 * codes[:, j], rtol=1e-8)


def test_relative_errors_count_alike():
    # Least squares of relative errors, by the normal equations.
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    labels = 0.1 + codes @ torch.tensor([1.0, 3.0], dtype=torch.float64) + 0.01 * torch.rand(40, generator=generator)
    columns = torch.cat([torch.ones(40, 1, dtype=torch.float64), codes], dim=1) / labels[:, None]
    expected = torch.linalg.solve(columns.T @ columns, columns.sum(dim=0))
    readout = AffineReadout.fit(codes, labels)
    assert readout.intercept == pytest.approx(float(expected[0]), rel=1e-8)
    assert torch.allclose(readout.weights, expected[1:], rtol=1e-8)


def test_bad_labels_are_told():
    with pytest.raises(ShapeError, match="n >= 2"):
        AffineReadout.fit(torch.zeros(1, 1), torch.ones(1))
    with pytest.raises(DataError, match="leave these runs out"):
        AffineReadout.fit(torch.zeros(3, 1), torch.zeros(3))
