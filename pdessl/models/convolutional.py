"""A small residual convolutional encoder over time and space."""

# B batch, C channels (field components), T time frames, X space (one axis per dimension), D feature width

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.models.coordinates import append_coordinates, coordinate_channels
from pdessl.models.padding import GridConvolution
from pdessl.models.representation import Representation, left_open
from pdessl.models.spacing import append_spacing, log_spacing

__all__ = ["ConvEncoder"]


def _norm(kind: str, channels: int, axes: int) -> nn.Module:
    if kind == "batch":
        return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes](channels)
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class _Block(nn.Module):
    """Residual block: two 3-wide convolutions; the first may halve the grid."""

    def __init__(self, inputs: int, outputs: int, periodic: Sequence[bool], stride: int, norm: str) -> None:
        super().__init__()
        axes = len(periodic)
        self.first = GridConvolution(inputs, outputs, 3, periodic, stride=stride, bias=False)
        self.first_norm = _norm(norm, outputs, axes)
        self.second = GridConvolution(outputs, outputs, 3, periodic, bias=False)
        self.second_norm = _norm(norm, outputs, axes)
        # The block starts as the identity, which lets deep encoders train at the learning rate of shallow ones.
        nn.init.zeros_(self.second_norm.weight)
        # The nodes of the strided 1-wide convolution are taken first: oneDNN 3.12 writes out of bounds in its backward
        # pass (channels last, fewer than 8 channels, processors without AVX-512).
        self.every = (..., *[slice(None, None, stride)] * axes)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(GridConvolution(inputs, outputs, 1, periodic, bias=False), _norm(norm, outputs, axes))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.shortcut(x[self.every]) + self.second_norm(self.second(y)))


