"""The few-label comparison: a parameter from a frozen or fine-tuned encoder, beside its floors on the same labels.

Every row in closed form is a :class:`pdessl.inference.ParameterModel` measured on the test runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.labels import has_errors
from pdessl.data.statistics import far_from_zero, field_statistics
from pdessl.errors import CheckpointError, DataError, FormatError, PdesslError, ShapeError
from pdessl.evaluation.metrics import error_in_percent, nmse
from pdessl.evaluation.tables import regression_row
from pdessl.evaluation.targets import with_target
from pdessl.experiments.comparison_result import RegressionResult
from pdessl.experiments.estimates import Classical, equation_estimates
from pdessl.experiments.processes import Shared, Workers, each
from pdessl.experiments.regression import METHODS, Regression
from pdessl.experiments.robustness import INTERVALS, interval_rows, reliability
from pdessl.experiments.routes import Route, labelled_validation
from pdessl.experiments.scales import declared_scale
from pdessl.experiments.shifts import applicable, shifted
from pdessl.experiments.supervision import best_of_sweep
from pdessl.experiments.untrained import calibrated, untrained
from pdessl.inference import EnergyEncoder, ParameterModel, PhysicsEncoder
from pdessl.inference.encoding import gives_codes, has_trunk
from pdessl.inference.labels import labels_of
from pdessl.inference.reading import Encoded
from pdessl.inference.regridding import regridded, steps_of
from pdessl.models import bounded, from_scale, to_scale
from pdessl.models.encoder import trained_on
from pdessl.operators import LatentOperator, discover
from pdessl.trajectory import Trajectories

__all__ = ["RUNS_OF_A_LAW", "compare_methods", "law_of_unlabelled"]

RUNS_OF_A_LAW = 1024  # more tell nothing that tables could show
_FEW = 6  # labels, below which some readouts cannot be fitted


def law_of_unlabelled(data: PDEDataModule) -> LatentOperator:
    """Return the law that the first unlabelled runs obey.

    Raises:
        DataError, ShapeError: see :func:`pdessl.operators.discover`.
    """
    return discover(data.unlabelled.without_parameters()[slice(0, RUNS_OF_A_LAW)])


def compare_methods(
    encoder: nn.Module | LatentOperator,
    data: PDEDataModule,
    settings: Regression,
    report: Callable[[str], None] = lambda line: None,
    workers: int | Workers = 1,
    law: LatentOperator | None = None,
) -> RegressionResult:
    """Run every method at every number of labels and seed, and score it on the test split.

    All methods regress the parameter on one scale and are scored on the parameter itself. What a method with labels
    predicts is bounded by their range, widened by half on each side (:func:`pdessl.models.bounded`), alike for all.
    Validation data choose the learning rate and the length of every training by gradient; ridge and nearest neighbours
    choose their setting by leave-one-out error of the training labels alone.

    Args:
        encoder: pretrained encoder on fields (B, C, T, *X), or a law; trainings by gradient need a network.
        data: gives labelled subsets, validation and test.
        settings: what is compared.
        report: receives a line of progress after each method.
        workers: processes that the trainings are spread over; see :func:`pdessl.experiments.processes.each`.
        law: of the unlabelled runs, where it was found before.

    Raises:
        DataError: no such parameter, or not enough labelled runs.
    """
    torch_state = torch.random.get_rng_state()
    try:
        return _Comparison(encoder, data, settings, report, workers, law).run()
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
        {name: runs for name, runs in others.items() if _readable(runs, steps_of(labelled))},
        data.store.constants,
    )
    elsewhere = {name: values.double().numpy() for name, values in found.others.items()}
    return found.predictions.double().numpy(), found.summary, elsewhere


def _readable(runs: Trajectories, steps: Mapping[str, tuple[float, float]]) -> bool:
    """Return whether runs can be brought to the grid of training."""
    try:
        next(regridded(runs, steps))
    except FormatError:
        return False
    return True


class _Comparison:
    def __init__(
        self,
        encoder: nn.Module | LatentOperator,
        data: PDEDataModule,
        settings: Regression,
        report: Callable[[str], None],
        workers: int | Workers,
        law: LatentOperator | None,
    ) -> None:
        self.workers, self.law = workers, law
        self.encoder, self.data, self.settings, self.report = encoder, data, settings, report
        self.equation, self.test = data.store.equation, with_target(data.test, settings.target)
        self.scale = settings.scale or declared_scale(data, settings.target)
        self.truth = torch.from_numpy(labels_of(self.test, settings.target))
        to_scale(self.truth, self.scale, settings.target)  # a label without a logarithm is refused before anything
        self.counts = tuple(dict.fromkeys(n or len(data.labelled_subset(None)) for n in settings.labels))
        self.most = max(self.counts)
        self.seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
        self.predictions: dict[tuple[str, int | None], list[Tensor]] = {}
        self.models: dict[tuple[str, int, int], ParameterModel] = {}
        self.chosen: list[dict[str, Any]] = []
        self.notes = far_from_zero(field_statistics([self.test.fields], self.test.field_names))
        if has_errors(data.store, settings.target):
            self.notes.append(
                "Labels with a standard error σ count by 1/(s² + σ²) in every fit in closed form, s the error of the "
                "method itself; not in trainings by gradient. Errors in the table, and intervals that validation "
                "runs calibrate, are against the labels as they are given."
            )
        self.elsewhere: dict[tuple[str, str], Tensor] = {}  # (shift, method) -> predictions
        shifts, left_out = applicable(data, settings.robustness.shifts if settings.robustness is not None else {})
        self.others = {name: with_target(shifted(data, shift), settings.target) for name, shift in shifts.items()}
        trained = trained_on(encoder).get("equation")
        if trained and trained != self.equation:
            self.notes.append(
                f"The encoder was pretrained on runs of {trained}, these are of {self.equation}: it reads them on the "
                "grid they have, and what pretraining kept need not be what tells this parameter."
            )
        self.notes += left_out

    def run(self) -> RegressionResult:
        s = self.settings
        # Checked before anything is trained: that there are as many labels as asked for.
        subsets = {
            (n, k): with_target(self.data.labelled_subset(n, k), s.target) for n in self.counts for k in self.seeds
        }
        labels = {key: to_scale(torch.from_numpy(labels_of(r, s.target)), self.scale, s.target)
                  for key, r in subsets.items()}  # fmt: skip
        routes = self._routes(subsets)
        self._train(subsets, labels)
        if s.classical is not None:
            for method, values in self._of_the_equation(s.classical, self.test).items():
                self.predictions[method, None] = [values]
        result = RegressionResult(
            rows=self._rows(),
            titles={m: s.title(m)[0] for m, _ in self.predictions},
            predictions=self._shown(),
            features={n: r.held("", self.test).values for n, r in routes.items() if n in ("frozen", "random", "law")},  # type: ignore[union-attr]
            truth=self.truth,
            test=self.test,
            chosen=self.chosen,
            scale=self.scale,
            notes=self.notes,
            models=self.models,
            shifted=self.others,
        )
        if (s.intervals is not None or s.robustness is not None) and routes:
            self._beyond(result, routes, subsets[self.most, self.seeds[0]])
        return result

    # ------------------------------------------------------------------------------- closed forms

    def _routes(self, subsets: Mapping[tuple[int, int], Trajectories]) -> dict[str, Route]:
        """Fit every model in closed form; return the first seed's route of each encoder, by method."""
        s, found = self.settings, dict[str, Route]()
        largest = subsets[self.most, self.seeds[0]]
        law = isinstance(self.encoder, LatentOperator)
        if "law" in s.methods or law:
            self._law(found, subsets, largest)
        if "energy" in s.methods:
            self._energy(found, subsets, largest)
        if not law and {"frozen", "trunk", "neighbours", "mean"} & set(s.methods):
            try:
                route = Route(self.encoder, self.data, s, self.scale, largest)
                route.encode(self.test[[0]])
            except ShapeError as error:
                what = f"{', '.join(self.test.field_names)} over time, {', '.join(self.test.axis_names)}"
                raise ShapeError(
                    f"the encoder cannot read {self.data.store.name} ({what}): {error} Pretrain one on data like these."
                ) from None
            readouts = {
                "frozen": "best" if gives_codes(self.encoder) else "ridge",
                "neighbours": "neighbours",
                "mean": "mean",
            }
            self._fit(route, {m: r for m, r in readouts.items() if m in s.methods}, subsets, self.seeds)
            found["frozen"] = route
            if "trunk" in s.methods and has_trunk(self.encoder):
                found["trunk"] = Route(self.encoder, self.data, s, self.scale, largest, layer="trunk", above=route)
                self._fit(found["trunk"], {"trunk": "ridge"}, subsets, self.seeds)
            self.report("models on the pretrained encoder")
        if "random" in s.methods and not law:
            self._random(found, subsets, largest)
        if "physics" in s.methods:
            try:
                common = largest.window(slice(0, self._shortest(largest)))
                physics = PhysicsEncoder.of(common, s.views.within(common))
                route = Route(physics, self.data, s, self.scale, largest)
                self._fit(route, {"physics": "ridge"}, subsets, self.seeds)
                found["physics"] = route
                self.report("models on hand-made features")
            except ShapeError as error:  # runs too short for a spectrum: the others go on
                self.notes.append(f"{METHODS['physics'][0]}: {error}")
        if "balance" in s.methods:
            try:
                route = Route(PhysicsEncoder.balance(largest), self.data, s, self.scale, largest)
                self._fit(route, {"balance": "best"}, subsets, self.seeds)
                found["balance"] = route
                self.report("models on the energy balance")
            except ShapeError as error:
                self.notes.append(f"{METHODS['balance'][0]}: {error}")
        return found

    def _shortest(self, labelled: Trajectories) -> int:
        """Return the frames of the shortest of the runs that are fitted on, calibrated on and scored."""
        held = [labelled, self.test, labelled_validation(self.data, self.settings.target)]
        return min(runs.fields.shape[2] for runs in held if runs is not None)

    def _law(
        self, found: dict[str, Route], subsets: Mapping[tuple[int, int], Trajectories], largest: Trajectories
    ) -> None:
        """Fit on the codes of a law: the one that was given, else the one that the unlabelled runs obey."""
        readouts, given = {"law": "best"}, isinstance(self.encoder, LatentOperator)
        if given:
            readouts |= {m: m for m in ("neighbours", "mean") if m in self.settings.methods}
        try:
            law = self.encoder if given else self.law or law_of_unlabelled(self.data)
            route = Route(law, self.data, self.settings, self.scale, largest)
            self.notes += [f"{METHODS['law'][0]}: {line}" for line in law.warnings()]
            if not law.rank:
                self.notes.append(f"{METHODS['law'][0]}: nothing in it differs from run to run, so it has no code.")
                return
            self._fit(route, readouts, subsets, self.seeds)
        except PdesslError as error:  # too few or too short runs for a law: the others go on
            if given:
                raise
            self.notes.append(f"{METHODS['law'][0]}: {error}")
            return
        found["law"] = route
        self.report(f"law: {law}")

    def _energy(
        self, found: dict[str, Route], subsets: Mapping[tuple[int, int], Trajectories], largest: Trajectories
    ) -> None:
        """Fit on the codes under which a law foresees the runs best."""
        try:
            given = isinstance(self.encoder, LatentOperator)
            law = self.encoder if given else found["law"].encoder if "law" in found else law_of_unlabelled(self.data)
            route = Route(EnergyEncoder(law), self.data, self.settings, self.scale, largest)
            self._fit(route, {"energy": "best"}, subsets, self.seeds)
        except PdesslError as error:  # no law, or one that cannot be integrated: the others go on
            self.notes.append(f"{METHODS['energy'][0]}: {error}")
            return
        found["energy"] = route
        self.report("models on codes of least forecast error")

    def _random(
        self, found: dict[str, Route], subsets: Mapping[tuple[int, int], Trajectories], largest: Trajectories
    ) -> None:
        unlabelled = self.data.unlabelled
        batches = [unlabelled[slice(i, i + 256)] for i in range(0, min(len(unlabelled), 1024), 256)]
        for k in self.seeds:
            try:
                network = calibrated(untrained(self.encoder, seed=1000 + k), batches)
            except CheckpointError as error:
                self.notes.append(f"{METHODS['random'][0]}: {error}")
                return
            # A random head of few outputs throws most of a random network away: the ridge gets all it has.
            route = Route(network, self.data, self.settings, self.scale, largest, layer="trunk")
            self._fit(route, {"random": "ridge"}, subsets, (k,))
            found.setdefault("random", route)
        self.report("models on random encoders")

    def _fit(
        self,
        route: Route,
        readouts: Mapping[str, str],
        subsets: Mapping[tuple[int, int], Trajectories],
        seeds: Sequence[int],
    ) -> None:
        test = route.held("", self.test)
        if test is None:
            raise FormatError(f"the test runs cannot be read like the labelled ones: {route.refused['']}")
        chosen = {key: self.data.labelled_numbers(*key) for key in subsets if key[1] in seeds}
        # A run of several subsets is encoded once.
        union = np.unique(np.concatenate(list(chosen.values())))
        encoded = route.labelled(with_target(self.data.labelled_runs(union), self.settings.target))
        for (n, k), numbers in chosen.items():
            labelled = encoded[np.searchsorted(union, numbers)]
            for method, readout in readouts.items():
                try:
                    model = route.fit(labelled, readout, errors=self._errors(n, k))
                except DataError as error:
                    if n >= _FEW:
                        raise
                    self.notes.append(f"{self.settings.title(method)[0]}, {n} labels: {error}")
                    continue
                self.models[method, n, k] = model
                self.predictions.setdefault((method, n), []).append(self._predicted(model, test))

    def _errors(self, labels: int, seed: int) -> NDArray[np.float64] | None:
        """Return the standard errors of the labels of a subset, where a table gave any."""
        name = self.settings.target
        return self.data.label_errors(name, labels, seed) if has_errors(self.data.store, name) else None

    def _predicted(self, model: ParameterModel, runs: Encoded) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(np.atleast_1d(model.predict(runs)[self.settings.target].values))

    # -------------------------------------------------------------------------------- by gradient

    def _train(self, subsets: Mapping[tuple[int, int], Trajectories], labels: Mapping[tuple[int, int], Tensor]) -> None:
        s = self.settings
        trainings = s.trainings()
        if not isinstance(self.encoder, nn.Module):
            self.notes += [f"{s.title(m)[0]}: needs a network; a law has nothing to train." for m in trainings]
            return
        fresh = {"scratch", "moved"} & set(trainings)
        try:
            if fresh:
                untrained(self.encoder, seed=0)
        except CheckpointError as error:
            trainings = {m: t for m, t in trainings.items() if m not in fresh}
            self.notes += [f"{METHODS[m][0]}: {error}" for m in sorted(fresh)]
        jobs = [
            (method, n, k, self.scale, bool(self.others) and (n, k) == (self.most, self.seeds[0]))
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
                # Bounded by what the labels allow, as every model in closed form is.
                own = from_scale(bounded(estimate.double(), labels[n, k]), self.scale)
                if name:
                    self.elsewhere[name, method] = own
                else:
                    self.predictions.setdefault((method, n), []).append(own)
            self.chosen.append({"method": method, "labels": n, "seed": k, **summary})
            self.report(f"{method}, {n} labels, seed {k}: {summary}")

    # ---------------------------------------------------------------------- of the equation, and beyond

    def _of_the_equation(self, settings: Classical, runs: Trajectories) -> dict[str, Tensor]:
        """Return the estimates that can be made of these runs; why others cannot is kept as a note."""
        found, reasons = equation_estimates(settings, self.equation, self.settings.target, runs)
        self.notes += [f"{METHODS[method][0]}: {reason}" for method, reason in reasons.items()]
        return found

    def _beyond(self, result: RegressionResult, routes: Mapping[str, Route], labelled: Trajectories) -> None:
        """Fill in the sections on intervals and robustness, at the largest number of labels and the first seed."""
        s, frozen = self.settings, routes.get("frozen") or routes.get("law")
        if s.intervals is not None and frozen is not None:
            encoded = frozen.encode(labelled)
            models = {kind: frozen.fit(encoded, interval=kind) for kind in INTERVALS}
            tests = {"as in training": frozen.held("", self.test)}
            tests |= {name: frozen.held(name, runs) for name, runs in self.others.items()}
            read = {name: runs for name, runs in tests.items() if runs is not None}
            result.intervals = interval_rows(models, read, s.target)
            result.reliability = {
                "levels": list(s.intervals.levels),
                "measured": reliability(models, read["as in training"], s.target, s.intervals.levels),
                "count": len(self.truth),
                "calibrated_on": models["constant"].targets[0].conformal.count,
            }
            self.report("intervals")
        for name, runs in self.others.items():
            own = {}
            if ("mean", self.most) in self.predictions:
                own["mean"] = self.predictions["mean", self.most][0][:1].expand(len(runs))
            for method, route in routes.items():
                model = self.models.get((method, self.most, self.seeds[0]))
                encoded = None if model is None else route.held(name, runs)
                if model is not None and encoded is not None:
                    own[method] = self._predicted(model, encoded)
            own |= {method: values for (shift, method), values in self.elsewhere.items() if shift == name}
            own |= self._of_the_equation(s.classical, runs) if s.classical is not None else {}
            truth = torch.from_numpy(labels_of(runs, s.target))
            for method in s.ordered(own):
                error, square = float(error_in_percent(own[method], truth)), float(nmse(own[method], truth))
                row = {"runs": name, "method": method, "title": s.title(method)[0]}
                result.robustness.append({**row, "relative_error": error, "nmse": square})
            for method, route in routes.items():
                if name in route.refused:
                    self.notes.append(f"{METHODS[method][0]}, {name}: not read: {route.refused[name]}")
            seen = [r.held(name, runs) for r in routes.values() if name not in r.refused]
            done = dict.fromkeys(words for held in seen if held is not None for words in held.reader.regridded)
            if done:
                self.notes.append(f"{name}: brought to the grid of training, but for the law: {'; '.join(done)}.")
        if self.others:
            self.report("robustness")

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for method in self.settings.ordered(m for m, _ in self.predictions):
            for labels in sorted((n for m, n in self.predictions if m == method), key=lambda n: n or 0):
                values = self.predictions[method, labels]
                errors = [float(error_in_percent(v, self.truth)) for v in values]
                squares = [float(nmse(v, self.truth)) for v in values]
                rows.append(regression_row(method, *self.settings.title(method), labels, errors, squares))
        return rows

    def _shown(self) -> dict[str, Tensor]:
        shown = self.settings.shown or min(self.counts)
        hidden = ("mean", "least_squares", "neighbours")
        at = {m: v[0] for (m, n), v in self.predictions.items() if n in (shown, None) and m not in hidden}
        return {method: at[method] for method in self.settings.ordered(at)}
