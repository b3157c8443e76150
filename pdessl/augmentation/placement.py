"""Placement: what has to be done to each axis, what a view reads, and where its window may lie."""

# B batch, T time frames, P nodes of the view, d space axes

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pdessl.augmentation.coefficients import map_shape
from pdessl.augmentation.plan import Plan
from pdessl.augmentation.slice_affine import SliceAffine, inverse_matrix
from pdessl.augmentation.strengths import Factor
from pdessl.errors import ShapeError, SymmetryError
from pdessl.symmetry.boundary import keeps_walls
from pdessl.trajectory import Trajectories

__all__ = ["TIMES", "constant", "draw_start", "largest_fitting", "make_plan", "room", "starts"]

TIMES: tuple[Literal["random", "early", "late"], ...] = ("random", "early", "late")


def starts(time: str, frames: int, window: int) -> tuple[int, int]:
    """Return the first and last frame at which a window may start.

    Args:
        time: ``random``; ``early``: the window lies within the first half, or starts at the first frame where it is
            longer; ``late``: the same from the end.
        frames: of the trajectory.
        window: frames of the window.
    """
    spare, room_of_half = frames - window, max(frames // 2 - window, 0)
    if time == "early":
        return 0, min(room_of_half, spare)
    return (max(spare - room_of_half, 0), spare) if time == "late" else (0, spare)


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a float64 vector that is copied to a device once; copying it for every batch would wait for the device."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def make_plan(factors: Sequence[Factor], mode: str, window: tuple[int, ...] | None, batch: Trajectories) -> Plan:
    """Return the plan for a kind of batch.

    Raises:
        ShapeError: a window that does not fit the batch, or an empty batch.
        SymmetryError: a map that the mode cannot express.
    """
    if not len(batch):
        raise ShapeError("the batch holds no trajectories, so that there is nothing to view; give at least one.")
    d, frames, sizes = len(batch.space), batch.fields.shape[2], tuple(batch.fields.shape[3:])
    chosen = (frames, *sizes) if window is None else window
    if len(chosen) != 1 + d or any(not 1 <= w <= n for w, n in zip(chosen, (frames, *sizes), strict=False)):
        raise ShapeError(
            f"window {chosen} does not fit trajectories with {frames} frames and {sizes} nodes; give (frames, "
            "*points), each at least 1 and at most the size of the trajectory."
        )
    shapes = [map_shape(f.flow, batch.field_names, batch.axis_names) for f in factors]
    points, boundary = tuple(chosen[1:]), batch.boundary
    mixes, whole = any(s.mixes for s in shapes), [p == n for p, n in zip(points, sizes, strict=True)]
    actions, carried = [], []
    for i in range(d):
        scales, shifts = any(s.scales[i] for s in shapes), any(s.shifts[i] for s in shapes)
        varies = mixes or any(s.varies[i] for s in shapes)
        carry = scales and whole[i] and not varies
        if mode != "grid" or (not shifts and not varies and (carry or not scales)):
            action = "cut"
        elif boundary[i] == "periodic" and not varies and (carry or not scales):
            action = "fourier"
        else:
            action = "spline"
        actions.append("mixed" if mixes and mode == "grid" else action)
        carried.append(carry)
    if mode == "metadata":
        guilty = [f.name for f, s in zip(factors, shapes, strict=True) if s.mixes or any(s.varies) or s.slides]
        if guilty:
            raise SymmetryError(
                f"mode 'metadata' cannot express '{guilty[0]}': it moves the frames differently or mixes the axes. "
                "Use mode='grid' or mode='coords'."
            )
    tilts = [any(s.tilts[i] for s in shapes) for i in range(d)]
    kept = []
    for i, kind in enumerate(boundary):
        if kind == "periodic":
            stays = whole[i] and not tilts[i] and actions[i] in ("cut", "fourier")
        else:
            stays = whole[i] and actions[i] == "cut"
        if kind == "wall":
            stays = stays and all(keeps_walls(f.generator, batch.axis_names[i]) for f in factors)
        kept.append(kind if stays else "window")
    return Plan(
        frames=chosen[0],
        points=points,
        sizes=sizes,
        fields=batch.field_names,
        axes=batch.axis_names,
        actions=tuple(actions),
        carried=tuple(carried),
        periodic=tuple(kind == "periodic" for kind in boundary),
        bounded=tuple(i for i in range(d) if boundary[i] != "periodic" and actions[i] in ("spline", "mixed")),
        boundary=tuple(kept),
        rescaled=tuple(
            not carried[i] and any((s.scales[i] or s.varies[i] or s.mixes) and not s.rigid for s in shapes)
            for i in range(d)
        ),
        linear=any(s.linear for s in shapes),
        tilted=any(tilts),
        added=any(s.added for s in shapes),
        mixing=mixes,
    )


def reading(g: SliceAffine, plan: Plan, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last place that a view reads, in cells from its centre, each (B, d).

    A view centred at c reads the box c - S⁻¹r ± |S⁻¹|w on every frame, w the half-widths of the view.
    """
    half = constant(tuple((p - 1) / 2 for p in plan.points), spacing.device)
    inverse = inverse_matrix(g.s)
    step = inverse.abs() * (spacing[:, None, None, :] / spacing[:, None, :, None])
    # Nodes that move with the map are read where they were; only the shift counts there.
    widths = [half[i].expand(step.shape[:2]) if c else step[:, :, i] @ half for i, c in enumerate(plan.carried)]
    reach = torch.stack(widths, dim=-1)
    middle = -(inverse @ g.r[..., None])[..., 0] / spacing[:, None]
    return (middle - reach).amin(dim=1), (middle + reach).amax(dim=1)


def room(g: SliceAffine, plan: Plan, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last allowed start node along every axis, each (B, d); an empty range: it does not fit."""
    half = constant(tuple((p - 1) / 2 for p in plan.points), spacing.device)
    nodes = constant(tuple(float(n) for n in plan.sizes), spacing.device)
    lowest, highest = reading(g, plan, spacing)
    # centre = start + half must satisfy 0 <= centre + lowest and centre + highest <= nodes - 1
    tolerance = 1e-9 * nodes
    return (-lowest - half - tolerance).ceil(), (nodes - 1 - highest - half + tolerance).floor()


def largest_fitting(
    fits: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor], batch: int, device: torch.device
) -> Tensor:
    """Return the largest of 16/16, 15/16 ... 0 by which the strengths of each trajectory may be multiplied, (B,).

    Args:
        fits: called with factors (17 B,) and a function that repeats a tensor of B rows to match; returns (17 B,) bool.
        batch: B.
        device: where to compute.
    """
    factors = torch.arange(16, -1, -1, dtype=torch.float64, device=device) / 16
    steps = len(factors)

    def repeat(value: Tensor) -> Tensor:
        return value.expand(steps, *value.shape).reshape(steps * batch, *value.shape[1:])

    fitting = fits(factors.repeat_interleave(batch), repeat).reshape(steps, batch)
    fitting[-1] = True  # the identity reads exactly the window
    return factors[fitting.to(torch.int8).argmax(dim=0)]


def draw_start(g: SliceAffine, uniform: Tensor, plan: Plan, batch: Trajectories) -> Tensor:
    """Draw the first node along every axis, (B, d): anywhere on a periodic axis, else where it reads inside."""
    columns = []
    low, high = room(g, plan, batch.grid_spacing) if plan.bounded else (uniform, uniform)
    for i, (n, p) in enumerate(zip(plan.sizes, plan.points, strict=True)):
        if i in plan.bounded:
            choice = low[:, i] + (uniform[:, i] * (high[:, i] - low[:, i] + 1)).floor()
            columns.append(torch.minimum(choice, high[:, i]).long())
        else:
            count = n - p + 1 if not plan.periodic[i] else 1 if p == n else n
            columns.append((uniform[:, i] * count).long().clamp(max=count - 1))
    return torch.stack(columns, dim=1)
