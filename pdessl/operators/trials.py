"""Ways of reading runs, and what the label-free diagnostics say of the laws found in each."""

# B runs, K terms, E targets, R codes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pdessl.operators.fit import encode, fit, half_codes, reliability
from pdessl.operators.latent import Candidate, normals
from pdessl.operators.library import Form
from pdessl.operators.weak import Grams, Projection, weak_grams
from pdessl.trajectory import Trajectories

__all__ = ["Trials"]

_NEARLY = 1.3  # times the least disagreement
_NOTHING = 3e-4  # of the left sides: what the test functions' own sums leave of them


class Trials:
    """Grams of a few runs, read in several ways, and what the diagnostics say of each."""

    def __init__(self, runs: Trajectories, removals: Sequence[bool]) -> None:
        self.runs, self.removals = runs, removals
        self.made: dict[tuple[Form, tuple[int, ...], bool, int, bool], tuple[Projection, Grams]] = {}

    def add(
        self, form: Form, width: tuple[int, ...], centred: bool, high_pass: int, advected: Sequence[int] = ()
    ) -> None:
        """Read the runs in a way."""
        # Neighbouring positions say nearly the same: a third of the half-width apart is enough to choose.
        stride = (1, *(max(1, h // 3) for h in width[1:]))
        projection = Projection(
            form.terms, width, form.targets, form.derived, centred, high_pass, stride, advected=tuple(advected)
        )
        key = form, width, centred, high_pass, bool(advected)
        self.made[key] = projection, weak_grams(self.runs, projection)

    def add_like(self, candidate: Candidate, high_pass: int) -> None:
        """Read the runs as a candidate does, but for the high pass."""
        projection, form = self.of(candidate)
        self.add(form, candidate.half_width, candidate.centred, high_pass, projection.advected)

    def of(self, candidate: Candidate) -> tuple[Projection, Form]:
        """Return how a candidate reads runs, and its form."""
        key = next(key for key in self.made if (key[0].name, *key[1:]) == _place(candidate))
        return self.made[key][0], key[0]

    def candidate(self, form: Form, grams: Grams, like: Candidate) -> tuple[Candidate, tuple[Tensor, Tensor]]:
        """Return what the diagnostics say, and the codes of the halves of the runs."""
        whole, halves = normals(grams, len(form.terms), like.noise_removed)
        law = fit(whole, like.rank, allowed=torch.tensor(form.mask(like.rank), device=whole.right.device))
        loss = float(whole.loss(law.law(encode(law, whole))).mean().clamp_min(0.0))
        sure = float(reliability(law, halves).min()) if like.rank else 1.0
        sure = sure if sure == sure else 0.0
        return replace(like, reliability=sure, unexplained=loss, consensus=sure), half_codes(
            law, halves
        ) if like.rank else (whole.right[:, 0, :0],) * 2

    def scored(self, rank: int) -> list[Candidate]:
        """Return all candidates at a rank, best first."""
        found, codes = [], []
        for (form, width, centred, edge, advected), (_, grams) in self.made.items():
            # What noise does to rates along the flow is not known: there is nothing to remove.
            for remove in self.removals[-1:] if advected else self.removals:
                like = Candidate(width, centred, remove, rank, 0.0, 0.0, form.name, edge, advected=advected)
                candidate, halves = self.candidate(form, grams, like)
                found.append(candidate)
                codes.append(halves)
        if rank:
            apart = [_disagreement(i, found, codes) for i in range(len(found))]
            found = [replace(c, consensus=1 - float(d.mean())) for c, d in zip(found, apart, strict=True)]
        else:
            apart = [codes[0][0].new_zeros(2)] * len(found)
        least = {name: min(c.unexplained for c in found if c.form == name) for name in {c.form for c in found}}
        # The curl has lost what its pressure did: it is taken where it explains much more than the rates.
        kept = "rates" in least and least["rates"] <= 2 * min(least.values())
        lead = "rates" if kept else min(least, key=least.__getitem__)
        # Halves of a run share what its way of reading gets wrong, which other ways do not: among the candidates that
        # the others agree with nearly as well as with the best, and which are not told apart from it by two standard
        # errors over runs, the law that explains most. (How well it is known how much they agree differs between data:
        # a few wild runs decide the one, none the other; and few runs tell nothing apart.)
        first = min((d for c, d in zip(found, apart, strict=True) if c.form == lead), key=lambda d: float(d.mean()))
        behind = [_behind(d, first) for d in apart]
        order = sorted(range(len(found)), key=lambda i: (found[i].form != lead, behind[i], found[i].unexplained))
        return [found[i] for i in order]

    def carriers(self, best: Candidate, rank: int) -> bool:
        """Let only those laws differ between runs that codes explain much better; return whether that leaves any out.

        Codes of others are led by what the law lacks there.
        """
        _, form = self.of(best)
        if not rank or len(form.targets) == 1:
            return False
        grams = next(g for key, (_, g) in self.made.items() if (key[0].name, *key[1:]) == _place(best))
        whole, _ = normals(grams, len(form.terms), best.noise_removed)
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
        """Return the smallest rank above which the unexplained share does not fall; what was tried is appended."""
        _, form = self.of(best)
        grams = next(g for key, (_, g) in self.made.items() if (key[0].name, *key[1:]) == _place(best))
        made = [self.candidate(form, grams, replace(best, rank=rank))[0] for rank in range(min(4, len(grams)))]
        tried += made
        for rank, current in enumerate(made):
            # Two numbers may explain what neither does alone: all higher ranks are looked at.
            later = [c.unexplained for c in made[rank + 1 :] if c.reliability >= 0.8]
            if not later or min(later) >= min(0.6 * current.unexplained, current.unexplained - _NOTHING):
                return rank
        return 0


def _place(candidate: Candidate) -> tuple[str, tuple[int, ...], bool, int, bool]:
    return candidate.form, candidate.half_width, candidate.centred, candidate.high_pass, candidate.advected


def _disagreement(i: int, found: list[Candidate], codes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return by how much the other candidates of the kind disagree with a candidate about each run, (B,).

    It is half the square of the difference of standardised codes of opposite halves, of the worst combination of codes,
    the median over the others; its mean over runs is one minus a correlation.
    """
    kind = (found[i].form, found[i].high_pass)
    others = [j for j, c in enumerate(found) if j != i and (c.form, c.high_pass) == kind]
    if len(others) < 4:  # a few ways of reading, each like one of the others, are no crowd
        return _differences(*codes[i])
    pairs = [((codes[i][0], codes[j][1]), (codes[i][1], codes[j][0])) for j in others]
    made = [(_differences(*first) + _differences(*second)) / 2 for first, second in pairs]
    return torch.stack(made).median(dim=0).values


def _behind(apart: Tensor, least: Tensor) -> bool:
    """Return whether the others disagree more with a candidate than with the best, both (B,)."""
    more = apart - least
    return bool(apart.mean() > _NEARLY * least.mean()) or bool(more.mean() > 2 * more.std() / len(more) ** 0.5)


def _differences(first: Tensor, second: Tensor) -> Tensor:
    if not (bool(first.isfinite().all()) and bool(second.isfinite().all())):
        return torch.ones_like(first[:, 0])
    bases = [torch.linalg.qr(part - part.mean(dim=0)).Q for part in (first, second)]
    left, _, right = torch.linalg.svd(bases[0].T @ bases[1])
    return ((bases[0] @ left)[:, -1] - (bases[1] @ right.T)[:, -1]).square() * len(first) / 2
