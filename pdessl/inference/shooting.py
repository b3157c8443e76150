"""Parameters of runs by fitting the equation's own simulator to them: multiple shooting, without labels or networks."""

# B runs, W windows of a run, T frames of a window, N observed nodes, M unknowns of an initial field, P parameters

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.equations import load_equation
from pdessl.errors import DataError, PdesslError, ShapeError
from pdessl.evaluation.classical import weak_form
from pdessl.solvers import SIMULATORS, Simulator
from pdessl.trajectory import Trajectories

__all__ = ["Shot", "shoot"]

_ROWS = 2048  # runs that are simulated at a time
_STEP = 1e-4  # of a finite difference, relative to the spread of what is changed
_LARGEST_GRID = 1024
_STRONGER = 4.0  # a mode is fitted where its power is so many times that of the noise
_SETTLED = 1e-4  # relative change of all parameters, below which nothing more is looked for
_WORSE = 1.1  # longer windows are kept while they fit as well as the best, within this factor


@dataclass(frozen=True, eq=False)
class Shot:
    """What a simulator fitted to runs says.

    Args:
        value: the parameters, (B, P), float64; NaN for a run that could not be fitted.
        error: their standard errors from the curvature of the misfit and its own size, (B, P). They hold where the
            equation does, noise is white, and the fit has converged.
        misfit: root mean square of observed minus simulated over that of the runs, (B,).
        frames: frames of the windows that were used, (B,).
    """

    value: Tensor
    error: Tensor
    misfit: Tensor
    frames: Tensor


def shoot(
    equation: str,
    runs: Trajectories,
    unknown: str | Sequence[str],
    frames: Sequence[int] | None = None,
    iterations: int = 3,
) -> Shot:
    """Find the parameters with which the simulator of an equation comes closest to runs.

        min over θ, u_1 ... u_W of  Σ_w Σ_t |Φ_θ(t - t_w) u_w - observed(t)|²

    Φ_θ is the simulator's flow. Each window of frames has an initial field u_w of its own, a Fourier series of as many
    modes as stand out of the noise, and all windows of a run share θ: a whole run as one window uses everything where
    the flow is tame, and cannot be fitted where it is chaotic. Windows are therefore made longer step by step, each
    length started from the one before, as long as the fit stays as good. Gauss-Newton with damping; the initial fields
    are eliminated (a Schur complement), so that P equations are left.

    Args:
        equation: name of an equation with a periodic simulator in one dimension.
        runs: all of its fields, on equal grids, with equal times; other parameters are taken from them.
        unknown: names of parameters.
        frames: lengths of windows that are tried, ascending; default 12 and the whole run.
        iterations: of Gauss-Newton for each length, at most.

    Raises:
        DataError: no simulator in one periodic dimension, an unknown parameter that it does not have, or one that is
            neither known nor unknown.
        ShapeError: fields that are not those of the simulator, fewer than 4 frames, or an odd number of nodes.

    Source: Bock (1981), multiple shooting for parameter estimation; the weak form (:func:`weak_form`) starts it.
    """
    names = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    kind = _simulator(equation, runs, names)
    observed = runs.fields.double()[:, 0]
    modes = _modes(observed)
    guess = _guess(equation, runs, names, kind)
    theta = torch.stack([_inward(kind, n, guess[:, i]) for i, n in enumerate(names)], dim=1)
    fit = _Fit(kind, runs, observed, names, modes, theta)
    total = observed.shape[1]
    if frames is None:
        frames = [*([12] if total >= 24 else []), total]
    best = None
    for length in frames:
        if not 4 <= length <= total:
            raise ShapeError(f"windows of {length} frames of runs with {total}; expected 4 to all of them.")
        found = fit.windows(length, theta, iterations)
        if best is None:
            best, least = found, found.misfit
        else:
            least = torch.minimum(least, found.misfit.nan_to_num(math.inf))
            better = found.misfit <= _WORSE * least
            best = Shot(*(_where(better, new, old) for new, old in zip(_parts(found), _parts(best), strict=True)))
        theta = torch.stack([_inward(kind, n, best.value[:, i]) for i, n in enumerate(names)], dim=1)
    assert best is not None  # noqa: S101  (there is a whole run at least)
    return best


