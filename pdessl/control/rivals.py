"""Hypotheses about runs, values of parameters or rival equations, and what our solvers foresee under each."""

# R rivals, H hypotheses, n experiments, D = M T numbers read in one (time by time), X grid points

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pdessl import catalog
from pdessl.control.description import Domain
from pdessl.control.interventions import (
    Experiments,
    FieldRange,
    ForceRange,
    Limits,
    Refusal,
    SensorChoice,
    Space,
    TimeChoice,
)  # fmt: skip
from pdessl.errors import DataError, SchemaError, did_you_mean
from pdessl.schema import Count, Finite, Overrides, Positive, check_keys, fill, override, read_yaml
from pdessl.solvers import SIMULATORS, Actuators, PeriodicSimulator

__all__ = ["Problem", "Rival", "StudyFile", "Values", "load_problem", "read_study"]

_ROWS = 1024  # runs simulated at a time
_FEWEST, _MOST = 2, 512


@dataclass(frozen=True)
class Values:
    """Values of a parameter: ``count`` of them from ``low`` to ``high``, equally spaced in it or in its logarithm."""

    low: Finite
    high: Finite
    count: Count
    spacing: Literal["linear", "log"] = "log"

    def tensor(self) -> Tensor:
        """Return them, (count,), float64."""
        if not self.low < self.high or self.count < 2 or (self.spacing == "log" and self.low <= 0):
            raise SchemaError(
                f"values from {self.low:g} to {self.high:g}, {self.count} of them, spacing {self.spacing}; expected "
                "low < high, 2 or more, and low > 0 where the logarithm is spaced equally."
            )
        if self.spacing == "linear":
            return torch.linspace(self.low, self.high, self.count, dtype=torch.float64)
        return torch.linspace(math.log(self.low), math.log(self.high), self.count, dtype=torch.float64).exp()


@dataclass(frozen=True)
class Rival:
    """An equation that may be the true one, with its parameters: known numbers, or values of which one is true.

    Args:
        equation: name of an equation (``pdessl list symmetries``), or the path of a file of one; our simulators must
            have one for it in one periodic dimension.
        parameters: of the simulator, name -> number or :class:`Values`; all combinations are hypotheses.
        weight: prior weight, > 0, shared equally by its hypotheses.
    """

    equation: str
    parameters: dict[str, Values | Finite]
    weight: Positive = 1.0

    def kind(self) -> type[PeriodicSimulator]:
        """Return the simulator.

        Raises:
            SchemaError: there is none, or other parameters than it has.
        """
        name = self.equation
        if name.endswith((".yaml", ".yml")):
            name = str(catalog.read("symmetries", name).get("name", Path(name).stem))
        kinds = {k.equation: k for k in SIMULATORS.values() if issubclass(k, PeriodicSimulator) and k.dimensions == 1}
        if name not in kinds:
            raise SchemaError(
                f"no simulator of '{name}' on a periodic interval.{did_you_mean(name, kinds)} There are those of "
                f"{', '.join(kinds)}."
            )
        check_keys(self.parameters, kinds[name].parameter_names, kinds[name].parameter_names, f"{name}: parameters")
        return kinds[name]

    def values(self) -> dict[str, Tensor]:
        """Return every parameter of every hypothesis, name -> (h,), float64."""
        axes = [
            v.tensor() if isinstance(v, Values) else torch.tensor([float(v)], dtype=torch.float64)
            for v in self.parameters.values()
        ]
        grids = torch.meshgrid(*axes, indexing="ij") if axes else ()
        return {name: grid.flatten() for name, grid in zip(self.parameters, grids, strict=True)}


