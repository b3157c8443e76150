"""The fit of a latent operator: one law for all runs, with R numbers a run, by alternating least squares."""

# B runs, K terms, C targets, R codes, D = (R + 1)·K·C coefficients

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pdessl.errors import DataError

__all__ = [
    "Fitted",
    "Normal",
    "Normals",
    "alternate",
    "coefficients",
    "encode",
    "fit",
    "gauged",
    "loss",
    "moments",
    "reliability",
]

_CLIP = 1e-4  # of the largest eigenvalue: a Gram with its noise removed is indefinite without it, and useless
_ROUND = 1e-12  # likewise where none is removed: terms of clean runs are nearly dependent, and all their digits count
_RIDGE = 1e-10
_CLAMP = 4.0  # standardised codes of runs that the law does not describe would lead the fit


class Normals(Protocol):
    """Normal equations of runs, in one part or in many of which one is in memory at a time."""

    def __len__(self) -> int:
        """Return the number of runs."""

    def parts(self) -> Iterator[Normal]:
        """Return the equations of the runs, part by part, in order."""


@dataclass(frozen=True)
class Normal:
    """Normal equations of every run, by target, relative to the size of the target.

    Args:
        gram: products of the terms, (B, C, K, K), float64.
        right: products of terms and target, (B, C, K).
    """

    gram: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.right)

    def parts(self) -> Iterator[Normal]:
        """Return these equations, which are one part."""
        yield self

    @staticmethod
    def join(parts: Sequence[Normal]) -> Normal:
        """Return the equations of all parts, in order."""
        return (
            parts[0]
            if len(parts) == 1
            else Normal(*(torch.cat([getattr(p, n) for p in parts]) for n in ("gram", "right")))
        )

    @staticmethod
    def of(halves: Tensor, noise: Tensor, terms: int) -> Normal:
        """Remove the noise from Grams (B, K + C, K + C), clip, and divide by the size of each target."""
        gram = halves - noise
        diagonal = halves.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).sqrt()
        unit = gram / diagonal[..., :, None] / diagonal[..., None, :]
        values, vectors = torch.linalg.eigh(unit)
        removed = noise.flatten(1).any(dim=1)
        clip = torch.where(removed, _CLIP, _ROUND).to(values)[:, None]
        values = torch.maximum(values, clip * values[..., -1:].clamp_min(1e-300))
        unit = (vectors * values[..., None, :]) @ vectors.mT
        gram = unit * diagonal[..., :, None] * diagonal[..., None, :]
        library, right = gram[..., :terms, :terms], gram[..., :terms, terms:]
        size = gram[..., terms:, terms:].diagonal(dim1=-2, dim2=-1)  # (B, C)
        return Normal(library[:, None] / size[:, :, None, None], right.mT / size[:, :, None])

    def losses(self, law: Tensor) -> Tensor:
        """Return the share of each target of each run that coefficients (B, C, K) leave unexplained, (B, C)."""
        explained = 2 * torch.einsum("bck,bck->bc", law, self.right)
        explained = explained - torch.einsum("bck,bckl,bcl->bc", law, self.gram, law)
        return 1 - explained

    def loss(self, law: Tensor) -> Tensor:
        """Return the mean of these shares over targets, (B,)."""
        return self.losses(law).mean(dim=1)


@dataclass(frozen=True)
class Fitted:
    """A law: coefficients c0 + z·C of every term, per target.

    Args:
        constant: c0, (C, K), float64.
        varying: C, (R, C, K).
        kept: which coefficients may differ from 0, (R + 1, C, K), c0 first.
        pivots: coefficients (target, term) that *are* the codes, R of them; empty: codes have mean 0 and deviation 1.
    """

    constant: Tensor
    varying: Tensor
    kept: Tensor
    pivots: tuple[tuple[int, int], ...] = ()

    @property
    def rank(self) -> int:
        """R."""
        return len(self.varying)

    def law(self, codes: Tensor) -> Tensor:
        """Return the coefficients (B, C, K) of runs with codes (B, R)."""
        return self.constant + torch.einsum("br,rck->bck", codes, self.varying)


def loss(fitted: Fitted, codes: Tensor, normal: Normals) -> Tensor:
    """Return the share that a law with codes (B, R) leaves unexplained of each run, the mean over targets, (B,)."""
    found, start = [], 0
    for part in normal.parts():
        found.append(part.loss(fitted.law(codes[start : start + len(part)])))
        start += len(part)
    return torch.cat(found)


