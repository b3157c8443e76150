"""Jobs of a study of sizes: the rows of one route at one number of unlabelled runs."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.errors import PdesslError, SchemaError
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.discovery import discover
from pdessl.experiments.inverse_sets import content_hash
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.regression import Regression
from pdessl.experiments.study_jobs import Job, Study, data_of, trained_encoder, untrained_encoder
from pdessl.experiments.supervision import Supervision
from pdessl.experiments.training import quietly
from pdessl.experiments.variant_names import folder_name
from pdessl.files import write_json
from pdessl.inference.views import Views
from pdessl.operators import LatentOperator
from pdessl.schema import Count, Size, merge

__all__ = ["FLOORS", "LAW", "SUPERVISED", "SizeJob", "Sizes", "run_job"]

FLOORS, LAW, SUPERVISED = "floors", "law", "supervised from scratch"
_PERCENT = "relative_error"


@dataclass(frozen=True)
class Sizes:
    """What is compared, and on how many runs and labels.

    Args:
        target: name of the parameter.
        dataset: a dataset file, by name or path, of which one store is generated that holds the most runs; None where
            ``base.data.path`` names a store.
        changes: other values of the dataset file.
        size: runs of its splits but ``unlabelled``.
        runs: numbers of unlabelled runs, the first ones of the store: each is among the next.
        labels: numbers of labelled runs.
        seeds: of weights, batches, views and of the labelled subset: one error for each.
        steps: gradient steps of every pretraining, up to one epoch more: the same for every number of runs.
        scale: on which the parameter is regressed; default what dataset and equation declare.
        views: that features of networks are averaged over.
        law: whether the law that the unlabelled runs obey is a route.
        floors: in closed form, from the labelled runs alone.
        supervised: how the same network is trained on the labels; None leaves it out. It is normalised by labelled
            runs; validation runs choose its rate and length.
    """

    target: str
    dataset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Size] = field(default_factory=dict)
    runs: tuple[Count, ...] = (64, 256, 1024, 4096, 16384)
    labels: tuple[Count, ...] = (4, 16, 64, 256)
    seeds: Count = 3
    steps: Count = 640
    scale: Literal["log", "linear"] | None = None
    views: Views = field(default_factory=Views)
    law: bool = True
    floors: tuple[Literal["mean", "physics"], ...] = ("mean", "physics")
    supervised: Supervision | None = None

    def __post_init__(self) -> None:
        for name, values in (("runs", self.runs), ("labels", self.labels)):
            if not values or list(values) != sorted(set(values)):
                raise SchemaError(f"{name} is {list(values)}; expected one number or more, each larger than the last.")
        if "unlabelled" in self.size:
            raise SchemaError("size.unlabelled is the largest of runs; leave it out.")

    def recipe(self) -> DatasetRecipe:
        """Return the dataset that is generated.

        Raises:
            SchemaError: no dataset is named.
        """
        if self.dataset is None:
            raise SchemaError("give sizes.dataset (a dataset file), or base.data.path (a store).")
        return load_recipe(self.dataset, overrides=self.changes, size={**self.size, "unlabelled": max(self.runs)})


@dataclass(frozen=True)
class SizeJob:
    """What a process needs to compute some rows.

    Args:
        route: :data:`LAW`, :data:`FLOORS`, :data:`SUPERVISED`, or the name of a variant.
        runs: unlabelled runs; None where the route sees none.
        seed: of everything that is drawn; None: all seeds, of a route that draws nothing but labels.
        sizes: the study.
        recipe: of the pretraining, with the path of the data.
        data: what identifies the dataset.
        folder: of the study.
        allow: packages that the recipe may name classes of.
    """

    route: str
    runs: int | None
    seed: int | None
    sizes: Sizes
    recipe: dict[str, Any]
    data: str
    folder: str
    allow: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Of everything that determines the numbers: a further number of runs or seed does not change the others."""
        held = asdict(self.sizes)
        own = {n: held[n] for n in ("target", "labels", "scale", "views")}
        if self.route == FLOORS:
            own["floors"] = held["floors"]
        if self.route == SUPERVISED:
            own["supervised"] = held["supervised"]
        if self.route not in (LAW, FLOORS, SUPERVISED):
            own["steps"] = held["steps"]
        if self.seed is None:
            own["seeds"] = held["seeds"]
        # Where the data lie does not matter; what they are does.
        recipe = merge(self.recipe, {"data": {"path": ""}})
        return content_hash([self.route, self.runs, self.seed, own, recipe, self.data])

    @property
    def path(self) -> Path:
        """File of its rows."""
        words = folder_name(self.route) + ("" if self.runs is None else f"-runs{self.runs}")
        return Path(self.folder) / "rows" / (words + ("" if self.seed is None else f"-seed{self.seed}") + ".json")


