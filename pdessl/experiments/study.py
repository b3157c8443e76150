"""``pdessl study``: variants times seeds of a pretraining on one dataset, probed alike, in one table with floors."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pdessl.errors import PdesslError, SchemaError, StoreError
from pdessl.experiments.study_table import FLOORS, table

__all__ = ["Study", "run_study"]


@dataclass(frozen=True)
class Study:
    """How the encoders of a study are compared.

    Args:
        target: name of the parameter that probes read; its logarithm is regressed, its relative error reported.
        labels: numbers of labelled runs.
        seeds: pretrainings of each variant; each has its own initial weights, order of batches and views.
        draws: labelled subsets that each encoder is probed on; they are the same for every variant.
        views: views that a probe averages features over: ``strengths``, ``window``, ``reflections`` and ``count`` as in
            :class:`pdessl.experiments.views.Views`.
        supervised: how the same network is trained on the labels alone, as
            :class:`pdessl.experiments.supervision.Supervision`; None leaves that floor out.
    """

    target: str
    labels: tuple[int, ...] = (32, 256)
    seeds: int = 3
    draws: int = 3
    views: dict[str, Any] = field(default_factory=dict)
    supervised: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Job:
    """One training: a variant (or floor) and a seed, with everything a process needs to run it."""

    variant: str
    seed: int
    recipe: dict[str, Any]
    study: dict[str, Any]
    folder: str
    data: str  # hash of the dataset

    @property
    def hash(self) -> str:
        """Of everything besides the data that determines the result."""
        content = {k: v for k, v in asdict(self).items() if k not in ("folder", "data")}
        content["study"] = {k: v for k, v in self.study.items() if k != "seeds"}  # more seeds later keep what is there
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_study(
    config: str | os.PathLike[str],
    out: str | os.PathLike[str],
    words: Sequence[str] = (),
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run a study; what a former call finished is not run again.

    Args:
        config: recipe of a study, by name or file: ``study`` (see :class:`Study`), ``base`` (what the pretraining
            recipes share) and ``variants`` (name -> what is laid over the base; ``task`` as in a pretraining recipe).
        out: folder; holds ``results.json``, ``table.md`` and a folder for every training.
        words: changes by dotted key, ``study.seeds=1``, ``base.trainer.max_epochs=2``.
        only: names of variants; default all. The floors are always run.
        workers: processes, of one thread each.
        announce: receives a line after every training.

    Returns:
        The content of ``results.json``.

    Raises:
        SchemaError: a study without variants, or unknown keys.
        StoreError: the dataset is not there.
    """
    from pdessl import catalog
    from pdessl.files import write_json, write_text
    from pdessl.schema import assign, fill, merge

    content = assign(catalog.read("configs", config), words)
    unknown = set(content) - {"title", "about", "study", "base", "variants", "parts"}
    variants = content.get("variants") or {}
    if unknown or not variants or "study" not in content:
        raise SchemaError(
            f"{config}: expected the keys study, base and variants (and title, about, parts), found "
            f"{', '.join(content)}."
        )
    missing = [v for v in only if v not in variants]
    if missing:
        raise SchemaError(f"{config} has no variant '{missing[0]}'. Variants: {', '.join(variants)}.")
    study = fill(Study, content["study"], f"{config}: study")
    base = content.get("base", {})
    path = str(Path(base.get("data", {}).get("path", "")).resolve())
    if not (Path(path) / "manifest.json").is_file():
        raise StoreError(f"{config}: no store at base.data.path ({path}). Generate it, or set base.data.path=FOLDER.")
    base = merge(base, {"data": {"path": path}})
    folder, described = Path(out), _store(path)
    names = [*FLOORS, *(only or variants)]
    if study.supervised is None:
        names.remove("supervised from scratch")
    jobs = [
        _Job(
            name,
            seed,
            merge(base, variants.get(name) or {}),
            asdict(study),
            str(folder / _slug(name) / f"seed{seed}"),
            described["hash"],
        )
        for seed in range(study.seeds)
        for name in names
    ]
    started = time.monotonic()
    found: dict[str, dict[str, Any]] = {}
    for job, result in _each(jobs, workers):
        found[f"{job.variant}/{job.seed}"] = {"variant": job.variant, "seed": job.seed, **result}
        announce(f"{job.variant}, seed {job.seed}: {_line(result)}")
    ordered = [found[f"{j.variant}/{j.seed}"] for j in jobs]
    results = {
        "title": content.get("title", str(config)),
        "about": " ".join(str(content.get("about", "")).split()),
        "study": asdict(study),
        "store": described,
        "results": ordered,
        "provenance": _provenance(workers, time.monotonic() - started),
    }
    write_json(folder / "results.json", results)
    write_text(folder / "table.md", table(results))
    return results


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _line(result: Mapping[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    errors = ", ".join(f"{n} labels {sum(v) / len(v):.2f} %" for n, v in result["relative_error"].items())
    return f"{errors} ({result['seconds']:.0f} s)"


def _store(path: str) -> dict[str, Any]:
    from pdessl.data import open as open_data

    store = open_data(path)
    return {"dataset": store.manifest["dataset"], "hash": store.manifest["recipe_hash"], "splits": store.splits}


def _provenance(workers: int, seconds: float) -> dict[str, Any]:
    import torch

    import pdessl

    versions = {"pdessl": pdessl.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"versions": versions, "machine": platform.machine(), "workers": workers, "seconds": round(seconds)}


# ------------------------------------------------------------------------------------- trainings


def _each(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, dict[str, Any]]]:
    """Yield jobs with their results as they finish; those that a former call finished first."""
    todo = []
    for job in jobs:
        kept = _kept(job)
        if kept is None:
            todo.append(job)
        else:
            yield job, kept
    if workers <= 1:
        for job in todo:
            yield job, _train(job)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, max(len(todo), 1)), _one_thread) as pool:
        yield from zip(todo, pool.imap(_train, todo), strict=True)


