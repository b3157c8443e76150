"""How errors fall with unlabelled runs and with labels: a law, networks with and without groups, and none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pdessl.data import generate
from pdessl.data import open as open_data
from pdessl.data.identity import identity
from pdessl.errors import SchemaError, StoreError
from pdessl.evaluation.plots import svg
from pdessl.evaluation.sizes import sizes_figure, sizes_table
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.experiments.processes import spread
from pdessl.experiments.size_jobs import FLOORS, LAW, SUPERVISED, SizeJob, Sizes, run_job
from pdessl.experiments.study_files import heading, kept_rows, origin, write_results
from pdessl.experiments.variant_names import check_names
from pdessl.files import write_text
from pdessl.schema import fill, merge
from pdessl.written import say

__all__ = ["size_study"]

_KEYS = {"title", "about", "parts", "sizes", "base", "variants"}


def size_study(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    only: Sequence[str] = (),
    workers: Any = 1,
    announce: Callable[[str], None] = say,
    any_version: bool = False,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the study; rows that a former call finished are not computed again.

    Args:
        content: recipe: ``sizes`` (see :class:`pdessl.experiments.size_jobs.Sizes`), ``base`` (what pretraining recipes
            share) and ``variants`` (name -> what is laid over it; ``data: {grouped: file}`` where groups are recorded).
        config: its name, for messages.
        out: folder; holds ``data/`` where the recipe names a dataset, ``rows/``, ``trained/``, ``results.json``,
            ``table.md`` and ``sizes.svg``.
        only: names of variants, ``law``, or ``supervised from scratch``; default all. Floors are always run.
        workers: processes of one thread each, or a cluster.
        announce: receives a line after every job.
        any_version: keep rows that another version of pdessl, torch or NumPy computed.
        allow: packages of your own that the recipe may name classes of.

    Raises:
        SchemaError: unknown keys or routes, values out of range, or more runs than the store has.
        StoreError: no store at ``base.data.path``, or rows of another version.
    """
    unknown, variants = set(content) - _KEYS, content.get("variants") or {}
    if unknown or "base" not in content:
        raise SchemaError(f"{config}: expected the keys {', '.join(sorted(_KEYS))}, found {', '.join(content)}.")
    settings = fill(Sizes, content.get("sizes") or {}, f"{config}: sizes")
    check_names(variants, config, (FLOORS, LAW, SUPERVISED))
    own = ([LAW] if settings.law else []) + ([SUPERVISED] if settings.supervised is not None else [])
    missing = [n for n in only if n not in (*own, *variants)]
    if missing:
        raise SchemaError(f"{config} has no route '{missing[0]}'. Routes: {', '.join([*own, *variants])}.")
    base = dict(content["base"])
    for name, changes in variants.items():
        check_allowed(merge(base, changes or {}), allow, f"{config}: {name}")
    cut = [n for n in ("fields", "stride", "crop", "paths") if base.get("data", {}).get(n) not in (None, 1)]
    if settings.law and cut:
        raise SchemaError(f"{config}: a law reads whole runs, base.data.{cut[0]} does not; set sizes.law=false.")
    started = time.monotonic()
    path = _data(settings, base, out, config)
    source = open_data(path)
    there = source.splits.get("unlabelled", 0)
    if max(settings.runs) > there:
        raise SchemaError(f"{config}: sizes.runs asks for {max(settings.runs)}, the store has {there} unlabelled runs.")
    base = merge(base, {"data": {"path": str(path)}})
    jobs = _jobs(settings, base, variants, only, identity(source), str(out.resolve()), tuple(allow))
    found = {j.path: kept for j in jobs if (kept := kept_rows(j.path, j.hash, _readable, any_version)) is not None}
    todo = [job for job in jobs if job.path not in found]
    for job, rows in zip(todo, spread(run_job, todo, workers), strict=True):
        found[job.path] = rows
        announce(_line(rows))
    rows = [row for job in jobs for row in found[job.path]]
    results = {
        **heading(content, config),
        "target": settings.target,
        "rows": rows,
        "store": {"dataset": source.name, "hash": identity(source), "splits": source.splits},
        "table": sizes_table(rows),
        **origin(workers, started),
    }
    write_results(out, results, results["table"])
    figure = sizes_figure(rows)
    if figure is not None:
        write_text(out / "sizes.svg", svg(figure))
    return results


def _data(settings: Sizes, base: Mapping[str, Any], out: Path, config: str) -> Path:
    """Return the path of the store, generated where the recipe names a dataset."""
    given = base.get("data", {}).get("path")
    if given is None:
        generate(settings.recipe(), out / "data", resume=True, progress=False)
        return (out / "data").resolve()
    if not Path(given).exists():
        raise StoreError(f"{config}: no store at base.data.path ({given}). Generate it, or leave the path out.")
    return Path(given).resolve()


def _jobs(
    s: Sizes,
    base: dict[str, Any],
    variants: Mapping[str, Any],
    only: Sequence[str],
    data: str,
    folder: str,
    allow: tuple[str, ...],
) -> list[SizeJob]:
    def job(route: str, runs: int | None, seed: int | None, recipe: dict[str, Any]) -> SizeJob:
        return SizeJob(route, runs, seed, s, recipe, data, folder, allow)

    def wanted(route: str) -> bool:
        return not only or route in only

    jobs = [job(FLOORS, None, None, base)] if s.floors else []
    if s.law and wanted(LAW):
        jobs += [job(LAW, runs, None, {"data": base["data"]}) for runs in s.runs]
    if s.supervised is not None and wanted(SUPERVISED):
        jobs += [job(SUPERVISED, None, seed, base) for seed in range(s.seeds)]
    return jobs + [
        job(name, runs, seed, merge(base, changes or {}))
        for name, changes in variants.items()
        if wanted(name)
        for runs in s.runs
        for seed in range(s.seeds)
    ]


def _readable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise whatever the damage of a file of rows leads to."""
    _line(rows)
    sizes_table(rows)


def _line(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    of = "" if first["runs"] is None else f", {first['runs']} runs"
    seed = "" if first["seed"] is None or len({r["seed"] for r in rows}) > 1 else f", seed {first['seed']}"
    if "refused" in first:
        return f"{first['route']}{of}{seed}: cannot: {first['refused']}"
    said = ", ".join(f"{r['labels']} labels {r['error']:.2f} %" for r in rows if r["seed"] == first["seed"])
    return f"{first['route']}{of}{seed}: {said} ({first['seconds']:.0f} s)"
