"""``design``: the next experiment for a laboratory, or a loop of them in the solver."""

# n experiments, H hypotheses, A answers, D numbers read in one

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.control.choosing import Best, experiment
from pdessl.control.decisions import Choice, Chooser, Equal, Sobol, Uniform, over_limits
from pdessl.control.information import answer_weights, entropy, updated
from pdessl.control.rivals import Problem, StudyFile, load_problem
from pdessl.errors import CatalogError, DataError, did_you_mean
from pdessl.experiments.laboratory import read_result, write_experiment
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.files import write_json
from pdessl.schema import Overrides, dump_yaml, read_yaml
from pdessl.solvers import random_stream
from pdessl.written import say

__all__ = ["WAYS", "DesignResult", "chooser_of", "design", "drawn_noise", "provenance"]

#: Ways of choosing, and what each is.
WAYS: dict[str, str] = {
    "information": "largest expected information gain",
    "separation": "largest worst-case separation",
    "random": "by chance",
    "sobol": "Sobol sequence",
    "equal": "equal spacing",
}
_SHOWN = 6
_EXPERIMENT = re.compile(r"experiment_(\d+)", re.ASCII)


@dataclass(frozen=True, eq=False)
class DesignResult:
    """Experiments that were made, what is believed after them, and what to do next.

    Args:
        problem: the study.
        made: experiments with results, as plain data.
        observed: what was read in each, (D,).
        weights: belief in the hypotheses before, and after each, (n + 1, H).
        following: the experiment to make next, as plain data; None where one answer is sure enough, or enough are made.
        value: what is expected of it, in nats or in standard deviations of the noise; None for floors.
        folder: where it was written.
    """

    problem: Problem
    made: Sequence[Mapping[str, Any]]
    observed: Sequence[Tensor]
    weights: Tensor
    following: Mapping[str, Any] | None = None
    value: float | None = None
    folder: Path | None = None

    @property
    def answers(self) -> dict[str, float]:
        """Return the weight of every answer, the likeliest first."""
        found = answer_weights(self.weights[-1], self.problem.answers).tolist()
        pairs = zip(self.problem.answer_labels, found, strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def content(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        p = self.problem
        beliefs = [answer_weights(w, p.answers).tolist() for w in self.weights]
        return {
            "title": p.file.title,
            "answers": p.answer_labels,
            "experiments": [
                {**made, "observed": [None if math.isnan(v) else v for v in read.tolist()]}
                for made, read in zip(self.made, self.observed, strict=True)
            ],
            "weights": beliefs,
            "entropy": [entropy(torch.tensor(w)) for w in beliefs],
            "next": self.following,
            "expected": self.value,
        }

    def __str__(self) -> str:
        """Return the answers and the next experiment as text."""
        lines = [f"after {len(self.made)} experiments:"]
        lines += [f"  {100 * w:5.1f} %  {label}" for label, w in list(self.answers.items())[:_SHOWN]]
        if self.following is not None:
            about = "" if self.value is None else f" (expected of it: {self.value:.3g})"
            lines += [f"next experiment{about}:", *("  " + line for line in dump_yaml(self.following).splitlines())]
        return "\n".join(lines)


def chooser_of(by: str, seed: int, total: int) -> Chooser:
    """Return the chooser of a word of :data:`WAYS`.

    Raises:
        CatalogError: no such word.
    """
    if by not in WAYS:
        raise CatalogError(f"no way of choosing '{by}'.{did_you_mean(by, WAYS)} Ways: {', '.join(WAYS)}.")
    if by == "random":
        return Uniform(seed)
    if by == "sobol":
        return Sobol(seed)
    return Equal(total) if by == "equal" else Best("information" if by == "information" else "separation", seed=seed)


def design(
    study: str | os.PathLike[str] | Mapping[str, Any] | StudyFile,
    truth: Mapping[str, Any] | None = None,
    *,
    by: str = "information",
    experiments: int = 16,
    until: float = 0.95,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    where: str | None = None,
    announce: Callable[[str], None] = say,
) -> DesignResult:
    """Choose the experiment that decides between hypotheses: for a laboratory, or in a loop with the solver.

    Without a truth, ``out`` is the desk of a laboratory: results that are in it are read, the posterior is updated, and
    the next experiment is written beside them, ``experiment_001/design.yaml`` with a table ``result.csv`` to fill in.
    Call it again afterwards. A design may be changed before it is made: what the file says is what counts. With a truth
    the chosen experiments are run in the solver under it, with noise, until one answer is sure.

    Args:
        study: name (``pdessl list configs``, ``design/...``), YAML file, or content, see
            :class:`pdessl.control.rivals.StudyFile`.
        truth: parameters of the runs, which need not be a hypothesis, and ``equation``, a rival's name, where there are
            several.
        by: a word of :data:`WAYS`.
        experiments: most of them, >= 1.
        until: weight of an answer at which it is taken as sure.
        seed: of the search and the noise, which are drawn from different streams; >= 0.
        out: folder; None: nothing is written, and the first experiment is returned.
        overrides: other values of the study by dotted key.
        where: the file that content is from, for messages.
        announce: receives a line after each experiment of the loop.

    Raises:
        CatalogError: no such study or way.
        SchemaError: a mistake in the study or a design, with its place.
        DataError: no admissible experiment, with the limits that refuse them; a design that passes a limit.
        FormatError: a table of results that is not the one that was written.
        StoreError: a folder that cannot be written.
    """
    problem = load_problem(study, overrides, where)
    if experiments < 1 or not 0 < until < 1 or seed < 0:
        raise DataError(
            f"experiments {experiments}, until {until}, seed {seed}: expected one or more, a weight between 0 and 1, "
            "and 0 or more."
        )
    chooser = chooser_of(by, seed, experiments)
    if out is not None:
        check_writable(Path(out))
    if truth is not None:
        found = _loop(problem, truth, chooser, experiments, until, seed, announce)
    else:
        found = _desk(problem, chooser, experiments, until, None if out is None else Path(out))
    if out is not None:
        write_json(Path(out) / "report.json", {"design": found.content(), "by": by, "seed": seed} | provenance())
    return found


def provenance() -> dict[str, Any]:
    """Return versions and machine, for a report."""
    return {"versions": versions(), "machine": machine()}


# --------------------------------------------------------------------------------------- the solver as laboratory


def _loop(
    problem: Problem,
    truth: Mapping[str, Any],
    chooser: Chooser,
    experiments: int,
    until: float,
    seed: int,
    announce: Callable[[str], None],
) -> DesignResult:
    rival, values = _truth(problem, truth)
    noise = drawn_noise(seed, experiments, problem.size)

    def observe(point: Tensor, number: int) -> Tensor:
        return problem.run(problem.space.decoded(point[None]), rival, values, noise[number])

    def told(choice: Choice, weights: Tensor) -> None:
        sure = answer_weights(weights, problem.answers)
        announce(f"{problem.answer_labels[int(sure.argmax())]}: {100 * float(sure.max()):.1f} %")

    record = experiment(problem, chooser, observe, experiments, until, announce=told)
    made = [problem.space.described(problem.space.decoded(c.point[None]), 0) for c in record.choices]
    return DesignResult(problem, made, record.observed, torch.stack(record.weights))


def drawn_noise(seed: int, experiments: int, size: int) -> Tensor:
    """Return the noise of every experiment of a seed, standard normal, (experiments, size)."""
    # A stream of its own: the search draws from torch's generators of nearby seeds, and must not know the noise.
    rows = [random_stream(seed, "experiments", k, "noise").standard_normal(size) for k in range(experiments)]
    return torch.from_numpy(np.stack(rows))


def _truth(problem: Problem, truth: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    names = problem.names
    name = str(truth.get("equation", names[0]))
    if name not in names or ("equation" not in truth and len(names) > 1):
        raise DataError(f"truth: equation '{truth.get('equation')}'; expected one of {', '.join(names)}.")
    rival = names.index(name)
    known = {n: v for n, v in truth.items() if n != "equation"}
    held = {n: float(v[0]) for n, v in problem.values[rival].items() if bool((v == v[0]).all())}
    wrong = [n for n in known if n not in problem.values[rival] or not isinstance(known[n], (int, float))]
    missing = [n for n in problem.values[rival] if n not in {**held, **known}]
    if wrong or missing:
        raise DataError(
            f"truth of {name}: {', '.join(wrong + missing)}; expected a number for each of "
            f"{', '.join(problem.values[rival])}."
        )
    return rival, {**held, **{n: float(v) for n, v in known.items()}}


# ----------------------------------------------------------------------------------------- somebody else's laboratory


def _desk(problem: Problem, chooser: Chooser, experiments: int, until: float, out: Path | None) -> DesignResult:
    weights, made, observed = [problem.weights], [], []
    numbered = _numbered(out)
    for _, folder in numbered:
        content = read_yaml(folder / "design.yaml")
        chosen = problem.space.read(content, str(folder / "design.yaml"))
        over_limits(problem.refusals_of(chosen), str(folder / "design.yaml"))
        read = read_result(folder / "result.csv", problem, chosen)
        if read is None:
            return DesignResult(problem, made, observed, torch.stack(weights), content, folder=folder)
        weights.append(updated(weights[-1], problem.foreseen(chosen)[0], read, problem.noise))
        made.append(problem.space.described(chosen, 0))
        observed.append(read)
    sure = float(answer_weights(weights[-1], problem.answers).max())
    if sure >= until or len(made) >= experiments:
        return DesignResult(problem, made, observed, torch.stack(weights))
    # After the last one there is, also where others were taken away: its number belongs to a result.
    last = max((number for number, _ in numbered), default=0)
    choice = chooser.choose(problem, weights[-1], last)
    following = problem.space.decoded(choice.point[None])
    folder = None if out is None else out / f"experiment_{last + 1:03d}"
    if folder is not None:
        write_experiment(folder, problem, following)
    described = problem.space.described(following, 0)
    return DesignResult(problem, made, observed, torch.stack(weights), described, choice.value, folder)


def _numbered(out: Path | None) -> list[tuple[int, Path]]:
    """Return the experiments of a desk by number: ``experiment_001``, no copies or other names."""
    found = [] if out is None else [(_EXPERIMENT.fullmatch(path.name), path) for path in out.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)
