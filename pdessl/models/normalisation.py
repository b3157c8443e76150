"""Fields in the user's units on the outside, of order one on the inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError

__all__ = ["Normalised"]


class Normalised(nn.Module):
    """A network on fields, preceded by (x - mean) / std per channel with fixed values.

    The values are those of the training data, kept as buffers, so that a saved encoder is given raw fields. They are
    the same for every trajectory: the amplitude of a single one often carries the parameter, and would be lost
    otherwise.

    Args:
        module: network on fields (B, C, T, *X).
        mean, std: one value per channel, in the units of the fields; std > 0. None: 0 and 1, to be set later with
            :meth:`set_statistics`.

    Attributes ``in_channels``, ``feature_dim`` and ``uses_spacing`` are those of the module, where it has them.
    """

    def __init__(
        self, module: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.module = module
        channels = getattr(module, "in_channels", None) or len(mean or std or (0.0,))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.set_statistics([0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std)

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Set mean and standard deviation of each channel.

        Raises:
            ShapeError: not one value per channel.
            ValueError: a std <= 0, or a value that is not finite.
        """
        mean = torch.as_tensor(mean, dtype=self.mean.dtype).reshape(-1)
        std = torch.as_tensor(std, dtype=self.std.dtype).reshape(-1)
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ShapeError(
                f"normalisation got {len(mean)} means and {len(std)} deviations; expected {len(self.mean)} each, "
                "one per channel."
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                f"normalisation got mean {mean.tolist()}, std {std.tolist()}; expected finite values and std > 0."
            )
        self.mean.copy_(mean)
        self.std.copy_(std)

    @property
    def statistics(self) -> dict[str, list[float]]:
        """Mean and std per channel as plain numbers."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self.module.feature_dim

    @property
    def uses_spacing(self) -> bool:
        """Whether the module is called with ``spacing`` besides the fields."""
        return getattr(self.module, "uses_spacing", False)

    @property
    def in_channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

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

    def trunk(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the module's ``head`` maps to features, for fields in the user's units."""
        return self.module.trunk(self.standardise(x), *args, **kwargs)

    def tokens(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's tokens (B, N, D) for fields in the user's units; further arguments are the module's."""
        return self.module.tokens(self.standardise(x), *args, **kwargs)

    def trunk_and_tokens(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the module's trunk and tokens, in one pass, for fields in the user's units."""
        return self.module.trunk_and_tokens(self.standardise(x), *args, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output for fields in the user's units; further arguments are the module's."""
        return self.module(self.standardise(x), *args, **kwargs)
