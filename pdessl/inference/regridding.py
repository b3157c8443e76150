"""Runs on other grids, brought to the time step and the spacing that an encoder was trained on."""

# B runs, C channels, T frames, X space (one axis per dimension), N nodes of an axis, P nodes after resampling

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline, make_lsq_spline
from torch import Tensor

from pdessl.errors import FormatError
from pdessl.models.encoder import trained_on
from pdessl.trajectory import Trajectories

__all__ = ["ROUGHEST", "Regridded", "in_order", "regridded", "roughness", "steps_of", "trained_steps"]

ROUGHEST = 1 / 4  # that of a wave of four nodes
_ROUNDING = 1e-3  # relative: a step that differs by less is the same
_UNEVEN = 1e-2  # relative: nodes further than this from even spacing are resampled


@dataclass(frozen=True, eq=False)
class Regridded:
    """Some runs of equal shape: their places among all, themselves, and what was done, by axis."""

    places: NDArray[np.int64]
    runs: Trajectories
    done: Mapping[str, str]


@dataclass(frozen=True)
class _Plan:
    """What is done to one axis: from which nodes to which, in units of the first nodes' distance from 0."""

    words: str
    periodic: bool
    count: int
    nodes: tuple[float, ...] = ()
    targets: tuple[float, ...] = ()


def regridded(
    runs: Trajectories,
    steps: Mapping[str, tuple[float, float]],
    label: Callable[[int], str] = "run {}".format,
) -> Iterator[Regridded]:
    """Yield runs on the time step and spacing of training, those that come to have one shape together.

    A network on nodes reads a coarser grid as other physics. An axis whose step lies outside the given range is
    resampled to the nearer end of it:

    * periodic, evenly spaced: its Fourier series is cut off, or continued with zeros, and evaluated on round(L/step)
      nodes, so that the period stays;
    * others, time among them: a cubic spline through the nodes where the new step is smaller; where it is larger, the
      cubic spline with knots at the new nodes that is nearest in least squares, which is a low-pass. Splines end "not
      a knot": no derivative at an end is made up. Cell centres of a box are read half a cell beyond the outermost.

    Interpolation restores nothing that the coarser grid has lost. Fields that vary too much from node to node, by
    :func:`roughness`, are refused.

    Args:
        runs: B runs of one shape.
        steps: smallest and largest step of training, of ``time`` and the space axes by name; an axis that is left out
            stays as it is.
        label: what messages call a run.

    Raises:
        FormatError: a coarser grid that does not resolve its fields.
    """
    plans = _plans(runs, steps)
    rough = functools.cache(lambda: roughness(runs))
    for row, plan in enumerate(plans):
        for axis, (name, chosen) in enumerate(plan.items()):
            share = float(rough()[row, axis]) if chosen and chosen.count > runs.fields.shape[2 + axis] else 0.0
            if share > ROUGHEST:
                step, fine = _step(runs, axis, row), max(steps[name])
                raise FormatError(
                    f"{label(row)}: {name} has steps of {step:.4g}, {step / fine:.2g} times those of training "
                    f"({fine:.4g}), and fields that vary too fast to be interpolated: their roughness is {share:.2g}, "
                    f"at most {ROUGHEST:.2g} (a wave of four nodes) is accepted. Give data on a finer grid."
                )
    for chosen in dict.fromkeys(tuple(plan.values()) for plan in plans):
        places = np.array([row for row, plan in enumerate(plans) if tuple(plan.values()) == chosen])
        part = runs if len(places) == len(runs) else runs[places]
        for axis, plan in enumerate(chosen):
            part = part if plan is None else _resampled(part, axis, plan)
        done = {name: plan.words for name, plan in zip(plans[0], chosen, strict=True) if plan is not None}
        yield Regridded(places, part, done)


def in_order(rows: Sequence[tuple[NDArray[np.int64], Tensor]]) -> Tensor:
    """Return values of all runs in their order, from the places and values of some at a time."""
    places = np.concatenate([places for places, _ in rows])
    return torch.cat([values for _, values in rows])[torch.from_numpy(np.argsort(places))]


