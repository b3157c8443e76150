"""Ways of reading runs, and what the label-free diagnostics say of the laws found in each."""

# B runs, K terms, E targets, R codes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pdessl.operators.fit import encode, fit, gauged, reliability
from pdessl.operators.latent import Candidate, normals
from pdessl.operators.library import Form
from pdessl.operators.weak import Grams, Projection, weak_grams
from pdessl.trajectory import Trajectories

__all__ = ["Trials"]

_WILD = 0.1  # of the runs, those whose codes differ most, say nothing
_CROWD = 4  # other ways of reading; fewer, each like one of the others, are no crowd
_LEAST = 1e-6  # unexplained share below which laws are equally good
_NOTHING = 3e-4  # of the left sides: what the test functions' own sums leave of them


_Way: TypeAlias = tuple[Form, tuple[int, ...], bool, int, bool, int]


class _Codes(NamedTuple):
    """Codes of the halves of runs as coefficients, (B, R) each, in units of their typical size.

    ``left`` is the mean share that the law leaves unexplained of each left side, (E,).
    """

    pivots: tuple[tuple[int, int], ...]
    first: Tensor
    second: Tensor
    left: Tensor


class Trials:
    """Grams of a few runs, read in several ways, and what the diagnostics say of each."""

    def __init__(self, runs: Trajectories, removals: Sequence[bool]) -> None:
        self.runs, self.removals = runs, removals
        self.made: dict[_Way, tuple[Projection, Grams]] = {}

    def add(
        self,
        form: Form,
        width: tuple[int, ...],
        centred: bool,
        high_pass: int,
        advected: Sequence[int] = (),
        refined: int = 1,
    ) -> None:
        """Read the runs in a way."""
        # Neighbouring positions say nearly the same: a third of the half-width apart is enough to choose.
        stride = (1, *(max(1, h // 3) for h in width[1:]))
        projection = Projection(
            form.terms,
            width,
            form.targets,
            form.derived,
            centred,
            high_pass,
            stride,
            advected=tuple(advected),
            refined=refined,
        )
        key = form, width, centred, high_pass, bool(advected), refined
        self.made[key] = projection, weak_grams(self.runs, projection)

    def add_like(self, candidate: Candidate, high_pass: int) -> None:
        """Read the runs as a candidate does, but for the high pass."""
        projection, form = self.of(candidate)
        self.add(form, candidate.half_width, candidate.centred, high_pass, projection.advected, candidate.refined)

    def of(self, candidate: Candidate) -> tuple[Projection, Form]:
        """Return how a candidate reads runs, and its form."""
        key = next(key for key in self.made if (key[0].name, *key[1:]) == _place(candidate))
        return self.made[key][0], key[0]

    def candidate(self, form: Form, grams: Grams, like: Candidate) -> tuple[Candidate, _Codes]:
        """Return what the diagnostics say, and the codes of the halves of the runs."""
        whole, halves = normals(grams, len(form.terms), like.noise_removed)
        law = fit(whole, like.rank, allowed=torch.tensor(form.mask(like.rank), device=whole.right.device))
        codes = encode(law, whole)
        left = whole.losses(law.law(codes)).mean(dim=0).clamp_min(0.0)
        unexplained = float(left.mean())
        sure = float(reliability(law, halves).min()) if like.rank else 1.0
        sure = sure if sure == sure else 0.0
        law = gauged(law, whole)
        # Codes are coefficients now, which have a size; in which order they come is of no meaning.
        order = sorted(range(like.rank), key=lambda r: law.pivots[r])
        size = encode(law, whole).abs().median(dim=0).values.clamp_min(1e-300) if like.rank else codes[0]
        first, second = ((encode(law, half) / size)[:, order] for half in halves)
        found = _Codes(tuple(sorted(law.pivots)), first, second, left)
        return replace(like, reliability=sure, unexplained=unexplained), found

    def scored(self, rank: int) -> list[Candidate]:
        """Return all candidates at a rank, best first.

        How well codes are known is told by how far those of the two halves of a run are apart, in this way of reading
        and between this one and the others, relative to their size as errors of a parameter are: halves share what
        their way of reading gets wrong, other ways do not. What is still shared is what the law lacks, of which the
        root of the unexplained share is the size. Wide test functions bring the one down and narrow ones the other:
        the least product of the first and the root of the second is taken.
        """
        found: list[Candidate] = []
        codes: list[_Codes] = []
        for (form, width, centred, edge, advected, refined), (_, grams) in self.made.items():
            # What noise does to rates along the flow is not known: there is nothing to remove.
            for remove in self.removals[-1:] if advected else self.removals:
                like = Candidate(width, centred, remove, rank, 0.0, 0.0, form.name, edge, 0.0, advected, refined)
                candidate, halves = self.candidate(form, grams, like)
                found.append(candidate)
                codes.append(halves)
        if rank:
            found = [replace(c, apart=_apart(i, found, codes)) for i, c in enumerate(found)]
        least = {name: min(c.unexplained for c in found if c.form == name) for name in {c.form for c in found}}
        # The curl has lost what its pressure did: it is taken where it explains much more than the rates.
        kept = "rates" in least and least["rates"] <= 2 * min(least.values())
        lead = "rates" if kept else min(least, key=least.__getitem__)
        return sorted(found, key=lambda c: (c.form != lead, _score(c)))

    def _grams(self, candidate: Candidate) -> Grams:
        return next(g for key, (_, g) in self.made.items() if (key[0].name, *key[1:]) == _place(candidate))

    def carriers(self, best: Candidate, rank: int) -> bool:
        """Let only those laws differ between runs that codes explain much better; return whether that leaves any out.

        Codes of others are led by what the law lacks there.
        """
        _, form = self.of(best)
        if not rank or len(form.targets) == 1:
            return False
        whole, _ = normals(self._grams(best), len(form.terms), best.noise_removed)
        left = []
        for r in (0, rank):
            law = fit(whole, r, allowed=torch.tensor(form.mask(r), device=whole.right.device))
            left.append(whole.losses(law.law(encode(law, whole))).mean(dim=0))
        carries = left[1] < 0.6 * left[0]
        if bool(carries.all()) or not bool(carries.any()):
            return False
        limited = replace(form, carriers=tuple(carries.tolist()))
        self.made = {(limited if key[0] == form else key[0], *key[1:]): value for key, value in self.made.items()}
        return True

    def rank(self, best: Candidate, tried: list[Candidate]) -> int:
        """Return the smallest rank above which no left side is explained better; what was tried is appended."""
        _, form = self.of(best)
        grams = self._grams(best)
        differ = torch.tensor(form.mask(1))[1].numel()  # coefficients, each of which might be a code
        ranks = range(min(4, len(grams), 1 + differ))
        made = [self.candidate(form, grams, replace(best, rank=rank)) for rank in ranks]
        tried += [candidate for candidate, _ in made]
        for rank, (current, now) in enumerate(made):
            # Two numbers may explain what neither does alone: all higher ranks are looked at. In much noise a few runs
            # decide how reliable a code is; one that explains most of what was left is none of noise. What a code says
            # of one field must not be lost in what is unexplained of others. About the first number halves do not agree
            # by chance: it may explain little of what a coarse grid leaves.
            most = torch.minimum(0.6 * now.left, now.left - _NOTHING)
            first = torch.minimum(0.9 * now.left, now.left - _NOTHING)
            later = [
                bool((codes.left < (most if rank or c.reliability < 0.8 else first)).any())
                for c, codes in made[rank + 1 :]
                if c.reliability >= 0.8 or (c.reliability >= 0.5 and c.unexplained <= current.unexplained / 3)
            ]
            if not any(later):
                return rank
        return 0


def _place(candidate: Candidate) -> tuple[str, tuple[int, ...], bool, int, bool, int]:
    c = candidate
    return c.form, c.half_width, c.centred, c.high_pass, c.advected, c.refined


def _score(candidate: Candidate) -> float:
    left = max(candidate.unexplained, _LEAST)
    return candidate.apart * left**0.25 if candidate.rank else left


def _apart(i: int, found: list[Candidate], codes: list[_Codes]) -> float:
    """Return how far codes of opposite halves of runs are apart, relative to their size.

    It is the mean of two numbers: of the halves in the candidate's own way of reading, and of its halves and those of
    the other candidates of its kind, the median over them. Of each it is the mean over runs without the wildest tenth,
    and over codes.
    """
    own = _differences(codes[i], codes[i])
    kind = found[i].form, found[i].high_pass
    others = [
        j
        for j, c in enumerate(found)
        if j != i and (c.form, c.high_pass) == kind and codes[j].pivots == codes[i].pivots
    ]
    if len(others) >= _CROWD:
        crossed = [_differences(codes[i], codes[j]) for j in others]
        own = (own + torch.stack(crossed).median(dim=0).values) / 2
    kept = own.sort(dim=0).values[: max(1, round((1 - _WILD) * len(own)))]
    return float(kept.mean())


def _differences(one: _Codes, other: _Codes) -> Tensor:
    """Return 2 |a - b| / (|a| + |b|) of codes of opposite halves, (B, R), from 0 to 2."""
    made = []
    for a, b in ((one.first, other.second), (one.second, other.first)):
        relative = 2 * (a - b).abs() / (a.abs() + b.abs()).clamp_min(1e-300)
        made.append(torch.where(relative.isfinite(), relative, 2.0))
    return (made[0] + made[1]) / 2
