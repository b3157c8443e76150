"""Planning over what is not determined: candidates are imagined in several futures, and cost their mean or worst.

A model that leaves something open, :class:`Undetermined`, reads further numbers ξ behind the amplitudes. They are drawn
once for a search, and are the same for all of its candidates: what is minimised is a function of the amplitudes alone,
with gradients, and differences between candidates are not those between draws.
"""

# B batch, N candidates, S futures, H control periods, A actuators, d numbers of ξ, K kept modes, G limits

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdessl.control.episodes import Situation
from pdessl.errors import DataError

__all__ = ["CASES", "Case", "Drawn", "ManyFutures", "Undetermined", "draw_futures", "open_ended"]

Case = Literal["average", "worst"]
CASES: tuple[Case, ...] = ("average", "worst")


@runtime_checkable
class Undetermined(Protocol):
    """A model whose ``imagine`` also takes candidates (B, N, H, A + d), ξ behind the amplitudes; without, ξ is 0."""

    @property
    def undetermined(self) -> int:
        """How many numbers a period has that are not determined, d; 0: all is."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return draws of ξ, (count, d)."""
        ...


def open_ended(model: object) -> bool:
    """Return whether a model leaves something open."""
    return isinstance(model, Undetermined) and model.undetermined > 0


def draw_futures(model: object, futures: int, batch: int, periods: int, generator: torch.Generator) -> Tensor:
    """Return numbers ξ of futures, (B, S, H, d), independent in every row, future and period.

    Raises:
        DataError: a model that leaves nothing open.
    """
    if not isinstance(model, Undetermined) or not open_ended(model):
        raise DataError(
            f"{type(model).__name__} knows one future only: nothing is left open in it. Plan with futures=0, in an "
            "environment with an unseen force, or in a world model with a latent variable (model.latent_variable)."
        )
    drawn = model.sample(batch * futures * periods, generator)
    return drawn.reshape(batch, futures, periods, model.undetermined)


class Drawn:
    """A model under given numbers ξ: of S N candidates, S in a row are the futures of one.

    Args:
        model: imagines; reads ξ behind the amplitudes.
        numbers: ξ, (B, S, H, d).
    """

    def __init__(self, model: object, numbers: Tensor) -> None:
        self.model, self.numbers = model, numbers

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return states (B, N S, H, K) under candidates (B, N S, H, A)."""
        return self.model.imagine(situation, self._acting(actions))  # type: ignore[attr-defined]

    def energies(self, situation: Situation, actions: Tensor) -> Tensor | None:
        """Return what the model reads without states, see :class:`pdessl.control.receding.Priced`; None: nothing."""
        read = getattr(self.model, "energies", None)
        return None if read is None else read(situation, self._acting(actions))

    def _acting(self, actions: Tensor) -> Tensor:
        periods, repeats = actions.shape[2], actions.shape[1] // self.numbers.shape[1]
        numbers = self.numbers[:, :, :periods].to(actions.dtype)
        return torch.cat([actions, numbers.repeat(1, repeats, 1, 1)], dim=3)


class _Limited(Protocol):
    def cost(self, actions: Tensor) -> Tensor: ...

    def limited(self, actions: Tensor) -> tuple[Tensor, Tensor | None]: ...


class ManyFutures:
    """A problem for planners whose candidates are imagined in S futures each.

        average: cost = 1/S Σ_s c_s,        worst: cost = max_s c_s

    Limits likewise: a plan keeps one on average, or in every future that was drawn. The worst case over more futures is
    no better; it is that of S draws, not a bound.

    Args:
        imagined: the problem in which S candidates in a row are the futures of one, see :class:`Drawn`.
        futures: S, >= 1.
        case: average or worst.
    """

    def __init__(self, imagined: _Limited, futures: int, case: Case = "average") -> None:
        self.imagined, self.futures, self.case = imagined, futures, case

    def cost(self, actions: Tensor) -> Tensor:
        """Return the cost (B, N) of candidates (B, N, H, A)."""
        return self._over(self.imagined.cost(self._several(actions)))

    def limited(self, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the cost (B, N) without a price for limits, and how far each is passed, (B, N, H G)."""
        cost, over = self.imagined.limited(self._several(actions))
        return self._over(cost), None if over is None else self._over(over)

    def keeps_limits(self, plan: Tensor) -> Tensor:
        """Return whether plans (B, H, A) pass no limit, on average or in every future, (B,), bool."""
        _, over = self.limited(plan[:, None])
        if over is None:
            return torch.ones(len(plan), dtype=torch.bool, device=plan.device)
        return (over[:, 0] <= 0).all(dim=1)

    def _several(self, actions: Tensor) -> Tensor:
        return actions.repeat_interleave(self.futures, dim=1)

    def _over(self, values: Tensor) -> Tensor:
        several = values.unflatten(1, (-1, self.futures))
        return several.mean(dim=2) if self.case == "average" else several.amax(dim=2)
