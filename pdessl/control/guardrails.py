"""Guardrails: limits that every imagined period must keep, never traded against the task; margins to trust them by."""

# B batch, N candidates, H control periods, A actuators, X grid points, G guardrails, n calibration episodes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.schema import Finite, Positive, Range

__all__ = [
    "AmplitudeLimit",
    "DissipationLimit",
    "EnergyLimit",
    "Guardrail",
    "Margins",
    "RegionLimit",
    "calibrate",
    "check_axes",
    "excess",
    "overrun",
]


class Guardrail(Protocol):
    """A quantity of the field after each control period, and the limit it must not pass."""

    @property
    def limit(self) -> float:
        """The limit, in the unit of the quantity."""
        ...

    def value(self, field: Tensor) -> Tensor:
        """Return the quantity (...) of fields (..., X); differentiable."""
        ...


@dataclass(frozen=True)
class EnergyLimit:
    """The mean of u² stays at or below a limit, > 0, unit of the field squared."""

    limit: Positive

    def value(self, field: Tensor) -> Tensor:
        """Return the mean of u², (...)."""
        return field.square().mean(dim=-1)


@dataclass(frozen=True)
class AmplitudeLimit:
    """The largest |u| on the grid stays at or below a limit, > 0, unit of the field."""

    limit: Positive

    def value(self, field: Tensor) -> Tensor:
        """Return the largest |u|, (...)."""
        return field.abs().amax(dim=-1)


@dataclass(frozen=True)
class RegionLimit:
    """The mean of u over a part of the domain stays at or below a limit.

    Args:
        limit: unit of the field.
        region: first and last share of the domain's length, 0 <= first < last <= 1; grid nodes in it count.
    """

    limit: Finite
    region: Annotated[tuple[float, float], Range(0, 1)] = (0.0, 1.0)

    def value(self, field: Tensor) -> Tensor:
        """Return the mean over the region, (...).

        Raises:
            DataError: no node of the grid lies in it.
        """
        points = field.shape[-1]
        first, last = (math.ceil(share * points - 1e-9) for share in self.region)
        if not first < last:
            raise DataError(
                f"RegionLimit: no node of {points} lies in {self.region}; expected first < last, in shares."
            )
        return field[..., first:last].mean(dim=-1)


@dataclass(frozen=True)
class DissipationLimit:
    """The dissipation of a flow on a periodic plane, ν <|∇u|²> = ν <w²>, stays at or below a limit.

    Args:
        limit: > 0, length²/time³.
        viscosity: ν, > 0, length²/time.
        lengths: (L_x, L_y) of the domain, > 0, length.
    """

    limit: Positive
    viscosity: Positive
    lengths: tuple[Positive, Positive]

    def value(self, field: Tensor) -> Tensor:
        """Return the dissipation, (...), of velocities (..., 2, X, Y).

        Raises:
            ShapeError: fields that are no velocities on a plane.
        """
        if field.ndim < 3 or field.shape[-3] != 2:
            raise ShapeError(f"DissipationLimit: fields {tuple(field.shape)}; expected velocities (..., 2, X, Y).")
        nx, ny = field.shape[-2:]
        modes = torch.fft.fft(torch.fft.rfft(field, norm="forward"), dim=-2, norm="forward")
        kx = 2 * math.pi / self.lengths[0] * nx * torch.fft.fftfreq(nx, dtype=field.dtype, device=field.device)
        ky = 2 * math.pi / self.lengths[1] * ny * torch.fft.rfftfreq(ny, dtype=field.dtype, device=field.device)
        twice = torch.full_like(ky, 2.0)
        twice[0] = 1.0
        if ny % 2 == 0:
            twice[-1] = 1.0
        vorticity = 1j * kx[:, None] * modes[..., 1, :, :] - 1j * ky * modes[..., 0, :, :]
        power = vorticity.real.square() + vorticity.imag.square()
        return self.viscosity * (twice * power).sum(dim=(-2, -1))


