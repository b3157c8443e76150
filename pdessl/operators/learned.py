"""A law with a library that nobody chose, fitted in closed form: drawn functions, free kernels, codes of runs."""

# B runs, K functions times waves, R codes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.models import Encoder
from pdessl.operators.fit import Fitted, Normal, encode, fit, reliability
from pdessl.operators.networks import LearnedOperator
from pdessl.operators.search import check
from pdessl.operators.test_functions import spacing
from pdessl.trajectory import Trajectories

__all__ = ["Learned", "fit_learned"]

_PART = 64  # runs whose products are held at once
_MOST = 3  # codes looked at where their number is not given
_WIDTHS = ((9, 6, 4), (13, 9, 6, 4))
_FEWEST = 16
_NOTHING = 3e-4  # of the time derivative: what the test functions' own sums leave of it


@dataclass(frozen=True, eq=False)
class Learned:
    """An encoder whose features are codes of runs, and what the label-free diagnostics say of its law.

    Args:
        encoder: a :class:`pdessl.operators.LearnedOperator` with the normalisation of its fields.
        reliability: correlation over runs of the codes of their two halves, of the least reliable code.
        unexplained: mean share of the time derivative that the law leaves unexplained.
        tried: number of codes -> (reliability, unexplained).
        count: runs it was fitted on.
    """

    encoder: Encoder
    reliability: float
    unexplained: float
    tried: dict[int, tuple[float, float]]
    count: int

    def __str__(self) -> str:
        network = self.encoder.module
        codes = "one number a run" if self.encoder.feature_dim == 1 else f"{self.encoder.feature_dim} numbers a run"
        functions, nodes = "some", "some"
        if isinstance(network, LearnedOperator):
            functions, nodes = str(network.init_args["functions"]), str(2 * network.width[1] + 1)
        return (
            f"u_t = sum of {functions} drawn functions of the fields under free kernels of {nodes} nodes\n"
            f"{codes}, reliability {self.reliability:.3f}, unexplained {self.unexplained:.1%}, {self.count:,} runs"
        )


def fit_learned(
    runs: Trajectories,
    codes: int | None = None,
    functions: int = 6,
    half_width: tuple[int, int] | None = None,
    seed: int = 0,
) -> Learned:
    """Fit the law u_t = (κ0 + Σ_j z_j κ_j) * g(u) that unlabelled runs obey, g drawn and κ free, in closed form.

    Of every run the Gram matrix of its products is kept, and kernels and codes are found by the same alternating least
    squares as :func:`pdessl.operators.discover`. No polynomial and no derivative is offered, and no noise removed (wide
    test functions smooth it away). The result is an encoder like a network: saved, loaded, read by ``regress``.

    Args:
        runs: B >= 16 unlabelled runs on one periodic axis, equal frames; the law is that of the first field.
        codes: R; None: 1 to 3, the smallest above which the unexplained share does not fall to 0.6 of it.
        functions: drawn ones, besides the fields themselves.
        half_width: of the test function, frames and nodes; None: 9 and 13, or what fits the runs.
        seed: of the functions.

    Raises:
        DataError: too few runs, constant fields, values that are not finite, or unequal frames.
        ShapeError: other than one periodic axis, or runs too short or coarse.
    """
    if len(runs) < _FEWEST:
        raise DataError(f"{len(runs)} runs; a law with a learned library needs {_FEWEST} or more.")
    if runs.boundary != ("periodic",):
        raise ShapeError(
            f"runs over {', '.join(runs.axis_names)} with boundary {', '.join(runs.boundary)}; a learned library is of "
            "one periodic axis. Use 'pdessl discover' without --library."
        )
    check(runs)
    steps = spacing(runs)
    width = half_width or _fitting(runs.fields.shape[2:])
    mean = runs.fields.double().mean(dim=(0, 2, 3))
    std = runs.fields.double().std(dim=(0, 2, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LearnedOperator(runs.fields.shape[1], codes or 1, functions, half_width=width)
    halves = torch.cat([_halves(network, part, mean, std) for part in runs.fields.double().split(_PART)])
    terms = halves.shape[-1] - 1
    nothing = torch.zeros_like(halves[:, 0])
    whole = Normal.of(halves.mean(dim=1), nothing, terms)
    parts = (Normal.of(halves[:, 0], nothing, terms), Normal.of(halves[:, 1], nothing, terms))
    laws = {r: fit(whole, r) for r in ([codes] if codes else range(1, _MOST + 1))}
    tried = {r: _said(law, whole, parts) for r, law in laws.items()}
    rank = codes or _needed(tried)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LearnedOperator(runs.fields.shape[1], rank, functions, half_width=width)
    law = laws[rank]
    with torch.no_grad():
        values = torch.cat([law.constant[None], law.varying])[:, 0]
        network.kernels.copy_(values.reshape(network.kernels.shape))
        network.scale.fill_(1.0)
    axes = ("time", *runs.axis_names)
    ranges = {n: [float(column.min()), float(column.max())] for n, column in zip(axes, steps.T, strict=True)}
    trained_on = {"equation": runs.equation, "steps": ranges} if runs.equation else {"steps": ranges}
    encoder = Encoder(network, mean.tolist(), std.tolist(), trained_on).eval()
    return Learned(encoder, *tried[rank], tried, len(runs))


def _fitting(sizes: torch.Size) -> tuple[int, int]:
    """Return the widest test function that fits, such that the halves of a run can be compared."""
    found = [next((h for h in wide if 2 * h + 1 <= 0.7 * n), 0) for wide, n in zip(_WIDTHS, sizes, strict=True)]
    if not all(found):
        raise ShapeError(f"{sizes[0]} frames of {sizes[1]} nodes; expected 13 or more of each.")
    return found[0], found[1]


def _halves(network: LearnedOperator, fields: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the Grams of the two halves of every run in time, (B, 2, K + 1, K + 1)."""
    products = network.library((fields - mean[:, None, None]) / std[:, None, None])
    cut = max(1, products.shape[2] // 2)
    flat = [piece.flatten(2) for piece in (products[:, :, :cut], products[:, :, cut:])]
    return torch.stack([f @ f.mT / max(f.shape[2], 1) for f in flat], dim=1)


def _said(law: Fitted, whole: Normal, parts: tuple[Normal, Normal]) -> tuple[float, float]:
    loss = whole.loss(law.law(encode(law, whole))).mean().clamp_min(0.0)
    return float(reliability(law, parts).min()), float(loss)


def _needed(tried: dict[int, tuple[float, float]]) -> int:
    for rank, (_, unexplained) in sorted(tried.items()):
        later = [loss for r, (sure, loss) in tried.items() if r > rank and sure >= 0.8]
        if not later or min(later) >= min(0.6 * unexplained, unexplained - _NOTHING):
            return rank
    return max(tried)
