"""Surprise by a temporal JEPA: how badly the latents of the next window are foreseen from those of the past one."""

# B runs, F frames of a window, T' positions in time, N tokens of a window, D their width, X space

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pdessl.errors import DataError, FormatError
from pdessl.inference.frame_scores import LEAST, FrameScores
from pdessl.models import Encoder, next_window, spacing_arguments
from pdessl.trajectory import Trajectories

__all__ = ["Spread", "WindowScores"]

_BATCH = 64
_ROUNDING = 1e-20  # of the square of a mean: variances below it are rounding
_LEAST_SHARE = 1e-3  # of the largest eigenvalue of the covariance of errors: smaller ones are told by too few runs


class Spread:
    """Mean and covariance of rows (n, F) that come in parts, float64; means may not be far above the deviations."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._products: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """Take rows, (n, F)."""
        rows = rows.double()
        self.count += len(rows)
        self._sum = self._sum + rows.sum(dim=0)
        self._products = self._products + rows.T @ rows

    @property
    def mean(self) -> Tensor:
        """Mean of the rows, (F,)."""
        return torch.as_tensor(self._sum) / self.count

    def root(self, least: float = 1e-6) -> Tensor:
        """Return the inverse root of the covariance, (F, F): rows times it have the covariance 1.

        Args:
            least: share of the largest eigenvalue of the correlations, below which none is taken: features differ in
                size and unit, and some are nearly functions of others.

        Raises:
            DataError: not more rows than columns.
        """
        width = len(self.mean)
        if self.count <= width:
            raise DataError(f"{self.count} windows do not tell the covariance of {width} features. Give more runs.")
        scatter = torch.as_tensor(self._products) - self.count * torch.outer(self.mean, self.mean)
        covariance = scatter / (self.count - 1)
        variance = covariance.diagonal()
        # A column that is constant but for rounding says nothing, whatever it is.
        constant = variance <= _ROUNDING * self.mean.square()
        size = torch.where(constant | (variance <= 0), torch.inf, variance.clamp_min(0.0).sqrt())
        values, vectors = torch.linalg.eigh(covariance / size[:, None] / size)
        # Contiguous as a file holds it: products of arrays that lie otherwise round otherwise.
        return ((vectors * values.clamp_min(least * float(values.max())).rsqrt()) / size[:, None]).contiguous()


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores by a temporal JEPA, of the errors with which the latents of every window are foreseen.

        e_t = f(frames t-F+1..t) - g(f(frames t-2F+1..t-F)),    latent_t = mean over tokens of |R e|²/D

    R is the inverse root of the covariance of e in sound runs, so that the score is the logarithmic loss of a Gaussian:
    what is never foreseen (the phase of chaos) counts little, what always is (what a law fixes) counts much. ``mean``
    is the same of the mean of e over all tokens, with a covariance of its own: what the window is like, wherever in
    space it is so.

    Args:
        encoder: f, with tokens where they are foreseen.
        predictor: g, see :func:`pdessl.models.next_window`.
        frames: F.
        on_tokens: tokens are foreseen, otherwise features.
        with_places: the predictor is told the places of tokens.
        roots: R of tokens and of their mean, (2, D, D), see :meth:`fitted`; of features both are the same.

    Raises (:meth:`scores`):
        FormatError: fewer than 2 F frames.
        DataError: roots were not fitted.
    """

    encoder: Encoder
    predictor: nn.Module
    frames: int
    on_tokens: bool = True
    with_places: bool = True
    roots: Tensor | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("latent", "mean") if self.on_tokens else ("latent",)

    def fitted(self, runs: Trajectories) -> WindowScores:
        """Return this with covariances of the errors in sound runs, which may not be those that set thresholds.

        Raises:
            DataError: not more windows than entries of a latent.
        """
        every, mean = Spread(), Spread()
        for start in range(0, len(runs), _BATCH):
            for error in self._errors(runs[slice(start, start + _BATCH)]):
                every.add(error.flatten(0, 1))
                mean.add(error.mean(dim=1))
        return replace(self, roots=torch.stack([every.root(_LEAST_SHARE), mean.root(_LEAST_SHARE)]))

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs, one for each window from the second on, at its last frame."""
        if self.roots is None:
            raise DataError("the errors of sound runs are not known yet; calibrate: SurpriseDetector.fit(scores, runs)")
        tokens, mean = self.roots.to(runs.device)
        values, places = [], []
        for error in self._errors(runs):
            square = (error @ tokens).square().mean(dim=2)
            found = [square.mean(dim=1)]
            if self.on_tokens:
                found.append((error.mean(dim=1) @ mean).square().mean(dim=1))
                places.append(self._on_grid(square, runs))
            values.append(torch.stack(found, dim=1))
        time = runs.time[:, 2 * self.frames - 1 :]
        scores = torch.stack(values, dim=1).clamp_min(LEAST).log()
        return FrameScores(scores, time, time, torch.stack(places, dim=1) if places else None)

    def _errors(self, runs: Trajectories) -> Iterator[Tensor]:
        """Return the errors (B, N, D), float64, of every window from the second on, in order (features: N = 1)."""
        length, frames = runs.fields.shape[2], self.frames
        if length < 2 * frames:
            raise FormatError(
                f"runs of {length} frames; this model foresees {frames} frames from the {frames} before them. Give "
                f"runs of {2 * frames} frames or more."
            )
        grid = self.encoder.token_grid((frames, *runs.fields.shape[3:])) if self.with_places else None
        held: list[Tensor] = []
        with torch.no_grad():
            for start in range(length - frames + 1):
                window = runs.window(slice(start, start + frames))
                given = spacing_arguments(self.encoder, window)
                seen = self.encoder.tokens if self.on_tokens else self.encoder
                held.append(seen(window.fields, **given))
                if start >= frames:
                    foreseen = next_window(self.predictor, held[start - frames], grid)
                    error = held[start].double() - foreseen.double()
                    yield error if self.on_tokens else error[:, None]

    def _on_grid(self, square: Tensor, runs: Trajectories) -> Tensor:
        """Return scores of tokens (B, N), mean over their times, at the nodes, (B, *X): those of a token are alike."""
        grid = self.encoder.token_grid((self.frames, *runs.fields.shape[3:]))
        found = square.unflatten(1, grid).mean(dim=1)
        for axis, nodes in enumerate(runs.fields.shape[3:], start=1):
            at = torch.arange(nodes, device=found.device) * found.shape[axis] // nodes
            found = found.index_select(axis, at)
        return found
