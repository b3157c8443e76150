"""Parameters of runs whose state is observed: the equation's simulator runs from every frame to the next."""

# B runs, T frames, N pairs of frames, X space, P parameters

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.solvers import Simulator
from pdessl.solvers.pseudo_spectral import interpolate
from pdessl.trajectory import Trajectories

__all__ = ["FrameShot", "shoot_frames", "smoothed"]

_STEP = 1e-4  # of a finite difference
_SETTLED = 1e-10  # change of all parameters, on the scale they are fitted on, below which nothing more is looked for
_WEAK = 3  # wave numbers in a row without signal, after which there is none
_SURE = 20.0  # times the noise: a mean over two frames reaches it once in 1e13
_FINER = 4  # the solver's grid has at most so many times the nodes of the data
_HELD = 2**22  # grid values that are advanced at a time


@dataclass(frozen=True, eq=False)
class FrameShot:
    """What a simulator that ran from frame to frame says.

    Args:
        value: parameters, (B, P), float64; NaN for a run of which no simulation was finite.
        misfit: root mean square of observed minus simulated over that of the change from frame to frame, (B,).
    """

    value: Tensor
    misfit: Tensor


def smoothed(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Take out of periodic fields what does not stand out of white noise.

        û_k → û_k max(0, 1 - n / P_k),        P_k the power at wave number k, n that of the largest quarter of them

    which is the filter of Wiener, up to the first three wave numbers in a row beyond the strongest one at which
    P_k < 2 n, or to the last one with P_k > 20 n, which noise does not reach; and 0 from there on. P_k is the mean over
    frames, fields and directions of a run. On clean fields that their grid resolves n is nothing, and they stay as
    they are.

    Args:
        fields: (B, C, T, *X), each X even.

    Returns:
        The fields, and the factors, (B, 1, 1, *K) for the modes of a real transform.
    """
    axes = tuple(range(3, fields.ndim))
    modes = torch.fft.rfftn(fields, dim=axes)
    power = modes.abs().square().mean(dim=(1, 2))
    waves = [torch.fft.fftfreq(n, 1 / n, device=fields.device) for n in fields.shape[3:-1]]
    waves.append(torch.fft.rfftfreq(fields.shape[-1], 1 / fields.shape[-1], device=fields.device))
    square = sum(w.reshape([-1 if i == j else 1 for j in range(len(waves))]).square() for i, w in enumerate(waves))
    shell = torch.as_tensor(square).sqrt().round().long().flatten()
    count = torch.zeros(int(shell.max()) + 1, device=fields.device, dtype=power.dtype).index_add_(
        0, shell, torch.ones_like(shell, dtype=power.dtype)
    )
    mean = power.new_zeros(len(fields), len(count)).index_add_(1, shell, power.flatten(1)) / count
    most = min(fields.shape[3:]) // 2
    noise = mean[:, 3 * most // 4 : most].median(dim=1, keepdim=True).values
    factor = (1 - noise / mean.clamp_min(1e-300)).clamp_min(0)
    number = torch.arange(mean.shape[1], device=mean.device)
    peak = 1 + mean[:, 1:].argmax(dim=1, keepdim=True)
    last = torch.where((mean >= 2 * noise) | (number <= peak), number, -1).cummax(dim=1).values
    gone = number - last >= _WEAK
    end = last.gather(1, gone.to(torch.uint8).argmax(dim=1, keepdim=True))
    # A field that repeats m times in its length has every m-th wave number only: what lies between is no end.
    sure = torch.where(mean > _SURE * noise, number, 0).amax(dim=1, keepdim=True)
    lost = (gone.any(dim=1, keepdim=True) & (number > torch.maximum(end, sure))).to(mean.dtype)
    factor = factor * (1 - lost)
    factor[:, 0] = 1
    factor = factor[:, shell].reshape(len(fields), 1, 1, *square.shape)  # type: ignore[union-attr]
    return torch.fft.irfftn(modes * factor, s=fields.shape[3:], dim=axes), factor


def shoot_frames(
    kind: type[Simulator],
    runs: Trajectories,
    unknown: str | Sequence[str],
    start: Tensor,
    arguments: Mapping[str, Any] | None = None,
    smooth: bool = True,
    iterations: int = 8,
    candidates: Tensor | None = None,
) -> FrameShot:
    """Find the parameters with which the simulator comes from every frame to the next one.

        min over θ of  Σ_t |F [Φ_θ(Δt) u_t - u_{t+1}]|²

    Φ_θ is the simulator's flow over one interval, u_t the observed frames, F the filter of :func:`smoothed`, which the
    frames went through too. The state is observed, so that θ alone is unknown: few numbers a run, whatever lies between
    two frames, and no time derivative. Gauss-Newton with damping, parameters that are positive by their logarithm;
    candidates are tried first, as waves that turn by more than half a period between frames have many minima. Noise in
    u_t goes through Φ like the state and is not fitted: with noise of which much is left after the filter,
    :func:`pdessl.inference.shooting.shoot`, which fits the state too, is nearer.

    Args:
        kind: class of the simulator, periodic; its returned fields are its state.
        runs: all of its fields on equal even grids, T >= 2; known parameters are taken from them.
        unknown: names of parameters, P of them.
        start: a guess, (B, P); one that is not positive where it must be is replaced by the median of the others.
        arguments: further arguments of the class.
        smooth: whether frames are filtered.
        iterations: of Gauss-Newton, at most.
        candidates: values that are tried for every run besides its start, (S, P); the best goes on.

    Raises:
        DataError: a parameter that the simulator does not have, or that is neither known nor unknown.
        ShapeError: other fields or axes than the simulator's, odd grids, a single frame, or a start of another shape.
    """
    names = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    _check(kind, runs, names, start)
    fit = _Fit(kind, runs, names, dict(arguments or {}), smooth)
    theta = fit.inward(_sensible(kind, names, start.double()))
    tried = [theta, *(fit.inward(c.double().expand_as(theta)) for c in (() if candidates is None else candidates))]
    return fit.solve(tried, iterations)


def _check(kind: type[Simulator], runs: Trajectories, names: Sequence[str], start: Tensor) -> None:
    sizes = tuple(runs.fields.shape)
    if set(runs.boundary) != {"periodic"} or len(runs.space) != kind.dimensions:
        raise ShapeError(
            f"shooting with {kind.__name__} needs {kind.dimensions} periodic axes; found {', '.join(runs.boundary)}."
        )
    if runs.field_names != kind.field_names or sizes[2] < 2 or any(n % 2 or n < 8 for n in sizes[3:]):
        raise ShapeError(
            f"shooting with {kind.__name__} needs the fields {', '.join(kind.field_names)} of 2 frames or more on even "
            f"grids; found {', '.join(runs.field_names)} of shape {sizes}."
        )
    for name in names:
        if name not in kind.parameter_names:
            raise DataError(f"{kind.__name__} has no parameter '{name}'; it has {', '.join(kind.parameter_names)}.")
    if tuple(start.shape) != (len(runs), len(names)):
        raise ShapeError(f"start has shape {tuple(start.shape)}; expected ({len(runs)}, {len(names)}).")


def _sensible(kind: type[Simulator], names: Sequence[str], start: Tensor) -> Tensor:
    start = start.clone()
    for i, name in enumerate(names):
        good = torch.isfinite(start[:, i]) & ((start[:, i] > 0) if name in kind.positive + kind.nonzero else True)
        middle = start[good, i].median() if bool(good.any()) else start.new_tensor(1.0)
        start[:, i] = torch.where(good, start[:, i], middle)
    return start


class _Fit:
    def __init__(
        self, kind: type[Simulator], runs: Trajectories, names: Sequence[str], arguments: dict[str, Any], smooth: bool
    ) -> None:
        self.kind, self.names, self.arguments = kind, tuple(names), arguments
        fields = runs.fields.double()
        self.filter: Tensor | None = None
        if smooth:
            fields, self.filter = smoothed(fields)
        b, _, t = fields.shape[:3]
        self.count, self.pairs, self.nodes = b, t - 1, tuple(fields.shape[3:])
        self.first = fields[:, :, :-1].transpose(1, 2).flatten(0, 1)  # (N, C, *X)
        self.second = fields[:, :, 1:].transpose(1, 2).flatten(0, 1)
        self.rows = torch.arange(b).repeat_interleave(t - 1)
        self.steps = runs.time.double().diff(dim=1).flatten()
        self.lengths = runs.lengths.double()[self.rows]
        known = [n for n in kind.parameter_names if n in runs.parameters and n not in self.names]
        self.known = {n: runs.parameters[n].double()[self.rows] for n in known}
        self.change = self._per_run((self.second - self.first).flatten(1).square().sum(dim=1)).clamp_min(1e-300)

    def inward(self, values: Tensor) -> Tensor:
        """Return parameters (B, P) on the scale they are fitted on: the logarithm where sign or zero are excluded."""
        return torch.where(self._by_logarithm, values.clamp_min(1e-300).log(), values)

    def outward(self, theta: Tensor) -> Tensor:
        return torch.where(self._by_logarithm, theta.clamp(-300, 300).exp(), theta)

    @property
    def _by_logarithm(self) -> Tensor:
        return torch.tensor([n in self.kind.positive + self.kind.nonzero for n in self.names])

    def _per_run(self, values: Tensor) -> Tensor:
        return values.new_zeros((self.count, *values.shape[1:])).index_add_(0, self.rows, values)

    def _points(self, values: dict[str, Tensor], rows: slice) -> tuple[int, ...]:
        solver = self._solver(values, self.nodes, rows)
        needed = solver.points_needed(self.first[rows])
        finite = needed[torch.isfinite(needed)]
        wanted = float(finite.quantile(0.9)) / max(self.nodes) if len(finite) else 1.0
        factor = next((f for f in (1, 2, _FINER) if f >= wanted), _FINER)
        return tuple(n * factor for n in self.nodes)

    def _solver(self, values: dict[str, Tensor], points: tuple[int, ...], rows: slice) -> Simulator:
        grid = points if len(points) > 1 else points[0]
        given = {**values, **{n: v[rows] for n, v in self.known.items()}, **self.arguments}
        return self.kind(  # type: ignore[call-arg]
            **given, domain_length=self.lengths[rows], points=grid, check_resolution=False, dtype=torch.float64
        )

    def _arrived(self, theta: Tensor) -> Tensor:
        """Return the difference of the frames that are reached from those observed, (N, C *X), filtered."""
        found = []
        values = self.outward(theta)[self.rows]
        held = max(1, _HELD // (_FINER ** len(self.nodes) * self.first[0].numel()))
        for start in range(0, len(self.first), held):
            cut = slice(start, start + held)
            own = {n: values[cut, i] for i, n in enumerate(self.names)}
            points = self._points(own, cut)
            solver = self._solver(own, points, cut)
            state = interpolate(self.first[cut], points) if points != self.nodes else self.first[cut]
            nodes = self.nodes if len(self.nodes) > 1 else self.nodes[0]
            reached = solver.solve(state, self.steps[cut, None], nodes).trajectories.fields[:, :, 0]
            found.append(reached)
        rest = torch.cat(found) - self.second
        if self.filter is not None:
            axes = tuple(range(2, rest.ndim))
            modes = torch.fft.rfftn(rest, dim=axes) * self.filter[self.rows, 0]
            rest = torch.fft.irfftn(modes, s=self.nodes, dim=axes)
        return rest.flatten(1)

    def _square(self, rest: Tensor) -> Tensor:
        return self._per_run(rest.square().sum(dim=1)).nan_to_num(math.inf, math.inf, math.inf)

    @torch.no_grad()
    def solve(self, candidates: Sequence[Tensor], iterations: int) -> FrameShot:
        theta = candidates[0]
        rest = self._arrived(theta)
        best = self._square(rest)
        for moved in candidates[1:]:
            tried = self._arrived(moved)
            square = self._square(tried)
            better = square < best
            theta, best = torch.where(better[:, None], moved, theta), torch.minimum(square, best)
            rest = torch.where(better[self.rows, None], tried, rest)
        damping = torch.full((self.count,), 1e-6, dtype=torch.float64)
        for _ in range(iterations):
            change = self._change(theta, rest, damping)
            tried = self._arrived(theta + change)
            square = self._square(tried)
            good = square < best
            theta = torch.where(good[:, None], theta + change, theta)
            rest = torch.where(good[self.rows, None], tried, rest)
            best = torch.minimum(square, best)
            damping = torch.where(good, damping / 10, damping * 100).clamp(1e-12, 1e6)
            if bool((change.abs() < _SETTLED).all()):
                break
        value = self.outward(theta)
        value[~torch.isfinite(best)] = math.nan
        return FrameShot(value, (best / self.change).sqrt())

    def _change(self, theta: Tensor, rest: Tensor, damping: Tensor) -> Tensor:
        """Return the damped step of Gauss-Newton, (B, P), at most 1 on the scale parameters are fitted on."""
        slopes = []
        for i in range(theta.shape[1]):
            size = torch.where(self._by_logarithm[i], torch.ones_like(theta[:, i]), theta[:, i].abs().clamp_min(1e-3))
            moved = theta.clone()
            moved[:, i] += _STEP * size
            slopes.append(((self._arrived(moved) - rest) / (_STEP * size)[self.rows, None]).nan_to_num(0, 0, 0))
        slope = torch.stack(slopes, dim=2)
        rest = rest.nan_to_num(0, 0, 0)
        normal = self._per_run(torch.einsum("nik,nil->nkl", slope, slope))
        right = -self._per_run(torch.einsum("nik,ni->nk", slope, rest))
        diagonal = normal.diagonal(dim1=1, dim2=2)
        added = diagonal * damping[:, None] + 1e-12 * diagonal.amax(dim=1, keepdim=True) + 1e-300
        return torch.linalg.solve(normal + torch.diag_embed(added), right).clamp(-1.0, 1.0)
