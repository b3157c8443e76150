"""Latent operators: the evolution law that unlabelled runs obey, in which R numbers differ from run to run."""

# B runs, K terms, C fields, R codes

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch
from torch import Tensor

from pdessl.equations import Equation
from pdessl.errors import DataError, ShapeError
from pdessl.operators.fit import Fitted, Normal, coefficients, encode, fit, gauged, reliability, sparsified
from pdessl.operators.library import Term, default_library
from pdessl.operators.weak import Grams, weak_grams
from pdessl.trajectory import Trajectories

__all__ = ["Candidate", "LatentOperator", "discover"]

_FEWEST = 4  # runs: a code that differs from run to run needs several
_TRIED = 128  # runs that half-widths are chosen on
_POWER = 8


@dataclass(frozen=True)
class Candidate:
    """One way to make Grams, and what the label-free diagnostics say of the law fitted on them.

    Args:
        half_width: of the test functions, frames and nodes.
        centred: each run's mean is subtracted.
        noise_removed: the expected Gram of noise is subtracted.
        rank: R.
        reliability: smallest over the codes; 1 for rank 0.
        unexplained: mean share of the time derivative, in [0, 1].
    """

    half_width: tuple[int, ...]
    centred: bool
    noise_removed: bool
    rank: int
    reliability: float
    unexplained: float


@dataclass(frozen=True, eq=False)
class LatentOperator:
    """A law u_t = Σ_k (c0_k + Σ_j z_ij C_jk) w_k(u), shared by all runs i but for their codes z_i.

    Codes are coefficients of terms (those that vary most), so the law reads as an equation with R parameters. Nothing
    but the runs enters: no label, no equation; "first order in time, local, polynomial" does.

    Args:
        terms: the library.
        fitted: the coefficients.
        half_width, centred, noise_removed: how runs are read.
        field_names, axis_names: of the runs it was fitted on.
        level: noise of the fields, (C,), the median over these runs.
        spread: typical half difference of the codes of the two halves of a run, (R,).
        candidates: everything that was tried, the chosen one first.
        errors: standard errors of c0 and C by bootstrap over runs, (R + 1, C, K).
        count: runs it was fitted on.

    Source: latent parameters by prediction: Lu, Kim, Soljačić (2020), arXiv:1907.06011; weak form: Messenger and Bortz
        (2021), arXiv:2007.02848; the shared law with a code per run, in closed form, is ours.
    """

    terms: tuple[Term, ...]
    fitted: Fitted
    half_width: tuple[int, ...]
    centred: bool
    noise_removed: bool
    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    level: Tensor
    spread: Tensor
    candidates: tuple[Candidate, ...]
    errors: Tensor
    count: int

    @property
    def rank(self) -> int:
        """Number of codes R."""
        return self.fitted.rank

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the codes: z, or z1, z2, ..., unless a field or an axis is called so."""
        stem = next(n for n in ("z", "c", "k", "code") if n not in (*self.field_names, *self.axis_names))
        return (stem,) if self.rank == 1 else tuple(f"{stem}{r + 1}" for r in range(self.rank))

    @property
    def reliability(self) -> float:
        """Correlation of the codes of the two halves of the runs, of the least reliable code."""
        return self.candidates[0].reliability

    @property
    def unexplained(self) -> float:
        """Mean share of the time derivative that the law does not explain."""
        return self.candidates[0].unexplained

    def _normal(self, runs: Trajectories) -> tuple[Normal, tuple[Normal, Normal]]:
        if runs.field_names != self.field_names or runs.axis_names != self.axis_names:
            raise DataError(
                f"the law is one of {', '.join(self.field_names)} over {', '.join(self.axis_names)}; the runs have "
                f"{', '.join(runs.field_names)} over {', '.join(runs.axis_names)}. Choose or rename fields to match."
            )
        grams = weak_grams(runs, self.terms, self.half_width, _POWER, None, self.centred)
        return _normals(grams, len(self.terms), self.noise_removed)

    def encode(self, runs: Trajectories) -> tuple[Tensor, Tensor]:
        """Return the codes of runs and their standard errors, (B, R) each, float64.

        The error of a code is half the difference of those of the two halves of the run, in root mean square with the
        typical one of the runs that the law was found in, which counts three times: one difference alone says little.
        Nothing here depends on which runs are encoded together. The errors are not calibrated.

        Raises:
            DataError: other fields or axes than the law's, values that are not finite, unequal time steps.
            ShapeError: runs shorter or coarser than the law's test functions.
        """
        whole, halves = self._normal(runs)
        codes = encode(self.fitted, whole)
        difference = _half_difference(self.fitted, halves)
        return codes, ((difference.square() + 3 * self.spread.square()) / 4).sqrt()

    def residual(self, runs: Trajectories) -> Tensor:
        """Return the share of each run's time derivative that the law leaves unexplained, (B,): a novelty score."""
        whole, _ = self._normal(runs)
        return whole.loss(self.fitted.law(encode(self.fitted, whole)))

    def __str__(self) -> str:
        letters = self.letters
        lines = []
        for c, name in enumerate(self.field_names):
            parts = []
            for k, term in enumerate(self.terms):
                written = term.text(self.field_names, self.axis_names)
                value = float(self.fitted.constant[c, k])
                if value:
                    parts.append(f"{value:+.3g} {written}")
                for r, letter in enumerate(letters):
                    slope = float(self.fitted.varying[r, c, k])
                    if slope:
                        parts.append(f"+ {letter} {written}" if slope == 1 else f"{slope:+.3g} {letter} {written}")
            lines.append(f"{name}_t = {' '.join(parts).removeprefix('+ ').removeprefix('+') or '0'}")
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """Return what the diagnostics say against this law, in words; empty where nothing does."""
        said = []
        if self.unexplained > 0.2:
            said.append(
                f"unexplained {self.unexplained:.0%}: a field that drives these is not measured, a force acts that is "
                "not in the data, the grid does not resolve the runs, or the library lacks a term."
            )
        if self.rank and self.reliability < 0.9:
            said.append(
                f"reliability {self.reliability:.2f}: the two halves of a run disagree about its code. Give longer or "
                "less noisy runs, or do not use the code."
            )
        return said

    def equation(self, name: str = "discovered") -> Equation:
        """Return the law as an :class:`pdessl.Equation` with parameters z (z1, z2, ... for several codes).

        Its symmetries, views and equivalence transformations follow from it like those of any other equation.
        """
        letters, texts = self.letters, []
        for c, field_name in enumerate(self.field_names):
            parts = []
            for k, term in enumerate(self.terms):
                written = term.expanded(self.field_names, self.axis_names)
                factors = [f"{float(self.fitted.constant[c, k]):.4g}"] if float(self.fitted.constant[c, k]) else []
                for r, letter in enumerate(letters):
                    slope = float(self.fitted.varying[r, c, k])
                    if slope:
                        factors.append(letter if slope == 1 else f"{slope:.4g}*{letter}")
                parts += [f"({_plain(f)})*({written})" for f in factors]
            texts.append(f"{field_name}_t = {' + '.join(parts) or '0'}")
        return Equation.parse(
            texts,
            independent=("t", *self.axis_names),
            dependent=self.field_names,
            parameters=letters,
            name=name,
            title="a law found in unlabelled runs",
        )


