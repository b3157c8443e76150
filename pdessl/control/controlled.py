"""What every controlled PDE offers: starts, steps under held amplitudes, observations, costs."""

# B batch, T control periods of an episode, H of a plan, A actuators, U numbers of an unseen force
# M observed values, K numbers of a state, *X grid points (after channels)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from pdessl.control.guardrails import Guardrail
from pdessl.errors import DataError, ShapeError
from pdessl.solvers import Simulator, random_stream

__all__ = ["ControlledPDE", "EpisodeFile", "pairwise_sum"]

REMEMBERED = 4096  # starts that are kept: a burn-in takes as long as half an episode


def pairwise_sum(values: Tensor) -> Tensor:
    """Return the sum (...) over the last dimension of values (..., N), N >= 1, added as halves.

    ``Tensor.sum`` adds in an order that depends on shape, strides and the width of the processor's vectors; this one's
    order depends on N alone, so that a row's sum is the same, bit by bit, in any batch and on any machine.
    """
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        added, left = values[..., :half] + values[..., half : 2 * half], values[..., 2 * half :]
        values = torch.cat([added, left], dim=-1) if left.shape[-1] else added
    return values[..., 0]


class EpisodeFile(Protocol):
    """What the files of all environments say; see :class:`pdessl.control.EnvironmentFile`."""

    @property
    def equation(self) -> str:
        """Name in the catalog."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def burn_in(self) -> float:
        """Time without control before an episode."""
        ...

    @property
    def waits(self) -> int:
        """Control periods of the burn-in."""
        ...

    @property
    def domain(self) -> Any:
        """``unit`` of lengths."""
        ...

    @property
    def control(self) -> Any:
        """``period`` and ``steps``."""
        ...

    @property
    def sensors(self) -> Any:
        """``positions`` and ``noise``."""
        ...

    @property
    def cost(self) -> Any:
        """Weights ``state``, ``action`` and ``terminal``, >= 0."""
        ...


class ControlledPDE(ABC):
    """A PDE with actuators that stand still, whose amplitudes are held over each control period.

    The state is a row of numbers (B, K), real or complex; :meth:`field` gives it on the grid. An episode is a function
    of the environment, a seed and the actions alone. :meth:`step` is differentiable in state and actions.

    Attributes:
        name: for messages and reports.
        file: what the environment's file says.
        device: where states lie.
        steps: control periods of an episode.
        actuators, bound: A, and what their amplitudes stay within.
        undetermined: numbers ξ of an unseen force in a period, U; 0 without one.
        channels: names of the fields; on an interval there is one, without an axis of its own.
        grid, lengths, boundary: nodes, extent and ``periodic`` or ``wall`` of each axis.
        places: where each actuator is, d coordinates; of a wave of force one of its crests.
        staggered: fields that lie on the lower faces of the cells along an axis.
        guardrails: limits that belong to the task; plans keep them beside those that are asked for.
    """

    name: str
    file: EpisodeFile
    device: torch.device
    steps: int
    actuators: int
    bound: float
    undetermined: int = 0
    channels: tuple[str, ...] = ("u",)
    grid: tuple[int, ...]
    lengths: tuple[float, ...]
    boundary: tuple[str, ...]
    places: tuple[tuple[float, ...], ...]
    staggered: Mapping[str, str] = MappingProxyType({})
    guardrails: tuple[Guardrail, ...] = ()

    def __init__(self) -> None:
        self._starts: dict[int, Tensor] = {}

    def __repr__(self) -> str:
        kind, held = type(self).__name__, f"{self.actuators} actuators within ±{self.bound:g}"
        return f"{kind}({self.name}: {held}, {self.steps} periods)"

    # ------------------------------------------------------------------------------------ what an equation supplies

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers of a state, K."""

    @property
    @abstractmethod
    def observed(self) -> int:
        """How many values an observation has, M."""

    @property
    @abstractmethod
    def targeted(self) -> bool:
        """Whether every episode has a state of its own to reach."""

    @property
    @abstractmethod
    def prices_squares(self) -> bool:
        """Whether a state costs a weight times the mean square of the field, or of what it misses of the target."""

    @abstractmethod
    def field(self, state: Tensor) -> Tensor:
        """Return the field on the grid, (..., *X), float64, of states (..., K)."""

    @abstractmethod
    def state(self, field: Tensor) -> Tensor:
        """Return the states (..., K) of fields (..., *X); what the solver does not hold is left out."""

    @abstractmethod
    def observe(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what the sensors read, (..., M), from states (..., K), with noise (..., M) added where it is given."""

    @abstractmethod
    def target(self, seeds: Sequence[int]) -> Tensor | None:
        """Return the states (B, K) that the episodes of these seeds are to reach; None where there are none."""

    @abstractmethod
    def step(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return states (B, K) one control period later under amplitudes (B, A), or (B, A + U) with ξ behind.

        Bounds are the caller's.

        Raises:
            ShapeError: shapes that do not fit.
        """

    @abstractmethod
    def cost(self, state: Tensor, actions: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the cost (...) of periods that end in states (..., K) under amplitudes (..., A), without the end's."""

    @abstractmethod
    def terminal_cost(self, state: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the end of an episode costs, (...), in states (..., K)."""

    @abstractmethod
    def mean_square(self, state: Tensor) -> Tensor:
        """Return the mean square of the field, over the domain and over channels, (...), of states (..., K)."""

    @abstractmethod
    def simulator(self, actions: Tensor) -> Simulator:
        """Return the simulator of the equation under what acts, (B, A, S) or (B, A + U, S), held over the periods."""

    @abstractmethod
    def _drawn(self, seeds: Sequence[int]) -> Tensor:
        """Return the states (B, K) before the burn-in, each a function of its seed alone."""

    # --------------------------------------------------------------------------------------------- what all share

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return the states (B, K) in which the episodes of these seeds begin, each a function of its seed alone.

        Raises:
            DataError: a seed below 0.
        """
        wanted = [int(s) for s in seeds]
        if wanted and min(wanted) < 0:
            raise DataError(f"{self.name}: seeds are whole numbers >= 0, found {min(wanted)}.")
        found = {s: self._starts[s] for s in wanted if s in self._starts}
        missing = [s for s in dict.fromkeys(wanted) if s not in found]
        if missing:
            state = self._drawn(missing)
            still = torch.zeros(len(missing), self.actuators, dtype=torch.float64, device=self.device)
            for _ in range(self.file.waits):
                state = self.step(state, still)
            found |= zip(missing, state, strict=True)
            if len(self._starts) + len(missing) > REMEMBERED:
                self._starts.clear()
            self._starts |= {s: found[s] for s in missing}
        return torch.stack([found[s] for s in wanted])

    def nodes(self) -> tuple[Tensor, ...]:
        """Return the nodes along each axis, length, float64: the centres of cells between walls."""
        found = []
        for count, length, kind in zip(self.grid, self.lengths, self.boundary, strict=True):
            index = torch.arange(count, dtype=torch.float64)
            found.append(length / count * (index + 0.5 if kind == "wall" else index))
        return tuple(found)

    def pictured(self, field: Tensor) -> Tensor:
        """Return the field to look at, (..., *X) without channels, of fields as :meth:`field` gives them."""
        return field

    def profile(self, field: Tensor) -> Tensor:
        """Return what pictures over time show along the first axis, (..., X), of fields of :meth:`field`."""
        return field

    def noise(self, seeds: Sequence[int]) -> Tensor | None:
        """Return the sensors' noise in the episodes of these seeds, (B, T + 1, M), float64; None without."""
        if not self.file.sensors.noise:
            return None
        shape = (self.steps + 1, self.observed)
        drawn = [random_stream(s, "environment", 0, "noise").standard_normal(shape) for s in seeds]
        return self.file.sensors.noise * torch.stack([torch.from_numpy(d) for d in drawn]).to(self.device)

    def unseen(self, seeds: Sequence[int]) -> Tensor:
        """Return the numbers ξ of an unseen force in the episodes of these seeds, (B, T, U)."""
        return torch.zeros(len(seeds), self.steps, 0, dtype=torch.float64, device=self.device)

    def acting(self, actions: Tensor, seeds: Sequence[int], first: int = 0) -> Tensor:
        """Return what acts in these episodes under amplitudes (B, H, A) from one on: with ξ behind, (B, H, A + U)."""
        return torch.cat([actions, self.unseen(seeds)[:, first : first + actions.shape[1]]], dim=2)

    def rollout(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return the states (B, H + 1, K), the first included, under amplitudes (B, H, A), or (B, H, A + U).

        Raises:
            ShapeError: shapes that do not fit.
        """
        states = [state]
        for now in actions.unbind(dim=1):
            states.append(self.step(states[-1], now))
        return torch.stack(states, dim=1)

    def _check_actions(self, state: Tensor, actions: Tensor) -> None:
        count = actions.shape[-1] - self.actuators
        if actions.ndim != 2 or len(actions) != len(state) or count not in (0, self.undetermined):
            more = f", or {self.actuators + self.undetermined}, with ξ" if self.undetermined else ""
            raise ShapeError(
                f"{self.name}: actions have shape {tuple(actions.shape)}, expected ({len(state)}, {self.actuators}), "
                f"one amplitude per actuator{more}."
            )
