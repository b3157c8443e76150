"""``plan``: closed loops of planning by imagination in the real solver, beside their floors, in a report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pdessl.control import (
    CEM,
    MPPI,
    Environment,
    Episodes,
    Gradient,
    LinearFeedback,
    Newton,
    Oracle,
    Random,
    RecedingHorizon,
    Zero,
    controllability,
    linearise,
    load_environment,
    lqr,
    run_episodes,
)
from pdessl.control.episodes import Controller
from pdessl.control.guardrails import Guardrail, Margins, excess
from pdessl.control.planners import Planner
from pdessl.control.receding import Model
from pdessl.errors import CatalogError, DataError, did_you_mean
from pdessl.evaluation.report import write_report
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.stages import Stages
from pdessl.written import say

__all__ = ["HELD_OUT", "PLANNERS", "PlanningResult", "plan"]

#: Planners by the words of the command line, with their defaults.
PLANNERS: dict[str, Callable[[], Planner]] = {
    "gradient": Gradient,
    "cem": CEM,
    "icem": CEM.improved,
    "mppi": MPPI,
    "newton": Newton,
}
HELD_OUT = 1_000_000  # first seed of episodes that are measured; what a model is trained on starts at 0
FREE_PRICE = 0.1  # of mean a² for linear feedback where the environment asks for none


@dataclass(frozen=True, eq=False)
class PlanningResult:
    """Episodes of every controller from the same starts.

    Args:
        environment: what was controlled.
        episodes: title -> what happened; no control first, the planner last.
        guardrails: limits that the planner was given.
        notes: on what cannot be reached, and what is missing.
    """

    environment: Environment
    episodes: Mapping[str, Episodes]
    guardrails: tuple[Guardrail, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: mean cost, share of the best gain over no control, time, refused plans, limits passed."""
        means = {title: float(run.mean_cost.mean()) for title, run in self.episodes.items()}
        nothing, least = next(iter(means.values())), min(means.values())
        rows = []
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
                    "gain": (nothing - means[title]) / (nothing - least) if nothing > least else None,
                    "milliseconds": run.milliseconds,
                    "fallbacks": float(run.fallbacks.mean()),
                    "breaches": passed,
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


def plan(
    environment: str | os.PathLike[str] | Environment,
    model: Model | None = None,
    *,
    planner: str | Planner = "gradient",
    episodes: int = 20,
    horizon: int = 20,
    every: int = 4,
    guardrails: Sequence[Guardrail] = (),
    margins: Margins | None = None,
    seed: int = HELD_OUT,
    out: str | os.PathLike[str] | None = None,
    commands: Sequence[str] = (),
    announce: Callable[[str], None] = say,
) -> PlanningResult:
    """Steer a controlled PDE by planning in a model, and measure it in the real solver beside its floors.

    Rows: no control, amplitudes by chance, linear feedback of the true state (where it can hold u = 0), the planner
    with the solver as model, and with another model where one is given.

    Args:
        environment: name (``pdessl list environments``), path of a YAML file, or an environment.
        model: has ``imagine(situation, actions)``, see :class:`pdessl.control.Oracle`; None: the solver itself.
        planner: gradient, cem, icem, mppi or newton, or a planner of your own.
        episodes: how many, >= 1, with seeds from ``seed`` on, side by side.
        horizon: control periods of a plan, >= 1.
        every: actions between two plannings, 1 to ``horizon``.
        guardrails: limits of every imagined period; a plan that passes one is not executed.
        margins: added to what is imagined, see :func:`pdessl.control.calibrate`.
        seed: of the first episode, >= 0.
        out: folder; receives ``report.html``, ``report.json`` and ``report.npz``. None: nothing is written.
        commands: for the report.
        announce: receives a line after each row.

    Raises:
        CatalogError: no such environment or planner.
        DataError: numbers out of range.
        StoreError: a folder that cannot be written.
    """
    env = environment if isinstance(environment, Environment) else load_environment(environment)
    search = _planner(planner)
    if episodes < 1 or seed < 0:
        raise DataError(f"episodes {episodes}, seed {seed}: expected at least one episode and a seed >= 0.")
    if out is not None:
        check_writable(Path(out))
    word = planner if isinstance(planner, str) else type(planner).__name__

    def planned(imagining: Model) -> Controller:
        return RecedingHorizon(env, imagining, search, horizon, every, guardrails, margins)

    oracle: Model = Oracle(env)
    controllers: dict[str, Controller] = {"no control": Zero(env), "random": Random(env)}
    linear = linearise(env)
    reached = controllability(linear)
    notes = [f"{env.name}: {reached}"]
    if reached.stabilisable and env.file.cost.state and env.file.cost.target is None:
        price = env.file.cost.action or FREE_PRICE
        controllers["linear feedback (LQR)"] = LinearFeedback(env, lqr(linear, price))
    else:
        notes.append("No row of linear feedback: it cannot hold u = 0, or u = 0 is not what is asked for.")
    controllers[f"{word}, the solver as model"] = planned(oracle)
    if model is not None:
        controllers[f"{word}, {type(model).__name__}"] = planned(model)
    stages, found = Stages(announce), {}
    for title, controller in controllers.items():
        with stages.stage(title):
            found[title] = run_episodes(env, controller, range(seed, seed + episodes))
    result = PlanningResult(env, found, tuple(guardrails), tuple(notes))
    if out is not None:
        section, arrays = _as_report(result)
        report: dict[str, Any] = {"title": f"planning: {env.name}", "control": section, "commands": list(commands)}
        report |= {"versions": versions(), "machine": machine(), "seconds": dict(stages.seconds)}
        report["recipe"] = {
            "planner": repr(search),
            "horizon": horizon,
            "every": every,
            "seed": seed,
            "guardrails": [repr(rail) for rail in guardrails],
        }
        announce(f"report: {write_report(Path(out), report, arrays)}")
    return result


def _planner(planner: str | Planner) -> Planner:
    if not isinstance(planner, str):
        return planner
    if planner not in PLANNERS:
        raise CatalogError(f"no planner '{planner}'.{did_you_mean(planner, PLANNERS)} Planners: {', '.join(PLANNERS)}.")
    return PLANNERS[planner]()


def _as_report(result: PlanningResult) -> tuple[dict[str, Any], dict[str, Any]]:
    env, rows = result.environment, result.rows()
    runs = list(result.episodes.values())
    shown = [rows[0]["key"], rows[-1]["key"]]
    time = env.file.control.period * torch.arange(env.steps + 1, dtype=torch.float64)
    space = env.file.domain.length / env.points * torch.arange(env.points, dtype=torch.float64)
    arrays = {"control/time": time.numpy(), "control/space": space.numpy()}
    for row, run in zip(rows, runs, strict=True):
        arrays[f"control/cost/{row['key']}"] = run.costs.mean(dim=0).cpu().numpy()
        if row["key"] in shown:
            arrays[f"control/field/{row['key']}"] = run.fields[0].cpu().numpy()
            arrays[f"control/actions/{row['key']}"] = run.actions[0].cpu().numpy()
    section = {
        "environment": env.name,
        "episodes": len(runs[0].seeds),
        "steps": env.steps,
        "rows": rows,
        "shown": shown,
        "notes": list(result.notes),
    }
    return section, arrays
