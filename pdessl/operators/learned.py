"""A law with a library that nobody chose, fitted in closed form: drawn functions, free kernels, codes of runs."""

# B runs, K functions times waves, E left sides, R codes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.models import Encoder
from pdessl.operators.fit import Fitted, Normal, Normals, encode, fit, loss, reliability
from pdessl.operators.networks import LearnedOperator
from pdessl.operators.pile import stacked
from pdessl.operators.search import check, solenoidal, tried_runs
from pdessl.operators.test_functions import spacing
from pdessl.operators.weak import Grams
from pdessl.trajectory import Trajectories

__all__ = ["Learned", "fit_learned"]

_NUMBERS = 2**24  # of products that are held at once (128 MB)
_HELD = 2**26  # numbers of normal equations in memory (512 MB); what is above goes to disk
_MOST = 3  # codes looked at where their number is not given
_WIDTHS = {1: ((9, 6, 4), (13, 9, 6, 4)), 2: ((6, 4), (4,), (4,))}
_FUNCTIONS = (6, 4)  # drawn ones, at least, and a field
_FEWEST = 16
_NOTHING = 3e-4  # of the time derivative: what the test functions' own sums leave of it

Sides = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Learned:
    """An encoder whose features are codes of runs, and what the label-free diagnostics say of its law.

    Args:
        encoder: a :class:`pdessl.operators.LearnedOperator` with the normalisation of its fields.
        sides: what stands on the left sides, for people.
        reliability: correlation over runs of the codes of their two halves, of the least reliable code.
        unexplained: mean share of the time derivative that the law leaves unexplained.
        tried: number of codes -> (reliability, unexplained).
        count: runs it was fitted on.
    """

    encoder: Encoder
    sides: tuple[str, ...]
    reliability: float
    unexplained: float
    tried: dict[int, tuple[float, float]]
    count: int

    def __str__(self) -> str:
        network = self.encoder.module
        codes = "one number a run" if self.encoder.feature_dim == 1 else f"{self.encoder.feature_dim} numbers a run"
        functions, nodes = "some", "some"
        if isinstance(network, LearnedOperator):
            functions = str(network.init_args["functions"])
            nodes = " x ".join(str(2 * h + 1) for h in network.products.half_width[1:])
        return (
            f"{', '.join(self.sides)} = sum of {functions} drawn functions of the fields under free kernels of {nodes} "
            f"nodes\n{codes}, reliability {self.reliability:.3f}, unexplained {self.unexplained:.1%}, "
            f"{self.count:,} runs"
        )


def fit_learned(
    runs: Trajectories,
    codes: int | None = None,
    functions: int | None = None,
    half_width: Sequence[int] | None = None,
    left: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
) -> Learned:
    """Fit the law u_t = (κ0 + Σ_j z_j κ_j) * g(u) that unlabelled runs obey, g drawn and κ free, in closed form.

    Of every run the Gram matrix of its products is kept, and kernels and codes are found by the same alternating least
    squares as :func:`pdessl.operators.discover`. No polynomial and no derivative is offered, and no noise removed (wide
    test functions smooth it away). The result is an encoder like a network: saved, loaded, read by ``regress``.

    Args:
        runs: B >= 16 unlabelled runs over one or two axes, periodic or not, equal frames.
        codes: R; None: 1 to 3, the smallest above which no number of reliable codes (0.8) lets the unexplained share
            fall below 0.6 of it, and by more than 3e-4.
        functions: drawn ones, besides the fields themselves; None: 6, or 4 a field.
        half_width: of the test function, frames and nodes; None: 9 and 13, in the plane 6, 4 and 4, or what fits.
        left: left sides, see :class:`pdessl.operators.LearnedOperator`; None: the rate of the field. Of several fields
            the rates that codes explain much better, where two fields are a velocity without divergence whose curl is
            explained much better than they are that of the curl in their place, as :func:`discover` has it.
        seed: of the functions.

    Raises:
        DataError: too few runs, constant fields, values that are not finite, or unequal frames.
        ShapeError: other than one or two axes, or runs too short or coarse.
        ValueError: half-widths or left sides that do not match the runs.
    """
    if len(runs) < _FEWEST:
        raise DataError(f"{len(runs)} runs; a law with a learned library needs {_FEWEST} or more.")
    if len(runs.space) not in _WIDTHS:
        raise ShapeError(
            f"runs over {', '.join(runs.axis_names)}; a learned library is of one or two axes. Use 'pdessl discover' "
            "without --learned."
        )
    check(runs)
    fields = runs.fields.shape[1]
    drawn = _Drawn(
        runs,
        max(_FUNCTIONS[0], _FUNCTIONS[1] * fields) if functions is None else functions,
        tuple(half_width) if half_width is not None else _fitting(runs.fields.shape[2:]),
        seed,
    )
    sides = _chosen(runs, drawn) if left is None else tuple(tuple(entry) for entry in left)
    network = drawn.network(sides, 1)
    terms = network.kernels[0].numel()
    with ExitStack() as stack:
        whole, halves, _ = stacked(_grams(network, runs, drawn), terms, False, stack, _HELD)
        laws = {r: fit(whole, r) for r in ([codes] if codes else range(1, _MOST + 1))}
        tried = {r: _said(law, whole, halves) for r, law in laws.items()}
    rank = codes or _needed(tried)
    network = drawn.network(sides, rank)
    law = laws[rank]
    with torch.no_grad():
        network.kernels.copy_(torch.cat([law.constant[None], law.varying]).reshape(network.kernels.shape))
        network.scale.fill_(1.0)
    steps = spacing(runs)
    axes = ("time", *runs.axis_names)
    ranges = {n: [float(column.min()), float(column.max())] for n, column in zip(axes, steps.T, strict=True)}
    trained_on = {"equation": runs.equation, "steps": ranges} if runs.equation else {"steps": ranges}
    encoder = Encoder(network, drawn.mean.tolist(), drawn.std.tolist(), trained_on).eval()
    return Learned(encoder, tuple(_written(e, runs) for e in sides), *tried[rank], tried, len(runs))


