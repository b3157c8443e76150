"""U-Net for fields on grids: local detail at full resolution, far reach below, a condition in every block."""

# B batch, C channels (field components), K past frames, J frames given out, X space, F width of the condition

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.models.conditioning import ConditionCode, FrameNetwork, Modulation
from pdessl.models.padding import GridConvolution

__all__ = ["UNet"]

_NORMS = ("channels", "group", "none")


class _ChannelNorm(nn.Module):
    """LayerNorm over the channels at every node: nothing far away acts, and the grid may have any size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *(1,) * (x.ndim - 2))
        x = x - x.mean(dim=1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-5)
        return x * self.weight.view(shape) + self.bias.view(shape)


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(1, width)
    return _ChannelNorm(width) if kind == "channels" else nn.Identity()


class _Residual(nn.Module):
    """Norm, modulation, activation and convolution, twice, beside a shortcut."""

    def __init__(self, inside: int, outside: int, periodic: Sequence[bool], code: int, how: str, norm: str) -> None:
        super().__init__()
        self.norms = nn.ModuleList([_norm(norm, inside), _norm(norm, outside)])
        self.first = GridConvolution(inside, outside, 3, periodic)
        self.second = GridConvolution(outside, outside, 3, periodic)
        self.modulation = Modulation(code, outside, how) if code else None
        self.shortcut = GridConvolution(inside, outside, 1, periodic) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        y = self.first(nn.functional.gelu(self.norms[0](x)))
        y = self.norms[1](y)
        if self.modulation is not None and code is not None:
            y = self.modulation(y, code)
        return self.shortcut(x) + self.second(nn.functional.gelu(y))


class _Attention(nn.Module):
    """Self-attention over all nodes, beside a shortcut; without positions, so that shifts commute with it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.heads = _ChannelNorm(width), heads
        self.queries, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.norm(x).flatten(2).mT
        parts = self.queries(nodes).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return x + self.join(found.transpose(1, 2).flatten(2)).mT.reshape(x.shape)


class UNet(FrameNetwork):
    """U-Net of residual blocks: the change of the last of K frames over the next J.

    Every level halves the grid by a convolution of stride 2 and comes back by repeating nodes; blocks of the two ways
    are joined. On periodic axes that 2^(levels - 1) divides, the network commutes with shifts by that many nodes. On
    walled axes it pads with zeros and, without attention and with the norm over channels, nothing beyond reach acts.

    Args:
        channels: C.
        past: K, frames given.
        bundle: J, frames given out at once.
        width: hidden channels of the first level.
        multipliers: of each level; their number is that of the levels.
        blocks: residual blocks of each level and way.
        attention: self-attention at the lowest level.
        heads: of the attention.
        norm: ``channels`` (over channels, node by node), ``group`` (over channels and nodes) or ``none``.
        condition: F, width of the conditioning vector; 0 for none.
        modulation: ``film`` (with ``group`` it is AdaGN) or ``addition``.
        periodic: per space axis, whether it is periodic.

    Shapes:
        frames (B, C, K, *X), condition (B, F) or None -> (B, C, J, *X), for any sizes X.

    Raises:
        SchemaError: no level, an unknown norm or modulation, or heads that do not divide the lowest width.
        ShapeError: frames or condition of another shape, or a condition missing.

    Source: Ronneberger et al. (2015), arXiv:1505.04597; with conditions, for PDEs: Gupta, Brandstetter (2022),
        arXiv:2209.15616.
    """

    def __init__(
        self,
        channels: int = 1,
        past: int = 1,
        bundle: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: bool = False,
        heads: int = 4,
        norm: str = "channels",
        condition: int = 0,
        modulation: str = "film",
        periodic: Sequence[bool] = (True,),
    ) -> None:
        super().__init__(channels, past, bundle, condition, len(periodic))
        self.init_args = {
            "channels": channels, "past": past, "bundle": bundle, "width": width, "multipliers": list(multipliers),
            "blocks": blocks, "attention": attention, "heads": heads, "norm": norm, "condition": condition,
            "modulation": modulation, "periodic": [bool(p) for p in periodic],
        }  # fmt: skip
        widths = [width * m for m in multipliers]
        if not widths or norm not in _NORMS or (attention and widths[-1] % heads):
            raise SchemaError(
                f"UNet got multipliers {list(multipliers)}, norm '{norm}' and {heads} heads; expected one level or "
                f"more, a norm of {', '.join(_NORMS)}, and heads that divide the lowest width."
            )
        code = 2 * width if condition else 0
        self.code = ConditionCode(condition, code) if condition else None

        def stack(inside: int, outside: int) -> nn.ModuleList:
            sizes = [inside] + [outside] * blocks
            pairs = zip(sizes[:-1], sizes[1:], strict=True)
            return nn.ModuleList(_Residual(a, b, periodic, code, modulation, norm) for a, b in pairs)

        self.lift = GridConvolution(channels * past, width, 3, periodic)
        self.down = nn.ModuleList(stack(w, w) for w in widths)
        ways = list(zip(widths[:-1], widths[1:], strict=True))
        self.shrink = nn.ModuleList(GridConvolution(a, b, 3, periodic, stride=2) for a, b in ways)
        self.attention = _Attention(widths[-1], heads) if attention else None
        self.grow = nn.ModuleList(GridConvolution(b, a, 3, periodic) for a, b in ways)
        self.up = nn.ModuleList(stack(2 * a, a) for a, _ in ways)
        self.norm = _norm(norm, width)
        self.lower = GridConvolution(width, channels * bundle, 3, periodic)
        nn.init.zeros_(self.lower.convolution.weight)
        nn.init.zeros_(self.lower.convolution.bias)

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the change over the next frames."""
        self.check(frames, condition)
        code = None if self.code is None else self.code(condition)
        x, kept = self.lift(frames.flatten(1, 2)), []
        for level, blocks in enumerate(self.down):
            if level:
                kept.append(x)
                x = self.shrink[level - 1](x)
            for block in blocks:
                x = block(x, code)
        if self.attention is not None:
            x = self.attention(x)
        for level in reversed(range(len(kept))):
            x = self.grow[level](_repeated(x, kept[level].shape[2:]))
            x = torch.cat([x, kept[level]], dim=1)
            for block in self.up[level]:
                x = block(x, code)
        x = self.lower(nn.functional.gelu(self.norm(x)))
        return x.unflatten(1, (self.in_channels, self.bundle))


def _repeated(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Repeat every node twice along each axis, and cut to sizes."""
    for axis, size in enumerate(sizes, start=2):
        x = x.repeat_interleave(2, dim=axis).narrow(axis, 0, size)
    return x
