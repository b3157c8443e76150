"""An inverse benchmark as a study: every route on every set, window, noise and number of labels, a file per row."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdessl.errors import SchemaError, StoreError, did_you_mean
from pdessl.experiments.inverse_degradation import Degradation
from pdessl.experiments.inverse_routes import LABELLED, Route
from pdessl.experiments.inverse_rows import Case, compute
from pdessl.experiments.inverse_sets import Held, InverseSet, folder_of
from pdessl.experiments.inverse_table import inverse_table
from pdessl.experiments.processes import spread
from pdessl.experiments.provenance import check_same_version
from pdessl.experiments.study_files import heading, origin, write_results
from pdessl.experiments.variant_names import check_files, check_names
from pdessl.files import write_json
from pdessl.schema import Count, Natural, Share, Size, fill
from pdessl.written import say

__all__ = ["Inverse", "inverse_study", "rerun"]

_KEYS = {"title", "about", "inverse", "sets", "routes"}
_TOLERANCE = 1e-3  # relative: another processor adds in another order, and trainings amplify it


@dataclass(frozen=True)
class Inverse:
    """The cases that all routes are run in.

    Args:
        windows: frames of a window.
        noise: standard deviations of white noise over that of the fields.
        labels: labelled training runs; 0 for all.
        seeds: of windows, noise, choice of labels and weights.
        level: of intervals.
        false_alarms: share of runs in distribution that may be flagged as novel.
        degradations: name -> what else is done to frames; each is run with the least noise.
    """

    windows: tuple[Count, ...] = (2, 5, 10, 25)
    noise: tuple[Natural, ...] = (0.0, 0.01, 0.05)
    labels: tuple[Size, ...] = (16, 64, 0)
    seeds: Count = 3
    level: Share = 0.9
    false_alarms: Share = 0.01
    degradations: dict[str, Degradation] = field(default_factory=dict)

    def instruments(self, route: Route) -> list[tuple[float, str, Degradation]]:
        """Return noise, name and degradation of every way in which a route sees frames."""
        names = self.degradations if route.degradations is None else route.degradations
        noise = self.noise if route.noise is None else route.noise
        return [
            *((level, "", Degradation()) for level in noise),
            *((min(noise), name, self.degradations[name]) for name in names),
        ]


def inverse_study(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = say,
    any_version: bool = False,
) -> dict[str, Any]:
    """Run an inverse benchmark; rows that a former call finished are not computed again.

    Args:
        content: recipe: ``inverse`` (see :class:`Inverse`), ``sets`` (name -> :class:`InverseSet`) and ``routes``
            (name -> :class:`Route`).
        config: its name, for messages.
        out: folder; holds ``rows/`` with a file per row, ``data/``, ``results.json`` and ``table.md``.
        only: names of routes; default all.
        workers: processes of one thread each.
        announce: receives a line after every row.
        any_version: keep rows that another version of pdessl, torch or NumPy computed.

    Returns:
        The content of ``results.json``.

    Raises:
        SchemaError: unknown keys or routes, or values out of range.
        StoreError: the folder holds rows of another version.
    """
    settings, sets, routes = _read(content, config, only)
    cases = list(_cases(settings, sets, routes))
    check_files(((case.file, case.hash) for case in cases), config)
    started, found = time.monotonic(), {}
    todo = []
    for case in cases:
        kept = _kept(out / "rows" / case.file, case, any_version)
        if kept is None:
            todo.append((case, str(out)))
        else:
            found[case.file] = kept
    for name in dict.fromkeys(case.set_name for case, _ in todo):  # once, before processes ask for it at the same time
        Held.make(sets[name], folder_of(out, name))
    for (case, _), row in zip(todo, spread(_row, todo, workers), strict=True):
        found[case.file] = row
        announce(_line(row))
    rows = [found[case.file] for case in cases]
    table = inverse_table(rows)
    results = {
        **heading(content, config),
        "results": [{n: v for n, v in row.items() if n not in ("recipe", "versions", "machine")} for row in rows],
        "table": table,
        **origin(workers, started),
    }
    write_results(out, results, table)
    return results


def rerun(path: Path, folder: Path, announce: Callable[[str], None] = say) -> bool:
    """Compute a row again from its own file, and say whether the numbers are the same.

    Args:
        path: of the row.
        folder: where data are generated, or are from before.
        announce: receives what was and what is found.

    Returns:
        Whether every number is the same, within a thousandth (other processors add in another order).

    Raises:
        StoreError: the file is no row.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        recipe, before = dict(row["recipe"]), row.get("places")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is no row of a study: {' '.join(str(error).split())[:200]}.") from None
    case = Case.read(recipe, str(path))
    again = compute(case, folder_of(folder, case.set_name))
    announce(f"then: {_line(row)}\nnow:  {_line(again)}")
    return _same(before, again.get("places"))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(_same(v, other[n]) for n, v in one.items())
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= _TOLERANCE * max(abs(one), abs(other))
    return one == other


