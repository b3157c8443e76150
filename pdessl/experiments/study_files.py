"""What every kind of study ends with: its results and its table on disk, with where they come from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pdessl.experiments.provenance import check_same_version, machine, versions
from pdessl.files import write_json, write_text

__all__ = ["heading", "kept_rows", "origin", "write_results"]


def heading(content: Mapping[str, Any], config: str) -> dict[str, Any]:
    """Return ``title`` and ``about`` of a study's recipe; the title is the recipe's name where it has none."""
    return {"title": content.get("title", config), "about": " ".join(str(content.get("about", "")).split())}


def origin(workers: Any, started: float) -> dict[str, Any]:
    """Return ``provenance``: versions, machine, worker processes (or "cluster"), and whole seconds since
    ``time.monotonic()`` was ``started``.
    """
    made = {"versions": versions(), "machine": machine(), "workers": workers if isinstance(workers, int) else "cluster"}
    return {"provenance": {**made, "seconds": round(time.monotonic() - started)}}


def kept_rows(
    path: Path, key: str, readable: Callable[[list[dict[str, Any]]], object], any_version: bool
) -> list[dict[str, Any]] | None:
    """Return the rows that a former call kept of a job.

    Args:
        path: their file, of keys ``hash``, ``rows`` and ``versions``.
        key: the hash of what determines them.
        readable: makes of rows what will be made of them, and fails where they are damaged.
        any_version: keep rows that another version of pdessl, torch or NumPy computed.

    Returns:
        None where there are none, those of another job, or damaged ones: they are computed again.

    Raises:
        StoreError: rows of another version.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["hash"] != key:
            return None
        rows = [dict(row) for row in kept["rows"]]
        readable(rows)
    except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    check_same_version(kept.get("versions"), path, any_version)
    return rows or None


def write_results(out: Path, results: Mapping[str, Any], table: str) -> None:
    """Write ``results.json`` and ``table.md`` into the folder of a study."""
    write_json(out / "results.json", dict(results))
    write_text(out / "table.md", table)
