"""Weak products: integrals of terms against smooth test functions, and the Gram matrices of runs made of them."""

# B runs, C fields, T frames, X nodes (one axis per dimension), K terms, P positions of the test function

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.operators.library import Term
from pdessl.trajectory import Trajectories

__all__ = ["Grams", "bump", "noise_level", "spacing", "weak_grams", "weak_products"]

_PART = 32  # runs whose products are held at once


@dataclass(frozen=True)
class Grams:
    """Products of terms and targets of each run: sums over positions of the test function, by their number.

    The last C rows and columns belong to the targets, the time derivatives of the fields.

    Args:
        halves: of the two halves of every run in time, (B, 2, K + C, K + C), float64.
        noise: what white noise on the fields added to them in expectation, likewise.
        level: standard deviation of the noise of each run and field, (B, C), in their unit.
    """

    halves: Tensor
    noise: Tensor
    level: Tensor

    def __len__(self) -> int:
        return len(self.halves)

    @staticmethod
    def join(parts: Sequence[Grams]) -> Grams:
        """Return the Grams of all parts, in order: what is computed in parts equals what is computed at once."""
        return Grams(*(torch.cat([getattr(part, name) for part in parts]) for name in ("halves", "noise", "level")))


def bump(half_width: int, power: int, order: int) -> Tensor:
    """Return (-1)^r φ^(r) at the nodes j = -h..h in grid units, φ(j) = (1 - s²)^q with s = j/(h + 1), divided by Σφ.

    Args:
        half_width: h >= 1, nodes.
        power: q > r.
        order: r >= 0.

    Returns:
        (2h + 1,), float64. Integrating monomials to degree r by parts is exact as a sum over nodes too.

    Source: test functions of Messenger and Bortz (2021), arXiv:2007.02848.
    """
    s = np.arange(-half_width, half_width + 1, dtype=np.float64) / (half_width + 1)
    phi = np.polynomial.Polynomial([1, 0, -1]) ** power
    values = phi(s)
    if not order:
        return torch.from_numpy(values / values.sum())
    slope = (-1) ** order * phi.deriv(order)(s)
    powers = s[None] ** np.arange(order + 1)[:, None]  # (order + 1, nodes)
    wanted = np.zeros(order + 1)
    wanted[order] = np.prod(np.arange(1, order + 1)) * values.sum()
    # Sums over nodes are not quite integrals: a multiple of φ by a polynomial mends all moments to this order.
    mended = slope + np.linalg.solve((powers * values) @ powers.T, wanted - powers @ slope) @ (powers * values)
    return torch.from_numpy(mended / (values.sum() * (half_width + 1) ** order))


def noise_level(runs: Trajectories) -> Tensor:
    """Return the standard deviation of white noise on each field of each run, (B, C), from fourth differences.

    The fourth difference of white noise of variance σ² has variance 70 σ²; that of a resolved field is small. The
    smaller of the estimates along time and along the first axis counts. Each run has its own, so that what is made of a
    run does not depend on the runs beside it.

    Raises:
        ShapeError: fewer than 5 frames and fewer than 5 nodes.
    """
    found = []
    for dim in (2, 3):
        if runs.fields.shape[dim] >= 5:
            fields = runs.fields.double()
            if dim == 3 and runs.boundary[0] == "periodic":
                fields = torch.cat([fields, fields[:, :, :, :4]], dim=3)
            differences = fields.diff(n=4, dim=dim).flatten(2).square().mean(dim=2)
            found.append((differences / 70.0).sqrt())
    if not found:
        raise ShapeError(f"fields {tuple(runs.fields.shape)}: expected at least 5 frames or nodes.")
    return torch.stack(found).amin(dim=0)


