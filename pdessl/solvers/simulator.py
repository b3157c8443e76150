"""What every simulator offers: initial fields and output times in, trajectories out."""

# B batch, C channels of the state, T output times, X space (one axis per dimension), d number of space axes

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from pdessl.errors import DataError, ResolutionError, ShapeError
from pdessl.solvers.forcing import Forcing, TimeVarying, delayed
from pdessl.solvers.legs import Leg, divide, stretches
from pdessl.solvers.pseudo_spectral import interpolate
from pdessl.trajectory import Trajectories

__all__ = ["Leg", "Simulator", "Solution", "SolverSettings"]

SAMPLINGS = ("points", "cell_average", "spectral")
LARGEST_ADVISED = 1 << 20  # grid points up to which a field is interpolated to the grid that is advised


@dataclass(frozen=True, eq=False)
class Solution:
    """Trajectories and what is known about their quality.

    Args:
        trajectories: the fields at the output times.
        spectral_tail: largest amplitude near the grid scale over the largest of all, shape (B,), see
            :func:`pdessl.solvers.pseudo_spectral.spectral_tail`. Below about 1e-3 the run is resolved.
    """

    trajectories: Trajectories
    spectral_tail: Tensor


class SolverSettings(TypedDict, total=False):
    """Keywords that every simulator accepts; :class:`Simulator` says what they mean."""

    time_step: float | None
    substeps: int | None
    check_resolution: bool
    forcing: Forcing | None
    dtype: torch.dtype
    precision: torch.dtype


class Simulator(ABC):
    """Interface of a batched simulator of one equation; parameters and domain lengths may differ per trajectory.

    A simulator is built with its physical parameters and called with initial fields and output times::

        Burgers(viscosity=0.05, points=256)(initial, times)  ->  Trajectories

    It is differentiable in the initial fields, the parameters and the forcing.

    Args:
        parameters: each physical parameter as a number or a tensor of shape (B,).
        domain_length: > 0, length; a number (all axes, all trajectories), shape (B,) (all axes) or (B, d).
        points: grid points X, even, >= 8; a number (the same on every axis) or one per axis.
        time_step: longest inner step, > 0, time. Each output interval is split into equal steps no longer than it.
            Default: what :meth:`step_needed` says, the smallest of the batch.
        substeps: inner steps per output interval, >= 1; overrules ``time_step``.
        check_resolution: refuse, before starting, initial fields whose solution the grid cannot resolve, and steps that
            are far too long; the message names a grid or a step that will do.
        forcing: source term: a function of times (B,) that returns fields (B, *X) or (B, C, *X) on the solver's grid,
            for instance :class:`pdessl.solvers.Actuators`; default none. Where it jumps (it says so, see
            :class:`pdessl.solvers.TimeVarying`) a step ends.
        dtype: dtype of the returned fields.
        precision: dtype of the arithmetic inside, ``torch.float64`` or ``torch.float32``. Coefficients of the scheme
            are computed in float64 in either case. float32 takes 0.6 of the time on a processor; its errors start at
            1e-6 of the field and grow with the number of steps (and exponentially where the equation is chaotic).

    Class attributes that say what it simulates: ``equation`` (name in the catalog), ``field_names`` (returned
    channels), ``state_names`` (channels of the initial field; the returned ones unless given), ``parameter_names``,
    ``positive`` and ``nonzero`` (parameters that must be), ``dimensions`` d, ``boundary`` (per axis; with
    ``wall`` the fields are at cell centres, with ``periodic`` at x = j L / X).

    Raises:
        DataError: parameters that are not finite, or not positive where they must be.
        ResolutionError: odd points, fewer than 8, or a step that is not positive; on solving: a grid too coarse.
        ShapeError: parameters, lengths or points of a wrong shape.
    """

    # Of the class; an instance may return less than its state, or be a simpler equation.
    equation: str
    field_names: tuple[str, ...] = ("u",)
    state_names: tuple[str, ...] | None = None
    parameter_names: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()
    nonzero: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[int] = 1
    axis_names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    boundary: ClassVar[tuple[str, ...] | None] = None  # periodic on every axis
    # Steps longer than this many times the advisable one are refused, as grids too coarse are.
    largest_courant: float = math.inf

    def __init_subclass__(cls, **options: Any) -> None:
        """Show the keywords of :class:`SolverSettings` in the signature of a subclass that passes them on."""
        super().__init_subclass__(**options)
        own = inspect.signature(cls.__init__)
        listed = [p for p in own.parameters.values() if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        if len(listed) < len(own.parameters) - 1:
            names = {p.name for p in listed}
            shared = inspect.signature(Simulator.__init__).parameters.values()
            listed += [p for p in shared if p.kind is p.KEYWORD_ONLY and p.name not in names]
        signature = own.replace(parameters=listed, return_annotation=inspect.Signature.empty)
        cls.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect, see its documentation

    def __init__(
        self,
        parameters: Mapping[str, float | Tensor],
        domain_length: float | Tensor,
        points: int | Sequence[int],
        *,
        time_step: float | None = None,
        substeps: int | None = None,
        check_resolution: bool = True,
        forcing: Forcing | None = None,
        dtype: torch.dtype = torch.float32,
        precision: torch.dtype = torch.float64,
    ) -> None:
        self._name = type(self).__name__
        self.points = self._per_axis("points", points)
        if any(n < 8 or n % 2 for n in self.points):
            raise ResolutionError(f"{self._name}: points must be even and at least 8, found {points}.")
        if time_step is not None and not (math.isfinite(time_step) and time_step > 0):
            raise ResolutionError(f"{self._name}: time_step must be positive, found {time_step}.")
        if substeps is not None and substeps < 1:
            raise ResolutionError(f"{self._name}: substeps must be at least 1, found {substeps}.")
        if precision not in (torch.float32, torch.float64):
            raise DataError(f"{self._name}: precision must be torch.float64 or torch.float32, found {precision}.")
        self.parameters = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in parameters.items()}
        self.domain_length = torch.as_tensor(domain_length, dtype=torch.float64)
        self._check_parameters()
        self.time_step = time_step
        self.substeps = substeps
        self.check_resolution = check_resolution
        self.forcing = forcing
        self.dtype = dtype
        self.precision = precision

    # ---------------------------------------------------------------- what an equation supplies

    @abstractmethod
    def solve(
        self,
        initial: Tensor,
        times: Tensor,
        observed: int | Sequence[int] | None = None,
        sampling: str = "points",
    ) -> Solution:
        """Integrate and observe.

        Args:
            initial: fields at time 0 on the solver's grid, shape (B, C, *X).
            times: output times, shape (T,) or (B, T), increasing, the first >= 0.
            observed: nodes of the returned fields, a number or one per axis, divisors of the solver's ``points``;
                default the solver's grid.
            sampling: ``points`` (the value at the node), ``cell_average`` (mean over a cell centred on the node, what
                a sensor of finite size reads) or ``spectral`` (all modes the coarse grid cannot hold removed).

        Raises:
            ResolutionError: the grid cannot resolve the solution; the message gives one that can.
            ShapeError: shapes that do not fit.
            DataError: values that are not finite, or times that do not increase.
        """

    @abstractmethod
    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the grid points along the longest axis that resolve each trajectory, shape (B,), float64."""

    @abstractmethod
    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return the largest advisable inner step of each trajectory on this simulator's grid, shape (B,), time.

        The fields may lie on another grid that resolves them: what counts are their extremes, which are the same there.
        """

    def __call__(self, initial: Tensor, times: Tensor) -> Trajectories:
        """Integrate from fields at the first of the times given, and return trajectories at all of them.

        So ``simulator(run.fields[:, :, 0], run.time)`` simulates a run again, whenever it begins. :meth:`solve` takes
        fields at time 0 and returns what comes later, which is how datasets leave out a transient.

        Args:
            initial: fields at the first time, shape (B, C, *X).
            times: shape (T,) or (B, T), increasing. A forcing is asked at these times.

        Raises:
            DataError: a single time other than 0: there is nothing to integrate to.
        """
        times = torch.as_tensor(times, dtype=torch.float64, device=initial.device)
        first = times[..., :1]
        if times.shape[-1] == 1 and bool(first.any()):
            raise DataError(
                f"{self._name}: one time is given, {float(first.flatten()[0]):g}, and the initial field is that of the "
                f"first one. Give both, torch.tensor([0.0, {float(first.flatten()[0]):g}])."
            )
        if not bool((torch.isfinite(first) & (first != 0)).any()):
            return self.solve(initial, times).trajectories
        clock = copy.copy(self)
        clock.forcing = None if self.forcing is None else delayed(self.forcing, first)
        found = clock.solve(initial, times - first).trajectories
        return found.replace(time=times.expand(len(initial), -1).contiguous())

    # ------------------------------------------------------------------------- per trajectory

    def _per_axis(self, label: str, value: int | Sequence[int]) -> tuple[int, ...]:
        found = (value,) * self.dimensions if isinstance(value, int) else tuple(value)
        if len(found) != self.dimensions:
            raise ShapeError(
                f"{self._name}: {label} {found} for {self.dimensions} axes; give a number or one per axis."
            )
        return found

    def parameter(self, name: str, initial: Tensor) -> Tensor:
        """Return a physical parameter for each trajectory of a batch, shape (B,), on its device."""
        return self.parameters[name].to(initial.device).expand(initial.shape[0])

    def lengths(self, initial: Tensor) -> Tensor:
        """Return the domain lengths of each trajectory of a batch, shape (B, d), on its device."""
        length = self.domain_length.to(initial.device)
        return (length[:, None] if length.ndim == 1 else length).expand(initial.shape[0], self.dimensions)

    def spacing(self, initial: Tensor) -> Tensor:
        """Return the distance between grid points, shape (B, d)."""
        lengths = self.lengths(initial)
        return lengths / lengths.new_tensor(self.points)

    # -------------------------------------------------------------------------------- checks

    def _check_parameters(self) -> None:
        for name, value in {**self.parameters, "domain_length": self.domain_length}.items():
            axes = 2 if name == "domain_length" else 1
            if value.ndim > axes or (value.ndim == 2 and value.shape[1] != self.dimensions):
                wanted = f"(B,) or (B, {self.dimensions})" if axes == 2 else "(B,)"
                raise ShapeError(
                    f"{self._name}: {name} has shape {tuple(value.shape)}; "
                    f"give a number or one value per trajectory {wanted}."
                )
            value = value.detach()
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"{self._name}: {name} must be finite.")
            if name in (*self.positive, "domain_length") and not bool((value > 0).all()):
                raise DataError(f"{self._name}: {name} must be > 0, found {float(value.min())}.")
            if name in self.nonzero and bool((value == 0).any()):
                raise DataError(f"{self._name}: |{name}| must be > 0, found 0.")

    def _checked(self, initial: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the initial fields in the solver's precision and the times (B, T) in float64, or raise."""
        channels = len(self.state_names or self.field_names)
        wanted = (channels, *self.points)
        if tuple(initial.shape[1:]) != wanted or not len(initial):
            expected = ", ".join(map(str, wanted))
            raise ShapeError(
                f"{self._name}: initial field has shape {tuple(initial.shape)}, expected (B, {expected}), B >= 1."
            )
        b = initial.shape[0]
        for label, value in {**self.parameters, "domain_length": self.domain_length}.items():
            if value.ndim and len(value) not in (1, b):
                raise ShapeError(f"{self._name}: {label} has {len(value)} values for {b} initial fields.")
        if not bool(torch.isfinite(initial.detach()).all()):
            raise DataError(f"{self._name}: the initial field is not finite.")
        times = torch.as_tensor(times, dtype=torch.float64, device=initial.device)
        if times.ndim == 1:
            times = times.expand(b, -1)
        if times.ndim != 2 or times.shape[0] != b or not times.shape[1]:
            raise ShapeError(f"{self._name}: times have shape {tuple(times.shape)}, expected (T,) or ({b}, T).")
        if not bool((times[:, 0] >= 0).all() and (times.diff(dim=1) > 0).all() and torch.isfinite(times).all()):
            raise DataError(
                f"{self._name}: output times must start at or after 0, where the initial field is, and increase."
            )
        if self.check_resolution:
            self._refuse_unresolved(initial)
        return initial.to(self.precision), times

    def _refuse_unresolved(self, initial: Tensor) -> None:
        excess = (self._points_per_axis(initial) / initial.new_tensor(self.points, dtype=torch.float64)).amax(dim=1)
        worst = int(excess.argmax())
        if float(excess[worst]) > 1 + 1e-9:
            grid, enough = ("x".join(map(str, n)) for n in (self.points, self._enough_points(initial, worst)))
            raise ResolutionError(
                f"{self._name}: {grid} points do not resolve trajectory {worst} ({self._describe(initial, worst)}). "
                f"Use at least {enough} points, or smoother initial fields. "
                f"check_resolution=False runs it all the same."
            )

    def _points_per_axis(self, initial: Tensor) -> Tensor:
        """Return the points that resolve each trajectory along each axis, shape (B, d): fewer where it is shorter."""
        lengths = self.lengths(initial).detach()
        return self.points_needed(initial)[:, None] * lengths / lengths.amax(dim=1, keepdim=True)

    def _enough_points(self, initial: Tensor, row: int) -> tuple[int, ...]:
        """Return the grid to advise for a trajectory: one that is accepted when the field is given on it.

        An extreme that lies between the nodes of the coarse grid counts on the finer one, where it may lie on a node.
        """
        one = copy.copy(self)
        one.parameters = {n: self.parameter(n, initial)[row : row + 1] for n in self.parameters}
        one.domain_length = self.lengths(initial)[row : row + 1]
        field, enough = initial[row : row + 1].detach().to(torch.float64), (8,) * self.dimensions
        while True:
            needed = one._points_per_axis(field)[0].tolist()
            enough = tuple(max(m, 2 * math.ceil(n / 2 - 1e-9)) for m, n in zip(enough, needed, strict=True))
            if enough == one.points or math.prod(enough) > LARGEST_ADVISED or "wall" in (self.boundary or ()):
                return enough
            field, one.points = interpolate(field, enough), enough

    def _describe(self, initial: Tensor, row: int) -> str:
        values = [f"{n} {float(self.parameter(n, initial)[row].detach()):.4g}" for n in self.parameters]
        return ", ".join([*values, f"dx {float(self.spacing(initial)[row].max()):.4g}"])

    def _observed(self, observed: int | Sequence[int] | None, sampling: str) -> tuple[int, ...]:
        """Return the nodes of the returned grid per axis, or raise."""
        if sampling not in SAMPLINGS:
            raise ValueError(f"unknown sampling '{sampling}'. Known: {', '.join(SAMPLINGS)}.")
        nodes = self.points if observed is None else self._per_axis("observed", observed)
        for have, want in zip(self.points, nodes, strict=True):
            if want < 1 or have % want:
                raise ShapeError(
                    f"{want} observed points do not divide the {have} points of the solver; use a multiple of {want}."
                )
        return nodes

    # --------------------------------------------------------------------------- time and forcing

    def legs(self, initial: Tensor, times: Tensor) -> list[Leg]:
        """Divide the time from 0 to the last output into stretches of equal steps.

        Args:
            initial: fields at time 0 as given, shape (B, C, *X); the advisable step depends on them.
            times: output times, shape (B, T), float64, checked.

        Raises:
            DataError: the forcing jumps between different outputs in different trajectories of the batch.
        """
        jumps = self.forcing.switches if isinstance(self.forcing, TimeVarying) else None
        try:
            ends, observed = stretches(times, jumps)
        except DataError as error:
            raise DataError(f"{self._name}: {error}") from None
        edges = torch.cat([torch.zeros_like(ends[:, :1]), ends], dim=1)
        if self.substeps is not None:
            # Stretches before the first frame and between jumps get steps like those between frames.
            frames = torch.cat([times[:, :1], times.diff(dim=1)], dim=1)
            usual = frames[:, 1:].amax(dim=1, keepdim=True) if times.shape[1] > 1 else frames
            at = torch.tensor([sum(observed[:i]) for i in range(len(observed))], device=times.device)
            step = torch.minimum(frames, usual)[:, at] / self.substeps
        elif self.time_step is not None:
            step = torch.full_like(ends, self.time_step)
        else:
            step = self.step_needed(initial)[:, None]
        legs = divide(edges, step, observed)
        if self.check_resolution and math.isfinite(self.largest_courant):
            self._refuse_long_steps(initial, torch.stack([g.step for g in legs], dim=1), times)
        return legs

    def _refuse_long_steps(self, initial: Tensor, step: Tensor, times: Tensor) -> None:
        ratio = step.amax(dim=1) / self.step_needed(initial)
        worst = int(ratio.argmax())
        if float(ratio[worst]) > self.largest_courant:
            found = float(step[worst].max())
            advised = found / float(ratio[worst])
            frames = times[worst].diff() if times.shape[1] > 1 else times[worst]
            raise ResolutionError(
                f"{self._name}: steps of {found:.3g} are too long for trajectory {worst} "
                f"({self._describe(initial, worst)}). Use time_step={advised:.2g} (or "
                f"substeps={math.ceil(float(frames.max()) / advised)}), or leave both out. "
                f"check_resolution=False runs it all the same."
            )

    def source(self, leg: Leg, time: Tensor) -> Tensor | None:
        """Return the forcing at times (B,) within a leg, shape (B, C, *X), in the solver's precision; None without one.

        A forcing that is constant between its jumps is read in the middle of the leg, where the side is beyond doubt.

        Raises:
            ShapeError: the forcing returns another shape.
        """
        if self.forcing is None:
            return None
        held = isinstance(self.forcing, TimeVarying) and self.forcing.held
        values = self.forcing(leg.middle if held else time)
        b, channels, found = len(time), len(self.state_names or self.field_names), tuple(values.shape)
        if values.ndim == 1 + self.dimensions and channels == 1:
            values = values[:, None]
        if values.shape[0] not in (1, b) or tuple(values.shape[1:]) != (channels, *self.points):
            grid = ", ".join(map(str, self.points))
            raise ShapeError(
                f"{self._name}: the forcing has shape {found}, expected ({b}, {channels}, {grid})"
                f"{f' or ({b}, {grid})' if channels == 1 else ''}."
            )
        return values.to(self.precision).expand(b, *values.shape[1:])

    # --------------------------------------------------------------------------------- results

    def trajectories(self, fields: Tensor, times: Tensor, initial: Tensor) -> Trajectories:
        """Return fields (B, C, T, *X) at times (B, T) with the coordinates and parameters of this simulator."""
        lengths = self.lengths(initial).detach()
        boundary = self.boundary or ("periodic",) * self.dimensions
        space = []
        for axis, kind in enumerate(boundary):
            count = fields.shape[3 + axis]
            nodes = torch.arange(count, dtype=torch.float64, device=fields.device) + (0.5 if kind == "wall" else 0.0)
            space.append(lengths[:, axis : axis + 1] * (nodes / count))
        return Trajectories(
            fields=fields.to(self.dtype),
            time=times.contiguous(),
            space=tuple(space),
            lengths=lengths.contiguous(),
            parameters={n: self.parameter(n, initial).detach().contiguous() for n in self.parameters},
            field_names=self.field_names,
            axis_names=self.axis_names[: self.dimensions],
            boundary=boundary,
            equation=self.equation,
        )
