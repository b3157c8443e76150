"""A time-stepping network: the next frame from the last few, optionally conditioned on a vector."""

# B batch, C channels (field components), K past frames, J frames given out, X space, F width of the condition

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdessl.models.conditioning import ConditionCode, FrameNetwork, Modulation
from pdessl.models.padding import GridConvolution
from pdessl.models.representation import left_open

__all__ = ["DilatedNetwork", "TimeStepper"]


class _Block(nn.Module):
    """Dilated residual block."""

    def __init__(self, width: int, dilation: int, periodic: Sequence[bool], code: int, how: str) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.first = GridConvolution(width, width, 3, periodic, dilation=dilation)
        self.second = GridConvolution(width, width, 3, periodic)
        self.modulation = Modulation(code, width, how) if code else None

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        y = self.norm(x)
        if self.modulation is not None and code is not None:
            y = self.modulation(y, code)
        return x + self.second(nn.functional.gelu(self.first(y)))


class DilatedNetwork(FrameNetwork):
    """Dilated residual convolutions at full resolution: the change of the last of K frames over the next J.

    A stack of residual blocks with dilations 1, 2, 4, 8, 4, 2, 1 (repeated or cut to ``blocks``): with seven blocks and
    kernel 3 it sees 29 nodes to each side plus the second convolutions, on any grid size. Its last layer starts at 0.

    Args:
        channels: C.
        past: K, frames given.
        bundle: J, frames given out at once.
        width: hidden channels.
        blocks: residual blocks.
        condition: F, width of the conditioning vector; 0 for none.
        modulation: how it acts, see :class:`~pdessl.models.conditioning.Modulation`.
        periodic: per space axis, whether it is periodic.

    Shapes:
        frames (B, C, K, *X), condition (B, F) or None -> (B, C, J, *X). A periodic axis needs at least 8 nodes.

    Raises:
        ShapeError: frames or condition of another shape, or a condition missing.

    Source: dilated residual networks for PDEs: Stachenfeld et al. (2022), arXiv:2112.15275.
    """

    DILATIONS = (1, 2, 4, 8, 4, 2, 1)

    def __init__(
        self,
        channels: int = 1,
        past: int = 1,
        bundle: int = 1,
        width: int = 32,
        blocks: int = 7,
        condition: int = 0,
        modulation: str = "film",
        periodic: Sequence[bool] = (True,),
    ) -> None:
        super().__init__(channels, past, bundle, condition, len(periodic))
        self.init_args = {
            "channels": channels, "past": past, "bundle": bundle, "width": width, "blocks": blocks,
            "condition": condition, "modulation": modulation, "periodic": [bool(p) for p in periodic],
        }  # fmt: skip
        self.lift = GridConvolution(channels * past, width, 3, periodic)
        code = width if condition else 0
        self.code = ConditionCode(condition, code) if condition else None
        dilations = [self.DILATIONS[i % len(self.DILATIONS)] for i in range(blocks)]
        self.blocks = nn.ModuleList(_Block(width, d, periodic, code, modulation) for d in dilations)
        self.lower = GridConvolution(width, channels * bundle, 1, periodic)
        nn.init.zeros_(self.lower.convolution.weight)
        nn.init.zeros_(self.lower.convolution.bias)

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the change over the next frames."""
        self.check(frames, condition)
        code = None if self.code is None else self.code(condition)
        x = self.lift(frames.flatten(1, 2))
        for block in self.blocks:
            x = block(x, code)
        return self.lower(x).unflatten(1, (self.in_channels, self.bundle))


class TimeStepper(FrameNetwork):
    """Residual convolutional network from K past frames to the next, for codes that are learned along with it.

        u(t + Δt) = u(t) + f(u(t - (K-1) Δt), ..., u(t); condition)

    f is a :class:`DilatedNetwork`, so that training begins at persistence. What forecasts in an objective; for a
    surrogate, whose fields and conditions have fixed scales, see :class:`~pdessl.models.Surrogate`.

    Args:
        channels: C; None: 1. A recipe of ``pdessl pretrain`` that leaves it out gets the number of the data's fields.
        past: K, frames given.
        width: hidden channels.
        blocks: residual blocks.
        condition: F, width of the conditioning vector; 0 for none. The vector is standardised by a BatchNorm without
            learned parameters, as its scale moves while it is learned.
        periodic: per space axis, whether it is periodic; None: one periodic axis. A recipe of ``pdessl pretrain`` that
            leaves it out gets what the views are.

    Shapes:
        frames (B, C, K, *X), condition (B, F) or None -> (B, C, *X), in the units of the frames. A periodic axis needs
        at least 8 nodes.

    Raises:
        ShapeError: frames or condition of another shape, or a condition missing.
    """

    time_first: ClassVar[bool] = False

    def __init__(
        self,
        channels: int | None = None,
        past: int = 4,
        width: int = 32,
        blocks: int = 7,
        condition: int = 0,
        periodic: Sequence[bool] | None = None,
    ) -> None:
        opened = left_open(channels=channels, periodic=periodic)
        channels = 1 if channels is None else channels
        periodic = (True,) if periodic is None else periodic
        super().__init__(channels, past, 1, condition, len(periodic))
        self.left_open = opened
        self.init_args = {
            "channels": channels, "past": past, "width": width, "blocks": blocks, "condition": condition,
            "periodic": [bool(p) for p in periodic],
        }  # fmt: skip
        self.standardise = nn.BatchNorm1d(condition, affine=False) if condition else None
        self.network = DilatedNetwork(
            channels, past, width=width, blocks=blocks, condition=condition, periodic=periodic
        )

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the next frame."""
        self.check(frames, condition)
        if self.standardise is not None:
            condition = self.standardise(condition)
        return frames[:, :, -1] + self.network(frames, condition)[:, :, 0]

    def rollout(self, frames: Tensor, steps: int, condition: Tensor | None = None) -> Tensor:
        """Return ``steps`` further frames, each computed from its own predictions, shape (B, C, steps, *X).

        Args:
            frames: the first K frames, shape (B, C, K, *X).
            steps: number of frames, >= 1.
            condition: fixed over the rollout, shape (B, F).
        """
        predictions = []
        for _ in range(steps):
            step = self(frames, condition)
            predictions.append(step)
            frames = torch.cat([frames[:, :, 1:], step[:, :, None]], dim=2)
        return torch.stack(predictions, dim=2)
