"""A critic: what follows after the horizon of a plan, learned from a memory of states and costs."""

# B episodes, T control periods, K kept Fourier modes, D real coordinates, n remembered states

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pdessl.control.environment import Environment
from pdessl.control.episodes import Controller, VectorEnvironment
from pdessl.control.policy import minimise_in_batches
from pdessl.errors import DataError, ShapeError
from pdessl.models import Critic

__all__ = ["Terminal", "discounted_means", "learn_critic"]

KEPT = 2  # rounds that are remembered: costs of older ones are those of a controller that is no more


def discounted_means(costs: Tensor, discount: float) -> Tensor:
    """Return the discounted mean of the costs that follow, (B, T), of costs (B, T).

        m_t = Σ_k γ^k c_{t+k} / Σ_k γ^k,    k = 0 .. T - 1 - t

    A mean and not a sum, so that the end of an episode, where less follows, looks like its middle.

    Args:
        costs: of each period.
        discount: γ in [0, 1).
    """
    total, weight = torch.zeros_like(costs[:, 0]), torch.zeros_like(costs[:, 0])
    found = []
    for now in costs.flip(1).unbind(dim=1):
        total, weight = now + discount * total, 1 + discount * weight
        found.append(total / weight)
    return torch.stack(found[::-1], dim=1)


class Terminal:
    """What a critic adds to the cost of a plan at its end.

        V(x, R) = m(x) (1 - γ^R)/(1 - γ),    R the periods of the episode after the plan

    Args:
        environment: what is controlled, its target 0.
        critic: m, of the coordinates of a state.
        discount: γ, with which m was learned.

    Raises:
        ShapeError: a critic of other coordinates.
        DataError: a discount out of range, or an environment with targets, which m does not know.
    """

    def __init__(self, environment: Environment, critic: Critic, discount: float) -> None:
        if critic.coordinates != environment.coordinates_count:
            raise ShapeError(
                f"the critic takes {critic.coordinates} coordinates, a state of {environment.name} has "
                f"{environment.coordinates_count}. Use it where it was learned."
            )
        _check(environment, discount)
        self.environment, self.critic, self.discount = environment, critic.eval(), discount

    def __call__(self, states: Tensor, left: int) -> Tensor:
        """Return V (...) of states (..., K) with ``left`` periods to go; differentiable."""
        mean = self.critic(self.environment.coordinates(states).float())
        return (1 - self.discount**left) / (1 - self.discount) * mean.double()


def learn_critic(
    environment: Environment,
    controller: Callable[[Terminal | None], Controller],
    seeds: Sequence[int],
    rounds: int = 2,
    discount: float = 0.95,
    hidden: Sequence[int] = (128, 128),
    steps: int = 1500,
    seed: int = 0,
) -> Terminal:
    """Return a critic of what a controller, with the critic at the end of its plans, goes on to pay.

    In the first round the controller has none. After each round √m is fitted to the roots of the discounted means that
    followed the states of the last two rounds. A critic knows what its memory holds: where the first controller keeps
    to states of one cost, as short plans do on an attractor, the others are extrapolated, and plans go where the error
    is in their favour. Give the first round longer plans than those that follow.

    Args:
        environment: what is controlled; its field is seen whole.
        controller: made for a critic, ``lambda t: RecedingHorizon(..., terminal=t)``; without one (None) it may look
            farther ahead.
        seeds: of the episodes of a round; each round has its own, by adding their number.
        rounds: how many, >= 1.
        discount: γ in [0, 1); 1/(1 - γ) is how many periods it looks ahead.
        hidden: widths of the critic.
        steps: of AdamW in each fit, at most.
        seed: of weights and batches.

    Raises:
        DataError: no rounds, a discount out of range, sensors, or episodes with targets.

    Source: fitted value iteration on Monte Carlo returns; a learned value at the end of a plan: Lowrey et al. (2019),
        arXiv:1811.01848.
    """
    if rounds < 1:
        raise DataError(f"{rounds} rounds of a critic: expected at least one.")
    _check(environment, discount)
    generator = torch.Generator().manual_seed(seed)
    critic = Critic(environment.coordinates_count, hidden)
    with torch.no_grad():
        for parameter in critic.parameters():
            spread = parameter.shape[1] ** -0.5 if parameter.ndim > 1 else 0.0
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    memory: list[tuple[Tensor, Tensor]] = []
    terminal: Terminal | None = None
    for turn in range(rounds):
        memory.append(_remember(environment, controller(terminal), [s + turn * len(seeds) for s in seeds], discount))
        seen, wanted = (torch.cat(parts) for parts in zip(*memory[-KEPT:], strict=True))
        _fit(critic, seen, wanted, steps, generator)
        terminal = Terminal(environment, critic, discount)
    return Terminal(environment, critic, discount)


def _check(environment: Environment, discount: float) -> None:
    if not 0 <= discount < 1 or environment.targeted or environment.observed < environment.points:
        raise DataError(
            f"{environment.name}: discount {discount}, {environment.observed} observed values, target "
            f"{'drawn' if environment.targeted else '0'}; a critic needs a discount in [0, 1), the field at "
            "every node and the target 0."
        )


def _remember(env: Environment, controller: Controller, seeds: Sequence[int], discount: float) -> tuple[Tensor, Tensor]:
    """Return coordinates (n, D) of the states that were met, and the discounted means that followed, (n,)."""
    world = VectorEnvironment(env)
    now = world.reset(seeds)
    seen, costs = [], []
    with torch.no_grad():
        while not world.done:
            seen.append(env.coordinates(env.state(now.observation)))
            now, cost = world.step(controller.act(now))
            costs.append(cost)
    means = discounted_means(torch.stack(costs, dim=1), discount)
    ends = min(round(1 / (1 - discount)), env.steps // 2)  # what little follows there tells little
    kept = env.steps - ends
    return torch.stack(seen, dim=1)[:, :kept].flatten(0, 1).float(), means[:, :kept].flatten().float()


def _fit(critic: Critic, seen: Tensor, wanted: Tensor, steps: int, generator: torch.Generator) -> None:
    critic.scale.fill_(float(seen.square().sum(dim=1).mean().sqrt().clamp_min(1e-6)))

    def error(rows: Tensor) -> Tensor:
        return (critic(seen[rows]).sqrt() - wanted[rows].clamp_min(0.0).sqrt()).square().mean()

    minimise_in_batches(critic, error, len(seen), steps, generator)
