"""The few-label comparison: a parameter from a frozen or fine-tuned encoder, beside its floors on the same labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.cli.supervision import Supervision, best_of_sweep
from pdessl.cli.views import Views, averaged, calibrated, trunk_of, untrained
from pdessl.cli.workers import Shared, each
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError, did_you_mean
from pdessl.evaluation.classical import least_squares, weak_form
from pdessl.evaluation.metrics import nmse, relative_error
from pdessl.evaluation.tables import regression_row
from pdessl.models import fit_ridge
from pdessl.trajectory import Trajectories

__all__ = ["Classical", "Regression", "RegressionResult", "as_report", "compare_methods"]


@dataclass(frozen=True)
class Classical:
    """Classical estimates of the equation's own coefficient, for Burgers' viscosity.

    Args:
        half_width: frames and points on each side of a test function of the weak form.
        noise_level: known standard deviation of the noise, 0 where it is not known.
    """

    half_width: tuple[int, int] = (6, 6)
    noise_level: float = 0.0


@dataclass(frozen=True)
class Regression:
    """What is compared, and how much is spent on each method.

    Args:
        target: name of the parameter.
        labels: numbers of labelled runs.
        seeds: number of seeds; each draws its own labelled runs, views, initial weights.
        views: views that features are averaged over for the frozen and the random encoder.
        scratch: training of the same network from random weights; None leaves it out.
        finetune: training that starts from the pretrained encoder; None leaves it out.
        classical: classical estimates; None leaves them out (equations other than Burgers).
        shown: number of labels of the figure of predictions; default the smallest.
    """

    target: str = "viscosity"
    labels: tuple[int, ...] = (32, 64, 256)
    seeds: int = 3
    views: Views = field(default_factory=Views)
    scratch: Supervision | None = None
    finetune: Supervision | None = None
    classical: Classical | None = None
    shown: int | None = None


@dataclass
class RegressionResult:
    """Rows of the table, predictions of the first seed by method, and features of the test runs by encoder."""

    rows: list[dict[str, Any]]
    predictions: dict[str, Tensor]
    features: dict[str, Tensor]
    truth: Tensor
    chosen: list[dict[str, Any]]


_TITLES = {
    "frozen": ("frozen encoder, ridge on its features", "pretrained"),
    "finetuned": ("fine-tuned encoder", "pretrained"),
    "mean": ("predict the mean", "floor"),
    "random": ("random encoder, same ridge", "floor"),
    "scratch": ("supervised from scratch", "floor"),
    "least_squares": ("least squares, pointwise", "classical"),
    "weak_form": ("least squares, weak form", "classical"),
}


def _target(runs: Trajectories, name: str) -> Tensor:
    if name not in runs.parameters:
        known = list(runs.parameters)
        raise DataError(
            f"the labelled runs have no parameter '{name}'.{did_you_mean(name, known)} "
            f"They have: {', '.join(known) or 'none'}."
        )
    values = runs.parameters[name].double()
    if not bool((values > 0).all()):
        raise DataError(f"'{name}' has values <= 0; the comparison regresses its logarithm.")
    return values


def compare_methods(
    encoder: nn.Module,
    data: PDEDataModule,
    settings: Regression,
    report: Callable[[str], None] = lambda line: None,
    workers: int = 1,
) -> RegressionResult:
    """Run every method at every number of labels and seed, and score it on the test split.

    All methods regress the logarithm of the parameter and are scored on the parameter itself. Validation data choose
    the learning rate and the length of the training of ``scratch`` and ``finetuned``; the ridge chooses its penalty by
    leave-one-out error of its training labels alone.

    Args:
        encoder: pretrained encoder on fields (B, C, T, *X).
        data: gives labelled subsets, validation and test.
        settings: what is compared.
        report: receives a line of progress after each method.
        workers: processes that the trainings are spread over; see :func:`pdessl.cli.workers.each`.

    Raises:
        DataError: no such parameter, or not enough labelled runs.
    """
    torch_state = torch.random.get_rng_state()
    try:
        return _Comparison(encoder, data, settings, report, workers).run()
    finally:
        torch.random.set_rng_state(torch_state)


def _supervise(shared: Shared, job: tuple[str, int, int]) -> tuple[np.ndarray, dict[str, Any]]:
    """Train one method (``scratch`` or ``finetuned``) on one labelled subset; return test predictions and a summary."""
    method, labels, seed = job
    s, data = shared.settings, shared.data
    start = untrained(shared.encoder, seed=1000 + seed) if method == "scratch" else shared.encoder
    training = s.scratch if method == "scratch" else s.finetune
    labelled = data.labelled_subset(labels, seed)
    found = best_of_sweep(
        start, labelled, data.validation, data.test, s.target, data.store.equation, training, seed
    )
    return found.predictions.double().numpy(), found.summary


class _Comparison:
    def __init__(
        self,
        encoder: nn.Module,
        data: PDEDataModule,
        settings: Regression,
        report: Callable[[str], None],
        workers: int,
    ) -> None:
        self.workers = workers
        self.encoder, self.data, self.settings, self.report = encoder, data, settings, report
        self.equation = data.store.equation
        self.test, self.validation = data.test, data.validation
        self.truth = _target(self.test, settings.target)
        self.predictions: dict[tuple[str, int | None], list[Tensor]] = {}
        self.chosen: list[dict[str, Any]] = []

    def run(self) -> RegressionResult:
        s = self.settings
        # Checked before anything is trained: that there are as many labels as asked for.
        subsets = {(n, k): self.data.labelled_subset(n, k) for n in s.labels for k in range(s.seeds)}
        features = self._ridge_features(subsets)
        for (n, k), labelled in subsets.items():
            target = _target(labelled, s.target).log()
            self._add("mean", n, target.mean().exp().expand(len(self.truth)))
            for method, (train, test) in features.items():
                readout = fit_ridge(train[n, k], target)
                self._add(method, n, readout.predict(test[k])[:, 0].exp())
        jobs = [
            (method, n, k)
            for n, k in subsets
            for method, training in (("scratch", s.scratch), ("finetuned", s.finetune))
            if training is not None
        ]
        shared = Shared(self.encoder, self.data, s)
        for (method, n, k), (values, summary) in zip(
            jobs, each(_supervise, jobs, shared, self.workers), strict=True
        ):
            self._add(method, n, torch.from_numpy(values))
            self.chosen.append({"method": method, "labels": n, "seed": k, **summary})
            self.report(f"{method}, {n} labels, seed {k}: {summary}")
        if s.classical is not None:
            self._add("least_squares", None, least_squares(self.equation, self.test, s.target))
            c = s.classical
            weak = weak_form(self.equation, self.test, s.target, c.half_width, noise_level=c.noise_level)
            self._add("weak_form", None, weak)
        return RegressionResult(
            self._rows(), self._shown(), {m: test[0] for m, (_, test) in features.items()}, self.truth, self.chosen
        )

    def _ridge_features(
        self, subsets: Mapping[tuple[int, int], Trajectories]
    ) -> dict[str, tuple[dict[tuple[int, int], Tensor], list[Tensor]]]:
        """Return, for the pretrained and the random encoder, features of each labelled subset and of test, per seed."""
        s = self.settings
        unlabelled = self.data.unlabelled
        batches = [unlabelled[slice(i, i + 256)] for i in range(0, min(len(unlabelled), 1024), 256)]
        found = {}
        for method in ("frozen", "random"):
            train, test = {}, []
            for k in range(s.seeds):
                encoder = self.encoder
                if method == "random":
                    encoder = trunk_of(calibrated(untrained(self.encoder, seed=1000 + k), batches))
                for n in s.labels:
                    train[n, k] = averaged(encoder, subsets[n, k], s.views, self.equation, seed=k)
                test.append(averaged(encoder, self.test, s.views, self.equation, seed=s.seeds + k))
            found[method] = (train, test)
            self.report(f"features of the {'pretrained' if method == 'frozen' else 'random'} encoder")
        return found

    def _add(self, method: str, labels: int | None, predictions: Tensor) -> None:
        self.predictions.setdefault((method, labels), []).append(predictions.detach().double().cpu())

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        order: Sequence[str] = list(_TITLES)
        keys = sorted(self.predictions, key=lambda key: (order.index(key[0]), key[1] or 0))
        for method, labels in keys:
            values = self.predictions[method, labels]
            title, group = _TITLES[method]
            errors = [float(relative_error(v, self.truth)) for v in values]
            squares = [float(nmse(v, self.truth)) for v in values]
            rows.append(regression_row(method, title, group, labels, errors, squares))
        return rows

    def _shown(self) -> dict[str, Tensor]:
        shown = self.settings.shown or min(self.settings.labels)
        hidden = ("mean", "least_squares")
        at = {m: v[0] for (m, n), v in self.predictions.items() if n in (shown, None) and m not in hidden}
        return {method: at[method] for method in _TITLES if method in at}


def as_report(result: RegressionResult, settings: Regression) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sections and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    arrays: dict[str, Any] = {"predictions/true": result.truth.numpy(), "embedding/parameter": result.truth.numpy()}
    arrays |= {f"predictions/{method}": values.numpy() for method, values in result.predictions.items()}
    arrays |= {f"embedding/{method}": np.asarray(f, dtype=np.float32) for method, f in result.features.items()}
    encoders = {"frozen": "pretrained encoder", "random": "random encoder"}
    sections = {
        "regression": {
            "target": settings.target,
            "test_size": len(result.truth),
            "rows": result.rows,
            "chosen_on_validation": result.chosen,
        },
        "predictions": {
            "labels": settings.shown or min(settings.labels),
            "methods": {method: _TITLES[method][0] for method in result.predictions},
        },
        "embedding": {"encoders": {m: encoders[m] for m in result.features}},
    }
    return sections, arrays
