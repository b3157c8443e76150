"""How two views of one trajectory lie to each other: common coordinates, and the element from one to the other."""

# B batch, T frames, P nodes of a view, d space axes, m fields, k coordinates of an element

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.augmentation.lie import GroupElements
from pdessl.trajectory import Trajectories

__all__ = ["relative_element", "source_positions"]


def source_positions(view: Trajectories, elements: GroupElements) -> Tensor:
    """Return where each node of a view comes from, in the coordinates of the trajectory it was made from.

    Args:
        view: fields (B, C, T, *P), made in mode ``grid``.
        elements: what was drawn with it.

    Returns:
        Shape (B, T, *P, 1 + d), float64: time first. Two views of one trajectory may be compared there: places that
        agree showed the same piece of the trajectory, whatever was drawn. On a periodic axis the numbers are those of
        one lift of the circle: compare them modulo the period.
    """
    g, d = elements.map, len(view.space)
    points = tuple(s.shape[1] for s in view.space)
    axes = []
    for i, nodes in enumerate(view.space):
        x = nodes - elements.centre[:, 1 + i : 2 + i]
        axes.append(x.reshape(x.shape[0], *[-1 if k == i else 1 for k in range(d)]).expand(-1, *points))
    # The inverse of a signed permutation is its transpose.
    target = torch.stack(axes, dim=-1).flatten(1, -2) @ elements.turn
    moved = target[:, None] - g.r[:, :, None]
    source = torch.einsum("btij,btkj->btki", torch.linalg.inv(g.s).expand(-1, moved.shape[1], -1, -1), moved)
    source = source.expand(-1, g.time.shape[1], -1, -1) + elements.centre[:, None, None, 1:]
    time = (g.time + elements.centre[:, :1])[..., None, None].expand(-1, -1, source.shape[2], 1)
    return torch.cat([time, source], dim=-1).reshape(len(view), g.time.shape[1], *points, 1 + d)


def relative_element(
    batch: Trajectories, first: GroupElements, second: GroupElements, moves: Sequence[str] = ()
) -> Tensor:
    """Return coordinates of the element that carries the first view to the second, 0 where both views are alike.

    The coordinates are the coefficients of g₂∘g₁⁻¹ on the middle frame minus those of the identity: the logarithm of
    the stretch of time, S - 1, M - 1, the value added, how far the centres of the views lie apart in the trajectory (as
    shares of its duration and lengths, on a circle the shorter way), and the shift of log-parameters. They come from
    composing the maps, so they hold for flows that do not commute, for which differences of strengths are wrong.
    Reflections count in S and M.

    Args:
        batch: what both views were made from.
        first: what was drawn for the first view.
        second: what was drawn for the second.
        moves: names of parameters whose log-shift is appended.

    Returns:
        Shape (B, k), float64, k = 1 + d² + m² + m + 1 + d + len(moves).
    """
    rate1, s1, m1, b1, place1 = _at_centre(batch, first)
    rate2, s2, m2, b2, place2 = _at_centre(batch, second)
    s, m = s2 @ torch.linalg.inv(s1), m2 @ torch.linalg.inv(m1)
    duration = (batch.time[:, -1] - batch.time[:, 0]).clamp_min(torch.finfo(torch.float64).tiny)
    apart = (place2 - place1) / torch.cat([duration[:, None], batch.lengths], dim=1)
    for i, kind in enumerate(batch.boundary):
        if kind == "periodic":
            apart[:, 1 + i] -= apart[:, 1 + i].round()
    columns = [
        (rate2 / rate1).log()[:, None],
        (s - torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)).flatten(1),
        (m - torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)).flatten(1),
        b2 - torch.einsum("bij,bj->bi", m, b1),
        apart,
        *((second.log_parameter_shift[n] - first.log_parameter_shift[n])[:, None] for n in moves),
    ]
    return torch.cat(columns, dim=1)


def _at_centre(batch: Trajectories, elements: GroupElements) -> tuple[Tensor, ...]:
    """Stretch of time (B,), S (B, d, d), M (B, m, m), b0 (B, m) on the middle frame; the source's place (B, 1 + d)."""
    g = elements.map
    frames = g.time.shape[1]

    def middle(coefficient: Tensor) -> Tensor:
        return coefficient[:, frames // 2 if coefficient.shape[1] > 1 else 0]

    s, m, b0 = middle(g.s), middle(g.m), middle(g.b0)
    place = elements.centre.clone()
    place[:, 1:] -= torch.einsum("bij,bj->bi", torch.linalg.inv(s), middle(g.r))
    rate = torch.ones_like(g.time[:, 0])
    if frames > 1:
        rate = (g.new_time[:, -1] - g.new_time[:, 0]) / (g.time[:, -1] - g.time[:, 0])
    s, m, b0 = elements.turn @ s, elements.field_turn @ m, (elements.field_turn @ b0[..., None])[..., 0]
    return rate, s, m, b0, place
