"""What closed loops of several controllers came to, as a table and as a section of a report."""

# B episodes, T control periods, H periods ahead, X grid points

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdessl.control import ControlledPDE, Episodes
from pdessl.control.guardrails import Guardrail, excess

__all__ = ["PlanningResult", "as_report"]


@dataclass(frozen=True, eq=False)
class PlanningResult:
    """Episodes of every controller from the same starts.

    Args:
        environment: what was controlled.
        episodes: title -> what happened; no control first, the planner last.
        guardrails: limits that the planner was given.
        notes: on what cannot be reached, and what is missing.
        imagined: title -> error of what that model imagines over the mean square of the real field, for each period
            ahead (H,), under random amplitudes from the starts of the episodes.
        training: title -> control periods that the model was made from, where that is known.
        dreams: title -> field that the model of that row imagines from the first start under the amplitudes that were
            executed, and what came of them, the start included, both (H + 1, X).
        budget: title -> steps of models that were imagined for an episode.
    """

    environment: ControlledPDE
    episodes: Mapping[str, Episodes]
    guardrails: tuple[Guardrail, ...]
    notes: tuple[str, ...]
    imagined: Mapping[str, Tensor] = field(default_factory=dict)
    training: Mapping[str, int] = field(default_factory=dict)
    dreams: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    budget: Mapping[str, int] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: mean cost, share of the best gain over no control, time, refused plans, limits passed.

        Bad cost: the 90 % quantile of the mean cost over episodes. Settled: the share of episodes whose last tenth
        costs less than a tenth of what it costs without control.
        """
        means = {title: float(run.mean_cost.mean()) for title, run in self.episodes.items()}
        nothing, least = next(iter(means.values())), min(means.values())
        ends = {
            title: run.costs[:, -max(1, run.costs.shape[1] // 10) :].mean(dim=1) for title, run in self.episodes.items()
        }
        free = float(next(iter(ends.values())).mean())
        rows: list[dict[str, Any]] = []
        for key, (title, run) in enumerate(self.episodes.items()):
            b = len(run.seeds)
            error = float(run.mean_cost.std()) / math.sqrt(b) if b > 1 else None
            passed = None
            if self.guardrails:
                passed = int((excess(self.guardrails, run.fields[:, 1:]) > 0).any(dim=-1).sum())
            rows.append(
                {
                    "key": str(key),
                    "title": title,
                    "mean_cost": {"mean": means[title], "standard_error": error},
                    "bad_cost": float(run.mean_cost.quantile(0.9)),
                    "gain": (nothing - means[title]) / (nothing - least) if nothing > least else None,
                    "settled": float((ends[title] < free / 10).double().mean()),
                    "milliseconds": run.milliseconds,
                    "fallbacks": float(run.fallbacks.mean()),
                    "breaches": passed,
                    "imagined": self.budget.get(title),
                    "training_periods": self.training.get(title),
                }
            )
        return rows

    def __str__(self) -> str:
        """Return the table as text."""
        width = max(map(len, self.episodes))
        lines = [f"{'':<{width}}  mean cost   ms an action"]
        for row in self.rows():
            lines.append(f"{row['title']:<{width}}  {row['mean_cost']['mean']:9.4f}   {row['milliseconds']:12.3g}")
        return "\n".join([*lines, *self.notes])


def as_report(result: PlanningResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section of the report and its arrays, see :mod:`pdessl.evaluation.report`."""
    env, rows = result.environment, result.rows()
    runs = list(result.episodes.values())
    shown = [rows[0]["key"], rows[-1]["key"]]
    time = env.file.control.period * torch.arange(env.steps + 1, dtype=torch.float64)
    arrays = {"control/time": time.numpy(), "control/space": env.nodes()[0].numpy()}
    for row, run in zip(rows, runs, strict=True):
        arrays[f"control/cost/{row['key']}"] = run.costs.mean(dim=0).cpu().numpy()
        if row["key"] in shown:
            arrays[f"control/field/{row['key']}"] = env.profile(run.fields[0]).float().cpu().numpy()
            arrays[f"control/actions/{row['key']}"] = run.actions[0].cpu().numpy()
    for title, values in result.imagined.items():
        key = next(row["key"] for row in rows if row["title"] == title)
        arrays[f"control/imagined/{key}"] = values.cpu().numpy()
    for title, pair in result.dreams.items():
        key = next(row["key"] for row in rows if row["title"] == title)
        for name, values in zip(("dreamed", "came"), pair, strict=True):
            arrays[f"control/{name}/{key}"] = values.float().cpu().numpy()
    section = {
        "environment": env.name,
        "episodes": len(runs[0].seeds),
        "steps": env.steps,
        "rows": rows,
        "shown": shown,
        "notes": list(result.notes),
    }
    return section, arrays