class _Windows:
    """Matrices that integrate against the test function along each axis, for one grid size."""

    def __init__(self, runs: Trajectories, half_width: Sequence[int], power: int) -> None:
        sizes, periodic = runs.fields.shape[2:], (False, *(b == "periodic" for b in runs.boundary))
        if len(half_width) != len(sizes) or any(
            2 * h + 1 > n or h < 1 for h, n in zip(half_width, sizes, strict=False)
        ):
            raise ShapeError(
                f"test functions of half width {tuple(half_width)} do not fit {tuple(sizes)} frames and nodes; "
                f"expected {len(sizes)} numbers from 1 to half the grid. Give longer runs, or smaller half widths."
            )
        self.half, self.power, self.sizes, self.periodic = tuple(half_width), power, tuple(sizes), periodic
        self.device = runs.device

    def matrix(self, axis: int, order: int) -> Tensor:
        h, n = self.half[axis], self.sizes[axis]
        weights = bump(h, self.power, order)
        rows = n if self.periodic[axis] else n - 2 * h
        columns = torch.arange(rows)[:, None] + torch.arange(2 * h + 1)
        found = torch.zeros(rows, n, dtype=torch.float64)
        found.scatter_add_(1, columns % n, weights.expand(rows, -1).contiguous())
        return found.to(self.device)

    def along(self, values: Tensor, axis: int, order: int) -> Tensor:
        return torch.movedim(torch.movedim(values, 1 + axis, -1) @ self.matrix(axis, order).T, -1, 1 + axis)

    def overlap(self, axis: int, first: int, second: int) -> float:
        return float(bump(self.half[axis], self.power, first) @ bump(self.half[axis], self.power, second))


def spacing(runs: Trajectories) -> Tensor:
    """Return time step and grid spacings, (B, 1 + d), float64.

    Raises:
        DataError: frames that are not equally spaced.
    """
    steps = runs.time.double().diff(dim=1)
    if not torch.allclose(steps, steps[:, :1].expand_as(steps), rtol=1e-4, atol=0.0):
        raise DataError(
            "the frames are not equally spaced in time, which the test functions need. Interpolate them first, e.g. "
            "dataset.interp(time=numpy.linspace(start, end, frames))."
        )
    points = torch.tensor(runs.fields.shape[3:], dtype=torch.float64, device=runs.device)
    periodic = torch.tensor([b == "periodic" for b in runs.boundary], device=runs.device)
    space = torch.where(periodic, runs.lengths.double() / points, runs.grid_spacing.double())
    return torch.cat([runs.time_step.double()[:, None], space], dim=1)


def weak_products(runs: Trajectories, terms: Sequence[Term], half_width: Sequence[int], power: int = 8) -> Tensor:
    """Return ∫∫ φ ∂^α m(u) of every term, and ∫∫ φ ∂u/∂t of every field, around every grid point.

    All derivatives stand on the test function: the sign of each is (-1)^order, and boundary terms vanish with φ.

    Args:
        runs: B runs on equally spaced frames; axes may be periodic or not.
        terms: K terms.
        half_width: of φ, in frames and in nodes along each axis.
        power: q of φ, above the highest order.

    Returns:
        (B, K + C, T', *X'), float64: frames (and nodes of open axes) whose window is whole.

    Raises:
        ShapeError: windows that do not fit the grid.
        DataError: frames that are not equally spaced.
    """
    windows, steps, fields = _Windows(runs, half_width, power), spacing(runs), runs.fields.double()
    monomials: dict[tuple[int, ...], Tensor] = {}
    found = []
    for term in terms:
        if term.powers not in monomials:
            value = torch.ones_like(fields[:, 0])
            for channel, m in enumerate(term.powers):
                value = value * fields[:, channel] ** m
            monomials[term.powers] = windows.along(value, 0, 0)
        product = monomials[term.powers]
        for axis, order in enumerate(term.orders, start=1):
            product = windows.along(product, axis, order)
            if order:
                product = product / steps[:, axis].pow(order).reshape(-1, *[1] * (product.ndim - 1))
        found.append(product)
    for channel in range(fields.shape[1]):
        product = windows.along(fields[:, channel], 0, 1)
        for axis in range(1, len(windows.sizes)):
            product = windows.along(product, axis, 0)
        found.append(product / steps[:, 0].reshape(-1, *[1] * (product.ndim - 1)))
    return torch.stack(found, dim=1)


