"""Energies of learned filters: moments of a run whose measured quantities are trained."""

# B batch, C channels, T time frames, X space (d axes), K filters, W windows in time, D feature width

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d

from pdessl.errors import ShapeError
from pdessl.models.representation import Representation, left_open

__all__ = ["EnergyEncoder"]

_CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}
_TINY = 1e-12


class EnergyEncoder(nn.Module):
    """Logarithms of the energies of learned filters, and a small network on them.

        e_kw = log <(f_k * z)²>_w,    z: the fields and, with ``products``, the products of two of them

    <...> is over space and one of W windows of the frames. What :class:`pdessl.models.moments.Moments` measures are
    such energies with filters written by hand (a product and a derivative give u u_x, a difference in time z_t); here
    they are trained by whatever objective trains the encoder. Energies are invariant to shifts along periodic axes,
    exactly with ``stride`` 1, and hold no phase: of the initial field only its spectrum is kept.

    Args:
        in_channels: C, field components; None: 1, or the data's, as every encoder.
        filters: K.
        size: frames and nodes a filter spans, in time and along every space axis; None: 7 and 9 on one axis, 4 and 5 on
            two. Axes that are not periodic need as many nodes, time as many frames.
        windows: W, of equal length.
        products: whether filters see products of two fields too.
        stride: step, in frames and nodes, of the responses whose squares are averaged.
        features: D; None: the energies themselves, K·W. A number: a head maps them to D.
        hidden: width of the head's hidden layer; None: the head is linear.
        periodic: per space axis, whether it wraps round; None: one periodic axis, or what the views are.

    Shapes:
        (B, C, T, *X) -> (B, D), where D is the attribute ``feature_dim``. The trunk is (B, K·W): energies less their
        running mean, over their running deviation.

    Raises:
        ShapeError: another number of channels or axes, or fewer frames or nodes than a filter spans.
        ValueError: no filters, windows or features, or other than one or two space axes.

    Good values: 64 filters, one window, on one axis; stride 2 and windows 2 on two.
    """

    choose_when: ClassVar[str] = "parameters that act through gradients and rates, few weights; runs of one spacing"
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``

    def __init__(
        self,
        in_channels: int | None = None,
        filters: int = 64,
        size: Sequence[int] | None = None,
        windows: int = 1,
        products: bool = True,
        stride: int = 1,
        features: int | None = None,
        hidden: int | None = None,
        periodic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        in_channels = 1 if in_channels is None else in_channels
        self.periodic = tuple(bool(p) for p in ((True,) if periodic is None else periodic))
        axes = len(self.periodic)
        if axes not in (1, 2) or min(filters, windows, stride, 1 if features is None else features) < 1:
            raise ValueError(
                f"EnergyEncoder got {axes} space axes, {filters} filters, {windows} windows, stride {stride} and "
                f"features {features}; expected one or two axes, and at least 1 of the others."
            )
        self.size = tuple(int(n) for n in (size or ((7, 9) if axes == 1 else (4, 5, 5))))
        if len(self.size) != 1 + axes or min(self.size) < 1:
            raise ValueError(
                f"EnergyEncoder got size {self.size}; expected {1 + axes} numbers >= 1, of time and space."
            )
        self.in_channels, self.windows, self.stride, self.products = in_channels, windows, stride, products
        self.uses_spacing = False
        self.init_args = {
            "in_channels": in_channels,
            "filters": filters,
            "size": list(self.size),
            "windows": windows,
            "products": products,
            "stride": stride,
            "features": features,
            "hidden": hidden,
            "periodic": list(self.periodic),
        }
        seen = in_channels + (in_channels * (in_channels + 1) // 2 if products else 0)
        self.filters = nn.Parameter(_waves(filters, seen, self.size))
        self.trunk_dim = filters * windows
        self.norm = nn.BatchNorm1d(self.trunk_dim, affine=False)
        if features is None:
            self.head: nn.Module = nn.Identity()
        elif hidden is None:
            self.head = nn.Linear(self.trunk_dim, features)
        else:
            self.head = nn.Sequential(nn.Linear(self.trunk_dim, hidden), nn.GELU(), nn.Linear(hidden, features))
        self.feature_dim = self.trunk_dim if features is None else features

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return features (B, D) of fields (B, C, T, *X)."""
        return self.head(self.trunk(x, spacing))

    def trunk(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the standardised energies (B, K·W), what the head maps to features."""
        return self.norm(self.energies(x))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return features and trunk in one pass; energies have no place, so there are no tokens."""
        trunk = self.trunk(x, spacing)
        return Representation(self.head(trunk), trunk, None)

    def energies(self, x: Tensor) -> Tensor:
        """Return log <(f_k * z)²> over space and each window of time, (B, K·W), in float32 at least."""
        axes = len(self.periodic)
        nodes = [n for n, wraps in zip(x.shape[3:], self.periodic, strict=False) if not wraps]
        spans = [n for n, wraps in zip(self.size[1:], self.periodic, strict=True) if not wraps]
        frames = x.shape[2] - self.size[0] + 1 if x.ndim > 2 else 0
        rows = -(-frames // self.stride)
        if (
            x.ndim != 3 + axes
            or x.shape[1] != self.in_channels
            or rows < self.windows
            or any(map(int.__lt__, nodes, spans))
        ):
            raise ShapeError(
                f"EnergyEncoder got fields {tuple(x.shape)}; expected (B, {self.in_channels}, T, *X) with {axes} "
                f"space axes, at least {self.size[0] + self.stride * (self.windows - 1)} frames and, where not "
                f"periodic, {list(self.size[1:])} nodes."
            )
        if self.products:
            pairs = [x[:, i] * x[:, j] for i in range(self.in_channels) for j in range(i, self.in_channels)]
            x = torch.cat([x, torch.stack(pairs, dim=1)], dim=1)
        for axis, wraps in enumerate(self.periodic, start=3):
            if wraps and self.size[axis - 2] > 1:
                beyond = torch.arange(x.shape[axis] + self.size[axis - 2] - 1, device=x.device) % x.shape[axis]
                x = x.index_select(axis, beyond)
        found = _CONVOLUTIONS[1 + axes](x, self.filters.to(x.dtype), stride=self.stride)
        squares = found.to(torch.promote_types(found.dtype, torch.float32)).square().flatten(3).mean(dim=3)
        parts = [part.mean(dim=2) for part in squares.tensor_split(self.windows, dim=2)]
        return torch.cat(parts, dim=1).clamp_min(_TINY).log()


def _waves(filters: int, channels: int, size: Sequence[int]) -> Tensor:
    """Return filters (K, C, *size): waves of random length, direction and phase under a bell of random width.

    Each has zero mean, so that a response is no copy of the field's size, and unit norm.
    """
    grids = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in size], indexing="ij")
    places = torch.stack(grids).flatten(1)  # (1 + d, N)
    directions = torch.rand(filters, len(size)) * 2 - 1
    lengths = math.pi * (0.2 + 0.8 * torch.rand(filters, 1))  # a longer wave is nothing but the bell
    numbers = directions / directions.abs().amax(dim=1, keepdim=True) * lengths
    spread = torch.tensor([max(n, 2) / 2 for n in size]) * (0.3 + 0.7 * torch.rand(filters, 1))
    bell = torch.exp(-0.5 * (places / spread[:, :, None]).square().sum(dim=1))  # (K, N)
    waves = torch.cos(numbers @ places + 2 * math.pi * torch.rand(filters, 1)) * bell
    if waves.shape[1] > 1:
        waves = waves - bell * waves.sum(dim=1, keepdim=True) / bell.sum(dim=1, keepdim=True)
    mixed = torch.randn(filters, channels, 1) * waves[:, None]
    return (mixed / mixed.flatten(1).norm(dim=1)[:, None, None].clamp_min(_TINY)).unflatten(2, tuple(size))
