"""The law as a world model: the equation of controlled runs, found from a few hundred periods and rolled out."""

# B runs, T frames, X grid points, M modes, A actuators, K terms, D real coordinates of a state

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdessl.control import Environment, Linearisation, Situation, jacobians
from pdessl.errors import DataError, ShapeError
from pdessl.operators import Projection, Term, default_library, weak_grams
from pdessl.operators.fit import fit
from pdessl.operators.latent import normals
from pdessl.operators.sparse import sparsified
from pdessl.solvers.pseudo_spectral import ETDRK4, wave_numbers
from pdessl.trajectory import Trajectories

__all__ = ["ControlledLaw", "LawModel", "LawStepper", "identify"]

_HALF_WIDTHS = ((6, 4), (10, 6))  # frames and nodes of the test functions that are tried
_ROUNDS = 8  # of Gauss and Newton
_PAIRS = 4096  # periods that coefficients are refined on, at most
_STEP = 1e-4  # of the differences along a coefficient
_PROFILE_STEP = 1e-3


@dataclass(frozen=True, eq=False)
class ControlledLaw:
    """u_t = Σ_k c_k ∂^α_k u^m_k + Σ_j a_j(t) b_j(x) on a periodic interval.

    Args:
        terms: (m, α) of each.
        coefficients: c, (K,), float64.
        profiles: b on the grid, (A, X), float64.
        known: whether the profiles were given and not fitted.
        gain: of the given profiles in the weak fit; near 1 where they are right.
        unexplained: share of the rate of change that the weak fit leaves.
        error: root mean square error of one period over that of persistence.
        periods: control periods it was found in.
    """

    terms: tuple[tuple[int, int], ...]
    coefficients: Tensor
    profiles: Tensor
    known: bool
    gain: float
    unexplained: float
    error: float
    periods: int

    def __str__(self) -> str:
        """Return it in words."""
        parts = []
        for (power, order), value in zip(self.terms, self.coefficients.tolist(), strict=True):
            body = "u" if power == 1 else f"(u^{power})"
            parts.append(f"{value:+.4g} {body}{'_' + 'x' * order if order else ''}")
        return f"u_t = {' '.join(parts) or '0'} + sum_j a_j b_j(x)"