def steps_of(runs: Trajectories) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest step of ``time`` and of each space axis, by name."""
    found = {"time": runs.time_step} | {n: runs.grid_spacing[:, i] for i, n in enumerate(runs.axis_names)}
    return {n: (float(v.min()), float(v.max())) for n, v in found.items()}


def trained_steps(encoder: object, runs: Trajectories) -> dict[str, tuple[float, float]]:
    """Return the steps that an encoder was trained on where it knows them, else those of the runs it is to be used on.

    An encoder of ``pdessl pretrain`` has them in its attribute ``trained_on``. Runs of another equation are read on the
    grid they have: their units of length and time are not those of training.
    """
    known = trained_on(encoder)
    steps, axes = known.get("steps", {}), ("time", *runs.axis_names)
    if known.get("equation") != runs.equation or not set(axes) <= set(steps):
        return steps_of(runs)
    return {n: (float(steps[n][0]), float(steps[n][1])) for n in axes}


def roughness(runs: Trajectories) -> Tensor:
    """Return the share of the variance that lies near the grid scale, of time and each space axis, (B, 1 + d), float64.

        R = Σ |u_(j+1) - 2 u_j + u_(j-1)|² / (16 Σ |u - mean|²),   sums over all nodes; the largest of all fields

    A wave with a phase of θ from node to node counts with sin⁴(θ/2): 1 where it turns at every node, 1/4 at four nodes
    a wave, 0.02 at eight. White noise has 3/8 of its own variance here. It needs no period and no ends.
    """
    u = runs.fields.double()
    inner = tuple(range(2, u.ndim))
    variance = u.var(dim=inner, correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    shares = []
    for axis, kind in enumerate(("time", *runs.boundary)):
        dim = 2 + axis
        v = torch.cat([u, u.narrow(dim, 0, min(2, u.shape[dim]))], dim=dim) if kind == "periodic" else u
        found = torch.zeros_like(variance) if v.shape[dim] < 3 else v.diff(n=2, dim=dim).square().mean(dim=inner) / 16
        shares.append((found / variance).amax(dim=1))
    return torch.stack(shares, dim=1)


def _axis(runs: Trajectories, axis: int) -> Tensor:
    return runs.time if axis == 0 else runs.space[axis - 1]


def _step(runs: Trajectories, axis: int, row: int) -> float:
    nodes = _axis(runs, axis)[row]
    return float(nodes[-1] - nodes[0]) / max(len(nodes) - 1, 1)


def _plans(runs: Trajectories, steps: Mapping[str, tuple[float, float]]) -> list[dict[str, _Plan | None]]:
    """Return, run by run, what is done to each axis; None: nothing."""
    names, kinds = ("time", *runs.axis_names), ("window", *runs.boundary)
    nodes = [v.cpu().numpy() for v in (runs.time, *runs.space)]
    lengths = runs.lengths.cpu().numpy()
    found: list[dict[str, _Plan | None]] = []
    for row in range(len(runs)):
        found.append({})
        for axis, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            length = float(lengths[row, axis - 1]) if axis else None
            here = nodes[axis][row]
            found[row][name] = _plan(here, kind, length, steps[name]) if name in steps and len(here) > 1 else None
    return found


def _plan(nodes: NDArray[np.float64], kind: str, length: float | None, wanted: tuple[float, float]) -> _Plan | None:
    x, n = nodes - nodes[0], len(nodes)
    step = float(x[-1]) / (n - 1)
    uneven = bool(np.abs(x - step * np.arange(n)).max() > _UNEVEN * step)
    low, high = wanted
    inside = low * (1 - _ROUNDING) <= step <= high * (1 + _ROUNDING)
    if inside and not uneven:
        return None
    target = step if inside else low if step < low else high
    if kind == "periodic":
        assert length is not None  # noqa: S101  (space axes have one)
        count = max(round(length / target), 1)
        if count == n and not uneven:
            return None
        new = length / count * np.arange(count)
    elif kind == "wall" and length is not None and abs(length - n * step) < abs(length - (n - 1) * step):
        count = max(round(length / target), 2)
        new = length / count * (np.arange(count) + 0.5) - step / 2
    elif kind == "wall" and length is not None:
        count = max(round(length / target), 1) + 1
        new = float(x[-1]) * np.arange(count) / (count - 1)
    else:
        new = target * np.arange(int(float(x[-1]) / target + 1e-6) + 1)
    way = "interpolated" if target < step else "low-passed and sampled" if target > step else "made even"
    words = f"{way} from steps of {step:.4g} to {target:.4g}"
    if kind == "periodic" and not uneven:
        return _Plan(words, True, len(new))
    # Even nodes as exact multiples, and all rounded: runs whose clocks start at different times then share a plan.
    x = x if uneven else step * np.arange(n)
    if kind == "periodic":
        x = np.append(x, length)  # the first node, once more
    plain = tuple(tuple((np.round(v / step, 9) * step).tolist()) for v in (x, new))
    return _Plan(words, kind == "periodic", len(new), *plain)


def _resampled(runs: Trajectories, axis: int, plan: _Plan) -> Trajectories:
    dim, old = 2 + axis, _axis(runs, axis)
    if not plan.nodes:
        fields = _fourier(runs.fields, dim, plan.count)
        targets = runs.lengths[:, axis - 1, None] / plan.count * torch.arange(plan.count, device=old.device)
    else:
        matrix = torch.from_numpy(_spline(plan)).to(runs.device, runs.fields.dtype)
        fields = (runs.fields.movedim(dim, -1) @ matrix.T).movedim(-1, dim).contiguous()
        targets = torch.tensor(plan.targets, dtype=torch.float64, device=old.device)
    nodes = old[:, :1] + targets
    if axis == 0:
        return runs.replace(fields=fields, time=nodes, actions=None, actuators=())
    space, lengths = list(runs.space), runs.lengths.clone()
    space[axis - 1] = nodes
    if runs.boundary[axis - 1] == "window":
        lengths[:, axis - 1] = nodes[:, -1] - nodes[:, 0]
    return runs.replace(fields=fields, space=tuple(space), lengths=lengths)


def _fourier(fields: Tensor, dim: int, count: int) -> Tensor:
    """Return the trigonometric interpolant, cut off at the finer of both grids' highest wave, on ``count`` nodes."""
    n = fields.shape[dim]
    spectrum = torch.fft.rfft(fields, dim=dim)
    least = min(n, count)
    kept = spectrum.narrow(dim, 0, least // 2 + 1).clone()
    if least % 2 == 0 and n != count:
        # On the finer grid the highest wave of the coarser one is a pair, of which one mode is kept in memory.
        kept.select(dim, least // 2).mul_(0.5 if count > n else 2.0)
    return torch.fft.irfft(kept, n=count, dim=dim) * (count / n)


@functools.lru_cache(maxsize=64)
def _spline(plan: _Plan) -> NDArray[np.float64]:
    """Return the matrix (P, N) from values at the nodes to those of the spline at the new ones."""
    x, new = np.array(plan.nodes), np.array(plan.targets)
    n, p = len(x), len(new)
    if plan.periodic:
        values = np.concatenate([np.eye(n - 1), np.eye(n - 1)[:1]])
        return make_interp_spline(x, values, k=3, bc_type="periodic")(new)
    if p < n and plan.words.startswith("low"):
        k = min(3, p - 1)
        knots = np.concatenate([[x[0]] * (k + 1), _inner(new, k), [x[-1]] * (k + 1)])
        return make_lsq_spline(x, np.eye(n), knots, k=k)(new)
    return make_interp_spline(x, np.eye(n), k=min(3, n - 1))(new)


def _inner(new: NDArray[np.float64], k: int) -> Sequence[float]:
    """Return the p - k - 1 inner knots of a spline of order k with p coefficients: not-a-knot ends."""
    p = len(new)
    if k < 3:
        return np.linspace(new[0], new[-1], p - k + 1)[1:-1]
    return new[2:-2]
