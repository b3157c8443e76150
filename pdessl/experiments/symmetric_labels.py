"""What symmetries of a controlled equation make of labelled states: the same search, seen from another place."""

# n labelled states, G symmetries, A actuators, X grid points

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdessl.augmentation.actuated import moved, moves_of
from pdessl.control import ControlledPDE, Environment
from pdessl.errors import SymmetryError
from pdessl.trajectory import Trajectories

__all__ = ["labels_by_symmetry"]


def labels_by_symmetry(environment: ControlledPDE) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return what makes (G n, X) fields and (G n, A) amplitudes of (n, X) and (n, A): moved, first as they are.

    Where fields and amplitudes are moved together, equation and cost are what they were: what is best in the one
    place is best in the other. None: fields are not seen whole, an episode has a target, there are pumps or filters, or
    the equation is not known to have a symmetry that maps actuators to actuators.
    """
    env = environment
    if not isinstance(env, Environment) or env.file.sensors.positions is not None or env.targeted:
        return None
    if env.file.filters or env.file.actuators.kind == "pump":  # a filter stays, and a pump has no place
        return None

    def runs(fields: Tensor, actions: Tensor) -> Trajectories:
        n = len(fields)
        return Trajectories(
            fields=fields[:, None, None].expand(-1, -1, 2, -1),
            time=torch.tensor([0.0, env.file.control.period], dtype=torch.float64).expand(n, -1),
            space=tuple(nodes.expand(n, -1) for nodes in env.nodes()),
            lengths=torch.tensor([env.lengths], dtype=torch.float64).expand(n, -1),
            parameters={},
            field_names=env.channels,
            axis_names=("x",),
            boundary=env.boundary,
            equation=env.file.equation,
            actions=actions.double()[:, :, None],
            actuators=env.places,
        )

    try:
        moves = moves_of(runs(torch.zeros(1, env.points), torch.zeros(1, env.actuators)))
    except SymmetryError:
        return None
    if len(moves) < 2:
        return None

    def widened(fields: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        whole = runs(fields, actions)
        found = [moved(whole, moves, torch.full((len(fields),), g)) for g in range(len(moves))]
        seen = torch.cat([one.fields[:, 0, 0] for one in found])
        said = [one.actions[:, :, 0] for one in found if one.actions is not None]
        return seen, torch.cat(said).to(actions.dtype)

    return widened
