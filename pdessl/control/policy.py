"""Mode 1: a policy distilled from a controller that searches, which acts at once."""

# B episodes, M observed values, A actuators, n labelled states

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pdessl.control.controlled import ControlledPDE
from pdessl.control.episodes import Controller, Situation, VectorEnvironment
from pdessl.errors import DataError, ShapeError
from pdessl.models import Policy

__all__ = ["Distilled", "distil", "minimise_in_batches"]

_PASSES = 200  # over a memory of states in a fit, at most


class Distilled:
    """A policy as a controller.

    Args:
        environment: what is controlled.
        policy: see :class:`pdessl.models.Policy`.

    Raises:
        ShapeError: a policy of other observations or actuators.
    """

    def __init__(self, environment: ControlledPDE, policy: Policy) -> None:
        given = policy.init_args["observed"], policy.init_args["actions"]
        if given != (environment.observed, environment.actuators):
            raise ShapeError(
                f"the policy takes {given[0]} values to {given[1]} amplitudes, {environment.name} has "
                f"{environment.observed} and {environment.actuators}. Use it where it was distilled."
            )
        self.environment, self.policy = environment, policy.eval()

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes (B, A) of this period."""
        with torch.no_grad():
            return self.policy(situation.observation.float()).double()


def distil(
    environment: ControlledPDE,
    expert: Controller,
    seeds: Sequence[int],
    rounds: int = 2,
    hidden: Sequence[int] = (128, 128),
    steps: int = 3000,
    seed: int = 0,
    widen: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Policy:
    """Return a policy that does what an expert does in the states that the policy itself visits.

    In the first round the expert acts, and all that it does is learned; in the others the policy acts, and the expert
    says what it would do. After each round the policy is fitted to all that was said so far. Where the policy acts, an
    expert that plans every few periods is asked when it plans (its attribute ``fresh``): the rest of a plan is made for
    states that did not come.

    Args:
        environment: what is controlled, without targets that differ between episodes.
        expert: acts.
        seeds: of the episodes of a round; each round has its own, by adding their number.
        rounds: how many, >= 1; 1 is behaviour cloning.
        hidden: widths of the policy.
        steps: of AdamW in each fit, at most.
        seed: of weights and batches.
        widen: makes more labels of observations (n, M) and amplitudes (n, A), as by the symmetries of the equation.

    Raises:
        DataError: no rounds, or episodes with targets, which the observation does not tell.

    Source: DAgger: Ross, Gordon, Bagnell (2011), arXiv:1011.0686.
    """
    if rounds < 1 or environment.targeted:
        raise DataError(
            f"{environment.name}: {rounds} rounds, target {'drawn' if environment.targeted else '0'}; expected "
            "at least one round, and an environment whose target is 0."
        )
    generator = torch.Generator().manual_seed(seed)
    seen: list[Tensor] = []
    said: list[Tensor] = []
    policy = Policy(environment.observed, environment.actuators, hidden, environment.bound)
    with torch.no_grad():
        for parameter in policy.parameters():
            spread = parameter.shape[1] ** -0.5 if parameter.ndim > 1 else 0.0
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    for turn in range(rounds):
        world = VectorEnvironment(environment)
        now = world.reset([s + turn * len(seeds) for s in seeds])
        actor = Distilled(environment, policy)
        while not world.done:
            wanted = expert.act(now)
            if turn == 0 or getattr(expert, "fresh", True):
                seen.append(now.observation.float())
                said.append(wanted.float())
            with torch.no_grad():
                now, _ = world.step(wanted if turn == 0 else actor.act(now))
        labels = torch.cat(seen), torch.cat(said)
        _fit(policy, *(labels if widen is None else widen(*labels)), steps, generator)
    return policy.eval()


def _fit(policy: Policy, observations: Tensor, actions: Tensor, steps: int, generator: torch.Generator) -> None:
    policy.centre.copy_(observations.mean(dim=0))
    policy.scale.copy_(observations.std(dim=0).clamp_min(1e-6))

    def error(rows: Tensor) -> Tensor:
        return (policy(observations[rows]) - actions[rows]).square().mean()

    minimise_in_batches(policy, error, len(observations), steps, generator)


def minimise_in_batches(
    network: nn.Module, error: Callable[[Tensor], Tensor], count: int, steps: int, generator: torch.Generator
) -> None:
    """Train a small network on a memory that fits into the computer's, by AdamW with a falling rate.

    Args:
        network: what is trained.
        error: of rows of the memory, numbers (256,) or fewer, a scalar.
        count: rows of the memory.
        steps: at most; no more than 200 passes over the memory.
        generator: of the rows of each step.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    size = min(256, count)
    steps = min(steps, _PASSES * count // size)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            found = error(torch.randint(count, (size,), generator=generator))
            optimiser.zero_grad()
            found.backward()
            optimiser.step()
            fall.step()
