"""What sound runs are made to violate from a frame on, and symmetries that are no violation."""

# B runs, C fields, T frames, X space (one axis)

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdessl.data import Switch, simulate
from pdessl.trajectory import Trajectories

__all__ = ["CONTROLS", "violations"]

#: After which a run is the image of a sound run under a symmetry of the equation: none is to be noticed.
CONTROLS = ("shifted", "reflected")


def violations(
    dataset: str, parameter: str, sound: Trajectories, frame: int, indices: range, reversible: bool = False
) -> dict[str, Callable[[], Trajectories]]:
    """Return how to make the violated runs: all of them equal the sound ones up to the frame (controls do not).

    Args:
        dataset: that ``sound`` are the test runs ``indices`` of, of one field on one periodic axis, and of an equation
            with the symmetry u(x) -> u(x + c).
        parameter: that switches.
        sound: the runs.
        frame: the last one before the violation.
        indices: of the runs.
        reversible: the equation has the symmetry u(t, x) -> u(-t, -x) rather than u(x) -> -u(-x).
    """
    fields = sound.fields
    mirrored = fields.flip(3).roll(1, dims=3)

    def switched(factor: float) -> Callable[[], Trajectories]:
        switch = Switch(parameter, factor, frame)
        return lambda: simulate(dataset, "test", indices, switch=switch).without_parameters()

    def later(change: Callable[[Tensor], Tensor]) -> Callable[[], Trajectories]:
        return lambda: sound.replace(fields=torch.cat([fields[:, :, : frame + 1], change(fields)], dim=2))

    count = fields.shape[2] - frame - 1
    backwards = [max(frame - 1 - i, 0) for i in range(count)]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(fields[:, :, frame + 1 :].shape, generator=generator)
    level = fields.std(dim=(2, 3), keepdim=True)
    stuck = fields[:, :, frame + 1 :].clone()
    stuck[..., stuck.shape[3] // 2] = fields[:, :, frame : frame + 1, stuck.shape[3] // 2]
    patch = fields[:, :, frame + 1 :].clone()
    width = patch.shape[3] // 8
    patch[..., :width] = fields.roll(1, dims=0)[:, :, frame + 1 :, :width]
    return {
        f"{parameter} x 1.1": switched(1.1),
        f"{parameter} x 1.3": switched(1.3),
        f"{parameter} / 1.3": switched(1 / 1.3),
        f"{parameter} x 2": switched(2.0),
        "time runs backwards": later(lambda u: u[:, :, backwards]),
        "mean rises by a tenth of the deviation": later(lambda u: u[:, :, frame + 1 :] + 0.1 * level),
        "a node is stuck": later(lambda u: stuck),
        "an eighth of the places from another run": later(lambda u: patch),
        "noise of a tenth of the deviation is added": later(lambda u: u[:, :, frame + 1 :] + 0.1 * level * noise),
        "a frame is shown twice": later(lambda u: u[:, :, frame:-1]),
        "shifted": lambda: sound.replace(fields=fields.roll(11, dims=3)),
        "reflected": lambda: sound.replace(fields=mirrored.flip(2) if reversible else -mirrored),
    }
