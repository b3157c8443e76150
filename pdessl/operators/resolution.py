"""How finely frames and nodes resolve runs: nodes in a wave, and below how many a law is not to be trusted."""

# B runs, C fields, T frames, X nodes (d space axes)

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.operators.weak import noise_level
from pdessl.trajectory import Trajectories

__all__ = ["FEWEST", "nodes_in_a_wave"]

FEWEST = 6.0  # nodes in a wave; codes of runs with fewer are off by several percent although their halves agree


def nodes_in_a_wave(runs: Trajectories) -> Tensor:
    """Return how many frames and nodes a wave has that is as rough as the field, (B, 1 + d), the field with fewest.

        n = 2π / κ,     (2 - 2 cos κ)² = ⟨(second difference)²⟩ / ⟨(field)²⟩

    as it is for a wave of n nodes, with the mean along the axis and the noise taken out of both. At least 2.

    Args:
        runs: of at least 5 frames and nodes; axes with fewer than 3 count as resolved (10,000).
    """
    fields, sigma = runs.fields.double(), noise_level(runs)
    found = []
    for dim in range(2, fields.ndim):
        if fields.shape[dim] < 3:
            found.append(torch.full((len(runs),), 1e4, dtype=torch.float64, device=fields.device))
            continue
        centred = fields - fields.mean(dim=dim, keepdim=True)
        bent = fields.diff(n=2, dim=dim).flatten(2).square().mean(dim=2) - 6 * sigma.square()
        size = centred.flatten(2).square().mean(dim=2) - sigma.square()
        # Where nothing but noise is left there is no wave to resolve.
        rough = torch.where(size > sigma.square(), bent / size.clamp_min(1e-300), 0.0).clamp(1e-12, 16.0)
        found.append((2 * torch.pi / (1 - rough.sqrt() / 2).arccos()).amin(dim=1))
    return torch.stack(found, dim=1)
