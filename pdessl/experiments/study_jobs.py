"""The trainings of a study: each pretrains an encoder, or takes an untrained one, and runs the few-label comparison."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import PdesslError, SchemaError
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.estimates import Classical
from pdessl.experiments.from_data import complete, first_view
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.processes import spread
from pdessl.experiments.provenance import check_same_version, versions
from pdessl.experiments.regression import CLOSED, Regression
from pdessl.experiments.supervision import Supervision
from pdessl.experiments.training import quietly
from pdessl.experiments.untrained import calibrated
from pdessl.files import write_json
from pdessl.inference.views import Views
from pdessl.models import Encoder
from pdessl.schema import Count, Size

__all__ = ["FLOORS", "SUPERVISED", "Job", "Study", "data_of", "finished", "trained_encoder", "untrained_encoder"]

FLOORS, SUPERVISED = "floors", "supervised from scratch"
_ON_ENCODER = ("frozen", "trunk", "neighbours")


@dataclass(frozen=True)
class Study:
    """How the encoders of a study are compared: all by the comparison of ``pdessl regress``, on the same labels.

    Args:
        target: name of the parameter.
        scale: on which it is regressed, ``log`` or ``linear``; default what dataset and equation declare.
        labels: numbers of labelled runs.
        seeds: pretrainings of each variant; each has its own initial weights, order of batches and views.
        draws: labelled subsets that each encoder is read on; they are the same for every variant.
        views: views that features are averaged over.
        methods: in closed form, as in :class:`pdessl.experiments.regression.Regression`. Those that read the encoder
            are run for every variant, the others once, as floors.
        classical: classical estimates beside them; None leaves them out.
        supervised: how the same network is trained on the labels alone; None leaves that floor out.
    """

    target: str
    scale: Literal["log", "linear"] | None = None
    labels: tuple[Size, ...] = (32, 256)
    seeds: Count = 3
    draws: Count = 3
    views: Views = field(default_factory=Views)
    methods: tuple[Literal["law", "frozen", "trunk", "neighbours", "mean", "random", "physics"], ...] = (
        "law", "frozen", "mean", "random", "physics",
    )  # fmt: skip
    classical: Classical | None = field(default_factory=Classical)
    supervised: Supervision | None = None

    def floors(self, seed: int) -> tuple[str, ...]:
        """Return the floors that a seed runs: those in closed form and of the equation do not depend on it."""
        closed = (FLOORS,) if seed == 0 and (set(self.methods) - set(_ON_ENCODER) or self.classical) else ()
        return (*closed, *((SUPERVISED,) if self.supervised is not None else ()))

    def regression(self, variant: str, seed: int) -> Regression:
        """Return the comparison of a variant or floor."""
        shared = {"target": self.target, "scale": self.scale, "labels": self.labels, "views": self.views}
        if variant == SUPERVISED:
            return Regression(**shared, seeds=1, first_seed=seed, methods=(), scratch=self.supervised)  # type: ignore[arg-type]
        if variant == FLOORS:
            floors = tuple(m for m in CLOSED if m in self.methods and m not in _ON_ENCODER)
            return Regression(**shared, seeds=self.draws, methods=floors, classical=self.classical)  # type: ignore[arg-type]
        read = tuple(m for m in CLOSED if m in self.methods and m in _ON_ENCODER)
        return Regression(**shared, seeds=self.draws, methods=read)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Job:
    """One training: a variant (or floor) and a seed, with everything a process needs to run it."""

    variant: str
    seed: int
    recipe: dict[str, Any]
    study: Study
    folder: str
    data: str  # hash of the dataset
    allow: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Of everything besides the data that determines the result."""
        content = {"variant": self.variant, "seed": self.seed, "recipe": self.recipe}
        content["comparison"] = asdict(self.study.regression(self.variant, self.seed))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished(jobs: Sequence[Job], workers: int, any_version: bool = False) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield jobs with their results as they finish; those that a former call finished first.

    Raises:
        StoreError: another version of pdessl, torch or NumPy finished one, and ``any_version`` is not set.
    """
    held = [(job, _kept(job, any_version)) for job in jobs]
    yield from ((job, kept) for job, kept in held if kept is not None)
    todo = [job for job, kept in held if kept is None]
    yield from zip(todo, spread(_run, todo, workers), strict=True)


def _kept(job: Job, any_version: bool = False) -> dict[str, Any] | None:
    path = Path(job.folder) / "result.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Other data may have been generated into the same folder since.
        if kept["hash"] != job.hash or kept["data"] != job.data:
            return None
        result = _checked(kept["result"])
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # none, or one that is damaged: it is computed again
    check_same_version(kept.get("versions"), path, any_version)
    return result


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """Return a kept result if a table can be made of it; else raise whatever the damage leads to."""
    numbers = [result["seconds"], *result["monitors"].values()]
    texts = [*result["monitors"], *result["notes"]]
    for row in result["rows"]:
        error = row["relative_error"]
        numbers += [error["mean"], *error["values"], row["labels"] or 0]
        texts += [row["method"], row["title"]]
    kinds = isinstance(result["rows"], list) and isinstance(result["notes"], list) and result["rows"]
    if not kinds or not all(isinstance(t, str) for t in texts) or not all(isinstance(n, (int, float)) for n in numbers):
        raise TypeError(type(result).__name__)
    return result


def _run(job: Job) -> dict[str, Any]:
    """Train and compare; a training that fails is a result too, and is told."""
    started = time.monotonic()
    with quietly():
        try:
            encoder, monitors = _encoder(job)
            found = compare_methods(encoder, data_of(job.recipe), job.study.regression(job.variant, job.seed))
        except Exception as error:  # whatever went wrong in one variant, the others are worth having
            said = " ".join(str(error).split())[:300]
            return {"failed": said if isinstance(error, PdesslError) else f"{type(error).__name__}: {said}"}
    result = {"rows": found.rows, "notes": found.notes, "monitors": monitors, "seconds": time.monotonic() - started}
    content = {"hash": job.hash, "data": job.data, "versions": versions(), "result": result}
    write_json(Path(job.folder) / "result.json", content)
    return result


def data_of(recipe: Mapping[str, Any]) -> PDEDataModule:
    """Return the data as the pretraining of a recipe reads them (fields, crop, splits, ...).

    A comparison on other splits might see what was trained on.
    """
    data = PDEDataModule(**recipe["data"])
    data.setup()
    return data


def _encoder(job: Job) -> tuple[nn.Module, dict[str, Any]]:
    """Return the encoder of a job, pretrained, or untrained for floors; and the last monitors."""
    if job.variant in (FLOORS, SUPERVISED):
        return untrained_encoder(job.recipe, job.seed), {}
    return trained_encoder(job)[:2]


def trained_encoder(job: Job) -> tuple[nn.Module, dict[str, float], float]:
    """Pretrain by the recipe of a job; return the encoder, the last losses and monitors, and the seconds it took."""
    started = time.monotonic()
    recipe = copy.deepcopy(job.recipe)
    recipe.setdefault("model", {})["seed"] = job.seed
    recipe["seed_everything"] = job.seed
    recipe["trainer"] = {"enable_progress_bar": False, **recipe.get("trainer", {})}
    path = Path(job.folder) / "recipe.json"
    write_json(path, recipe)
    torch.manual_seed(job.seed)
    run = pretrain(path, (), job.folder, allow=job.allow)
    monitors = {k: v[-1] for k, v in run.curves.items() if k.startswith(("monitor/", "train/")) and v}
    return run.task.encoder.eval(), monitors, time.monotonic() - started


def untrained_encoder(recipe: dict[str, Any], seed: int) -> nn.Module:
    """Return a recipe's encoder, of any class, with random weights and the data's normalisation, as training starts.

    Args:
        recipe: of a pretraining.
        seed: of the weights.

    Raises:
        SchemaError: the recipe names no encoder.
    """
    given = (recipe.get("model") or {}).get("encoder")
    if not isinstance(given, Mapping) or not isinstance(given.get("class_path"), str):
        raise SchemaError(f"base.model.encoder is {given!r}; floors need class_path and init_args of an encoder there.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--encoder", type=nn.Module)
    parsed = parser.parse_object({"encoder": given}).encoder
    module, _, name = parsed.class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    left_open = {n: None for n in ("in_channels", "periodic") if n in inspect.signature(kind).parameters}
    arguments = Namespace(**(left_open | given.get("init_args", {})))
    views = recipe["model"].get("augmentation")
    if views is not None:
        views = Namespace(class_path=views["class_path"], init_args=Namespace(**views.get("init_args", {})))
    model = Namespace(encoder=Namespace(class_path=parsed.class_path, init_args=arguments))
    complete(model, first_view(PDEDataModule, Namespace(**recipe["data"]), views))
    data = PDEDataModule(**recipe["data"])
    data.setup()
    torch.manual_seed(1000 + seed)
    encoder = Encoder(
        kind(**arguments.as_dict()),
        [s.mean for s in data.statistics.values()],
        [s.std for s in data.statistics.values()],
    )
    batches = itertools.islice(data.train_dataloader(), max(1, 1024 // data.batch_size))
    return calibrated(encoder, list(batches))