class LawStepper:
    """One control period of a law, amplitudes held: ETDRK4, linear terms exactly.

    Products are formed on a grid so fine that no kept mode is aliased. Growth of waves beyond half of those kept, which
    only an ill-determined law has, is cut off.

    Args:
        law: with coefficients.
        length: of the interval.
        period: of the control, time.
        points: of the grid of the states.
        modes: kept, M.
        substeps: of a period.
    """

    def __init__(
        self, law: ControlledLaw, length: float, period: float, points: int, modes: int, substeps: int = 2
    ) -> None:
        self.points, self.modes, self.substeps = points, modes, substeps
        device = law.profiles.device
        one = torch.full((1,), length, dtype=torch.float64, device=device)
        k = wave_numbers(one, modes)
        linear = torch.zeros(1, modes, dtype=torch.complex128, device=device)
        products: dict[int, Tensor] = {}
        for (power, order), value in zip(law.terms, law.coefficients, strict=True):
            symbol = value * (1j * k) ** order
            if power == 1:
                linear = linear + symbol
            else:
                products[power] = products.get(power, 0) + symbol
        high = torch.arange(modes, device=device) > modes // 2
        real = torch.where(high & (linear.real > 0), torch.zeros_like(linear.real), linear.real)
        linear = torch.complex(real, linear.imag)
        most = max(products, default=1)
        self.fine = max(points, 2 * ((most + 1) * modes // 2 + 1))
        # States are spectra of ``points`` nodes without a factor; powers are taken of the field itself.
        self.products = {m: symbol * points / self.fine for m, symbol in products.items()}
        self.profiles = torch.fft.rfft(law.profiles)[:, :modes]
        step = torch.full((1,), period / substeps, dtype=torch.float64, device=device)
        self.scheme = ETDRK4.build(linear, step)

    def __call__(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return states (B, M) one period later under amplitudes (B, A)."""
        source = (actions.to(self.profiles.real.dtype)[:, :, None] * self.profiles).sum(dim=1)

        def rate(v: Tensor, _: float) -> Tensor:
            if not self.products:
                return source.clone()
            field = torch.fft.irfft(v, n=self.fine) * (self.fine / self.points)
            total = source
            for power, symbol in self.products.items():
                total = total + symbol * torch.fft.rfft(field**power)[:, : self.modes]
            return total

        for _ in range(self.substeps):
            state = self.scheme.advance(state, rate)
        return state


class LawModel:
    """A law that imagines, from a state that is seen whole; see :class:`pdessl.control.Oracle`.

    Args:
        environment: what is controlled.
        law: see :func:`identify`.
        substeps: of a control period.

    Raises:
        DataError: an environment whose state is not seen whole.
        ShapeError: a law of another grid or number of actuators.
    """

    def __init__(self, environment: Environment, law: ControlledLaw, substeps: int = 1) -> None:
        _check_seen(environment)
        if law.profiles.shape != environment.profiles.shape:
            raise ShapeError(
                f"{environment.name} has {environment.actuators} actuators on {environment.points} nodes, the law "
                f"{tuple(law.profiles.shape)}; expected one of the same environment."
            )
        self.environment, self.law = environment, law
        file = environment.file
        self.step = LawStepper(
            law, file.domain.length, file.control.period, environment.points, environment.modes, substeps
        )

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return the states (B, N, H, M) that the law says will be."""
        b, n, h, a = actions.shape
        state = self.environment.state(situation.observation)[:, None].expand(b, n, -1).reshape(b * n, -1)
        states = []
        for now in actions.reshape(b * n, h, a).unbind(dim=1):
            state = self.step(state, now)
            states.append(state)
        return torch.stack(states, dim=1).reshape(b, n, h, -1)

    def coordinates(self, situation: Situation) -> Tensor:
        """Return the coordinates (B, D) of the observed field."""
        return self.environment.coordinates(self.environment.state(situation.observation))

    def linearised(self) -> Linearisation:
        """Return the derivative of a period of the law about u = 0 without control, and the environment's cost."""
        env = self.environment

        def step(here: Tensor, actions: Tensor) -> Tensor:
            return env.coordinates(self.step(env.from_coordinates(here), actions))

        rest = torch.zeros(env.coordinates_count, dtype=torch.float64, device=env.device)
        transition, entry, _ = jacobians(step, rest, env.actuators)
        weights = env.file.cost
        return Linearisation(
            transition, entry, weights.state, weights.action / env.actuators, weights.terminal, env.file.control.period,
            "the law found",
        )  # fmt: skip


def identify(runs: Trajectories, environment: Environment, known: bool = True, rounds: int = _ROUNDS) -> ControlledLaw:
    """Find the law of runs with actions: which terms, by weak least squares; their coefficients, by shooting.

    The library is that of :func:`pdessl.operators.default_library`; the force of the actuators is a known field beside
    it, and terms are dropped while nothing is lost. What test functions over coarse frames leave of a bias, Gauss and
    Newton's method on predictions of one control period removes.

    Args:
        runs: fields (B, 1, T, X) of the environment with actions (B, A, T - 1); at least two runs.
        environment: gives length, control period and, where they are ``known``, the actuators' profiles.
        known: whether the profiles are given; else their Fourier series are fitted with the coefficients, starting from
            no effect at all, on runs of which some are without control.
        rounds: of Gauss and Newton, at most.

    Raises:
        DataError: an environment whose state is not seen whole, runs without actions, too few, or, without the
            profiles, none in which the actuators rest.
        ShapeError: runs that are too short, or of another grid.
    """
    _check_seen(environment)
    if runs.actions is None or len(runs) < 2:
        raise DataError(
            f"{len(runs)} runs, actions {'missing' if runs.actions is None else 'there'}: expected two runs with "
            "actions or more. Make them: pdessl generate ENVIRONMENT --out FOLDER."
        )
    if runs.fields.shape[1] != 1 or runs.fields.shape[3] != environment.points:
        raise ShapeError(f"runs {tuple(runs.fields.shape)}; expected (B, 1, T, {environment.points}).")
    still = runs.actions.abs().amax(dim=(1, 2)) == 0
    if not known and int(still.sum()) < 2:
        raise DataError("profiles of actuators are fitted where some runs are without control; expected two or more.")
    profiles = environment.profiles if known else torch.zeros_like(environment.profiles)
    chosen = runs if known else runs[still.nonzero()[:, 0]]
    terms, coefficients, gain, unexplained = _weak(chosen, profiles, known)
    periods = len(runs) * (runs.fields.shape[2] - 1)
    law = ControlledLaw(terms, coefficients, profiles, known, gain, unexplained, float("nan"), periods)
    return _shot(law, runs, environment, rounds)


def _check_seen(environment: Environment) -> None:
    sensors = environment.file.sensors
    if sensors.positions is not None:
        raise DataError(
            f"{environment.name} is seen by {len(sensors.positions)} sensors; a law needs the state whole. Leave out "
            "sensors.positions, or use another model."
        )


def _weak(
    runs: Trajectories, profiles: Tensor, known: bool
) -> tuple[tuple[tuple[int, int], ...], Tensor, float, float]:
    """Return terms, coefficients, the gain of the force and the unexplained share, of the best test function."""
    actions = runs.actions
    assert actions is not None  # noqa: S101  (looked at by whoever calls)
    # At a frame the amplitude jumps: the mean of both sides makes sums over frames trapezoids of each interval.
    sides = torch.cat([actions[:, :, :1], actions, actions[:, :, -1:]], dim=2)
    force = torch.einsum("bat,ax->btx", (sides[:, :, 1:] + sides[:, :, :-1]) / 2, profiles)[:, None]
    library = [Term((*t.powers, 0), t.orders) for t in default_library(1, 1)]
    fields, names = torch.cat([runs.fields.double(), force], dim=1), ("u", "force")
    if known:
        library.append(Term((0, 1), (0,)))
    both = replace(runs, fields=fields, field_names=names)
    found = []
    for width in _HALF_WIDTHS:
        if 2 * width[0] + 2 > fields.shape[2] or 2 * width[1] + 1 > fields.shape[3]:
            continue
        projection = Projection(tuple(library), width, (Term((1, 0), (0,), 1),))
        grams = weak_grams(both, projection, torch.zeros(len(runs), 2, dtype=torch.float64, device=runs.device))
        whole, halves = normals(grams, len(library), False)
        law, codes = sparsified(fit(whole, 0), whole, halves)
        found.append((float(whole.loss(law.law(codes)).mean()), law.constant[0]))
    if not found:
        raise ShapeError(
            f"runs of {fields.shape[2]} frames; expected {2 * _HALF_WIDTHS[0][0] + 2} or more for the test functions."
        )
    unexplained, constant = min(found, key=lambda pair: pair[0])
    kept = [k for k, term in enumerate(library) if term.powers[0] and float(constant[k])]
    terms = tuple((library[k].powers[0], library[k].orders[0]) for k in kept)
    return terms, constant[kept].clone(), float(constant[-1]) if known else float("nan"), unexplained


def _shot(law: ControlledLaw, runs: Trajectories, env: Environment, rounds: int) -> ControlledLaw:
    """Return the law with coefficients (and profiles) that predict one control period best."""
    actions = runs.actions
    assert actions is not None  # noqa: S101  (looked at by whoever calls)
    states = env.state(runs.fields[:, 0])
    before, after, held = states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1), actions.mT.flatten(0, 1)
    keep = slice(None, None, max(1, len(before) // _PAIRS))
    before, after, held = before[keep], after[keep], held[keep]
    file, count = env.file, len(law.terms)
    truth = env.coordinates(after)

    def made(values: Tensor) -> ControlledLaw:
        profiles = law.profiles
        if not law.known:
            profiles = env.field(env.from_coordinates(values[count:].reshape(env.actuators, -1)))
        return replace(law, coefficients=values[:count], profiles=profiles)

    def residual(values: Tensor) -> Tensor:
        step = LawStepper(made(values), file.domain.length, file.control.period, env.points, env.modes)
        return (env.coordinates(step(before, held)) - truth).flatten()

    free = law.coefficients.new_zeros(0 if law.known else env.actuators * env.coordinates_count)
    values = torch.cat([law.coefficients, free])
    steps = torch.cat([_STEP * law.coefficients.abs().clamp_min(1e-3), torch.full_like(free, _PROFILE_STEP)])
    with torch.no_grad():
        values, error = _gauss_newton(residual, values, steps, rounds)
    size = float((env.coordinates(before) - truth).square().mean().sqrt())
    return replace(made(values), error=error / max(size, 1e-300))


def _gauss_newton(
    residual: Callable[[Tensor], Tensor], values: Tensor, steps: Tensor, rounds: int
) -> tuple[Tensor, float]:
    """Return values with the least mean square residual, and its root; derivatives are central differences."""
    now = residual(values)
    for _ in range(rounds):
        columns = []
        for i, step in enumerate(steps):
            shift = torch.zeros_like(values)
            shift[i] = step
            columns.append((residual(values + shift) - residual(values - shift)) / (2 * step))
        slope = torch.stack(columns, dim=1)
        move = torch.linalg.lstsq(slope, -now[:, None]).solution[:, 0]
        for share in (1.0, 0.3, 0.1):
            tried = residual(values + share * move)
            if float(tried.square().mean()) < float(now.square().mean()):
                break
        else:
            break
        gained = float(now.square().mean()) - float(tried.square().mean())
        values, now = values + share * move, tried
        if gained < 1e-6 * float(now.square().mean()):
            break
    return values, float(now.square().mean().sqrt())
