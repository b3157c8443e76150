"""Transformers over space-time tokens: an encoder of trajectories and a predictor of hidden tokens.

A token is a small block of the grid (a tubelet). Its place enters through rotations of queries and keys, so that
attention depends on the distance between tokens only; on a periodic axis the angles are multiples of a full turn, so
that the distance is that on the circle. Any number of tokens per axis works without retraining a table.
"""

# B batch, C channels (field components), T time frames, X space (one axis per dimension), N tokens, D width, H heads

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdessl.errors import ShapeError
from pdessl.models.representation import Representation, left_open
from pdessl.models.spacing import log_spacing

__all__ = ["SpaceTimeTransformer", "TokenPredictor", "next_window", "token_positions"]


def token_positions(grid: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Return the index of each token along each axis, (N, axes), float32, the last axis fastest."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(grid))


class _Rotation(nn.Module):
    """Angles by which pairs of query and key channels are turned.

    The pairs of a head are dealt out to the axes. On an open axis pair j turns by position · 100^(-j/J); on a periodic
    axis of n tokens by position · 2π (j + 1)/n.

    Source: Su et al. (2021), arXiv:2104.09864; several axes and the circle: our choice.
    """

    def __init__(self, head_width: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        pairs = head_width // 2
        self.periodic = tuple(bool(p) for p in periodic)
        share = pairs // len(self.periodic)
        self.counts = [share + (i < pairs - share * len(self.periodic)) for i in range(len(self.periodic))]

    def forward(self, positions: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return cosine and sine, (..., N, pairs), of tokens at positions (..., N, axes) of a grid."""
        angles = []
        for axis, count in enumerate(self.counts):
            j = torch.arange(count, dtype=torch.float32, device=positions.device)
            frequency = 2 * math.pi * (j + 1) / grid[axis] if self.periodic[axis] else 100.0 ** (-j / max(count, 1))
            angles.append(positions[..., axis : axis + 1] * frequency)
        angle = torch.cat(angles, dim=-1)
        return torch.cos(angle), torch.sin(angle)


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class _Layer(nn.Module):
    """Attention, then a four times wider layer token by token, each on normalised tokens and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(_turn(q, cosine, sine), _turn(k, cosine, sine), v)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, d))
        return x + self.narrow(functional.gelu(self.widen(self.norm(x))))


class _Layers(nn.Module):
    """Transformer layers on tokens at given positions."""

    def __init__(self, width: int, depth: int, heads: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        if min(width, heads) < 1 or depth < 0 or width % (2 * heads):
            raise ValueError(
                f"a width of {width} is not a multiple of 2 x {heads} heads, or there are {depth} layers; give numbers "
                "that are, of at least 1."
            )
        self.rotation = _Rotation(width // heads, periodic)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, grid: Sequence[int]) -> Tensor:
        cosine, sine = self.rotation(positions, grid)
        if cosine.ndim == 3:  # other positions for every sample: one axis for the heads
            cosine, sine = cosine[:, None], sine[:, None]
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.norm(x)


class SpaceTimeTransformer(nn.Module):
    """Transformer over tubelets of a trajectory.

    Args:
        in_channels: C, field components; None: 1. A recipe of ``pdessl pretrain`` that leaves it out gets the number
            of the data's fields.
        patch: frames and nodes of a tubelet, ``(frames, *nodes)``. A grid that it does not divide is filled up at the
            end: by wrapping round on a periodic axis, by the last value on others.
        width: D of the tokens, a multiple of twice the number of heads.
        depth: layers.
        heads: attention heads.
        features: width of the features; None: the mean of the tokens, of width D. A number: a linear map of it.
        periodic: per space axis, whether it is periodic; None: one periodic axis. A recipe of ``pdessl pretrain`` that
            leaves it out gets what the views are.
        spacing: add an embedding of the logarithms of the time step and the grid spacing to every token, for data on
            different grids; :meth:`forward`, :meth:`trunk` and :meth:`tokens` then take ``spacing`` (B, 1 + d).

    Shapes:
        (B, C, T, *X) -> (B, ``feature_dim``); :meth:`tokens` gives (B, N, D), or of some tokens only (B, K, D).

    Raises:
        ShapeError: another number of channels or axes.
        ValueError: a patch that does not fit ``periodic``, or a width the heads do not divide.

    Good values: patch (4, 8), width 96, depth 4, heads 4 on two CPU cores; patch (2, 16, 16), width 384, depth 12,
        heads 6 on a GPU.

    Source: Dosovitskiy et al. (2021), arXiv:2010.11929; tubelets: Arnab et al. (2021), arXiv:2103.15691.
    """

    choose_when: ClassVar[str] = "tokens that can be left out (masked prediction), long range in time; wants most data"
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``

    def __init__(
        self,
        in_channels: int | None = None,
        patch: Sequence[int] = (4, 8),
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        features: int | None = None,
        periodic: Sequence[bool] | None = None,
        spacing: bool = False,
    ) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        in_channels = 1 if in_channels is None else in_channels
        periodic = (True,) if periodic is None else periodic
        if len(patch) != 1 + len(periodic) or len(periodic) not in (1, 2, 3) or min(patch) < 1:
            raise ValueError(
                f"SpaceTimeTransformer got patch {tuple(patch)} and periodic {tuple(periodic)}; expected one size for "
                "time and one per space axis, each at least 1."
            )
        self.init_args = {
            "in_channels": in_channels,
            "patch": [int(p) for p in patch],
            "width": width,
            "depth": depth,
            "heads": heads,
            "features": features,
            "periodic": [bool(p) for p in periodic],
            "spacing": spacing,
        }
        self.in_channels, self.patch = in_channels, tuple(int(p) for p in patch)
        self.periodic = (False, *(bool(p) for p in periodic))
        self.embed = nn.Linear(in_channels * math.prod(self.patch), width)
        self.layers = _Layers(width, depth, heads, self.periodic)
        self.uses_spacing = spacing
        if spacing:
            self.spacing = nn.Sequential(nn.Linear(len(self.patch), width), nn.GELU(), nn.Linear(width, width))
        self.head = nn.Identity() if features is None else nn.Linear(width, features)
        self.token_dim = self.trunk_dim = width
        self.feature_dim = width if features is None else features

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of the tokens (T', *X') for fields on (T, *X)."""
        return tuple(-(-n // p) for n, p in zip(grid, self.patch, strict=True))

    def patches(self, x: Tensor) -> Tensor:
        """Cut fields (B, C, T, *X) into tubelets (B, N, C · prod(patch))."""
        if x.ndim != 2 + len(self.patch) or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"SpaceTimeTransformer got fields {tuple(x.shape)}; expected (B, {self.in_channels}, T, *X) with "
                f"{len(self.patch) - 1} space axes."
            )
        for axis, (size, wraps) in enumerate(zip(self.patch, self.periodic, strict=True), start=2):
            missing = -x.shape[axis] % size
            if missing:
                last = x.narrow(axis, 0, missing) if wraps else x.narrow(axis, x.shape[axis] - 1, 1)
                shape = [missing if k == axis else -1 for k in range(x.ndim)]
                x = torch.cat([x, last if wraps else last.expand(shape)], dim=axis)
        b, c = x.shape[:2]
        cut = [n for size, p in zip(x.shape[2:], self.patch, strict=True) for n in (size // p, p)]
        axes = len(self.patch)
        order = (0, *(2 + 2 * i for i in range(axes)), 1, *(3 + 2 * i for i in range(axes)))
        return x.reshape(b, c, *cut).permute(order).reshape(b, -1, c * math.prod(self.patch))

    def tokens(self, x: Tensor, keep: Tensor | None = None, spacing: Tensor | None = None) -> Tensor:
        """Return tokens (B, N, D) in the order of :meth:`token_grid`, or only those kept.

        Args:
            x: fields (B, C, T, *X).
            keep: numbers of the tokens that the network is given, (B, K), int64; others are never seen.
            spacing: time step and grid spacing, (B, 1 + d), > 0; needed when built with ``spacing``.
        """
        values = self.embed(self.patches(x))
        grid = self.token_grid(x.shape[2:])
        positions = token_positions(grid, x.device)
        if self.uses_spacing:
            values = values + self.spacing(log_spacing(spacing, x, "SpaceTimeTransformer"))[:, None]
        if keep is not None:
            values = values.gather(1, keep[..., None].expand(-1, -1, values.shape[2]))
            positions = positions[keep]
        return self.layers(values, positions, grid)

    def trunk(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return the mean of the tokens, (B, ``trunk_dim``)."""
        return self.tokens(x, spacing=spacing).mean(dim=1)

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return features, trunk and tokens in one pass."""
        tokens = self.tokens(x, spacing=spacing)
        trunk = tokens.mean(dim=1)
        return Representation(self.head(trunk), trunk, tokens)

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return features (B, ``feature_dim``) of fields (B, C, T, *X)."""
        return self.head(self.trunk(x, spacing))


class TokenPredictor(nn.Module):
    """Predict tokens at asked places from tokens at other places.

    A transformer on the given tokens (mapped to its own width) together with one learned token per asked place; every
    token knows its place by rotation.

    Args:
        token_dim: D of the tokens of the encoder.
        periodic: per axis of the token grid, time first, whether it is periodic; None: (False, True). A recipe of
            ``pdessl pretrain`` that leaves it out gets what the views are.
        width: width inside, a multiple of twice the number of heads.
        depth: layers.
        heads: attention heads.

    Shapes:
        tokens (B, K, D) at places (B, K), asked places (B, M), grid (T', *X') -> (B, M, D).

    Source: Assran et al. (2023), arXiv:2301.08243.
    """

    time_first: ClassVar[bool] = True  # of the entries of ``periodic``

    def __init__(
        self,
        token_dim: int,
        periodic: Sequence[bool] | None = None,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.left_open = left_open(periodic=periodic)
        periodic = (False, True) if periodic is None else periodic
        self.init_args = {
            "token_dim": token_dim,
            "periodic": [bool(p) for p in periodic],
            "width": width,
            "depth": depth,
            "heads": heads,
        }
        self.enter = nn.Linear(token_dim, width)
        self.mask = nn.Parameter(torch.zeros(width))
        self.layers = _Layers(width, depth, heads, periodic)
        self.leave = nn.Linear(width, token_dim)

    def forward(self, tokens: Tensor, places: Tensor, asked: Tensor, grid: Sequence[int]) -> Tensor:
        """Return the predicted tokens (B, M, D) at the asked places."""
        if tokens.shape[:2] != places.shape or asked.shape[0] != tokens.shape[0]:
            raise ShapeError(
                f"TokenPredictor got tokens {tuple(tokens.shape)}, their places {tuple(places.shape)} and asked places "
                f"{tuple(asked.shape)}; expected (B, K, D), (B, K) and (B, M)."
            )
        positions = token_positions(grid, tokens.device)
        blank = self.mask.to(tokens.dtype).expand(*asked.shape, -1)
        values = torch.cat([self.enter(tokens), blank], dim=1)
        where = positions[torch.cat([places, asked], dim=1)]
        return self.leave(self.layers(values, where, grid)[:, places.shape[1] :])


def next_window(predictor: nn.Module, context: Tensor, grid: Sequence[int] | None) -> Tensor:
    """Return the latents that a predictor foresees of the window after a past one of the same size.

    Args:
        predictor: network on latents; where ``grid`` is given called as :class:`TokenPredictor`, with places.
        context: of the past window: tokens (B, N, D), or features (B, D) where ``grid`` is None.
        grid: of the tokens of the past window, (T', *X').
    """
    if grid is None:
        return predictor(context)
    # The token grid of both windows: the past is given, the next is asked for.
    count = context.shape[1]
    every = torch.arange(2 * count, device=context.device).expand(len(context), -1)
    return predictor(context, every[:, :count], every[:, count:], (2 * grid[0], *grid[1:]))
