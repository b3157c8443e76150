"""What models imagine beside what comes: the first episode, and errors under random amplitudes."""

# n starts, H control periods, X grid points

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pdessl.control import ControlledPDE, Episodes, Random, VectorEnvironment
from pdessl.control.receding import Model

__all__ = ["dream", "errors", "imagination"]


def dream(env: ControlledPDE, model: Model, run: Episodes, horizon: int) -> tuple[Tensor, Tensor]:
    """Return the field a model imagines from the first start under what was executed, and what came, (H + 1, X)."""
    now, ahead = VectorEnvironment(env).reset(run.seeds[:1]), min(horizon, env.steps)
    with torch.no_grad():
        after = env.field(model.imagine(now, run.actions[:1, None, :ahead])[0, 0])
    return env.profile(torch.cat([env.field(now.state), after])), env.profile(run.fields[0, : ahead + 1])


def imagination(env: ControlledPDE, model: Model, seeds: Sequence[int], horizon: int) -> Tensor:
    """Return the error of what a model imagines, (H,), over the mean square of what random amplitudes lead to."""
    wrong, size = _imagine(env, model, seeds, horizon)
    return wrong.mean(dim=0) / size.mean(dim=0).clamp_min(1e-300)


def errors(env: ControlledPDE, model: Model, seeds: Sequence[int], horizon: int) -> Tensor:
    """Return the same for each start by itself, (n, H)."""
    wrong, size = _imagine(env, model, seeds, horizon)
    return wrong / size.clamp_min(1e-300)


def _imagine(env: ControlledPDE, model: Model, seeds: Sequence[int], horizon: int) -> tuple[Tensor, Tensor]:
    """Return mean squares (n, H) of the error of a model, and of the field, under random amplitudes."""
    now, chance = VectorEnvironment(env).reset(seeds), Random(env)
    ahead = min(horizon, env.steps)
    actions = torch.stack([chance.act(replace(now, step=step)) for step in range(ahead)], dim=1)
    with torch.no_grad():
        real = env.rollout(now.state, env.acting(actions, seeds))[:, 1:]
        return env.mean_square(model.imagine(now, actions[:, None])[:, 0] - real), env.mean_square(real)
