"""Linear control: the linearisation of an environment, which modes it reaches, and the best linear feedback."""

# B batch, H control periods, A actuators, D real coordinates of the state

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdessl.control.environment import Environment
from pdessl.errors import DataError

__all__ = [
    "Controllability",
    "Feedback",
    "Linearisation",
    "Unreached",
    "controllability",
    "jacobians",
    "linearise",
    "lqr",
    "riccati",
]

FAINT = 1e-3  # eigenvalues below it die out within a period: what reaches them is of no account, and round-off
UNREACHED = 1e-8  # distance to an uncontrollable system, relative to |B|, below which it is one


@dataclass(frozen=True, eq=False)
class Linearisation:
    """x' = A x + B a about a state at rest, in the coordinates of :meth:`Environment.coordinates`, and the cost.

        c = state |x' - x*|² + action |a|²/A,   the last one + terminal |x' - x*|²        (|x|² is the mean of u²)

    Of a learned model x is the latent beside that of the rest, and |x|² = xᵀ M x with a metric M.

    Args:
        transition: A, one control period, (D, D), float64.
        entry: B, (D, A), float64.
        state, action, terminal: weights of the cost; the second one divided by the number of actuators.
        period: of the control, time.
        name: of the environment or the model.
        metric: M, (D, D), of coordinates that are not those of the environment; None: the identity, of those that are.
    """

    transition: Tensor
    entry: Tensor
    state: float
    action: float
    terminal: float
    period: float
    name: str
    metric: Tensor | None = None

    @property
    def square(self) -> Tensor:
        """The matrix (D, D) of |x|²."""
        if self.metric is not None:
            return self.metric
        return torch.eye(len(self.transition), dtype=self.transition.dtype, device=self.transition.device)


