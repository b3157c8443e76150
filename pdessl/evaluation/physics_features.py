"""Hand-made features of a run: what a physicist would compute before training anything."""

# B batch, C channels, T time, X space, d number of space axes, N nodes of an axis, F features

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from pdessl.equations import load_equation
from pdessl.errors import CatalogError, ShapeError
from pdessl.models import embed
from pdessl.models.moments import Moments
from pdessl.trajectory import Trajectories

__all__ = ["PhysicsFeatures", "moments_of", "physics_features", "velocity_of"]

FLOOR = 1e-12  # share of the mean square below which power is rounding
TINY = 1e-100  # mean squares below this are 0: their squares must not underflow
_BIN = re.compile(r"(?P<what>.+), wave numbers? (?P<low>\d+)(?:-(?P<high>\d+))?")
_MOMENT = re.compile(
    r".+: log rms of .+, coarse (?P<frames>\d+) x (?P<nodes>\d+), (?:all frames|window (?P<window>\d+))"
)

_Bins: TypeAlias = Callable[[str, int], list[tuple[int, int]]]  # of a spectrum, by its name and its wave numbers


class PhysicsFeatures:
    """Named features of runs.

    Attributes:
        values: shape (B, F), float64.
        names: F texts such as ``u: log power along x, early, wave numbers 3-4``.
    """

    def __init__(self, values: Tensor, names: tuple[str, ...]) -> None:
        self.values, self.names = values, names


def physics_features(trajectories: Trajectories, bins: int = 12, names: Sequence[str] | None = None) -> PhysicsFeatures:
    """Compute spectra, moments, dissipation, correlation scales and material derivatives of every field of every run.

    Per field u (its mean over the run taken off):

    * log power spectrum along every space axis, averaged over the other axes, in ``bins`` logarithmic bins of the wave
      number, in the first, middle and last third of the frames; its slope against log k (power law) and against k
      (exponential decay) over the run;
    * log power spectrum in time, averaged over space, in as many bins at most;
    * log standard deviation, skewness and excess kurtosis of u, of its differences along every axis, and in time;
    * dissipation: log <u_i²>, log <u_ii²> along every axis i, log <u²>/<u_i²> and log <u_i²>/<u_ii²> (squares of
      Taylor's length and of the next);
    * the rate -d log E/dt of the variance E(t) about the mean of each frame, and -(dE/dt)/2 over <u_i²> and over
      <u_ii²>, which are the viscosity and the hyperviscosity of an equation that conserves energy otherwise (arcsinh
      instead of logarithm, because energy may grow);
    * the lag at which the autocorrelation in time and along every axis falls to 1/e, as log.

    * how large the field, its derivatives and its material derivative are, coarse-grained and over time, and the same
      of the vorticity of a velocity (:func:`moments_of`), where the runs are large enough for it.

    Beside them log of the duration and of every length. Differences are central and of second order, wrapped around on
    a periodic axis; spectra along axes that are not periodic, and in time, are those of the field less its mean times a
    Hann window. Nothing depends on where the origin of a periodic axis lies.

    Args:
        trajectories: fields (B, C, T, *X) with T >= 6 and 6 nodes or more on every axis.
        bins: bins of a spectrum, >= 2; fewer where the axis has fewer wave numbers.
        names: of features of other runs, that these are to have: bins of spectra, levels and windows of moments are
            then those that the names tell, whatever number of frames and nodes these runs have. What they are too
            short or too coarse for is left out. None: as many as these runs allow.

    Raises:
        ShapeError: too few frames or nodes.
        ValueError: fewer than 2 bins.
    """
    if bins < 2:
        raise ValueError(f"physics_features got bins {bins}; expected at least 2.")
    if min(trajectories.fields.shape[2:]) < 6:
        raise ShapeError(
            f"physics_features got fields {tuple(trajectories.fields.shape)}; expected at least 6 frames and 6 nodes "
            "on every axis."
        )
    told = _told_bins(names) if names is not None else lambda what, count: _edges(count, bins)
    columns: list[Tensor] = []
    made: list[str] = []
    for channel, name in enumerate(trajectories.field_names):
        for text, column in _of_field(trajectories, channel, told):
            columns.append(column)
            made.append(f"{name}: {text}")
    duration = trajectories.time[:, -1] - trajectories.time[:, 0]
    columns += [duration.double().log(), *trajectories.lengths.double().log().unbind(1)]
    made += ["log duration", *(f"log length along {axis}" for axis in trajectories.axis_names)]
    found = _moments_told(trajectories, names) if len(trajectories.space) in (1, 2) else None
    if found is not None:
        parts = (trajectories[slice(i, i + 64)] for i in range(0, len(trajectories), 64))
        columns += embed(found, parts).unbind(1)
        made += [_named(name, trajectories.field_names) for name in found.names]
    return PhysicsFeatures(torch.stack(columns, dim=1), tuple(made))


