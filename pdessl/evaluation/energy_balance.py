"""The energy balance of runs: how fast fluctuations decay, over how rough they are."""

# B runs, C channels, T frames, X space (one axis per dimension)

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.trajectory import Trajectories

__all__ = ["balance_names", "energy_balance"]

TOTAL = "balance"
# Central differences of tenth order: f'(x_j) = sum of c_k (f_(j+k) - f_(j-k)) / dx.
_CENTRAL = (5 / 6, -5 / 21, 5 / 84, -5 / 504, 1 / 1260)
_ENDS = (3 / 8, 7 / 6, 23 / 24)  # Gregory's weights: integrals to third order in the time step from six frames on


def balance_names(runs: Trajectories) -> tuple[str, ...]:
    """Return what the columns of :func:`energy_balance` are called."""
    each = tuple(f"{TOTAL} of {name}" for name in runs.field_names)
    return (TOTAL, *each) if len(each) > 1 else each


def energy_balance(runs: Trajectories) -> Tensor:
    """Decay of the energy of fluctuations over the dissipation that unit diffusivity would cause.

        r = (E(0) - E(T)) / ∫ D dt,      E = ½ <|f - <f>|²>,   D = <|∇f|²>,   <.> the mean over space

    Where f_t = (terms that neither make nor destroy energy) + ν ∇²f, between walls without flux or on a periodic axis,
    r = ν: for the velocity of Navier-Stokes and Burgers, for the vorticity in the plane, for heat and advected
    substances. Elsewhere r is a number that tells how dissipative a run is, from which a parameter may be read with
    labels.

    Args:
        runs: T >= 2, at least three nodes along every axis, equal time steps.

    Returns:
        (B, 1 + C): of all fields together, then of each; (B, 1) of a single field. float64, in length²/time.

    Raises:
        ShapeError: too few frames or nodes.
    """
    fields = runs.fields.to(torch.float64)
    if fields.shape[2] < 2 or min(fields.shape[3:]) < 3:
        raise ShapeError(
            f"fields {tuple(fields.shape)}: expected two frames and three nodes along every axis, or more."
        )
    axes = tuple(range(3, fields.ndim))
    energy = fields.sub(fields.mean(dim=axes, keepdim=True)).square().mean(dim=axes) / 2  # (B, C, T)
    rough = torch.zeros_like(energy)
    spacing = runs.grid_spacing.to(fields)
    for axis, kind in enumerate(runs.boundary):
        step = spacing[:, axis].reshape(-1, *[1] * (fields.ndim - 1))
        rough += (_slope(fields, 3 + axis, kind == "periodic") / step).square().mean(dim=axes)
    time = runs.time.to(fields)
    step = (time[:, -1] - time[:, 0]) / (time.shape[1] - 1)
    spent = (rough * _weights(time.shape[1]).to(fields)).sum(dim=2) * step[:, None]
    lost = energy[:, :, 0] - energy[:, :, -1]
    tiny = torch.finfo(torch.float64).tiny
    each = lost / spent.clamp_min(tiny)
    if each.shape[1] == 1:
        return each
    return torch.cat([(lost.sum(dim=1) / spent.sum(dim=1).clamp_min(tiny))[:, None], each], dim=1)


def _weights(frames: int) -> Tensor:
    """Return the weights of an integral over equal steps, (T,)."""
    weights = torch.ones(frames, dtype=torch.float64)
    if frames < 2 * len(_ENDS):
        weights[0] = weights[-1] = 0.5
        return weights
    ends = torch.tensor(_ENDS, dtype=torch.float64)
    weights[: len(_ENDS)], weights[-len(_ENDS) :] = ends, ends.flip(0)
    return weights


def _slope(fields: Tensor, axis: int, periodic: bool) -> Tensor:
    """Return the derivative along an axis of unit spacing: by FFT where it is periodic, else by differences."""
    size = fields.shape[axis]
    if periodic:
        wave = 2j * torch.pi * torch.fft.rfftfreq(size, dtype=torch.float64, device=fields.device)
        if size % 2 == 0:
            wave[-1] = 0
        spectrum = torch.fft.rfft(fields.movedim(axis, -1)) * wave
        return torch.fft.irfft(spectrum, n=size).movedim(-1, axis)
    slope = torch.gradient(fields, dim=axis, edge_order=2)[0]
    reach = min(len(_CENTRAL), (size - 1) // 2)
    if reach == len(_CENTRAL):
        values = fields.movedim(axis, -1)
        inner = size - 2 * reach
        found = sum(
            c * (values[..., reach + k : reach + k + inner] - values[..., reach - k : reach - k + inner])
            for k, c in enumerate(_CENTRAL, 1)
        )
        slope.movedim(axis, -1)[..., reach:-reach] = found
    return slope
