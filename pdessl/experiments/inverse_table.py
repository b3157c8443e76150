"""The tables of an inverse benchmark: a route per line, place and frames per column, means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from pdessl.experiments.inverse_sets import PLACES
from pdessl.written import markdown_cell, visible

__all__ = ["inverse_table"]


def inverse_table(rows: Sequence[dict[str, Any]], value: str = "error") -> str:
    """Return one table per set, noise and degradation in Markdown, in per cent.

    Cells have the mean over seeds at every place, divided by strokes: in distribution / middle / extreme.

    Args:
        rows: of :func:`pdessl.experiments.inverse_study.inverse_study`.
        value: what is shown: ``error``, ``inside``, ``novel`` or ``width``.
    """
    parts = []
    names = list(dict.fromkeys(r["set"] for r in rows))
    seen = {(names.index(r["set"]), r.get("degraded", ""), r["noise"]) for r in rows}
    for place, degraded, noise in sorted(seen):
        name = names[place]
        mine = [r for r in rows if (r["set"], r["noise"], r.get("degraded", "")) == (name, noise, degraded)]
        frames = sorted({r["frames"] for r in mine})
        lines = []
        for route, labels in dict.fromkeys((r["route"], r["labels"]) for r in mine):
            cells = [_cell([r for r in mine if (r["route"], r["labels"], r["frames"]) == (route, labels, t)], value)
                     for t in frames]  # fmt: skip
            given = "none" if labels is None else str(labels or "all")
            lines.append([route, given, *cells])
        head = ["route", "labels", *(f"{t} frames" for t in frames)]
        table = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in [head, *lines]]
        table.insert(1, "|" + "---|" * len(head))
        seen_as = f"noise {100 * noise:g} %" + (f", {visible(degraded)}" if degraded else "")
        parts.append(f"**{visible(name)}, {seen_as}**\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def _cell(rows: Sequence[dict[str, Any]], value: str) -> str:
    good = [r for r in rows if "refused" not in r and all(value in r["places"][p] for p in PLACES)]
    if not good:
        return "cannot" if any("refused" in r for r in rows) else "-"
    means = [statistics.mean(r["places"][p][value] for r in good) for p in PLACES]
    return " / ".join(f"{m:.3g}" for m in means)
