"""A trajectory under each generator of its equation, drawn exactly: the flow moves nodes, nothing is resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pdessl.augmentation.coefficients import compile_expression
from pdessl.errors import DataError, PdesslError, SymmetryError
from pdessl.files import replacing
from pdessl.symmetry.flow import EPSILON, Flow
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pdessl.symmetry.algebra import SymmetryAlgebra

__all__ = ["draw", "move", "visible_strength"]

DISPLACEMENT = 0.25  # of the extent of a coordinate or field: clearly seen, and still in the picture


def draw(algebra: SymmetryAlgebra, trajectory: Trajectories, path: Path) -> dict[str, float]:
    """Draw the first trajectory of a batch as it is and under every generator with a closed flow, and save the picture.

    In one dimension a panel shows the first observed field over (x, t); the dashed frame is where the trajectory was.
    In two dimensions it shows the last frame: a scalar if one is observed, else the speed, with arrows for a vector.

    Args:
        algebra: generators of the equation of the trajectory.
        trajectory: fields (B, C, T, *X) of one or two space dimensions, B >= 1.
        path: file to write; its ending says the format (png, pdf, svg).

    Returns:
        the strength each generator was drawn with, chosen so that something moves by a quarter of its extent.

    Raises:
        DataError: a field, parameter or axis of the equation that the trajectory lacks, or three space dimensions.
        PdesslError: a format that matplotlib does not write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = _coordinates(algebra, trajectory)
    vectors = [tuple(c for c in parts.values() if c in values) for parts in algebra.equation.vectors.values()]
    panels: list[tuple[str, str, dict[str, Tensor]]] = [("as it is", "", values)]
    strengths = {}
    for generator in algebra.generators:
        try:
            flow = generator.flow
        except SymmetryError:
            continue
        shown = {c for c, e in flow.maps.items() if str(e) != c} & set(values)
        needed = {symbol.name for c in values for symbol in flow.maps[c].free_symbols} - {EPSILON.name}
        if needed - set(values) or not shown - set(algebra.equation.parameters):
            continue  # it needs what the data do not hold, or moves nothing of it
        strength = visible_strength(flow, values, vectors)
        strengths[generator.name] = strength
        panels.append((generator.name, f"ε = {strength:.2g}", move(flow, values, strength)))
    d = len(trajectory.space)
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.0 * columns, (2.5 if d == 1 else 2.9) * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    scale = None
    for k, (name, note, moved) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        scale = _panel(axes, algebra, trajectory, moved, values, scale)
        axes.set_title(f"{name.replace('_', ' ')}\n{note}" if note else name, fontsize=9)
    if path.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
        known = ", ".join(sorted(figure.canvas.get_supported_filetypes()))
        raise PdesslError(f"cannot draw into '{path}': the ending says the format, one of {known}.")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix.lstrip(".").lower())
    return strengths


def _coordinates(algebra: SymmetryAlgebra, trajectory: Trajectories) -> dict[str, Tensor]:
    """Every coordinate of the equation that the data hold, (T, *X) each, centred in time and space as views are."""
    equation, d = algebra.equation, len(trajectory.space)
    if d not in (1, 2) or d != len(equation.space):
        raise DataError(
            f"{equation.name} has {len(equation.space)} space axes and the trajectory {d}; pictures are drawn of one "
            "or two."
        )
    renamed = dict(zip(trajectory.axis_names, equation.space, strict=True))
    shape = trajectory.fields.shape[2:]
    values = {"t": _along(_centred(trajectory.time[0]), 0, shape)}
    for i, name in enumerate(trajectory.axis_names):
        values[renamed[name]] = _along(_centred(trajectory.space[i][0]), 1 + i, shape)
    for i, name in enumerate(trajectory.field_names):
        if name in equation.dependent:
            values[name] = trajectory.fields[0, i].to(torch.float64)
    if not any(f in values for f in equation.dependent):
        raise DataError(
            f"the trajectory holds {', '.join(trajectory.field_names)}, the equation has the fields "
            f"{', '.join(equation.dependent)}; none is the same. Rename the fields of the data."
        )
    for letter, name in equation.parameter_names.items():
        if name in trajectory.parameters:
            values[letter] = trajectory.parameters[name][0].to(torch.float64).expand(shape)
    return values


