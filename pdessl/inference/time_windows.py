"""Which frames hold the information: early ones, or all, chosen without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.physics_features import moments_of
from pdessl.models import embed
from pdessl.models.discriminant import fit_discriminant, fit_views
from pdessl.trajectory import Trajectories

__all__ = ["TimeChoice", "choose_time"]

_TIE = 0.01  # a score that is so much better is noise


class TimeChoice(NamedTuple):
    """The frames to look at.

    Attributes:
        name: of the candidate chosen.
        frames: its frames.
        scores: name -> score of every candidate, at most 1.
        by: what the score is, in words.
    """

    name: str
    frames: slice
    scores: dict[str, float]
    by: str

    def __str__(self) -> str:
        tried = ", ".join(f"{name} {score:.3f}" for name, score in self.scores.items())
        return f"time: {self.name}, frames {self.frames.start} to {self.frames.stop - 1} ({self.by}: {tried})"


def choose_time(
    runs: Trajectories,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    candidates: Mapping[str, slice] | None = None,
) -> TimeChoice:
    """Choose the frames from which runs tell best what they are runs of; labels are not read.

    With groups the score is the intraclass correlation, on held-out groups, of the leading discriminant of moments of
    these frames: how much of a code is what runs of a group share. Without, it is the split-half reliability: the
    correlation, on every second run, of the codes of the two halves of the first space axis, fitted on the others to
    agree. What the halves agree in may be the setting, or how strong the initial field is all over: trust groups more.

    Args:
        runs: n of them.
        groups: group of each run, (n,); any values.
        candidates: name -> frames; default ``early`` (the first half), ``late`` (the other) and ``whole``. Where scores
            differ by less than 0.01 the shortest is taken, of two equally long ones the better.

    Raises:
        DataError: too few groups or runs.
        ShapeError: runs too short to be divided.
    """
    frames = runs.fields.shape[2]
    half = frames // 2
    if candidates is None:
        candidates = {"whole": slice(0, frames), "early": slice(0, half), "late": slice(half, frames)}
    pieces = {name: slice(*cut.indices(frames)[:2]) for name, cut in candidates.items()}
    if min(cut.stop - cut.start for cut in pieces.values()) < 4:
        raise ShapeError(f"{frames} frames are too few to choose some of them; each candidate needs 4 or more.")
    if groups is None and len(runs) < 16:
        raise DataError(f"{len(runs)} runs are too few for a split-half reliability; give 16 or more, or groups.")
    scores = {}
    for name, cut in pieces.items():
        part = runs.window(cut)
        if groups is not None:
            numbers = torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
            scores[name] = float(fit_discriminant(_moments(part), numbers).scores[0])
        else:
            scores[name] = _reliability(part)
    best = max(scores.values())
    good = [name for name, score in scores.items() if score >= best - _TIE]
    chosen = min(good, key=lambda name: (pieces[name].stop - pieces[name].start, -scores[name]))
    by = "split-half reliability" if groups is None else "shared within held-out groups"
    return TimeChoice(chosen, pieces[chosen], scores, by)


def _moments(runs: Trajectories) -> Tensor:
    made = moments_of(runs)
    return embed(made, (runs[slice(i, i + 64)] for i in range(0, len(runs), 64))).cpu()


def _reliability(runs: Trajectories) -> float:
    nodes = runs.fields.shape[3]
    first, second = (
        _moments(runs.window(slice(None), cut)) for cut in (slice(0, nodes // 2), slice(nodes // 2, nodes))
    )
    fitted = fit_views(first[::2], second[::2], 1, ridge=0.1)
    codes = torch.stack([fitted.apply(half[1::2])[:, 0] for half in (first, second)])
    found = torch.corrcoef(codes)[0, 1]
    return float(found) if bool(torch.isfinite(found)) else 0.0