def check_axes(guardrails: Sequence[Guardrail], axes: int) -> None:
    """Refuse limits of fields on an interval for a plane, where they would take an axis for another.

    Raises:
        DataError: such a limit, and more than one axis.
    """
    wrong = [rail for rail in guardrails if isinstance(rail, (AmplitudeLimit, EnergyLimit, RegionLimit))]
    if wrong and axes > 1:
        raise DataError(
            f"{type(wrong[0]).__name__} is a limit of a field on an interval. On a plane there is DissipationLimit, or "
            "limits.dissipation in the environment's file (--set limits.dissipation=0.3)."
        )


@dataclass(frozen=True, eq=False)
class Margins:
    """What is added to an imagined quantity so that the real one stays below with a stated frequency.

    Args:
        values: for k = 1 ... H periods ahead, (H, G), in the units of the guardrails; infinite where it is not known.
        level: the frequency with which no quantity passes its imagined value plus the margin anywhere on the horizon.
    """

    values: Tensor
    level: float

    def at(self, horizon: int) -> Tensor:
        """Return the margins of the first periods, (horizon, G).

        Raises:
            ShapeError: they were calibrated for a shorter horizon.
        """
        if horizon > len(self.values):
            raise ShapeError(f"margins were calibrated for {len(self.values)} periods, not {horizon}; calibrate again.")
        return self.values[:horizon]


def calibrate(imagined: Tensor, real: Tensor, level: float) -> Margins:
    """Return margins from episodes that were imagined and then run.

        r_i = max_{k,g} (real_ikg - imagined_ikg)/σ_kg,   margin_kg = Q σ_kg,   Q the ⌈(n + 1) level⌉-th smallest r_i

    σ_kg is the root mean square of the difference over the episodes of the first half, r_i is taken over the others:
    exchangeable with a new episode given σ, so that its whole horizon stays below with probability at least ``level``.

    Args:
        imagined: quantities along imagined plans, one window per episode, (2n, H, G).
        real: the same after the plans were run, (2n, H, G).
        level: in (0, 1).

    Raises:
        ShapeError: shapes that do not fit, or fewer than 4 episodes.
        DataError: a level outside (0, 1).

    Source: Vovk, Gammerman, Shafer (2005); a bound for all steps at once by the maximum: Cleaveland et al. (2024),
        arXiv:2304.01075.
    """
    if not 0 < level < 1:
        raise DataError(f"level {level}: the frequency promised lies between 0 and 1, e.g. 0.9.")
    if imagined.shape != real.shape or imagined.ndim != 3 or len(imagined) < 4:
        raise ShapeError(
            f"calibrate got imagined {tuple(imagined.shape)} and real {tuple(real.shape)}; expected both (n, H, G), "
            "n >= 4."
        )
    error = real - imagined
    half = len(error) // 2
    scale = error[:half].square().mean(dim=0).sqrt().clamp_min(1e-12)
    scores = (error[half:] / scale).amax(dim=(1, 2)).sort().values
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    if rank > len(scores):
        return Margins(torch.full_like(scale, math.inf), level)
    return Margins(scores[rank - 1].clamp_min(0.0) * scale, level)


def overrun(guardrails: Sequence[Guardrail], fields: Tensor, margins: Margins | None = None) -> Tensor:
    """Return how far fields (..., H, *X) are above the limits, in limits, (..., H, G); negative where there is room."""
    over = []
    for g, rail in enumerate(guardrails):
        value = rail.value(fields)
        if margins is not None:
            value = value + margins.at(value.shape[-1])[:, g].to(value)
        over.append((value - rail.limit) / max(abs(rail.limit), 1e-12))
    found = torch.stack(over, dim=-1)
    return torch.where(found.isnan(), torch.full_like(found, math.inf), found)


def excess(guardrails: Sequence[Guardrail], fields: Tensor, margins: Margins | None = None) -> Tensor:
    """Return by how much fields (..., H, *X) pass the limits, in limits, (..., H, G), >= 0; infinite for nan."""
    return overrun(guardrails, fields, margins).clamp_min(0.0)
