"""Surprise for those who know the equation: its weak residual, and how much its parameter has changed."""

# B runs, T' positions in time, K unknowns

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pdessl.errors import FormatError
from pdessl.evaluation.classical import weak_terms, without_noise
from pdessl.inference.frame_scores import LEAST, FrameScores
from pdessl.trajectory import Trajectories

__all__ = ["EquationScores"]


@dataclass(frozen=True, eq=False)
class EquationScores:
    """Scores by the known equation, made as those of a law are: the floor of detectors that do not know it.

    ``residual`` is the squared weak residual with the unknowns found in the frames before, none of which shares data
    with the position, over the squared rest of the equation up to there; ``parameter`` is how much better other
    unknowns explain the last positions than those found before (the statistic of Chow).

    Args:
        equation: name in the catalog.
        unknown: names of parameters that differ between runs.
        constants: parameters that do not.
        recent: positions that a change is read from.
        half_width: of the test function, frames and nodes; None: a tenth of the frames (3 at least) of
            the first runs that are scored, and 6 nodes.
        noise_level: deviation of white noise on the fields where it is known, in their unit.

    Source: ``parameter``: Chow (1960); the weak form: Messenger, Bortz (2021), arXiv:2007.02848.
    """

    equation: str
    unknown: Sequence[str]
    constants: Mapping[str, float] = field(default_factory=dict)
    recent: int = 8
    half_width: Sequence[int] | None = None
    noise_level: float = 0.0

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("residual", "parameter")

    def for_frames(self, frames: int, axes: int) -> EquationScores:
        """Return this with the half-width that suits runs of so many frames and axes, where none was given."""
        if self.half_width is not None:
            return self
        return replace(self, half_width=(max(3, frames // 10), *[6] * axes))

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs.

        Raises:
            FormatError: too few frames.
        """
        frames = runs.fields.shape[2]
        half = self.for_frames(frames, len(runs.space)).half_width
        assert half is not None  # noqa: S101  (for_frames gives one)
        least = 4 * half[0] + 2 + self.recent
        if frames < least:
            raise FormatError(f"runs of {frames} frames; the equation needs {least} to be surprised. Give longer runs.")
        ones = torch.ones(len(runs), dtype=torch.float64, device=runs.device)
        known = runs.replace(parameters={name: value * ones for name, value in self.constants.items()})
        terms = weak_terms(self.equation, known, tuple(self.unknown), half, noise_level=self.noise_level)
        width = 2 * terms.reach + 1
        sums = [part.cumsum(dim=1) for part in (terms.gram, terms.right, terms.rest, terms.noise)]
        gram, right, _, noise = (_shifted(part, width) for part in sums)
        before = _solved(without_noise(gram, noise), right)
        missed = _quadratic(terms.gram, terms.right, terms.rest, before)
        count = torch.arange(1, missed.shape[1] + 1, dtype=missed.dtype, device=missed.device)
        residual = missed / (sums[2] / count).clamp_min(1e-300)
        residual[:, :width] = torch.nan
        gram, right, rest, noise = (part - _shifted(part, self.recent) for part in sums)
        left = without_noise(gram, noise)
        now, then = _solved(left, right), _shifted(before, self.recent - 1)
        moved = now - then
        gain = torch.einsum("btk,btkl,btl->bt", moved, left, moved)
        kept = torch.maximum(rest - (now * right).sum(dim=2), 1e-6 * rest).clamp_min(1e-300)
        change = gain.clamp_min(0.0) / kept
        change[:, : width + self.recent - 1] = torch.nan
        middle = runs.time[:, terms.reach : frames - terms.reach]
        values = torch.stack([residual, change], dim=2).clamp_min(LEAST).log()
        return FrameScores(values, middle, runs.time[:, 2 * terms.reach :])


def _shifted(values: Tensor, by: int) -> Tensor:
    """Move along positions, with zeros before."""
    return torch.cat([torch.zeros_like(values[:, :by]), values[:, :-by]], dim=1)[:, : values.shape[1]]


def _solved(gram: Tensor, right: Tensor) -> Tensor:
    """Return the unknowns (B, T', K); 0 where there is nothing yet."""
    size = gram.diagonal(dim1=2, dim2=3).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    scaled = gram / size[..., :, None] / size[..., None, :]
    return (torch.linalg.pinv(scaled, hermitian=True) @ (right / size)[..., None])[..., 0] / size


def _quadratic(gram: Tensor, right: Tensor, rest: Tensor, values: Tensor) -> Tensor:
    found = torch.einsum("btk,btkl,btl->bt", values, gram, values) - 2 * (right * values).sum(dim=2)
    return (found + rest).clamp_min(0.0)
