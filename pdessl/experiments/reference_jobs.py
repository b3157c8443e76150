"""The rows of the reference paper's table: one pretraining, one supervised training, or the floors, of one equation."""

# n runs, N tokens, D feature width, P targets, K wave numbers

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.errors import PdesslError, SchemaError
from pdessl.evaluation.classical import weak_form
from pdessl.evaluation.metrics import nmse, relative_error
from pdessl.evaluation.targets import with_target
from pdessl.experiments.inverse_sets import content_hash
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.study_jobs import Job, Study, trained_encoder, untrained_encoder
from pdessl.experiments.supervision import Supervision, best_of_sweep
from pdessl.experiments.training import quietly
from pdessl.files import write_json
from pdessl.inference.encoding import features
from pdessl.inference.views import Views
from pdessl.models import bounded, fit_ridge, from_scale, to_scale
from pdessl.models.encoder import Encoder
from pdessl.models.spacing import takes_spacing
from pdessl.schema import Size, merge
from pdessl.trajectory import Trajectories

__all__ = ["FLOORS", "RANDOM", "SUPERVISED", "Published", "TableJob", "TableTask", "Unpooled", "run_job"]

FLOORS, RANDOM, SUPERVISED = "floors", "random encoder", "supervised"


@dataclass(frozen=True)
class Published:
    """A published number.

    Args:
        mean: in the metric of the task.
        error: that is given beside it.
        note: what one must know to compare.
    """

    mean: float
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class TableTask:
    """One column of the table: an equation, what is asked of its runs, and the networks that answer.

    Args:
        dataset: a dataset file, by name or path.
        targets: parameters that are scored together, e.g. the coefficients of the initial field.
        metric: ``nmse`` (mean over targets of Σ(ŷ - y)²/Σ(y - mean y)²), ``relative`` (mean |ŷ - y|/|y|, in per cent),
            or ``mse``.
        base: what pretraining recipes share.
        variants: name -> what a pretraining recipe lays over it.
        besides: further targets, read from the same features and scored alike.
        scale: on which targets are regressed.
        changes: other values of the dataset file.
        size: runs of its splits.
        fields: that are seen; default all.
        labels: labelled runs; 0 for all.
        views: through which frozen encoders are read.
        supervised: how the same network is trained on the labels; None leaves it out.
        modes: K: where encoders are read unpooled too, wave numbers along each axis of space that are kept of their
            last grid; None: not.
        weak_form: whether the equation's own least squares is a row.
        published: name of a row -> number.
    """

    dataset: str
    targets: tuple[str, ...]
    metric: Literal["nmse", "relative", "mse"]
    base: dict[str, Any]
    variants: dict[str, Any]
    besides: tuple[str, ...] = ()
    scale: Literal["log", "linear"] = "linear"
    changes: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Size] = field(default_factory=dict)
    fields: tuple[str, ...] | None = None
    labels: Size = 0
    views: Views = field(default_factory=lambda: Views(count=1))
    supervised: Supervision | None = None
    modes: Size | None = None
    weak_form: bool = False
    published: dict[str, Published] = field(default_factory=dict)

    def recipe(self) -> DatasetRecipe:
        """Return the dataset that is generated."""
        recipe = load_recipe(self.dataset, overrides=self.changes)
        return load_recipe(recipe, size={n: s for n, s in self.size.items() if n in recipe.splits})

    def groups(self, seed: int) -> tuple[str, ...]:
        """Return the jobs of a seed: what draws nothing is run with the first."""
        held = (FLOORS,) if seed == 0 else ()
        return (*held, RANDOM, *((SUPERVISED,) if self.supervised else ()), *self.variants)