@dataclass(frozen=True)
class StudyFile:
    """A file of ``configs/design/``: what is asked, and what may be done to find out.

    Args:
        hypotheses: name -> rival, 1 to 4 of them.
        ask: ``equation``, which rival it is whatever its parameters, or the name of a parameter; default the
            equation where there are several, else the hypotheses themselves.
        noise: standard deviation of what a sensor reads, > 0, unit of u.
        points: nodes of the solvers' grid, and of the places of sensors.
        domain, initial, force, sensors, times, limits: see these classes.
        title, about, known, chosen: texts.
    """

    hypotheses: dict[str, Rival]
    domain: Domain
    initial: FieldRange
    sensors: SensorChoice
    times: TimeChoice
    noise: Positive
    points: Count
    force: ForceRange | None = None
    limits: Limits = Limits()
    ask: str | None = None
    title: str = ""
    about: str = ""
    known: str = ""
    chosen: str = ""


class Problem:
    """Hypotheses with their prior, the admissible experiments, and what each hypothesis foresees of each.

    Args:
        file: the study.

    Attributes:
        labels: of the hypotheses, ``burgers: viscosity 0.05``.
        weights: prior, (H,).
        answers: number of the answer that each hypothesis gives to what is asked, (H,).
        answer_labels: of the answers.
        space: the experiments.

    Raises:
        SchemaError: no simulator, too few or too many hypotheses, nothing to ask, or experiments that cannot be.
    """

    def __init__(self, file: StudyFile) -> None:
        self.file, self.noise = file, file.noise
        self.space = Space(
            file.domain, file.points, file.initial, file.sensors, file.times, file.force, file.limits
        )  # fmt: skip
        self.dimensions = self.space.dimensions
        if not 1 <= len(file.hypotheses) <= 4:
            raise SchemaError(f"hypotheses: {len(file.hypotheses)} rivals; expected 1 to 4.")
        rivals = list(file.hypotheses.values())
        self.names = list(file.hypotheses)
        self.kinds = [rival.kind() for rival in rivals]
        self.values = [rival.values() for rival in rivals]
        counts = [max([1, *(len(v) for v in values.values())]) for values in self.values]
        if not _FEWEST <= sum(counts) <= _MOST:
            raise SchemaError(f"hypotheses: {sum(counts)} in all; expected {_FEWEST} to {_MOST}.")
        self.rivals = torch.cat([torch.full((c,), i) for i, c in enumerate(counts)])
        shares = torch.tensor([r.weight for r in rivals], dtype=torch.float64)
        weights = (shares / torch.tensor(counts))[self.rivals]
        self.weights = weights / weights.sum()
        self.labels = [self._label(i, row) for i, c in enumerate(counts) for row in range(c)]
        self.answers, self.answer_labels = self._answers()

    def _label(self, rival: int, row: int) -> str:
        told = [f"{name} {float(v[row]):.4g}" for name, v in self.values[rival].items()]
        return f"{self.names[rival]}: {', '.join(told)}" if told else self.names[rival]

    def _answers(self) -> tuple[Tensor, list[str]]:
        ask = self.file.ask or ("equation" if len(self.kinds) > 1 else None)
        if ask is None:
            return torch.arange(len(self.labels)), self.labels
        if ask == "equation":
            if len(self.names) < 2:
                raise SchemaError(f"ask: equation, but there is one rival, {self.names[0]}; give two or more.")
            return self.rivals, self.names
        known = sorted({name for values in self.values for name in values})
        if any(ask not in values for values in self.values):
            raise SchemaError(
                f"ask: '{ask}' is no parameter of every rival.{did_you_mean(ask, known)} Expected 'equation' or one of "
                f"{', '.join(known)}."
            )
        unique, answers = torch.unique(torch.cat([v[ask] for v in self.values]), return_inverse=True)
        if len(unique) < 2:
            raise SchemaError(f"ask: '{ask}' has one value, {float(unique[0]):g}; give low, high and count.")
        return answers, [f"{ask} {float(value):.4g}" for value in unique]

    # ------------------------------------------------------------------------------- what is foreseen

    def outcomes(self, cube: Tensor) -> Tensor:
        """Return what every hypothesis foresees of experiments (n, d), (n, H, D), without noise.

        Not finite where a solver fails.
        """
        return self._foreseen(self.space.decoded(cube))

    def refusals(self, cube: Tensor) -> list[Refusal]:
        """Return every limit with the values of experiments (n, d)."""
        return self.refusals_of(self.space.decoded(cube))

    def refusals_of(self, experiments: Experiments) -> list[Refusal]:
        """Return every limit with the values of experiments: those of the study, and what the grid resolves.

        Initial fields say how many points are needed. A force makes fields that they do not foretell: of experiments
        that no limit refuses the solutions are looked at too, at all steps.
        """
        limits = self.space.refusals(experiments)
        fields = self.space.fields(experiments)[:, None]
        needed = torch.stack([self._needed(i, fields) for i in range(len(self.kinds))]).amax(dim=0)
        if self.file.force is not None:
            passed = [needed <= self.file.points, *(limit.values <= limit.limit for limit in limits)]
            rows = torch.stack(passed).all(dim=0).nonzero().flatten()
            if len(rows):
                needed[rows] = needed[rows].maximum(self._needed_later(_rows(experiments, rows)))
        return [*limits, Refusal("points, those that resolve the solution", needed, float(self.file.points))]

    def _needed_later(self, experiments: Experiments) -> Tensor:
        """Return the points that the sharpest field of any hypothesis needs, (n,); infinite where a solver fails."""
        found = torch.zeros(len(experiments), dtype=torch.float64)
        for rival, values in enumerate(self.values):
            for h in range(max([1, *(len(v) for v in values.values())])):
                own = {name: v[h : h + 1] for name, v in values.items()}
                fields = self._fields(experiments, rival, {n: v.repeat(len(experiments)) for n, v in own.items()})
                needed = self._solver(rival, own, None).points_needed(fields.flatten(0, 1)[:, None])
                needed = needed.unflatten(0, fields.shape[:2]).amax(dim=1)
                good = torch.isfinite(fields).flatten(1).all(dim=1) & torch.isfinite(needed)
                found = found.maximum(needed.masked_fill(~good, math.inf))
        return found

    def _needed(self, rival: int, fields: Tensor) -> Tensor:
        """Return the points that the hypothesis of a rival with the sharpest solutions needs, (n,)."""
        values = self.values[rival]
        rows = max([1, *(len(v) for v in values.values())])
        found = [
            self._solver(rival, {n: v[h] for n, v in values.items()}, None).points_needed(fields) for h in range(rows)
        ]
        return torch.stack(found).amax(dim=0)

    def _solver(self, rival: int, values: Mapping[str, Tensor], forcing: Actuators | None) -> PeriodicSimulator:
        kind: Any = self.kinds[rival]
        return kind(
            **values,
            domain_length=self.file.domain.length,
            points=self.file.points,
            forcing=forcing,
            check_resolution=False,
            dtype=torch.float64,
        )

    def _fields(self, experiments: Experiments, rival: int, values: Mapping[str, Tensor]) -> Tensor:
        """Return fields (B, F, X) at all steps after the start, of B pairs of an experiment and parameters."""
        initial, step = self.space.fields(experiments)[:, None], self.file.times.step
        times = torch.arange(1, self.space.frames + 1, dtype=torch.float64) * step
        parts = []
        for start in range(0, len(initial), _ROWS):
            cut = slice(start, start + _ROWS)
            forcing = None
            if self.file.force is not None:
                each = self.space.frames * step / self.file.force.intervals
                clock = torch.arange(self.file.force.intervals, dtype=torch.float64) * each
                forcing = Actuators(self.space.profiles, experiments.force[cut], clock)
            solver = self._solver(rival, {n: v[cut] for n, v in values.items()}, forcing)
            if forcing is not None:
                # As high as the force can lift the field; the default step is that of the initial one.
                lift = torch.einsum("nas,ax->nsx", forcing.signals, forcing.profiles).abs().amax(dim=2).sum(dim=1)
                reach = initial[cut].abs() + (each * lift)[:, None, None]
                solver.time_step = float(solver.step_needed(reach).amin())
            with torch.no_grad():
                parts.append(solver.solve(initial[cut], times).trajectories.fields[:, 0])
        return torch.cat(parts)

    def foreseen(self, experiments: Experiments) -> Tensor:
        """Return what every hypothesis foresees, (n, H, D): the sensors at the first time, then at the next.

        Raises:
            DataError: a solution that is not finite.
        """
        found = self._foreseen(experiments)
        if not bool(torch.isfinite(found).all()):
            raise DataError("a solver returned values that are not finite: more points, or smaller amplitudes.")
        return found

    def _foreseen(self, experiments: Experiments) -> Tensor:
        setting = torch.cat([experiments.mean[:, None], experiments.amplitudes, experiments.phases,
                             experiments.force.flatten(1)], dim=1)  # fmt: skip
        _, place = torch.unique(setting, dim=0, return_inverse=True)
        first = torch.full((int(place.max()) + 1,), len(place)).scatter_reduce(
            0, place, torch.arange(len(place)), "amin"
        )
        parts = []
        for rival, values in enumerate(self.values):
            h = max([1, *(len(v) for v in values.values())])
            rows = first.repeat_interleave(h)
            own = {name: v.repeat(len(first)) for name, v in values.items()}
            fields = self._fields(_rows(experiments, rows), rival, own).unflatten(0, (len(first), h))
            parts.append(_readings(fields, experiments, place))
        return torch.cat(parts, dim=1)

    def run(self, experiments: Experiments, rival: int, values: Mapping[str, float], noise: Tensor) -> Tensor:
        """Return what the sensors read of one experiment under given parameters: the loop in the solver, (D,).

        Args:
            experiments: of length 1.
            rival: number of the true equation.
            values: its true parameters, also such as are no hypothesis.
            noise: standard normal numbers, (D,).
        """
        own = {name: torch.tensor([float(v)], dtype=torch.float64) for name, v in values.items()}
        fields = self._fields(experiments, rival, own)[:, None]
        return _readings(fields, experiments, torch.zeros(1, dtype=torch.long))[0, 0] + self.noise * noise

    @property
    def size(self) -> int:
        """Return D."""
        return self.file.sensors.count * self.file.times.count


