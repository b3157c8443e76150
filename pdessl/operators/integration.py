"""Laws integrated in time on periodic boxes: the runs that a law and a code say will follow."""

# B runs, C fields of the state, E targets, K terms, d space axes, X nodes, M modes

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.operators.latent import LatentOperator
from pdessl.operators.library import Term
from pdessl.solvers.pseudo_spectral import ETDRK4
from pdessl.trajectory import Trajectories

__all__ = ["WILD", "LawFlow"]

_COURANT = 1.5  # largest rate of the terms that are not integrated exactly, times the step; RK4 is stable up to 2.8
_MOST_STEPS = 200  # per frame
WILD = 30.0  # times the largest value at the start: a run that grows so far is not followed any further


@dataclass(frozen=True, eq=False)
class _Product:
    """A monomial of physical fields and, per target, the symbols it is multiplied by, (B, M) each."""

    powers: tuple[int, ...]
    symbols: dict[int, Tensor]


class LawFlow:
    """The flow of a law for runs with given codes: fields at one time to fields at later ones.

        v' = L v + N(v),   v Fourier modes, L the law's linear terms of each field itself, N all others

    Derivatives are multiplications by (ik)^α, products are formed on a grid ``refine`` times as fine as the data's, of
    which the lower two thirds of modes are kept (no aliasing of quadratic terms), steps are ETDRK4 with L exact. Where
    the law is one of a vorticity, that is what is stepped, the velocity follows from it, and its mean stays.

    A law fitted on noisy, coarse runs may make the shortest waves grow without bound, as a backward heat equation does.
    Growth of waves beyond half of those that the data's grid holds is therefore cut off.

    Args:
        law: of first order in time.
        runs: for the grid, the known factors and, where the law is one of centred runs, their mean; periodic axes.
        codes: (B, R), as :meth:`LatentOperator.encode` gives them.
        refine: nodes of the grid of products over nodes of the data, along each axis, >= 1.

    Raises:
        DataError: a law of second order in time, an axis that is not periodic, or a derived field that is not the curl
            of two.
        ShapeError: codes that are not those of the runs.

    Source: ETDRK4 as in :class:`pdessl.solvers.pseudo_spectral.ETDRK4`.
    """

    def __init__(self, law: LatentOperator, runs: Trajectories, codes: Tensor, refine: int = 4) -> None:
        _check(law, runs, codes)
        self.law, self.refine = law, refine
        self.sizes = tuple(runs.fields.shape[3:])
        self.fine = tuple(n * refine for n in self.sizes)
        self.dims = tuple(range(-len(self.sizes), 0))
        self.curl = law.projection.derived[0] if law.projection.derived else None
        self.fields = runs.fields.shape[1]
        fields = runs.fields.double()
        means = fields.mean(dim=(2, *range(3, fields.ndim)))
        self.centre = means if law.projection.centred else torch.zeros_like(means)
        self.still = means - self.centre  # of a velocity that its vorticity does not determine
        self.waves, self.kept = _waves(runs, self.fine)
        size = sum((k.square() for k in self.waves), torch.zeros((), device=runs.device)).sqrt()
        self.smaller = torch.where(size > 0, 1 / size.clamp_min(1e-300), torch.zeros_like(size))
        self._build(runs, law.fitted.law(codes.double()))

    # ------------------------------------------------------------------------------ state

    def modes(self, fields: Tensor) -> Tensor:
        """Return the state of fields (B, C, *X): modes (B, E, *M) on the fine grid, padded with zeros."""
        v = torch.fft.rfftn(fields.double() - self._at(self.centre), dim=self.dims, norm="forward")
        wide = v.new_zeros(*v.shape[: -len(self.sizes)], *self._shape(self.fine))
        for low, high in _corners(self.sizes):
            there: Any = (..., *high(self.fine))
            here: Any = (..., *low)
            wide[there] = v[here]
        rows = [self._curl(wide) if t.powers[self.fields :] == (1,) else wide[:, _alone(t)] for t in self.law.targets]
        return torch.stack(rows, dim=1) * self.kept

    def observed(self, modes: Tensor) -> Tensor:
        """Return the fields (B, C, *X) of a state at the nodes of the data."""
        fine = torch.fft.irfftn(self._measured(modes), s=self.fine, dim=self.dims, norm="forward")
        every: Any = (..., *(slice(None, None, self.refine) for _ in self.sizes))
        return fine[every] + self._at(self.centre)

    def _measured(self, modes: Tensor) -> Tensor:
        """Return the modes of the measured fields (B, C, *M), centred, of a state."""
        if self.curl is None:
            return modes
        (_, second, _), (_, first, _) = self.curl.parts
        rows: list[Tensor | None] = [None] * self.fields
        for row, target in enumerate(self.law.targets):
            if target.powers[self.fields :] == (1,):
                kx, ky = self.waves
                stream = modes[:, row] / (kx.square() + ky.square()).clamp_min(1e-300)  # -Δψ = w; u = ψ_y, v = -ψ_x
                rows[first], rows[second] = 1j * ky * stream, -1j * kx * stream
                for field in (first, second):
                    value = rows[field]
                    assert value is not None  # noqa: S101  (set in the line before)
                    mean: Any = (slice(None), *(0 for _ in self.sizes))
                    value[mean] = self.still[:, field].to(value.dtype)
            else:
                rows[_alone(target)] = modes[:, row]
        return torch.stack([r for r in rows if r is not None], dim=1)

    def _curl(self, wide: Tensor) -> Tensor:
        assert self.curl is not None  # noqa: S101  (only called with one)
        return sum((w * self._symbol(orders) * wide[:, f] for w, f, orders in self.curl.parts), torch.zeros(()))

    def _at(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape, *(1,) * len(self.sizes))

    @staticmethod
    def _shape(sizes: Sequence[int]) -> tuple[int, ...]:
        return (*sizes[:-1], sizes[-1] // 2 + 1)

    def _symbol(self, orders: Sequence[int]) -> Tensor:
        found = torch.ones((), dtype=torch.complex128, device=self.kept.device)
        for k, n in zip(self.waves, orders, strict=True):
            if n:
                found = found * (1j * k) ** n
        return found

    # ------------------------------------------------------------------------------ law

    def _build(self, runs: Trajectories, coefficients: Tensor) -> None:
        shape = (len(runs), len(self.law.targets), *self._shape(self.fine))
        linear = torch.zeros(shape, dtype=torch.complex128, device=runs.device)
        products: dict[tuple[int, ...], dict[int, Tensor]] = {}
        for k, term in enumerate(self.law.terms):
            factor = runs.parameters[term.factor].double() if term.factor else 1.0
            for e, target in enumerate(self.law.targets):
                values = coefficients[:, e, k] * factor
                if not bool(values.any()):
                    continue
                symbol = self._at(values) * self._symbol(term.orders)
                if term.powers == target.powers:
                    linear[:, e] += symbol
                else:
                    held = products.setdefault(term.powers, {})
                    held[e] = held.get(e, 0) + symbol
        self.linear = _bounded(linear, self.waves, self.sizes, self.kept)
        self.products = [
            _Product(powers, {e: (s * self.kept).to(torch.complex128) for e, s in held.items()})
            for powers, held in products.items()
        ]

    def nonlinear(self, modes: Tensor, at: float = 0.0) -> Tensor:
        """Return N(v), (B, E, *M)."""
        result = torch.zeros_like(modes)
        measured = self._measured(modes)
        fields = torch.fft.irfftn(measured, s=self.fine, dim=self.dims, norm="forward")
        for product in self.products:
            spectrum = self._monomial(product.powers, fields, measured, modes)
            for e, symbol in product.symbols.items():
                result[:, e] += symbol * spectrum
        return result

    def _monomial(self, powers: tuple[int, ...], fields: Tensor, measured: Tensor, modes: Tensor) -> Tensor:
        if sum(powers) == 1:
            field = powers.index(1)
            if field >= self.fields:  # the derived field, in the law of another
                row = next(i for i, t in enumerate(self.law.targets) if t.powers[self.fields :] == (1,))
                return modes[:, row]
            return measured[:, field]
        value = torch.ones_like(fields[:, 0])
        for field, m in enumerate(powers[: self.fields]):
            if m:
                value = value * fields[:, field] ** m
        return torch.fft.rfftn(value, dim=self.dims, norm="forward")

    # ------------------------------------------------------------------------------ time

    def steps_needed(self, modes: Tensor, interval: float) -> int:
        """Return how many steps an interval takes, by the rates of N's terms at the highest kept wave of any run."""
        peak = torch.fft.irfftn(self._measured(modes), s=self.fine, dim=self.dims, norm="forward")
        size = peak.abs().flatten(2).amax(dim=2).clamp_min(1e-12)  # (B, C)
        rate = torch.zeros(len(size), dtype=torch.float64, device=size.device)
        for product in self.products:
            for e, symbol in product.symbols.items():
                strength = symbol.abs()
                if self.law.targets[e].powers[self.fields :] == (1,):
                    strength = strength * self.smaller  # a velocity is an integral of the vorticity that is stepped
                strength = strength.flatten(1).amax(dim=1)
                for field, m in enumerate(product.powers[: self.fields]):
                    rest = [size[:, f] ** (n - (f == field)) for f, n in enumerate(product.powers[: self.fields])]
                    rate = rate + (m * strength * torch.stack(rest).prod(dim=0) if m else 0.0)
        needed = float(rate[rate.isfinite()].amax()) * interval / _COURANT if bool(rate.isfinite().any()) else 1.0
        return max(1, min(_MOST_STEPS, math.ceil(needed)))

    def noise(self, variance: Tensor) -> Tensor:
        """Return the variance (B, E, *M) of each mode of the state where each mode of the fields has (B, C)."""
        rows = []
        for target in self.law.targets:
            if target.powers[self.fields :] == (1,):
                assert self.curl is not None  # noqa: S101  (it is what the target is)
                parts = self.curl.parts
                row = sum(
                    (self._at(variance[:, f]) * (w * self._symbol(a)).abs().square() for w, f, a in parts),
                    torch.zeros(()),
                )
            else:
                row = self._at(variance[:, _alone(target)]).expand(len(variance), *self._shape(self.fine))
            rows.append(row)
        return torch.stack(rows, dim=1)

    def known(self) -> Tensor:
        """Return which modes (1, *M) the data's grid holds: 1, else 0."""
        found = torch.zeros(1, *self._shape(self.fine), dtype=torch.float64, device=self.kept.device)
        for _, high in _corners(self.sizes):
            there: Any = (..., *high(self.fine))
            found[there] = 1.0
        return found * self.kept

    @torch.no_grad()
    def advance(self, modes: Tensor, interval: Tensor, frames: int = 1) -> tuple[Tensor, Tensor]:
        """Return the state after frames, and the fields at each, (B, C, frames, *X).

        A run that stops being finite, or grows beyond 30 times its largest value, stays as it was last.

        Args:
            modes: state.
            interval: between frames, (B,), time.
            frames: number of them.
        """
        count = self.steps_needed(modes, float(interval.max()))
        scheme = ETDRK4.build(self.linear, interval.double() / count, modes.dtype)
        found = [self.observed(modes)]
        limit = WILD * found[0].abs().flatten(1).amax(dim=1).clamp_min(1e-12)
        held = torch.zeros(len(modes), dtype=torch.bool, device=modes.device)
        for _ in range(frames):
            new = modes
            for _ in range(0 if bool(held.all()) else count):
                new = scheme.advance(new, self.nonlinear)
            field = self.observed(new)
            peak = field.abs().flatten(1).amax(dim=1)
            held = held | ~(peak < limit)  # true for NaN too
            modes = torch.where(self._at(held[:, None]), modes, new)
            found.append(torch.where(self._at(held[:, None]), found[-1], field))
        return modes, torch.stack(found[1:], dim=2)


def _check(law: LatentOperator, runs: Trajectories, codes: Tensor) -> None:
    if runs.field_names != law.field_names or runs.axis_names != law.axis_names:
        raise DataError(
            f"the law is one of {', '.join(law.field_names)} over {', '.join(law.axis_names)}; the runs have "
            f"{', '.join(runs.field_names)} over {', '.join(runs.axis_names)}. Choose or rename fields to match."
        )
    walled = [n for n, kind in zip(runs.axis_names, runs.boundary, strict=True) if kind != "periodic"]
    if walled:
        raise DataError(
            f"axis '{walled[0]}' of the runs is not periodic; laws are integrated on periodic boxes only. Use the "
            "law's code as the condition of a network instead: condition='operator'."
        )
    if any(t.time != 1 for t in law.targets) or any(t.time for t in law.terms):
        raise DataError("the law is of second order in time; only those of first order are integrated.")
    derived = law.projection.derived
    if len(derived) > 1 or (derived and len(derived[0].parts) != 2):
        raise DataError(f"the law is one of derived fields {', '.join(d.name for d in derived)}; expected one curl.")
    if tuple(codes.shape) != (len(runs), law.rank):
        raise ShapeError(f"codes {tuple(codes.shape)}; expected {(len(runs), law.rank)}, a row per run.")
    missing = [t.factor for t in law.terms if t.factor and t.factor not in runs.parameters]
    if missing:
        raise DataError(f"the law has the known factor '{missing[0]}', which these runs do not record. Add it.")


def _alone(term: Term) -> int:
    return term.powers.index(1)


def _waves(runs: Trajectories, fine: Sequence[int]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the wave numbers along each axis, (B, 1, ..., M_i, ...), and which modes are kept (two thirds)."""
    d, waves, kept = len(fine), [], torch.ones((), dtype=torch.float64, device=runs.device)
    for axis, n in enumerate(fine):
        whole = torch.fft.rfftfreq(n, 1 / n) if axis == d - 1 else torch.fft.fftfreq(n, 1 / n)
        shape = [1] * d
        shape[axis] = len(whole)
        index = whole.double().to(runs.device)
        waves.append((2 * math.pi / runs.lengths[:, axis, None] * index).reshape(len(runs), *shape))
        kept = kept * (3 * index.abs() < n).double().reshape(shape)
    return tuple(waves), kept


def _bounded(linear: Tensor, waves: Sequence[Tensor], sizes: Sequence[int], kept: Tensor) -> Tensor:
    """Cut off growth beyond half the waves that the data's grid holds."""
    high = torch.zeros((), dtype=torch.bool, device=linear.device)
    for k, n in zip(waves, sizes, strict=True):
        first = k.abs().flatten(1)
        unit = first[:, 1] if first.shape[1] > 1 else first[:, 0]
        high = high | (k.abs() > unit.reshape(-1, *(1,) * (k.ndim - 1)) * (n / 4))
    real = torch.where(high[:, None] & (linear.real > 0), torch.zeros_like(linear.real), linear.real)
    return torch.complex(real, linear.imag) * kept


def _corners(sizes: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], Callable[[Sequence[int]], tuple[slice, ...]]]]:
    """Yield, per corner of a spectrum on ``sizes``, where its modes lie there and, as a function, on a finer grid.

    The highest mode of even sizes stands for k and -k and is left out: it cannot be told where it lies.
    """
    ways: list[list[bool]] = [[]]
    for _ in sizes[:-1]:
        ways = [[*w, up] for w in ways for up in (False, True)]
    half = (sizes[-1] - 1) // 2 + 1
    for way in ways:
        low = []
        for up, n in zip(way, sizes[:-1], strict=True):
            m = (n - 1) // 2
            low.append(slice(n - m, n) if up else slice(0, m + 1))

        def high(fine: Sequence[int], way: list[bool] = way) -> tuple[slice, ...]:
            found = []
            for up, n, f in zip(way, sizes[:-1], fine[:-1], strict=True):
                m = (n - 1) // 2
                found.append(slice(f - m, f) if up else slice(0, m + 1))
            return (*found, slice(0, half))

        yield (*low, slice(0, half)), high