def run_job(job: SizeJob) -> list[dict[str, Any]]:
    """Compute the rows of a job, and write them; a route that fails is a row too, which says why."""
    started = time.process_time()
    start = {"route": job.route, "runs": job.runs}
    with quietly():
        try:
            rows = _rows(job)
        except Exception as error:  # whatever went wrong on one route, the others are worth having
            said = " ".join(str(error).split())[:300]
            refused = said if isinstance(error, PdesslError) else f"{type(error).__name__}: {said}"
            rows = [{"labels": None, "seed": job.seed, "refused": refused}]
    spent = {"seconds": round(time.process_time() - started, 2)}
    rows = [{**start, **row, **spent} for row in rows]
    held = {"recipe": asdict(job) | {"folder": ""}, "versions": versions(), "machine": machine()}
    write_json(job.path, {"hash": job.hash, **held, "rows": rows})
    return rows


def _rows(job: SizeJob) -> list[dict[str, Any]]:
    encoder, data = _encoder(job)
    found = compare_methods(encoder, data, _regression(job))
    rows = []
    for row in found.rows:
        # Predicting the mean has the name of a floor; a route of one method has its own.
        named = {"route": row["title"]} if job.route == FLOORS else {}
        # A floor that does not depend on labels is the same at every number of them.
        for labels in job.sizes.labels if row["labels"] is None else (row["labels"],):
            for number, error in enumerate(row[_PERCENT]["values"]):
                rows.append({**named, "labels": labels, "seed": number if job.seed is None else job.seed,
                             "error": error, "nmse": row["nmse"]["values"][number]})  # fmt: skip
    if not rows:
        raise PdesslError(" ".join(found.notes) or "it gave no estimate.")
    return rows


def _regression(job: SizeJob) -> Regression:
    s = job.sizes
    methods: dict[str, Any] = {"methods": ("frozen",)}
    if job.route == LAW:
        methods = {"methods": ("law",)}
    elif job.route == FLOORS:
        methods = {"methods": s.floors}
    elif job.route == SUPERVISED:
        methods = {"methods": (), "scratch": s.supervised}
    drawn = {"seeds": s.seeds} if job.seed is None else {"seeds": 1, "first_seed": job.seed}
    return Regression(target=s.target, scale=s.scale, labels=s.labels, views=s.views, **drawn, **methods)


def _encoder(job: SizeJob) -> tuple[nn.Module | LatentOperator, PDEDataModule]:
    """Return the encoder of a route, and the data as its readout sees them."""
    if job.route in (FLOORS, SUPERVISED):
        # No unlabelled run: also mean and deviation of the fields are those of labelled ones.
        recipe = merge(job.recipe, {"data": {"train": "labelled", "grouped": None}})
        recipe["data"]["batch_size"] = min(recipe["data"].get("batch_size", 64), max(job.sizes.labels))
        return untrained_encoder(recipe, job.seed or 0), data_of(recipe)
    recipe = merge(job.recipe, {"data": {"runs": job.runs}})
    if job.route == LAW:
        return discover(recipe["data"]["path"], split="unlabelled", limit=job.runs, resamples=0), data_of(recipe)
    recipe = _budgeted(recipe, job.sizes.steps)
    folder = Path(job.folder) / "trained" / job.path.stem
    training = Job(
        job.route, job.seed or 0, recipe, Study(target=job.sizes.target), str(folder), job.data, tuple(job.allow)
    )
    return trained_encoder(training)[0], data_of(recipe)


def _budgeted(recipe: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return a recipe of so many gradient steps: smaller batches where runs are fewer, and whole epochs."""
    module = data_of(merge(recipe, {"data": {"batch_size": 1}}))
    pairs = module.pairs
    there = sum(map(len, module.selections("unlabelled"))) if pairs is None else len(pairs)
    batch = min(recipe["data"].get("batch_size", 64), there)
    epochs = math.ceil(steps / math.ceil(there / batch))
    trainer = {"max_epochs": epochs, "check_val_every_n_epoch": epochs}  # monitors are looked at once, at the end
    return merge(recipe, {"data": {"batch_size": batch}, "trainer": trainer})
