"""Codes by robust least squares: positions of the test function that the law does not describe count less."""

# B runs, K terms, E targets, R codes, N positions

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.operators.fit import Fitted
from pdessl.operators.weak import Projection, noise_level, noise_of_products, parts_of, weak_products
from pdessl.trajectory import Trajectories

__all__ = ["steadier", "steady_codes"]

_ROUNDS = 8
_WILD = 0.1  # of the runs, those whose halves differ most, say nothing
_MUCH = 0.95  # of the difference of halves: what is nearly the same is not worth another rule
_LEFT = 0.1  # of what a code multiplies, with its noise removed; below it the noise stays in


def steady_codes(
    law: Fitted, runs: Trajectories, projection: Projection, remove: bool, rounds: int = _ROUNDS
) -> tuple[Tensor, Tensor]:
    """Return codes of runs, (B, R), and of their two halves in time, (B, 2, R), that few wild positions do not lead.

        z = argmin Σ_e Σ_n w_en ρ_en²,      w = 1/(1 + ρ²/⟨ρ²⟩),      ρ = (∫∫ φ_n (u_t - law under z))_e / size_e

    w follows from ρ and ρ from z, in turn, from equal weights on. Where that comes to rest the likelihood of errors
    with heavy tails (Cauchy's, of the scale ⟨ρ²⟩) is stationary. Of errors with normal tails nothing is gained, and a
    little lost; where a law misses something at few places (a filament thinner than the grid, a front) these no longer
    decide.

    Args:
        law: with R >= 1 codes.
        runs: B runs.
        projection: how they are read.
        remove: subtract what white noise is expected to add.
        rounds: of reweighting; 0: plain least squares.
    """
    codes, halves = [], []
    for part in parts_of(runs, projection):
        read = projection.read(part)
        products = weak_products(read, projection)
        noise = noise_of_products(read, projection, noise_level(part)) if remove and not projection.advected else None
        cut = max(1, products.shape[2] // 2)
        whole, first, second = (
            _codes(law, products[:, :, piece].flatten(2), noise, rounds)
            for piece in (slice(None), slice(None, cut), slice(cut, None))
        )
        codes.append(whole)
        halves.append(torch.stack([first, second], dim=1))
    return torch.cat(codes), torch.cat(halves)


def steadier(law: Fitted, runs: Trajectories, projection: Projection, remove: bool) -> bool:
    """Return whether halves of runs agree better, relative to their codes, where wild positions count less.

    Args:
        law: whose codes are coefficients, so that they have a size (:func:`pdessl.operators.fit.gauged`).
        runs: see :func:`steady_codes`.
        projection: see there.
        remove: see there.
    """
    apart = []
    for rounds in (0, _ROUNDS):
        _, halves = steady_codes(law, runs, projection, remove, rounds)
        first, second = halves.unbind(dim=1)
        relative = (2 * (first - second).abs() / (first.abs() + second.abs()).clamp_min(1e-300)).sort(dim=0).values
        apart.append(float(relative[: max(1, round((1 - _WILD) * len(relative)))].mean()))
    return apart[1] < _MUCH * apart[0]


def _codes(law: Fitted, products: Tensor, noise: Tensor | None, rounds: int) -> Tensor:
    """Return the codes (B, R) of products (B, K + E, N)."""
    values = torch.cat([-law.constant[None], law.varying])  # what is left of a target, and what codes multiply
    targets, terms = values.shape[1:]
    own = torch.zeros(len(values), targets, targets, dtype=values.dtype, device=values.device)
    own[0] = torch.eye(targets, dtype=values.dtype, device=values.device)
    values = torch.cat([values, own], dim=2)  # (1 + R, E, K + E)
    size = products[:, terms:].square().mean(dim=2).clamp_min(1e-300).sqrt()  # (B, E)
    made = torch.einsum("rek,bkn->bren", values, products) / size[:, None, :, None]
    rest, slopes = made[:, 0], made[:, 1:]
    added = made.new_zeros(len(made), len(values), len(values))
    if noise is not None:
        added = torch.einsum("rek,bkl,sel,be->brs", values, noise, values, 1 / size.square())
    weights = torch.ones_like(rest)
    for _ in range(rounds + 1):
        shares = weights / weights.sum(dim=2, keepdim=True)
        left = torch.einsum("bren,bsen,ben->brs", slopes, slopes, shares)
        right = torch.einsum("bren,ben,ben->br", slopes, rest, shares)
        clean = left - added[:, 1:, 1:]
        removed = torch.linalg.eigvalsh(clean)[:, :1] > _LEFT * torch.linalg.eigvalsh(left)[:, :1]
        left = torch.where(removed[:, :, None], clean, left)
        right = torch.where(removed, right - added[:, 1:, 0], right)
        ridge = 1e-10 * left.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-300)
        eye = torch.eye(left.shape[1], dtype=left.dtype, device=left.device)
        codes = torch.linalg.solve(left + ridge[:, None, None] * eye, right[:, :, None])[:, :, 0]
        errors = (rest - torch.einsum("br,bren->ben", codes, slopes)).square()
        weights = 1 / (1 + errors / errors.mean(dim=2, keepdim=True).clamp_min(1e-300))
    return codes
