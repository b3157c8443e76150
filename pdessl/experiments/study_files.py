"""What every kind of study ends with: its results and its table on disk, with where they come from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json, write_text

__all__ = ["heading", "origin", "write_results"]


def heading(content: Mapping[str, Any], config: str) -> dict[str, Any]:
    """Return ``title`` and ``about`` of a study's recipe; the title is the recipe's name where it has none."""
    return {"title": content.get("title", config), "about": " ".join(str(content.get("about", "")).split())}


def origin(workers: Any, started: float) -> dict[str, Any]:
    """Return ``provenance``: versions, machine, worker processes (or "cluster"), and whole seconds since
    ``time.monotonic()`` was ``started``.
    """
    made = {"versions": versions(), "machine": machine(), "workers": workers if isinstance(workers, int) else "cluster"}
    return {"provenance": {**made, "seconds": round(time.monotonic() - started)}}


def write_results(out: Path, results: Mapping[str, Any], table: str) -> None:
    """Write ``results.json`` and ``table.md`` into the folder of a study."""
    write_json(out / "results.json", dict(results))
    write_text(out / "table.md", table)