def velocity_of(runs: Trajectories) -> tuple[int, ...] | None:
    """Return the channels of the velocity along each axis; None: the runs hold none.

    It is the vector of the equation's file; where the equation is not known, or names none, the fields u, v along the
    axes, if they are there.
    """
    try:
        vectors = list(load_equation(runs.equation).vectors.values()) if runs.equation else []
    except CatalogError:
        vectors = []
    usual: list[str | None] = ["u", "v", "w"]
    found = [[v.get(axis) for axis in runs.axis_names] for v in vectors] + [usual[: len(runs.axis_names)]]
    for names in found:
        if all(name in runs.field_names for name in names):
            return tuple(runs.field_names.index(name) for name in names)
    return None


def moments_of(runs: Trajectories, correlations: bool = False) -> Moments:
    """Return the moments that fit runs: their fields, boundaries and velocity, levels and windows that the grid holds.

    Args:
        runs: whose fields, grid and equation count; no value of theirs does.
        correlations: see :class:`pdessl.models.moments.Moments`.

    Raises:
        ValueError: runs on more than two axes.
        ShapeError: fewer than 3 frames or 2 nodes.
    """
    return Moments.fitting(
        runs.fields.shape, tuple(kind == "periodic" for kind in runs.boundary), velocity_of(runs), correlations
    )


def _told_bins(names: Sequence[str]) -> _Bins:
    """Return what gives the bins that the names of features tell, those that a spectrum has wave numbers for."""
    told: dict[str, list[tuple[int, int]]] = {}
    for name in names:
        if found := _BIN.fullmatch(name):
            told.setdefault(found["what"], []).append((int(found["low"]), int(found["high"] or found["low"]) + 1))
    return lambda what, count: [(low, high) for low, high in told.get(what, ()) if high <= count + 1]


def _moments_told(runs: Trajectories, names: Sequence[str] | None) -> Moments | None:
    """Return the moments that fit runs, or those that names tell; None: none, or runs too small for them."""
    own = moments_of(runs)
    if names is None:
        return own
    told = [found for found in map(_MOMENT.fullmatch, names) if found]
    if not told:
        return None
    levels = sorted({(int(found["frames"]), int(found["nodes"])) for found in told})
    windows = max(int(found["window"] or 0) for found in told)
    made = Moments(own.in_channels, own.periodic, own.velocity, levels, windows)
    enough = all(n >= least for n, least in zip(runs.fields.shape[2:], made.needed, strict=True))
    return made if enough else None


def _named(name: str, fields: tuple[str, ...]) -> str:
    """Return the name of a moment with the field's own name in place of its number."""
    start, _, rest = name.partition(": ")
    return f"{fields[int(start[1:])] if start != 'vorticity' else start}: {rest}"


