"""Fields in the user's units on the outside, of order one on the inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError

__all__ = ["Normalisation"]


class Normalisation(nn.Module):
    """(x - mean) / std per channel with fixed values, kept as buffers.

    The values are those of the training data, the same for every trajectory: the amplitude of a single one often
    carries the parameter, and would be lost otherwise.

    Args:
        channels: C; None: as many as there are values, or 1 until they are set.
        mean, std: one value per channel, in the units of the fields; std > 0. None: 0 and 1, to be set later with
            :meth:`set_statistics`.

    Attributes:
        given: whether values were given or set.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        count = channels or len(mean or std or (0.0,))
        self.channels = channels if mean is None and std is None else count
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("std", torch.ones(count))
        self.given = False
        if mean is not None or std is not None:
            self.set_statistics([0.0] * count if mean is None else mean, [1.0] * count if std is None else std)

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Set mean and standard deviation of each channel.

        Raises:
            ShapeError: not one value per channel.
            ValueError: a std <= 0, or a value that is not finite.
        """
        mean = torch.as_tensor(mean, dtype=self.mean.dtype).reshape(-1)
        std = torch.as_tensor(std, dtype=self.std.dtype).reshape(-1)
        wanted = self.channels or len(mean)
        if len(mean) != wanted or len(std) != wanted:
            raise ShapeError(
                f"normalisation got {len(mean)} means and {len(std)} deviations; expected {wanted} each, one per "
                "channel."
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                f"normalisation got mean {mean.tolist()}, std {std.tolist()}; expected finite values and std > 0."
            )
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        self.channels, self.given = wanted, True

    @property
    def statistics(self) -> dict[str, list[float]]:
        """Mean and std per channel as plain numbers."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def standardise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std for fields (B, C, ...) in the user's units.

        Raises:
            ShapeError: another number of fields.
        """
        if x.shape[1] != len(self.mean):  # one field would be broadcast to as many as were wanted
            raise ShapeError(
                f"the network was trained on {len(self.mean)} fields and got {x.shape[1]} (fields {tuple(x.shape)}). "
                "Give the same fields, in the same order."
            )
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return (x.to(self.mean.dtype) - self.mean.view(shape)) / self.std.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return :meth:`standardise` of fields."""
        return self.standardise(x)
