"""Symmetries of a controlled equation: those that map actuators to actuators, and move amplitudes with the fields."""

# B batch, C channels, T frames, X space, A actuators, G transformations

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.equations import load_equation
from pdessl.errors import SymmetryError
from pdessl.symmetry.discrete import discrete_symmetries
from pdessl.trajectory import Trajectories

__all__ = ["ActuatedSymmetries", "Moved", "moves_of"]

_SAME = 1e-6  # of the length: positions that differ by less are one


@dataclass(frozen=True)
class Moved:
    """A map x -> ±x + shift of a periodic axis, with u -> ±u, that maps actuators to actuators.

    Args:
        shift: in lengths of the axis.
        mirrored: x -> -x first.
        sign: of the field, and so of the amplitudes.
        order: actuator i has afterwards the amplitude that ``order[i]`` had.
    """

    shift: float
    mirrored: bool
    sign: int
    order: tuple[int, ...]


def moves_of(runs: Trajectories) -> list[Moved]:
    """Return the symmetries of controlled runs on one periodic axis, the identity first.

    Shifts, and the reflections that the equation has (:func:`pdessl.symmetry.discrete.discrete_symmetries`), composed
    such that the set of actuators is mapped to itself. All actuators are taken to have one profile, symmetric about
    its position.

    Raises:
        SymmetryError: no actions or positions, several axes, one that is not periodic, or no named equation.
    """
    if runs.actions is None or not runs.actuators or runs.boundary != ("periodic",) or runs.equation is None:
        raise SymmetryError(
            f"symmetries of a controlled equation need actions, positions of the actuators, one periodic axis and a "
            f"named equation; these runs have {'no ' if runs.actions is None else ''}actions, "
            f"{len(runs.actuators)} positions, boundary {runs.boundary} and equation {runs.equation}."
        )
    length = float(runs.lengths[0, 0])
    places = torch.tensor([p[0] for p in runs.actuators], dtype=torch.float64) / length
    axis, fields = runs.axis_names[0], runs.field_names
    mirrors = [(False, 1)]
    for found in discrete_symmetries(load_equation(runs.equation)):
        signs = {f in found.flips for f in fields}
        if axis in found.flips and not found.parameters and not found.swaps and len(signs) == 1:
            mirrors.append((True, -1 if signs.pop() else 1))
    moves = []
    for mirrored, sign in mirrors:
        start = -places if mirrored else places
        for shift in sorted({round(float(s) % 1.0, 9) % 1.0 for s in places - start[0]}):
            apart = (places[:, None] - (start + shift)[None, :] + 0.5) % 1.0 - 0.5
            near = apart.abs() < _SAME
            if bool((near.sum(dim=1) == 1).all()):
                moves.append(Moved(shift, mirrored, sign, tuple(near.int().argmax(dim=1).tolist())))
    return sorted(moves, key=lambda m: (m.mirrored, m.shift))


class ActuatedSymmetries(nn.Module):
    """Draw a symmetry of the controlled equation per run, and apply it to fields and amplitudes.

    With n equally spaced actuators there are n shifts, and as many reflections where the equation has them. Shifts by
    whole nodes are exact; others are made by the Fourier series, of a field that the grid resolves.

    Shapes:
        trajectories (B, C, T, X) with actions (B, A, T - 1) -> the same.

    Raises:
        SymmetryError: see :func:`moves_of`.
    """

    def forward(self, batch: Trajectories, generator: torch.Generator | None = None) -> tuple[Trajectories, Tensor]:
        """Return the runs moved, and which of :func:`moves_of` was drawn for each, (B,)."""
        moves = moves_of(batch)
        device = batch.device
        drawn = draw_rows(
            lambda n, g: torch.randint(len(moves), (n,), generator=g, device=device), len(batch), generator
        )
        return moved(batch, moves, drawn), drawn


def moved(batch: Trajectories, moves: list[Moved], chosen: Tensor) -> Trajectories:
    """Return runs moved by ``moves[chosen]``, chosen (B,)."""
    assert batch.actions is not None  # noqa: S101  (moves_of has looked)
    fields, actions = batch.fields.clone(), batch.actions.clone()
    points = fields.shape[3]
    for number, move in enumerate(moves):
        rows = (chosen == number).nonzero()[:, 0]
        if not number or not len(rows):
            continue
        values = batch.fields[rows]
        if move.mirrored:  # node j to node -j
            values = values.flip(3).roll(1, dims=3)
        nodes = move.shift * points
        if abs(nodes - round(nodes)) < 1e-6:
            values = values.roll(round(nodes), dims=3)
        else:
            wave = torch.fft.rfft(values.double(), dim=3)
            k = torch.arange(wave.shape[3], dtype=torch.float64, device=fields.device)
            turn = torch.polar(torch.ones_like(k), -2 * torch.pi * move.shift * k)
            values = torch.fft.irfft(wave * turn, n=points, dim=3).to(fields.dtype)
        fields[rows] = move.sign * values
        actions[rows] = move.sign * batch.actions[rows][:, list(move.order)]
    return batch.replace(fields=fields, actions=actions)
