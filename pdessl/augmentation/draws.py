"""Random numbers of the rows of a batch that several processes share: those that one process with all rows draws."""

# n rows of this process, N of all processes

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SharedGenerator", "draw_rows"]


class SharedGenerator(torch.Generator):
    """The generator of one process's part of a batch.

    As a :class:`torch.Generator` it is this process's own: an augmentation that knows nothing of other processes draws
    other numbers in each. :func:`draw_rows` draws for the rows of *all* processes, from a generator that is the same
    in all of them and in a run on one process, and keeps this process's rows.

    Args:
        seed: of the numbers that all processes have in common.
        own_seed: of this process's own.
        first: number of this process's first row among those of all processes.
        rows: n.
        total: N.
        device: where numbers are drawn.
    """

    def __new__(
        cls, seed: int, own_seed: int, first: int, rows: int, total: int, device: torch.device
    ) -> SharedGenerator:
        """Make the generator; its base class takes a device only."""
        return super().__new__(cls, device=device)  # type: ignore[call-arg]  # torch says nothing of it

    def __init__(self, seed: int, own_seed: int, first: int, rows: int, total: int, device: torch.device) -> None:
        self.manual_seed(own_seed)
        self.common = torch.Generator(device=device).manual_seed(seed)
        self.first, self.rows, self.total = first, rows, total


def draw_rows(
    make: Callable[[int, torch.Generator | None], Tensor], rows: int, generator: torch.Generator | None, axis: int = 0
) -> Tensor:
    """Return random numbers for the rows of a batch.

    For an augmentation of your own that shall give two processes the views that one would have::

        angle = draw_rows(lambda n, g: torch.rand(n, generator=g, device=g.device), len(batch), generator)

    Args:
        make: called with a number of rows and a generator; what it returns has so many entries along ``axis``.
        rows: n, those of this process.
        generator: what the augmentation was given.
        axis: that of the rows.
    """
    if isinstance(generator, SharedGenerator) and rows == generator.rows:
        return make(generator.total, generator.common).narrow(axis, generator.first, rows)
    return make(rows, generator)
