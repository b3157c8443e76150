"""LieAugmentation: views of a batch of trajectories under a random element of the symmetry group of its equation.

One fixed product of one-parameter flows with independent strengths (coordinates of the second kind), in the order of
declaration, is composed exactly and applied with at most one resampling. Time is never interpolated: time slices are
kept and their new times carried.
"""

# B batch, C channels, T time frames, X space nodes, P nodes of the view, d space axes, G generators drawn

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from pdessl.equations import STRENGTH_UNITS
from pdessl.errors import ShapeError, SymmetryError, did_you_mean
from pdessl.symmetry.boundary import discrete_symmetries
from pdessl.symmetry.flow import Flow, compile_expression
from pdessl.symmetry.resample import fourier_shift, sample_axis, sample_points
from pdessl.symmetry.slice_affine import SliceAffine, compose
from pdessl.trajectory import Trajectories

__all__ = ["MODES", "GroupElements", "LieAugmentation"]

MODES = ("grid", "coords", "metadata")


@dataclass(frozen=True, eq=False)
class GroupElements:
    """What was drawn for each trajectory of a batch.

    Args:
        strengths: ε of every flow of the product, by generator name, each (B,), in the units of the data.
        relative: the same in window-relative units, between -max and max, each (B,).
        log_parameter_shift: log μ' - log μ by the name users see (``viscosity``), each (B,): 0 for a parameter that
            no flow of the product moves. Known without labels. A parameter that is not simply multiplied is left out.
        reflected: which trajectories were reflected, by name of the reflection, each (B,) bool.
        start: first frame and first node of the view in the source, (B, 1 + d), int64.
        centre: time and position about which the product acts, (B, 1 + d), float64.
        map: the composed map in coordinates relative to ``centre``, on the frames of the view (without reflections).
    """

    strengths: dict[str, Tensor]
    relative: dict[str, Tensor]
    log_parameter_shift: dict[str, Tensor]
    reflected: dict[str, Tensor]
    start: Tensor
    centre: Tensor
    map: SliceAffine

    def coordinates(self) -> Tensor:
        """Return the window-relative strengths as one matrix (B, G), in the order of the product."""
        return torch.stack(list(self.relative.values()), dim=1)


