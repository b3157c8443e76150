"""Smoke that rises in a closed box: incompressible flow with buoyancy between walls."""

# B batch, T output times, X, Y cells along the two axes

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdessl.errors import DataError, ResolutionError
from pdessl.solvers.box_steps import Box, Flow, maccormack_step, semi_lagrangian_step
from pdessl.solvers.cosine import CosineTransform
from pdessl.solvers.projection import BoxProjection
from pdessl.solvers.simulator import Leg, Simulator, Solution
from pdessl.solvers.staggered import to_centres, to_faces

__all__ = ["ClosedBoxSmoke"]

STEPS = {"semi_lagrangian": semi_lagrangian_step, "maccormack": maccormack_step}
# Largest ν Δt (1/hx² + 1/hy²) for which viscosity is stable.
VISCOUS_LIMIT = {"semi_lagrangian": 0.5, "maccormack": 1.0}
# Steps longer than so many advisable ones are refused: the first scheme is meant for them, the second errs by 15 %.
LARGEST_COURANT = {"semi_lagrangian": math.inf, "maccormack": 4.0}
# Advisable step in units of h / U: where both schemes are most accurate, see the class.
COURANT = 2.0


class ClosedBoxSmoke(Simulator):
    """Smoke with buoyancy in a closed two-dimensional box.

        u_t + u u_x + v u_y + p_x = ν (u_xx + u_yy)
        v_t + u v_x + v v_y + p_y = ν (v_xx + v_yy) + b s
        u_x + v_y = 0
        s_t + u s_x + v s_y = 0,        (x, y) in [0, L_x] x [0, L_y]

    Axis -2 of the fields is x and axis -1 is y, the direction of the buoyancy. Nothing passes the walls, the velocity
    along them vanishes, and smoke has no gradient across them. Where smoke lies over clear fluid it stays, elsewhere it
    rises in plumes, is stretched into ever thinner filaments and mixed: it does not diffuse, so that what is thinner
    than a cell is lost to the scheme.

    Two schemes, both on a staggered grid with an exact projection onto divergence-free velocities (cosine transforms):

    ``semi_lagrangian`` takes the steps of PDEArena's smoke data, operation by operation, so that it agrees with them
    frame by frame. It is of first order. Long steps follow the flow along straight lines, short ones interpolate more
    often, and either loses energy: numerical dissipation dominates the viscosity, and smoke is not conserved.

    ``maccormack`` is of second order and keeps far more of the energy and of the filaments, at about seven times the
    cost per step.

    Root mean square error of the velocity at t = 21, where it reaches 3.7, from a typical initial smoke (domain_length
    32, viscosity 0.01, buoyancy 0.35), against ``maccormack`` on 256 cells:

    ====================  ====  ====  ====  ====
    step                  0.25  0.5   0.75  1.5
    ====================  ====  ====  ====  ====
    semi_lagrangian, 64   0.58  0.61  0.69  0.85
    semi_lagrangian, 128  0.44  0.57  0.68  0.87
    maccormack, 64        0.27  0.22  0.22  0.28
    maccormack, 128       0.07  0.11  0.15  0.27
    ====================  ====  ====  ====  ====

    Args:
        viscosity: ν, > 0, length²/time; a number or shape (B,), one value per trajectory.
        buoyancy: b, length/time² per unit of smoke, any sign; a number or shape (B,).
        domain_length: L, > 0, length; a number, shape (B,) or (B, 2). Default 32.
        points: cells per axis, even, >= 8; a number or one per axis.
        scheme: ``semi_lagrangian`` or ``maccormack``.
        velocity: where velocities of the initial and returned fields are: ``centres`` of the cells, or ``faces`` (u on
            the lower x face of each cell, v on the lower y face, as PDEArena stores them: exactly divergence-free on
            the grid; the coordinates returned are those of the cell centres all the same).
        settings: the keywords every simulator accepts, see :class:`pdessl.solvers.Simulator`. The default
            ``time_step`` is two cells at the speed U = max|u| + √(b (max s - min s) L_y) / 2, and no longer than
            viscosity allows. A ``forcing`` returns (B, 3, X, Y): accelerations along x and y, where
            the velocities are, and a source of smoke.

    Shapes:
        initial fields u, v, s (B, 3, X, Y) -> trajectories (B, 3, T, X, Y).

    Good values: domain_length 32, points 128, viscosity 0.01, buoyancy 0.2 to 0.5, smoke of order 1, times up to 100;
        ``time_step`` 1.5 for what the public data are, the default for the equation.

    Raises:
        DataError: a viscosity <= 0, values that are not finite, an unknown scheme or place of the velocity.
        ResolutionError: odd points, a step <= 0, one for which viscosity is unstable, or (``maccormack``) a step longer
            than four advisable ones, or cells wider than the layers at the walls, √(ν L / U); the message states what
            would do.
        ShapeError: shapes that do not fit.

    Source: Gupta, Brandstetter (2022), arXiv:2209.15616, appendix, for the set-up; Stam (1999) for the first scheme.
    """

    equation = "boussinesq"
    field_names = ("u", "v", "s")
    parameter_names = ("viscosity", "buoyancy")
    positive = ("viscosity",)
    dimensions = 2
    boundary = ("wall", "wall")

    def __init__(
        self,
        viscosity: float | Tensor,
        buoyancy: float | Tensor,
        domain_length: float | Tensor = 32.0,
        points: int | Sequence[int] = 128,
        scheme: str = "semi_lagrangian",
        velocity: str = "centres",
        **settings: Any,
    ) -> None:
        super().__init__({"viscosity": viscosity, "buoyancy": buoyancy}, domain_length, points, **settings)
        for label, value, known in (("scheme", scheme, STEPS), ("velocity", velocity, ("centres", "faces"))):
            if value not in known:
                raise DataError(f"{self._name}: unknown {label} '{value}'. Known: {', '.join(known)}.")
        self.scheme = scheme
        self.largest_courant = LARGEST_COURANT[scheme]
        self.velocity = velocity

    # ------------------------------------------------------------------------------- planning

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return √(U L / ν): then a cell is as wide as the layers at the walls, √(ν L / U); at least 8.

        ``semi_lagrangian`` asks for 8 only: on grids too coarse its dissipation takes the place of the viscosity. Smoke
        that does not diffuse gets thinner than any cell sooner or later.
        """
        if self.scheme == "semi_lagrangian":
            return torch.full((len(initial),), 8.0, dtype=torch.float64, device=initial.device)
        length = self.lengths(initial).detach().amax(dim=1)
        viscosity = self.parameter("viscosity", initial).detach()
        return (self._speed(initial) * length / viscosity).sqrt().clamp_min(8.0)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return the time of 2 courant cells at the speed U of the class, or the viscous limit where that is less."""
        advective = courant * COURANT * self.spacing(initial).detach().amin(dim=1) / self._speed(initial)
        return torch.minimum(advective, self._longest_viscous_step(initial))

    def _speed(self, initial: Tensor) -> Tensor:
        """Return U, the largest initial speed plus half that of free fall through the box, shape (B,)."""
        fields = initial.detach().to(torch.float64)
        least, most = torch.aminmax(fields[:, 2].flatten(1), dim=1)
        buoyancy = self.parameter("buoyancy", initial).detach().abs()
        fall = (buoyancy * (most - least) * self.lengths(initial).detach()[:, 1]).sqrt()
        return (fields[:, :2].abs().amax(dim=(1, 2, 3)) + 0.5 * fall).clamp_min(1e-12)

    def _longest_viscous_step(self, initial: Tensor) -> Tensor:
        rate = self.parameter("viscosity", initial).detach() * self.spacing(initial).detach().pow(-2).sum(dim=1)
        return VISCOUS_LIMIT[self.scheme] / rate

    def _refuse_unstable(self, initial: Tensor, legs: Sequence[Leg]) -> None:
        taken = [leg.step for leg in legs if leg.steps]
        if not taken:
            return
        longest, step = self._longest_viscous_step(initial), torch.stack(taken).amax(dim=0)
        excess = step / longest
        worst = int(excess.argmax())
        if float(excess[worst]) > 1 + 1e-9:
            limit = VISCOUS_LIMIT[self.scheme]
            raise ResolutionError(
                f"{self._name}: viscosity is unstable with steps of {float(step[worst]):.4g} in trajectory {worst} "
                f"({self._describe(initial, worst)}): ν Δt (1/hx² + 1/hy²) is {limit * float(excess[worst]):.3g}, "
                f"stable is at most {limit}. Use time_step <= {0.9995 * float(longest[worst]):.4g}, more substeps, or "
                f"fewer points."
            )

    # -------------------------------------------------------------------------------- solving

    def solve(
        self,
        initial: Tensor,
        times: Tensor,
        observed: int | Sequence[int] | None = None,
        sampling: str = "points",
    ) -> Solution:
        """Integrate and observe; see :meth:`pdessl.solvers.Simulator.solve`.

        Initial velocities are projected onto divergence-free ones. On a coarser grid than the solver's only
        ``cell_average`` exists: smoke and centred velocities are means over cells, velocities on faces means over faces
        (which keeps them divergence-free).
        """
        initial_given = initial
        nodes = self._observed(observed, sampling)
        if nodes != self.points and sampling != "cell_average":
            raise DataError(
                f"{self._name}: sampling '{sampling}' on {'x'.join(map(str, nodes))} cells: the centres of coarser "
                "cells are not centres of the solver's. Use sampling 'cell_average'."
            )
        initial, times = self._checked(initial, times)
        legs = self.legs(initial_given, times)
        self._refuse_unstable(initial_given, legs)
        spacing = self.spacing(initial).detach()
        columns = {n: self.parameter(n, initial).to(self.precision)[:, None, None] for n in self.parameter_names}
        x, y = self.points
        box = Box((x, y), spacing.to(self.precision), **columns, project=BoxProjection((x, y), spacing))
        flow = self._begin(initial, box)
        frames = []
        for leg in legs:
            step = leg.step.to(self.precision)
            for n in range(leg.steps):
                flow = STEPS[self.scheme](flow, step, self._source(leg, n), box)
            if leg.observed:
                frames.append(self._frame(flow, nodes))
        return Solution(self.trajectories(torch.stack(frames, dim=2), times, initial), self._tail(flow))

    def _begin(self, initial: Tensor, box: Box) -> Flow:
        u, v, s = initial.unbind(dim=1)
        if self.velocity == "centres":
            u, v = to_faces(u, -2), to_faces(v, -1)
        elif bool(u[:, 0].any()) or bool(v[..., 0].any()):
            raise DataError(
                f"{self._name}: the initial velocity passes the lower walls: u[:, 0, :] and v[:, :, 0] are faces on "
                "the walls and must be zero. Set velocity='centres' if these are values at cell centres."
            )
        return *box.project(u, v), s

    def _source(self, leg: Leg, n: int) -> Tensor | None:
        """Return the source of step n of a leg: at its beginning, in the second-order scheme in its middle."""
        source = self.source(leg, leg.start + (n + (0.5 if self.scheme == "maccormack" else 0.0)) * leg.step)
        if source is None or self.velocity == "faces":
            return source
        return torch.stack([to_faces(source[:, 0], -2), to_faces(source[:, 1], -1), source[:, 2]], dim=1)

    def _frame(self, flow: Flow, nodes: tuple[int, ...]) -> Tensor:
        """Return the fields (B, 3, *nodes) as they are stored."""
        u, v, s = flow
        if self.velocity == "centres":
            u, v = to_centres(u, -2), to_centres(v, -1)
        if nodes != self.points:
            b, (m, n) = len(s), nodes
            blocks = [f.reshape(b, m, self.points[0] // m, n, self.points[1] // n) for f in (u, v, s)]
            if self.velocity == "faces":
                blocks[0], blocks[1] = blocks[0][:, :, :1], blocks[1][..., :1]
            u, v, s = (f.mean(dim=(2, 4)) for f in blocks)
        return torch.stack([u, v, s], dim=1).to(self.dtype)

    def _tail(self, flow: Flow) -> Tensor:
        """Return the largest amplitude of cosine modes above 2/3 of the grid over the largest of all, of u and v."""
        centred = torch.stack([to_centres(flow[0], -2), to_centres(flow[1], -1)], dim=1).detach().to(torch.float64)
        x, y = (CosineTransform(n, torch.float64, centred.device) for n in self.points)
        amplitude = x(y(centred).transpose(-1, -2)).transpose(-1, -2).abs().amax(dim=1)
        largest = amplitude.amax(dim=(1, 2))
        cuts = [2 * n // 3 for n in self.points]
        fine = torch.maximum(amplitude[:, cuts[0] :].amax(dim=(1, 2)), amplitude[:, :, cuts[1] :].amax(dim=(1, 2)))
        return torch.where(largest > 0, fine / largest.clamp_min(1e-300), torch.zeros_like(largest))
