"""Where in time and space runs depart from a law: novelty and surprise of every frame and place."""

# B runs, R codes, E targets, T' frames and X' places of whole windows

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.operators.fit import encode
from pdessl.operators.latent import LatentOperator
from pdessl.operators.weak import weak_grams, weak_products
from pdessl.trajectory import Trajectories

__all__ = ["Surprise", "surprise"]


@dataclass(frozen=True)
class Surprise:
    """Residuals of a law, W_target - Σ_k (c0_k + z·C_k) W_k, relative to the size of the target in the same run.

    A value of 1 is as large as the root mean square of the target (the time derivative, integrated against the test
    function) over the run: values have no unit and do not change when fields are rescaled with the law. Noise is in
    them: it is not taken out of single places, but for codes.

    Args:
        novelty: with the code of the whole run, (B, E, T', *X').
        surprise: with the code of the frames before, likewise: what could not be foreseen. A test function is wide;
            the code of frame n is that of frames n - w and before, w the width of the test function in frames, so that
            none of them shares data with frame n. NaN where there are none yet.
        change: how much better another code explains the last frames than the code of the frames before them, (B, T'):
            the gain over what the better code leaves, (c - c0)ᵀ L (c - c0) / (Q - cᵀ r), with L, r, Q the normal
            equations of the last frames. Noise in directions in which the law does not vary is not in it. NaN where
            there are no frames before.
        size: mean square of the target itself, over targets and places, in the unit of the others, (B, T').
        frames: middle of the test function, (B, T'), time.
        places: likewise per axis, (B, X'_i), length.
        reach: frames after the middle that a value has seen.
    """

    novelty: Tensor
    surprise: Tensor
    change: Tensor
    size: Tensor
    frames: Tensor
    places: tuple[Tensor, ...]
    reach: int

    def per_frame(self, of: str = "surprise") -> Tensor:
        """Return the mean square over targets and places, (B, T')."""
        values = getattr(self, of).square()
        return values.flatten(3).mean(dim=(1, 3))

    def per_place(self, of: str = "novelty") -> Tensor:
        """Return the mean square over targets and frames (those that are not NaN), (B, *X')."""
        return getattr(self, of).square().nanmean(dim=(1, 2))


