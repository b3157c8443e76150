"""The few-label comparison: a parameter from a frozen or fine-tuned encoder, beside its floors on the same labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import FormatError, ShapeError
from pdessl.evaluation.metrics import error_in_percent, nmse
from pdessl.evaluation.physics_features import physics_features
from pdessl.evaluation.tables import regression_row
from pdessl.evaluation.targets import with_target
from pdessl.experiments.comparison_result import METHODS, RegressionResult
from pdessl.experiments.estimates import Classical, by_physics, equation_estimates
from pdessl.experiments.processes import Shared, each
from pdessl.experiments.readouts import by_neighbours, by_ridge, declared_scale, targets_of
from pdessl.experiments.robustness import Intervals, Robustness, interval_rows, reliability
from pdessl.experiments.shifts import applicable, shifted
from pdessl.experiments.supervision import Supervision, best_of_sweep
from pdessl.experiments.views import Views, averaged, calibrated, trunk_of, untrained
from pdessl.inference.regridding import regridded, steps_of, trained_steps
from pdessl.models import bounded, from_scale
from pdessl.schema import Count, Size
from pdessl.trajectory import Trajectories

__all__ = ["Regression", "compare_methods"]

ROOM = 0.5  # predictions are bounded by the labels' range and half of it on each side


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
    scale: Literal["log", "linear"] | None = None
    labels: tuple[Size, ...] = (32, 64, 256)
    seeds: Count = 3
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
    shown: Count | None = None

    def trainings(self) -> dict[str, Supervision]:
        """Return the trainings by gradient, by method."""
        own = {"finetuned": self.finetune, "scratch": self.scratch, "moved": self.moved}
        return {name: value for name, value in own.items() if value is not None} | (self.others or {})


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
        workers: processes that the trainings are spread over; see :func:`pdessl.experiments.processes.each`.

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
    labelled = with_target(data.labelled_subset(labels, seed), s.target)
    shifts = applicable(data, s.robustness.shifts)[0] if with_shifts else {}
    others = {n: shifted(data, shift) for n, shift in shifts.items()}
    found = best_of_sweep(
        start,
        labelled,
        with_target(data.validation, s.target),
        data.test,
        s.target,
        data.store.equation,
        s.trainings()[method],
        seed,
        scale,
        {name: runs for name, runs in others.items() if not _on_grid(runs, steps_of(labelled))[1]},
        data.store.constants,
    )
    elsewhere = {name: values.double().numpy() for name, values in found.others.items()}
    return found.predictions.double().numpy(), found.summary, elsewhere


def _on_grid(runs: Trajectories, steps: Mapping[str, tuple[float, float]]) -> tuple[str, str]:
    """Return how networks read runs on another grid than that of training, and why they cannot; empty: as they are."""
    try:
        done = next(regridded(runs, steps)).done
    except FormatError as error:
        return "", str(error)
    return "; ".join(f"{axis} {words}" for axis, words in done.items()), ""


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
        self.equation, self.test = data.store.equation, with_target(data.test, settings.target)
        self.scale = settings.scale or declared_scale(data, settings.target)
        self.truth = from_scale(targets_of(self.test, settings.target, self.scale), self.scale)
        self.counts = tuple(dict.fromkeys(n or len(data.labelled_subset(None)) for n in settings.labels))
        self.most = max(self.counts)
        self.predictions: dict[tuple[str, int | None], list[Tensor]] = {}
        self.chosen: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.elsewhere: dict[tuple[str, str], Tensor] = {}  # (shift, method) -> predictions
        shifts, left_out = applicable(data, settings.robustness.shifts if settings.robustness is not None else {})
        self.others = {name: with_target(shifted(data, shift), settings.target) for name, shift in shifts.items()}
        self.steps = trained_steps(encoder, self.test)
        try:
            self._averaged(self.test[[0]], 0)
        except ShapeError as error:
            what = f"{', '.join(self.test.field_names)} over time, {', '.join(self.test.axis_names)}"
            raise ShapeError(
                f"the encoder cannot read {data.store.name} ({what}): {error} Pretrain one on data like these."
            ) from None
        self.refused: set[str] = set()
        trained = (getattr(encoder, "trained_on", None) or {}).get("equation")
        if trained and trained != self.equation:
            self.notes.append(
                f"The encoder was pretrained on runs of {trained}, these are of {self.equation}: it reads them on the "
                "grid they have, and what pretraining kept need not be what tells this parameter."
            )
        self.notes += left_out
        for name, runs in self.others.items():
            done, reason = _on_grid(runs, self.steps)
            if reason:
                self.refused.add(name)
                self.notes.append(f"{name}: not read by networks: {reason}")
            elif done:
                self.notes.append(f"{name}: brought to the grid of training for networks: {done}.")

    def _averaged(self, runs: Trajectories, seed: int, encoder: nn.Module | None = None) -> Tensor:
        """Return features of runs on the grid of training, averaged over views."""
        constants, network = self.data.store.constants, self.encoder if encoder is None else encoder
        return averaged(network, runs, self.settings.views, self.equation, seed, constants=constants, steps=self.steps)

    def _of_the_equation(self, settings: Classical, runs: Trajectories) -> dict[str, Tensor]:
        """Return the estimates that can be made of these runs; why others cannot is kept as a note."""
        found, reasons = equation_estimates(settings, self.equation, self.settings.target, runs)
        self.notes += [f"{METHODS[method][0]}: {reason}" for method, reason in reasons.items()]
        return found

    def run(self) -> RegressionResult:
        s = self.settings
        # Checked before anything is trained: that there are as many labels as asked for.
        subsets = {
            (n, k): with_target(self.data.labelled_subset(n, k), s.target) for n in self.counts for k in range(s.seeds)
        }
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
            for method, values in self._of_the_equation(s.classical, self.test).items():
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
                    train[n, k] = self._averaged(subsets[n, k], k, encoder)
                test.append(self._averaged(self.test, s.seeds + k, encoder))
            found[method] = (train, test)
            self.report(f"features of the {'pretrained' if method == 'frozen' else 'random'} encoder")
        if s.physics:
            try:
                at_test = physics_features(self.test).values
                found["physics"] = ({k: physics_features(r).values for k, r in subsets.items()}, [at_test] * s.seeds)
                self.report("hand-made features")
            except ShapeError as error:  # runs too short for a spectrum: the others go on
                self.notes.append(f"{METHODS['physics'][0]}: {error}")
        return found

    def _beyond(
        self, result: RegressionResult, features: Mapping[str, Any], known: Tensor, most: tuple[int, int]
    ) -> None:
        """Fill in the sections on intervals and robustness, at the largest number of labels and the first seed."""
        s = self.settings
        seed = s.seeds  # views of the test runs are drawn like this for the first seed
        frozen = {name: self._averaged(r, seed) for name, r in self.others.items() if name not in self.refused}
        truths = {n: targets_of(runs, s.target, self.scale) for n, runs in self.others.items()}
        train, test = features["frozen"]
        if s.intervals is not None:
            validation = with_target(self.data.validation, s.target)
            calibration = self._averaged(validation, seed)
            given = (train[most], known, calibration, targets_of(validation, s.target, self.scale))
            tests = {"as in training": (test[0], targets_of(self.test, s.target, self.scale))}
            tests |= {name: (found, truths[name]) for name, found in frozen.items()}
            result.intervals = interval_rows(*given, tests, self.scale, s.intervals.level)
            curves = reliability(*given, *tests["as in training"], s.intervals.levels)
            result.reliability = {
                "levels": list(s.intervals.levels), "measured": curves, "count": len(self.truth),
                "calibrated_on": len(validation),
            }  # fmt: skip
            self.report("intervals")
        for name, runs in self.others.items():
            found = {"mean": known.mean().expand(len(runs))}
            if name in frozen:
                found["frozen"] = by_ridge(train[most], known, frozen[name])
            if "physics" in features:
                try:
                    found["physics"] = by_physics(self.data.labelled_subset(*most), known, runs)
                except ShapeError as error:  # runs too short for a spectrum: the others go on
                    self.notes.append(f"{METHODS['physics'][0]}, {name}: {error}")
            own = {method: self._own(values, known) for method, values in found.items()}
            own |= {method: values for (shift, method), values in self.elsewhere.items() if shift == name}
            own |= self._of_the_equation(s.classical, runs) if s.classical is not None else {}
            truth = from_scale(truths[name], self.scale)
            for method in self._ordered(own):
                error, square = float(error_in_percent(own[method], truth)), float(nmse(own[method], truth))
                row = {"runs": name, "method": method, "title": self._title(method)[0]}
                result.robustness.append({**row, "relative_error": error, "nmse": square})
        if self.others:
            self.report("robustness")

    def _own(self, on_scale: Tensor, known: Tensor) -> Tensor:
        """Return predictions in the parameter's own unit, bounded by what the labels allow."""
        return from_scale(bounded(on_scale.detach().double().cpu(), known, ROOM), self.scale)

    def _add(self, method: str, labels: int, on_scale: Tensor, known: Tensor) -> None:
        self.predictions.setdefault((method, labels), []).append(self._own(on_scale, known))

    def _title(self, method: str) -> tuple[str, str]:
        if method in METHODS:
            return METHODS[method]
        return self.settings.trainings()[method].title or method, "pretrained"

    def _ordered(self, methods: Any) -> list[str]:
        order = [*list(METHODS)[:3], *(self.settings.others or {}), *list(METHODS)[3:]]
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
