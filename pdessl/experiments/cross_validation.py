"""The comparison of methods where labelled runs are too few to be set aside: they are left out in turn."""

# n labelled runs

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.labels import label_errors
from pdessl.data.source import Source
from pdessl.data.statistics import far_from_zero, field_statistics
from pdessl.errors import CheckpointError, DataError, PdesslError, did_you_mean
from pdessl.evaluation.metrics import error_in_percent, nmse
from pdessl.evaluation.tables import regression_row
from pdessl.experiments.comparison_result import RegressionResult
from pdessl.experiments.estimates import balance_itself, equation_estimates
from pdessl.experiments.regression import CLOSED, METHODS, Regression
from pdessl.experiments.routes import Route
from pdessl.experiments.untrained import calibrated, untrained
from pdessl.inference import EnergyEncoder, ParameterModel, PhysicsEncoder, RunEncoder
from pdessl.inference.encoding import has_trunk
from pdessl.inference.format import InputFormat
from pdessl.inference.measured import Measured, MeasuredParameter
from pdessl.inference.reading import Encoded
from pdessl.operators import LatentOperator, discover
from pdessl.trajectory import Trajectories

__all__ = ["LabelledRuns", "cross_validate", "labelled_runs"]

FEWEST = 3  # labelled runs
_FOLDS = 10
_RUNS_OF_A_LAW = 64
_RUNS_OF_STATISTICS = 64


@dataclass(frozen=True, eq=False)
class LabelledRuns:
    """Labelled runs that may differ in length.

    Args:
        parts: runs of equal length each, that of most runs first.
        groups: of every run, (n,): runs of one group are left out together.
        common: all runs, cut to the frames of the shortest, with their labels.
        errors: standard errors of the labels, (n,), not a number where nothing is said; None where nothing is of any.
    """

    parts: tuple[Trajectories, ...]
    groups: NDArray[np.int64]
    common: Trajectories
    errors: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.common)


def labelled_runs(data: PDEDataModule, target: str) -> LabelledRuns:
    """Return the runs of a data module that have a value of a parameter, each as long as it is.

    Raises:
        DataError: no such parameter, or fewer than three runs that have it.
    """
    parts, groups, errors = [], [], []
    source: Source = data.store
    for chosen in data.selections("labelled", short=True):
        known = chosen.parameter_values().get(target)
        if known is None:
            continue
        kept = chosen[np.isfinite(known)]
        for number in np.unique(kept.split):
            rows = kept.rows[kept.split == number]
            runs = source.load(kept.splits[number], rows, fields=data.fields)
            parts.append(runs.replace(fields=runs.fields.to(torch.float32)))
            groups.append(source.groups(kept.splits[number])[rows])
            errors.append(label_errors(source, target, kept.splits[number], rows))
    if not parts:
        held = ", ".join(source.parameters) or "none"
        raise DataError(
            f"no run of {source.name} has a parameter '{target}'.{did_you_mean(target, source.parameters)} They have: "
            f"{held}. Write it into the files (an attribute, or a variable without dimensions), or give a table: "
            "--labels labels.csv, with columns file and value."
        )
    frames = min(part.fields.shape[2] for part in parts)
    common = Trajectories.concatenate([part.window(slice(0, frames)) for part in parts])
    if len(common) < FEWEST:
        raise DataError(
            f"{len(common)} runs of {source.name} have '{target}'; expected {FEWEST} or more (6 for intervals). Label "
            "more: write it into their files, or give a table: --labels labels.csv, with columns file and value."
        )
    known = np.concatenate(errors)
    return LabelledRuns(tuple(parts), np.concatenate(groups), common, known if np.isfinite(known).any() else None)


def cross_validate(
    encoder: nn.Module | RunEncoder | None,
    data: PDEDataModule,
    settings: Regression,
    report: Callable[[str], None] = lambda line: None,
) -> RegressionResult:
    """Fit every method in closed form on all labelled runs, and score it on runs left out of the fit by tenths.

    No run that is scored was seen by what predicts it, its label or its group. The model of a method that is kept was
    fitted on all labelled runs.

    Args:
        encoder: pretrained encoder, a law, or None: what needs neither.
        data: gives runs with and without labels; runs may differ in length.
        settings: target, methods, views, intervals. Trainings by gradient need validation runs, and are left out.
        report: receives a line of progress after each method.

    Raises:
        DataError: too few labelled runs.
    """
    state = torch.random.get_rng_state()
    try:
        return _CrossValidation(encoder, data, settings, report).run()
    finally:
        torch.random.set_rng_state(state)


