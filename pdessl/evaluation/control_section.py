"""A report's section on control: costs beside their floors, fields with and without control, the amplitudes."""

# T control periods, X grid points, A actuators

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pdessl.evaluation.plots import METHOD_COLOURS, svg

__all__ = ["control_figure", "control_section", "dream_figure"]


def control_figure(
    time: ArrayLike,
    space: ArrayLike,
    fields: Mapping[str, ArrayLike],
    actions: Mapping[str, ArrayLike],
    costs: Mapping[str, ArrayLike],
    imagined: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Space-time pictures of one episode and its amplitudes, and the mean cost over time of every controller.

    Args:
        time: of the states, the start included (T + 1,).
        space: positions (X,).
        fields: title -> (T + 1, X).
        actions: the same titles -> amplitudes (T, A).
        costs: title -> cost of each period (T,), the mean over episodes.
        imagined: title of a learned model -> its relative error k periods ahead (H,).
    """
    time, space = np.asarray(time), np.asarray(space)
    shown = {title: np.asarray(values) for title, values in fields.items()}
    limit = max(float(np.abs(values).max()) for values in shown.values()) or 1.0
    figure = Figure(figsize=(9.6, 7.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.6, 1.0))
    grid = parts[0].subplots(2, len(shown), sharex=True, squeeze=False, height_ratios=(2.0, 1.0))
    for column, (title, field) in enumerate(shown.items()):
        above, below = grid[:, column]
        image = above.pcolormesh(
            time, space, field.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
        )
        above.set_title(title)
        below.step(time, np.concatenate([np.asarray(actions[title])[:1], np.asarray(actions[title])]), linewidth=0.8)
        below.set_xlabel("t")
    grid[0, 0].set_ylabel("x")
    grid[1, 0].set_ylabel("amplitudes")
    parts[0].colorbar(image, ax=grid[0].tolist(), label="u", pad=0.01)
    axes, *beside = parts[1].subplots(
        1, 2 if imagined else 1, squeeze=False, width_ratios=(3, 1)[: 2 if imagined else 1]
    )[0]
    for title, values in (imagined or {}).items():
        ahead = np.asarray(values)
        beside[0].semilogy(np.arange(1, len(ahead) + 1), ahead.clip(1e-16), label=title)
        beside[0].set(xlabel="periods ahead", ylabel="imagined against real")
        beside[0].spines[["top", "right"]].set_visible(False)
    for i, (title, values) in enumerate(costs.items()):
        axes.plot(time[1:], np.asarray(values), color=METHOD_COLOURS[i % len(METHOD_COLOURS)], label=title)
    axes.set(xlabel="t", ylabel="cost of a period")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False)
    return figure


def dream_figure(time: ArrayLike, space: ArrayLike, dreams: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Space-time pictures of imagined fields, of what came, and of their difference, a row per model.

    Args:
        time: of the states, at least the first H + 1.
        space: positions (X,).
        dreams: title -> imagined and real field, both (H + 1, X).
    """
    figure = Figure(figsize=(9.6, 2.4 * len(dreams)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(dreams), 3, sharex=True, sharey=True, squeeze=False)
    for row, (title, (dreamed, came)) in zip(grid, dreams.items(), strict=True):
        imagined, real = np.asarray(dreamed), np.asarray(came)
        limit = float(np.abs(real).max()) or 1.0
        for axes, field, name in zip(
            row, (imagined, real, imagined - real), (f"imagined: {title}", "real", "difference"), strict=True
        ):
            image = axes.pcolormesh(
                np.asarray(time)[: len(real)], np.asarray(space), field.T, cmap="RdBu_r", vmin=-limit, vmax=limit,
                shading="nearest", rasterized=True,
            )  # fmt: skip
            axes.set_title(name, fontsize="medium")
        row[0].set_ylabel("x")
        figure.colorbar(image, ax=row.tolist(), label="u", pad=0.01)
    for axes in grid[-1]:
        axes.set_xlabel("t")
    return figure


def control_section(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the section as HTML."""
    section = report["control"]
    body = "".join(
        f"<tr><td>{html.escape(row['title'])}</td><td>{_measured(row['mean_cost'])}</td>"
        f"<td>{_share(row['gain'])}</td><td>{_share(row.get('settled'))}</td><td>{row['milliseconds']:.3g}</td><td>{_share(row['fallbacks'])}</td>"
        f"<td>{'–' if row['breaches'] is None else row['breaches']}</td>"
        f"<td>{'–' if row.get('training_periods') is None else row['training_periods']}</td></tr>"
        for row in section["rows"]
    )
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "controller",
            "mean cost",
            "of the best gain, %",
            "settled, %",
            "ms an action",
            "fallback, %",
            "limits passed",
            "periods learned from",
        )
    )
    caption = (
        f"Mean cost of a control period ± standard error over {section['episodes']} episodes of {section['steps']} "
        "periods. The gain is over no control; the best one is that of the row with the least cost. Settled: episodes "
        "whose last tenth costs less than a tenth of what it costs without control. Limits passed: periods of all "
        "episodes."
    )
    table = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><caption>{html.escape(caption)}</caption></table>"
    )
    titles = {row["key"]: row["title"] for row in section["rows"]}
    picture = control_figure(
        arrays["control/time"],
        arrays["control/space"],
        {titles[key]: arrays[f"control/field/{key}"] for key in section["shown"]},
        {titles[key]: arrays[f"control/actions/{key}"] for key in section["shown"]},
        {title: arrays[f"control/cost/{key}"] for key, title in titles.items()},
        {
            titles[key.rsplit("/", 1)[-1]]: values
            for key, values in arrays.items()
            if key.startswith("control/imagined/")
        },
    )
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in section["notes"])
    words = (
        "The first episode in space and time, the amplitudes in it, and the mean cost of all episodes over time. Where "
        "a model was learned: the error of what it imagines under random amplitudes, over the mean square of the field."
    )
    shown = f'{notes}<div class="scroll">{table}</div><figure>{svg(picture)}<figcaption>{words}</figcaption></figure>'
    dreams = {
        titles[key]: (arrays[f"control/dreamed/{key}"], arrays[f"control/came/{key}"])
        for key in titles
        if f"control/dreamed/{key}" in arrays
    }
    if not dreams:
        return shown
    picture = dream_figure(arrays["control/time"], arrays["control/space"], dreams)
    words = (
        "What each model imagines of the first episode from its start on, under the amplitudes that were executed, as "
        "a field that is read from it; what came of them; the difference."
    )
    return f"{shown}<figure>{svg(picture)}<figcaption>{words}</figcaption></figure>"


def _measured(value: Mapping[str, Any]) -> str:
    error = value["standard_error"]
    return f"{value['mean']:.4g}" + ("" if error is None else f' <span class="pm">± {error:.2g}</span>')


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"
