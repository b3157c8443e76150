"""What every simulator offers: initial fields and output times in, trajectories out."""

# B batch, C channels, T output times, X space, K kept Fourier modes

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdessl.errors import DataError, ResolutionError, ShapeError
from pdessl.solvers.pseudo_spectral import integrate, kept_modes, sample, spectral_tail, to_modes, wave_numbers
from pdessl.trajectory import Trajectories

__all__ = ["PeriodicSimulator", "Simulator", "Solution"]


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


class Simulator(ABC):
    """Interface of a batched simulator of one equation; parameters and domain lengths may differ per trajectory.

    A simulator is built with its physical parameters and called with initial fields and output times::

        Burgers(viscosity=0.05, points=256)(initial, times)  ->  Trajectories

    Class attributes ``equation`` (name in the catalog), ``field_names`` and ``parameter_names`` say what it simulates.
    """

    equation: ClassVar[str]
    field_names: ClassVar[tuple[str, ...]] = ("u",)
    parameter_names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def solve(self, initial: Tensor, times: Tensor, observed: int | None = None, sampling: str = "points") -> Solution:
        """Integrate and observe; see :meth:`__call__` for the shapes.

        Args:
            initial: fields at time 0, shape (B, C, *X).
            times: output times, shape (T,) or (B, T), increasing, the first >= 0.
            observed: nodes per axis of the returned fields, a divisor of the solver's grid; default the solver's grid.
            sampling: ``points``, ``cell_average`` or ``spectral``, see :func:`pdessl.solvers.pseudo_spectral.sample`.
        """

    @abstractmethod
    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the grid points per axis that resolve each trajectory from these initial fields, shape (B,),
        float64.
        """

    @abstractmethod
    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return the largest advisable inner step of each trajectory on this simulator's grid, shape (B,), time."""

    def __call__(self, initial: Tensor, times: Tensor) -> Trajectories:
        """Integrate from fields (B, C, *X) at time 0 and return trajectories (B, C, T, *X) at the output times."""
        return self.solve(initial, times).trajectories


