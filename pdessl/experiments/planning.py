"""``plan``: closed loops of planning by imagination in the real solver, beside their floors, in a report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pdessl.control import (
    CEM,
    MPPI,
    Distilled,
    Environment,
    Episodes,
    Gradient,
    LinearFeedback,
    Newton,
    Oracle,
    Random,
    RecedingHorizon,
    VectorEnvironment,
    Zero,
    controllability,
    distil,
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
from pdessl.evaluation.animation import control_gif
from pdessl.evaluation.report import write_report
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.stages import Stages
from pdessl.experiments.world import model_of
from pdessl.models import save_pretrained
from pdessl.schema import check_keys
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
DISTILLED = 2_000_000  # first seed of episodes that a policy is distilled in
FREE_PRICE = 0.1  # of mean a² for linear feedback where the environment asks for none


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
    """

    environment: Environment
    episodes: Mapping[str, Episodes]
    guardrails: tuple[Guardrail, ...]
    notes: tuple[str, ...]
    imagined: Mapping[str, Tensor] = field(default_factory=dict)
    training: Mapping[str, int] = field(default_factory=dict)

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


def plan(
    environment: str | os.PathLike[str] | Environment,
    model: str | os.PathLike[str] | Model | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    price: Literal["decoded", "probe"] = "decoded",
    oracle: bool = True,
    planner: str | Planner = "gradient",
    episodes: int = 20,
    horizon: int = 20,
    every: int = 4,
    guardrails: Sequence[Guardrail] = (),
    margins: Margins | None = None,
    rounds: int = 0,
    seed: int = HELD_OUT,
    out: str | os.PathLike[str] | None = None,
    commands: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = say,
) -> PlanningResult:
    """Steer a controlled PDE by planning in a model, and measure it in the real solver beside its floors.

    Rows: no control, amplitudes by chance, linear feedback of the true state (where it can hold u = 0), the planner
    with the solver as model, and with another model where one is given.

    Args:
        environment: name (``pdessl list environments``), path of a YAML file, or an environment.
        model: the folder of a run of ``pdessl pretrain --config world/...``; ``law``: the equation of the runs, found
            now; an object with ``imagine(situation, actions)``, see :class:`pdessl.control.Oracle`; None: the solver
            itself.
        data: runs of ``pdessl generate`` that the law is found from; None: 400 control periods are recorded for it.
        price: what a world model's plans cost: ``decoded``, the field read from its latent, or ``probe``, the energy
            read from it.
        oracle: whether the row of the solver as model is there: the ceiling, and the most expensive one.
        planner: gradient, cem, icem, mppi or newton, or a planner of your own.
        episodes: how many, >= 1, with seeds from ``seed`` on, side by side.
        horizon: control periods of a plan, >= 1.
        every: actions between two plannings, 1 to ``horizon``.
        guardrails: limits of every imagined period; a plan that passes one is not executed.
        margins: added to what is imagined, see :func:`pdessl.control.calibrate`.
        rounds: of distilling a policy from the last row's controller, which becomes a row of its own; 0: none. Each
            takes as many episodes as are measured, with seeds of their own. See :func:`pdessl.control.distil`.
        seed: of the first episode, >= 0.
        out: folder; receives ``report.html``, ``report.json`` and ``report.npz``. None: nothing is written.
        commands: for the report.
        settings: of the planner of that name, ``{"iterations": 10}``.
        announce: receives a line after each row.

    Raises:
        CatalogError: no such environment or planner.
        CheckpointError: a folder without a world model.
        DataError: numbers out of range, or a model of another equation.
        ShapeError: a model of another number of actuators, or another grid.
        StoreError: a folder that cannot be written.
    """
    env = environment if isinstance(environment, Environment) else load_environment(environment)
    search = _planner(planner, settings)
    if episodes < 1 or seed < 0:
        raise DataError(f"episodes {episodes}, seed {seed}: expected at least one episode and a seed >= 0.")
    if out is not None:
        check_writable(Path(out))
    word = planner if isinstance(planner, str) else type(planner).__name__

    def planned(imagining: Model) -> Controller:
        return RecedingHorizon(env, imagining, search, horizon, every, guardrails, margins)

    controllers: dict[str, Controller] = {"no control": Zero(env), "random": Random(env)}
    linear = linearise(env)
    reached = controllability(linear)
    notes = [f"{env.name}: {reached}"]
    if reached.stabilisable and env.file.cost.state and env.file.cost.target is None:
        price = env.file.cost.action or FREE_PRICE
        controllers["linear feedback (LQR)"] = LinearFeedback(env, lqr(linear, price))
    else:
        notes.append("No row of linear feedback: it cannot hold u = 0, or u = 0 is not what is asked for.")
    if oracle or model is None:
        controllers[f"{word}, the solver as model"] = planned(Oracle(env))
    training, imagined = {}, {}
    if model is not None:
        made = model_of(model, env, data, price, announce)
        title = f"{word}, {made.title}"
        controllers[title] = planned(made.model)
        notes += made.notes
        training |= {} if made.steps is None else {title: made.steps}
        imagined[title] = _imagination(env, made.model, range(seed, seed + episodes), horizon)
    stages, found = Stages(announce), {}
    for title, controller in controllers.items():
        with stages.stage(title):
            found[title] = run_episodes(env, controller, range(seed, seed + episodes))
    if rounds:
        title, expert = list(controllers.items())[-1]
        with stages.stage("distil"):
            policy = distil(env, expert, range(DISTILLED, DISTILLED + episodes), rounds)
        row = f"policy distilled from: {title}"
        with stages.stage(row):
            found[row] = run_episodes(env, Distilled(env, policy), range(seed, seed + episodes))
        if out is not None:
            save_pretrained(Path(out) / "policy", policy, {"provenance": {"environment": env.name, "expert": title}})
        if title in training:  # the planner asked the solver for nothing, but these episodes ran in it
            training[row] = training[title] + rounds * episodes * env.steps
    result = PlanningResult(env, found, tuple(guardrails), tuple(notes), imagined, training)
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
        runs = list(found.values())
        time = arrays["control/time"]
        control_gif(Path(out) / "control.gif", runs[0].fields[0].cpu(), runs[-1].fields[0].cpu(), time)
        announce(f"report: {write_report(Path(out), report, arrays)}")
    return result