def surprise(law: LatentOperator, runs: Trajectories, recent: int = 8) -> Surprise:
    """Return where runs depart from a law; the whole run's share is :meth:`LatentOperator.residual`.

    A run whose parameter changes on the way has a code in between, which leaves the law unexplained all along; the code
    of the frames before does not, and the change shows at its frame.

    Args:
        law: found by :func:`pdessl.operators.discover`.
        runs: B runs with the law's fields and axes; a few frames more than its test functions are wide.
        recent: positions of the test function that count as the last frames, for ``change``.

    Raises:
        DataError, ShapeError: as :meth:`LatentOperator.encode`.

    Source: ``change`` is the statistic of the test of Chow (1960) for a structural break.
    """
    whole, _ = law.normal(runs)
    grams = weak_grams(runs, law.projection)
    read = law.projection.read(runs)
    products = weak_products(read, law.projection)
    terms, fitted = len(law.terms), law.fitted
    size = grams.halves.mean(dim=1).diagonal(dim1=1, dim2=2)[:, terms:].clamp_min(1e-300).sqrt()  # (B, E)
    target = products[:, terms:] / _wide(size, products)
    shape = products.shape[2:]
    library = products[:, :terms]
    # The law is affine in the codes: what it has without them, and what each of them adds.
    rest = target - torch.einsum("ek,bk...->be...", fitted.constant, library) / _wide(size, products)
    slopes = torch.einsum("rek,bk...->bre...", fitted.varying, library) / _wide(size, products)[:, None]
    novelty = rest - torch.einsum("br,bre...->be...", encode(fitted, whole), slopes)
    reach, own = law.half_width[0], target.square().flatten(3).mean(dim=(1, 3))
    if not law.rank:
        never = novelty.new_full(novelty.shape[:1] + shape[:1], torch.nan)
        return Surprise(novelty, novelty, never, own, *_middle(read, law, shape), reach)
    count = shape[1:].numel()
    left = torch.einsum("bretp,bsetp->btrs", slopes.flatten(4), slopes.flatten(4)) / count
    right = torch.einsum("bretp,betp->btr", slopes.flatten(4), rest.flatten(3)) / count
    power = rest.flatten(3).square().sum(dim=(1, 3)) / count
    if law.noise_removed:
        rows = torch.cat([fitted.varying, -fitted.constant[None]])  # (R + 1, E, K)
        eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        unit = torch.cat([torch.zeros_like(eye).expand(law.rank, -1, -1), eye[None]])
        rows = torch.cat([rows, unit], dim=2) / size[:, None, :, None]  # (B, R + 1, E, K + E)
        noise = torch.einsum("brek,bkl,bsel->brs", rows, grams.noise, rows)
        # As in the normal equations of whole runs: noise may not take more than all but a part of what was measured.
        kept = 0.1 * left.mean(dim=1).diagonal(dim1=1, dim2=2)
        taken = torch.minimum(noise[:, :-1, :-1].diagonal(dim1=1, dim2=2), 9 * kept)
        share = taken / noise[:, :-1, :-1].diagonal(dim1=1, dim2=2).clamp_min(1e-300)
        left = left - (noise[:, :-1, :-1] * share[:, :, None].sqrt() * share[:, None, :].sqrt())[:, None]
        right = right - (noise[:, :-1, -1] * share)[:, None]
    width = 2 * reach + 1
    before = [_shifted(part.cumsum(dim=1), width) for part in (left, right)]
    scale = left.mean(dim=1).diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = 1e-6 * scale[:, None, None, None] * torch.eye(law.rank, dtype=left.dtype, device=left.device)
    codes = torch.linalg.solve(before[0] + ridge, before[1][..., None])[..., 0]  # (B, T', R)
    foreseen = rest - torch.einsum("btr,bretp->betp", codes, slopes.flatten(4)).reshape(rest.shape)
    foreseen[:, :, : min(width, shape[0])] = torch.nan
    sums = [part.cumsum(dim=1) for part in (left, right, power[..., None])]
    last = [part - _shifted(part, recent) for part in sums]
    then = _shifted(codes, recent - 1)
    now = torch.linalg.solve(last[0] + ridge, last[1][..., None])[..., 0]
    moved = now - then
    gain = torch.einsum("btr,btrs,bts->bt", moved, last[0], moved)
    kept = last[2][..., 0] - (now * last[1]).sum(dim=2)
    # Noise that is taken out may leave less than nothing; what is left is no smaller than a part of what was there.
    change = gain.clamp_min(0.0) / torch.maximum(kept, 1e-6 * last[2][..., 0]).clamp_min(1e-300)
    change[:, : min(width + recent - 1, shape[0])] = torch.nan
    return Surprise(novelty, foreseen, change, own, *_middle(read, law, shape), reach)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Move along frames, with zeros before."""
    return torch.cat([torch.zeros_like(values[:, :by]), values[:, :-by]], dim=1)[:, : values.shape[1]]


def _wide(size: Tensor, products: Tensor) -> Tensor:
    return size.reshape(*size.shape, *[1] * (products.ndim - 2))


def _middle(runs: Trajectories, law: LatentOperator, shape: torch.Size) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return times and places of the middles of the test functions."""
    windows = law.projection.windows(runs)
    found = []
    for axis, nodes in enumerate((runs.time, *runs.space)):
        h, n = windows.half[axis], nodes.shape[1]
        rows = torch.arange(shape[axis], device=nodes.device) * windows.stride[axis] + h
        found.append(nodes[:, rows % n])
    return found[0], tuple(found[1:])
