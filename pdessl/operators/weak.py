"""Weak products: integrals of terms against smooth test functions, and the Gram matrices of runs made of them."""

# B runs, C fields, T frames, X nodes (one axis per dimension), K terms, E targets, P positions of the test function

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError, did_you_mean
from pdessl.operators.advection import traced
from pdessl.operators.library import Derived, Term, primitives, rates
from pdessl.operators.refinement import interpolation, periodic_axes, refined
from pdessl.operators.test_functions import Windows, spacing
from pdessl.trajectory import Trajectories

__all__ = ["Grams", "Projection", "noise_level", "noise_of_products", "parts_of", "weak_grams", "weak_products"]

_HELD = 2**23  # numbers of products that are held at once (64 MB)


@dataclass(frozen=True)
class Projection:
    """How runs are read: the terms and targets of a law, and the test functions they are integrated against.

    Args:
        terms: K terms, the library.
        half_width: of the test function, frames and nodes along each axis.
        targets: E left sides; empty: the time derivative of each field.
        derived: fields made of the measured ones, which terms and targets may name.
        centred: subtract the mean of every run and field first, as laws allow that a moving frame does not change.
        high_pass: number of waves along periodic axes below which the integrals are left out (an unknown slow force).
        stride: distance of the positions of the test function, frames and nodes; empty: 1 along all.
        power: q of the test function, above the highest order.
        advected: numbers of the fields that are a velocity without divergence, one per space axis: time derivatives are
            taken along the flow, f_t = (f_t + u·∇f) - ∇·(u f), the first from traced paths
            (:func:`pdessl.operators.advection.traced`), and all terms in the middle between frames; empty: at nodes.
        refined: there are made so many times as many nodes along periodic axes first
            (:func:`pdessl.operators.refinement.refined`), which half-widths count then.
    """

    terms: tuple[Term, ...]
    half_width: tuple[int, ...]
    targets: tuple[Term, ...] = ()
    derived: tuple[Derived, ...] = ()
    centred: bool = False
    high_pass: int = 0
    stride: tuple[int, ...] = ()
    power: int = 8
    advected: tuple[int, ...] = ()
    refined: int = 1

    def left(self, runs: Trajectories) -> tuple[Term, ...]:
        """Return the targets for runs."""
        return self.targets or rates(runs.fields.shape[1], len(runs.space))

    def measured(self, fields: int) -> int:
        """Return how many of the fields of runs that were read are measured ones; rates along the flow follow."""
        return fields // 2 if self.advected else fields

    def windows(self, runs: Trajectories) -> Windows:
        """Return the test functions on the grid of runs."""
        return Windows(runs, self.half_width, self.power, self.stride or None, self.high_pass)

    def read(self, runs: Trajectories) -> Trajectories:
        """Return runs in float64, refined, centred and traced where that is asked for."""
        if self.refined > 1:
            runs = refined(runs, self.refined)
        fields = runs.fields.double()
        if self.centred:
            fields = fields - fields.mean(dim=tuple(range(2, fields.ndim)), keepdim=True)
        runs = runs.replace(fields=fields)
        return traced(runs, self.advected) if self.advected else runs


