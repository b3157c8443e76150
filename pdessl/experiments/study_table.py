"""The table of a study: variants in the order of their error, floors at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdessl.evaluation.tables import measured
from pdessl.experiments.study_jobs import FLOORS, SUPERVISED
from pdessl.written import markdown_cell, visible

__all__ = ["table"]


def table(results: Mapping[str, Any]) -> str:
    """Return the table of a study in Markdown, the floors at the end, and below it what could not be computed.

    Mean and standard error are over the seeds of a variant, each the mean over its labelled subsets; those of floors
    without a training are over the labelled subsets.

    Args:
        results: what :func:`study` returned.
    """
    if "table" in results:  # of time-steppers
        return str(results["table"])
    study, found = results["study"], results["results"]
    columns = list(study["labels"])
    lines: list[tuple[bool, float, list[str]]] = []
    for variant in dict.fromkeys(r["variant"] for r in found):
        mine = [r for r in found if r["variant"] == variant]
        good = [r for r in mine if "failed" not in r]
        floor = variant in (FLOORS, SUPERVISED)
        ends = _ends(good, len(mine))
        if not good:
            lines.append((floor, float("inf"), [_named(variant, floor), *["failed"] * len(columns), *ends]))
            continue
        for method in dict.fromkeys(row["method"] for r in good for row in r["rows"]):
            rows = [row for r in good for row in r["rows"] if row["method"] == method]
            name = rows[0]["title"] if floor else variant if method == "frozen" else f"{variant}, {rows[0]['title']}"
            cells, first = [], float("inf")
            for n in columns:
                at = [row["relative_error"] for row in rows if row["labels"] in (n, None)]
                # One job of several subsets, or a job per seed.
                values = at[0]["values"] if len(at) == 1 else [e["mean"] for e in at]
                cells.append(_with_error(values) if at else "-")
                first = min(first, sum(values) / len(values)) if at and n == columns[0] else first
            lines.append((floor, first, [_named(name, floor), *cells, *ends]))
    head = [study["target"], *(f"{n or 'all'} labels [%]" for n in columns), "rank of features", "s per seed"]
    rows = [head, *(cells for _, _, cells in sorted(lines, key=lambda line: line[:2]))]
    text = ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in rows]
    text.insert(1, "|" + "---|" * len(head))
    notes = list(dict.fromkeys(f"{r['variant']}: {note}" for r in found for note in r.get("notes", ())))
    notes += list(dict.fromkeys(f"{r['variant']}: {r['failed']}" for r in found if "failed" in r))
    return "\n".join([*text, *([""] if notes else []), *(f"* {visible(note)}" for note in notes)]) + "\n"


def _named(name: str, floor: bool) -> str:
    return f"*{name}*" if floor else name


def _ends(good: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    rank = [r["monitors"].get("monitor/features_rank_me") for r in good]
    rank = [r for r in rank if r is not None]
    seconds = [r["seconds"] for r in good]
    cells = [f"{sum(rank) / len(rank):.1f}" if rank else "", f"{sum(seconds) / len(seconds):.0f}" if seconds else ""]
    if len(good) < count:
        cells[-1] += f" ({count - len(good)} of {count} failed)"
    return cells


def _with_error(values: Sequence[float]) -> str:
    found = measured(values)
    return f"{found['mean']:.2f}" + ("" if found["standard_error"] is None else f" ± {found['standard_error']:.2f}")
