"""Surprise by features: how far those of the last frames are from those of sound runs."""

# B runs, F features, T' windows in time, S entries of a latent

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pdessl.errors import FormatError
from pdessl.inference.frame_scores import LEAST, FrameScores
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.window_scores import Spread
from pdessl.models import Encoder, follow
from pdessl.trajectory import Trajectories

__all__ = ["FeatureScores", "LatentScores"]

_BATCH = 512
_ROUNDING = 1e-12  # of a feature: one that varies by less is constant

Reader = Callable[[Trajectories], Tensor] | Encoder | PhysicsEncoder


@dataclass(frozen=True, eq=False)
class FeatureScores:
    """The squared Mahalanobis distance of features of the last frames from those of other runs, over their number.

    It foresees nothing: it says what is rare, not what is impossible. The floor of detectors that do foresee.

    Args:
        features: an encoder, hand-made features, or a function, of runs of ``window`` frames -> (B, F); with a
            function a detector cannot be saved.
        centre, root: mean, and the inverse root of the covariance of the features, (F,) and (F, F).
        window: frames.
        stride: frames from one window to the next.

    Source: Lee et al. (2018), arXiv:1807.03888.
    """

    features: Reader
    centre: Tensor
    root: Tensor
    window: int = 8
    stride: int = 2

    @staticmethod
    def fit(features: Reader, runs: Trajectories, window: int = 8, stride: int = 2) -> FeatureScores:
        """Take mean and covariance from all windows of runs, which need not be those that calibrate.

        Raises:
            FormatError: runs shorter than a window.
            DataError: not more windows than features.
        """
        held = FeatureScores(features, torch.zeros(0), torch.zeros(0), window, stride)
        read = torch.cat([part.double() for part in held._windows(runs)])
        spread = Spread()
        away = read - read.mean(dim=0)
        constant = away.abs().amax(dim=0) <= _ROUNDING * read.abs().amax(dim=0)
        spread.add(torch.where(constant, torch.zeros_like(away), away))
        return replace(held, centre=read.mean(dim=0), root=spread.root())

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("distance",)

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs, one for each window, at its last frame.

        Raises:
            FormatError: runs shorter than a window.
        """
        found = [((part.double() - self.centre) @ self.root).square().mean(dim=1) for part in self._windows(runs)]
        time = runs.time[:, self.window - 1 :: self.stride]
        return FrameScores(torch.stack(found, dim=1).clamp_min(LEAST).log()[..., None], time, time)

    def _windows(self, runs: Trajectories) -> list[Tensor]:
        frames, held = runs.fields.shape[2], self.features
        if frames < self.window:
            raise FormatError(f"runs of {frames} frames; features are those of {self.window}. Give longer runs.")
        starts = range(0, frames - self.window + 1, self.stride)
        with torch.no_grad():
            return [_read(held, runs.window(slice(t, t + self.window))) for t in starts]


def _read(features: Reader, runs: Trajectories) -> Tensor:
    if isinstance(features, Encoder):
        return features(runs).features
    return features.features(runs) if isinstance(features, PhysicsEncoder) else features(runs)


@dataclass(frozen=True, eq=False)
class LatentScores:
    """Scores by a world model: the squared error of every latent, predicted from the true ones before it.

    Over the variance of the latents of the run up to there. Of runs with actuators the amplitudes are read.

    Args:
        encoder: states (n, C, H, *X) -> latents (n, ...): an encoder, or a function, with which a detector cannot be
            saved.
        predictor: as :class:`pdessl.models.ActionPredictor`; a latent variable of it is left at 0.
        frames: H.
        on_tokens: latents are the encoder's tokens.
    """

    encoder: Callable[[Tensor], Tensor]
    predictor: nn.Module
    frames: int = 1
    on_tokens: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("latent",)

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs.

        Raises:
            FormatError: too few frames, or no amplitudes where the predictor reads them.
        """
        count, actions = int(getattr(self.predictor, "actions", 0)), runs.actions
        if runs.fields.shape[2] < self.frames + 2:
            raise FormatError(f"runs of {runs.fields.shape[2]} frames; expected {self.frames + 2} or more.")
        if count and (actions is None or actions.shape[1] != count):
            told = "none" if actions is None else str(actions.shape[1])
            raise FormatError(f"the world model reads {count} amplitudes in every frame; the runs have {told}.")
        states = runs.fields.float().unfold(2, self.frames, 1).movedim(-1, 3).movedim(2, 1)  # (B, T', C, H, *X)
        flat = states.flatten(0, 1)
        latents = self.encoder.tokens if self.on_tokens and isinstance(self.encoder, Encoder) else self.encoder
        with torch.no_grad():
            z = torch.cat([latents(flat[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)])
            z = z.unflatten(0, states.shape[:2])
            acting = z.new_zeros(len(z), z.shape[1] - 1, 0)
            if count and actions is not None:
                acting = actions[:, :, self.frames - 1 :].transpose(1, 2).to(z)
            missed = (z[:, 1:] - follow(self.predictor, z[:, :-1], acting)).flatten(2).double()
        z = z.flatten(2).double()
        seen = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)[:, None]
        mean, power = z.cumsum(dim=1) / seen, z.square().cumsum(dim=1) / seen
        size = (power - mean.square()).mean(dim=2)[:, 1:]
        floor = 1e-6 * power.mean(dim=2)[:, 1:]
        values = missed.square().mean(dim=2) / torch.maximum(size, floor).clamp_min(1e-300)
        time = runs.time[:, self.frames :]
        return FrameScores(values.clamp_min(LEAST).log()[..., None], time, time)