class ConvEncoder(nn.Module):
    """Residual convolutional encoder of trajectories: time and space are the axes of one grid.

    A stem that coarsens the grid, then stages of residual blocks, each stage after the first halving the grid and
    doubling the width. Features are the mean and the standard deviation over the grid of each channel of the pooled
    stages: the mean says how much of a pattern there is, the deviation how unevenly it is spread. Both are invariant to
    shifts along a periodic axis by multiples of the total stride. Any grid size works.

    Args:
        in_channels: C, field components; None: 1. A recipe of ``pdessl pretrain`` that leaves it out gets the number
            of the data's fields.
        width: channels of the stem and the first stage.
        blocks: residual blocks of each stage; its length is the number of stages.
        features: D. None: the pooled values themselves. A number: a head that maps them to D.
        periodic: per space axis, whether it is periodic (circular padding). One or two entries. Time and the other axes
            are padded with zeros. Views that are cut out of a periodic axis are not periodic. None: one periodic axis;
            a recipe of ``pdessl pretrain`` that leaves it out gets what the views are.
        norm: ``batch`` or ``group``. Group normalisation sees one trajectory at a time and removes part of its
            amplitude; batch normalisation keeps it. Across processes, batch statistics are those of each process unless
            the trainer has ``sync_batchnorm: true``.
        pool: ``all`` stages or the ``last`` one.
        stem_kernel: odd kernel size of the stem.
        stem_stride: stride of the stem; 4 costs about a quarter of 2 and gives up the finest scales.
        hidden: width of the head's hidden layer; None: the head is linear. Without ``features`` there is no head.
        stacked_frames: None: time is an axis of the grid. A number T: the T frames of a trajectory are channels, and
            the network convolves over space only, as image networks on movies of two-dimensional flows do.
        spacing: the logarithms of time step and grid spacing are 1 + d further constant channels, for data on different
            grids; the methods then take ``spacing`` (B, 1 + d).
        coordinates: the place of each node in its view is given as further channels (see
            :func:`pdessl.models.coordinates.append_coordinates`); features then depend on where in the view something
            is, which views that are shifted ask them to forget.

    Shapes:
        (B, C, T, *X) -> (B, D), where D is the attribute ``feature_dim``. :meth:`tokens` gives (B, N, ``token_dim``).

    Raises:
        ShapeError: another number of channels or axes.
        ValueError: an unknown norm or pool, no stages, or more than two space axes.

    Good values: width 24, blocks (1, 1, 1) on two CPU cores; width 64, blocks (2, 2, 2, 2) on a GPU, which with
        ``stacked_frames=16`` and ``pool="last"`` is the residual network of 18 layers of the source below but for its
        stem and its pooling.

    Source: residual blocks: He et al. (2016), arXiv:1512.03385; frames as channels: Mialon et al. (2023),
        arXiv:2307.05432.
    """

    choose_when: ClassVar[str] = "first to try with views: little data, amplitudes that matter; stacked_frames for 2D"
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``

    def __init__(
        self,
        in_channels: int | None = None,
        width: int = 24,
        blocks: Sequence[int] = (1, 1, 1),
        features: int | None = None,
        periodic: Sequence[bool] | None = None,
        norm: str = "batch",
        pool: str = "all",
        stem_kernel: int = 5,
        stem_stride: int = 2,
        hidden: int | None = None,
        stacked_frames: int | None = None,
        spacing: bool = False,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        in_channels = 1 if in_channels is None else in_channels
        periodic = (True,) if periodic is None else periodic
        if norm not in ("batch", "group") or pool not in ("all", "last"):
            raise ValueError(
                f"ConvEncoder got norm '{norm}' and pool '{pool}'; expected batch or group, and all or last."
            )
        if not blocks or len(periodic) not in (1, 2):
            raise ValueError(
                f"ConvEncoder got blocks {tuple(blocks)} and periodic {tuple(periodic)}; expected at least one "
                "stage and one or two space axes."
            )
        self.init_args = {
            "in_channels": in_channels,
            "width": width,
            "blocks": [int(b) for b in blocks],
            "features": features,
            "hidden": hidden,
            "periodic": [bool(p) for p in periodic],
            "norm": norm,
            "pool": pool,
            "stem_kernel": stem_kernel,
            "stem_stride": stem_stride,
            "stacked_frames": stacked_frames,
            "spacing": spacing,
            "coordinates": coordinates,
        }
        self.in_channels, self.uses_spacing = in_channels, spacing
        self.pool = pool
        self.stacked_frames = stacked_frames
        axes = tuple(bool(p) for p in periodic) if stacked_frames else (False, *(bool(p) for p in periodic))
        inputs = in_channels * (stacked_frames or 1) + (1 + len(periodic) if spacing else 0)
        self._located = axes if coordinates else ()
        inputs += coordinate_channels(self._located)
        self.stem = nn.Sequential(
            GridConvolution(inputs, width, stem_kernel, axes, stride=stem_stride, bias=False),
            _norm(norm, width, len(axes)),
            nn.ReLU(),
        )
        stages, channels = [], width
        for i, count in enumerate(blocks):
            outputs = width * 2**i
            stage = [_Block(channels, outputs, axes, stride=1 if i == 0 else 2, norm=norm)]
            stage += [_Block(outputs, outputs, axes, stride=1, norm=norm) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            channels = outputs
        self.stages = nn.ModuleList(stages)
        widths = [width * 2**i for i in range(len(blocks))]
        pooled = 2 * (sum(widths) if pool == "all" else widths[-1])
        if features is None:
            self.head = nn.Identity()
        elif hidden is None:
            self.head = nn.Linear(pooled, features)
        else:
            self.head = nn.Sequential(nn.Linear(pooled, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.trunk_dim = pooled
        self.token_dim = widths[-1]
        self.feature_dim = pooled if features is None else features
        if len(axes) == 2:
            self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return features (B, D) of fields (B, C, T, *X)."""
        return self.head(self.trunk(x, spacing))

    def trunk(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the pooled values (B, ``trunk_dim``), what the head maps to features."""
        return self._pooled(self._stages(x, spacing))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return features, trunk and tokens in one pass."""
        stages = self._stages(x, spacing)
        trunk = self._pooled(stages)
        return Representation(self.head(trunk), trunk, stages[-1].flatten(2).transpose(1, 2))

    def _pooled(self, stages: list[Tensor]) -> Tensor:
        pooled = []
        for values in stages if self.pool == "all" else stages[-1:]:
            # Statistics over the grid in float32 at least: a bfloat16 mean of 1,000 nodes keeps two digits.
            values = values.flatten(2).to(torch.promote_types(values.dtype, torch.float32))
            # Two plain means: torch.var_mean is many times as slow where channels lie last.
            mean = values.mean(dim=2, keepdim=True)
            variance = (values - mean).square().mean(dim=2)
            pooled += [mean[:, :, 0], torch.sqrt(variance + 1e-5)]
        return torch.cat(pooled, dim=1)

    def tokens(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the last stage node by node, (B, N, ``token_dim``), in the order of :meth:`token_grid`."""
        return self._stages(x, spacing)[-1].flatten(2).transpose(1, 2)

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of the tokens, (T', *X') or with stacked frames (X', ...), for fields on (T, *X)."""
        stride = self.init_args["stem_stride"] * 2 ** (len(self.stages) - 1)
        return tuple(-(-n // stride) for n in (grid[1:] if self.stacked_frames else grid))

    def _stages(self, x: Tensor, spacing: Tensor | None) -> list[Tensor]:
        axes = 1 + len(self.init_args["periodic"])
        frames = self.stacked_frames
        if x.ndim != axes + 2 or x.shape[1] != self.in_channels or frames not in (None, x.shape[2]):
            raise ShapeError(
                f"ConvEncoder got fields {tuple(x.shape)}; expected (B, {self.in_channels}, {frames or 'T'}, *X) with "
                f"{axes - 1} space axes."
            )
        logs = log_spacing(spacing, x, "ConvEncoder") if self.uses_spacing else None
        if frames:
            x = x.flatten(1, 2)
        if logs is not None:
            x = append_spacing(x, logs)
        if self._located:
            x = append_coordinates(x, self._located)
        if x.ndim == 4:
            # Weights and activations with channels last: 1.3 to 1.8 times as fast on two CPU cores.
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        values = []
        for stage in self.stages:
            x = stage(x)
            values.append(x)
        return values
