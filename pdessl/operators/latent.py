"""Latent operators: the evolution law that unlabelled runs obey, in which R numbers differ from run to run."""

# B runs, K terms, E targets, C fields, R codes

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import torch
from torch import Tensor

from pdessl.equations import Equation
from pdessl.errors import DataError
from pdessl.operators.fit import Fitted, Normal, Normals, encode
from pdessl.operators.library import Term
from pdessl.operators.resolution import FEWEST
from pdessl.operators.simple import simplified
from pdessl.operators.steady import steady_codes
from pdessl.operators.weak import Grams, Projection, weak_grams
from pdessl.trajectory import Trajectories

__all__ = ["Candidate", "LatentOperator", "half_difference", "normals"]


@dataclass(frozen=True)
class Candidate:
    """One way to make Grams, and what the label-free diagnostics say of the law fitted on them.

    Args:
        half_width: of the test functions, frames and nodes.
        centred: each run's mean is subtracted.
        noise_removed: the expected Gram of noise is subtracted.
        rank: R.
        reliability: smallest over the codes; 1 for rank 0.
        unexplained: mean share of the left sides, in [0, 1].
        form: what stands on the left side, ``rates`` of the fields or the ``curl`` of two.
        high_pass: waves left out below this number.
        apart: how far the codes of the two halves of a run are apart, relative to their size: in this way of reading,
            and between this one and the other candidates, the mean of both over runs. 0 where nothing was compared.
        advected: time derivatives are taken along the flow.
        refined: so many times as many nodes along periodic axes, which ``half_width`` counts.
    """

    half_width: tuple[int, ...]
    centred: bool
    noise_removed: bool
    rank: int
    reliability: float
    unexplained: float
    form: str = "rates"
    high_pass: int = 0
    apart: float = 0.0
    advected: bool = False
    refined: int = 1