def _along(nodes: Tensor, axis: int, shape: torch.Size) -> Tensor:
    return nodes.reshape([-1 if k == axis else 1 for k in range(len(shape))]).expand(shape)


def _centred(nodes: Tensor) -> Tensor:
    return nodes.to(torch.float64) - (nodes[0] + nodes[-1]) / 2


def move(flow: Flow, values: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Apply a closed flow to the value of every coordinate at every node, whatever its class."""
    given: dict[str, Any] = dict(values) | {"epsilon": torch.tensor(strength, dtype=torch.float64)}
    shape = values["t"].shape
    return {
        n: torch.as_tensor(compile_expression(e)(given), dtype=torch.float64).expand(shape)
        for n, e in flow.maps.items()
        if n in values
    }


def visible_strength(flow: Flow, values: dict[str, Tensor], vectors: Sequence[Sequence[str]] = ()) -> float:
    """Return the strength > 0 at which the largest displacement, relative to the coordinate's extent, is a quarter.

    Args:
        flow: closed flow.
        values: coordinate -> its value at every node.
        vectors: components that share the largest extent among them.
    """
    extents = {n: float(v.max() - v.min()) for n, v in values.items()}
    for names in vectors:
        extents |= dict.fromkeys(names, max(extents[n] for n in names) if names else 0.0)

    def displacement(strength: float) -> float:
        moved = move(flow, values, strength)
        largest = 0.0
        for n, after in moved.items():
            extent = extents[n]
            if extent == 0:  # a parameter, or a constant field: relative to itself
                extent = max(float(values[n].abs().max()), 1e-12)
            largest = max(largest, float((after - values[n]).abs().max()) / extent)
        increasing = bool((moved["t"].diff(dim=0) > 0).all()) if moved["t"].shape[0] > 1 else True
        return largest if math.isfinite(largest) and increasing else math.inf

    low, high = 0.0, 1e-6
    while displacement(high) < DISPLACEMENT and high < 1e6:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if displacement(middle) < DISPLACEMENT else (low, middle)
    return low


def _panel(
    axes: Axes,
    algebra: SymmetryAlgebra,
    trajectory: Trajectories,
    moved: dict[str, Tensor],
    before: dict[str, Tensor],
    scale: tuple[float, float] | None,
) -> tuple[float, float]:
    """Draw one panel; returns the colour scale, which all panels share."""
    equation = algebra.equation
    held = [f for f in trajectory.field_names if f in equation.dependent]
    flat = len(trajectory.space) == 1
    across = equation.space[0]
    up = "t" if flat else equation.space[1]
    cut = (slice(None), slice(None)) if flat else (-1, slice(None), slice(None))
    vector = next(
        ([c for c in parts.values() if c in held] for parts in equation.vectors.values() if "" not in parts), []
    )
    scalars = [f for f in held if f not in vector]
    if flat or scalars or len(vector) < 2:
        colour = moved[(scalars or held)[0]][cut]
    else:
        colour = torch.stack([moved[c][cut] for c in vector]).square().sum(dim=0).sqrt()
    if scale is None:
        scale = (float(colour.min()), float(colour.max()))
    x, y, c = (np.asarray(v) for v in (moved[across][cut], moved[up][cut], colour))
    axes.pcolormesh(x, y, c, shading="gouraud", cmap="RdBu_r", vmin=scale[0], vmax=scale[1], rasterized=True)
    if not flat and len(vector) == 2:
        step = max(1, x.shape[0] // 12)
        thin = (slice(step // 2, None, step), slice(step // 2, None, step))
        arrows = [np.asarray(moved[f][cut])[thin] for f in vector]
        axes.quiver(x[thin], y[thin], *arrows, color="#1d2733", width=0.004)
    old = [np.asarray(before[n][cut]) for n in (across, up)]
    (left, right), (low, high) = ((float(o.min()), float(o.max())) for o in old)
    axes.plot([left, right, right, left, left], [low, low, high, high, low], "--", color="#52606d", linewidth=0.8)
    for limits, now, (start, end) in ((axes.set_xlim, x, (left, right)), (axes.set_ylim, y, (low, high))):
        start, end = min(start, float(now.min())), max(end, float(now.max()))
        limits(start - 0.03 * (end - start), end + 0.03 * (end - start))
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=7)
    if not flat:
        axes.set_aspect("equal")
    return scale