def _read(
    content: Mapping[str, Any], config: str, only: Sequence[str]
) -> tuple[Inverse, dict[str, InverseSet], dict[str, Route]]:
    unknown = set(content) - _KEYS
    if unknown or not content.get("sets") or not content.get("routes"):
        raise SchemaError(f"{config}: expected the keys {', '.join(sorted(_KEYS))}, found {', '.join(content)}.")
    check_names(content["routes"], config)
    check_names(content["sets"], config)
    for name in only:
        if name not in content["routes"]:
            raise SchemaError(f"{config} has no route '{name}'.{did_you_mean(name, content['routes'])}")
    given = dict(content.get("inverse") or {})
    if given.get("degradations"):  # one that is null is left out, as a set or a route
        given["degradations"] = {n: v for n, v in given["degradations"].items() if v is not None}
    settings = fill(Inverse, given, f"{config}: inverse")
    sets = {n: fill(InverseSet, v, f"{config}: sets.{n}") for n, v in content["sets"].items() if v is not None}
    routes = {
        n: fill(Route, v, f"{config}: routes.{n}")
        for n, v in content["routes"].items()
        if v is not None and (not only or n in only)
    }
    for name, route in routes.items():
        for wanted in route.degradations or ():
            if wanted not in settings.degradations:
                held = ", ".join(settings.degradations) or "none"
                raise SchemaError(f"{config}: routes.{name}: no degradation '{wanted}'. The study has: {held}.")
    return settings, sets, routes


def _cases(settings: Inverse, sets: Mapping[str, InverseSet], routes: Mapping[str, Route]) -> Iterator[Case]:
    for set_name, of in sets.items():
        data = of.recipe().hash
        for name, route in routes.items():
            if route.sets is not None and set_name not in route.sets:
                continue
            frames = settings.windows if route.windows is None else route.windows
            labels: Sequence[float] = settings.labels if route.labels is None else route.labels
            labels = labels if route.kind in LABELLED else (0,)
            for t, seen, n, seed in itertools.product(
                frames, settings.instruments(route), labels, range(settings.seeds)
            ):
                yield Case(
                    set_name, of, name, route, t, seen[0], int(n), seed, settings.level, settings.false_alarms, data,
                    *seen[1:],
                )  # fmt: skip


def _row(work: tuple[Case, str]) -> dict[str, Any]:
    case, out = work
    row = compute(case, folder_of(out, case.set_name))
    write_json(Path(out) / "rows" / case.file, row)
    return row


def _kept(path: Path, case: Case, any_version: bool) -> dict[str, Any] | None:
    try:
        row = dict(json.loads(path.read_text(encoding="utf-8")))
        if row["hash"] != case.hash:
            return None
        _line(row)
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # none, or one that is damaged: it is computed again
    check_same_version(row.get("versions"), path, any_version)
    return row


def _line(row: Mapping[str, Any]) -> str:
    labels = "" if row["labels"] is None else f", {row['labels'] or 'all'} labels"
    start = f"{row['set']}, {row['route']}, {row['frames']} frames, noise {row['noise']:g}"
    start += f"{', ' + row['degraded'] if 'degraded' in row else ''}{labels}, seed {row['seed']}"
    if "refused" in row:
        return f"{start}: cannot: {row['refused']}"
    errors = ", ".join(f"{place} {held['error']:.3g} %" for place, held in row["places"].items())
    return f"{start}: {errors} ({row['seconds']:.0f} s)"
