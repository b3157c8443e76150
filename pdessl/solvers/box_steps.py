"""One time step of buoyant flow in a closed box: the splitting of the public smoke data, and one of second order."""

# B batch, X, Y cells along the two axes. Velocities are on lower faces, see pdessl/solvers/staggered.py.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pdessl.solvers.projection import BoxProjection
from pdessl.solvers.semi_lagrangian import Positions, advect_maccormack, look_up, nodes
from pdessl.solvers.staggered import ABOVE, close, laplacian, to_centres, to_faces

__all__ = ["Box", "Flow", "maccormack_step", "semi_lagrangian_step"]

#: u and v on lower faces and smoke s at cell centres, each (B, X, Y).
Flow = tuple[Tensor, Tensor, Tensor]
#: u and v on lower faces, each (B, X, Y).
Velocity = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Box:
    """What every step of a batch needs.

    Args:
        points: cells X, Y.
        spacing: hx, hy, shape (B, 2), in the dtype of the fields.
        viscosity: ν, shape (B, 1, 1), length²/time.
        buoyancy: b, shape (B, 1, 1), length/time² per unit of smoke.
        project: the projection onto divergence-free velocities.
    """

    points: tuple[int, int]
    spacing: Tensor
    viscosity: Tensor
    buoyancy: Tensor
    project: BoxProjection

    def cells_per_step(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return step/hx and step/hy, each (B, 1, 1): displacements in cells per unit of velocity."""
        ratio = step[:, None] / self.spacing
        return ratio[:, 0, None, None], ratio[:, 1, None, None]


def semi_lagrangian_step(flow: Flow, step: Tensor, source: Tensor | None, box: Box) -> Flow:
    """Advance by one step in the order of operations of the public smoke data; first order.

    1. smoke looked up where straight lines against the velocity end, zero gradient at the walls;
    2. buoyancy b s on y faces from the new smoke;
    3. velocity looked up likewise, zero half a cell outside the walls, plus step times the buoyancy;
    4. one explicit step of viscosity, again with zero half a cell outside the walls;
    5. projection onto divergence-free velocities.

    Args:
        flow: u, v, s.
        step: Δt, shape (B,), in the dtype of the fields.
        source: rates of change (B, 3, X, Y) of u, v (on lower faces) and s, applied where the buoyancy is, or None.
        box: sizes and parameters.
    """
    u, v, s = flow
    i, j = nodes(box.points, s)
    cx, cy = box.cells_per_step(step)
    dt = step[:, None, None]
    u_centre, v_centre = to_centres(u, -2), to_centres(v, -1)
    s = look_up(s, (i - cx * u_centre, j - cy * v_centre), "edge")
    if source is not None:
        s = s + dt * source[:, 2]
    u_new = look_up(u, (i - cx * u, j - cy * to_faces(v_centre, -2)), "zero")
    v_new = look_up(v, (i - cx * to_faces(u_centre, -1), j - cy * v), "zero")
    v_new = v_new + dt * box.buoyancy * to_faces(s, -1)
    if source is not None:
        u_new, v_new = u_new + dt * source[:, 0], v_new + dt * source[:, 1]
    u, v = close(u_new, -2), close(v_new, -1)
    amount = dt * box.viscosity
    u = u + amount * laplacian(u, -2, box.spacing, ghost=0.0)
    v = v + amount * laplacian(v, -1, box.spacing, ghost=0.0)
    return *box.project(u, v), s


# ------------------------------------------------------------------------------- second order


def _extended(axis: int) -> Callable[[Tensor], Tensor]:
    """Return a function that adds the upper wall, and one ghost layer that makes the velocity along walls vanish."""
    other = -3 - axis

    def extend(face: Tensor) -> Tensor:
        face = pad(face, ABOVE[axis])
        first, last = face.narrow(other, 0, 1), face.narrow(other, face.shape[other] - 1, 1)
        return torch.cat([-first, face, -last], dim=other)

    return extend


_EXTEND = {-2: _extended(-2), -1: _extended(-1)}


def _in_nodes(at: Positions, axis: int, box: Box) -> Positions:
    """Return positions, given in cells from the lower corner, in units of nodes of an extended velocity."""
    x, y = at
    if axis == -2:
        return x, y.clamp(0.0, float(box.points[1])) + 0.5
    return x.clamp(0.0, float(box.points[0])) + 0.5, y


def _trace(
    at: Positions, here: Velocity, carrier: Velocity, c: tuple[Tensor, Tensor], box: Box
) -> tuple[Positions, Positions]:
    """Return where the flow was one step ago and will be in one step, by the midpoint rule, in cells.

    Args:
        at: starting points, in cells from the lower corner.
        here: the velocity there.
        carrier: the velocity, extended.
        c: step/hx and step/hy, (B, 1, 1).
        box: sizes.
    """
    u, v = carrier
    ends = []
    for sign in (-1.0, 1.0):
        middle = (at[0] + 0.5 * sign * c[0] * here[0], at[1] + 0.5 * sign * c[1] * here[1])
        there = (look_up(u, _in_nodes(middle, -2, box), "edge"), look_up(v, _in_nodes(middle, -1, box), "edge"))
        ends.append((at[0] + sign * c[0] * there[0], at[1] + sign * c[1] * there[1]))
    return ends[0], ends[1]


def _advect_velocity(u: Tensor, v: Tensor, by: Velocity, step: Tensor, box: Box) -> Velocity:
    """Return u and v carried for one step by another velocity, walls closed, not projected."""
    i, j = nodes(box.points, u)
    c = box.cells_per_step(step)
    carrier = (_EXTEND[-2](by[0]), _EXTEND[-1](by[1]))
    u_centre, v_centre = to_centres(by[0], -2), to_centres(by[1], -1)
    u_ends = _trace((i, j + 0.5), (by[0], to_faces(v_centre, -2)), carrier, c, box)
    v_ends = _trace((i + 0.5, j), (to_faces(u_centre, -1), by[1]), carrier, c, box)
    u_back, u_forth = (_in_nodes(e, -2, box) for e in u_ends)
    v_back, v_forth = (_in_nodes(e, -1, box) for e in v_ends)
    u = advect_maccormack(u, u_back, u_forth, _EXTEND[-2])
    v = advect_maccormack(v, v_back, v_forth, _EXTEND[-1])
    return close(u, -2), close(v, -1)


def _advect_smoke(s: Tensor, by: Velocity, step: Tensor, box: Box) -> Tensor:
    i, j = nodes(box.points, s)
    here = (to_centres(by[0], -2), to_centres(by[1], -1))
    carrier = (_EXTEND[-2](by[0]), _EXTEND[-1](by[1]))
    ends = _trace((i + 0.5, j + 0.5), here, carrier, box.cells_per_step(step), box)
    back, forth = ((x - 0.5, y - 0.5) for x, y in ends)
    return advect_maccormack(s, back, forth)


def _push(flow: Flow, step: Tensor, source: Tensor | None, box: Box) -> Flow:
    """Return the flow after sources, buoyancy and viscosity have acted for a step without advection."""
    u, v, s = flow
    dt = step[:, None, None]
    new = s if source is None else s + dt * source[:, 2]
    amount = dt * box.viscosity
    pushed = []
    for axis, face in ((-2, u), (-1, v)):
        # Two terms of the exponential series: second order, and stable for steps twice as long as with one.
        once = amount * laplacian(face, axis, box.spacing, ghost=-1.0)
        pushed.append(face + once + 0.5 * amount * laplacian(once, axis, box.spacing, ghost=-1.0))
    u, v = pushed
    v = v + dt * box.buoyancy * to_faces(0.5 * (s + new), -1)
    if source is not None:
        u, v = u + dt * close(source[:, 0], -2), v + dt * close(source[:, 1], -1)
    return *box.project(u, v), new


def maccormack_step(flow: Flow, step: Tensor, source: Tensor | None, box: Box) -> Flow:
    """Advance by one step of second order in the advection and the buoyancy, with little numerical dissipation.

    Half a step of sources, buoyancy and viscosity, then advection by MacCormack's scheme with midpoint traces, then the
    other half (Strang's splitting). The velocity is advected for half a step, reflected at its projection onto
    divergence-free velocities, and advected again: plain projection would lose energy in every step. The velocity
    along the walls vanishes on the walls. Viscosity and projection do not commute at walls: there the scheme is of
    first order in the step, with a coefficient proportional to ν.

    Args:
        flow: u, v, s.
        step: Δt, shape (B,), in the dtype of the fields.
        source: as in :func:`semi_lagrangian_step`, in the middle of the step.
        box: sizes and parameters.

    Source: Zehnder, Narain, Thomaszewski (2018), doi:10.1145/3197517.3201324, for the reflection.
    """
    half = 0.5 * step
    u, v, s = _push(flow, half, source, box)
    carried = _advect_velocity(u, v, (u, v), half, box)
    middle = box.project(*carried)
    reflected = (2 * middle[0] - carried[0], 2 * middle[1] - carried[1])
    u, v = _advect_velocity(*reflected, middle, half, box)
    s = _advect_smoke(s, middle, step, box)
    return _push((u, v, s), half, source, box)
