"""Policies: amplitudes of actuators straight from an observation."""

# B batch, M observed values, A actuators

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Policy"]


class Policy(nn.Module):
    """Amplitudes from an observation, bound · tanh f(x), f a multilayer perceptron on standardised values.

    Args:
        observed: M.
        actions: A.
        hidden: widths of the hidden layers.
        bound: of the amplitudes.

    Shapes:
        (B, M) -> (B, A).
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, observed: int, actions: int, hidden: Sequence[int] = (128, 128), bound: float = 1.0) -> None:
        super().__init__()
        self.init_args = {
            "observed": observed,
            "actions": actions,
            "hidden": [int(h) for h in hidden],
            "bound": bound,
        }
        self.bound = bound
        widths = [observed, *hidden, actions]
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.GELU()]
        self.network = nn.Sequential(*layers[:-1])
        self.register_buffer("centre", torch.zeros(observed))
        self.register_buffer("scale", torch.ones(observed))

    def forward(self, observation: Tensor) -> Tensor:
        """Return the amplitudes."""
        return self.bound * torch.tanh(self.network((observation - self.centre) / self.scale))
