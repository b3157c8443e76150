"""Block masks over space-time tokens: what is hidden and what is shown to a masked JEPA."""

# B samples, M target blocks, N tokens of the grid, L tokens along an axis, l tokens of a block along it

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import ResolutionError, SchemaError

__all__ = ["BlockMasks", "Masks"]

_ATTEMPTS = 20


class Masks(NamedTuple):
    """Token indices (into the flattened grid, last axis fastest), disjoint in every sample.

    ``context`` (B, N_c) is shown, ``targets`` (B, M, N_t) are hidden; blocks of one sample may overlap each other.
    """

    context: Tensor
    targets: Tensor


def _between(bounds: Sequence[float], generator: torch.Generator, count: int = 1) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


class BlockMasks:
    """Draws hidden blocks and the visible rest on a grid of tokens.

    Every call draws one block size and, for each sample and block, an independent place. On a periodic axis a block
    starts anywhere and wraps, so that each token is hidden equally often. On a closed axis it starts anywhere in
    0 ... L - l, both ends included: symmetric, every token is reached, and tokens near the ends less often than those
    in the middle (blocks of one size cannot do otherwise). A block that spans an axis covers it evenly. The context is
    one block without the targets, or everything but them. Contexts of a batch are cut to the length of its shortest by
    leaving out *random* tokens: cutting each in order, as public code does, hides the end of the grid, of time in
    particular. The larger the batch and the more the blocks, the more is cut.

    Args:
        grid: tokens along time and each space axis, e.g. (8, 14, 14).
        periodic: for each axis of the grid, whether it closes on itself.
        blocks: M, target blocks.
        scale: range of the share of the space tokens in a target block.
        time_extent: range of the share of the time axis in a target block; (1, 1) for tubes.
        aspect: a >= 1; ratios of sides (as shares of their axes) are drawn between 1/a and a, evenly in the logarithm,
            so that no axis is favoured.
        context_scale: range of the share of the space tokens in the context block (full time extent); (1, 1) shows all
            that is not hidden.
        min_context: tokens that must remain visible in every sample.

    Raises:
        SchemaError: a setting out of range.

    Source: Assran et al. (2023), arXiv:2301.08243, section 3 (multi-block); Bardes et al. (2024), arXiv:2404.08471
        (tubes); independent draws of scale and aspect, wrapping and random cutting are ours.
    """

    def __init__(
        self,
        grid: Sequence[int],
        periodic: Sequence[bool],
        blocks: int = 4,
        scale: Sequence[float] = (0.15, 0.2),
        time_extent: Sequence[float] = (1.0, 1.0),
        aspect: float = 1.5,
        context_scale: Sequence[float] = (1.0, 1.0),
        min_context: int = 4,
    ) -> None:
        ranges = {"scale": scale, "time_extent": time_extent, "context_scale": context_scale}
        for name, bounds in ranges.items():
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
                raise SchemaError(f"BlockMasks got {name} {list(bounds)}; expected 0 < lowest <= highest <= 1.")
        if len(grid) < 2 or len(grid) != len(periodic) or min(grid) < 1:
            raise SchemaError(
                f"BlockMasks got grid {list(grid)} and periodic {list(periodic)}; expected time and at least one space "
                "axis, with one flag for each."
            )
        if blocks < 1 or aspect < 1 or min_context < 1:
            raise SchemaError(
                f"BlockMasks got blocks {blocks}, aspect {aspect}, min_context {min_context}; expected all >= 1."
            )
        self.grid, self.periodic = tuple(grid), tuple(bool(p) for p in periodic)
        self.blocks, self.aspect, self.min_context = blocks, aspect, min_context
        self.scale, self.time_extent, self.context_scale = tuple(scale), tuple(time_extent), tuple(context_scale)

    def __call__(
        self,
        batch: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        rows: slice = slice(None),
    ) -> Masks:
        """Draw masks.

        Args:
            batch: B, samples.
            generator: where all numbers come from: the same state, the same masks. On the CPU.
            device: where the indices go.
            rows: samples whose masks are returned; all are drawn. Processes that share a batch each take their rows,
                and block sizes and the number of visible tokens are then those of one process with all of them.

        Raises:
            ResolutionError: no draw left ``min_context`` visible tokens.
        """
        for _ in range(_ATTEMPTS):
            sides = self._sides(self.scale, self.time_extent, self.aspect, generator)
            targets = self._blocks(sides, batch, self.blocks, generator)
            wide = self._sides(self.context_scale, (1.0, 1.0), 1.0, generator)
            visible = torch.zeros(batch, math.prod(self.grid), dtype=torch.bool)
            visible.scatter_(1, self._blocks(wide, batch, 1, generator).flatten(1), True)
            visible.scatter_(1, targets.flatten(1), False)
            count = int(visible.sum(dim=1).min())
            if count >= self.min_context:
                # Keys of hidden tokens are below those of all visible ones.
                keys = (torch.rand(visible.shape, generator=generator) + visible)[rows]
                context = keys.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
                return Masks(context.to(device), targets[rows].to(device))
        raise ResolutionError(
            f"BlockMasks: {self.blocks} blocks of a share {self.scale} of the grid {self.grid} left fewer than "
            f"{self.min_context} visible tokens in {_ATTEMPTS} draws. Use fewer or smaller blocks, or smaller patches."
        )

    def _sides(
        self, scale: Sequence[float], time_extent: Sequence[float], aspect: float, generator: torch.Generator
    ) -> tuple[int, ...]:
        axes = len(self.grid) - 1
        share = float(_between(scale, generator)) ** (1 / axes)
        # Centred, so that the volume does not depend on the aspect; two axes then differ by at most log a.
        logs = _between((-math.log(aspect) / 2, math.log(aspect) / 2), generator, axes)
        shares = share * (logs - logs.mean()).exp()
        every = [float(_between(time_extent, generator)), *shares.tolist()]
        return tuple(min(max(round(s * length), 1), length) for s, length in zip(every, self.grid, strict=True))

    def _blocks(self, sides: tuple[int, ...], batch: int, count: int, generator: torch.Generator) -> Tensor:
        """Tokens of blocks at random places, in order, (batch, count, tokens of a block)."""
        tokens = torch.zeros(batch, count, 1, dtype=torch.int64)
        for side, length, wraps in zip(sides, self.grid, self.periodic, strict=True):
            places = length if wraps else length - side + 1
            start = torch.randint(places, (batch, count, 1), generator=generator)
            along = ((start + torch.arange(side)) % length).sort(dim=-1).values
            tokens = (tokens[..., None] * length + along[:, :, None]).flatten(2)
        return tokens