def _one_thread() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(1)


def _kept(job: _Job) -> dict[str, Any] | None:
    path = Path(job.folder) / "result.json"
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Other data may have been generated into the same folder since.
        same = kept["hash"] == job.hash and kept.get("data", job.data) == job.data
        result = kept["result"]
        whole = "failed" in result or all(isinstance(v, list) and v for v in result["relative_error"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # truncated, or not ours: it is run again
    return result if same and whole else None


def _train(job: _Job) -> dict[str, Any]:
    """Train and probe; a training that fails is a result too, and is told."""
    from pdessl.experiments.training import quietly
    from pdessl.files import write_json

    started = time.monotonic()
    with quietly():
        try:
            result = _supervised(job) if job.variant == "supervised from scratch" else _probed(job)
        except Exception as error:  # whatever went wrong in one variant, the others are worth having
            said = " ".join(str(error).split())[:300]
            return {"failed": said if isinstance(error, PdesslError) else f"{type(error).__name__}: {said}"}
    result["seconds"] = time.monotonic() - started
    write_json(Path(job.folder) / "result.json", {"hash": job.hash, "data": job.data, "result": result})
    return result


def _data(job: _Job) -> Any:
    from pdessl.data import PDEDataModule

    # As pretraining reads them (fields, crop, splits, ...): a probe on other splits might see what was trained on.
    data = PDEDataModule(**job.recipe["data"])
    data.setup()
    return data


def _encoder(job: _Job) -> tuple[Any, dict[str, Any]]:
    """The encoder of a job: pretrained, or for the floor drawn from the seed; and the last monitors."""
    import torch

    from pdessl.experiments.pretraining import pretrain
    from pdessl.files import write_json

    if job.variant in FLOORS:
        return _fresh(job), {}
    recipe = copy.deepcopy(job.recipe)
    recipe.setdefault("model", {})["seed"] = job.seed
    recipe["seed_everything"] = job.seed
    recipe["trainer"] = {"enable_progress_bar": False, **recipe.get("trainer", {})}
    path = Path(job.folder) / "recipe.json"
    write_json(path, recipe)
    torch.manual_seed(job.seed)
    run = pretrain(path, (), job.folder)
    monitors = {k: v[-1] for k, v in run.curves.items() if k.startswith(("monitor/", "train/")) and v}
    return run.task.encoder.eval(), monitors


def _fresh(job: _Job) -> Any:
    """The study's encoder with random weights and the data's normalisation, as pretraining starts from."""
    import inspect
    import itertools

    import torch
    from jsonargparse import Namespace

    import pdessl.models
    from pdessl.data import PDEDataModule
    from pdessl.experiments.from_data import complete, first_view
    from pdessl.experiments.views import calibrated
    from pdessl.models import Normalised

    given = job.recipe["model"]["encoder"]
    kind = getattr(pdessl.models, given["class_path"].rpartition(".")[2])
    left_open = {n: None for n in ("in_channels", "periodic") if n in inspect.signature(kind).parameters}
    arguments = Namespace(**(left_open | given.get("init_args", {})))
    views = job.recipe["model"].get("augmentation")
    if views is not None:
        views = Namespace(class_path=views["class_path"], init_args=Namespace(**views.get("init_args", {})))
    model = Namespace(encoder=Namespace(class_path=given["class_path"], init_args=arguments))
    complete(model, first_view(PDEDataModule, Namespace(**job.recipe["data"]), views))
    torch.manual_seed(1000 + job.seed)
    data = _data(job)
    encoder = Normalised(
        kind(**arguments.as_dict()),
        [s.mean for s in data.statistics.values()],
        [s.std for s in data.statistics.values()],
    )
    batches = itertools.islice(data.train_dataloader(), max(1, 1024 // data.batch_size))
    return calibrated(encoder, list(batches))


def _views(job: _Job) -> Any:
    from pdessl.experiments.views import Views
    from pdessl.schema import fill

    return fill(Views, job.study["views"], "study.views")


def _probed(job: _Job) -> dict[str, Any]:
    from pdessl.evaluation.metrics import relative_error
    from pdessl.experiments.views import averaged
    from pdessl.models import bounded, fit_ridge

    study, data = job.study, _data(job)
    encoder, monitors = _encoder(job)
    views, equation = _views(job), data.store.equation
    test = data.test
    truth = test.parameters[study["target"]].double()
    queries = averaged(encoder, test, views, equation, seed=77, constants=data.store.constants)
    errors: dict[str, list[float]] = {}
    for count in study["labels"]:
        for draw in range(study["draws"]):
            labelled = data.labelled_subset(count, draw)
            features = averaged(encoder, labelled, views, equation, seed=draw, constants=data.store.constants)
            known = labelled.parameters[study["target"]].double().log()
            prediction = bounded(fit_ridge(features, known).predict(queries)[:, 0], known).exp()
            errors.setdefault(str(count), []).append(float(relative_error(prediction, truth)))
    return {"relative_error": errors, "monitors": monitors}


def _supervised(job: _Job) -> dict[str, Any]:
    from pdessl.evaluation.metrics import relative_error
    from pdessl.experiments.supervision import Supervision, best_of_sweep
    from pdessl.schema import fill

    study, data = job.study, _data(job)
    settings = fill(Supervision, study["supervised"], "study.supervised")
    test = data.test
    truth = test.parameters[study["target"]].double()
    errors: dict[str, list[float]] = {}
    for count in study["labels"]:
        labelled = data.labelled_subset(count, job.seed)
        found = best_of_sweep(
            _fresh(job),
            labelled,
            data.validation,
            test,
            study["target"],
            data.store.equation,
            settings,
            job.seed,
            constants=data.store.constants,
        )
        errors[str(count)] = [float(relative_error(found.predictions.double(), truth))]
    return {"relative_error": errors, "monitors": {}}