def encode(fitted: Fitted, normal: Normals) -> Tensor:
    """Return the codes (B, R) with the smallest loss: an R by R solve per run."""
    return torch.cat([_encode(fitted, part) for part in normal.parts()])


def _encode(fitted: Fitted, normal: Normal) -> Tensor:
    if not fitted.rank:
        return normal.right.new_zeros(len(normal.right), 0)
    rest = normal.right - torch.einsum("bckl,cl->bck", normal.gram, fitted.constant)
    left = torch.einsum("rck,bckl,scl->brs", fitted.varying, normal.gram, fitted.varying)
    right = torch.einsum("rck,bck->br", fitted.varying, rest)
    ridge = 1e-10 * left.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-300)
    eye = torch.eye(fitted.rank, dtype=left.dtype, device=left.device)
    return torch.linalg.solve(left + ridge[:, None, None] * eye, right[:, :, None])[:, :, 0]


def moments(codes: Tensor, normal: Normals, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the normal equations of (c0, C) with the codes held: sums over runs, which add up over parts.

    Args:
        codes: (B, R).
        normal: of the runs.
        weights: how often each run counts, (B,); None: once.

    Returns:
        per target the matrix (E, (R + 1)·K, (R + 1)·K) and the right side (E, R + 1, K).
    """
    ones = torch.cat([codes.new_ones(len(codes), 1), codes], dim=1)  # (B, R + 1)
    counted = ones if weights is None else ones * weights[:, None]
    left: list[Tensor] = []
    right: list[Tensor] = []
    start = 0
    for part in normal.parts():
        own, times = (values[start : start + len(part)] for values in (ones, counted))
        size = own.shape[1] * part.right.shape[2]
        for c in range(part.right.shape[1]):
            square = torch.einsum("bi,bj,bkl->ikjl", times, own, part.gram[:, c]).reshape(size, -1)
            side = torch.einsum("bi,bk->ik", times, part.right[:, c])
            if start:
                left[c], right[c] = left[c] + square, right[c] + side
            else:
                left.append(square)
                right.append(side)
        start += len(part)
    return torch.stack(left), torch.stack(right)


def coefficients(
    codes: Tensor,
    normal: Normals,
    kept: Tensor,
    pivots: tuple[tuple[int, int], ...],
    weights: Tensor | None = None,
) -> Fitted:
    """Solve for (c0, C) with the codes held, per target; coefficients at pivots are given (0 and the unit matrix)."""
    lefts, rights = moments(codes, normal, weights)
    rank, targets, terms = codes.shape[1], len(rights), rights.shape[2]
    found = torch.zeros(rank + 1, targets, terms, dtype=codes.dtype, device=codes.device)
    for r, (c, k) in enumerate(pivots):
        found[r + 1, c, k] = 1.0
    free = kept.clone()
    for c, k in pivots:
        free[:, c, k] = False
    for c in range(targets):
        left = lefts[c]
        right = rights[c].flatten() - left @ found[:, c].flatten()
        chosen = free[:, c].flatten().nonzero()[:, 0]
        if not len(chosen):
            continue
        part = left[chosen][:, chosen]
        scale = part.diagonal().clamp_min(1e-300).sqrt()
        part = part / scale[:, None] / scale + _RIDGE * torch.eye(len(chosen), dtype=part.dtype, device=part.device)
        values = found[:, c].flatten().clone()
        values[chosen] = torch.linalg.solve(part, right[chosen] / scale) / scale
        found[:, c] = values.reshape(rank + 1, terms)
    return Fitted(found[0], found[1:], kept, pivots)


def fit(normal: Normals, rank: int, rounds: int = 30, allowed: Tensor | None = None) -> Fitted:
    """Fit c0 and C on the normal equations of all runs, from pooled least squares and ridge residuals of the runs.

    Args:
        normal: of B > R runs.
        rank: R >= 0.
        rounds: of the alternation, at most; it stops when the loss stands still.
        allowed: which coefficients may differ from 0, (R + 1, C, K), c0 first; None: all.

    Raises:
        DataError: R above the number of coefficients.
    """
    first = next(normal.parts()).right
    everything = torch.ones(rank + 1, *first.shape[1:], dtype=torch.bool, device=first.device)
    everything = everything if allowed is None else allowed
    none = first.new_zeros(len(normal), 0)
    fitted = coefficients(none, normal, everything[:1], ())
    if not rank:
        return fitted
    own = torch.cat([_own(fitted, part) for part in normal.parts()]) * (1e-2 * _sizes(normal)).sqrt()
    own = own * everything[1]
    if rank > everything[1].numel():
        raise DataError(
            f"rank {rank}: a law of {everything[1].numel()} terms has at most as many numbers that differ from run to "
            "run. Ask for fewer, or give more terms."
        )
    codes = torch.linalg.svd(own.flatten(1) - own.flatten(1).mean(dim=0), full_matrices=False).U[:, :rank]
    return alternate(_standard(codes), normal, everything, (), rounds)[0]


def _own(fitted: Fitted, part: Normal) -> Tensor:
    """Return by how much the coefficients of each run differ from a law's, by ridge regression, (B, E, K)."""
    rest = part.right - torch.einsum("bckl,cl->bck", part.gram, fitted.constant)
    ridge = 1e-2 * part.gram.diagonal(dim1=-2, dim2=-1)
    return torch.linalg.solve(part.gram + torch.diag_embed(ridge), rest[..., None])[..., 0]


def _sizes(normal: Normals) -> Tensor:
    """Return the mean squares of the terms against the targets, (E, K)."""
    return torch.cat([part.gram.diagonal(dim1=-2, dim2=-1) for part in normal.parts()]).mean(dim=0)


def alternate(
    codes: Tensor, normal: Normals, kept: Tensor, pivots: tuple[tuple[int, int], ...], rounds: int
) -> tuple[Fitted, Tensor]:
    """Solve for coefficients and codes in turn, from codes; return the law and the codes it leads to."""
    before = torch.inf
    for _ in range(rounds):
        fitted = coefficients(codes, normal, kept, pivots)
        codes = encode(fitted, normal)
        now = float(loss(fitted, codes, normal).mean())
        codes = codes if pivots or not codes.shape[1] else _standard(codes)
        if before - now < 1e-5 * abs(now):
            break
        before = now
    return fitted, codes


def _standard(codes: Tensor) -> Tensor:
    middle = codes.median(dim=0).values
    spread = (codes - middle).abs().median(dim=0).values.clamp_min(1e-300) * 1.4826
    clipped = ((codes - middle) / spread).clamp(-_CLAMP, _CLAMP)
    return (clipped - clipped.mean(dim=0)) / clipped.std(dim=0, correction=0).clamp_min(1e-300)


def reliability(fitted: Fitted, halves: tuple[Normals, Normals]) -> Tensor:
    """Return the correlation over runs of the codes of the two halves of each run, (R,).

    Near 1: the code is a property of the run. Near 0: it is noise, or of the moment. Codes are clipped at 4 robust
    deviations: one wild run must not decide.
    """
    first, second = (_standard(encode(fitted, half)) for half in halves)
    return (first * second).mean(dim=0)


def gauged(fitted: Fitted, normal: Normals) -> Fitted:
    """Return the same law with codes that are coefficients of terms, the terms that vary most against the targets.

    A code is only known up to an affine map; this choice makes it the number a physicist writes in front of a term.
    """
    if not fitted.rank:
        return fitted
    size = _sizes(normal).sqrt()  # (C, K)
    weights = (fitted.varying * size).flatten(1)
    pivots: list[tuple[int, int]] = []
    for _ in range(fitted.rank):
        k = int(weights.square().sum(dim=0).argmax())
        pivots.append(divmod(k, size.shape[1]))
        direction = weights[:, k] / weights[:, k].norm().clamp_min(1e-300)
        weights = weights - direction[:, None] * (direction @ weights)
    at = torch.stack([fitted.varying[:, c, k] for c, k in pivots], dim=1)  # (R, R)
    inverse = torch.linalg.pinv(at)  # also where a code does nothing
    varying = torch.einsum("rs,sck->rck", inverse, fitted.varying)
    offset = torch.stack([fitted.constant[c, k] for c, k in pivots])
    constant = fitted.constant - torch.einsum("r,rck->ck", offset, varying)
    return Fitted(constant, varying, fitted.kept, tuple(pivots))