class _CrossValidation:
    def __init__(
        self,
        encoder: nn.Module | RunEncoder | None,
        data: PDEDataModule,
        settings: Regression,
        report: Callable[[str], None],
    ) -> None:
        self.encoder, self.data, self.settings, self.report = encoder, data, settings, report
        self.runs = labelled_runs(data, settings.target)
        self.truth = self.runs.common.parameters[settings.target].double()
        self.scale = settings.scale or _scale(self.truth)
        self.fold = _tenths(self.runs.groups, settings.first_seed)
        self.models: dict[tuple[str, int, int], ParameterModel] = {}
        self.measured: dict[str, Measured] = {}
        self.features: dict[str, Tensor] = {}
        self.notes: list[str] = []

    def run(self) -> RegressionResult:
        s, n = self.settings, len(self.runs)
        self.notes.append(
            f"Every error is that of the {n} labelled runs, each predicted by a fit without its tenth of them; one "
            "division into tenths, so that differences between methods are not tested."
        )
        if self.runs.errors is not None:
            given = int((np.nan_to_num(self.runs.errors) > 0).sum())
            self.notes.append(
                f"{given} labels have a standard error σ: labels count by 1/(s² + σ²) in every fit, s the error of the "
                "method itself; errors in the table are against the labels as they are given."
            )
        self.notes += far_from_zero(field_statistics([self.runs.common.fields], self.runs.common.field_names))
        if s.trainings():
            self.notes.append("Trainings by gradient need validation runs, of which these data have none.")
        for method, made, readout in self._methods():
            try:
                self._score(method, made, readout)
            except PdesslError as error:
                self.notes.append(f"{METHODS[method][0]}: {error}")
                self.report(f"left out: {self.notes[-1]}")
        if not set(self.measured) - {"mean"}:
            raise DataError(f"no method could be fitted on {n} labelled runs. {' '.join(self.notes[1:])}")
        rows = [
            regression_row(method, *s.title(method), n, [found.error], [found.nmse])
            for method, found in ((m, self.measured[m].parameters[s.target]) for m in s.ordered(self.measured))
        ]
        classical = self._classical()
        for method, values in classical.items():
            errors = [float(error_in_percent(values, self.truth))], [float(nmse(values, self.truth))]
            rows.append(regression_row(method, *s.title(method), None, *errors))
        shown = {
            m: torch.from_numpy(f.parameters[s.target].prediction) for m, f in self.measured.items() if m != "mean"
        }
        return RegressionResult(
            rows=rows,
            titles={m: s.title(m)[0] for m in (*self.measured, *classical)},
            predictions={m: {**shown, **classical}[m] for m in s.ordered({**shown, **classical})},
            features=self.features,
            truth=self.truth,
            test=self.runs.common,
            chosen=[],
            scale=self.scale,
            notes=self.notes,
            models=self.models,
            left_out=self.measured,
        )

    def _methods(self) -> Iterator[tuple[str, Any, str]]:
        """Yield method, what makes its encoder, and its readout, those that are asked for and can be."""
        s, law = self.settings, isinstance(self.encoder, LatentOperator)
        wanted = set(s.methods) | ({"balance"} if s.methods == CLOSED else set())
        if law or "law" in wanted:
            yield "law", (lambda: self.encoder) if law else self._law, "best"
        if "energy" in wanted:
            yield "energy", lambda: EnergyEncoder(self.encoder if law else self._law()), "best"
        if isinstance(self.encoder, nn.Module):
            readouts = {"frozen": "ridge", "neighbours": "neighbours"}
            yield from ((m, lambda: self.encoder, r) for m, r in readouts.items() if m in wanted)
            if "trunk" in wanted and has_trunk(self.encoder):
                yield "trunk", lambda: self.encoder, "ridge"
            if "random" in wanted:
                yield "random", self._random, "ridge"
        common = self.runs.common
        if "physics" in wanted:
            yield "physics", lambda: PhysicsEncoder.of(common, s.views.within(common)), "ridge"
        if "balance" in wanted:
            yield "balance", lambda: PhysicsEncoder.balance(common), "best"
        if "mean" in wanted:
            yield "mean", lambda: PhysicsEncoder.balance(self.runs.common), "mean"

    def _law(self) -> LatentOperator:
        runs = self._unlabelled(_RUNS_OF_A_LAW)
        law = discover(runs)
        self.notes += [f"{METHODS['law'][0]}: {line}" for line in law.warnings()]
        if not law.rank:
            raise DataError("nothing in it differs from run to run, so it has no code.")
        self.report(f"law: {law}")
        return law

    def _random(self) -> nn.Module:
        assert isinstance(self.encoder, nn.Module)  # noqa: S101  (see _methods)
        try:
            return calibrated(untrained(self.encoder, seed=1000), [self._unlabelled(_RUNS_OF_STATISTICS)])
        except CheckpointError as error:
            raise DataError(str(error)) from None

    def _unlabelled(self, most: int) -> Trajectories:
        """Return runs without labels: the unlabelled ones, else the labelled ones."""
        try:
            runs = self.data.unlabelled
        except PdesslError:
            runs = self.runs.common
        return runs.without_parameters(tuple(self.data.store.constants))[slice(0, most)]

    def _score(self, method: str, make: Callable[[], nn.Module | RunEncoder], readout: str) -> None:
        layer = "trunk" if method in ("random", "trunk") else "features"
        route = Route(make(), self.data, self.settings, self.scale, self.runs.common, layer, calibrate=False)
        whole = self._encoded(route)
        n, target = len(self.runs), self.settings.target
        columns: list[NDArray[np.float64]] = [np.empty(n) for _ in range(3)]
        novelty, known = np.empty(n), np.empty(n, dtype=bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            errors = self.runs.errors
            model = route.fit(whole, readout, errors=errors)
            model = dataclasses.replace(model, format=self._of_all_lengths(route, model.format))
            self.models[method, n, self.settings.first_seed] = model
            for k in range(int(self.fold.max()) + 1):
                left, kept = np.flatnonzero(self.fold == k), np.flatnonzero(self.fold != k)
                part = route.fit(whole[kept], readout, errors=None if errors is None else errors[kept])
                part = part.predict(whole[left])
                for column, end in zip(columns, ("", "_low", "_high"), strict=True):
                    column[left] = part[target + end].values
                novelty[left], known[left] = part["novelty"].values, part["in_distribution"].values
        found = MeasuredParameter.of(self.truth.numpy(), *columns, model.level)
        self.measured[method] = Measured(n, novelty, known, {target: found})
        if method in ("frozen", "random", "law"):
            self.features[method] = whole.values
        self.report(f"{METHODS[method][0]}: {found.error:.3g} %")

    def _encoded(self, route: Route) -> Encoded:
        """Encode runs of each length, and join them."""
        each = [route.encode(part) for part in self.runs.parts]
        trunks = [e.trunk for e in each if e.trunk is not None]
        first = route.encode(self.runs.common) if len(each) > 1 else each[0]
        return dataclasses.replace(
            first,
            data=self.runs.common,
            values=torch.cat([e.values for e in each]),
            trunk=torch.cat(trunks) if len(trunks) == len(each) else None,
        )

    def _of_all_lengths(self, route: Route, declared: InputFormat) -> InputFormat:
        """Return a format whose ranges are those of the runs of every length."""
        each = [InputFormat.of(p, route.encoder, route.views).ranges for p in self.runs.parts]
        ranges = {n: (min(r[n][0] for r in each), max(r[n][1] for r in each)) for n in declared.ranges}
        return dataclasses.replace(declared, ranges=ranges)

    def _classical(self) -> Mapping[str, Tensor]:
        """Return what needs no label."""
        s, source = self.settings, self.data.store
        unit = source.units.get(s.target, "")
        decay = [balance_itself(source.equation, s.target, unit, part) for part in self.runs.parts]
        found = {"decay": torch.cat([d for d in decay if d is not None])} if all(d is not None for d in decay) else {}
        if s.classical is None or source.equation is None:
            return found
        parts = [equation_estimates(s.classical, source.equation, s.target, p) for p in self.runs.parts]
        for method, reason in parts[0][1].items():
            self.notes.append(f"{METHODS[method][0]}: {reason}")
        return found | {m: torch.cat([f[m] for f, _ in parts]) for m in parts[0][0] if all(m in f for f, _ in parts)}


def _tenths(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the part that each run is left out with, (n,): ten or fewer, groups whole."""
    _, group = np.unique(groups, return_inverse=True)
    number = int(group.max()) + 1
    if number < FEWEST:
        raise DataError(
            f"the labelled runs are in {number} groups (files with one value); expected {FEWEST} or more, so that some "
            "can be left out."
        )
    part = np.empty(number, dtype=np.int64)
    part[np.random.default_rng(seed).permutation(number)] = np.arange(number) % min(_FOLDS, number)
    return part[group]


def _scale(labels: Tensor) -> str:
    """Return ``log`` for labels of one sign over a factor of three or more, as those of a decade are."""
    return "log" if bool((labels > 0).all()) and float(labels.max() / labels.min()) >= 3 else "linear"
