"""Policies: amplitudes of actuators straight from an observation. Critics: what a state goes on to cost."""

# B batch, M observed values, A actuators, D real coordinates of a state

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Critic", "Policy"]


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*layers[:-1])


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
        self.network = _perceptron([observed, *hidden, actions])
        self.register_buffer("centre", torch.zeros(observed))
        self.register_buffer("scale", torch.ones(observed))

    def forward(self, observation: Tensor) -> Tensor:
        """Return the amplitudes."""
        return self.bound * torch.tanh(self.network((observation - self.centre) / self.scale))


class Critic(nn.Module):
    """The mean cost that follows a state, discounted: small where the state is, whatever the network says.

        m(x) = (|x|² + (s/30)²) softplus f(x/s),    f a multilayer perceptron

    Args:
        coordinates: D; the squares of a state's coordinates sum to the mean of u².
        hidden: widths of the hidden layers.

    Attributes:
        scale: s, root mean square of |x| over what it was fitted on.

    Shapes:
        (..., D) -> (...).
    """

    scale: Tensor

    def __init__(self, coordinates: int, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.init_args = {"coordinates": coordinates, "hidden": [int(h) for h in hidden]}
        self.coordinates = coordinates
        self.network = _perceptron([coordinates, *hidden, 1])
        self.register_buffer("scale", torch.ones(()))

    def forward(self, state: Tensor) -> Tensor:
        """Return m."""
        size = state.square().sum(dim=-1) + (self.scale / 30).square()
        return size * nn.functional.softplus(self.network(state / self.scale))[..., 0]