def _parts(shot: Shot) -> tuple[Tensor, ...]:
    return shot.value, shot.error, shot.misfit, shot.frames


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask if new.ndim == 1 else mask[:, None], new, old)


def _simulator(equation: str, runs: Trajectories, names: Sequence[str]) -> type[Simulator]:
    kinds = [k for k in SIMULATORS.values() if k.equation == load_equation(equation).name and k.dimensions == 1]
    if not kinds or runs.boundary != ("periodic",):
        known = ", ".join(sorted({k.equation for k in SIMULATORS.values() if k.dimensions == 1}))
        raise DataError(
            f"shooting needs a simulator on a periodic interval; '{equation}' with boundary {', '.join(runs.boundary)} "
            f"has none. There are some of {known}."
        )
    kind = kinds[0]
    if runs.field_names != kind.field_names or len(runs.field_names) != 1:
        raise ShapeError(
            f"shooting needs the field {', '.join(kind.field_names)}, found {', '.join(runs.field_names)}."
        )
    for name in names:
        if name not in kind.parameter_names:
            raise DataError(f"{kind.__name__} has no parameter '{name}'; it has {', '.join(kind.parameter_names)}.")
    missing = [n for n in kind.parameter_names if n not in (*names, *runs.parameters)]
    if missing:
        raise DataError(f"the value of {', '.join(missing)} is not known; give it, or name it among the unknown.")
    if runs.fields.shape[2] < 4 or runs.fields.shape[3] % 2 or runs.fields.shape[3] < 8:
        raise ShapeError(
            f"fields {tuple(runs.fields.shape)}: expected 4 frames or more, of an even number of nodes, 8 or more."
        )
    return kind


