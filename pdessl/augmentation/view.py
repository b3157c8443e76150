"""Views: the array of a view from the array of its trajectory, under a slice-affine map."""

# B batch, C channels, T time frames, X source nodes, P nodes of the view, d space axes

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.augmentation.filters import AxisFilter, Ends, filter_axes, filter_reach
from pdessl.augmentation.geometry import Geometry
from pdessl.augmentation.placement import reading
from pdessl.augmentation.plan import Plan
from pdessl.augmentation.reflections import reflect
from pdessl.augmentation.resample import sample_affine, sample_axis
from pdessl.augmentation.slice_affine import SliceAffine
from pdessl.symmetry.discrete import DiscreteSymmetry

__all__ = ["gridded", "unmoved", "with_coordinates"]

# On a processor views are made a few at a time, so that what they pass through stays in its cache.
_CACHED_BYTES = 2 << 20


@dataclass(frozen=True, eq=False)
class _Steps:
    """How an axis is read: the nodes cut out, and the filter of what was cut out."""

    starts: Tensor  # (B, d)
    counts: tuple[int, ...]
    ends: tuple[Ends, ...]  # of what was cut out
    coarsening: tuple[Tensor | None, ...]  # (B, T | 1) per axis
    apart: Tensor | None  # (B, T, d): frames shifted in Fourier space, so that all are read at the same places
    offset: Tensor  # in cells of what was cut out


def gridded(
    fields: Tensor,
    plan: Plan,
    geometry: Geometry,
    g: SliceAffine,
    spacing: Tensor,
    order: int | None,
    reflections: Sequence[DiscreteSymmetry],
) -> Tensor:
    """Return the fields of views (B, C, frames, *points), resampled at most once.

    Args:
        fields: (B, C, T, *X).
        plan: what is done to every axis.
        geometry: what every trajectory is to undergo.
        g: the map itself.
        spacing: distance of nodes, (B, d).
        order: of the B-spline; None: 5, but 3 where axes mix.
        reflections: what ``geometry.reflected`` refers to.
    """
    steps = _steps(plan, geometry, g, spacing, order, fields)
    mixed = "mixed" in plan.actions
    chosen = order if order is not None else 3 if mixed else 5

    memory: list[Tensor] = []

    def one(rows: slice) -> Tensor:
        part, step = geometry.rows(rows), _rows(steps, rows)
        values = _cut(fields[rows], part.first, plan.frames, step.starts, step.counts)
        filters: list[AxisFilter | None] = []
        for i, action in enumerate(plan.actions):
            shift = None
            if action == "fourier":
                shift = (plan.points[i] - 1) / 2 - step.offset[..., i]
            elif step.apart is not None:
                shift = step.apart[..., i]
            spline = action in ("spline", "mixed")
            needed = spline or shift is not None
            filters.append(
                AxisFilter(step.ends[i], shift, chosen if spline else None, step.coarsening[i]) if needed else None
            )
        values = filter_axes(values, filters)
        if mixed:
            values = sample_affine(values, part.matrix, step.offset, plan.points, step.ends, chosen, memory)
        for i, action in enumerate(plan.actions):
            if action == "fourier":
                values = values.narrow(3 + i, 0, plan.points[i])
            elif action == "spline":
                p = plan.points[i]
                node = torch.arange(p, dtype=torch.float64, device=values.device) - (p - 1) / 2
                places = step.offset[..., i, None] + part.matrix[:, :, i, i, None] * node
                values = sample_axis(values, places, i, step.ends[i], chosen)
        return values

    return _in_parts(fields, plan, steps.counts, geometry, one, reflections)


def unmoved(fields: Tensor, plan: Plan, geometry: Geometry, reflections: Sequence[DiscreteSymmetry]) -> Tensor:
    """Return the fields of views whose array stays in place (mode ``metadata``), (B, C, frames, *points)."""

    def one(rows: slice) -> Tensor:
        return _cut(fields[rows], geometry.first[rows], plan.frames, geometry.start[rows], plan.points)

    return _in_parts(fields, plan, plan.points, geometry, one, reflections)


def with_coordinates(fields: Tensor, plan: Plan, geometry: Geometry, time: Tensor, centre: Tensor) -> Tensor:
    """Return fields and transformed coordinates as channels (mode ``coords``), (B, C + 1 + d, frames, *points).

    Args:
        fields: (B, C, T, *X).
        plan: what is done to every axis.
        geometry: of an array that stays in place.
        time: new times, (B, frames).
        centre: position that the map acts about, (B, d).
    """
    c, d = len(plan.fields), len(plan.points)
    result = fields.new_empty((len(fields), c + 1 + d, plan.frames, *plan.points))
    parts = _parts(fields, plan, plan.points)
    memory = fields.new_empty((parts[0].stop * plan.frames * c, *plan.points))
    for rows in parts:
        part, out = geometry.rows(rows), result[rows]
        out[:, c] = time[rows].to(fields.dtype).reshape(-1, plan.frames, *[1] * d)
        for i in range(d):
            origin = part.offset[..., i] + centre[rows, i : i + 1]
            terms = _ramps(origin, part.matrix[:, :, i], part.nodes, plan.mixing, i, fields.dtype)
            if len(terms) == 1:
                out[:, c + 1 + i] = terms[0]
            else:
                # a result smaller than ``out`` would not be repeated over the frames, but written elsewhere
                first = terms[0].expand(-1, plan.frames, *terms[0].shape[2:])
                torch.add(first, terms[1], out=out[:, c + 1 + i])
                for term in terms[2:]:
                    out[:, c + 1 + i] += term
        values = _cut(fields[rows], part.first, plan.frames, part.start, plan.points, memory)
        _finish(values, part, out[:, :c])
    return result


