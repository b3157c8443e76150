"""Networks from a window of frames to parameters: supervised, with or without derivatives as channels, and tailored."""

# B runs, C channels, T frames, X space, P targets, D features

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.evaluation.frame_terms import FrameTerms
from pdessl.experiments.inverse_degradation import Degradation, degraded
from pdessl.experiments.inverse_sets import Held
from pdessl.inference.tailoring import Tailoring, descend
from pdessl.models import ConvEncoder, Head
from pdessl.schema import Count, Natural, Positive
from pdessl.trajectory import Trajectories

__all__ = ["Network", "TailoringSweep", "Trained", "channels", "tailor", "train"]


@dataclass(frozen=True)
class Network:
    """A residual network and how it is trained on labelled windows.

    Args:
        derivatives: derivatives in space and differences in time are further channels.
        width: channels of its first stage; stages of one block each double it.
        stages: how many.
        learning_rates: all are tried, the one with the lowest validation error is kept.
        steps: of AdamW, at most; the weights of the best look at the validation error are kept.
        batch_size: windows per step.
        weight_decay: of AdamW.
        check_every: steps between two looks.
    """

    derivatives: bool = False
    width: Count = 16
    stages: Count = 3
    learning_rates: tuple[Positive, ...] = (1e-3, 3e-3)
    steps: Count = 250
    batch_size: Count = 32
    weight_decay: Natural = 0.01
    check_every: Count = 50


@dataclass(frozen=True)
class TailoringSweep:
    """Training at test time on the residual of the equation, see :class:`pdessl.inference.tailoring.Tailoring`.

    Args:
        steps: of Adam.
        learning_rates: the one with the lowest validation error is used.
        anchor: weight of the distance from the trained weights.
    """

    steps: Count = 50
    learning_rates: tuple[Positive, ...] = (1e-5, 1e-4)
    anchor: Natural = 1.0