def _modes(observed: Tensor) -> int:
    """Return the highest Fourier mode of all runs that stands out of the noise, the tail of the spectrum."""
    power = torch.fft.rfft(observed, dim=-1).abs().square().mean(dim=(0, 1))
    tail = power[-max(len(power) // 8, 2) : -1].median()
    strong = (power > _STRONGER * tail).nonzero()
    highest = int(strong.max()) if len(strong) else 1
    return max(1, min(highest, len(power) - 2))


def _guess(equation: str, runs: Trajectories, names: Sequence[str], kind: type[Simulator]) -> Tensor:
    known = runs.replace(parameters={n: v for n, v in runs.parameters.items() if n not in names})
    try:
        found = weak_form(equation, known, list(names))
    except PdesslError:
        found = torch.full((len(runs), len(names)), math.nan, dtype=torch.float64)
    for i, name in enumerate(names):
        good = torch.isfinite(found[:, i]) & ((found[:, i] > 0) if name in kind.positive else True)
        middle = found[good, i].median() if bool(good.any()) else found.new_tensor(1.0)
        bad = ~good | ((found[:, i] < 1e-2 * middle) if name in kind.positive else False)
        found[:, i] = torch.where(bad, middle, found[:, i])
    return found


def _inward(kind: type[Simulator], name: str, value: Tensor) -> Tensor:
    """Return a parameter as it is fitted: the logarithm of one that is positive."""
    return value.log() if name in kind.positive else value


class _Fit:
    """Gauss-Newton on windows of runs."""

    def __init__(
        self,
        kind: type[Simulator],
        runs: Trajectories,
        observed: Tensor,
        names: Sequence[str],
        modes: int,
        start: Tensor,
    ) -> None:
        self.kind, self.runs, self.observed, self.names, self.modes = kind, runs, observed, tuple(names), modes
        self.nodes = observed.shape[-1]
        self.basis = self._series(self.nodes)
        self.spread = observed.std(dim=(1, 2)).clamp_min(1e-12)
        self.points = self._grid(start)
        self.fine = self._series(self.points)

    def _series(self, points: int) -> Tensor:
        """Return the columns 1, cos kx, sin kx ... on a grid, (points, M)."""
        x = 2 * math.pi * torch.arange(points, dtype=torch.float64)[:, None] / points
        k = torch.arange(1, self.modes + 1, dtype=torch.float64)
        return torch.cat([torch.ones_like(x), (x * k).cos(), (x * k).sin()], dim=1)

    def _grid(self, theta: Tensor) -> int:
        """Return the points on which these runs are resolved with parameters half and twice as large as the guess."""
        needed = self.nodes
        first = self._project(self.observed[:, 0]) @ self.basis.T
        every = torch.arange(len(first))
        for factor in (0.5, 2.0):
            values = self._values(theta, every)
            values = {n: v * factor if n in self.names else v for n, v in values.items()}
            wanted = self._solver(values, self.nodes, every).points_needed(first[:, None])
            wanted = wanted[torch.isfinite(wanted)]
            needed = max(needed, int(wanted.quantile(0.9)) if len(wanted) else needed)
        points = self.nodes
        while points < needed and 2 * points <= _LARGEST_GRID:
            points *= 2
        return points

    def _project(self, fields: Tensor) -> Tensor:
        """Return the coefficients of the series that is nearest, (..., M)."""
        weight = torch.full((self.basis.shape[1],), 2.0 / self.nodes, dtype=torch.float64)
        weight[0] = 1.0 / self.nodes
        return (fields @ self.basis) * weight

    def _values(self, theta: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Return every parameter of the simulator, (n,), from the fitted ones (n, P) of the runs ``rows``."""
        own = {n: theta[:, i].exp() if n in self.kind.positive else theta[:, i] for i, n in enumerate(self.names)}
        return {n: own[n] if n in own else self.runs.parameters[n].double()[rows] for n in self.kind.parameter_names}

    def _solver(self, values: dict[str, Tensor], points: int, rows: Tensor) -> Simulator:
        lengths = self.runs.lengths[:, 0].double()[rows]
        return self.kind(**values, domain_length=lengths, points=points, check_resolution=False, dtype=torch.float64)  # type: ignore[call-arg]

    def _simulated(self, theta: Tensor, series: Tensor, times: Tensor, rows: Tensor) -> Tensor:
        """Return fields (n, T, N) of n simulations from series (n, M); ``rows`` say whose run each is."""
        parts = []
        for start in range(0, len(rows), _ROWS):
            cut = slice(start, start + _ROWS)
            solver = self._solver(self._values(theta[cut], rows[cut]), self.points, rows[cut])
            initial = (series[cut] @ self.fine.T)[:, None]
            parts.append(solver.solve(initial, times[cut], self.nodes).trajectories.fields[:, 0])
        return torch.cat(parts)

    @torch.no_grad()
    def windows(self, length: int, theta: Tensor, iterations: int) -> Shot:
        """Fit windows of so many frames, from parameters on the scale they are fitted on, (B, P)."""
        b, total, _ = self.observed.shape
        starts = torch.arange(0, total - length + 1, length)
        w, m, p = len(starts), self.basis.shape[1], len(self.names)
        frames = starts[:, None] + torch.arange(length)
        data = self.observed[:, frames].flatten(0, 1)  # (B W, T, N)
        clock = self.runs.time.double()[:, frames].flatten(0, 1)
        times = clock - clock[:, :1]
        rows = torch.arange(b).repeat_interleave(w)
        series = self._project(data[:, 0])
        scale = self.spread[rows]
        steps_u = torch.eye(m, dtype=torch.float64) * _STEP
        damping = torch.full((b,), 1e-6, dtype=torch.float64)
        square, jacobian_u, jacobian_p, rest = self._linearised(theta, series, times, rows, data, scale, steps_u)
        for _ in range(iterations):
            change_p, change_u = self._step(jacobian_u, jacobian_p, rest, rows, b, damping)
            if bool((change_p.abs() < _SETTLED).all()):
                break
            trial_p, trial_u = theta + change_p, series + change_u * scale[:, None]
            tried = self._linearised(trial_p, trial_u, times, rows, data, scale, steps_u)
            good = self._of_runs(tried[0], rows, b) < self._of_runs(square, rows, b)
            theta = torch.where(good[:, None], trial_p, theta)
            each = good[rows]
            series = torch.where(each[:, None], trial_u, series)
            square = torch.where(each, tried[0], square)
            jacobian_u = torch.where(each[:, None, None], tried[1], jacobian_u)
            jacobian_p = torch.where(each[:, None, None], tried[2], jacobian_p)
            rest = torch.where(each[:, None], tried[3], rest)
            damping = torch.where(good, damping / 10, damping * 100).clamp(1e-9, 1e6)
        misfit = (self._of_runs(square, rows, b) / (w * length * self.nodes)).sqrt()
        left = max(w * length * self.nodes - w * m - p, 1)
        variance = self._of_runs(square, rows, b) / left
        schur, _ = self._reduced(jacobian_u, jacobian_p, rest, rows, b, torch.zeros(b, dtype=torch.float64))
        deviation = (torch.linalg.pinv(schur).diagonal(dim1=1, dim2=2) * variance[:, None]).clamp_min(0).sqrt()
        positive = torch.tensor([n in self.kind.positive for n in self.names])
        value = torch.where(positive, theta.exp(), theta)
        error = torch.where(positive, value * deviation, deviation)
        lost = ~torch.isfinite(misfit)
        value[lost], error[lost] = math.nan, math.nan
        return Shot(value, error, misfit, torch.full((b,), length))

    def _of_runs(self, values: Tensor, rows: Tensor, b: int) -> Tensor:
        """Return sums over the windows of each run, (B, ...)."""
        return values.new_zeros((b, *values.shape[1:])).index_add_(0, rows, values)

    def _linearised(
        self, theta: Tensor, series: Tensor, times: Tensor, rows: Tensor, data: Tensor, scale: Tensor, steps_u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return squares (B W,), derivatives by series (B W, T N, M), by parameters (B W, T N, P), misfits (B W, T N).

        Everything is in units of the spread of each run; that of a window whose simulation fails is infinite.
        """
        n, m, p = len(rows), steps_u.shape[0], len(self.names)
        own = theta[rows]
        moved_u = series[None] + steps_u[:, None] * scale[:, None]  # (M, n, M)
        moved_p = own[None] + torch.eye(p, dtype=torch.float64)[:, None] * _STEP  # (P, n, P)
        every = torch.cat([series[None], moved_u, series[None].expand(p, n, m)]).flatten(0, 1)
        with_theta = torch.cat([own[None].expand(1 + m, n, p), moved_p]).flatten(0, 1)
        many = 1 + m + p
        found = self._simulated(with_theta, every, times.repeat(many, 1), rows.repeat(many))
        found = found.reshape(many, n, -1) / scale[:, None]
        rest = data.flatten(1) / scale[:, None] - found[0]
        slope = ((found[1:] - found[0]) / _STEP).permute(1, 2, 0)
        failed = ~(torch.isfinite(rest).all(dim=1) & torch.isfinite(slope).flatten(1).all(dim=1))
        square = torch.where(failed, math.inf, rest.square().sum(dim=1))
        rest, slope = rest.masked_fill(failed[:, None], 0), slope.masked_fill(failed[:, None, None], 0)
        return square, slope[:, :, :m], slope[:, :, m:], rest

    def _reduced(
        self, by_u: Tensor, by_p: Tensor, rest: Tensor, rows: Tensor, b: int, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the P equations of every run after its initial fields are eliminated: (B, P, P) and (B, P)."""
        normal = _damped(by_u.mT @ by_u, damping[rows])
        cross = by_u.mT @ by_p
        solved = torch.linalg.solve(normal, torch.cat([cross, (by_u.mT @ rest[..., None])], dim=2))
        p = by_p.shape[2]
        left = by_p.mT @ by_p - cross.mT @ solved[..., :p]
        right = (by_p.mT @ rest[..., None] - cross.mT @ solved[..., p:])[..., 0]
        return self._of_runs(left, rows, b), self._of_runs(right, rows, b)

    def _step(
        self, by_u: Tensor, by_p: Tensor, rest: Tensor, rows: Tensor, b: int, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        left, right = self._reduced(by_u, by_p, rest, rows, b, damping)
        change_p = torch.linalg.solve(_damped(left, damping), right).clamp(-1.0, 1.0)
        normal = _damped(by_u.mT @ by_u, damping[rows])
        left_over = rest - (by_p @ change_p[rows][..., None])[..., 0]
        change_u = torch.linalg.solve(normal, by_u.mT @ left_over[..., None])[..., 0]
        return change_p, change_u


def _damped(matrix: Tensor, damping: Tensor) -> Tensor:
    """Return matrices (n, k, k) with their diagonals enlarged by a share (n,), and by what rounding could hide."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    least = 1e-12 * diagonal.amax(dim=1, keepdim=True) + 1e-300
    return matrix + torch.diag_embed(diagonal * damping[:, None] + least)