def _ramps(
    origin: Tensor, slope: Tensor, nodes: Sequence[Tensor], mixing: bool, own: int, dtype: torch.dtype
) -> list[Tensor]:
    """Parts of origin + Σ slope_j x_j, each of one axis, (B, T | 1, ..., P_j, ...)."""
    d = len(nodes)
    parts: list[Tensor] = []
    for j in range(d):
        if not mixing and j != own:
            continue
        term = slope[:, :, j, None] * nodes[j][:, None]
        if not parts:
            term = term + origin[..., None]
        parts.append(term.to(dtype).reshape(*term.shape[:2], *[-1 if k == j else 1 for k in range(d)]))
    return parts


# ------------------------------------------------------------------------------------------------ parts of a batch


def _parts(fields: Tensor, plan: Plan, counts: Sequence[int]) -> list[slice]:
    b = len(fields)
    size = fields.element_size() * plan.frames * len(plan.fields)
    for n in counts:
        size *= n
    rows = b if fields.device.type != "cpu" else max(1, _CACHED_BYTES // size)
    return [slice(k, min(k + rows, b)) for k in range(0, b, rows)]


def _in_parts(
    fields: Tensor,
    plan: Plan,
    counts: Sequence[int],
    geometry: Geometry,
    one: Callable[[slice], Tensor],
    reflections: Sequence[DiscreteSymmetry],
) -> Tensor:
    """Make views part by part; ``one`` gives their values before they are mixed and added to, (B', T, C, *P)."""
    result = fields.new_empty((len(fields), len(plan.fields), plan.frames, *plan.points))
    for rows in _parts(fields, plan, counts):
        part = geometry.rows(rows)
        out = _finish(one(rows), part, result[rows])
        flags = () if part.reflected is None else part.reflected.unbind(dim=1)
        for given, reflection in zip(flags, reflections, strict=False):
            flag = given.reshape(-1, *[1] * (out.dim() - 1))
            out.copy_(torch.where(flag, reflect(out, reflection, plan.fields, plan.axes), out))
    return result


def _rows(steps: _Steps, rows: slice) -> _Steps:
    return dataclasses.replace(
        steps,
        starts=steps.starts[rows],
        coarsening=tuple(None if c is None else c[rows] for c in steps.coarsening),
        apart=None if steps.apart is None else steps.apart[rows],
        offset=steps.offset[rows],
    )


def _steps(
    plan: Plan, geometry: Geometry, g: SliceAffine, spacing: Tensor, order: int | None, fields: Tensor
) -> _Steps:
    """Decide what is cut out: of an axis that is read by a spline only what the views of the batch reach."""
    d, mixed = len(plan.points), "mixed" in plan.actions
    apart, offset = None, geometry.offset
    varies = geometry.matrix.shape[1] == 1 and offset.shape[1] > 1
    if mixed and varies and all(plan.periodic) and all(2 * p > n for p, n in zip(plan.points, plan.sizes, strict=True)):
        # Frames differ by a shift only: taken exactly in Fourier space, it leaves one geometry for all frames.
        resting = (offset.amin(dim=1, keepdim=True) + offset.amax(dim=1, keepdim=True)) / 2
        apart, offset = resting - offset, resting
    coarsening: list[Tensor | None] = [None] * d
    if any(plan.rescaled):
        if mixed:
            coarsening = [_largest_stretch(geometry.matrix)] * d
        else:
            diagonal = geometry.matrix.diagonal(dim1=-2, dim2=-1).abs()
            coarsening = [diagonal[..., i] if r else None for i, r in enumerate(plan.rescaled)]
    starts, counts = geometry.start.clone(), list(plan.points)
    ends: list[Ends] = ["wrapped" if p else "open" for p in plan.periodic]
    # On a processor it costs nothing to look at the numbers; elsewhere that would wait for the device.
    looked = fields.device.type == "cpu" and apart is None
    splines = any(action in ("spline", "mixed") for action in plan.actions)
    low, high = reading(g, plan, spacing) if looked and splines else (None, None)
    for i, action in enumerate(plan.actions):
        if action == "cut":
            continue
        n = plan.sizes[i]
        starts[:, i], counts[i] = 0, n
        if low is None or high is None or action == "fourier":
            continue
        chosen = order if order is not None else 3 if mixed else 5
        margin = filter_reach(chosen, fields.dtype, plan.rescaled[i])
        extent = int((high[:, i] - low[:, i]).max().ceil()) + 2 + 2 * margin
        if extent >= n:
            continue
        begin = (geometry.start[:, i] + (plan.points[i] - 1) / 2 + low[:, i]).floor().long() - margin
        if plan.periodic[i]:
            ends[i] = "mirrored"
        else:
            begin = begin.clamp(min=0, max=n - extent)
        starts[:, i], counts[i] = begin, extent
        offset = offset.clone()
        offset[..., i] -= begin[:, None]
    return _Steps(starts, tuple(counts), tuple(ends), tuple(coarsening), apart, offset)


def _largest_stretch(matrix: Tensor) -> Tensor:
    """Largest singular value of 2x2 (in closed form) or larger matrices."""
    if matrix.shape[-1] == 2:
        total = matrix.square().sum(dim=(-2, -1))
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        return ((total + (total.square() - 4 * (a * d - b * c).square()).clamp(min=0).sqrt()) / 2).sqrt()
    return torch.linalg.svdvals(matrix)[..., 0]


def _cut(
    fields: Tensor,
    first: Tensor,
    frames: int,
    starts: Tensor,
    counts: Sequence[int],
    memory: Tensor | None = None,
) -> Tensor:
    """Copy frames and nodes from a different start for every trajectory, wrapping round: (B, frames, C, *counts).

    ``memory`` is written to where only whole lines are copied: fresh memory costs more than the copy.
    """
    b, c, t = fields.shape[:3]
    sizes = fields.shape[3:]
    device = fields.device
    frame = (
        (first[:, None] + torch.arange(frames, device=device)).clamp(max=t - 1)
        if frames < t
        else torch.arange(t, device=device).expand(b, t)
    )
    row = (torch.arange(b, device=device)[:, None, None] * c + torch.arange(c, device=device)) * t + frame[:, :, None]
    along = 0  # leading space axes that are addressed by rows: all but the last up to the last one that is cut
    for i in range(len(sizes) - 1):
        if counts[i] < sizes[i]:
            along = i + 1
    for i in range(along):
        node = (starts[:, i, None] + torch.arange(counts[i], device=device)).remainder(sizes[i])
        row = row[..., None] * sizes[i] + node.reshape(b, *[1] * (row.dim() - 1), -1)
    rest = sizes[along:]
    source, row = fields.reshape(-1, *rest), row.flatten()
    if memory is not None and not fields.requires_grad and counts[-1] == sizes[-1]:
        lines = torch.index_select(source, 0, row, out=memory[: b * frames * c].view(-1, *rest))
    else:
        lines = source.index_select(0, row)
    lines = lines.reshape(b, frames, c, *counts[:along], *rest)
    if counts[-1] == sizes[-1]:
        return lines
    node = (starts[:, -1, None] + torch.arange(counts[-1], device=device)).remainder(sizes[-1])
    return lines.gather(-1, node.reshape(b, *[1] * (lines.dim() - 2), -1).expand(*lines.shape[:-1], -1))


def _finish(values: Tensor, part: Geometry, out: Tensor) -> Tensor:
    """Write M u + a polynomial of the positions to ``out`` (B, C, T, *P) from values (B, T, C, *P)."""
    c, ones = values.shape[2], [1] * (values.dim() - 3)
    if part.mix is None:
        out.copy_(values.transpose(1, 2))
    elif c <= 2 and not values.requires_grad:
        mix = part.mix.to(values.dtype).reshape(*part.mix.shape, *ones)
        for i in range(c):
            torch.mul(values[:, :, 0], mix[:, :, i, 0], out=out[:, i])
            for j in range(1, c):
                out[:, i].addcmul_(values[:, :, j], mix[:, :, i, j])
    else:
        mixed = part.mix.to(values.dtype) @ values.flatten(3)
        out.copy_(mixed.reshape(values.shape).transpose(1, 2))
    shift, slope, curvature = part.added
    if shift is None:
        return out

    def add(term: Tensor, *sizes: int) -> None:
        out.add_(term.to(values.dtype).transpose(1, 2).reshape(len(out), c, term.shape[1], *sizes))

    if slope is None:
        add(shift, *ones)
        return out
    d = len(part.nodes)
    for i, x in enumerate(part.nodes):
        x = x[:, None, None]
        term = slope[..., i, None] * x
        if curvature is not None:
            term = term + curvature[..., i, i, None] * x.square()
        if i == 0:
            term = term + shift[..., None]
        add(term, *[-1 if k == i else 1 for k in range(d)])
        if curvature is None:
            continue
        for j in range(i):
            y = part.nodes[j][:, None, None]
            both = 2 * curvature[..., i, j, None, None] * y[..., :, None] * x[..., None, :]
            add(both, *[y.shape[-1] if k == j else x.shape[-1] if k == i else 1 for k in range(d)])
    return out
