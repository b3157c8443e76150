"""Scores of predicted fields over time: each with its formula and what it is a mean over."""

# B runs, C channels, T frames, X space; û predictions, u truth

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = [
    "band_error", "bootstrap", "break_even", "correlation", "correlation_time", "drift", "gap_closed",
    "geometric_mean", "nrmse", "pooled_nmse", "relative_l2", "spectra", "vrmse",
]  # fmt: skip


def _pair(name: str, prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != truth.shape or truth.ndim < 4 or not len(truth):
        raise ShapeError(
            f"{name} got predictions {tuple(prediction.shape)} and truth {tuple(truth.shape)}; expected one shape "
            "(B, C, T, *X) with at least one run."
        )
    return prediction.detach().double(), truth.detach().double()


def _frames(x: Tensor) -> Tensor:
    """Return (B, T, C·X)."""
    return x.transpose(1, 2).flatten(2)


def nrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """sqrt(Σ (û - u)² / Σ u²), sums over channels and space, of every run and frame: (B, T).

    The nRMSE of APEBench (Koehler et al. 2024, arXiv:2411.00180) is its mean over runs.
    """
    p, u = (_frames(x) for x in _pair("nrmse", prediction, truth))
    return ((p - u).square().sum(dim=2) / u.square().sum(dim=2)).sqrt()


def relative_l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """sqrt(Σ (û - u)² / Σ u²), sums over channels, frames and space, of every run: (B,)."""
    p, u = (x.flatten(1) for x in _pair("relative_l2", prediction, truth))
    return ((p - u).square().sum(dim=1) / u.square().sum(dim=1)).sqrt()


def pooled_nmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Σ (û - u)² / Σ u², sums over everything, runs included: one number.

    Runs that come to rest, in which only noise is left to predict, do not decide it, as they do a mean of ratios.
    """
    p, u = _pair("pooled_nmse", prediction, truth)
    return (p - u).square().sum() / u.square().sum()


def vrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """sqrt(⟨(û - u)²⟩ / (var u + 1e-7)), means over space, then the mean over channels, of every run and frame: (B, T).

    Source: The Well: Ohana et al. (2024), arXiv:2412.00568.
    """
    p, u = (x.flatten(3) for x in _pair("vrmse", prediction, truth))
    ratio = (p - u).square().mean(dim=3) / (u.var(dim=3, correction=0) + 1e-7)
    return ratio.sqrt().mean(dim=1)


def band_error(prediction: Tensor, truth: Tensor, edges: Sequence[float] = (0.0, 1 / 12, 1 / 4, 1.0)) -> Tensor:
    """Σ_k |F(û - u)|² / Σ_k |F u|², sums over the waves of a band, channels, runs and frames: one number per band.

    Args:
        prediction: (B, C, T, *X).
        truth: of the same shape.
        edges: of the bands, as shares of the highest wave number of the grid along each axis (of the largest share over
            axes); each band holds its upper edge, the first one the mean, too.
    """
    p, u = _pair("band_error", prediction, truth)
    sizes = u.shape[3:]
    dims = tuple(range(3, u.ndim))
    share = _shares(sizes).to(u.device)
    error, power = (torch.fft.fftn(x, dim=dims).abs().square().sum(dim=(0, 1, 2)) for x in (p - u, u))
    found = []
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = (share <= high + 1e-9) & ((share > low + 1e-9) | (i == 0))
        found.append(error[inside].sum() / power[inside].sum().clamp_min(1e-300))
    return torch.stack(found)


def spectra(fields: Tensor) -> Tensor:
    """Energy of the waves of each length, mean over runs and sum over channels: (B, C, T, *X) -> (T, bands).

    Band j holds the waves whose number, the largest share over axes of the highest wave of its axis times the half of
    the longest axis' nodes, rounds to j; the sum over bands is the mean square of the fields (Parseval).
    """
    if fields.ndim < 4 or not len(fields):
        raise ShapeError(f"spectra got fields {tuple(fields.shape)}; expected (B, C, T, *X) with at least one run.")
    u = fields.detach().double()
    sizes, dims = u.shape[3:], tuple(range(3, u.ndim))
    share = _shares(sizes).to(u.device)
    power = torch.fft.fftn(u, dim=dims, norm="forward").abs().square().sum(dim=1).mean(dim=0).flatten(1)
    half = max(sizes) // 2
    found = torch.zeros(len(power), half + 1, dtype=torch.float64, device=u.device)
    return found.index_add_(1, (share * half).round().long().flatten().clamp_max(half), power)


def _shares(sizes: Sequence[int]) -> Tensor:
    """Return the largest share over axes of the highest wave of each, of every mode, (*X)."""
    share = torch.zeros(())
    for axis, n in enumerate(sizes):
        shape = [1] * len(sizes)
        shape[axis] = n
        share = torch.maximum(share, (torch.fft.fftfreq(n).abs() * 2).reshape(shape))
    return share


def correlation(prediction: Tensor, truth: Tensor) -> Tensor:
    """Pearson correlation of û and u over channels and space, of every run and frame: (B, T)."""
    p, u = (_frames(x) for x in _pair("correlation", prediction, truth))
    p, u = p - p.mean(dim=2, keepdim=True), u - u.mean(dim=2, keepdim=True)
    norm = (p.square().sum(dim=2) * u.square().sum(dim=2)).sqrt()
    return torch.where(norm > 0, (p * u).sum(dim=2) / norm.clamp_min(1e-300), torch.zeros_like(norm))


def correlation_time(
    prediction: Tensor, truth: Tensor, interval: float | Tensor = 1.0, threshold: float = 0.8
) -> Tensor:
    """Time until the correlation of a run first falls below a threshold, (B,); the horizon if it never does.

    Args:
        prediction: (B, C, T, *X), frames 1 ... T after the start.
        truth: of the same shape.
        interval: between frames, a number or (B,).
        threshold: of the correlation; 0.8 and 0.9 are usual.
    """
    below = correlation(prediction, truth) < threshold
    first = torch.where(below.any(dim=1), below.double().argmax(dim=1), below.shape[1])
    return first * torch.as_tensor(interval, dtype=torch.float64)


def geometric_mean(errors: Tensor) -> Tensor:
    """Exponential of the mean over frames of log e(t), of errors per frame (..., T) > 0: (...,).

    Source: APEBench, whose headline figure it is over the first 100 steps.
    """
    return errors.double().clamp_min(1e-300).log().mean(dim=-1).exp()


def drift(prediction: Tensor, truth: Tensor, quantity: str = "mean") -> Tensor:
    """|Q(û)(t) - Q(u)(t)|, relative, of every run and frame, the largest over channels: (B, T).

    Q is the mean over space of u, relative to the root mean square of the run (``mean``), or of u², relative to its own
    mean over the run (``energy``). Where the truth conserves Q it is the drift of what should be constant.
    """
    if quantity not in ("mean", "energy"):
        raise ValueError(f"drift got quantity '{quantity}'; expected 'mean' or 'energy'.")
    p, u = (x.flatten(3) for x in _pair("drift", prediction, truth))
    power = u.square().mean(dim=(2, 3), keepdim=True)[..., 0].clamp_min(1e-300)  # (B, C, 1)
    if quantity == "mean":
        found = (p.mean(dim=3) - u.mean(dim=3)).abs() / power.sqrt()
    else:
        found = (p.square().mean(dim=3) - u.square().mean(dim=3)).abs() / power
    return found.amax(dim=1)


def bootstrap(values: Tensor, level: float = 0.9, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the interval of the mean of values (B,), one per run, by resampling runs (percentiles).

    Args:
        values: (B,), B >= 2.
        level: of the interval, in (0, 1).
        resamples: number of resamplings.
        seed: of the draws.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ShapeError(f"bootstrap got {tuple(values.shape)}; expected a value for each of 2 runs or more.")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (resamples, len(values)), generator=generator)
    means = values.double().cpu()[rows].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def gap_closed(none: float, found: float, ceiling: float) -> float:
    """(E_none - E) / (E_none - E_ceiling): 0 without a condition, 1 as good as with the true parameter.

    Above 1: better than the ceiling; below 0: worse than no condition; NaN where the ceiling is not below E_none, so
    that there is no gap. Use it with squared errors: noise of the truth adds the same to all three.
    """
    return (none - found) / (none - ceiling) if none > ceiling else math.nan


def break_even(once: float, surrogate: float, solver: float) -> float:
    """Number of solves from which on a surrogate was worth making, once / (solver - surrogate); inf if never.

    Args:
        once: cost of making it, data and training included, >= 0.
        surrogate: cost of a run of it, in the same unit.
        solver: cost of a run of the classical solver at the coarsest setting that errs no more.

    Source: breakeven complexity: arXiv:2605.15399.
    """
    if min(once, surrogate, solver) < 0:
        raise ValueError(f"break_even got costs {once}, {surrogate}, {solver}; expected numbers >= 0.")
    return once / (solver - surrogate) if solver > surrogate else math.inf
