"""Fourier modes of fields that are periodic in two dimensions: transforms, sampling, and the exponential scheme."""

# B batch, C channels, X Y grid points, K J kept modes along x (both signs) and y (non-negative)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pdessl.solvers.pseudo_spectral import ETDRK4

__all__ = ["SpectralGrid", "as_complex", "as_real", "real_scheme"]


@dataclass(frozen=True, eq=False)
class SpectralGrid:
    """Kept Fourier modes of real fields on an X x Y grid, one pair of domain lengths per trajectory.

        u(x, y) = Σ_k û_k exp(i (k_x x + k_y y))

    Amplitudes û do not depend on the grid. Kept are all modes that a product of ``degree`` factors, evaluated on the
    grid, leaves free of aliasing: (degree + 1) |j| < points on each axis (the 2/3 rule for degree 2). A real field
    needs only the modes with k_y >= 0; those with k_x run 0, 1, ..., -2, -1.

    Args:
        points: nodes (X, Y), even.
        kx: wave numbers along x, shape (B, 1, K, 1).
        ky: wave numbers along y, shape (B, 1, 1, J).
    """

    points: tuple[int, int]
    kx: Tensor
    ky: Tensor

    @staticmethod
    def build(lengths: Tensor, points: Sequence[int], degree: int = 2) -> SpectralGrid:
        """Set up the modes for domain lengths (B, 2); float64."""
        nx, ny = points
        mx, my = ((n - 1) // (degree + 1) for n in (nx, ny))
        jx = torch.cat([torch.arange(mx + 1), torch.arange(-mx, 0)]).to(lengths)
        jy = torch.arange(my + 1).to(lengths)
        kx = 2 * math.pi * jx[:, None] / lengths[:, :1, None, None]
        ky = 2 * math.pi * jy / lengths[:, 1:, None, None]
        return SpectralGrid((nx, ny), kx, ky)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of kept modes (K, J)."""
        return self.kx.shape[2], self.ky.shape[3]

    @property
    def k_squared(self) -> Tensor:
        """k_x² + k_y², shape (B, 1, K, J)."""
        return self.kx**2 + self.ky**2

    @property
    def inverse_k_squared(self) -> Tensor:
        """1 / (k_x² + k_y²), shape (B, 1, K, J), and 0 for the mean: the inverse of -∇² on fields of mean zero."""
        square = self.k_squared
        mean = torch.zeros_like(square)
        mean[..., 0, 0] = 1.0
        return (1.0 - mean) / (square + mean)

    def to_fields(self, modes: Tensor) -> Tensor:
        """Evaluate modes (..., K, J) on the grid, (..., X, Y)."""
        nx, ny = self.points
        k, j = modes.shape[-2:]
        positive, along = (k + 1) // 2, modes.mT
        # x comes last: a transform along another axis would copy everything once more.
        columns = modes.new_zeros(*modes.shape[:-2], j, nx)
        columns[..., :positive] = along[..., :positive]
        columns[..., nx - (k - positive) :] = along[..., positive:]
        columns = torch.fft.ifft(columns, norm="forward")
        return torch.fft.irfft(columns.mT, n=ny, norm="forward")

    def to_modes(self, values: Tensor) -> Tensor:
        """Return the kept modes (..., K, J) of fields (..., X, Y)."""
        k, j = self.shape
        rows = torch.fft.rfft(values, norm="forward")[..., :j]
        both = torch.fft.fft(rows, dim=-2, norm="forward")
        positive = (k + 1) // 2
        return torch.cat([both[..., :positive, :], both[..., both.shape[-2] - (k - positive) :, :]], dim=-2)

    def shift(self, displacement: Tensor) -> Tensor:
        """Return exp(-i k·X) for displacements X of shape (B, 2): it moves fields by X; shape (B, 1, K, J), complex."""
        angle = self.kx * displacement[:, :1, None, None] + self.ky * displacement[:, 1:, None, None]
        return torch.polar(torch.ones_like(angle), -angle)

    def sample(self, modes: Tensor, nodes: Sequence[int], sampling: str = "points") -> Tensor:
        """Evaluate modes (..., K, J) on a grid of ``nodes``, which divide the points of this one, (..., *nodes).

        ``sampling`` is one of those of :meth:`pdessl.solvers.Simulator.solve`.
        """
        (nx, ny), (wx, wy) = self.points, nodes
        jx, jy = (torch.arange(n, dtype=torch.float64, device=modes.device) for n in self.shape)
        jx = torch.where(jx > jx[-1] / 2, jx - len(jx), jx)
        if sampling == "cell_average":
            modes = modes * (torch.sinc(jx / wx)[:, None] * torch.sinc(jy / wy)).to(modes.real.dtype)
        elif sampling == "spectral":
            held = (2 * jx.abs() < wx)[:, None] & (2 * jy < wy)
            modes = torch.where(held, modes, 0)
        return self.to_fields(modes)[..., :: nx // wx, :: ny // wy]

    def tail(self, modes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest amplitude in the outer tenth of the kept modes (along x or y) and the largest of all.

        Args:
            modes: shape (B, C, K, J). The mean does not count.

        Returns:
            Two tensors of shape (B, C).
        """
        size = modes.detach().abs()
        k, j = self.shape
        limit = k // 2
        edge_x, edge_y = max(1, math.ceil(0.9 * limit)), max(1, math.ceil(0.9 * (j - 1)))
        outer = torch.cat(
            [size[..., edge_x : k - edge_x + 1, :].flatten(2), size[..., edge_y:].flatten(2)], dim=2
        ).amax(dim=2)
        flat = size.flatten(2)
        return outer, flat[..., 1:].amax(dim=2)


def as_real(modes: Tensor) -> Tensor:
    """Return complex modes (..., J) as real numbers (..., 2 J) in the same memory."""
    return torch.view_as_real(modes).flatten(-2)


def as_complex(numbers: Tensor) -> Tensor:
    """Return real numbers (..., 2 J) as complex modes (..., J) in the same memory."""
    return torch.view_as_complex(numbers.unflatten(-1, (-1, 2)))


def real_scheme(symbol: Tensor, step: Tensor, dtype: torch.dtype) -> ETDRK4:
    """Return ETDRK4 for a real linear operator, laid out for modes seen as real numbers.

    With a real operator the scheme multiplies real and imaginary part alike. Seen as real arrays of twice the width,
    the modes need half the multiplications of complex coefficients.

    Args:
        symbol: L of each mode, shape (B, C, K, J), real, float64, the same for k_x and -k_x.
        step: h, shape (B,), float64.
        dtype: real dtype of the coefficients; they are computed in float64.

    Returns:
        A scheme for arrays of shape (B, C, K, 2 J).
    """
    # Rows of k_x and -k_x have the same coefficients: only those with k_x >= 0 are computed.
    rows = (symbol.shape[2] + 1) // 2
    scheme = ETDRK4.build(symbol[:, :, :rows], step)

    def doubled(coefficient: Tensor) -> Tensor:
        # The mean over the circle is real up to round-off when L is real.
        half = coefficient.real.to(dtype).repeat_interleave(2, dim=-1)
        return torch.cat([half, half[:, :, 1:].flip(2)], dim=2)

    return ETDRK4(**{f.name: doubled(getattr(scheme, f.name)) for f in fields(ETDRK4)})
