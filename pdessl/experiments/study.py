"""``pdessl study``: variants times seeds of a pretraining on one dataset, compared alike, in one table with floors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pdessl.data import open as open_data
from pdessl.errors import SchemaError, StoreError
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.experiments.cluster_jobs import Cluster
from pdessl.experiments.inverse_study import inverse_study
from pdessl.experiments.recipes import read_recipe
from pdessl.experiments.reference_study import reference_study
from pdessl.experiments.search import search
from pdessl.experiments.size_study import size_study
from pdessl.experiments.stepping_study import stepping_study
from pdessl.experiments.study_files import heading, origin, write_results
from pdessl.experiments.study_jobs import FLOORS, SUPERVISED, Job, Study, finished
from pdessl.experiments.study_table import table
from pdessl.experiments.surprise_study import surprise_study
from pdessl.experiments.variant_names import check_names, folder_name
from pdessl.files import writes_to
from pdessl.schema import Overrides, fill, merge
from pdessl.written import say

__all__ = ["study"]


@writes_to("out")
def study(
    config: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Overrides | None = None,
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = say,
    allow: Collection[str] = (),
    any_version: bool = False,
    preset: str | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Run a study; what a former call finished is not run again.

    Args:
        config: recipe of a study, by name or file: ``study`` (see :class:`Study`), ``base`` (what the pretraining
            recipes share) and ``variants`` (name -> what is laid over the base; ``task`` as in a pretraining recipe).
            One with a key ``timestepping`` is a study of time-steppers: :func:`stepping_study`; one with ``routes`` an
            inverse benchmark: :func:`inverse_study`; one with ``tasks`` the reference paper's table:
            :func:`reference_study`; one with ``sizes`` errors against numbers of runs: :func:`size_study`; one with
            ``surprise`` a study of detectors: :func:`surprise_study`; one with
            ``search`` in place of ``variants`` a search: :func:`search`.
        out: folder; holds ``results.json``, ``table.md`` and a folder for every training.
        overrides: other values, ``{"study.seeds": 1}`` or ``["base.trainer.max_epochs=2"]``.
        only: names of variants (or routes); default all. The floors are always run.
        workers: processes, of one thread each.
        announce: receives a line after every training.
        allow: packages of your own that the recipe may name classes of, see :func:`pdessl.pretrain`.
        any_version: keep results that another version of pdessl, torch or NumPy computed.
        preset: name under the recipe's ``presets``, whose values are laid over the others.
        scheduler: address of a Dask scheduler whose workers, which must see ``out``, run the jobs in place of processes
            here: the same rows, see :class:`pdessl.experiments.cluster_jobs.Cluster`.

    Returns:
        The content of ``results.json``.

    Raises:
        SchemaError: a study without variants, unknown keys, or names of variants that one folder would serve.
        StoreError: the dataset is not there, the folder holds results of another version, or the cluster cannot be
            used.
    """
    content = read_recipe(config, preset, overrides)
    if scheduler is not None:
        out = Path(out).resolve()
    spread_over: Any = workers if scheduler is None else Cluster(scheduler, Path(out))
    if "timestepping" in content:
        if scheduler is not None:
            raise SchemaError(f"{config}: trainings of one time-stepper share what is in memory; give --workers.")
        return stepping_study(content, str(config), Path(out), only, workers, announce, any_version)
    if "routes" in content:
        return inverse_study(content, str(config), Path(out), only, spread_over, announce, any_version)
    if "tasks" in content:
        return reference_study(content, str(config), Path(out), only, spread_over, announce, any_version, list(allow))
    if "search" in content:
        if only:
            raise SchemaError(f"{config} is a search and has no variants to choose from; found {', '.join(only)}.")
        base, described = _on_data(content.get("base", {}), str(config))

        def confirm(path: Path, folder: Path) -> dict[str, Any]:
            return study(path, folder, None, (), workers, announce, allow, any_version, scheduler=scheduler)

        return search(
            content, str(config), Path(out), confirm, base, described["hash"], spread_over, announce, allow, any_version
        )
    if "sizes" in content:
        return size_study(content, str(config), Path(out), only, spread_over, announce, any_version, list(allow))
    if "surprise" in content:
        return surprise_study(content, str(config), Path(out), only, spread_over, announce, any_version)
    unknown = set(content) - {"title", "about", "study", "base", "variants", "parts"}
    variants = content.get("variants") or {}
    if unknown or not variants or "study" not in content:
        raise SchemaError(
            f"{config}: expected the keys study, base and variants (and title, about, parts), found "
            f"{', '.join(content)}."
        )
    check_names(variants, str(config), (FLOORS, SUPERVISED))
    missing = [v for v in only if v not in variants]
    if missing:
        raise SchemaError(f"{config} has no variant '{missing[0]}'. Variants: {', '.join(variants)}.")
    settings = fill(Study, content["study"], f"{config}: study")
    base, described = _on_data(content.get("base", {}), str(config))
    folder = Path(out)
    jobs = [
        Job(
            name,
            seed,
            merge(base, variants.get(name) or {}),
            settings,
            str(folder / folder_name(name) / f"seed{seed}"),
            described["hash"],
            tuple(allow),
        )
        for seed in range(settings.seeds)
        for name in (*settings.floors(seed), *(only or variants))
    ]
    for job in jobs:
        check_allowed(job.recipe, allow, f"{config}: {job.variant}")
    started = time.monotonic()
    found: dict[str, dict[str, Any]] = {}
    for job, result in finished(jobs, spread_over, any_version):
        found[f"{job.variant}/{job.seed}"] = {"variant": job.variant, "seed": job.seed, **result}
        announce(f"{job.variant}, seed {job.seed}: {_line(result)}")
    ordered = [found[f"{j.variant}/{j.seed}"] for j in jobs]
    results = {
        **heading(content, str(config)),
        "study": asdict(settings),
        "store": described,
        "results": ordered,
        **origin(spread_over, started),
    }
    write_results(folder, results, table(results))
    return results


def _line(result: Mapping[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    errors = [f"{row['title']}, {row['labels']} labels {row['relative_error']['mean']:.2f} %" for row in result["rows"]]
    return f"{', '.join(errors)} ({result['seconds']:.0f} s)"


def _on_data(base: Mapping[str, Any], config: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the base with the absolute path of its store, and what the store is."""
    path = str(Path(base.get("data", {}).get("path", "")).resolve())
    if not (Path(path) / "manifest.json").is_file():
        raise StoreError(f"{config}: no store at base.data.path ({path}). Generate it, or set base.data.path=FOLDER.")
    store = open_data(path)
    described = {"dataset": store.manifest["dataset"], "hash": store.manifest["recipe_hash"], "splits": store.splits}
    return merge(base, {"data": {"path": path}}), described