def _of_field(runs: Trajectories, channel: int, bins: _Bins) -> Iterator[tuple[str, Tensor]]:
    """Yield the features of one field, each with its name."""
    field, u = runs.field_names[channel], runs.fields[:, channel].double()  # u: (B, T, *X)
    u = u - _mean(u).reshape(-1, *[1] * (u.ndim - 1))
    square = _mean(u.square()).clamp_min(TINY)
    yield from _moments("u", u, square)
    times = ((0, "early"), (1, "middle"), (2, "late"))
    third = u.shape[1] // 3
    rate, energy = _decay(runs, u, square)
    yield "decay rate of the variance", rate
    spacing = runs.grid_spacing.double()
    for i, axis in enumerate(runs.axis_names):
        periodic, dim = runs.boundary[i] == "periodic", 2 + i
        power = _power(u, dim, periodic)  # (B, T, K)
        for part, when in times:
            frames = power[:, part * third : (part + 1) * third if part < 2 else None]
            yield from _binned(frames.mean(dim=1), square, bins, field, f"log power along {axis}, {when}")
        yield from _slopes(power.mean(dim=1), square, axis)
        first = _difference(u, dim, periodic, 1) / _column(spacing[:, i], u)
        second = _difference(u, dim, periodic, 2) / _column(spacing[:, i] ** 2, u)
        gradient, curvature = (_mean(v.square()).clamp_min(TINY) for v in (first, second))
        yield from _moments(f"difference along {axis}", first, gradient)
        yield f"log mean square of the second difference along {axis}", curvature.log()
        yield f"log squared Taylor length along {axis}", (square / gradient).log()
        yield f"log squared next length along {axis}", (gradient / curvature).log()
        for what, mean_square in (("gradient", gradient), ("curvature", curvature)):
            yield f"energy loss over {what} along {axis}", torch.asinh(1e3 * energy / mean_square)
        yield f"log correlation length along {axis}", _correlation(u, dim, periodic, spacing[:, i])
    power = _power(u.flatten(2).transpose(1, 2), 2, False)
    yield from _binned(power.mean(dim=1), square, bins, field, "log power in time")
    step = runs.time_step.double()
    slope = _difference(u, 1, False, 1) / _column(step, u)
    yield from _moments("difference in time", slope, _mean(slope.square()).clamp_min(TINY))
    yield "log correlation time", _correlation(u, 1, False, step)


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _moments(what: str, values: Tensor, square: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield log of the root mean square, skewness and excess kurtosis of values of mean 0, or nearly."""
    yield f"log deviation of {what}", square.log() / 2
    yield f"skewness of {what}", _mean(values**3) / square**1.5
    yield f"kurtosis of {what}", _mean(values**4) / square**2 - 3


def _decay(runs: Trajectories, u: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rate at which the variance over space decays, by a straight line, and the energy lost per time."""
    flat = u.flatten(2)
    variance = flat.var(dim=2, correction=0)
    time = runs.time.double() - runs.time.double().mean(dim=1, keepdim=True)
    weight = time / time.square().sum(dim=1, keepdim=True)
    floored = variance.clamp_min(FLOOR * square[:, None])
    return -(weight * floored.log()).sum(dim=1), -(weight * variance).sum(dim=1) / 2


def _power(u: Tensor, dim: int, periodic: bool) -> Tensor:
    """Return the power of wave numbers 1, 2, ... along an axis, averaged over the other space axes: (B, T, K)."""
    values = u.movedim(dim, -1)
    count = values.shape[-1]
    if not periodic:
        window = torch.hann_window(count, periodic=False, dtype=u.dtype, device=u.device)
        values = (values - values.mean(dim=-1, keepdim=True)) * window / window.square().mean().sqrt()
    power = torch.fft.rfft(values).abs().square()[..., 1:] / count**2
    return power if power.ndim == 3 else power.flatten(2, -2).mean(dim=2)


def _edges(count: int, bins: int) -> list[tuple[int, int]]:
    """Return bins of the wave numbers 1..count, as wide as the next power of a constant ratio."""
    marks = sorted({round(count ** (k / bins)) for k in range(bins + 1)} | {1, count + 1})
    marks = [m for m in marks if m != count] if len(marks) > 2 else marks
    return list(zip(marks[:-1], marks[1:], strict=True))


def _binned(power: Tensor, square: Tensor, bins: _Bins, field: str, what: str) -> Iterator[tuple[str, Tensor]]:
    floor = FLOOR * square
    for low, high in bins(f"{field}: {what}", power.shape[1]):
        name = f"{what}, wave number {low}" if high - low == 1 else f"{what}, wave numbers {low}-{high - 1}"
        yield name, (power[:, low - 1 : high - 1].mean(dim=1) + floor).log()


def _slopes(power: Tensor, square: Tensor, axis: str) -> Iterator[tuple[str, Tensor]]:
    logs = (power + FLOOR * square[:, None]).log()
    k = torch.arange(1, power.shape[1] + 1, dtype=power.dtype, device=power.device)
    for name, position in (("power-law", k.log()), ("exponential", k)):
        centred = position - position.mean()
        yield f"{name} slope of the spectrum along {axis}", (logs @ centred) / centred.square().sum()


def _difference(u: Tensor, dim: int, periodic: bool, order: int) -> Tensor:
    """Return first (over two nodes) or second differences in units of the spacing; inner nodes where not periodic."""
    if periodic:
        ahead, behind = u.roll(-1, dim), u.roll(1, dim)
    else:
        count = u.shape[dim] - 2
        ahead, behind, u = u.narrow(dim, 2, count), u.narrow(dim, 0, count), u.narrow(dim, 1, count)
    return (ahead - behind) / 2 if order == 1 else ahead - 2 * u + behind


def _correlation(u: Tensor, dim: int, periodic: bool, spacing: Tensor) -> Tensor:
    """Return log of the lag at which the autocorrelation along an axis first falls to 1/e, interpolated."""
    values = u.movedim(dim, -1)
    count = values.shape[-1]
    lags = count // 2
    if periodic:
        power = torch.fft.rfft(values).abs().square().flatten(1, -2).mean(dim=1)
        products = torch.fft.irfft(power, n=count)[:, : lags + 1]
    else:
        padded = torch.fft.rfft(values, n=2 * count).abs().square().flatten(1, -2).mean(dim=1)
        pairs = count - torch.arange(lags + 1, dtype=u.dtype, device=u.device)
        products = torch.fft.irfft(padded, n=2 * count)[:, : lags + 1] / pairs
    curve = products / products[:, :1].clamp_min(TINY)
    below = curve < math.exp(-1)
    below[:, -1] = True  # never: the largest lag there is
    index = below.to(torch.int8).argmax(dim=1).clamp_min(1)
    rows = torch.arange(len(curve), device=u.device)
    before, after = curve[rows, index - 1], curve[rows, index]
    share = ((before - math.exp(-1)) / (before - after).clamp_min(1e-12)).clamp(0, 1)
    return ((index - 1 + share) * spacing).clamp_min(1e-12).log()