class PeriodicSimulator(Simulator):
    """Semi-linear equation for one field on a periodic interval, u_t = L u - ∂x flux(u) + forcing.

    An equation supplies the symbol of L, its flux and how fine a grid it needs; stepping (ETDRK4, 2/3 dealiasing),
    batching, output and checks are done here.

    Args:
        parameters: each physical parameter as a number or a tensor of shape (B,).
        domain_length: L, > 0, length; a number or shape (B,).
        points: grid points X, even, >= 8.
        time_step: largest inner step, time, a number or None: chosen per batch by :meth:`step_needed`. Each output
            interval is split into equal steps no longer than it. Integer ``substeps`` overrules both.
        substeps: steps per output interval, or None.
        check_resolution: refuse initial fields whose solution the grid cannot resolve.
        forcing: source term: a function of times (B,) that returns fields (B, X), or None.
        dtype: dtype of the returned fields. The arithmetic inside is float64 always.
    """

    def __init__(
        self,
        parameters: Mapping[str, float | Tensor],
        domain_length: float | Tensor,
        points: int,
        time_step: float | None,
        substeps: int | None,
        check_resolution: bool,
        forcing: Callable[[Tensor], Tensor] | None,
        dtype: torch.dtype,
    ) -> None:
        if points < 8 or points % 2:
            raise ResolutionError(f"{type(self).__name__}: points must be even and at least 8, found {points}.")
        if time_step is not None and not (math.isfinite(time_step) and time_step > 0):
            raise ResolutionError(f"{type(self).__name__}: time_step must be positive, found {time_step}.")
        if substeps is not None and substeps < 1:
            raise ResolutionError(f"{type(self).__name__}: substeps must be at least 1, found {substeps}.")
        self.parameters = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in parameters.items()}
        self.domain_length = torch.as_tensor(domain_length, dtype=torch.float64)
        for name, value in {**self.parameters, "domain_length": self.domain_length}.items():
            if value.ndim > 1:
                raise ShapeError(
                    f"{type(self).__name__}: {name} has shape {tuple(value.shape)}; "
                    "give a number or one value per trajectory (B,)."
                )
            if not bool(torch.isfinite(value.detach()).all()):
                raise DataError(f"{type(self).__name__}: {name} must be finite.")
        self._require_positive("domain_length", self.domain_length)
        self.points = points
        self.time_step = time_step
        self.substeps = substeps
        self.check_resolution = check_resolution
        self.forcing = forcing
        self.dtype = dtype

    def _require_positive(self, name: str, value: Tensor) -> None:
        if not bool((value.detach() > 0).all()):
            raise DataError(f"{type(self).__name__}: {name} must be > 0, found {float(value.detach().min())}.")

    # ------------------------------------------------------------- what an equation supplies

    @abstractmethod
    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the symbol of L for wave numbers (B, K) and parameters (B, 1), complex or real."""

    def flux(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Return the flux of fields (B, X) with parameters (B, 1); None when the equation is linear."""
        return None

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant * dx / max|u|: the nonlinear term limits the step, the linear one is solved exactly."""
        length = self._per_trajectory(self.domain_length, initial)
        largest = initial.detach().abs().amax(dim=(1, 2)).to(torch.float64)
        return courant * length / self.points / largest.clamp_min(1e-12)

    # ------------------------------------------------------------------------------ solving

    @staticmethod
    def _per_trajectory(value: Tensor, initial: Tensor) -> Tensor:
        return value.to(initial.device).expand(initial.shape[0])

    def _check_initial(self, initial: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        if initial.ndim != 3 or initial.shape[1] != 1 or initial.shape[2] != self.points or not len(initial):
            raise ShapeError(
                f"{name}: initial field has shape {tuple(initial.shape)}, expected (B, 1, {self.points}), B >= 1."
            )
        b = initial.shape[0]
        for label, value in {**self.parameters, "domain_length": self.domain_length}.items():
            if value.ndim == 1 and len(value) not in (1, b):
                raise ShapeError(f"{name}: {label} has {len(value)} values for {b} initial fields.")
        if not bool(torch.isfinite(initial.detach()).all()):
            raise DataError(f"{name}: the initial field is not finite.")
        times = torch.as_tensor(times, dtype=torch.float64, device=initial.device)
        if times.ndim == 1:
            times = times.expand(b, -1)
        if times.ndim != 2 or times.shape[0] != b or not times.shape[1]:
            raise ShapeError(f"{name}: times have shape {tuple(times.shape)}, expected (T,) or ({b}, T).")
        if bool((times[:, 0] < 0).any()) or bool((times.diff(dim=1) <= 0).any()):
            raise DataError(f"{name}: output times must start at or after 0, where the initial field is, and increase.")
        return initial.to(torch.float64), times

    def _steps_per_interval(self, initial: Tensor, times: Tensor) -> list[int]:
        intervals = torch.cat([times[:, :1], times.diff(dim=1)], dim=1)
        if self.substeps is not None:
            # The stretch before the first frame gets steps like those between frames.
            usual = intervals[:, 1:].amax(dim=1, keepdim=True) if times.shape[1] > 1 else intervals
            count = self.substeps * (intervals / usual).clamp_min(1.0)
        else:
            step = self.step_needed(initial) if self.time_step is None else torch.full_like(times[:, 0], self.time_step)
            count = intervals / step[:, None]
        return [max(1, math.ceil(float(c) - 1e-6)) for c in count.amax(dim=0)]

    def _refuse_unresolved(self, initial: Tensor) -> None:
        needed = self.points_needed(initial)
        worst = int(needed.argmax())
        if float(needed[worst]) > self.points * (1 + 1e-9):
            raise ResolutionError(
                f"{type(self).__name__}: {self.points} points do not resolve trajectory {worst} "
                f"({self._describe(initial, worst)}). "
                f"Use at least {2 * math.ceil(float(needed[worst]) / 2)} points, or smoother initial fields. "
                f"check_resolution=False runs it all the same."
            )

    def _describe(self, initial: Tensor, row: int) -> str:
        values = [
            f"{n} {float(self._per_trajectory(v, initial)[row].detach()):.4g}" for n, v in self.parameters.items()
        ]
        return ", ".join(
            [*values, f"dx {float(self._per_trajectory(self.domain_length, initial)[row]) / self.points:.4g}"]
        )

    def solve(self, initial: Tensor, times: Tensor, observed: int | None = None, sampling: str = "points") -> Solution:
        """Integrate and observe.

        Args:
            initial: field at time 0 on the solver's grid, shape (B, 1, X); modes above X/3 are removed.
            times: output times, shape (T,) or (B, T), increasing, the first >= 0.
            observed: nodes of the returned fields, a divisor of ``points``; default ``points``.
            sampling: see :func:`pdessl.solvers.pseudo_spectral.sample`.

        Raises:
            ResolutionError: the grid cannot resolve the solution; the message gives one that can.
            ShapeError: shapes that do not fit.
            DataError: values that are not finite, or times that do not increase.
        """
        initial, times = self._check_initial(initial, times)
        if self.check_resolution:
            self._refuse_unresolved(initial)
        columns = {n: self._per_trajectory(v, initial)[:, None] for n, v in self.parameters.items()}
        length = self._per_trajectory(self.domain_length, initial)
        k = wave_numbers(length, kept_modes(self.points))
        linear = self.linear(k, columns).to(torch.complex128)
        is_linear = self.flux(initial[:1, 0], {n: c[:1] for n, c in columns.items()}) is None
        spectrum = integrate(
            to_modes(initial[:, 0]),
            linear,
            times,
            self._steps_per_interval(initial, times),
            self.points,
            None if is_linear else lambda u: self.flux(u, columns),
            length,
            self.forcing,
        )
        fields = sample(spectrum, self.points, observed, sampling)
        nodes = torch.arange(fields.shape[-1], dtype=torch.float64, device=initial.device) / fields.shape[-1]
        trajectories = Trajectories(
            fields=fields[:, None].to(self.dtype),
            time=times.contiguous(),
            space=(length[:, None].detach() * nodes,),
            lengths=length[:, None].detach().contiguous(),
            parameters={n: c[:, 0].detach().contiguous() for n, c in columns.items()},
            field_names=self.field_names,
            axis_names=("x",),
            boundary=("periodic",),
            equation=self.equation,
        )
        return Solution(trajectories, spectral_tail(spectrum))
