"""A time-stepping network: the next frame from the last few, optionally conditioned on a vector."""

# B batch, C channels (field components), K past frames, X space (one axis per dimension), F width of the condition

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.models.padding import GridConvolution
from pdessl.models.representation import left_open

__all__ = ["TimeStepper"]


class _Block(nn.Module):
    """Dilated residual block whose hidden channels are scaled and shifted by the condition (FiLM)."""

    def __init__(self, width: int, dilation: int, periodic: Sequence[bool], condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.first = GridConvolution(width, width, 3, periodic, dilation=dilation)
        self.second = GridConvolution(width, width, 3, periodic)
        self.film = nn.Linear(condition, 2 * width) if condition else None
        if self.film is not None:
            # Zero at the start: the conditioned network begins as the unconditioned one.
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        y = self.norm(x)
        if self.film is not None:
            scale, shift = self.film(condition).view(len(x), 2, -1, *(1,) * (x.ndim - 2)).unbind(1)
            y = y * (1 + scale) + shift
        return x + self.second(nn.functional.gelu(self.first(y)))


class TimeStepper(nn.Module):
    """Residual convolutional network from K past frames to the next.

        u(t + Δt) = u(t) + f(u(t - (K-1) Δt), ..., u(t); condition)

    f is a stack of residual blocks with dilations 1, 2, 4, 8, 4, 2, 1 (repeated or cut to ``blocks``): with seven
    blocks and kernel 3 it sees 29 nodes to each side plus the second convolutions, at full resolution and on any grid
    size. Its last layer starts at zero, so that training begins at persistence.

    Args:
        channels: C; None: 1. A recipe of ``pdessl pretrain`` that leaves it out gets the number of the data's fields.
        past: K, frames given.
        width: hidden channels.
        blocks: residual blocks.
        condition: F, width of the conditioning vector; 0 for none. The vector is standardised by a BatchNorm without
            learned parameters, mixed by one hidden layer, and modulates every block.
        periodic: per space axis, whether it is periodic; None: one periodic axis. A recipe of ``pdessl pretrain`` that
            leaves it out gets what the views are.

    Shapes:
        frames (B, C, K, *X), condition (B, F) or None -> (B, C, *X), in the units of the frames. A periodic axis needs
        at least 8 nodes.

    Raises:
        ShapeError: frames or condition of another shape, or a condition missing.

    Source: dilated residual networks for PDEs: Stachenfeld et al. (2022), arXiv:2112.15275; FiLM: Perez et al. (2018),
        arXiv:1709.07871.
    """

    time_first: ClassVar[bool] = False
    DILATIONS = (1, 2, 4, 8, 4, 2, 1)

    def __init__(
        self,
        channels: int | None = None,
        past: int = 4,
        width: int = 32,
        blocks: int = 7,
        condition: int = 0,
        periodic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.left_open = left_open(channels=channels, periodic=periodic)
        channels = 1 if channels is None else channels
        periodic = (True,) if periodic is None else periodic
        self.init_args = {
            "channels": channels,
            "past": past,
            "width": width,
            "blocks": blocks,
            "condition": condition,
            "periodic": [bool(p) for p in periodic],
        }
        self.in_channels, self.past, self.condition = channels, past, condition
        self.lift = GridConvolution(channels * past, width, 3, periodic)
        hidden = width if condition else 0
        self.mix = (
            nn.Sequential(nn.BatchNorm1d(condition, affine=False), nn.Linear(condition, hidden), nn.GELU())
            if condition
            else None
        )
        dilations = [self.DILATIONS[i % len(self.DILATIONS)] for i in range(blocks)]
        self.blocks = nn.ModuleList(_Block(width, d, periodic, hidden) for d in dilations)
        self.lower = GridConvolution(width, channels, 1, periodic)
        nn.init.zeros_(self.lower.convolution.weight)
        nn.init.zeros_(self.lower.convolution.bias)

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the next frame."""
        axes = len(self.init_args["periodic"])
        if frames.ndim != 3 + axes or frames.shape[1:3] != (self.in_channels, self.past):
            raise ShapeError(
                f"TimeStepper got frames {tuple(frames.shape)}; expected (B, {self.in_channels}, {self.past}, *X) "
                f"with {axes} "
                "space axes."
            )
        given = None if condition is None else tuple(condition.shape)
        wanted = (len(frames), self.condition) if self.condition else None
        if given != wanted:
            raise ShapeError(
                f"TimeStepper got a condition of shape {given}; expected {wanted}. Set condition={given and given[-1]}."
            )
        code = None if self.mix is None else self.mix(condition)
        x = self.lift(frames.flatten(1, 2))
        for block in self.blocks:
            x = block(x, code)
        return frames[:, :, -1] + self.lower(x)

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
