"""The table of a study: variants in the order of their error, floors at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FLOORS", "table"]

FLOORS = ("random encoder", "supervised from scratch")


def table(results: Mapping[str, Any]) -> str:
    """Return the table of a study in Markdown: mean and standard error over seeds, the floors at the end.

    Args:
        results: what :func:`run_study` returned.
    """
    study, rows = results["study"], results["results"]
    names = list(dict.fromkeys(r["variant"] for r in rows))
    columns = [str(n) for n in study["labels"]]
    scored = []
    for name in names:
        mine = [r for r in rows if r["variant"] == name]
        good = [r for r in mine if "failed" not in r]
        cells = []
        for n in columns:
            per_seed = [sum(r["relative_error"][n]) / len(r["relative_error"][n]) for r in good]
            cells.append(_with_error(per_seed) if per_seed else "failed")
        first = [sum(r["relative_error"][columns[0]]) / len(r["relative_error"][columns[0]]) for r in good]
        rank = [r["monitors"].get("monitor/features_rank_me") for r in good]
        rank = [r for r in rank if r is not None]
        seconds = [r["seconds"] for r in good]
        cells.append(f"{sum(rank) / len(rank):.1f}" if rank else "")
        cells.append(f"{sum(seconds) / len(seconds):.0f}" if seconds else "")
        if len(good) < len(mine):
            cells[-1] += f" ({len(mine) - len(good)} of {len(mine)} failed)"
        scored.append((name in FLOORS, sum(first) / len(first) if first else float("inf"), name, cells))
    head = [study["target"], *(f"{n} labels [%]" for n in columns), "rank of features", "s per seed"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for floor, _, name, cells in sorted(scored, key=lambda s: (s[0], s[1])):
        lines.append("| " + " | ".join([f"*{name}*" if floor else name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _with_error(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
    return f"{mean:.2f} ± {spread:.2f}"
