"""Views of runs whose equation nobody named: the same run at another time and place."""

# B batch, C channels, T time frames, X space nodes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.errors import ShapeError
from pdessl.trajectory import Trajectories

__all__ = ["RandomWindows", "WindowElements"]


@dataclass(frozen=True, eq=False)
class WindowElements:
    """Where the views begin: first frame and first node of each axis, (B, 1 + d), int64."""

    start: Tensor


class RandomWindows(nn.Module):
    """Cut a window out of every run, at a random place; a periodic axis is rolled, and kept whole.

    Two windows of a run obey one law with one set of parameters wherever nothing in the law depends on the time or the
    place, whatever the law is: that is all these views assume. Where the equation is known its symmetries assume more,
    see :class:`pdessl.LieAugmentation`.

    Args:
        frames: of a view, consecutive.
        points: nodes of a view along the axes that are not periodic, a number or one per axis; None: all there are,
            which assumes nothing about the place.

    Shapes:
        fields (B, C, T, *X) -> (B, C, frames, *points).

    Raises:
        ShapeError: a window larger than the runs, or points that are not one per axis.
    """

    def __init__(self, frames: int, points: int | Sequence[int] | None = None) -> None:
        super().__init__()
        self.frames = int(frames)
        self.points = points if points is None or isinstance(points, int) else tuple(map(int, points))

    def forward(
        self, batch: Trajectories, generator: torch.Generator | None = None, common: int | None = None
    ) -> tuple[Trajectories, WindowElements]:
        """Draw a window per run, and return the views with their places.

        Args:
            batch: B runs.
            generator: of the draws.
            common: V: the batch consists of groups of V runs, and all groups get the same V draws.
        """
        sizes, rows = batch.fields.shape[2:], len(batch) if common is None else common
        wanted = self._wanted(batch)
        device = batch.device if generator is None else generator.device
        uniform = draw_rows(
            lambda n, g: torch.rand((n, len(sizes)), generator=g, device=device, dtype=torch.float64), rows, generator
        )
        uniform = uniform.to(batch.device).repeat(len(batch) // rows, 1)
        fields, nodes, starts = batch.fields, [], []
        boundary = list(batch.boundary)
        for axis, (size, count) in enumerate(zip(sizes, wanted, strict=True)):
            rolled = axis > 0 and batch.boundary[axis - 1] == "periodic"
            spare = size - 1 if rolled else size - count
            start = (uniform[:, axis] * (spare + 1)).long().clamp(max=spare)
            index = start[:, None] + torch.arange(count, device=batch.device)
            held = batch.time if axis == 0 else batch.space[axis - 1]
            # A view of a periodic axis that begins elsewhere has its nodes where they were: the axis has no origin.
            nodes.append(held.gather(1, torch.arange(count, device=batch.device).expand_as(index) if rolled else index))
            fields = _taken(fields, 2 + axis, index % size)
            starts.append(start)
            if axis > 0 and count < size:
                boundary[axis - 1] = "window"
        lengths = [
            batch.lengths[:, i] if kind == batch.boundary[i] and wanted[1 + i] == sizes[1 + i] else x[:, -1] - x[:, 0]
            for i, (kind, x) in enumerate(zip(boundary, nodes[1:], strict=True))
        ]
        view = batch.replace(
            fields=fields,
            time=nodes[0],
            space=tuple(nodes[1:]),
            lengths=torch.stack(lengths, dim=1),
            boundary=tuple(boundary),
            actions=None,  # of the whole run
            actuators=(),
        )
        return view, WindowElements(torch.stack(starts, dim=1))

    def _wanted(self, batch: Trajectories) -> tuple[int, ...]:
        """Return frames and nodes of a view of these runs."""
        sizes = tuple(batch.fields.shape[2:])
        each = (self.points,) * len(batch.space) if self.points is None or isinstance(self.points, int) else self.points
        if len(each) != len(batch.space):
            raise ShapeError(f"RandomWindows has points {each}; the axes are {', '.join(batch.axis_names)}.")
        periodic = [kind == "periodic" for kind in batch.boundary]
        points = [n if p is None or whole else p for p, n, whole in zip(each, sizes[1:], periodic, strict=True)]
        wanted = (self.frames, *points)
        if any(not 1 <= w <= n for w, n in zip(wanted, sizes, strict=True)):
            raise ShapeError(
                f"windows of {wanted} (frames, {', '.join(batch.axis_names)}) do not fit runs of {sizes}; lower frames "
                "or points."
            )
        return wanted


def _taken(fields: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return entries ``index`` (B, n) of one axis of (B, ...), each row its own."""
    rows = torch.arange(len(fields), device=fields.device)[:, None]
    return fields.movedim(axis, 1)[rows, index].movedim(1, axis)