class _Drawn:
    """Networks with the same functions, for fields of the same size."""

    def __init__(self, runs: Trajectories, functions: int, width: tuple[int, ...], seed: int) -> None:
        flat = runs.fields.double().transpose(0, 1).flatten(1)
        self.mean, self.std = flat.mean(dim=1), flat.std(dim=1)
        self.periodic = [b == "periodic" for b in runs.boundary]
        self.functions, self.width, self.seed = functions, width, seed

    def network(self, sides: Sides, codes: int) -> LearnedOperator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            found = LearnedOperator(
                len(self.mean), codes, self.functions, half_width=self.width, left=sides, periodic=self.periodic
            )
        pair = found.products.pair
        if pair is not None:
            found.products.ratio.copy_(self.std[pair[1]] / self.std[pair[0]])
        return found

    def standardised(self, fields: Tensor) -> Tensor:
        shape = (-1, *(1,) * (fields.ndim - 2))
        return (fields.double() - self.mean.reshape(shape)) / self.std.reshape(shape)


def _fitting(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the widest test function that fits, such that the halves of a run can be compared."""
    tried = zip(_WIDTHS[len(sizes) - 1], sizes, strict=True)
    found = tuple(next((h for h in wide if 2 * h + 1 <= 0.7 * n), 0) for wide, n in tried)
    if not all(found):
        raise ShapeError(f"{sizes[0]} frames of {tuple(sizes[1:])} nodes; expected 13 or more of each.")
    return found


def _grams(network: LearnedOperator, runs: Trajectories, drawn: _Drawn) -> Iterator[Grams]:
    """Return the Grams of the two halves of every run in time, part by part."""
    numbers = network.kernels[0].numel() * runs.fields[0, 0].numel()
    step = max(1, _NUMBERS // numbers)
    for start in range(0, len(runs), step):
        part = runs[slice(start, start + step)]
        products = network.library(drawn.standardised(part.fields), spacing(part))
        cut = max(1, products.shape[2] // 2)
        flat = [piece.flatten(2) for piece in (products[:, :, :cut], products[:, :, cut:])]
        halves = torch.stack([f @ f.mT / max(f.shape[2], 1) for f in flat], dim=1)
        yield Grams(halves, torch.zeros_like(halves[:, 0]), halves.new_zeros(len(part), runs.fields.shape[1]))


def _chosen(runs: Trajectories, drawn: _Drawn) -> Sides:
    """Return the left sides of which a law is found, by what a code explains of them in a few of the runs."""
    rates: Sides = tuple((c,) for c in range(runs.fields.shape[1]))
    few = runs[slice(0, max(_FEWEST, tried_runs(runs.fields.shape)))]
    pair = solenoidal(few)
    ways = [rates] if pair is None else [rates, (pair, *(e for e in rates if e[0] not in pair))]
    if len(ways) == len(rates) == 1:
        return rates
    sides = tuple(dict.fromkeys(entry for way in ways for entry in way))
    network = drawn.network(sides, 1)
    grams = Grams.join(list(_grams(network, few, drawn)))
    normal = Normal.of(grams.halves.mean(dim=1), grams.noise, network.kernels[0].numel())
    found = []
    for way in ways:
        at = [sides.index(entry) for entry in way]
        own = Normal(normal.gram[:, at], normal.right[:, at])
        laws = [fit(own, r) for r in (0, 1)]
        found.append([own.losses(law.law(encode(law, own))).mean(dim=0) for law in laws])
    # As in the search for a law of a library: the curl has lost what the pressure did. It is compared with what stands
    # in its place alone: free kernels leave much of a sharp scalar's rate either way.
    shared = set(ways[0]).intersection(*ways)
    rate, curl = (
        _mean_of(left, way, shared) for way, (_, left) in zip((ways[0], ways[-1]), (found[0], found[-1]), strict=True)
    )
    lead = 0 if rate <= 2 * curl else -1
    # Codes differ in some laws: those that a code helps at least half as much as it helps the one it helps most.
    without, with_code = found[lead]
    gain = (1 - with_code / without.clamp_min(1e-300)).clamp_min(0.0)  # less than nothing only by rounding
    return tuple(e for e, g in zip(ways[lead], gain.tolist(), strict=True) if g >= 0.5 * float(gain.max()))


def _mean_of(left: Tensor, way: Sides, shared: set[tuple[int, ...]]) -> float:
    own = [v for entry, v in zip(way, left.tolist(), strict=True) if entry not in shared]
    return sum(own) / max(len(own), 1)


def _written(entry: tuple[int, ...], runs: Trajectories) -> str:
    names, axes = runs.field_names, runs.axis_names
    if len(entry) == 1:
        return f"{names[entry[0]]}_t"
    return f"({names[entry[1]]}_{axes[0]} - {names[entry[0]]}_{axes[1]})_t"


def _said(law: Fitted, whole: Normals, halves: tuple[Normals, Normals]) -> tuple[float, float]:
    left = float(loss(law, encode(law, whole), whole).mean().clamp_min(0.0))
    return float(reliability(law, halves).min()), left


def _needed(tried: dict[int, tuple[float, float]]) -> int:
    for rank, (_, unexplained) in sorted(tried.items()):
        later = [loss for r, (sure, loss) in tried.items() if r > rank and sure >= 0.8]
        if not later or min(later) >= min(0.6 * unexplained, unexplained - _NOTHING):
            return rank
    return max(tried)
