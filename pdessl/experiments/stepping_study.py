"""Studies of time-steppers: variants of network and training, each under all conditions and seeds, in one table."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pdessl.data.identity import identity
from pdessl.errors import CheckpointError
from pdessl.experiments.inputs import read_data
from pdessl.experiments.provenance import check_same_version, versions
from pdessl.experiments.stepping import Stepping
from pdessl.experiments.stepping_scores import as_report, table
from pdessl.experiments.study_files import heading, origin, write_results
from pdessl.experiments.timestep import timestep
from pdessl.experiments.variant_names import folder_name, variants_of
from pdessl.files import checksum, write_json
from pdessl.schema import fill, merge
from pdessl.written import say, visible

__all__ = ["stepping_study"]

_KEYS = {"title", "about", "data", "encoder", "timestepping", "variants"}


def stepping_study(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = say,
    any_version: bool = False,
) -> dict[str, Any]:
    """Run a study of time-steppers; variants that a former call finished are not run again.

    Args:
        content: recipe: ``data: {path: FOLDER}``, ``encoder`` (a folder, or null), ``timestepping`` (what the variants
            share, see :class:`Stepping`), ``variants`` (name -> what is laid over it).
        config: its name, for messages.
        out: folder; holds ``results.json``, ``table.md``, and per variant the report and models of ``timestep``.
        only: names of variants; default all.
        workers: processes of one thread each.
        announce: receives a line after every training.
        any_version: keep results that another version of pdessl, torch or NumPy computed.

    Returns:
        The content of ``results.json``.

    Raises:
        SchemaError: unknown keys, no variant, names that one folder would serve, or values out of range.
        StoreError: the folder holds results of another version.
    """
    variants = variants_of(content, _KEYS, config, only)
    settings = {
        name: fill(Stepping, merge(content.get("timestepping") or {}, changes or {}), f"{config}: {name}")
        for name, changes in variants.items()
        if not only or name in only
    }
    data, encoder = read_data(str(content["data"]["path"])), content.get("encoder")
    found, started = [], time.monotonic()
    for name, chosen in settings.items():
        folder = out / folder_name(name)
        key = _hash(asdict(chosen), identity(data.store), encoder)
        kept = _kept(folder, key, name, any_version)
        if kept is None:
            announce(f"{name}:")
            begun = time.monotonic()
            result = timestep(encoder, data, settings=chosen, out=folder, workers=workers, announce=announce)
            sections, _ = as_report(result, chosen)
            kept = {"variant": name, "table": table(result), "seconds": time.monotonic() - begun}
            kept |= sections["timestepping"]
            write_json(folder / "result.json", {"hash": key, "versions": versions(), "result": kept})
        found.append(kept)
    text = "\n".join(f"**{visible(r['variant'])}**\n\n{r['table']}" for r in found)
    results = {
        **heading(content, config),
        "timestepping": {name: asdict(chosen) for name, chosen in settings.items()},
        "results": found,
        "table": text,
        **origin(workers, started),
    }
    write_results(out, results, text)
    return results


def _hash(settings: Mapping[str, Any], data: str, encoder: str | None) -> str:
    weights = ""
    if encoder is not None:
        files = sorted(p for p in Path(encoder).rglob("*") if p.name in ("model.safetensors", "law.json"))
        if not files:
            raise CheckpointError(
                f"{encoder} holds no encoder and no law. Train one: pdessl pretrain, or set encoder=FOLDER or null."
            )
        weights = "".join(checksum(p) for p in files)
    text = json.dumps({"settings": settings, "data": data, "encoder": weights}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(folder: Path, key: str, name: str, any_version: bool = False) -> dict[str, Any] | None:
    try:
        kept = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        result = dict(kept["result"]) if kept["hash"] == key else {}
        if result.get("variant") != name or not isinstance(result.get("table"), str):
            return None
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RecursionError):
        return None  # none, or one that is damaged: it is computed again
    check_same_version(kept.get("versions"), folder / "result.json", any_version)
    return result