@dataclass(frozen=True)
class Grams:
    """Products of terms and targets of each run: sums over positions of the test function, by their number.

    The last E rows and columns belong to the targets.

    Args:
        halves: of the two halves of every run in time, (B, 2, K + E, K + E), float64.
        noise: what white noise on the fields added to them in expectation, (B, K + E, K + E).
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


def weak_products(runs: Trajectories, projection: Projection) -> Tensor:
    """Return ∫∫ φ ∂^α m(u) of every term and target, around positions of the test function.

    All derivatives stand on the test function: the sign of each is (-1)^order, and boundary terms vanish with φ.

    Args:
        runs: B runs on equally spaced frames; axes may be periodic or not.
        projection: terms, targets and test functions; runs are those that :meth:`Projection.read` returns.

    Returns:
        (B, K + E, T', *X'), float64: frames (and nodes of open axes) whose window is whole.

    Raises:
        ShapeError: windows that do not fit the grid.
        DataError: frames that are not equally spaced, or a factor that the runs do not have.
    """
    windows, steps, fields = projection.windows(runs), spacing(runs), runs.fields.double()
    measured = projection.measured(fields.shape[1])
    made: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}

    def integrated(powers: tuple[int, ...], orders: tuple[int, ...], low: bool) -> Tensor:
        # Along time first, then along one axis after the other; what terms share is made once.
        if not orders:
            value = torch.ones_like(fields[:, 0])
            for channel, m in enumerate(powers):
                value = value * fields[:, channel] ** m if m else value
            return value
        key = (powers, (int(low), *orders))
        if key not in made:
            axis = len(orders) - 1
            made[key] = windows.along(integrated(powers, orders[:-1], low), axis, orders[-1], low and axis > 0)
        return made[key]

    found = []
    for term in (*projection.terms, *projection.left(runs)):
        total: Tensor | float = 0.0
        for weight, powers, orders in _parts(term, projection, measured):
            value = integrated(powers, orders, False)
            if projection.high_pass:
                value = value - integrated(powers, orders, True)
            scale = torch.full_like(steps[:, 0], weight)
            for axis, order in enumerate(orders):
                scale = scale / steps[:, axis].pow(order)
            total = total + value * scale.reshape(-1, *[1] * (value.ndim - 1))
        found.append(total * _known(runs, term).reshape(-1, *[1] * (fields.ndim - 2)))
    made.clear()  # a function that calls itself holds on to it until the garbage is collected
    return torch.stack(found, dim=1)


def _parts(term: Term, projection: Projection, fields: int) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """Return what is integrated for a term: (weight, powers, orders in time and space) each."""
    found = []
    for weight, part in primitives(term, projection.derived, fields):
        if not (part.time and projection.advected):
            found.append((weight, part.powers, (part.time, *part.orders)))
            continue
        # A time derivative is what the flow carries away, and the rate along it, a field of its own.
        found.append((weight, ((0,) * fields + part.powers), (part.time - 1, *part.orders)))
        for axis, channel in enumerate(projection.advected):
            powers = tuple(m + int(c == channel) for c, m in enumerate(part.powers))
            orders = tuple(n + int(a == axis) for a, n in enumerate(part.orders))
            found.append((-weight, powers, (part.time - 1, *orders)))
    return found


def _known(runs: Trajectories, term: Term) -> Tensor:
    if not term.factor:
        return torch.ones(len(runs), dtype=torch.float64, device=runs.device)
    if term.factor not in runs.parameters:
        held = ", ".join(runs.parameters) or "none"
        raise DataError(
            f"the law has the known factor '{term.factor}', which these runs do not record."
            f"{did_you_mean(term.factor, runs.parameters)} Their parameters: {held}. Add it, or find the law without."
        )
    return runs.parameters[term.factor].double()


def weak_grams(runs: Trajectories, projection: Projection, level: Tensor | None = None) -> Grams:
    """Return the Gram matrices of the two halves of every run, and what noise adds to them.

    White noise of variance σ² on u adds σ² ⟨∂m_k/∂u ∂m_l/∂u⟩ ⟨φ_k, φ_l⟩ to the product of terms k and l, to first
    order; φ_k is the test function with the derivatives of term k. Of rates along the flow it is not known, and 0.

    Args:
        runs: B runs.
        projection: how they are read.
        level: σ of each run and field, (B, C); None: estimated by :func:`noise_level`.
    """
    runs.check_finite()
    sigma = noise_level(runs) if level is None else level.double()
    removable = not projection.advected  # what noise does to paths is not known
    parts, start = [], 0
    for piece in parts_of(runs, projection):
        part, own = projection.read(piece), sigma[start : start + len(piece)]
        start += len(piece)
        products = weak_products(part, projection)
        cut = max(1, products.shape[2] // 2)
        halves = []
        for half in (products[:, :, :cut], products[:, :, cut:]):
            flat = half.flatten(2)
            halves.append(flat @ flat.mT / max(flat.shape[2], 1))
        noise = noise_of_products(part, projection, own) if removable else torch.zeros_like(halves[0])
        parts.append(Grams(torch.stack(halves, dim=1), noise, own))
    return Grams.join(parts)


def parts_of(runs: Trajectories, projection: Projection) -> Iterator[Trajectories]:
    """Return runs in parts whose products fit into memory."""
    size = len(projection.terms) + len(projection.left(runs))
    nodes = runs.fields[0, 0].numel() * projection.refined ** len(periodic_axes(runs))
    step = max(1, _HELD // (2 * size * nodes))
    for start in range(0, len(runs), step):
        yield runs[slice(start, start + step)]


def noise_of_products(runs: Trajectories, projection: Projection, sigma: Tensor) -> Tensor:
    """Return what white noise of deviation σ adds to the products of terms and targets, (B, K + E, K + E).

    Noise that was interpolated has no waves that its own nodes do not have: of a test function only what those see
    counts. They are taken to see of a product with a smooth field what they see of the noise.

    Args:
        runs: as :meth:`Projection.read` returns them.
        projection: how they are read.
        sigma: of each run and field, (B, C).
    """
    windows, steps, fields = projection.windows(runs), spacing(runs), runs.fields
    channels, rows = fields.shape[1], []
    times = projection.refined
    made = {
        1 + axis: interpolation(fields.shape[3 + axis] // times, times).to(runs.device)
        for axis in (periodic_axes(runs) if times > 1 else ())
    }
    terms = (*projection.terms, *projection.left(runs))
    for term in terms:
        known = _known(runs, term)
        parts = primitives(term, projection.derived, channels)
        rows.append([(weight * known, part.powers, (part.time, *part.orders)) for weight, part in parts])
    slopes: dict[tuple[tuple[int, ...], int], Tensor] = {}
    shares: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}

    def slope(powers: tuple[int, ...], channel: int) -> Tensor:
        if (powers, channel) not in slopes:
            value = torch.full_like(fields[:, 0], float(powers[channel]))
            for c, m in enumerate(powers):
                m = m - 1 if c == channel else m
                value = value * fields[:, c] ** m if m > 0 else value
            slopes[powers, channel] = value
        return slopes[powers, channel]

    def shared(first: tuple[int, ...], second: tuple[int, ...]) -> Tensor:
        if (first, second) not in shares:
            total = torch.zeros(len(runs), dtype=torch.float64, device=runs.device)
            for c in range(channels):
                if first[c] and second[c]:
                    product = (slope(first, c) * slope(second, c)).flatten(1).mean(dim=1)
                    total = total + sigma[:, c].square() * product
            shares[first, second] = total
        return shares[first, second]

    def overlap(alpha: tuple[int, ...], beta: tuple[int, ...]) -> float:
        whole, low = 1.0, 1.0
        for axis, (a, b) in enumerate(zip(alpha, beta, strict=True)):
            whole *= windows.overlap(axis, a, b, made=made.get(axis))
            low *= windows.overlap(axis, a, b, axis > 0, made.get(axis)) if projection.high_pass else 0.0
        return whole - low

    found = torch.zeros(len(runs), len(terms), len(terms), dtype=torch.float64, device=runs.device)
    for k, first in enumerate(rows):
        for j, second in enumerate(rows[: k + 1]):
            for weight, powers, alpha in first:
                for other, others, beta in second:
                    common = overlap(alpha, beta)
                    if common:
                        unit = torch.ones_like(steps[:, 0])
                        for axis, (a, b) in enumerate(zip(alpha, beta, strict=True)):
                            unit = unit * steps[:, axis].pow(a + b)
                        found[:, k, j] += common * weight * other * shared(powers, others) / unit
            found[:, j, k] = found[:, k, j]
    return found
