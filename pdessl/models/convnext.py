"""ConvNeXt over time and space, for trajectories in one or two space dimensions."""

# B batch, C channels (field components), T time frames, X space (one axis per dimension), D feature width, N tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdessl.errors import ShapeError
from pdessl.models.coordinates import append_coordinates, coordinate_channels
from pdessl.models.padding import GridConvolution
from pdessl.models.representation import Representation, left_open
from pdessl.models.spacing import append_spacing, log_spacing

__all__ = ["ConvNeXtEncoder"]


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, *grid), node by node."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class _Block(nn.Module):
    """Depthwise convolution, then a four times wider layer node by node, added with a small learned scale."""

    def __init__(self, width: int, kernel: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.depthwise = GridConvolution(width, width, kernel, periodic, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).movedim(1, -1))
        y = self.scale * self.narrow(functional.gelu(self.widen(y)))
        return x + y.movedim(-1, 1)


class ConvNeXtEncoder(nn.Module):
    """Stages of ConvNeXt blocks over time and space together; between stages the grid is halved.

    Args:
        in_channels: C, field components; None: 1. A recipe of ``pdessl pretrain`` that leaves it out gets the number
            of the data's fields.
        widths: channels of each stage.
        blocks: blocks of each stage, as many numbers as ``widths``.
        features: D; None: the mean over the grid of the last stage, normalised. A number: a linear map of it.
        periodic: per space axis, whether it is periodic; time is padded with zeros. None: one periodic axis; a recipe
            of ``pdessl pretrain`` that leaves it out gets what the views are.
        kernel: odd kernel size of the depthwise convolutions.
        stem_stride: stride of the first layer.
        spacing: the logarithms of time step and grid spacing are 1 + d further constant channels, for data on different
            grids; the methods then take ``spacing`` (B, 1 + d).
        coordinates: the place of each node in its view is given as further channels (see
            :func:`pdessl.models.coordinates.append_coordinates`); features then depend on where in the view something
            is, which views that are shifted ask them to forget.

    Shapes:
        (B, C, T, *X) -> (B, ``feature_dim``); :meth:`tokens` gives (B, N, ``token_dim``), normalised.

    Raises:
        ShapeError: another number of channels or axes.
        ValueError: no stage, or as many widths as there are not blocks.

    Good values: widths (16, 32, 64), blocks (1, 1, 2) on two CPU cores; (16, 32, 64, 128, 128) and (3, 3, 3, 9, 3), 16
        frames of 224 x 224 points, on a GPU.

    Source: blocks: Liu et al. (2022), arXiv:2201.03545; over space-time with those widths: arXiv:2603.13227.
    """

    choose_when: ClassVar[str] = "a GPU and more data; dense latents for temporal prediction in 2D"
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``

    def __init__(
        self,
        in_channels: int | None = None,
        widths: Sequence[int] = (16, 32, 64),
        blocks: Sequence[int] = (1, 1, 2),
        features: int | None = None,
        periodic: Sequence[bool] | None = None,
        kernel: int = 7,
        stem_stride: int = 2,
        spacing: bool = False,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        in_channels = 1 if in_channels is None else in_channels
        periodic = (True,) if periodic is None else periodic
        if not widths or len(widths) != len(blocks) or len(periodic) not in (1, 2):
            raise ValueError(
                f"ConvNeXtEncoder got widths {tuple(widths)}, blocks {tuple(blocks)} and periodic {tuple(periodic)}; "
                "expected one number of blocks per width and one or two space axes."
            )
        self.init_args = {
            "in_channels": in_channels,
            "widths": [int(w) for w in widths],
            "blocks": [int(b) for b in blocks],
            "features": features,
            "periodic": [bool(p) for p in periodic],
            "kernel": kernel,
            "stem_stride": stem_stride,
            "spacing": spacing,
            "coordinates": coordinates,
        }
        self.in_channels, self.uses_spacing = in_channels, spacing
        axes = (False, *(bool(p) for p in periodic))
        self._located = axes if coordinates else ()
        layers: list[nn.Module] = []
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if i == 0:
                inputs = in_channels + (len(axes) if spacing else 0) + coordinate_channels(self._located)
                layers.append(GridConvolution(inputs, width, 3, axes, stride=stem_stride))
                layers.append(_ChannelNorm(width))
            else:
                layers.append(_ChannelNorm(widths[i - 1]))
                layers.append(GridConvolution(widths[i - 1], width, 3, axes, stride=2))
            layers += [_Block(width, kernel, axes) for _ in range(count)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Identity() if features is None else nn.Linear(widths[-1], features)
        self.token_dim = self.trunk_dim = widths[-1]
        self.feature_dim = widths[-1] if features is None else features

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return features (B, D) of fields (B, C, T, *X)."""
        return self.head(self.trunk(x, spacing))

    def trunk(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the mean of the tokens, normalised, (B, ``trunk_dim``)."""
        return self.norm(self._last(x, spacing).mean(dim=1))

    def tokens(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the last stage node by node, normalised, (B, N, ``token_dim``), in the order of :meth:`token_grid`."""
        return self.norm(self._last(x, spacing))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return features, trunk and tokens in one pass."""
        last = self._last(x, spacing)
        trunk = self.norm(last.mean(dim=1))
        return Representation(self.head(trunk), trunk, self.norm(last))

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of the tokens (T', *X') for fields on (T, *X)."""
        stride = self.init_args["stem_stride"] * 2 ** (len(self.init_args["widths"]) - 1)
        return tuple(-(-n // stride) for n in grid)

    def _last(self, x: Tensor, spacing: Tensor | None) -> Tensor:
        """The last stage node by node, (B, N, ``token_dim``)."""
        axes = 1 + len(self.init_args["periodic"])
        if x.ndim != axes + 2 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"ConvNeXtEncoder got fields {tuple(x.shape)}; expected (B, {self.in_channels}, T, *X) with "
                f"{axes - 1} space axes."
            )
        if self.uses_spacing:
            x = append_spacing(x, log_spacing(spacing, x, "ConvNeXtEncoder"))
        if self._located:
            x = append_coordinates(x, self._located)
        return self.layers(x).flatten(2).transpose(1, 2)
