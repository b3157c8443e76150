"""Draws a picture per one-dimensional simulator: python docs/simulators/one_dimension.py [burgers kdv ...]"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pdessl import Trajectories
from pdessl.solvers import (
    Actuators,
    AdvectionDiffusion,
    Burgers,
    GaussianRandomField,
    Heat,
    KdV,
    KdVBurgers,
    KuramotoSivashinsky,
    SineSeries,
    random_stream,
)


def times(end: float, frames: int) -> Tensor:
    """Equidistant times from 0."""
    return torch.linspace(0, end, frames, dtype=torch.float64)


def random_field(family: SineSeries | GaussianRandomField, points: int, number: int) -> Tensor:
    """One field of a family, shape (1, 1, X)."""
    draws = family.draw(random_stream(0, "picture", number, "physics"))[None]
    return family.fields(draws, (points,), torch.ones(1, 1))


def page(columns: int, title: str) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure with panels side by side."""
    figure = Figure(figsize=(4.2 * columns, 3.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def space_time(axes: Axes, run: Trajectories, title: str = "") -> None:
    """A field over space and time."""
    field, x, t = run.fields[0, 0], run.space[0][0], run.time[0]
    limit = float(field.abs().max())
    picture = axes.imshow(
        field, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="bilinear",
        extent=(float(x[0]), float(run.lengths[0, 0]), float(t[0]), float(t[-1])),
    )  # fmt: skip
    axes.set(xlabel="x", ylabel="t", title=title)
    axes.figure.colorbar(picture, ax=axes, label="u", shrink=0.9)


def profiles(axes: Axes, run: Trajectories, frames: Sequence[int], title: str = "") -> None:
    """A field over space at some times."""
    for place, frame in enumerate(frames):
        shade = 0.15 + 0.7 * place / max(len(frames) - 1, 1)
        axes.plot(
            run.space[0][0], run.fields[0, 0, frame], lw=1.2, color=(shade, 0.25, 1 - shade),
            label=f"t = {float(run.time[0, frame]):.3g}",
        )  # fmt: skip
    axes.set(xlabel="x", ylabel="u", title=title)
    axes.legend(fontsize=7, frameon=False, loc=(0.22, 0.72))


def burgers() -> Figure:
    """Steepening, and shocks that merge."""
    run = Burgers(0.01, points=1024)(random_field(SineSeries(wave_numbers=(1, 5), rms=0.7), 1024, 2), times(6, 121))
    figure, axes = page(2, "Burgers, ν = 0.01: waves steepen into shocks, shocks merge and decay")
    space_time(axes[0], run)
    profiles(axes[1], run, (0, 10, 30, 120))
    axes[1].legend(fontsize=7, frameon=False, loc="lower left")
    return figure


def kdv() -> Figure:
    """Solitons: out of a smooth field, and two that cross."""
    random = KdV(domain_length=128.0, points=512)(random_field(SineSeries(rms=0.7), 512, 1), times(100, 201))
    x = torch.arange(384, dtype=torch.float64) * (128.0 / 384)

    def soliton(speed: float, centre: float) -> Tensor:
        return 3 * speed / torch.cosh(math.sqrt(speed) / 2 * (x - centre)) ** 2

    start = (soliton(1.0, 25.0) + soliton(0.35, 55.0))[None, None]
    pair = KdV(domain_length=128.0, points=384)(start, times(85, 171))
    figure, axes = page(3, "KdV: a smooth field breaks up into solitons; a fast one overtakes a slow one")
    space_time(axes[0], random, "random sines")
    space_time(axes[1], pair, "two solitons")
    profiles(axes[2], pair, (0, 92, 170), "before, during and after")
    return figure


def kdv_burgers() -> Figure:
    """The same front, with more and more dispersion against viscosity."""
    x = torch.arange(768, dtype=torch.float64) * (2 * math.pi / 768)
    figure, axes = page(2, "KdV-Burgers, ν = 0.02: dispersion turns a shock into a train of waves")
    for dispersion in (0.0001, 0.0005, 0.002):
        run = KdVBurgers(0.02, dispersion, points=768)(torch.sin(x)[None, None], times(1.6, 81))
        axes[1].plot(x, run.fields[0, 0, -1], lw=1.2, label=f"d = {dispersion:g}")
    space_time(axes[0], run, "d = 0.002")
    axes[1].set(xlabel="x", ylabel="u", title="t = 1.6")
    axes[1].legend(fontsize=7, frameon=False)
    return figure


def kuramoto_sivashinsky() -> Figure:
    """Chaos out of a smooth field, and the same run with actuators."""
    points, length, initial = 256, 64.0, random_field(SineSeries(terms=10, wave_numbers=(1, 2)), 256, 0)
    free = KuramotoSivashinsky(domain_length=length, points=points)(initial, times(150, 301))
    profile = Actuators.gaussian([16.0, 48.0], 2.0, points, length)
    switching = torch.tensor([[[0.0, 0.4, -0.4, 0.0], [0.0, -0.4, 0.4, 0.0]]], dtype=torch.float64)
    actuators = Actuators(profile, switching, torch.tensor([0.0, 50.0, 80.0, 110.0]))
    driven = KuramotoSivashinsky(domain_length=length, points=points, forcing=actuators)(initial, times(150, 301))
    figure, axes = page(2, "Kuramoto-Sivashinsky, L = 64")
    space_time(axes[0], free, "cells split and merge for ever")
    space_time(axes[1], driven, "two actuators, on from 50 to 110, reversed at 80")
    return figure


def linear() -> Figure:
    """Heat, and advection with diffusion, of the same field."""
    initial = random_field(GaussianRandomField(rms=1.0, highest=20, corner=6.0), 128, 0)
    figure, axes = page(2, "Heat, and advection with diffusion: short waves die first")
    space_time(axes[0], Heat(0.08, points=128)(initial, times(4, 81)), "heat, ν = 0.08")
    space_time(axes[1], AdvectionDiffusion(1.5, 0.08, points=128)(initial, times(4, 81)), "with c = 1.5")
    return figure


PICTURES = {f.__name__: f for f in (burgers, kdv, kdv_burgers, kuramoto_sivashinsky, linear)}


def main(names: Sequence[str]) -> None:
    """Draw the pictures named, or all."""
    for name in names or PICTURES:
        path = Path(__file__).with_name(f"{name}.png")
        PICTURES[name]().savefig(path, dpi=70, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main(sys.argv[1:])