def jacobians(step: Callable[[Tensor, Tensor], Tensor], rest: Tensor, actuators: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (D, D), B (D, A) of one control period about a state without control, and where it leads, (D,).

    Args:
        step: of rows (N, D) under amplitudes (N, A), each row by itself.
        rest: the state, (D,).
        actuators: A.
    """
    size = len(rest)
    here = rest.detach().expand(size, size).clone().requires_grad_()
    still = rest.new_zeros(size, actuators).requires_grad_()
    with torch.enable_grad():
        after = step(here, still)
        # Every row of the batch is the same state: the derivative of entry i of row i is a row of the Jacobian.
        transition, entry = torch.autograd.grad(after.diagonal().sum(), (here, still))
    return transition, entry, after[0].detach()


def linearise(environment: Environment) -> Linearisation:
    """Return the derivative of one control period about u = 0 without control, by automatic differentiation.

    Raises:
        DataError: u = 0 does not stay where it is.
    """
    rest = torch.zeros(environment.coordinates_count, dtype=torch.float64, device=environment.device)

    def step(here: Tensor, actions: Tensor) -> Tensor:
        return environment.coordinates(environment.step(environment.from_coordinates(here), actions))

    transition, entry, after = jacobians(step, rest, environment.actuators)
    if float(after.abs().max()) > 1e-12:
        raise DataError(f"{environment.name}: u = 0 does not stay at rest; there is nothing to linearise about.")
    weights = environment.file.cost
    action = weights.action / environment.actuators
    period = environment.file.control.period
    return Linearisation(transition, entry, weights.state, action, weights.terminal, period, environment.name)


@dataclass(frozen=True)
class Unreached:
    """A mode that no actuator moves.

    Args:
        wave_number: of its largest wave, in units of 2π/L; None: of a latent, which has no waves.
        rate: of growth, 1/time.
    """

    wave_number: int | None
    rate: float

    def __str__(self) -> str:
        """Return it in words."""
        way = "grows" if self.rate > 0 else "decays"
        what = "a direction of the latent" if self.wave_number is None else f"a wave of number {self.wave_number}"
        return f"{what} that {way} with {self.rate:+.3g}"


@dataclass(frozen=True)
class Controllability:
    """Which modes the actuators reach.

    Args:
        growing: number of modes that do not decay.
        unreached: modes that no actuator moves, those that die out within a period left out.
    """

    growing: int
    unreached: tuple[Unreached, ...]

    @property
    def stabilisable(self) -> bool:
        """Whether every mode that does not decay is reached: linear feedback can hold the state at rest."""
        return not any(mode.rate >= 0 for mode in self.unreached)

    def __str__(self) -> str:
        """Return the finding in a sentence or two."""
        can = "can" if self.stabilisable else "cannot"
        told = f"{self.growing} modes do not decay; linear feedback {can} hold u = 0."
        return told + (f" No actuator reaches {'; '.join(map(str, self.unreached))}." if self.unreached else "")


def controllability(linear: Linearisation, distance: float = UNREACHED, growing_only: bool = False) -> Controllability:
    """Return which modes are reached, by the test of Popov, Belevitch and Hautus.

    An eigenvalue λ of A is uncontrollable where [A - λ, B] loses rank: its smallest singular value is the distance to
    an uncontrollable system.

    Args:
        linear: the model.
        distance: over |B|, below which a mode counts as unreached; of a learned model its error, not round-off.
        growing_only: look at the modes that do not decay only; each costs a singular value decomposition.

    Source: Hautus (1969); Eising (1984) for the distance.
    """
    a, b = linear.transition.cpu().numpy(), linear.entry.cpu().numpy()
    size = len(a)
    values = np.linalg.eigvals(a)
    scale = float(np.linalg.norm(b, 2))
    found: list[Unreached] = []
    seen: list[complex] = []
    for value in sorted(values, key=lambda v: (-abs(v), v.imag)):
        if abs(value) < (1 - 1e-12 if growing_only else FAINT) or any(abs(value - s) < 1e-9 for s in seen):
            continue
        seen.append(value)
        left, singular, _ = np.linalg.svd(np.hstack([a - value * np.eye(size), b]))
        for vector in left.T[singular < distance * scale]:
            number = _wave(vector) if linear.metric is None else None
            found.append(Unreached(number, math.log(abs(value)) / linear.period))
    return Controllability(int((np.abs(values) >= 1 - 1e-12).sum()), tuple(found))


def _wave(vector: NDArray[np.complexfloating]) -> int:
    """Return the number of the largest wave in coordinates of an environment."""
    power, waves = np.abs(vector) ** 2, (len(vector) - 1) // 2
    return int(np.argmax([power[0], *(power[1 : waves + 1] + power[waves + 1 :])]))


@dataclass(frozen=True, eq=False)
class Feedback:
    """Linear feedback, a_t = d_t - K_t x_t.

    Args:
        gains: K, (H, A, D), or (1, A, D) for the same one at all times.
        offsets: d, (B, H, A), or (1, 1, A).
    """

    gains: Tensor
    offsets: Tensor

    def __call__(self, coordinates: Tensor, step: int = 0) -> Tensor:
        """Return amplitudes (B, A) for coordinates (B, D); bounds are the caller's."""
        step = step if len(self.gains) > 1 else 0
        return self.offsets[:, step] - coordinates @ self.gains[step].T

    def plan(self, linear: Linearisation, coordinates: Tensor) -> Tensor:
        """Return the amplitudes (B, H, A) along the linear model from coordinates (B, D)."""
        actions = []
        for step in range(len(self.gains)):
            actions.append(self(coordinates, step))
            coordinates = coordinates @ linear.transition.T + actions[-1] @ linear.entry.T
        return torch.stack(actions, dim=1)


def riccati(linear: Linearisation, horizon: int, target: Tensor | None = None, last: bool = True) -> Feedback:
    """Return the feedback that minimises the cost of the linear model over H periods, without bounds.

        M = Q + P_{t+1},  q = Q x* + s_{t+1},  K_t = (R + BᵀMB)⁻¹ BᵀMA,  d_t = (R + BᵀMB)⁻¹ Bᵀq,
        P_t = AᵀM (A - B K_t),  s_t = (A - B K_t)ᵀ q;        P_H = Q_end, s_H = Q_end x*

    Args:
        linear: model and weights.
        horizon: H, >= 1.
        target: coordinates x*, (B, D); none: 0.
        last: whether the terminal weight counts at the end of the horizon.

    Source: Anderson, Moore (1990), Optimal Control, sections 2.3 and 4.2, for a cost of the state after each period.
    """
    a, b = linear.transition, linear.entry
    square = linear.square
    penalty = linear.action * torch.eye(b.shape[1], dtype=a.dtype, device=a.device)
    goal = torch.zeros(1, len(a), dtype=a.dtype, device=a.device) if target is None else target
    end = linear.terminal if last else 0.0
    value, slope = end * square, end * goal @ square
    gains, offsets = [], []
    for _ in range(horizon):
        m, q = value + linear.state * square, slope + linear.state * goal @ square
        weight = penalty + b.T @ m @ b
        gain = torch.linalg.solve(weight, b.T @ m @ a)
        closed = a - b @ gain
        gains.append(gain)
        offsets.append(torch.linalg.solve(weight, b.T @ q.T).T)
        value, slope = a.T @ m @ closed, q @ closed
    return Feedback(torch.stack(gains[::-1]), torch.stack(offsets[::-1], dim=1))


def lqr(linear: Linearisation, action: float | None = None, distance: float = UNREACHED) -> Feedback:
    """Return the feedback of least cost over an infinite time, without bounds and about u = 0.

    Args:
        linear: model and weights; the terminal one does not count.
        action: weight of mean a² in the place of the environment's, > 0; needed where that is 0.
        distance: see :func:`controllability`.

    Raises:
        DataError: a mode that does not decay is not reached, no price for the amplitudes, or a cost that does not see
            a mode that grows.
    """
    reached = controllability(linear, distance)
    if not reached.stabilisable:
        raise DataError(f"{linear.name}: {reached} Use another planner, or other actuators.")
    a, b = linear.transition.cpu().numpy(), linear.entry.cpu().numpy()
    price = linear.action if action is None else action / b.shape[1]
    if not (price > 0 and linear.state > 0):
        raise DataError(f"{linear.name}: linear feedback needs weights of state and action above 0; give action=0.1.")
    penalty, cost = price * np.eye(b.shape[1]), linear.state * linear.square.cpu().numpy()
    try:
        value = scipy.linalg.solve_discrete_are(a, b, cost, penalty)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise DataError(
            f"{linear.name}: Riccati's equation has no solution that holds it ({error}). A mode that grows costs "
            "nothing; use another planner."
        ) from None
    gain = np.linalg.solve(penalty + b.T @ value @ b, b.T @ value @ a)
    return Feedback(torch.from_numpy(gain)[None].to(linear.entry), linear.entry.new_zeros(1, 1, b.shape[1]))