def _imagination(env: Environment, model: Model, seeds: Sequence[int], horizon: int) -> Tensor:
    """Return the error of what a model imagines, (H,), over the mean square of what random amplitudes lead to."""
    now, chance = VectorEnvironment(env).reset(seeds), Random(env)
    ahead = min(horizon, env.steps)
    actions = torch.stack([chance.act(replace(now, step=step)) for step in range(ahead)], dim=1)
    with torch.no_grad():
        real = env.rollout(now.state, actions)[:, 1:]
        error = env.mean_square(model.imagine(now, actions[:, None])[:, 0] - real)
    return error.mean(dim=0) / env.mean_square(real).mean(dim=0).clamp_min(1e-300)


def _planner(planner: str | Planner, settings: Mapping[str, Any] | None = None) -> Planner:
    if not isinstance(planner, str):
        return planner
    if planner not in PLANNERS:
        raise CatalogError(f"no planner '{planner}'.{did_you_mean(planner, PLANNERS)} Planners: {', '.join(PLANNERS)}.")
    made = PLANNERS[planner]()
    if not settings:
        return made
    known = [entry.name for entry in fields(made)]
    check_keys(settings, known, (), f"planner {planner}")
    return replace(made, **settings)


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
    for title, values in result.imagined.items():
        key = next(row["key"] for row in rows if row["title"] == title)
        arrays[f"control/imagined/{key}"] = values.cpu().numpy()
    section = {
        "environment": env.name,
        "episodes": len(runs[0].seeds),
        "steps": env.steps,
        "rows": rows,
        "shown": shown,
        "notes": list(result.notes),
    }
    return section, arrays
