"""More nodes along periodic axes, by Fourier interpolation, for fields whose products would alias otherwise."""

# B runs, C fields, T frames, X nodes (d space axes)

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.trajectory import Trajectories

__all__ = ["interpolation", "periodic_axes", "refined"]


def periodic_axes(runs: Trajectories) -> list[int]:
    """Return the numbers of the space axes that wrap round."""
    return [axis for axis, kind in enumerate(runs.boundary) if kind == "periodic"]


def refined(runs: Trajectories, times: int) -> Trajectories:
    """Return runs on so many times as many nodes along every periodic axis, float64.

    Between its nodes a field is the sum of the waves that n nodes tell apart (the wave of two nodes, whose phase they
    do not tell, as a cosine). Its values at the nodes stay. The square of a wave of four nodes has two, and the square
    of one of three is taken for a longer wave: with twice the nodes no product of two such fields is aliased. What the
    nodes took for longer waves when the runs were observed, as of fronts that are thinner, stays wrong.

    Args:
        runs: equally spaced along periodic axes.
        times: >= 1.
    """
    fields, space = runs.fields.double(), list(runs.space)
    for axis in periodic_axes(runs):
        n, start = fields.shape[3 + axis], space[axis].double()[:, :1]
        fields = _interpolated(fields, 3 + axis, times)
        step = runs.lengths.double()[:, axis : axis + 1] / (n * times)
        space[axis] = start + step * torch.arange(n * times, dtype=torch.float64, device=fields.device)
    return runs.replace(fields=fields, space=tuple(space))


def interpolation(count: int, times: int) -> Tensor:
    """Return the matrix (times count, count), float64, that makes the nodes of a periodic axis of so many."""
    return _interpolated(torch.eye(count, dtype=torch.float64), 0, times)


def _interpolated(values: Tensor, dim: int, times: int) -> Tensor:
    n = values.shape[dim]
    waves = torch.fft.rfft(values, dim=dim)
    if n % 2 == 0:  # one of a pair of waves of opposite sign, which fall together here and are two on more nodes
        waves.select(dim, n // 2).mul_(0.5)
    return times * torch.fft.irfft(waves, n=n * times, dim=dim)