def _plain(text: str) -> str:
    """Write a number without an exponent, which equation texts do not have."""
    number, star, letter = text.partition("*")
    return f"{Decimal(number):f}{star}{letter}" if "e" in number else text


def _half_difference(law: Fitted, halves: tuple[Normal, Normal]) -> Tensor:
    return (encode(law, halves[0]) - encode(law, halves[1])).abs() / 2


def _normals(grams: Grams, terms: int, remove: bool) -> tuple[Normal, tuple[Normal, Normal]]:
    noise = grams.noise if remove else torch.zeros_like(grams.noise)
    # Halves differ by at most one frame: their plain mean is that of the run.
    whole = Normal.of(grams.halves.mean(dim=1), noise.mean(dim=1), terms)
    first, second = (Normal.of(grams.halves[:, h], noise[:, h], terms) for h in (0, 1))
    return whole, (first, second)


def _widths(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Half-widths to try: frames by nodes, the same along all space axes."""
    frames = [h for h in (4, 6, 9, 13) if 2 * h + 1 <= sizes[0] * 0.7]
    nodes = [h for h in (4, 6, 9, 13) if 2 * h + 1 <= min(sizes[1:]) * 0.7]
    return [(a, *[b] * (len(sizes) - 1)) for a, b in itertools.product(frames, nodes)]


def discover(
    runs: Trajectories,
    *,
    rank: int | None = None,
    terms: Sequence[Term] | None = None,
    half_width: Sequence[int] | None = None,
    centred: bool | None = None,
    noise_removed: bool | None = None,
    resamples: int = 20,
    seed: int = 0,
) -> LatentOperator:
    """Find the law that unlabelled runs obey, and the numbers in it that differ from run to run.

    What is not given is chosen by label-free diagnostics: *reliability* (do the two halves of a run agree about its
    code?) and *unexplained* (the share of the time derivative that the law does not explain). The smallest rank at
    which the unexplained share stops falling is taken. Labels that the runs may hold are not read.

    Args:
        runs: B >= 4 unlabelled runs on equally spaced frames.
        rank: R; None: 0 to 3, as many as the runs need.
        terms: the library; None: :func:`pdessl.operators.library.default_library`.
        half_width: of the test functions, frames and nodes; None: chosen.
        centred: subtract each run's mean (a law of reaction terms must keep it); None: chosen.
        noise_removed: subtract the expected Gram of the estimated noise; None: chosen.
        resamples: of the bootstrap that gives standard errors of the coefficients.
        seed: of the bootstrap.

    Raises:
        DataError: fewer than 4 runs, values that are not finite, constant fields, or unequal time steps.
        ShapeError: runs too short or too coarse for any test function.
    """
    if len(runs) < _FEWEST:
        raise DataError(
            f"{len(runs)} runs; a law whose coefficients differ between runs needs {_FEWEST} or more. For the "
            "coefficients of one run of a known equation use pdessl.evaluation.classical.weak_form."
        )
    flat = runs.fields.double().movedim(1, 0).flatten(2)
    still = (flat.std(dim=2, correction=0) <= 1e-12 * flat.abs().amax(dim=2).clamp_min(1e-300)).any(dim=0)
    if bool(still.any()):
        raise DataError(
            f"a field of run {int(still.nonzero()[0])} is constant, and so are {int(still.sum())} in all: it obeys any "
            "law. Leave these runs, or this field, out."
        )
    library = tuple(default_library(runs.fields.shape[1], len(runs.space)) if terms is None else terms)
    widths = [tuple(half_width)] if half_width is not None else _widths(runs.fields.shape[2:])
    if not widths:
        raise ShapeError(
            f"{runs.fields.shape[2]} frames of {tuple(runs.fields.shape[3:])} nodes; expected 13 or more of each, so "
            "that test functions fit in and the halves of a run can be compared."
        )
    few = runs[slice(0, _TRIED)]
    means = [_moving(few)] if centred is None else [centred]
    made: dict[tuple[tuple[int, ...], bool], Grams] = {}
    for width in widths:
        for middle in [True, False] if means == [True] and centred is None else means:
            made[width, middle] = weak_grams(few, library, width, _POWER, None, middle)
    removals = [True, False] if noise_removed is None else [noise_removed]

    def scored(count: int) -> list[Candidate]:
        found = [_candidate(g, len(library), count, *key, remove) for key, g in made.items() for remove in removals]
        # Wide test functions average noise away, and with it what is small: among the candidates that are nearly as
        # reliable as the best, the law that explains most.
        enough = 1 - 2 * (1 - max(c.reliability for c in found))
        return sorted(found, key=lambda c: (c.reliability < enough, c.unexplained))

    tried = scored(1 if rank is None else rank)
    best = tried[0]
    chosen = rank
    if chosen is None:
        chosen = _rank(made[best.half_width, best.centred], len(library), best, tried)
        if chosen > 1:
            again = scored(chosen)
            best, tried = again[0], again + tried
    grams = weak_grams(runs, library, best.half_width, _POWER, None, best.centred)
    whole, halves = _normals(grams, len(library), best.noise_removed)
    law = gauged(fit(whole, chosen), whole)
    law, codes = sparsified(law, whole, halves)
    found = Candidate(
        best.half_width,
        best.centred,
        best.noise_removed,
        chosen,
        float(reliability(law, halves).min()) if chosen else 1.0,
        float(whole.loss(law.law(codes)).mean().clamp_min(0.0)),
    )
    return LatentOperator(
        terms=library,
        fitted=law,
        half_width=best.half_width,
        centred=best.centred,
        noise_removed=best.noise_removed,
        field_names=runs.field_names,
        axis_names=runs.axis_names,
        level=grams.level.median(dim=0).values,
        spread=_half_difference(law, halves).median(dim=0).values,
        candidates=(found, *tried),
        errors=_bootstrap(law, whole, codes, resamples, seed),
        count=len(runs),
    )


def _moving(runs: Trajectories) -> bool:
    """Whether some run has a mean worth subtracting."""
    fields = runs.fields.double().flatten(2)
    return bool((fields.mean(dim=2).abs() > 1e-2 * fields.std(dim=2, correction=0)).any())


def _candidate(grams: Grams, terms: int, rank: int, width: tuple[int, ...], centred: bool, remove: bool) -> Candidate:
    whole, halves = _normals(grams, terms, remove)
    law = fit(whole, rank)
    loss = float(whole.loss(law.law(encode(law, whole))).mean().clamp_min(0.0))
    sure = float(reliability(law, halves).min()) if rank else 1.0
    return Candidate(width, centred, remove, rank, sure if sure == sure else 0.0, loss)


def _rank(grams: Grams, terms: int, best: Candidate, tried: list[Candidate]) -> int:
    """Return the smallest rank at which the unexplained share stops falling; what was tried is appended."""
    made = []
    for rank in range(4):
        if rank >= len(grams):
            break
        made.append(_candidate(grams, terms, rank, best.half_width, best.centred, best.noise_removed))
        tried.append(made[-1])
        if rank and (made[-1].unexplained >= 0.6 * made[-2].unexplained or made[-1].reliability < 0.8):
            return rank - 1
    return len(made) - 1


def _bootstrap(law: Fitted, normal: Normal, codes: Tensor, resamples: int, seed: int) -> Tensor:
    """Return standard errors of c0 and C over resampled runs, with the codes held."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(resamples):
        rows = torch.randint(len(codes), (len(codes),), generator=generator).to(codes.device)
        part = coefficients(codes[rows], Normal(normal.gram[rows], normal.right[rows]), law.kept, law.pivots)
        drawn.append(torch.cat([part.constant[None], part.varying]))
    if len(drawn) < 2:
        return torch.zeros(law.rank + 1, *law.constant.shape, dtype=law.constant.dtype)
    return torch.stack(drawn).std(dim=0)