@dataclass(frozen=True, eq=False)
class LatentOperator:
    """A law u_t = Σ_k (c0_k + Σ_j z_ij C_jk) w_k(u), shared by all runs i but for their codes z_i.

    Codes are coefficients of terms (those that vary most), so the law reads as an equation with R parameters. Nothing
    but the runs enters: no label, no equation; "first order in time, local, polynomial" does.

    Where the pressure of a flow without divergence is not measured, the law is one of its vorticity, ``w``.

    Args:
        projection: the library, the left sides, and how runs are read.
        fitted: the coefficients.
        noise_removed: the expected Gram of noise is subtracted.
        field_names, axis_names: of the runs it was fitted on.
        level: noise of the fields, (C,), the median over these runs.
        spread: typical half difference of the codes of the two halves of a run, (R,).
        candidates: everything that was tried, the chosen one first.
        errors: standard errors of c0 and C by bootstrap over runs, (R + 1, E, K).
        count: runs it was fitted on.
        tolerance: within which coefficients are taken for simple numbers, and for each other, in :meth:`equation`: the
            largest at which the runs are explained as well.
        waves: frames and nodes in a wave of the fields, in the tenth of the runs that have fewest
            (:func:`pdessl.operators.resolution.nodes_in_a_wave`).
        steady: codes are read with less weight for positions that the law does not describe
            (:func:`pdessl.operators.steady.steady_codes`); the law itself is of least squares.

    Source: latent parameters by prediction: Lu, Kim, Soljačić (2020), arXiv:1907.06011; weak form: Messenger and Bortz
        (2021), arXiv:2007.02848; the shared law with a code per run, in closed form, is ours.
    """

    projection: Projection
    fitted: Fitted
    noise_removed: bool
    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    level: Tensor
    spread: Tensor
    candidates: tuple[Candidate, ...]
    errors: Tensor
    count: int
    tolerance: float
    waves: tuple[float, ...] = ()
    steady: bool = False

    @property
    def terms(self) -> tuple[Term, ...]:
        """The library."""
        return self.projection.terms

    @property
    def targets(self) -> tuple[Term, ...]:
        """The left sides."""
        return self.projection.targets

    @property
    def half_width(self) -> tuple[int, ...]:
        """Half-widths of the test functions, frames and nodes."""
        return self.projection.half_width

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, measured and derived."""
        return (*self.field_names, *(d.name for d in self.projection.derived))

    @property
    def rank(self) -> int:
        """Number of codes R."""
        return self.fitted.rank

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the codes: z, or z1, z2, ..., unless a field or an axis is called so."""
        stem = next(n for n in ("z", "c", "k", "code") if n not in (*self.names, *self.axis_names))
        return (stem,) if self.rank == 1 else tuple(f"{stem}{r + 1}" for r in range(self.rank))

    @property
    def reliability(self) -> float:
        """Correlation of the codes of the two halves of the runs, by least squares, of the least reliable code."""
        return self.candidates[0].reliability

    @property
    def unexplained(self) -> float:
        """Mean share of the time derivative that the law does not explain."""
        return self.candidates[0].unexplained

    def normal(self, runs: Trajectories) -> tuple[Normal, tuple[Normal, Normal]]:
        """Return the normal equations of runs and of their halves."""
        return normals(weak_grams(self._own(runs), self.projection), len(self.terms), self.noise_removed)

    def _own(self, runs: Trajectories) -> Trajectories:
        if runs.field_names != self.field_names or runs.axis_names != self.axis_names:
            raise DataError(
                f"the law is one of {', '.join(self.field_names)} over {', '.join(self.axis_names)}; the runs have "
                f"{', '.join(runs.field_names)} over {', '.join(runs.axis_names)}. Choose or rename fields to match."
            )
        return runs

    def encode(self, runs: Trajectories) -> tuple[Tensor, Tensor]:
        """Return the codes of runs and their standard errors, (B, R) each, float64.

        The error of a code is half the difference of those of the two halves of the run, in root mean square with the
        typical one of the runs that the law was found in, which counts three times: one difference alone says little.
        Nothing here depends on which runs are encoded together. The errors are not calibrated.

        Raises:
            DataError: other fields or axes than the law's, values that are not finite, unequal time steps.
            ShapeError: runs shorter or coarser than the law's test functions.
        """
        if self.steady:
            own = self._own(runs).check_finite()
            codes, parts = steady_codes(self.fitted, own, self.projection, self.noise_removed)
            difference = (parts[:, 0] - parts[:, 1]).abs() / 2
        else:
            whole, halves = self.normal(runs)
            codes, difference = encode(self.fitted, whole), half_difference(self.fitted, halves)
        return codes, ((difference.square() + 3 * self.spread.square()) / 4).sqrt()

    def residual(self, runs: Trajectories) -> Tensor:
        """Return the share of each run's time derivative that the law leaves unexplained, (B,): a novelty score.

        It is the least share that any code leaves: that of least squares, also where codes are steady.
        Noise that was estimated is taken out of it. Where in time and space a run departs from the law:
        :func:`pdessl.operators.surprise`.
        """
        whole, _ = self.normal(runs)
        return whole.loss(self.fitted.law(encode(self.fitted, whole)))

    def __str__(self) -> str:
        letters = self.letters
        lines = []
        for c, target in enumerate(self.targets):
            parts = []
            for k, term in enumerate(self.terms):
                written = term.text(self.names, self.axis_names)
                value = float(self.fitted.constant[c, k])
                if value:
                    parts.append(f"{value:+.3g} {written}")
                for r, letter in enumerate(letters):
                    slope = float(self.fitted.varying[r, c, k])
                    if slope:
                        number = f"{slope:+.3g} ".replace("+1 ", "+ ").replace("-1 ", "- ")
                        parts.append(f"{number}{letter} {written}")
            right = " ".join(parts).removeprefix("+ ").removeprefix("+") or "0"
            lines.append(f"{target.text(self.names, self.axis_names)} = {right}")
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """Return what the diagnostics say against this law, in words; empty where nothing does."""
        said = []
        coarse = [(n, a) for n, a in zip(self.waves, ("time", *self.axis_names), strict=False) if n < FEWEST]
        if coarse:
            fewest, axis = min(coarse)
            what = "frames" if axis == "time" else "nodes"
            said.append(
                f"unresolved along {axis}: a tenth of the runs have waves of {fewest:.1f} {what} or fewer (expected "
                f"{FEWEST:.0f}); the code can be off by several percent although the halves of a run agree. Give more "
                f"{what}."
            )
        if self.unexplained > 0.05:
            grid = "the grid does not resolve the runs" if coarse else "a force acts that is not in the data"
            other = "a force acts that is not in the data, " if coarse else ""
            said.append(
                f"unexplained {self.unexplained:.0%}: {grid}, {other}a field that drives these is not measured, or the "
                "library lacks a term."
            )
        below = [c.unexplained for c in self.candidates if c.rank == self.rank - 1]
        like = [c.unexplained for c in self.candidates[1:] if c.rank == self.rank]
        if below and like and min(like) > 0.8 * min(below):
            said.append(
                f"rank {self.rank}: {self.rank} numbers a run explain hardly more than {self.rank - 1} "
                f"({min(like):.2%} unexplained, {min(below):.2%} with fewer); codes mix what differs with noise. Ask "
                "for a smaller rank."
            )
        if self.projection.high_pass:
            said.append(
                f"waves below number {self.projection.high_pass} are left out: something acts on them that is not in "
                "the data, and the law does not describe them."
            )
        if self.rank and self.reliability < 0.9:
            said.append(
                f"reliability {self.reliability:.2f}: the two halves of a run disagree about its code. Give longer or "
                "less noisy runs, or do not use the code."
            )
        return said

    def equation(self, name: str = "discovered") -> Equation:
        """Return the law as an :class:`pdessl.Equation` with parameters z (z1, z2, ... for several codes).

        Its symmetries, views and equivalence transformations follow from it like those of any other equation. For their
        sake coefficients that are simple numbers, or one another, within the law's tolerance are written so
        (:func:`pdessl.operators.simple.simplified`); ``str(law)`` has what was measured.
        """
        letters, texts, law = self.letters, [], simplified(self.fitted, self.tolerance)
        known = sorted({t.factor for t in self.terms if t.factor})
        held = {n: n if n.isidentifier() and n not in self.names else f"q{i + 1}" for i, n in enumerate(known)}
        for c, target in enumerate(self.targets):
            parts = []
            for k, term in enumerate(self.terms):
                written = term.expanded(self.names, self.axis_names, held)
                factors = [f"{float(law.constant[c, k]):.4g}"] if float(law.constant[c, k]) else []
                for r, letter in enumerate(letters):
                    slope = float(law.varying[r, c, k])
                    if slope:
                        factors.append(letter if slope == 1 else f"{slope:.4g}*{letter}")
                parts += [f"({_plain(f)})*({written})" for f in factors]
            texts.append(f"{target.expanded(self.names, self.axis_names)} = {' + '.join(parts) or '0'}")
        for derived in self.projection.derived:
            # The curl stands for fields whose divergence vanishes, or it would not determine them.
            made = [f"({_plain(f'{w:.4g}')})*{self._slope(f, a)}" for w, f, a in derived.parts]
            (_, second, _), (_, first, _) = derived.parts
            texts.append(f"{derived.name} = {' + '.join(made)}")
            texts.append(f"{self._slope(first, (1, 0))} + {self._slope(second, (0, 1))} = 0")
        used = [n for n in known if any(held[n] in text for text in texts)]
        found = Equation.parse(
            texts,
            independent=("t", *self.axis_names),
            dependent=self.names,
            parameters=(*letters, *(held[n] for n in used)),
            name=name,
            title="a law found in unlabelled runs",
        )
        # Linear laws of one axis have the projective symmetry, of degree 3.
        kept = self.fitted.kept.any(dim=0).any(dim=0)
        linear = all(sum(t.powers) <= 1 for t, keep in zip(self.terms, kept.tolist(), strict=True) if keep)
        degree = 3 if linear and len(self.axis_names) == 1 else 2
        return replace(found, ansatz={"degree": degree, "parameter_degree": 1})

    def _slope(self, field: int, orders: tuple[int, ...]) -> str:
        return Term(tuple(int(i == field) for i in range(len(self.names))), orders).text(self.names, self.axis_names)


def _plain(text: str) -> str:
    """Write a number without an exponent, which equation texts do not have."""
    number, star, letter = text.partition("*")
    return f"{Decimal(number):f}{star}{letter}" if "e" in number else text


def half_difference(law: Fitted, halves: tuple[Normals, Normals]) -> Tensor:
    """Return half the difference of the codes of the two halves of each run, (B, R)."""
    return (encode(law, halves[0]) - encode(law, halves[1])).abs() / 2


def normals(grams: Grams, terms: int, remove: bool) -> tuple[Normal, tuple[Normal, Normal]]:
    """Return the normal equations of runs and of their two halves, of Grams with this many terms."""
    noise = grams.noise if remove else torch.zeros_like(grams.noise)
    # Halves differ by at most one frame: their plain mean is that of the run.
    whole = Normal.of(grams.halves.mean(dim=1), noise, terms)
    first, second = (Normal.of(grams.halves[:, h], noise, terms) for h in (0, 1))
    return whole, (first, second)
