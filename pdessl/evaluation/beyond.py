"""Sections of a report on how far predictions can be trusted: intervals, calibration, runs unlike those of training.

``intervals``: ``rows`` (``runs``, ``kind``, ``title``, ``level``, ``share``, ``expected``, ``median_relative_width``,
``spread_of_widths``) and ``reliability`` (``levels``, ``measured`` by kind, ``count``, ``calibrated_on``).
``robustness``: ``labels`` and ``rows`` (``runs``, ``title``, ``relative_error``, ``nmse``).
``elsewhere``: ``level`` and ``rows``, those of :func:`pdessl.inference.elsewhere.measured_elsewhere`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdessl.evaluation.intervals import share_by_chance
from pdessl.evaluation.plots import METHOD_COLOURS, svg

__all__ = ["elsewhere_section", "intervals_section", "reliability_figure", "robustness_section"]


def reliability_figure(
    levels: Sequence[float], measured: Mapping[str, Sequence[float]], count: int, calibrated_on: int | None = None
) -> Figure:
    """Draw measured against promised coverage, with the band that chance allows a perfect rule.

    Args:
        levels: promised coverage.
        measured: kind of interval -> measured share at every level.
        count: runs it was measured on.
        calibrated_on: runs of a split conformal calibration.
    """
    nominal = np.asarray(levels, dtype=float)
    low, high = np.array([share_by_chance(level, count, calibrated_on) for level in levels]).T
    with matplotlib.rc_context({"font.size": 9.5, "legend.frameon": False, "svg.hashsalt": "pdessl"}):
        figure = Figure(figsize=(4.6, 4.0), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.fill_between(nominal, low, high, color="#e4e7eb", label="95 % of perfect rules")
        axes.plot([0, 1], [0, 1], color="#9aa5b1", lw=1)
        for i, (kind, shares) in enumerate(measured.items()):
            axes.plot(nominal, shares, "o-", ms=4, color=METHOD_COLOURS[i % 8], label=kind)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="promised coverage", ylabel="measured coverage")
        axes.legend(loc="upper left")
    return figure


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody>'
        f"<caption>{html.escape(caption)}</caption></table></div>"
    )


def intervals_section(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the table of coverage and the calibration plot."""
    section = report["intervals"]
    rows = [
        [
            row["runs"],
            row["title"],
            f"{100 * row['share']:.1f}",
            f"{100 * row['expected'][0]:.1f} to {100 * row['expected'][1]:.1f}",
            f"{row['median_relative_width']:.3g}",
            f"{row['spread_of_widths']:.2g}",
        ]
        for row in section["rows"]
    ]
    level, curve = section["rows"][0]["level"], section["reliability"]
    head = ["test runs", "interval", "covered, %", "by chance, %", "median width, % of truth", "90th/10th width"]
    caption = (
        f"Intervals at level {level:g} around the frozen encoder's ridge, calibrated on {curve['calibrated_on']} "
        "validation runs. By chance: where the share of a rule that keeps its promise lies 19 times in 20, over draws "
        "of these and of the test runs. The promise is for runs like those of calibration; on others it is measured, "
        "not kept."
    )
    figure = reliability_figure(curve["levels"], curve["measured"], curve["count"], curve["calibrated_on"])
    caption_of_plot = "Promised and measured coverage on the test runs."
    return (
        f"<h2>Intervals</h2>{_table(head, rows, caption)}"
        f"<figure>{svg(figure)}<figcaption>{caption_of_plot}</figcaption></figure>"
    )


def robustness_section(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the table of errors on runs unlike those of training: a row per method, a column per kind of runs."""
    section = report["robustness"]
    kinds = list(dict.fromkeys(row["runs"] for row in section["rows"]))
    cells = {(row["title"], row["runs"]): f"{row['relative_error']:.3g}" for row in section["rows"]}
    titles = list(dict.fromkeys(row["title"] for row in section["rows"]))
    rows = [[title, *(cells.get((title, kind), "–") for kind in kinds)] for title in titles]
    caption = (
        f"Relative error in % at {section['labels']} labels, first seed, on test runs unlike the labelled ones; "
        "nothing is fitted again. –: the method does not read such runs; the notes say why."
    )
    return f"<h2>Runs unlike those of training</h2>{_table(['method', *kinds], rows, caption)}"


def elsewhere_section(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the table of what the saved model makes of runs unlike those of training."""
    section = report["elsewhere"]
    rows = []
    for name, row in section["rows"].items():
        if "refused" in row:
            rows.append([name, "–", "–", "refused", "–"])
            continue
        errors, shares = (", ".join(form(v) for v in row[kind].values()) or "–" for kind, form in _FORMS.items())
        area = f"{row['area']:.2f}" if "area" in row else "–"
        rows.append([name, errors, shares, f"{100 * row['novel']:.0f}", area])
    head = ["runs", "relative error, %", "in its interval, %", "flagged, %", "AUROC of novelty"]
    caption = (
        f"The saved model, intervals at level {section['level']:g}. AUROC: how often the novelty of such a run is "
        "above that of a run as in training (0.5 is chance). Runs without the parameter have no error."
    )
    return f"<h2>The saved model on other runs</h2>{_table(head, rows, caption)}"


_FORMS = {"error": "{:.3g}".format, "coverage": lambda share: f"{100 * share:.0f}"}
