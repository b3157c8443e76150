"""The few-label comparison: a parameter from a frozen or fine-tuned encoder, beside its floors on the same labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.cli.readouts import by_neighbours, by_ridge, declared_scale, targets_of
from pdessl.cli.robustness import Intervals, Robustness, interval_rows, reliability
from pdessl.cli.shifts import shifted
from pdessl.cli.supervision import Supervision, best_of_sweep
from pdessl.cli.views import Views, averaged, calibrated, trunk_of, untrained
from pdessl.cli.workers import Shared, each
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import PdesslError, ShapeError
from pdessl.evaluation.classical import least_squares, weak_form
from pdessl.evaluation.metrics import error_in_percent, nmse
from pdessl.evaluation.physics_features import physics_features
from pdessl.evaluation.tables import regression_row
from pdessl.models import bounded, from_scale
from pdessl.trajectory import Trajectories

__all__ = ["Classical", "Regression", "RegressionResult", "as_report", "compare_methods"]

ROOM = 0.5  # predictions are bounded by the labels' range and half of it on each side


@dataclass(frozen=True)
class Classical:
    """Classical estimates of the equation's own coefficient, where the equation is linear in it.

    Args:
        half_width: frames, and points of each axis, on each side of a test function of the weak form; default 6.
        noise_level: known standard deviation of the noise, 0 where it is not known.
        equation: formulation that is fitted, by name; default that of the data. One without pressure where the data
            hold none.
        unknown: parameters that are estimated together with the target, instead of taken from the runs.
    """

    half_width: tuple[int, ...] | None = None
    noise_level: float = 0.0
    equation: str | None = None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Regression:
    """What is compared, and how much is spent on each method.

    Args:
        target: name of the parameter.
        scale: ``log`` or ``linear``; default what dataset and equation declare.
        labels: numbers of labelled runs; 0 means all there are.
        seeds: number of seeds; each draws its own labelled runs, views, initial weights. Of all labelled runs there is
            one draw only.
        views: views that features are averaged over for the frozen and the random encoder.
        neighbours: also read the frozen encoder by nearest neighbours.
        physics: also fit hand-made features, see :func:`pdessl.evaluation.physics_features.physics_features`.
        scratch: training of the same network from random weights; None leaves it out.
        moved: the same with views that move the label (``views.moves``); None leaves it out.
        finetune: training that starts from the pretrained encoder; None leaves it out.
        others: further trainings from the pretrained encoder, by a short name: other heads, other parts trained.
        classical: classical estimates; None leaves them out (equations that are not linear in the target).
        intervals: kinds of intervals, measured; None leaves them out.
        robustness: what becomes of errors and intervals on other runs; None leaves it out.
        shown: number of labels of the figure of predictions; default the smallest.
    """

    target: str = "viscosity"
    scale: str | None = None
    labels: tuple[int, ...] = (32, 64, 256)
    seeds: int = 3
    views: Views = field(default_factory=Views)
    neighbours: bool = True
    physics: bool = True
    scratch: Supervision | None = None
    moved: Supervision | None = None
    finetune: Supervision | None = None
    others: dict[str, Supervision] | None = None
    classical: Classical | None = None
    intervals: Intervals | None = None
    robustness: Robustness | None = None
    shown: int | None = None

    def trainings(self) -> dict[str, Supervision]:
        """Return the trainings by gradient, by method."""
        own = {"finetuned": self.finetune, "scratch": self.scratch, "moved": self.moved}
        return {name: value for name, value in own.items() if value is not None} | (self.others or {})


@dataclass
class RegressionResult:
    """What a comparison gave.

    Attributes:
        rows: of the table.
        titles: method -> what readers see.
        predictions: of the first seed by method.
        features: of the test runs by encoder.
        truth: of the test runs.
        chosen: what validation chose for each training.
        scale: on which the target was regressed.
        intervals, reliability, robustness: rows and curves of the further sections; empty where they were left out.
        notes: what could not be computed, and why.
    """

    rows: list[dict[str, Any]]
    titles: dict[str, str]
    predictions: dict[str, Tensor]
    features: dict[str, Tensor]
    truth: Tensor
    chosen: list[dict[str, Any]]
    scale: str
    intervals: list[dict[str, Any]] = field(default_factory=list)
    reliability: dict[str, Any] = field(default_factory=dict)
    robustness: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# method -> title and group of the table, in the order of the table
_METHODS = {
    "frozen": ("frozen encoder, ridge on its features", "pretrained"),
    "neighbours": ("frozen encoder, nearest neighbours", "pretrained"),
    "finetuned": ("fine-tuned encoder", "pretrained"),
    "mean": ("predict the mean", "floor"),
    "random": ("random encoder, same ridge", "floor"),
    "physics": ("hand-made physics features, same ridge", "floor"),
    "scratch": ("supervised from scratch", "floor"),
    "moved": ("supervised, views that move the label", "floor"),
    "least_squares": ("least squares, pointwise", "classical"),
    "weak_form": ("least squares, weak form", "classical"),
}


def compare_methods(
    encoder: nn.Module,
    data: PDEDataModule,
    settings: Regression,
    report: Callable[[str], None] = lambda line: None,
    workers: int = 1,
) -> RegressionResult:
    """Run every method at every number of labels and seed, and score it on the test split.

    All methods regress the parameter on one scale and are scored on the parameter itself. What a method with labels
    predicts is bounded by their range, widened by half on each side (:func:`pdessl.models.bounded`), alike for all.
    Validation data choose the learning rate and the length of every training by gradient; ridge and nearest neighbours
    choose their setting by leave-one-out error of the training labels alone.

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


