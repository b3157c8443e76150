"""The figures of a report: each function takes plain arrays and returns a matplotlib figure."""

# N samples, T frames, X points, D feature width

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "METHOD_COLOURS",
    "embedding_figure",
    "label_curve_figure",
    "law_figure",
    "predictions_figure",
    "principal_components",
    "rollout_figure",
    "svg",
    "training_figure",
    "views_figure",
]

# Okabe and Ito's palette, told apart also without colour vision: blue and green for ours, warm for the floors.
METHOD_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#56B4E9", "#8C6BB1", "#7F7F7F")
_INK = "#1d2733"
_STYLE: Any = {  # matplotlib types the keys one by one
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "pdessl",
    "svg.fonttype": "path",
}


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _styled(axes: Any, grid: bool = True) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(True)
        axes.set_axisbelow(True)
    return axes


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element, the same text every time, to put inside a page."""
    out = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(out, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _space_time(axes: Any, field: NDArray[Any], time: NDArray[Any], space: NDArray[Any], limit: float) -> Any:
    return axes.pcolormesh(
        space, time, field, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
    )


def law_figure(
    shown: ArrayLike,
    parameter: ArrayLike,
    name: str,
    shown_name: str,
    field: tuple[ArrayLike, ArrayLike, ArrayLike, str] | None = None,
    errors: Mapping[str, float] | None = None,
    labels: int | None = None,
    law: str = "",
) -> Figure:
    """Three panels: a run as observed, the code of every test run beside its parameter, errors of some methods.

    Args:
        shown: the code, or what is predicted, of test runs (N,).
        parameter: true values (N,).
        name: the parameter.
        shown_name: what ``shown`` is.
        field: values (T, X), times (T,), positions (X,) and a title; None leaves the panel out.
        errors: method -> relative error in %; fewer than two leave the panel out.
        labels: how many labels these had.
        law: title of the panel of the code.
    """
    x, y = np.asarray(parameter, dtype=float), np.asarray(shown, dtype=float)
    bars = errors or {}
    panels = 1 + (field is not None) + (len(bars) > 1)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(3.6 * panels + (0.8 if len(bars) > 1 else 0.0), 3.1)
        grid = list(figure.subplots(1, panels, squeeze=False).ravel())
        if field is not None:
            values, time, space, title = field
            axes = grid.pop(0)
            held = np.asarray(values)
            limit = float(np.abs(held).max()) or 1.0
            _space_time(axes, held, np.asarray(time), np.asarray(space), limit)
            axes.set(xlabel="x", ylabel="t", title=title)
        axes = _styled(grid.pop(0))
        logarithmic = bool((x > 0).all() and x.max() > 3 * x.min())
        low, high = (x.min() / 1.3, x.max() * 1.3) if logarithmic else (x.min(), x.max())
        kept = (y > 0) if logarithmic else np.ones(len(y), dtype=bool)
        # A code that is a coefficient of the equation, or a prediction, is compared with the parameter itself.
        if np.median(np.abs(y[kept] - x[kept])) < 0.5 * np.ptp(x):
            axes.plot([low, high], [low, high], color="#9aa5b1", lw=1)
        axes.plot(x[kept], y[kept], "o", ms=2.8, alpha=0.6, mew=0, color=METHOD_COLOURS[0])
        if logarithmic:
            axes.set(xscale="log", yscale="log")
            _plain_log_axis(axes.xaxis)
            _plain_log_axis(axes.yaxis)
        axes.set(xlabel=f"true {name} of {len(x)} test runs", ylabel=shown_name, title=law)
        if len(bars) > 1:
            axes = _styled(grid.pop(0))
            order = sorted(bars, key=lambda method: -bars[method])
            colours = [METHOD_COLOURS[0 if bars[m] == min(bars.values()) else 7] for m in order]
            axes.scatter([bars[m] for m in order], range(len(order)), c=colours, s=42, zorder=3)
            axes.set_yticks(range(len(order)), [textwrap.fill(m, 24) for m in order])
            for place, method in enumerate(order):
                axes.annotate(f"  {bars[method]:.2g}", (bars[method], place), va="center", fontsize=8.5)
            axes.set(xscale="log", xlabel="relative error, %", title=f"{name} from {labels} labels")
            axes.set_xlim(min(bars.values()) / 1.6, 2.6 * max(bars.values()))
            _plain_log_axis(axes.xaxis)
            axes.xaxis.set_major_locator(LogLocator())  # decades only: errors span several
    return figure


def views_figure(
    fields: Sequence[Sequence[ArrayLike]],
    times: Sequence[Sequence[ArrayLike]],
    spaces: Sequence[Sequence[ArrayLike]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    field_name: str = "u",
) -> Figure:
    """Space-time pictures: a row per trajectory, the trajectory first and then its augmented views.

    Args:
        fields: per row and column, values (T, X); sizes may differ between columns.
        times: per row and column, times (T,).
        spaces: per row and column, positions (X,).
        row_titles: one text per row, e.g. its viscosity.
        column_titles: one text per column.
        field_name: what the colours show.
    """
    rows, columns = len(fields), len(column_titles)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.5 * columns + 1.0, 2.1 * rows + 0.3)
        grid = figure.subplots(rows, columns, squeeze=False)
        for i, row in enumerate(fields):
            limit = float(max(np.abs(np.asarray(f)).max() for f in row)) or 1.0
            image: Any = None
            for j, field in enumerate(row):
                axes = grid[i, j]
                image = _space_time(axes, np.asarray(field), np.asarray(times[i][j]), np.asarray(spaces[i][j]), limit)
                axes.tick_params(length=2, labelsize=8)
                axes.set_xlabel("x" if i == rows - 1 else "")
                if i == 0:
                    axes.set_title(column_titles[j])
            grid[i, 0].set_ylabel(f"{row_titles[i]}\nt")
            figure.colorbar(image, ax=grid[i, :].tolist(), label=field_name, pad=0.01, aspect=18)
    return figure


def training_figure(history: Mapping[str, ArrayLike], width: int | None = None) -> Figure:
    """Training curves of a pretraining: the loss and its terms, the collapse monitor, and the online probe.

    Args:
        history: named curves over epochs. ``epoch`` gives the positions; names with ``std``, ``collapsed``
            and ``rank`` are monitors, names with ``probe`` or ``relative`` are of the online probe, all others
            of the loss.
        width: embedding width, drawn as the largest possible effective rank.
    """
    curves = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    epoch = curves.pop("epoch", None)
    groups: dict[str, list[str]] = {"loss": [], "std": [], "rank": [], "probe": []}
    for name in curves:
        if "probe" in name or "relative" in name:
            groups["probe"].append(name)
        elif "rank" in name.lower():
            groups["rank"].append(name)
        elif "std" in name or "collapsed" in name:
            groups["std"].append(name)
        else:
            groups["loss"].append(name)
    titles = {
        "loss": "objective and its terms",
        "std": "collapse monitor: standard deviation per dimension",
        "rank": "collapse monitor: effective rank (RankMe)",
        "probe": "online linear probe (no gradient to the encoder)",
    }
    shown = [group for group, names in groups.items() if names]
    with matplotlib.rc_context(_STYLE):
        figure = _figure(9.6, 2.7 * max((len(shown) + 1) // 2, 1))
        grid = figure.subplots(max((len(shown) + 1) // 2, 1), 2, squeeze=False).ravel()
        for axes, group in zip(grid, shown, strict=False):
            _styled(axes).set_title(titles[group])
            for i, name in enumerate(groups[group]):
                x = np.arange(1, len(curves[name]) + 1) if epoch is None else epoch[: len(curves[name])]
                keep = np.isfinite(curves[name])
                mark = "o" if keep.sum() == 1 else None
                axes.plot(x[keep], curves[name][keep], marker=mark, color=METHOD_COLOURS[i % 8], label=name)
            if group == "loss" and all((curves[n][np.isfinite(curves[n])] > 0).all() for n in groups[group]):
                axes.set_yscale("log")
            if group == "std":
                axes.axhline(1.0, color="#7F7F7F", lw=1, ls="--", label="target of VICReg")
                axes.set_ylim(bottom=0)
            if group == "rank" and width:
                axes.axhline(width, color="#7F7F7F", lw=1, ls="--", label=f"embedding width {width}")
                axes.set_ylim(bottom=0)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
    return figure


def _plain_log_axis(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def predictions_figure(true: ArrayLike, predicted: Mapping[str, ArrayLike], name: str = "viscosity") -> Figure:
    """Predicted against true parameter on the test set, one panel per method, logarithmic axes.

    Args:
        true: true values (N,), > 0.
        predicted: method -> predictions (N,). Those far outside the true range are not drawn; their number
            is written into the panel.
        name: the parameter.
    """
    true = np.asarray(true, dtype=float)
    count = len(predicted)
    columns = min(count, 3)
    rows = -(-count // columns)
    low, high = true.min() / 1.6, true.max() * 1.6
    with matplotlib.rc_context(_STYLE):
        figure = _figure(3.2 * columns, 3.1 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for i, (axes, (method, values)) in enumerate(zip(grid, predicted.items(), strict=False)):
            values = np.asarray(values, dtype=float)
            _styled(axes).set_title(method)
            axes.plot([low, high], [low, high], color="#9aa5b1", lw=1)
            inside = (values >= low) & (values <= high)
            axes.plot(true[inside], values[inside], "o", ms=2.6, alpha=0.55, mew=0, color=METHOD_COLOURS[i % 8])
            if not inside.all():
                axes.text(0.03, 0.97, f"{(~inside).sum()} outside", transform=axes.transAxes, va="top", fontsize=8)
            axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
            _plain_log_axis(axes.xaxis)
            _plain_log_axis(axes.yaxis)
            axes.tick_params(labelsize=8)
        for axes in grid[count:]:
            axes.set_visible(False)
        figure.supxlabel(f"true {name}", fontsize=9.5)
        figure.supylabel(f"predicted {name}", fontsize=9.5)
    return figure


def label_curve_figure(
    labels: Sequence[int],
    errors: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    unit: str = "relative error (%)",
) -> Figure:
    """Error against the number of labels, with standard errors.

    Args:
        labels: numbers of labelled runs.
        errors: method -> (means, standard errors), one per entry of ``labels``; NaN where a method was not run.
        unit: text of the vertical axis.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(7.4, 3.5)
        axes = _styled(figure.subplots())
        for i, (method, (means, deviations)) in enumerate(errors.items()):
            axes.errorbar(
                labels, means, yerr=deviations, marker="o", ms=4, capsize=3, color=METHOD_COLOURS[i % 8], label=method
            )
        axes.set(xscale="log", yscale="log", xlabel="labelled runs", ylabel=unit)
        axes.set_xticks(list(labels), [str(n) for n in labels])
        axes.minorticks_off()
        _plain_log_axis(axes.yaxis)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def principal_components(features: ArrayLike, count: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first principal components of centred features, and the share of the variance that each explains.

    Args:
        features: (N, D), N >= 2.
        count: number of components.

    The sign of a component is arbitrary; it is fixed so that the feature with the largest weight enters positively.
    """
    values = np.asarray(features, dtype=float)
    values = values - values.mean(axis=0)
    _, singular, directions = np.linalg.svd(values, full_matrices=False)
    directions = directions[:count]
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    share = singular**2 / max(float((singular**2).sum()), np.finfo(float).tiny)
    return values @ (directions * signs[:, None]).T, share[:count]


def embedding_figure(features: Mapping[str, ArrayLike], parameter: ArrayLike, name: str = "viscosity") -> Figure:
    """First two principal components of representations, coloured by a parameter (logarithmic scale).

    Args:
        features: encoder -> features (N, D).
        parameter: values (N,), > 0.
        name: the parameter.
    """
    colours = np.asarray(parameter, dtype=float)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(4.3 * len(features) + 0.8, 3.7)
        grid = figure.subplots(1, len(features), squeeze=False).ravel()
        points: Any = None
        for axes, (title, values) in zip(grid, features.items(), strict=True):
            components, share = principal_components(values)
            _styled(axes).set_title(title)
            axes.set_xlabel(f"first component ({100 * share[0]:.0f} % of the variance)")
            if len(share) > 1:
                axes.set_ylabel(f"second component ({100 * share[1]:.0f} %)")
            else:  # one number a run: the parameter itself is what it is worth looking at beside
                components = np.stack([components[:, 0], colours], axis=1)
                axes.set(ylabel=name, yscale="log")
            points = axes.scatter(*components.T, c=colours, s=9, cmap="viridis", norm="log", linewidths=0)
        bar = figure.colorbar(points, ax=grid.tolist(), label=name)
        _plain_log_axis(bar.ax.yaxis)
    return figure


def rollout_figure(
    time: ArrayLike,
    space: ArrayLike,
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    errors: Mapping[str, ArrayLike],
    title: str = "",
) -> Figure:
    """A rollout against the truth in space-time, and the error over time of every method on the whole test set.

    Args:
        time: times of the predicted frames (T,).
        space: positions (X,).
        truth: one trajectory (T, X).
        predictions: method -> (T, X) for that trajectory.
        errors: method -> NMSE per frame (T,), the mean over the test set.
        title: text over the truth, e.g. its viscosity.
    """
    time, space, truth = np.asarray(time), np.asarray(space), np.asarray(truth)
    limit = float(np.abs(truth).max()) or 1.0
    with matplotlib.rc_context(_STYLE):
        figure = _figure(9.6, 6.0)
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.0))
        upper, lower = halves
        grid = upper.subplots(1, 1 + len(predictions), sharey=True, squeeze=False)[0]
        image = _space_time(grid[0], truth, time, space, limit)
        grid[0].set_title(f"truth\n{title}".strip())
        grid[0].set_ylabel("t")
        for axes, (method, values) in zip(grid[1:], predictions.items(), strict=True):
            _space_time(axes, np.asarray(values), time, space, limit)
            axes.set_title(method)
        for axes in grid:
            axes.set_xlabel("x")
        upper.colorbar(image, ax=grid.tolist(), label="u", pad=0.01)
        axes = _styled(lower.subplots())
        for i, (method, values) in enumerate(errors.items()):
            axes.plot(time, np.asarray(values), color=METHOD_COLOURS[i % 8], label=method)
        axes.set(yscale="log", xlabel="t", ylabel="NMSE over the test set")
        lower.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure
