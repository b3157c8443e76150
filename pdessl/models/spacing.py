"""Time step and grid spacing as an input of encoders, for data on different grids."""

# B batch, C channels, T time frames, X space (d axes)

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["append_spacing", "log_spacing", "spacing_arguments", "takes_spacing"]


@runtime_checkable
class _Told(Protocol):
    uses_spacing: bool


def takes_spacing(network: Any) -> bool:
    """Return whether a network says by its attribute ``uses_spacing`` that it is called with ``spacing``."""
    return isinstance(network, _Told) and network.uses_spacing


def spacing_arguments(encoder: Any, batch: Any) -> dict[str, Tensor]:
    """Return what an encoder is called with besides the fields of a batch: ``{"spacing": (B, 1 + d)}``, or nothing.

    Args:
        encoder: a network with the attribute ``uses_spacing`` if it takes the argument.
        batch: with ``time_step`` (B,) and ``grid_spacing`` (B, d), as :class:`pdessl.Trajectories`; of a view, those
            of the view.
    """
    if not takes_spacing(encoder):
        return {}
    return {"spacing": torch.cat([batch.time_step[:, None], batch.grid_spacing], dim=1)}


def log_spacing(spacing: Tensor | None, like: Tensor, encoder: str) -> Tensor:
    """Return log of time step and grid spacing (B, 1 + d), in the precision of the fields (B, C, T, *X).

    Raises:
        ShapeError: there is none, or it has another shape.
    """
    expected = (len(like), like.ndim - 2)
    if spacing is None or tuple(spacing.shape) != expected:
        found = "none" if spacing is None else str(tuple(spacing.shape))
        raise ShapeError(
            f"{encoder} was built with spacing=True and got spacing {found}; expected {expected}: the time step and "
            "the grid spacing of each trajectory. pdessl.models.embed takes them from trajectories."
        )
    return spacing.to(like.device).log().to(like.dtype)


def append_spacing(x: Tensor, logs: Tensor) -> Tensor:
    """Return x (B, C, *grid) with one constant channel more for each column of ``logs`` (B, k)."""
    constant = logs.view(*logs.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, constant.to(x.dtype)], dim=1)
