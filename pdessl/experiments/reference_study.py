"""The reference paper's table as a study: four equations, each with its floors, supervised and pretrained networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdessl.data import generate
from pdessl.errors import SchemaError
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.experiments.processes import spread
from pdessl.experiments.reference_jobs import FLOORS, RANDOM, SUPERVISED, TableJob, TableTask, run_job
from pdessl.experiments.study_files import heading, kept_rows, origin, write_results
from pdessl.experiments.variant_names import check_files, check_names
from pdessl.schema import Count, fill, merge
from pdessl.written import markdown_cell, say, visible

__all__ = ["Table", "reference_study", "reference_table"]

_KEYS = {"title", "about", "parts", "table", "tasks"}
_METRICS = {"nmse": "NMSE", "relative": "error, %", "mse": "MSE"}


@dataclass(frozen=True)
class Table:
    """How the table is made.

    Args:
        seeds: of weights, batches and views.
        estimate: what it takes, in words; said before it starts.
    """

    seeds: Count = 3
    estimate: str = ""


def reference_study(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = say,
    any_version: bool = False,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the table; rows that a former call finished are not computed again.

    Args:
        content: recipe: ``table`` (see :class:`Table`) and ``tasks`` (name -> :class:`TableTask`).
        config: its name, for messages.
        out: folder; holds ``rows/``, ``data/``, ``trained/``, ``results.json`` and ``table.md``.
        only: names of tasks; default all.
        workers: processes of one thread each.
        announce: receives the estimate, and a line after every job.
        any_version: keep rows that another version of pdessl, torch or NumPy computed.
        allow: packages of your own that the recipe may name classes of.

    Raises:
        SchemaError: unknown keys or tasks, or values out of range.
        StoreError: the folder holds rows of another version.
    """
    unknown, given = set(content) - _KEYS, content.get("tasks") or {}
    if unknown or not given:
        raise SchemaError(f"{config}: expected the keys {', '.join(sorted(_KEYS))}, found {', '.join(content)}.")
    missing = [n for n in only if n not in given]
    if missing:
        raise SchemaError(f"{config} has no task '{missing[0]}'. Tasks: {', '.join(given)}.")
    check_names(given, config)
    settings = fill(Table, content.get("table") or {}, f"{config}: table")
    tasks = {
        name: fill(TableTask, value, f"{config}: tasks.{name}")
        for name, value in given.items()
        if value is not None and (not only or name in only)
    }
    for name, task in tasks.items():
        check_names(task.variants, f"{config}: tasks.{name}", (FLOORS, RANDOM, SUPERVISED))
        for variant, changes in task.variants.items():
            check_allowed(merge(task.base, changes or {}), allow, f"{config}: {name}, {variant}")
    if settings.estimate:
        announce(" ".join(settings.estimate.split()))
    started = time.monotonic()
    jobs = [
        TableJob(name, task, group, seed, str(out.resolve()), task.recipe().hash)
        for name, task in tasks.items()
        for seed in range(settings.seeds)
        for group in task.groups(seed)
    ]
    check_files(((job.path.name, job.hash) for job in jobs), config)
    found = {j.path: kept for j in jobs if (kept := kept_rows(j.path, j.hash, _readable, any_version)) is not None}
    todo = [job for job in jobs if job.path not in found]
    for name in dict.fromkeys(job.task_name for job in todo):  # once, before processes ask for it at the same time
        generate(tasks[name].recipe(), out / "data" / name, resume=True, progress=False)
    for job, rows in zip(todo, spread(run_job, todo, workers), strict=True):
        found[job.path] = rows
        announce("; ".join(map(_line, rows)))
    rows = [row for job in jobs for row in found[job.path]]
    published = {n: {m: vars(p) for m, p in task.published.items()} for n, task in tasks.items()}
    table = reference_table(rows, published)
    results = {
        **heading(content, config),
        "table1": {"seeds": settings.seeds, "estimate": settings.estimate},
        "published": published,
        "results": rows,
        "table": table,
        **origin(workers, started),
    }
    write_results(out, results, table)
    return results


def _readable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise whatever the damage of a file of rows leads to."""
    for row in rows:
        _line(row)
    reference_table(rows, {})


def _line(row: Mapping[str, Any]) -> str:
    start = f"{row['task']}, {row['method']}, seed {row['seed']}"
    if "refused" in row:
        return f"{start}: cannot: {row['refused']}"
    besides = f" (besides {row['besides']:.3g})" if "besides" in row else ""
    return f"{start}: {_METRICS[row['metric']]} {row['error']:.3g}{besides} ({row['seconds']:.0f} s)"


def reference_table(rows: Sequence[Mapping[str, Any]], published: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return one table per task in Markdown: ours as mean ± standard error over seeds, and what was published beside.

    Args:
        rows: of :func:`reference_study`.
        published: task -> method -> ``mean``, ``error``, ``note``.
    """
    parts = []
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        theirs = published.get(task, {})
        metric = _METRICS[mine[0]["metric"]]
        besides = any("besides" in r for r in mine)
        head = ["method", metric, *(["of the invariant powers"] if besides else []), "published", "CPU-s"]
        lines, notes = [head], []
        for method in dict.fromkeys(r["method"] for r in mine):
            own = [r for r in mine if r["method"] == method]
            good = [r for r in own if "refused" not in r]
            cells = [_mean([r["error"] for r in good])]
            if besides:
                cells.append(_mean([r["besides"] for r in good if "besides" in r]))
            spent = f"{statistics.mean(r['seconds'] for r in own):.0f}"
            lines.append([method, *cells, _published(theirs.get(method)), spent])
            notes += [f"{method}: {r['refused']}" for r in own if "refused" in r]
        notes += [f"{method}: {p['note']}" for method, p in theirs.items() if p.get("note")]
        text = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in lines]
        text.insert(1, "|" + "---|" * len(head))
        parts.append(f"**{visible(task)}**\n\n" + "\n".join(text) + "\n")
        if notes:
            parts.append("\n".join(f"* {visible(note)}" for note in dict.fromkeys(notes)) + "\n")
    return "\n".join(parts)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3g}{spread}"


def _published(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:g}" + (f" ± {found['error']:g}" if found.get("error") is not None else "")
