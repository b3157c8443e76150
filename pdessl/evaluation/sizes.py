"""Errors against the number of unlabelled runs and of labels: a table and a figure of two panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from pdessl.evaluation.plots import METHOD_COLOURS
from pdessl.evaluation.tables import measured
from pdessl.written import markdown_cell, visible

__all__ = ["sizes_figure", "sizes_table"]

Rows = Sequence[Mapping[str, Any]]


def sizes_table(rows: Rows) -> str:
    """Return the table in Markdown: a line per route and number of unlabelled runs, a column per number of labels.

    Args:
        rows: ``route``, ``runs`` (None where it sees none), ``labels``, ``seed``, ``error`` in %, ``seconds``; or
            ``refused`` in place of an error. Mean ± standard error are over seeds.
    """
    counts = sorted({r["labels"] for r in rows if "refused" not in r})
    lines = [["route", "unlabelled runs", *(f"{n} labels [%]" for n in counts), "CPU-s"]]
    for route, runs in dict.fromkeys((r["route"], r["runs"]) for r in rows):
        mine = [r for r in rows if (r["route"], r["runs"]) == (route, runs)]
        cells = []
        for n in counts:
            errors = [r["error"] for r in mine if r["labels"] == n]
            found = measured(errors) if errors else None
            spread = found and found["standard_error"]
            cells.append("-" if found is None else f"{found['mean']:.2f}" + (f" ± {spread:.2f}" if spread else ""))
        spent = max(r["seconds"] for r in mine)
        lines.append([route, "none" if runs is None else f"{runs:,}", *cells, f"{spent:.0f}"])
    text = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(lines[0]))
    notes = [f"* {r['route']}, {r['runs']} runs: {visible(r['refused'])}" for r in rows if "refused" in r]
    return "\n".join([*text, *([""] if notes else []), *dict.fromkeys(notes)]) + "\n"


def sizes_figure(rows: Rows) -> Figure | None:
    """Return errors against unlabelled runs (at the fewest and most labels) and against labels (at the most runs).

    Both axes are logarithmic. Routes that see no unlabelled run are level lines of the first panels, dashed.

    Args:
        rows: as of :func:`sizes_table`.

    Returns:
        None where no row has an error.
    """
    good = [r for r in rows if "refused" not in r]
    if not good:
        return None
    labels = sorted({r["labels"] for r in good})
    ends = list(dict.fromkeys((labels[0], labels[-1])))
    routes = list(dict.fromkeys(r["route"] for r in good))
    colours = {route: METHOD_COLOURS[i % len(METHOD_COLOURS)] for i, route in enumerate(routes)}
    with rc_context({"font.size": 9, "svg.hashsalt": "pdessl", "legend.frameon": False}):
        figure = Figure(figsize=(3.1 * (len(ends) + 1) + 2.2, 3.4), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(ends) + 1, sharey=True, squeeze=False)[0]
        for axes, n in zip(panels, ends, strict=False):
            for route in routes:
                mine = [r for r in good if r["route"] == route and r["labels"] == n]
                if mine and mine[0]["runs"] is None:
                    axes.axhline(measured([r["error"] for r in mine])["mean"], ls="--", color=colours[route])
                else:
                    _curve(axes, mine, "runs", colours[route])
            axes.set_title(f"{n} labels")
            _logarithmic(axes, "unlabelled runs", sorted({r["runs"] for r in good if r["runs"] is not None}))
        for route in routes:
            mine = [r for r in good if r["route"] == route]
            most = max((r["runs"] for r in mine if r["runs"] is not None), default=None)
            style = "-" if most is not None else "--"
            _curve(panels[-1], [r for r in mine if r["runs"] == most], "labels", colours[route], route, style)
        panels[-1].set_title("most unlabelled runs")
        _logarithmic(panels[-1], "labels", labels)
        panels[0].set_ylabel("relative error (%)")
        panels[0].yaxis.set_major_formatter(ScalarFormatter())
        panels[0].yaxis.set_minor_formatter(NullFormatter())
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right center")
    return figure


def _curve(axes: Any, rows: Rows, key: str, colour: str, label: str | None = None, style: str = "-") -> None:
    """Draw mean errors with standard errors against ``key``."""
    places = sorted({r[key] for r in rows})
    found = [measured([r["error"] for r in rows if r[key] == x]) for x in places]
    half = [f["standard_error"] or 0.0 for f in found]
    axes.errorbar(
        places, [f["mean"] for f in found], yerr=half, marker="o", ms=4, capsize=3, color=colour, ls=style, label=label
    )


def _logarithmic(axes: Any, label: str, places: Sequence[int]) -> None:
    axes.set(xscale="log", yscale="log", xlabel=label)
    axes.set_xticks(list(places), [f"{n:,}" for n in places], rotation=30)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e4e7eb")