def _supervise(shared: Shared, job: tuple[str, int, int, str, bool]) -> tuple[np.ndarray, dict[str, Any], dict]:
    """Train one method on one labelled subset; return predictions of test (and shifted) runs and a summary."""
    method, labels, seed, scale, with_shifts = job
    s, data = shared.settings, shared.data
    fresh = method in ("scratch", "moved")
    start = untrained(shared.encoder, seed=1000 + seed) if fresh else shared.encoder
    others = {n: shifted(data, shift) for n, shift in s.robustness.shifts.items()} if with_shifts else {}
    found = best_of_sweep(
        start,
        data.labelled_subset(labels, seed),
        data.validation,
        data.test,
        s.target,
        data.store.equation,
        s.trainings()[method],
        seed,
        scale,
        others,
        data.store.constants,
    )
    elsewhere = {name: values.double().numpy() for name, values in found.others.items()}
    return found.predictions.double().numpy(), found.summary, elsewhere


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
        self.equation, self.test = data.store.equation, data.test
        self.scale = settings.scale or declared_scale(data, settings.target)
        self.truth = from_scale(targets_of(self.test, settings.target, self.scale), self.scale)
        self.counts = tuple(dict.fromkeys(n or len(data.labelled_subset(None)) for n in settings.labels))
        self.most = max(self.counts)
        self.predictions: dict[tuple[str, int | None], list[Tensor]] = {}
        self.chosen: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.elsewhere: dict[tuple[str, str], Tensor] = {}  # (shift, method) -> predictions
        shifts = settings.robustness.shifts if settings.robustness is not None else {}
        self.others = {name: shifted(data, shift) for name, shift in shifts.items()}

    def run(self) -> RegressionResult:
        s = self.settings
        # Checked before anything is trained: that there are as many labels as asked for.
        subsets = {(n, k): self.data.labelled_subset(n, k) for n in self.counts for k in range(s.seeds)}
        labels = {key: targets_of(runs, s.target, self.scale) for key, runs in subsets.items()}
        features = self._features(subsets)
        for key, known in labels.items():
            n, k = key
            self._add("mean", n, known.mean().expand(len(self.truth)), known)
            for method, (train, test) in features.items():
                self._add(method, n, by_ridge(train[key], known, test[k]), known)
            if s.neighbours:
                train, test = features["frozen"]
                self._add("neighbours", n, by_neighbours(train[key], known, test[k]), known)
        self._train(subsets, labels)
        if s.classical is not None:
            for method, values in self._classical(self.test).items():
                self.predictions[method, None] = [values]
        most = (self.most, 0)
        result = RegressionResult(
            rows=self._rows(),
            titles={m: self._title(m)[0] for m, _ in self.predictions},
            predictions=self._shown(),
            features={m: test[0] for m, (_, test) in features.items() if m != "physics"},
            truth=self.truth,
            chosen=self.chosen,
            scale=self.scale,
            notes=self.notes,
        )
        if s.intervals is not None or s.robustness is not None:
            self._beyond(result, features, labels[most], most)
        return result

    def _train(self, subsets: Mapping[tuple[int, int], Trajectories], labels: Mapping[tuple[int, int], Tensor]) -> None:
        s = self.settings
        trainings = s.trainings()
        jobs = [
            (method, n, k, self.scale, bool(self.others) and (n, k) == (self.most, 0))
            for n, k in subsets
            for method in trainings
        ]
        shared = Shared(self.encoder, self.data, s)
        for job, (values, summary, others) in zip(jobs, each(_supervise, jobs, shared, self.workers), strict=True):
            method, n, k = job[:3]
            on_scale = {"": values, **others}
            for name, found in on_scale.items():
                estimate = torch.from_numpy(found)
                estimate = estimate.clamp_min(1e-300).log() if self.scale == "log" else estimate
                if name:
                    self.elsewhere[name, method] = self._own(estimate, labels[n, k])
                else:
                    self._add(method, n, estimate, labels[n, k])
            self.chosen.append({"method": method, "labels": n, "seed": k, **summary})
            self.report(f"{method}, {n} labels, seed {k}: {summary}")

    def _features(
        self, subsets: Mapping[tuple[int, int], Trajectories]
    ) -> dict[str, tuple[dict[tuple[int, int], Tensor], list[Tensor]]]:
        """Return, by method, features of each labelled subset and of the test runs per seed."""
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
                for n in self.counts:
                    train[n, k] = averaged(encoder, subsets[n, k], s.views, self.equation, seed=k)
                test.append(averaged(encoder, self.test, s.views, self.equation, seed=s.seeds + k))
            found[method] = (train, test)
            self.report(f"features of the {'pretrained' if method == 'frozen' else 'random'} encoder")
        if s.physics:
            try:
                at_test = physics_features(self.test).values
                found["physics"] = ({k: physics_features(r).values for k, r in subsets.items()}, [at_test] * s.seeds)
                self.report("hand-made features")
            except ShapeError as error:  # runs too short for a spectrum: the others go on
                self.notes.append(f"{_METHODS['physics'][0]}: {error}")
        return found

    def _classical(self, runs: Trajectories) -> dict[str, Tensor]:
        """Return the estimates that can be made of these runs; why others cannot is kept as a note."""
        c = self.settings.classical
        assert c is not None  # noqa: S101  (asked for by the caller)
        equation, names = c.equation or self.equation, (self.settings.target, *c.unknown)
        half = c.half_width
        if half is not None:  # shorter or coarser runs take narrower test functions
            half = tuple(max(1, min(h, (n - 1) // 4)) for h, n in zip(half, runs.fields.shape[2:], strict=False))
        makers: dict[str, Callable[[], Tensor]] = {
            "least_squares": lambda: least_squares(equation, runs, names),
            "weak_form": lambda: weak_form(equation, runs, names, half, noise_level=c.noise_level),
        }
        found = {}
        for method, make in makers.items():
            try:
                found[method] = make()[:, 0].cpu()
            except PdesslError as error:
                self.notes.append(f"{_METHODS[method][0]}: {error}")
        return found

    def _beyond(
        self, result: RegressionResult, features: Mapping[str, Any], known: Tensor, most: tuple[int, int]
    ) -> None:
        """Fill in the sections on intervals and robustness, at the largest number of labels and the first seed."""
        s = self.settings
        seed = s.seeds  # views of the test runs are drawn like this for the first seed
        frozen = {name: averaged(self.encoder, r, s.views, self.equation, seed) for name, r in self.others.items()}
        truths = {n: targets_of(runs, s.target, self.scale) for n, runs in self.others.items()}
        train, test = features["frozen"]
        if s.intervals is not None:
            validation = self.data.validation
            calibration = averaged(self.encoder, validation, s.views, self.equation, seed)
            given = (train[most], known, calibration, targets_of(validation, s.target, self.scale))
            tests = {"as in training": (test[0], targets_of(self.test, s.target, self.scale))}
            tests |= {name: (frozen[name], truths[name]) for name in self.others}
            result.intervals = interval_rows(*given, tests, self.scale, s.intervals.level)
            curves = reliability(*given, *tests["as in training"], s.intervals.levels)
            result.reliability = {
                "levels": list(s.intervals.levels), "measured": curves, "count": len(self.truth),
                "calibrated_on": len(validation),
            }  # fmt: skip
            self.report("intervals")
        for name, runs in self.others.items():
            found = {"mean": known.mean().expand(len(runs)), "frozen": by_ridge(train[most], known, frozen[name])}
            if "physics" in features:
                try:
                    found["physics"] = self._by_physics(runs, self.data.labelled_subset(*most), known)
                except ShapeError as error:  # runs too short for a spectrum: the others go on
                    self.notes.append(f"{_METHODS['physics'][0]}, {name}: {error}")
            own = {method: self._own(values, known) for method, values in found.items()}
            own |= {method: values for (shift, method), values in self.elsewhere.items() if shift == name}
            own |= self._classical(runs) if s.classical is not None else {}
            truth = from_scale(truths[name], self.scale)
            for method in self._ordered(own):
                error, square = float(error_in_percent(own[method], truth)), float(nmse(own[method], truth))
                row = {"runs": name, "method": method, "title": self._title(method)[0]}
                result.robustness.append({**row, "relative_error": error, "nmse": square})
        if self.others:
            self.report("robustness")

    def _by_physics(self, runs: Trajectories, labelled: Trajectories, known: Tensor) -> Tensor:
        """Fit the hand-made features that both have: a coarser grid or a shorter run has fewer of the spectrum's."""
        here, there = physics_features(runs), physics_features(labelled)
        held = [name for name in there.names if name in here.names]
        columns, others = ([f.names.index(name) for name in held] for f in (there, here))
        return by_ridge(there.values[:, columns], known, here.values[:, others])

    def _own(self, on_scale: Tensor, known: Tensor) -> Tensor:
        """Return predictions in the parameter's own unit, bounded by what the labels allow."""
        return from_scale(bounded(on_scale.detach().double().cpu(), known, ROOM), self.scale)

    def _add(self, method: str, labels: int, on_scale: Tensor, known: Tensor) -> None:
        self.predictions.setdefault((method, labels), []).append(self._own(on_scale, known))

    def _title(self, method: str) -> tuple[str, str]:
        if method in _METHODS:
            return _METHODS[method]
        return self.settings.trainings()[method].title or method, "pretrained"

    def _ordered(self, methods: Any) -> list[str]:
        order = [*list(_METHODS)[:3], *(self.settings.others or {}), *list(_METHODS)[3:]]
        return sorted(dict.fromkeys(methods), key=order.index)

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for method in self._ordered(m for m, _ in self.predictions):
            for labels in sorted((n for m, n in self.predictions if m == method), key=lambda n: n or 0):
                values = self.predictions[method, labels]
                errors = [float(error_in_percent(v, self.truth)) for v in values]
                squares = [float(nmse(v, self.truth)) for v in values]
                rows.append(regression_row(method, *self._title(method), labels, errors, squares))
        return rows

    def _shown(self) -> dict[str, Tensor]:
        shown = self.settings.shown or min(self.counts)
        hidden = ("mean", "least_squares", "neighbours")
        at = {m: v[0] for (m, n), v in self.predictions.items() if n in (shown, None) and m not in hidden}
        return {method: at[method] for method in self._ordered(at)}


def as_report(result: RegressionResult, settings: Regression) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sections and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    arrays: dict[str, Any] = {"predictions/true": result.truth.numpy(), "embedding/parameter": result.truth.numpy()}
    arrays |= {f"predictions/{method}": values.numpy() for method, values in result.predictions.items()}
    arrays |= {f"embedding/{method}": np.asarray(f, dtype=np.float32) for method, f in result.features.items()}
    encoders = {"frozen": "pretrained encoder", "random": "random encoder"}
    counts = [row["labels"] for row in result.rows if row["labels"] is not None]
    sections: dict[str, Any] = {
        "regression": {
            "target": settings.target,
            "scale": result.scale,
            "test_size": len(result.truth),
            "rows": result.rows,
            "chosen_on_validation": result.chosen,
            "notes": result.notes,
        },
        "predictions": {
            "labels": settings.shown or min(counts),
            "methods": {method: result.titles[method] for method in result.predictions},
        },
        "embedding": {"encoders": {m: encoders[m] for m in result.features}},
    }
    if result.intervals:
        sections["intervals"] = {"rows": result.intervals, "reliability": result.reliability}
    if result.robustness:
        sections["robustness"] = {"labels": max(counts), "rows": result.robustness}
    return sections, arrays