def channels(runs: Trajectories, derivatives: bool) -> Tensor:
    """Return what the network sees of windows, (B, C', T, *X), float32.

    With derivatives: the fields, their first to third derivatives along an only axis (first derivatives and the
    Laplacian where there are several), and the difference quotient to the next frame, of the last to the one before.
    """
    fields = runs.fields.double()
    if not derivatives:
        return fields.float()
    axes = tuple(range(3, fields.ndim))
    modes = torch.fft.rfftn(fields, dim=axes)
    waves = []
    for i, n in enumerate(fields.shape[3:]):
        number = torch.fft.rfftfreq(n, 1 / n) if i == len(axes) - 1 else torch.fft.fftfreq(n, 1 / n)
        number = torch.where(number.abs() == n // 2, 0.0, number).double()  # the highest mode has no odd derivative
        shape = [len(runs), 1, 1, *(-1 if i == j else 1 for j in range(len(axes)))]
        waves.append(
            1j * 2 * math.pi * number.reshape(shape[1:]) / runs.lengths[:, i].reshape(-1, *[1] * (len(shape) - 1))
        )
    symbols = [waves[0], waves[0] ** 2, waves[0] ** 3] if len(axes) == 1 else [*waves, sum(w**2 for w in waves)]
    found = [fields, *(torch.fft.irfftn(modes * s, s=fields.shape[3:], dim=axes) for s in symbols)]
    steps = runs.time.diff(dim=1).reshape(len(runs), 1, -1, *[1] * len(axes))
    speed = fields.diff(dim=2) / steps
    return torch.cat([*found, torch.cat([speed, speed[:, :, -1:]], dim=2)], dim=1).float()


class _Regressor(nn.Module):
    """Standardised channels to standardised logarithms of the targets as they are shown."""

    def __init__(self, settings: Network, example: Tensor, labels: Tensor) -> None:
        super().__init__()
        c, t = example.shape[1:3]
        self.body = ConvEncoder(
            in_channels=c,
            width=settings.width,
            blocks=[1] * settings.stages,
            periodic=[True] * (example.ndim - 3),
            stacked_frames=t,
        )
        self.head = Head(self.body.feature_dim, labels.shape[1], standardise=True)
        dims = (0, *range(2, example.ndim))
        shape = (1, -1, *[1] * (example.ndim - 2))
        logs = labels.log()
        self.register_buffer("mean", example.mean(dim=dims).reshape(shape))
        self.register_buffer("std", example.std(dim=dims).clamp_min(1e-12).reshape(shape))
        self.register_buffer("middle", logs.mean(dim=0))
        self.register_buffer("spread", logs.std(dim=0).clamp_min(1e-3))

    def features(self, x: Tensor) -> Tensor:
        return self.body((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised logarithms, (B, P)."""
        return self.head(self.features(x))

    def values(self, x: Tensor) -> Tensor:
        """Return the targets as they are shown, (B, P), float64."""
        return (self(x).double() * self.spread + self.middle).exp()


@dataclass(frozen=True, eq=False)
class Trained:
    """A network and what chose it.

    Args:
        network: in the mode it is used in.
        settings: how it was made.
        learning_rate: that was kept.
    """

    network: _Regressor
    settings: Network
    learning_rate: float

    @torch.no_grad()
    def read(self, runs: Trajectories) -> tuple[Tensor, Tensor]:
        """Return estimates (B, P) and features (B, D) of windows, float64."""
        values, features = [], []
        for start in range(0, len(runs), 64):
            x = channels(runs[slice(start, start + 64)], self.settings.derivatives)
            values.append(self.network.values(x))
            features.append(self.network.features(x).double())
        return torch.cat(values), torch.cat(features)


def _error(found: Tensor, truth: Tensor) -> float:
    return float(((found - truth).abs() / truth.abs()).mean())


def train(
    settings: Network,
    held: Held,
    runs: Trajectories,
    frames: int,
    noise: float,
    seed: int,
    looked_at: Trajectories,
    degradation: Degradation | None = None,
) -> Trained:
    """Train on windows of labelled runs, drawn anew every step, noise too.

    Args:
        settings: see :class:`Network`.
        held: the set.
        runs: labelled runs, whole.
        frames: of a window.
        noise: of a window, see :func:`pdessl.experiments.inverse_sets.windows`.
        seed: of weights, order, windows and noise.
        looked_at: windows of validation runs.
        degradation: of a window.
    """
    labels, aim = held.truth(runs), held.truth(looked_at)
    best: tuple[float, _Regressor, float] | None = None
    for rate in settings.learning_rates:
        torch.manual_seed(seed)
        stream = torch.Generator().manual_seed(seed)
        network = _Regressor(
            settings, channels(_drawn(runs, frames, noise, stream, degradation), settings.derivatives), labels.float()
        )
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=settings.steps + 1, pct_start=0.1)
        for step in range(1, settings.steps + 1):
            rows = torch.randint(len(runs), (min(settings.batch_size, 2 * len(runs)),), generator=stream)
            x = channels(_drawn(runs[rows], frames, noise, stream, degradation), settings.derivatives)
            aimed = ((labels[rows].log() - network.middle) / network.spread).float()
            optimiser.zero_grad()
            nn.functional.smooth_l1_loss(network(x), aimed).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            if step % settings.check_every == 0 or step == settings.steps:
                network.eval()
                error = _error(Trained(network, settings, rate).read(looked_at)[0], aim)
                if best is None or error < best[0]:
                    best = error, copy.deepcopy(network), rate
                network.train()
    assert best is not None  # noqa: S101  (the last step is always looked at)
    return Trained(best[1], settings, best[2])


def _drawn(
    runs: Trajectories, frames: int, noise: float, stream: torch.Generator, degradation: Degradation | None
) -> Trajectories:
    b, _, total = runs.fields.shape[:3]
    starts = torch.randint(total - frames + 1, (b,), generator=stream)
    taken, every = starts[:, None] + torch.arange(frames), torch.arange(b)[:, None]
    fields = runs.fields.transpose(1, 2)[every, taken].transpose(1, 2).double()
    if noise:
        spread = runs.fields.double().flatten(2).std(dim=2).reshape(b, -1, *[1] * (fields.ndim - 2))
        fields = fields + noise * spread * torch.randn(fields.shape, generator=stream, dtype=fields.dtype)
    if degradation is not None and not degradation.none:
        fields = degraded(fields, degradation, lambda *s: torch.rand(s, generator=stream, dtype=torch.float64))
    return runs.replace(fields=fields, time=runs.time[every, taken])


def tailor(trained: Trained, settings: Tailoring, held: Held, runs: Trajectories, terms: FrameTerms) -> Tensor:
    """Train a copy of a network on the residual of the windows it then reads, and return what it says, (B, P).

    Args:
        trained: the network; it stays as it is.
        settings: see :class:`pdessl.inference.tailoring.Tailoring`.
        held: the set.
        runs: windows; no label is read.
        terms: the residual of them.
    """
    x = channels(runs, trained.settings.derivatives)
    return held.of.shown(descend(trained.network, lambda own: held.of.hidden(own.values(x)), terms, settings)[1])
