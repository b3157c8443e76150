"""How many experiments every way of choosing needs until the truth is believed, measured in the solver."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdessl.control.choosing import Best, Known, Record, experiment
from pdessl.control.decisions import Chooser
from pdessl.control.rivals import Problem, StudyFile, load_problem
from pdessl.errors import DataError
from pdessl.experiments.design import WAYS, chooser_of, drawn_noise, provenance
from pdessl.experiments.provenance import check_writable
from pdessl.files import write_json
from pdessl.schema import Overrides
from pdessl.written import say

__all__ = ["DesignComparison", "compare_designs"]

_CEILING = "exact-model optimum"
_CERTAIN = 0.999  # weight of an answer at which a run ends
_STREAM = 1_000_003  # first seed of what truths are drawn from


@dataclass(frozen=True, eq=False)
class DesignComparison:
    """How many experiments every way of choosing needs.

    Args:
        problem: the study.
        records: way -> a record per seed.
        truths: number of the true hypothesis of each seed.
        level: weight of the true answer that is asked for.
        experiments: most that were made; a run ends where an answer is all but certain, and its weights stay.
    """

    problem: Problem
    records: Mapping[str, Sequence[Record]]
    truths: Sequence[int]
    level: float
    experiments: int

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: experiments needed by each seed (None: more than were made), and weights of the truth."""
        rows = []
        for way, records in self.records.items():
            pairs = list(zip(records, self.truths, strict=True))
            answers = self.problem.answers
            needed = [r.needed(answers, int(answers[t]), self.level) for r, t in pairs]
            most = self.experiments
            curves = torch.stack([_held(r.certainty(answers, int(answers[t])), most + 1) for r, t in pairs])
            capped = torch.tensor([min(n, most + 1) for n in needed], dtype=torch.float64)
            rows.append(
                {
                    "way": way,
                    "title": WAYS.get(way, way),
                    "needed": [None if math.isinf(n) else int(n) for n in needed],
                    "mean_needed_at_least": float(capped.mean()),
                    "median_needed": _told(statistics.median(needed), most),  # infinite where a middle one is never
                    "reached": f"{sum(not math.isinf(n) for n in needed)} of {len(needed)}",
                    "area": float(curves.mean()),
                    "weight_of_truth": curves.mean(dim=0).tolist(),
                    "experiments": most,
                }
            )
        return rows

    def __str__(self) -> str:
        """Return the table as text."""
        rows = self.rows()
        width = max(len(row["title"]) for row in rows)
        lines = [f"{'':<{width}}  experiments to {100 * self.level:.0f} %: median, mean, reached; mean weight of truth"]
        lines += [
            f"{r['title']:<{width}}  {r['median_needed']:>5}  {r['mean_needed_at_least']:5.1f}  {r['reached']:>8}  "
            f"{r['area']:.3f}"
            for r in rows
        ]
        return "\n".join(lines)


def _held(curve: Tensor, length: int) -> Tensor:
    return torch.cat([curve, curve[-1:].expand(length - len(curve))])


def _told(value: float, most: int) -> str:
    return f"> {most}" if value > most else f"{value:g}"


def compare_designs(
    study: str | os.PathLike[str] | Mapping[str, Any] | StudyFile,
    ways: Sequence[str] = tuple(WAYS),
    *,
    seeds: int = 5,
    experiments: int = 16,
    level: float = 0.95,
    ceiling: bool = True,
    out: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    where: str | None = None,
    announce: Callable[[str], None] = say,
) -> DesignComparison:
    """Measure in the solver how many experiments every way of choosing needs until the truth has a posterior.

    A seed draws the true hypothesis from the prior, the noise of the k-th experiment, which is the same for all ways,
    and the seed of the way. The search's pool is that of seed 0 for all seeds: what is simulated of it depends on the
    study alone.

    Args:
        study: as in :func:`design`.
        ways: words of :data:`WAYS`.
        seeds: how many, >= 1.
        experiments: most of each run, >= 1; it ends before where an answer has a weight of 0.999.
        level: posterior weight of the true answer.
        ceiling: also the row of somebody who knows the truth, see :class:`pdessl.control.choosing.Known`.
        out: folder for ``report.json``.
        overrides: other values of the study by dotted key.
        where: the file that content is from, for messages.
        announce: receives a line after each run.

    Raises:
        PdesslError: as :func:`design`.
    """
    problem = load_problem(study, overrides, where)
    if seeds < 1 or experiments < 1 or not 0 < level <= _CERTAIN or not ways:
        raise DataError(
            f"seeds {seeds}, experiments {experiments}, level {level}, ways {list(ways)}: expected one or more of each "
            f"and a weight between 0 and {_CERTAIN:g}."
        )
    if out is not None:
        check_writable(Path(out))
    searches = {way: chooser_of(way, 0, experiments) for way in ways}
    shared = next((c for c in searches.values() if isinstance(c, Best)), Best())
    records: dict[str, list[Record]] = {way: [] for way in [*ways, *([_CEILING] if ceiling else [])]}
    truths = []
    for seed in range(seeds):
        stream = torch.Generator().manual_seed(_STREAM + seed)
        truths.append(int(torch.multinomial(problem.weights, 1, generator=stream)))
        rival = int(problem.rivals[truths[-1]])
        row = int((problem.rivals[: truths[-1]] == rival).sum())
        values = {name: float(v[row]) for name, v in problem.values[rival].items()}
        noise = drawn_noise(seed, experiments, problem.size)

        def observe(
            point: Tensor, number: int, rival: int = rival, values: dict[str, float] = values, noise: Tensor = noise
        ) -> Tensor:
            return problem.run(problem.space.decoded(point[None]), rival, values, noise[number])

        for way, held in records.items():
            chooser: Chooser = Known(truths[-1], shared) if way == _CEILING else searches[way]
            chooser = chooser if isinstance(chooser, (Best, Known)) else chooser_of(way, seed, experiments)
            held.append(experiment(problem, chooser, observe, experiments, until=_CERTAIN))
            answer = int(problem.answers[truths[-1]])
            needed = held[-1].needed(problem.answers, answer, level)
            announce(f"seed {seed}, {problem.labels[truths[-1]]}, {WAYS.get(way, way)}: {_told(needed, experiments)}")
    found = DesignComparison(problem, records, truths, level, experiments)
    if out is not None:
        content = {"rows": found.rows(), "truths": [problem.labels[t] for t in truths], "level": level}
        write_json(Path(out) / "report.json", content | provenance())
    return found
