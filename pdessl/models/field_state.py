"""The field itself as the latent of a state."""

# B batch, C channels, H frames of a state, X nodes of one axis

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.models.representation import left_open

__all__ = ["FieldState"]


class FieldState(nn.Module):
    """A state whose latent is its last H frames as they are, standardised, a token per node; nothing is learned.

    A world model on it is a forecaster in the space of the field: with :class:`pdessl.models.GridActionPredictor` a
    convolutional one. As nothing can collapse, its objective needs no regulariser.

    Args:
        points: X, nodes of the axis.
        in_channels: C; None: 1, and in a recipe of ``pdessl pretrain`` the number of the data's fields.
        frames: H, >= 1.

    Shapes:
        (B, C, T >= H, X) -> features (B, X C H), tokens (B, X, C H).

    Raises:
        ShapeError: another grid, or fewer frames.
    """

    time_first: ClassVar[bool] = False

    def __init__(self, points: int, in_channels: int | None = None, frames: int = 1) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels)
        channels = 1 if in_channels is None else in_channels
        self.init_args: dict[str, Any] = {"points": points, "in_channels": channels, "frames": frames}
        self.in_channels, self.points, self.frames = channels, points, frames
        self.feature_dim, self.token_dim = points * channels * frames, channels * frames

    def forward(self, x: Tensor) -> Tensor:
        """Return all tokens of standardised fields in one row."""
        return self.tokens(x).flatten(1)

    def tokens(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the values at every node, (B, X, C H)."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] < self.frames or x.shape[3] != self.points:
            raise ShapeError(
                f"FieldState got fields {tuple(x.shape)}; expected (B, {self.in_channels}, at least {self.frames}, "
                f"{self.points})."
            )
        return x[:, :, x.shape[2] - self.frames :].flatten(1, 2).transpose(1, 2)

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return how many tokens there are along each axis."""
        return (1, *grid[1:])