class LieAugmentation(nn.Module):
    """Draw a group element per trajectory and apply it.

        view = exp(ε_G v_G) ... exp(ε_1 v_1) trajectory,      ε_i uniform in [-max_i, max_i]

    The factors act in the order of declaration, about the centre of the view (conjugation by translations stays in the
    group). A view is a window of the trajectory at a random place: frames are cut out, never interpolated.

    Mode ``grid`` (default) returns fields on a regular grid, with at most one resampling:

    * a periodic axis that is only shifted (translation, boost): Fourier, a different shift per frame if need be. Data
      may be read anywhere, because the axis wraps, and a window may start anywhere;
    * a whole axis (window as long as the axis) that is only scaled by a factor constant over the frames: the nodes keep
      their values and the spacing and length change, which is exact and free;
    * a window shorter than the axis under scaling, and any axis under a map that differs between frames (projective) or
      mixes axes (rotation): a B-spline onto a grid with the spacing of the source; a low-pass first where that is
      coarser.

    Times and nodes of the result are those of the transformed solution. An axis stays ``periodic`` where the whole
    period is kept and nothing that grows with position is added; else it becomes ``window``. Where an axis is not
    periodic the strengths of a trajectory are shrunk together, in steps of 1/16, until everything it reads lies inside
    the data, and the window is then placed at random among the places where it does.

    Mode ``metadata`` moves coordinates and values without touching positions in the array: exact and free, but only for
    maps that are the same on every frame (scalings, shifts). Mode ``coords`` appends the transformed coordinates as
    channels and leaves the grid alone.

    Args:
        algebra: a :class:`SymmetryAlgebra`, or the name of an equation in the catalog.
        strengths: largest strength by generator name, in the unit its file declares
            (:data:`pdessl.equations.STRENGTH_UNITS`); only these are drawn. Default: every
            point symmetry (and every transformation that moves only parameters listed in ``moves``) at the strength its
            equation file declares.
        mode: ``grid``, ``coords`` or ``metadata``.
        window: frames and nodes of the view, ``(frames, *points)``. Default: the whole trajectory.
        moves: names of parameters whose motion is wanted (``("viscosity",)``). Without it, generators that move
            parameters are refused: two views with different parameters must not be called equal.
        reflections: draw each discrete reflection of the equation that keeps the parameters, with probability 1/2,
            exactly on the grid.
        spline_order: 3 or 5; order of the B-spline. Default 5; 3 is faster where axes mix.

    Shapes:
        fields (B, C, T, *X) -> (B, C, frames, *points); mode ``coords``: (B, C + 1 + d, frames, *points).

    Raises:
        SymmetryError: an unknown generator, one that moves a parameter not in ``moves``, one outside the slice-affine
            class, one that needs a parameter or a field that the batch does not hold, or a mode that cannot express it.
        ShapeError: a window larger than the trajectory.

    Source: Brandstetter, Welling, Worrall (2022), arXiv:2202.07643, and Mialon et al. (2023), arXiv:2307.05432, for the
        idea; the composition is exact here.
    """

    def __init__(
        self,
        algebra: Any,
        strengths: Mapping[str, float] | None = None,
        mode: str = "grid",
        window: Sequence[int] | None = None,
        moves: Sequence[str] = (),
        reflections: bool = False,
        spline_order: int = 5,
    ) -> None:
        super().__init__()
        if isinstance(algebra, str):
            from pdessl.symmetry import symmetries

            algebra = symmetries(algebra)
        if mode not in MODES:
            raise SymmetryError(f"no mode '{mode}'.{did_you_mean(mode, MODES)} Modes: {', '.join(MODES)}.")
        if spline_order not in (3, 5):
            raise SymmetryError(f"spline_order {spline_order}: only 3 (cubic) and 5 (quintic) are built.")
        self.algebra, self.mode, self.spline_order = algebra, mode, spline_order
        self.window = None if window is None else tuple(int(w) for w in window)
        self.moves = (moves,) if isinstance(moves, str) else tuple(moves)
        equation = algebra.equation
        self._names = {k: equation.parameter_names.get(k, k) for k in equation.parameters}
        for name in self.moves:
            if name not in self._names.values():
                raise SymmetryError(
                    f"{equation.name} has no parameter '{name}'.{did_you_mean(name, self._names.values())} Parameters: "
                    f"{', '.join(self._names.values()) or 'none'}."
                )
        self.factors = self._choose(strengths)
        self.reflections = tuple(_parameter_preserving(algebra)) if reflections else ()
        if reflections and not self.reflections:
            raise SymmetryError(f"{equation.name} has no reflection that keeps its parameters; set reflections=False.")

    def _choose(self, strengths: Mapping[str, float] | None) -> list[_Factor]:
        equation, known = self.algebra.equation, {g.name: g for g in self.algebra.generators}
        for name in strengths or {}:
            if name not in known:
                raise SymmetryError(
                    f"{equation.name} has no generator '{name}'.{did_you_mean(name, known)} "
                    f"Generators: {', '.join(known)}."
                )
        factors = []
        for name, generator in known.items():
            maximum = (generator.strength_max or 0.0) if strengths is None else strengths.get(name, 0.0)
            if not math.isfinite(maximum) or maximum < 0:
                raise SymmetryError(f"strength of '{name}' is {maximum}; give a finite number >= 0.")
            flow = generator.flow
            moved = [self._names[k] for k in equation.parameters if k in flow.moved_parameters]
            barred = [n for n in moved if n not in self.moves]
            if barred and strengths is None:
                continue
            if maximum == 0:
                continue
            if barred:
                raise SymmetryError(
                    f"'{name}' moves {', '.join(moved)}: a view under it belongs to another {barred[0]}, so the two "
                    "views of a trajectory must not be treated as equal. If the motion is wanted (labels move with the "
                    f"view), pass moves={tuple(moved)!r}."
                )
            factors.append(_Factor(generator, float(maximum), self.algebra))
        return factors

    # ------------------------------------------------------------------------------------------- drawing

    def forward(
        self, batch: Trajectories, generator: torch.Generator | None = None
    ) -> tuple[Trajectories, GroupElements]:
        """Draw one group element and one window per trajectory, and return the views with what was drawn."""
        plan = self._plan(batch)
        b, d = len(batch), len(batch.space)
        columns = len(self.factors) + 1 + d + len(self.reflections)
        device = batch.device if generator is None else generator.device
        uniform = torch.rand((b, columns), generator=generator, device=device, dtype=torch.float64).to(batch.device)
        split = uniform.split([len(self.factors), 1 + d, len(self.reflections)], dim=1)
        relative = {f.name: (2 * split[0][:, i] - 1) * f.maximum for i, f in enumerate(self.factors)}
        spare = batch.time.shape[1] - plan.frames
        first = (split[1][:, 0] * (spare + 1)).long().clamp(max=spare)
        time = _take_rows(batch.time, first, plan.frames)
        centre_time = (time[:, 0] + time[:, -1]) / 2
        widths = _Widths.of(batch, plan, time, any(f.unit == "std" for f in self.factors))
        parameters = self._letters(batch)
        composed, strengths = self._product(relative, time - centre_time[:, None], parameters, plan, widths)
        if plan.bounded:
            shrink = self._shrink(relative, time - centre_time[:, None], parameters, plan, widths, batch)
            relative = {n: v * shrink for n, v in relative.items()}
            composed, strengths = self._product(relative, time - centre_time[:, None], parameters, plan, widths)
        start = torch.cat([first[:, None], self._place(composed, split[1][:, 1:], plan, batch)], dim=1)
        reflected = {name: split[2][:, i] < 0.5 for i, (name, _) in enumerate(self.reflections)}
        return self._transform(batch, plan, composed, strengths, relative, start, time, centre_time, reflected)

    def apply(
        self,
        batch: Trajectories,
        strengths: Mapping[str, Tensor],
        start: Tensor | None = None,
        reflected: Mapping[str, Tensor] | None = None,
    ) -> tuple[Trajectories, GroupElements]:
        """Apply the product with given strengths ε (not window-relative), each (B,): the deed without the draw.

        Args:
            batch: trajectories.
            strengths: by generator name; missing ones are 0.
            start: first frame and node of each view, (B, 1 + d); default 0.
            reflected: by name of the reflection, each (B,) bool; default none.

        Raises:
            SymmetryError: a name that is not in the product, or a view that would read outside a non-periodic axis.
        """
        plan = self._plan(batch)
        names = [f.name for f in self.factors]
        unknown = [n for n in strengths if n not in names]
        if unknown:
            raise SymmetryError(
                f"'{unknown[0]}' is not drawn by this augmentation; it draws {', '.join(names) or 'nothing'}."
            )
        zero = torch.zeros(len(batch), dtype=torch.float64, device=batch.device)
        values = {n: torch.as_tensor(strengths.get(n, zero), dtype=torch.float64, device=batch.device) for n in names}
        if start is None:
            start = torch.zeros((len(batch), 1 + len(batch.space)), dtype=torch.int64, device=batch.device)
        time = _take_rows(batch.time, start[:, 0], plan.frames)
        centre = (time[:, 0] + time[:, -1]) / 2
        composed = SliceAffine.identity(time - centre[:, None], plan.axes, plan.channels, self._letters(batch))
        for factor in self.factors:
            composed = compose(composed, factor.on(composed, values[factor.name], plan))
        low, high = self._room(composed, plan, batch)
        for i in plan.bounded:
            outside = (start[:, 1 + i] < low[:, i]) | (start[:, 1 + i] > high[:, i])
            if bool(outside.any()):
                raise SymmetryError(
                    f"the view would read outside the data along '{batch.axis_names[i]}' in trajectory "
                    f"{int(outside.nonzero()[0])}; use a smaller window or smaller strengths."
                )
        flags = {name: (reflected or {}).get(name, zero > 0) for name, _ in self.reflections}
        relative = {n: v.clone() for n, v in values.items()}
        return self._transform(batch, plan, composed, values, relative, start, time, centre, flags)

    def _letters(self, batch: Trajectories) -> dict[str, Tensor]:
        """Parameters of the batch by the letter the equation uses."""
        return {k: batch.parameters[n] for k, n in self._names.items() if n in batch.parameters}

    def _product(
        self,
        relative: Mapping[str, Tensor],
        time: Tensor,
        parameters: Mapping[str, Tensor],
        plan: _Plan,
        widths: _Widths,
    ) -> tuple[SliceAffine, dict[str, Tensor]]:
        composed = SliceAffine.identity(time, plan.axes, plan.channels, parameters)
        strengths = {}
        for factor in self.factors:
            strengths[factor.name] = factor.strength(relative[factor.name], composed, widths, plan)
            composed = compose(composed, factor.on(composed, strengths[factor.name], plan))
        return composed, strengths

    def _shrink(
        self,
        relative: Mapping[str, Tensor],
        time: Tensor,
        parameters: Mapping[str, Tensor],
        plan: _Plan,
        widths: _Widths,
        batch: Trajectories,
    ) -> Tensor:
        """Largest of 16/16, 15/16 ... 0 by which the strengths of each trajectory may be multiplied, (B,)."""
        b, steps = len(batch), 17
        factor = torch.linspace(1, 0, steps, dtype=torch.float64, device=time.device)

        def repeat(value: Tensor) -> Tensor:
            return value.expand(steps, *value.shape).reshape(steps * b, *value.shape[1:])

        stacked = {n: (factor[:, None] * v).reshape(-1) for n, v in relative.items()}
        composed, _ = self._product(
            stacked, repeat(time), {n: repeat(p) for n, p in parameters.items()}, plan, widths.map(repeat)
        )
        low, high = self._room(composed, plan, batch, repeat)
        fits = torch.stack([low[:, i] <= high[:, i] for i in plan.bounded]).all(dim=0).reshape(steps, b)
        fits[-1] = True  # the identity reads exactly the window
        return factor[fits.to(torch.int8).argmax(dim=0)]

    def _room(
        self, g: SliceAffine, plan: _Plan, batch: Trajectories, repeat: Any = lambda v: v
    ) -> tuple[Tensor, Tensor]:
        """First and last allowed start node along every axis (B, d); an empty range means that the view does not fit.

        A view centred at c reads the box c - S⁻¹r ± |S⁻¹|w on every frame, w the half-widths of the view.
        """
        spacing = repeat(batch.grid_spacing)
        points = torch.tensor(plan.points, dtype=torch.float64, device=spacing.device)
        nodes = torch.tensor(batch.fields.shape[3:], dtype=torch.float64, device=spacing.device)
        half = (points - 1) / 2
        inverse = torch.linalg.inv(g.s)
        # Nodes that move with the map are read where they were; only the shift counts there.
        carried = torch.tensor(plan.carried, device=spacing.device)
        step = inverse.abs() * (spacing[:, None, None, :] / spacing[:, None, :, None])
        reach = torch.where(carried, torch.eye(plan.axes, dtype=torch.float64, device=spacing.device), step) @ half
        middle = -(inverse @ g.r[..., None])[..., 0] / spacing[:, None]
        lowest, highest = (middle - reach).amin(dim=1), (middle + reach).amax(dim=1)
        # centre = start + half must satisfy 0 <= centre + lowest and centre + highest <= nodes - 1
        tolerance = 1e-9 * nodes
        return (-lowest - half - tolerance).ceil(), (nodes - 1 - highest - half + tolerance).floor()

    def _place(self, g: SliceAffine, uniform: Tensor, plan: _Plan, batch: Trajectories) -> Tensor:
        """Draw the first node along every axis, (B, d): anywhere on a periodic axis, else where it reads inside."""
        columns = []
        low, high = self._room(g, plan, batch) if plan.bounded else (uniform, uniform)
        for i, n in enumerate(batch.fields.shape[3:]):
            if i in plan.bounded:
                choice = low[:, i] + (uniform[:, i] * (high[:, i] - low[:, i] + 1)).floor()
                columns.append(torch.minimum(choice, high[:, i]).long())
            elif batch.boundary[i] == "periodic":
                count = 1 if plan.points[i] == n else n
                columns.append((uniform[:, i] * count).long().clamp(max=count - 1))
            else:
                columns.append((uniform[:, i] * (n - plan.points[i] + 1)).long().clamp(max=n - plan.points[i]))
        return torch.stack(columns, dim=1)

    # ------------------------------------------------------------------------------------------- planning

    def _plan(self, batch: Trajectories) -> _Plan:
        """Decide, from the flows alone, what has to be done to each axis (no numbers, so no device is waited for)."""
        d, frames, sizes = len(batch.space), batch.fields.shape[2], tuple(batch.fields.shape[3:])
        window = (frames, *sizes) if self.window is None else self.window
        if len(window) != 1 + d or any(not 1 <= w <= n for w, n in zip(window, (frames, *sizes), strict=False)):
            raise ShapeError(
                f"window {window} does not fit trajectories with {frames} frames and {sizes} nodes; give (frames, "
                "*points), each at least 1 and at most the size of the trajectory."
            )
        key = (window, frames, sizes, batch.field_names, batch.axis_names, batch.boundary)
        return self._planned(key)

    @functools.cache  # noqa: B019 - one plan per kind of batch; freed with the module
    def _planned(self, key: tuple[Any, ...]) -> _Plan:
        window, _, sizes, fields, axes, boundary = key
        shapes = [f.flow.shape(fields, axes) for f in self.factors]
        d = len(axes)
        mixes = any(s.mixes for s in shapes)
        actions, carried = [], []
        for i in range(d):
            scales = any(s.scales[i] for s in shapes)
            varies = mixes or any(s.varies[i] for s in shapes)
            shifts = any(s.shifts[i] for s in shapes)
            whole = window[1 + i] == sizes[i]
            carry = scales and whole and not varies
            if self.mode != "grid" or (not shifts and not varies and (carry or not scales)):
                action = "cut"
            elif boundary[i] == "periodic" and not varies and (carry or not scales):
                action = "fourier"
            else:
                action = "spline"
            if mixes and self.mode == "grid":
                action = "mixed"
            actions.append(action)
            carried.append(carry)
        tilts = [any(s.tilts[i] for s in shapes) for i in range(d)]
        if self.mode == "metadata":
            guilty = [f.name for f, s in zip(self.factors, shapes, strict=True) if s.mixes or any(s.varies) or s.slides]
            if guilty:
                raise SymmetryError(
                    f"mode 'metadata' cannot express '{guilty[0]}': it moves the frames differently or mixes the axes. "
                    "Use mode='grid' or mode='coords'."
                )
        kept = tuple(
            "periodic"
            if kind == "periodic" and window[1 + i] == sizes[i] and not tilts[i] and actions[i] in ("cut", "fourier")
            else ("window" if kind == "periodic" or window[1 + i] != sizes[i] or actions[i] != "cut" else kind)
            for i, kind in enumerate(boundary)
        )
        return _Plan(
            frames=window[0],
            points=tuple(window[1:]),
            channels=len(fields),
            axes=d,
            fields=fields,
            axis_names=axes,
            actions=tuple(actions),
            carried=tuple(carried),
            bounded=tuple(i for i in range(d) if boundary[i] != "periodic" and actions[i] in ("spline", "mixed")),
            boundary=kept,
            linear=any(s.linear for s in shapes),
            added=any(s.added for s in shapes),
            tilted=any(tilts),
            mixing=mixes,
        )

    # ------------------------------------------------------------------------------------------- the deed

    def _transform(
        self,
        batch: Trajectories,
        plan: _Plan,
        g: SliceAffine,
        strengths: dict[str, Tensor],
        relative: dict[str, Tensor],
        start: Tensor,
        time: Tensor,
        centre_time: Tensor,
        reflected: dict[str, Tensor],
    ) -> tuple[Trajectories, GroupElements]:
        spacing = batch.grid_spacing
        half = torch.tensor([(p - 1) / 2 for p in plan.points], dtype=torch.float64, device=batch.device)
        origin = torch.stack([s[:, 0] for s in batch.space], dim=1)
        centre = origin + (start[:, 1:] + half) * spacing
        # Nodes of the view relative to its centre, in the source and after the map; (B, P_i) each.
        nodes = [
            (torch.arange(p, dtype=torch.float64, device=batch.device) - h)[None] * spacing[:, i : i + 1]
            for i, (p, h) in enumerate(zip(plan.points, half, strict=True))
        ]
        carried = self.mode == "metadata"
        scale = [g.s[:, 0, i, i : i + 1] if c or carried else None for i, c in enumerate(plan.carried)]
        target = [n if s is None else n * s for n, s in zip(nodes, scale, strict=True)]

        fields = _take(batch.fields, start[:, 0], plan.frames, 2)
        if self.mode == "grid":
            fields, source = self._resample(fields, batch, plan, g, start, target, spacing, half)
        else:
            for i, p in enumerate(plan.points):
                fields = _take(fields, start[:, 1 + i], p, 3 + i)
            source = [n[:, None] for n in nodes]
        fields = self._values(fields, plan, g, source)

        if self.mode == "metadata":
            target = [t + g.r[:, 0, i : i + 1] for i, t in enumerate(target)]
        space = tuple(centre[:, i : i + 1] + t for i, t in enumerate(target))
        names = batch.field_names
        if self.mode == "coords":
            fields, names = self._with_coordinates(fields, batch, g, nodes, centre, centre_time, plan)
            space = tuple(centre[:, i : i + 1] + n for i, n in enumerate(nodes))
        for name, signs in self.reflections:
            fields = self._reflect(fields, reflected[name], signs, names, batch.axis_names)

        lengths = [
            x[:, -1] - x[:, 0] if kind == "window" else batch.lengths[:, i] * (1 if factor is None else factor[:, 0])
            for i, (kind, factor, x) in enumerate(zip(plan.boundary, scale, space, strict=True))
        ]
        parameters = {n: g.parameters[k] for k, n in self._names.items() if k in g.parameters}
        view = batch.replace(
            fields=fields,
            time=centre_time[:, None] + g.new_time,
            space=space,
            lengths=torch.stack(lengths, dim=1),
            parameters={**batch.parameters, **parameters},
            field_names=names,
            boundary=plan.boundary,
        )
        moved = {k for f in self.factors for k in f.flow.moved_parameters}
        none = torch.zeros(len(batch), dtype=torch.float64, device=batch.device)
        shifts = {n: g.log_parameter_shift.get(k, none) for k, n in self._names.items()
                  if k in g.log_parameter_shift or k not in moved}
        elements = GroupElements(
            strengths=strengths,
            relative=relative,
            log_parameter_shift=shifts,
            reflected=reflected,
            start=start,
            centre=torch.cat([centre_time[:, None], centre], dim=1),
            map=g,
        )
        return view, elements

    def _resample(
        self,
        fields: Tensor,
        batch: Trajectories,
        plan: _Plan,
        g: SliceAffine,
        start: Tensor,
        target: list[Tensor],
        spacing: Tensor,
        half: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """Read the fields at S⁻¹(x' - r); also return these places relative to the centre, (B, T | 1, P_i) per axis."""
        d, order = plan.axes, self.spline_order
        periodic = [kind == "periodic" for kind in batch.boundary]
        if "mixed" in plan.actions:
            inverse = torch.linalg.inv(g.s)
            mesh = torch.stack(_outer(target), dim=-1).reshape(len(batch), 1, -1, d)
            points = (mesh - g.r[:, :, None]) @ inverse.transpose(-1, -2)
            read = points
            if all(periodic) and g.s.shape[1] == 1 and g.r.shape[1] > 1:
                # Frames differ by a shift only: taken exactly in Fourier space, it leaves one geometry for all frames.
                apart = (inverse @ g.r[..., None])[..., 0] / spacing[:, None]
                fields = fourier_shift(fields, list(apart.unbind(-1)))
                read = mesh @ inverse.transpose(-1, -2)
            cells = read / spacing[:, None, None] + (start[:, 1:] + half)[:, None, None]
            step = inverse * (spacing[:, None, None, :] / spacing[:, None, :, None])
            coarsening = torch.linalg.matrix_norm(step, ord=2) if any(self._scales(plan)) else None
            cells = cells.reshape(len(batch), cells.shape[1], *plan.points, d)
            fields = sample_points(fields, cells, periodic, order, coarsening)
            return fields, list(points.reshape(len(batch), points.shape[1], *plan.points, d).unbind(-1))
        source, shifts = [], [None] * d
        for i in range(d):
            inverse = 1 / g.s[:, :, i, i, None]
            points = (target[i][:, None] - g.r[:, :, i, None]) * inverse
            source.append(points)
            if plan.actions[i] == "fourier":
                shifts[i] = (g.r[:, :, i, None] * inverse)[..., 0] / spacing[:, i : i + 1] - start[:, 1 + i : 2 + i]
        fields = fourier_shift(fields, shifts)
        for i in range(d):
            if plan.actions[i] == "cut":
                fields = _take(fields, start[:, 1 + i], plan.points[i], 3 + i)
            elif plan.actions[i] == "fourier":
                fields = fields.narrow(3 + i, 0, plan.points[i])
            else:
                cells = source[i] / spacing[:, i, None, None] + (start[:, 1 + i] + half[i])[:, None, None]
                coarsening = None if plan.carried[i] or not self._scales(plan)[i] else 1 / g.s[:, :, i, i].abs()
                fields = sample_axis(fields, cells, i, periodic[i], order, coarsening)
        return fields, source

    def _scales(self, plan: _Plan) -> list[bool]:
        shapes = [f.flow.shape(plan.fields, plan.axis_names) for f in self.factors]
        return [any(s.scales[i] and not s.rigid for s in shapes) for i in range(plan.axes)]

    def _values(self, fields: Tensor, plan: _Plan, g: SliceAffine, source: list[Tensor]) -> Tensor:
        """M u + b0 + b1 x + xᵀ b2 x at the source positions."""
        d, dtype = plan.axes, fields.dtype

        def frame(coefficient: Tensor) -> Tensor:
            """(B, T, C) -> (B, C, T, 1, ...)."""
            return coefficient.transpose(1, 2).to(dtype).reshape(
                coefficient.shape[0], coefficient.shape[2], coefficient.shape[1], *[1] * d
            )

        def position(i: int) -> Tensor:
            x = source[i]
            if x.dim() == 2 + d and d > 1:
                return x[:, None].to(dtype)
            shape = [x.shape[0], 1, x.shape[1]] + [1] * d
            shape[3 + i] = x.shape[-1]
            return x.reshape(shape).to(dtype)

        if plan.linear:
            if plan.channels == 1:
                fields = fields * frame(g.m[..., 0])
            else:
                columns = [fields[:, j : j + 1] * frame(g.m[..., j]) for j in range(plan.channels)]
                fields = functools.reduce(torch.add, columns)
        if plan.added:
            fields = fields + frame(g.b0)
        if plan.tilted:
            for i in range(d):
                fields = fields + frame(g.b1[..., i]) * position(i)
                if g.b2 is not None:
                    for j in range(d):
                        fields = fields + frame(g.b2[..., i, j]) * position(i) * position(j)
        return fields

    def _with_coordinates(
        self,
        fields: Tensor,
        batch: Trajectories,
        g: SliceAffine,
        nodes: list[Tensor],
        centre: Tensor,
        centre_time: Tensor,
        plan: _Plan,
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Append t' and x' of every node as channels."""
        independent = self.algebra.equation.independent
        d, shape = len(nodes), (len(batch), 1, *fields.shape[2:])
        time = (centre_time[:, None] + g.new_time).reshape(len(batch), 1, -1, *[1] * d)
        dtype, axes = fields.dtype, _outer([n.to(fields.dtype) for n in nodes])
        channels = [time.to(fields.dtype).expand(shape)]
        for i in range(d):
            moved = (g.r[:, :, i] + centre[:, i : i + 1]).to(dtype).reshape(len(batch), -1, *[1] * d)
            for j in range(d):
                if j == i or plan.mixing:
                    moved = moved + g.s[:, :, i, j].to(dtype).reshape(len(batch), -1, *[1] * d) * axes[j][:, None]
            channels.append(moved[:, None].expand(shape))
        return torch.cat([fields, *channels], dim=1), (*batch.field_names, independent[0], *batch.axis_names)

    def _reflect(
        self, fields: Tensor, flag: Tensor, signs: Mapping[str, int], names: tuple[str, ...], axes: tuple[str, ...]
    ) -> Tensor:
        """Mirror about the centre of the view: node j takes the value of node P - 1 - j, with the sign of its field."""
        if self.mode == "grid" or self.mode == "metadata":
            mirrored = fields.flip([3 + i for i, n in enumerate(axes) if signs.get(n, 1) < 0])
        else:
            mirrored = fields  # the coordinate channels change their sign about the centre instead
        sign = torch.tensor([signs.get(n, 1) for n in names], dtype=fields.dtype, device=fields.device)
        if self.mode == "coords":
            for i, n in enumerate(axes):
                if signs.get(n, 1) < 0:
                    k = len(names) - len(axes) + i
                    turned = fields[:, k : k + 1]
                    ends = turned.flatten(2)
                    middle = (ends.amin(2) + ends.amax(2)).reshape(-1, *[1] * (fields.dim() - 1))
                    mirrored = torch.cat([mirrored[:, :k], turned - middle, mirrored[:, k + 1 :]], dim=1)
        mirrored = mirrored * sign.reshape(1, -1, *[1] * (fields.dim() - 2))
        return torch.where(flag.reshape(-1, *[1] * (fields.dim() - 1)), mirrored, fields)


# ------------------------------------------------------------------------------------------------ parts


@dataclass(frozen=True)
class _Plan:
    """What is done to every axis of one kind of batch."""

    frames: int
    points: tuple[int, ...]
    channels: int
    axes: int
    fields: tuple[str, ...]
    axis_names: tuple[str, ...]
    actions: tuple[str, ...]  # per axis: cut, fourier, spline, mixed
    carried: tuple[bool, ...]  # per axis: nodes scale with the map
    bounded: tuple[int, ...]  # axes where reading is limited to the data
    boundary: tuple[str, ...]
    linear: bool  # M is not the identity
    added: bool  # b0 is not zero
    tilted: bool  # b1 or b2 is not zero
    mixing: bool  # S has entries off the diagonal


@dataclass(frozen=True)
class _Widths:
    """Extents of the view that window-relative strengths refer to."""

    space: Tensor  # (B, d)
    duration: Tensor  # (B,)
    floor: Tensor  # (B,), stands for the largest |t| of a view of one frame
    deviation: Tensor | None  # (B, C), where a strength is measured by it

    @staticmethod
    def of(batch: Trajectories, plan: _Plan, time: Tensor, deviations: bool) -> _Widths:
        points = torch.tensor(plan.points, dtype=torch.float64, device=batch.device)
        step = batch.time_step
        deviation = None
        if deviations:  # the population form, so that a single value has deviation 0 and no warning
            deviation = batch.fields.detach().flatten(2).std(dim=2, correction=0).to(torch.float64)
        return _Widths(batch.grid_spacing * points, (time[:, -1] - time[:, 0]) + step, step / 2, deviation)

    def map(self, function: Any) -> _Widths:
        deviation = None if self.deviation is None else function(self.deviation)
        return _Widths(function(self.space), function(self.duration), function(self.floor), deviation)


class _Factor:
    """One flow of the product: its largest strength and the unit in which it is given."""

    def __init__(self, generator: Any, maximum: float, algebra: Any) -> None:
        self.name, self.flow, self.maximum = generator.name, generator.flow, maximum
        if self.flow.obstruction is not None:
            raise SymmetryError(
                f"'{self.name}' cannot be applied to gridded data: {self.flow.obstruction}. Leave it out (strength 0)."
            )
        equation = algebra.equation
        expressions = generator.expressions()
        self.time, self.space = equation.independent[0], equation.independent[1:]
        translations = {z for g in algebra.generators for z in equation.independent if _is_translation(g, z)}
        for z in equation.independent:
            if z not in translations and any(e.has(sympy.Symbol(z)) for e in expressions.values()):
                raise SymmetryError(
                    f"'{self.name}' depends on {z}, but {equation.name} declares no translation {{{z}: 1}}; without it "
                    "the flow cannot be centred in the window. Declare the translation if it is a symmetry."
                )
        natural = _natural_unit(expressions, self.flow, equation)
        unit = generator.strength_unit
        if unit not in STRENGTH_UNITS:
            known = ", ".join(STRENGTH_UNITS)
            raise SymmetryError(
                f"'{self.name}' has strength unit '{unit}'.{did_you_mean(unit, STRENGTH_UNITS)} Units: {known}."
            )
        if natural == "window_time":
            unit = natural  # no other unit keeps the frames away from the singularity
            if maximum > 1:
                raise SymmetryError(
                    f"'{self.name}' is projective: its strength times the duration of the window must be <= 1, not "
                    f"{maximum}, so that the scale factor D stays above 1/2."
                )
        self.unit = unit
        measured = {"window": equation.independent, "window_displacement": self.space, "std": equation.dependent}
        moved = [z for z in measured.get(unit, ()) if expressions.get(z, 0) != 0]
        self.rates = {z: compile_expression(expressions[z]) for z in moved}
        if unit == "window_time":
            rate = sympy.diff(expressions[self.time], sympy.Symbol(self.time), 2) / 2
            self.rates = {self.time: compile_expression(rate)}
        if unit == "window_angle":
            turns = [sympy.diff(expressions[a], sympy.Symbol(b)) for a in self.space for b in self.space if a != b]
            self.rates = {f"angle {i}": compile_expression(e) for i, e in enumerate(turns) if e != 0}
        if unit not in ("log", "angle") and not self.rates:
            raise SymmetryError(f"'{self.name}' moves nothing that the unit '{unit}' measures; use {natural}.")

    def on(self, state: SliceAffine, strength: Tensor, plan: _Plan) -> SliceAffine:
        """Coefficients on the slices and parameters that the earlier factors have left."""
        return self.flow.coefficients(strength, state.new_time, state.parameters, plan.fields, plan.axis_names)

    def strength(self, relative: Tensor, state: SliceAffine, widths: _Widths, plan: _Plan) -> Tensor:
        """Turn a window-relative strength into ε, (B,)."""
        if self.unit in ("log", "angle"):
            return relative
        values: dict[str, Any] = {n: p[:, None] for n, p in state.parameters.items()} | {self.time: state.new_time}
        for name in (*self.space, *plan.fields):
            values.setdefault(name, 0.0)
        needed = []
        for z, function in self.rates.items():
            absent = [k for k in self.flow.parameters if k not in values]
            try:
                rate = function(values)
            except KeyError as error:
                raise SymmetryError(
                    f"the strength of '{self.name}' depends on the parameter {error}, whose values the batch does not "
                    f"hold (missing: {', '.join(absent)}). Give labelled data, or leave this generator out."
                ) from None
            rate = torch.as_tensor(rate, dtype=torch.float64, device=relative.device)
            rate = rate.abs().reshape(1, 1) if rate.dim() == 0 else rate.abs()
            rate = rate.amax(dim=1).expand(relative.shape[0])
            tiny = torch.finfo(torch.float64).tiny
            if self.unit == "window_time":
                # twice the largest |t| is the duration of a centred window; later than a time shift it is more
                span = 2 * torch.maximum(state.new_time.abs().amax(dim=1), widths.floor)
                # a trajectory of one frame has no duration to measure by: nothing is drawn
                needed.append(torch.where(rate * span > 0, (rate * span).clamp(min=tiny).reciprocal(), 0.0))
                continue
            if self.unit == "window_angle":
                needed.append(torch.where(rate > 0, rate.clamp(min=tiny).reciprocal(), 0.0))
                continue
            if z == self.time:
                extent = widths.duration
            elif z in plan.axis_names:
                extent = widths.space[:, plan.axis_names.index(z)]
                if self.unit == "window_displacement":  # a view of one frame sits at t = 0: measure half a frame away
                    away = function({**values, self.time: widths.floor[:, None]})
                    away = torch.as_tensor(away, dtype=torch.float64, device=relative.device)
                    rate = torch.maximum(rate, away.abs().reshape(-1).expand(relative.shape[0]))
            else:
                if z not in plan.fields:
                    continue
                extent = widths.deviation[:, plan.fields.index(z)]
            needed.append(torch.where(rate > 0, extent / rate.clamp(min=tiny), 0.0))
        return relative * functools.reduce(torch.minimum, needed) if needed else relative


def _natural_unit(expressions: Mapping[str, sympy.Expr], flow: Flow, equation: Any) -> str:
    """The unit that fits a vector field."""
    time = sympy.Symbol(equation.independent[0])
    if sympy.diff(flow.maps[equation.independent[0]], time, 2) != 0:
        return "window_time"
    moved = {n: sympy.sympify(e) for n, e in expressions.items() if e != 0}
    inputs = {sympy.Symbol(n) for n in (*equation.independent, *equation.dependent)}
    space = [n for n in moved if n in equation.independent[1:]]
    if all(not e.free_symbols & inputs for e in moved.values()) and set(moved) <= set(equation.independent):
        return "window"
    if space and all(moved[n].free_symbols & inputs <= {time} for n in space) and equation.independent[0] not in moved:
        return "window_displacement"
    if not space and equation.independent[0] not in moved and all(not e.free_symbols & inputs for e in moved.values()):
        return "std"
    return "log"


def _is_translation(generator: Any, name: str) -> bool:
    moved = {n: e for n, e in generator.expressions().items() if e != 0}
    return set(moved) == {name} and bool(moved[name].is_number)


def _parameter_preserving(algebra: Any) -> list[tuple[str, dict[str, int]]]:
    """Sign changes of space and fields that keep the parameters, as {coordinate: -1}."""
    return [
        (",".join(found.flips), dict.fromkeys(found.flips, -1))
        for found in discrete_symmetries(algebra.equation)
        if not found.swaps and not found.parameters
    ]


def _take_rows(values: Tensor, start: Tensor, count: int) -> Tensor:
    """Entries start ... start + count - 1 of every row of (B, N)."""
    if count == values.shape[1]:
        return values
    return values.gather(1, start[:, None] + torch.arange(count, device=values.device))


def _take(fields: Tensor, start: Tensor, count: int, dim: int) -> Tensor:
    """Cut out ``count`` nodes along an axis, from a different start for every trajectory, wrapping round."""
    n = fields.shape[dim]
    if count == n:
        return fields
    index = (start[:, None] + torch.arange(count, device=fields.device)).remainder(n)
    rows = torch.arange(fields.shape[0], device=fields.device)[:, None]
    return fields.movedim(dim, 1)[rows, index].movedim(1, dim)


def _outer(nodes: Sequence[Tensor]) -> list[Tensor]:
    """Expand (B, P_i) per axis to the mesh (B, *P)."""
    d, shape = len(nodes), [n.shape[1] for n in nodes]
    return [
        n.reshape(n.shape[0], *[n.shape[1] if k == i else 1 for k in range(d)]).expand(n.shape[0], *shape)
        for i, n in enumerate(nodes)
    ]