def weak_grams(
    runs: Trajectories,
    terms: Sequence[Term],
    half_width: Sequence[int],
    power: int = 8,
    level: Tensor | None = None,
    centred: bool = True,
) -> Grams:
    """Return the Gram matrices of the two halves of every run, and what noise adds to them.

    White noise of variance σ² on u adds σ² ⟨∂m_k/∂u ∂m_l/∂u⟩ ⟨φ_k, φ_l⟩ to the product of terms k and l, to first
    order; φ_k is the test function with the derivatives of term k.

    Args:
        runs: B runs.
        terms: the library.
        half_width: of the test functions, see :func:`weak_products`.
        power: of the test functions.
        level: σ of each run and field, (B, C); None: estimated by :func:`noise_level`.
        centred: subtract the mean of every run and field first, as laws allow that a moving frame does not change.
    """
    runs.check_finite()
    sigma = noise_level(runs) if level is None else level.double()
    parts = []
    for start in range(0, len(runs), _PART):
        part = runs[slice(start, start + _PART)]
        fields = part.fields.double()
        if centred:
            fields = fields - fields.mean(dim=tuple(range(2, fields.ndim)), keepdim=True)
        part = part.replace(fields=fields)
        products = weak_products(part, terms, half_width, power)
        frames = products.shape[2]
        cut = max(1, frames // 2)
        halves = []
        for piece in (products[:, :, :cut], products[:, :, cut:]):
            flat = piece.flatten(2)
            halves.append(torch.einsum("bkp,blp->bkl", flat, flat) / max(flat.shape[2], 1))
        own = sigma[start : start + _PART]
        noise = _noise(part, terms, half_width, power, own)
        parts.append(Grams(torch.stack(halves, dim=1), noise[:, None].expand(-1, 2, -1, -1), own))
    return Grams.join(parts)


def _noise(runs: Trajectories, terms: Sequence[Term], half_width: Sequence[int], power: int, sigma: Tensor) -> Tensor:
    windows, steps, fields = _Windows(runs, half_width, power), spacing(runs), runs.fields
    channels, size = fields.shape[1], len(terms) + fields.shape[1]
    zero = (0,) * (fields.ndim - 3)
    rows = [(t.powers, (0, *t.orders)) for t in terms]
    rows += [(tuple(int(i == c) for i in range(channels)), (1, *zero)) for c in range(channels)]
    slopes: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def slope(powers: tuple[int, ...], channel: int) -> Tensor:
        if (powers, channel) not in slopes:
            value = torch.full_like(fields[:, 0], float(powers[channel]))
            for c, m in enumerate(powers):
                m = m - 1 if c == channel else m
                value = value * fields[:, c] ** max(m, 0)
            slopes[powers, channel] = value
        return slopes[powers, channel]

    found = torch.zeros(len(runs), size, size, dtype=torch.float64, device=runs.device)
    for k, (first, alpha) in enumerate(rows):
        for j, (second, beta) in enumerate(rows[: k + 1]):
            overlap = torch.ones(len(runs), dtype=torch.float64, device=runs.device)
            for axis, (a, b) in enumerate(zip(alpha, beta, strict=True)):
                overlap = overlap * windows.overlap(axis, a, b) / steps[:, axis].pow(a + b)
            if not bool((overlap != 0).any()):
                continue
            shared = torch.zeros_like(overlap)
            for c in range(channels):
                if first[c] and second[c]:
                    product = (slope(first, c) * slope(second, c)).flatten(1).mean(dim=1)
                    shared = shared + sigma[:, c].square() * product
            found[:, k, j] = found[:, j, k] = shared * overlap
    return found