def _rows(experiments: Experiments, rows: Tensor) -> Experiments:
    e = experiments
    return Experiments(
        e.mean[rows], e.amplitudes[rows], e.phases[rows], e.force[rows], e.sensors[rows], e.times[rows]
    )  # fmt: skip


def _readings(fields: Tensor, experiments: Experiments, place: Tensor) -> Tensor:
    """Return readings (n, h, T M) of fields (s, h, F, X), of which experiment i has number ``place[i]``."""
    found = []
    for row, setting in enumerate(place.tolist()):
        chosen = fields[setting][:, experiments.times[row] - 1]
        found.append(chosen[:, :, experiments.sensors[row]].flatten(1))
    return torch.stack(found)


def read_study(
    study: str | os.PathLike[str] | Mapping[str, Any], overrides: Overrides | None = None
) -> tuple[str, dict[str, Any]]:
    """Return where a study is from, and its content with other values laid over it.

    Raises:
        CatalogError: no such study.
        SchemaError: a file that cannot be read.
    """
    if isinstance(study, Mapping):
        return "the study", override(dict(study), overrides)
    path = catalog.find("configs", study)
    return str(path), override(read_yaml(path), overrides)


def load_problem(
    study: str | os.PathLike[str] | Mapping[str, Any] | StudyFile,
    overrides: Overrides | None = None,
    where: str | None = None,
) -> Problem:
    """Read a study of the catalog (``configs/design/``), a YAML file, or its content.

    Args:
        study: its name, path, content, or a study.
        overrides: other values by dotted key, see :func:`pdessl.schema.override`.
        where: for messages about content.

    Raises:
        CatalogError: no such study.
        SchemaError: a key or a value that does not belong, with its place, or experiments that cannot be.
    """
    if isinstance(study, StudyFile):
        return Problem(study)
    place, content = read_study(study, overrides)
    place = where or place
    found = fill(StudyFile, content, place)
    try:
        return Problem(found)
    except SchemaError as error:
        raise SchemaError(f"{place}: {error}") from None
