"""LieAugmentation: views of a batch of trajectories under a random element of the symmetry group of its equation.

One fixed product of one-parameter flows with independent strengths (coordinates of the second kind), in the order of
declaration, is composed exactly and applied with at most one resampling. Time is never interpolated: time slices are
kept and their new times carried.
"""

# B batch, C channels, T time frames, X space nodes, P nodes of the view, d space axes, G generators drawn

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.augmentation.geometry import Geometry
from pdessl.augmentation.placement import TIMES, constant, draw_start, largest_fitting, make_plan, room, starts
from pdessl.augmentation.plan import Plan
from pdessl.augmentation.reflections import choose_reflections, exchange_nodes, signed_permutations
from pdessl.augmentation.slice_affine import SliceAffine, compose
from pdessl.augmentation.strengths import Widths, choose_factors
from pdessl.augmentation.view import gridded, unmoved, with_coordinates
from pdessl.errors import ShapeError, SymmetryError, did_you_mean
from pdessl.symmetry.boundary import wall_conditions
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
        turn: the reflections drawn, as signed permutations of the axes that follow the map, (B, d, d), float64.
        field_turn: what they do to the fields, (B, C, C), float64.
        start: first frame and first node of the view in the source, (B, 1 + d), int64.
        centre: time and position about which the product acts, (B, 1 + d), float64.
        map: the composed map in coordinates relative to ``centre``, on the frames of the view (without reflections).
    """

    strengths: dict[str, Tensor]
    relative: dict[str, Tensor]
    log_parameter_shift: dict[str, Tensor]
    reflected: dict[str, Tensor]
    turn: Tensor
    field_turn: Tensor
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
    period is kept and nothing that grows with position is added, and ``wall`` where the whole axis is kept and fields
    still meet the conditions at its walls (a boost along a no-slip wall slips); else it becomes ``window``. Where an
    axis is not periodic the strengths of a trajectory are shrunk together, in steps of 1/16, until everything it reads
    lies inside the data, and the window is then placed at random among the places where it does.

    Where data end, nothing is assumed beyond: the spline obeys the not-a-knot condition there, with the same order of
    accuracy as inside, whatever a wall does to each field. The error beside an end of the data, not of the view, is
    larger by a constant all the same: for a wave of 16 nodes 5e-5 of its amplitude (cubic 7e-4) against 2e-7 (6e-5)
    inside. The low-pass continues the data by a point reflection about the end, which keeps straight lines: it adds up
    to 8e-4 within seven nodes.

    Mode ``metadata`` moves coordinates and values without touching positions in the array: exact and free, but only for
    maps that are the same on every frame (scalings, shifts). Mode ``coords`` appends the transformed coordinates as
    channels and leaves the grid alone.

    Args:
        algebra: a :class:`SymmetryAlgebra`, or the name of an equation in the catalog.
        strengths: largest strength by generator name, in the unit its file declares
            (:data:`pdessl.equations.STRENGTH_UNITS`); only these are drawn. Default: every point symmetry (and every
            transformation that moves only parameters listed in ``moves``) at the strength its equation file declares,
            except those that are confounded given ``observed``: a symmetry that keeps the parameters but changes a
            field nobody sees, where the same visible data also belong to another value of a parameter (scaling of
            smoke by a hidden factor looks like another buoyancy). Such pairs are no honest positives; name them in
            ``strengths`` to have them all the same (:meth:`pdessl.symmetry.SymmetryAlgebra.confounded` explains each).
        mode: ``grid``, ``coords`` or ``metadata``.
        window: frames and nodes of the view, ``(frames, *points)``. Default: the whole trajectory.
        time: where in time the window may lie: ``random``, anywhere; ``early``, within the first half of the frames (or
            from the first on, where it is longer); ``late``, within the last half. A recipe may say ``choose``, see
            :func:`pdessl.inference.choose_time`.
        moves: names of parameters whose motion is wanted (``("viscosity",)``). Without it, generators that move
            parameters are refused: two views with different parameters must not be called equal.
        reflections: draw each discrete symmetry of the equation that keeps the parameters, with probability 1/2,
            exactly on the grid: reflections, and exchanges of two axes on which the view has as many nodes and the same
            kind of boundary (together they give the turns by 90 degrees). Or the names of those to draw, where the data
            have only some: ``["x,u"]`` of smoke that always rises, and never the other, which turns it upside down.
        spline_order: 3 or 5, of the B-spline. Default: 5, but 3 where axes mix, which is where 5 costs far more.
        observed: names of the fields that the network sees, for the default of ``strengths``. Default: those of the
            equation file.

    Shapes:
        fields (B, C, T, *X) -> (B, C, frames, *points); mode ``coords``: (B, C + 1 + d, frames, *points).

    Raises:
        SymmetryError: an unknown generator or reflection, a generator that moves a parameter not in ``moves``, one
            outside the slice-affine class, one that needs a parameter or a field that the batch does not hold, or a
            mode that cannot express it.
        ShapeError: a window larger than the trajectory, or an empty batch.

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
        reflections: bool | Sequence[str] = False,
        spline_order: int | None = None,
        observed: Sequence[str] | None = None,
        time: str = "random",
    ) -> None:
        super().__init__()
        if isinstance(algebra, str):
            from pdessl.symmetry import symmetries

            algebra = symmetries(algebra)
        if mode not in MODES:
            raise SymmetryError(f"no mode '{mode}'.{did_you_mean(mode, MODES)} Modes: {', '.join(MODES)}.")
        if spline_order not in (None, 3, 5):
            raise SymmetryError(f"spline_order {spline_order}: only 3 (cubic) and 5 (quintic) are built.")
        if time not in TIMES:
            more = " 'choose' is for recipes of pdessl pretrain, which look at the data." if time == "choose" else ""
            raise SymmetryError(f"time '{time}'.{did_you_mean(time, TIMES)} Choose: {', '.join(TIMES)}.{more}")
        self.algebra, self.mode, self.spline_order, self.time = algebra, mode, spline_order, time
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
        self.factors = choose_factors(algebra, strengths, self.moves, observed)
        self.reflections = choose_reflections(algebra, reflections)
        self._plans: dict[Any, Plan] = {}

    @property
    def moved_parameters(self) -> tuple[str, ...]:
        """Parameters that a view may have other values of than its trajectory, by the names users see.

        Empty for an augmentation whose two views of a trajectory may be called equal.
        """
        moved = {k for f in self.factors for k in f.flow.moved_parameters}
        return tuple(n for k, n in self._names.items() if k in moved)

    # ------------------------------------------------------------------------------------------- drawing

    def forward(
        self, batch: Trajectories, generator: torch.Generator | None = None, common: int | None = None
    ) -> tuple[Trajectories, GroupElements]:
        """Draw one group element and one window per trajectory, and return the views with what was drawn.

        Args:
            batch: B trajectories.
            generator: of the draws.
            common: V: the batch consists of groups of V trajectories, and all groups get the same V draws (of what is
                uniform: where trajectories differ in their grid, strengths and places differ in the units of the data).

        Raises:
            ShapeError: B is no multiple of V.
            SymmetryError: runs with actuators, which a flow would have to move.
        """
        if batch.actions is not None:
            raise SymmetryError(
                "LieAugmentation moves fields and not the actuators of these runs, which would no longer obey their "
                "equation. Use ActuatedSymmetries (pretrain --config world/ks4), or windows alone (RandomWindows)."
            )
        plan = self._plan(batch)
        b, d, drawn = len(batch), len(batch.space), len(self.factors)
        rows = b if common is None else common
        if b % rows:
            raise ShapeError(f"{b} trajectories are not made of groups of {rows}; repeat each of them {rows} times.")
        device = batch.device if generator is None else generator.device
        columns = drawn + 1 + d + len(self.reflections)
        uniform = draw_rows(
            lambda n, g: torch.rand((n, columns), generator=g, device=device, dtype=torch.float64), rows, generator
        )
        uniform = uniform.to(batch.device).repeat(b // rows, 1)
        strength, place, flip = uniform.split([drawn, 1 + d, len(self.reflections)], dim=1)
        relative = {f.name: (2 * strength[:, i] - 1) * f.maximum for i, f in enumerate(self.factors)}
        low, high = starts(self.time, batch.time.shape[1], plan.frames)
        first = low + (place[:, 0] * (high - low + 1)).long().clamp(max=high - low)
        time = _take_rows(batch.time, first, plan.frames)
        centre_time = (time[:, 0] + time[:, -1]) / 2
        centred, spacing, parameters = time - centre_time[:, None], batch.grid_spacing, self._letters(batch)
        widths = Widths.of(batch, plan, time, any(f.unit == "std" for f in self.factors))
        if plan.bounded:

            def fits(factors: Tensor, repeat: Callable[[Tensor], Tensor]) -> Tensor:
                shrunk = {n: factors * repeat(v) for n, v in relative.items()}
                letters = {n: repeat(p) for n, p in parameters.items()}
                g, _ = self._product(shrunk, repeat(centred), letters, plan, widths.map(repeat))
                least, most = room(g, plan, repeat(spacing))
                return torch.stack([least[:, i] <= most[:, i] for i in plan.bounded]).all(dim=0)

            shrink = largest_fitting(fits, b, batch.device)
            relative = {n: v * shrink for n, v in relative.items()}
        composed, strengths = self._product(relative, centred, parameters, plan, widths)
        start = torch.cat([first[:, None], draw_start(composed, place[:, 1:], plan, batch)], dim=1)
        possible = self._possible(plan)
        flags = {n: (flip[:, i] < 0.5) & possible[i] for i, n in enumerate(self.reflections)}
        return self._view(batch, plan, composed, strengths, relative, start, time, flags)

    def transform(
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
            SymmetryError: a name that is not in the product, a view that would read outside a non-periodic axis, or an
                exchange of axes on which the view differs.
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
        composed = self._identity(time - centre[:, None], plan, self._letters(batch))
        for factor in self.factors:
            composed = compose(composed, factor.on(composed, values[factor.name], plan))
        low, high = room(composed, plan, batch.grid_spacing)
        for i in plan.bounded:
            outside = (start[:, 1 + i] < low[:, i]) | (start[:, 1 + i] > high[:, i])
            if bool(outside.any()):
                raise SymmetryError(
                    f"the view would read outside the data along '{batch.axis_names[i]}' in trajectory "
                    f"{int(outside.nonzero()[0])}; use a smaller window or smaller strengths."
                )
        flags = {name: (reflected or {}).get(name, zero > 0) for name in self.reflections}
        for name, possible in zip(self.reflections, self._possible(plan), strict=True):
            if not possible and bool(flags[name].any()):
                raise SymmetryError(
                    f"'{name}' exchanges axes on which the view differs: {plan.points} nodes, boundaries "
                    f"{plan.boundary}. Use a square window of data that hold both fields."
                )
        relative = {n: v.clone() for n, v in values.items()}
        return self._view(batch, plan, composed, values, relative, start, time, flags)

    def _letters(self, batch: Trajectories) -> dict[str, Tensor]:
        """Parameters of the batch by the letter the equation uses."""
        return {k: batch.parameters[n] for k, n in self._names.items() if n in batch.parameters}

    def _identity(self, time: Tensor, plan: Plan, parameters: Mapping[str, Tensor]) -> SliceAffine:
        return SliceAffine.identity(time, len(plan.axes), len(plan.fields), parameters)

    def _product(
        self,
        relative: Mapping[str, Tensor],
        time: Tensor,
        parameters: Mapping[str, Tensor],
        plan: Plan,
        widths: Widths,
    ) -> tuple[SliceAffine, dict[str, Tensor]]:
        composed, strengths = self._identity(time, plan, parameters), {}
        for factor in self.factors:
            strengths[factor.name] = factor.strength(relative[factor.name], composed, widths, plan)
            composed = compose(composed, factor.on(composed, strengths[factor.name], plan))
        return composed, strengths

    def _plan(self, batch: Trajectories) -> Plan:
        key = (len(batch) > 0, tuple(batch.fields.shape[2:]), batch.field_names, batch.axis_names, batch.boundary)
        if key not in self._plans:
            self._plans[key] = make_plan(self.factors, self.mode, self.window, batch)
        return self._plans[key]

    def _possible(self, plan: Plan) -> list[bool]:
        """Which reflections the view admits: axes can be exchanged if they have as many nodes and like ends."""
        ends = dict(zip(plan.axes, zip(plan.points, plan.boundary, strict=True), strict=True))
        walls = {a: wall_conditions(self.algebra.equation, a) for a, (_, kind) in ends.items() if kind == "wall"}
        held = [*plan.fields, *plan.axes]
        return [
            all(ends.get(a) == ends.get(b) and (a in held) == (b in held) for a, b in r.swaps)
            and r.boundary(walls).kind != "window"
            for r in self.reflections.values()
        ]

    # ------------------------------------------------------------------------------------------- the deed

    def _view(
        self,
        batch: Trajectories,
        plan: Plan,
        g: SliceAffine,
        strengths: dict[str, Tensor],
        relative: dict[str, Tensor],
        start: Tensor,
        time: Tensor,
        reflected: dict[str, Tensor],
    ) -> tuple[Trajectories, GroupElements]:
        spacing, device = batch.grid_spacing, batch.device
        half = constant(tuple((p - 1) / 2 for p in plan.points), device)
        origin = torch.stack([s[:, 0] for s in batch.space], dim=1)
        centre = origin + (start[:, 1:] + half) * spacing
        centre_time = (time[:, 0] + time[:, -1]) / 2
        # Nodes of the view relative to its centre, in the source and after the map; (B, P_i) each.
        nodes = [
            (torch.arange(p, dtype=torch.float64, device=device) - (p - 1) / 2) * spacing[:, i : i + 1]
            for i, p in enumerate(plan.points)
        ]
        scale = [g.s[:, 0, i, i : i + 1] if c or self.mode == "metadata" else None for i, c in enumerate(plan.carried)]
        target = [n if s is None else n * s for n, s in zip(nodes, scale, strict=True)]
        names, possible = batch.field_names, self._possible(plan)
        moves = tuple(r for r, ok in zip(self.reflections.values(), possible, strict=True) if ok)
        drawn = [reflected[n] for n, ok in zip(self.reflections, possible, strict=True) if ok]
        flags = torch.stack(drawn, dim=1) if drawn else None
        turn, field_turn = (signed_permutations(n, moves, flags, len(batch), device) for n in (plan.axes, plan.fields))
        with torch.autocast(device.type, enabled=False):  # data are not to be rounded as a network's arithmetic may be
            if self.mode == "grid":
                geometry = Geometry.of(g, plan, spacing, start, target, flags)
                fields = gridded(batch.fields, plan, geometry, g, spacing, self.spline_order, moves)
            elif self.mode == "metadata":
                target = [t + g.r[:, 0, i : i + 1] for i, t in enumerate(target)]
                fields = unmoved(batch.fields, plan, Geometry.unmoved(g, plan, start, nodes, flags), moves)
            else:
                target, times = nodes, centre_time[:, None] + g.new_time
                last = self._identity(g.new_time, plan, g.parameters)
                last = dataclasses.replace(last, s=turn[:, None], m=field_turn[:, None])
                whole = g if flags is None else compose(g, last)
                wider = plan if flags is None else dataclasses.replace(plan, linear=True, mixing=True)
                geometry = Geometry.unmoved(whole, wider, start, nodes, None)
                fields = with_coordinates(batch.fields, wider, geometry, times, centre)
                names = (*names, self.algebra.equation.independent[0], *batch.axis_names)
        space = [centre[:, i : i + 1] + t for i, t in enumerate(target)]
        lengths = [
            x[:, -1] - x[:, 0] if kind == "window" else batch.lengths[:, i] * (1 if s is None else s[:, 0])
            for i, (kind, s, x) in enumerate(zip(plan.boundary, scale, space, strict=True))
        ]
        if self.mode != "coords":
            exchange_nodes(space, lengths, centre, moves, drawn, plan)
        parameters = {n: g.parameters[k] for k, n in self._names.items() if k in g.parameters}
        view = batch.replace(
            fields=fields,
            time=centre_time[:, None] + g.new_time,
            space=tuple(space),
            lengths=torch.stack(lengths, dim=1),
            parameters={**batch.parameters, **parameters},
            field_names=names,
            boundary=plan.boundary,
        )
        none = torch.zeros(len(batch), dtype=torch.float64, device=device)
        shifts = {
            n: g.log_parameter_shift.get(k, none)
            for k, n in self._names.items()
            if k in g.log_parameter_shift or n not in self.moved_parameters
        }
        elements = GroupElements(
            strengths=strengths,
            relative=relative,
            log_parameter_shift=shifts,
            reflected=reflected,
            turn=turn,
            field_turn=field_turn,
            start=start,
            centre=torch.cat([centre_time[:, None], centre], dim=1),
            map=g,
        )
        return view, elements


def _take_rows(values: Tensor, start: Tensor, count: int) -> Tensor:
    """Entries start ... start + count - 1 of every row of (B, N)."""
    if count == values.shape[1]:
        return values
    return values.gather(1, start[:, None] + torch.arange(count, device=values.device))
