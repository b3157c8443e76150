"""Convolutions over regular grids whose padding follows the boundary of each axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["GridConvolution"]

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class GridConvolution(nn.Module):
    """Convolution that wraps around periodic axes and pads the others with zeros.

    An axis of X nodes becomes ceil(X / stride) nodes. On a periodic axis whose size the stride divides, shifting the
    input by ``stride`` nodes shifts the output by one.

    Args:
        in_channels, out_channels: channel counts.
        kernel: odd kernel size, the same on every axis.
        periodic: per grid axis, whether it is periodic; its length is the number of axes (1 to 3).
        stride: stride on every axis.
        dilation: dilation on every axis.
        bias: whether to add a bias.
        groups: groups of channels that are convolved apart; ``in_channels`` gives a depthwise convolution.

    Shapes:
        (B, in_channels, *grid) -> (B, out_channels, *grid'). A periodic axis needs at least
        dilation · (kernel - 1) / 2 nodes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        periodic: Sequence[bool],
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or len(periodic) not in _CONVOLUTIONS:
            raise ValueError(
                f"GridConvolution got kernel {kernel} on {len(periodic)} axes; expected an odd kernel on 1 to 3 axes."
            )
        reach = dilation * (kernel - 1) // 2
        self._wrap = [(axis + 2, reach) for axis, wraps in enumerate(periodic) if wraps and reach]
        self.convolution = _CONVOLUTIONS[len(periodic)](
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            dilation=dilation,
            padding=tuple(0 if wraps else reach for wraps in periodic),
            bias=bias,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved grid."""
        for axis, reach in self._wrap:
            x = _wrapped(x, axis, reach)
        return self.convolution(x)


def _wrapped(x: Tensor, axis: int, reach: int) -> Tensor:
    """Return the grid with ``reach`` nodes of a periodic axis repeated beyond each end."""
    # One concatenation: torch's circular padding makes several copies and forgets channels-last.
    between = x.shape[axis] - 2 * reach
    if between < 0:
        return torch.cat([x.narrow(axis, between + reach, reach), x, x.narrow(axis, 0, reach)], dim=axis)
    # Split, not narrowed: the gradient of a part that was narrowed is a whole grid of zeros around it.
    first, middle, last = x.split((reach, between, reach), dim=axis)
    return torch.cat([last, first, middle, last, first], dim=axis)