@dataclass(frozen=True)
class TableJob:
    """What a process needs to compute some rows.

    Args:
        task_name, task: the column.
        group: floors, random encoder, supervised, or a variant.
        seed: of everything that is drawn.
        folder: of the study.
        data: hash of the dataset.
    """

    task_name: str
    task: TableTask
    group: str
    seed: int
    folder: str
    data: str

    @property
    def hash(self) -> str:
        """Of everything that determines the numbers; what was published does not."""
        held = asdict(self) | {"folder": ""}
        return content_hash(held | {"task": {n: v for n, v in held["task"].items() if n != "published"}})

    @property
    def path(self) -> Path:
        """File of its rows."""
        words = "".join(c if c.isalnum() else "_" for c in f"{self.task_name}-{self.group}-seed{self.seed}")
        return Path(self.folder) / "rows" / f"{words}.json"


class Unpooled(nn.Module):
    """The last grid of an encoder in place of its pooled values: low Fourier modes in space, token row by token row.

        f = (mean, cosine_k, sine_k: k = 1 .. K) of z(t', x') along every axis of space

    Pooling over a periodic axis is blind to where anything is; a translation turns these modes by its phase, so that
    they hold what an equivariant network has of it.

    Args:
        encoder: with tokens on a grid.
        modes: K.
    """

    def __init__(self, encoder: Encoder, modes: int) -> None:
        super().__init__()
        self.encoder, self.modes = encoder, modes
        self.uses_spacing = takes_spacing(encoder)

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return (B, D), D rows in time times channels times (2K + 1) per axis."""
        tokens = self.encoder.tokens(fields, **given)
        grid = self.encoder.token_grid(fields.shape[2:])
        axes = fields.ndim - 3
        found = tokens.transpose(1, 2).reshape(*tokens.shape[::2], *([1] if len(grid) == axes else []), *grid)
        for _ in range(axes):
            found = self._along(found)
        return found.flatten(1)

    def _along(self, values: Tensor) -> Tensor:
        """Take modes of the first axis of space (dimension 3), and put them last."""
        n = values.shape[3]
        x = 2 * math.pi * torch.arange(n, dtype=values.dtype, device=values.device) / n
        kept = min(self.modes, (n - 1) // 2)
        rows = [torch.ones_like(x), *(f(k * x) for k in range(1, kept + 1) for f in (torch.cos, torch.sin))]
        return torch.einsum("bcti...,mi->bct...m", values, torch.stack(rows) / n)


def run_job(job: TableJob) -> list[dict[str, Any]]:
    """Compute the rows of a job, and write them."""
    started = time.process_time()
    data = _data(job)
    with quietly():
        try:
            found = _FOUND.get(job.group, _pretrained)(job, data)
        except PdesslError as error:
            found = [{"method": job.group, "refused": " ".join(str(error).split())[:300]}]
    spent = {"seconds": round(time.process_time() - started, 2)}
    rows = [{"task": job.task_name, "metric": job.task.metric, "seed": job.seed, **row, **spent} for row in found]
    held = {"recipe": asdict(job) | {"folder": ""}, "versions": versions(), "machine": machine()}
    write_json(job.path, {"hash": job.hash, **held, "rows": rows})
    return rows


def _data(job: TableJob) -> PDEDataModule:
    data = PDEDataModule(**_recipe(job)["data"])
    data.setup()
    return data


def _recipe(job: TableJob) -> dict[str, Any]:
    task = job.task
    own = {"data": {"path": str(Path(job.folder) / "data" / job.task_name)}}
    if task.fields is not None:
        own["data"]["fields"] = list(task.fields)  # type: ignore[assignment]
    return merge(merge(task.base, own), task.variants.get(job.group) or {})


def _asked(runs: Trajectories, names: tuple[str, ...]) -> Tensor:
    """Return targets (n, P), float64."""
    for name in names:
        runs = with_target(runs, name)
        if name not in runs.parameters:
            raise SchemaError(f"no parameter '{name}' in the runs; they have {', '.join(runs.parameters)}.")
    return torch.stack([runs.parameters[n].double() for n in names], dim=1)


def _error(metric: str, found: Tensor, truth: Tensor) -> float:
    """Return the error of estimates (n, P)."""
    if metric == "mse":
        return float((found - truth).square().mean())
    if metric == "relative":
        return float(relative_error(found, truth))
    return float(torch.stack([nmse(f, t) for f, t in zip(found.T, truth.T, strict=True)]).mean())


def _row(job: TableJob, method: str, found: Tensor, test: Trajectories, besides: Tensor | None) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "error": _error(job.task.metric, found, _asked(test, job.task.targets))}
    if besides is not None:
        row["besides"] = _error(job.task.metric, besides, _asked(test, job.task.besides))
    return row


def _floors(job: TableJob, data: PDEDataModule) -> list[dict[str, Any]]:
    task, labelled, test = job.task, data.labelled_subset(job.task.labels or None), data.test
    means = [
        _asked(labelled, names).mean(dim=0).expand(len(test), -1) if names else None
        for names in (task.targets, task.besides)
    ]
    assert means[0] is not None  # noqa: S101  (a task has targets)
    rows = [_row(job, "predict the mean", means[0], test, means[1])]
    if task.weak_form:
        found = weak_form(data.store.equation or "", test.without_parameters(), list(task.targets))
        rows.append(_row(job, "least squares, weak form", found, test, None))
    return rows


def _supervised(job: TableJob, data: PDEDataModule) -> list[dict[str, Any]]:
    task, settings = job.task, job.task.supervised
    assert settings is not None  # noqa: S101  (a group only where there are settings)
    network = untrained_encoder(_recipe(job), job.seed)

    def given(runs: Trajectories) -> Trajectories:
        for name in task.targets:
            runs = with_target(runs, name)
        return runs

    found = best_of_sweep(
        network,
        given(data.labelled_subset(task.labels or None)),
        given(data.validation),
        data.test,
        list(task.targets),
        data.store.equation or "",
        settings,
        job.seed,
        task.scale,
        constants=data.store.constants,
    ).predictions.double()
    return [_row(job, SUPERVISED, found.reshape(len(data.test), -1), data.test, None)]


def _random(job: TableJob, data: PDEDataModule) -> list[dict[str, Any]]:
    return _read(job, data, untrained_encoder(_recipe(job), job.seed), RANDOM)


def _pretrained(job: TableJob, data: PDEDataModule) -> list[dict[str, Any]]:
    folder = Path(job.folder) / "trained" / job.path.stem
    training = Job(job.group, job.seed, _recipe(job), Study(target=job.task.targets[0]), str(folder), job.data)
    return _read(job, data, trained_encoder(training)[0], job.group)


def _read(job: TableJob, data: PDEDataModule, encoder: nn.Module, name: str) -> list[dict[str, Any]]:
    """Return rows of a ridge on an encoder's features, and on its last grid."""
    task = job.task
    ways = {name: encoder}
    if task.modes is not None:
        if not isinstance(encoder, Encoder):
            raise SchemaError(f"{type(encoder).__name__} has no grid to be read unpooled; leave 'modes' out.")
        ways[f"{name}, unpooled"] = Unpooled(encoder, task.modes).eval()
    labelled, test = data.labelled_subset(task.labels or None), data.test
    rows = []
    for method, network in ways.items():
        known, asked = (
            features(network, r.without_parameters(), task.views, data.store.equation, job.seed)
            for r in (labelled, test)
        )
        found = [
            _ridge(known, _asked(labelled, names), asked, task.scale) if names else None
            for names in (task.targets, task.besides)
        ]
        assert found[0] is not None  # noqa: S101  (a task has targets)
        rows.append(_row(job, method, found[0], test, found[1]))
    return rows


def _ridge(known: Tensor, labels: Tensor, asked: Tensor, scale: str) -> Tensor:
    """Return estimates (m, P); each target has a penalty of its own."""
    columns = []
    for values in labels.T:
        y = to_scale(values, scale)
        columns.append(from_scale(bounded(fit_ridge(known, y).predict(asked)[:, 0], y), scale))
    return torch.stack(columns, dim=1)


_FOUND = {FLOORS: _floors, RANDOM: _random, SUPERVISED: _supervised}
