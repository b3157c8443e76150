"""What an encoder gives of a batch, and what a network may offer besides features."""

# B batch, C channels, T time frames, X space, D feature width, N tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Representation", "RepresentationNetwork", "TokenNetwork", "left_open"]


class Representation(NamedTuple):
    """What an encoder gives of a batch, in one pass.

    Attributes:
        features: (B, D).
        trunk: what the last layers map to features, (B, D'); None for a network that does not say.
        tokens: latents by place, (B, N, D''); None for a network without.
    """

    features: Tensor
    trunk: Tensor | None = None
    tokens: Tensor | None = None


@runtime_checkable
class RepresentationNetwork(Protocol):
    """A network that gives more than features. One that only maps fields (B, C, T, *X) to (B, D) needs no method."""

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return features, trunk and tokens of standardised fields (B, C, T, *X).

        Args:
            x: fields.
            spacing: time step and grid spacing, (B, 1 + d), for a network with ``uses_spacing``; else None.
        """


@runtime_checkable
class TokenNetwork(Protocol):
    """A network whose tokens may be asked for alone, and that knows where they lie."""

    def tokens(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return tokens (B, N, D'') of standardised fields, in the order of :meth:`token_grid`."""

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return how many tokens there are along each axis, (T', *X'), for fields on (T, *X)."""


def left_open(**arguments: Any) -> tuple[str, ...]:
    """Return the names of the arguments that are None."""
    return tuple(name for name, value in arguments.items() if value is None)
