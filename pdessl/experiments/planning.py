"""``plan``: closed loops of planning by imagination in the real solver, beside their floors, in a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pdessl.control import (
    CEM,
    MPPI,
    AugmentedLagrangian,
    ControlledPDE,
    Distilled,
    Environment,
    Gradient,
    LinearFeedback,
    Linearised,
    Newton,
    Oracle,
    Random,
    RecedingHorizon,
    SlowOracle,
    Terminal,
    TwoLevels,
    Zero,
    controllability,
    distil,
    interval_environment,
    learn_critic,
    linearise,
    load_environment,
    lqr,
    open_ended,
    run_episodes,
    train_agent,
    usable_horizon,
)
from pdessl.control.episodes import Controller
from pdessl.control.guardrails import Guardrail, Margins, check_axes
from pdessl.control.many_futures import CASES, Case
from pdessl.control.planners import Planner
from pdessl.control.receding import Model
from pdessl.errors import CatalogError, DataError, did_you_mean
from pdessl.evaluation.animation import control_gif
from pdessl.evaluation.report import write_report
from pdessl.experiments.adapting import adapt as adapt_world
from pdessl.experiments.adapting import save_adapted
from pdessl.experiments.imagination import dream, errors, imagination
from pdessl.experiments.planning_result import PlanningResult, as_report
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.slow_world import load_slow_world
from pdessl.experiments.stages import Stages
from pdessl.experiments.symmetric_labels import labels_by_symmetry
from pdessl.experiments.world import LatentWorld, Planned, Price, model_of
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
    "lagrangian": AugmentedLagrangian,
}
LINEAR = "lqr"  # no search: linear feedback of what the model is near rest
HELD_OUT = 1_000_000  # first seed of episodes that are measured; what a model is trained on starts at 0
DISTILLED = 2_000_000  # first seed of episodes that a policy is distilled in
CRITIC = 2_500_000  # first seed of episodes that a critic is learned in
ADAPTED = 3_500_000  # first seed of episodes that a world model is adapted in
TRUSTED, TRUSTED_STARTS = 4_000_000, 19  # first seed and number of starts that say how far a model is believed
LEARNED = 2e-2  # distance to an uncontrollable system, over |B|, that is one in a latent: see results/control.md
FREE_PRICE = 0.1  # of mean a² for linear feedback where the environment asks for none


def plan(
    environment: str | os.PathLike[str] | ControlledPDE,
    model: str | os.PathLike[str] | Model | Sequence[str | os.PathLike[str]] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    price: Price = "decoded",
    upper: str | os.PathLike[str] | None = None,
    doubt: float = 1.0,
    trust: float | None = None,
    oracle: bool = True,
    planner: str | Planner = "gradient",
    episodes: int = 20,
    horizon: int = 20,
    every: int = 4,
    guardrails: Sequence[Guardrail] = (),
    margins: Margins | None = None,
    adapt: int = 0,
    critic: int = 0,
    critic_horizon: int | None = None,
    rounds: int = 0,
    futures: int = 0,
    case: Case = "average",
    agent: str | None = None,
    agent_periods: int = 50_000,
    seed: int = HELD_OUT,
    out: str | os.PathLike[str] | None = None,
    commands: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = say,
) -> PlanningResult:
    """Steer a controlled PDE by planning in a model, and measure it in the real solver beside its floors.

    Rows: no control, amplitudes by chance, linear feedback of the true state (where it can hold u = 0), the planner
    with the solver as model, and with another model where one is given; linear feedback of that model's own state,
    made from its derivative near rest; then what is learned on top, one after the other.

    Args:
        environment: name (``pdessl list environments``), path of a YAML file, or an environment.
        model: the folder of a run of ``pdessl pretrain --config world/...``; ``law``: the equation of the runs, found
            now; an object with ``imagine(situation, actions)``, see :class:`pdessl.control.Oracle`; several folders:
            their mean, see :class:`pdessl.control.Ensemble`; None: the solver itself.
        upper: the folder of a slower world model that was trained on ``model``'s latents: rows of planning on two
            levels, see :class:`pdessl.control.TwoLevels`. None: none.
        data: runs of ``pdessl generate`` that the law is found from; None: 400 control periods are recorded for it.
        price: what a world model's plans cost: ``decoded``, the field read from its latent; ``probe``, the energy read
            from it; ``latent``, the distance to the latent of the target. The last two are of one world model in a
            search without guardrails or a critic, which read states; the probe where the target is 0.
        doubt: what a disagreement of several models costs, in mean squares.
        trust: the model is believed for as many periods ahead as its error under random amplitudes, over the mean
            square of the field, stays below this in nine starts of ten; plans in it end there. None: everywhere.
        oracle: whether the row of the solver as model is there: the ceiling, and the most expensive one.
        planner: gradient, cem, icem, mppi, newton or lagrangian, or a planner of your own; lqr: no search, only the
            rows of linear feedback.
        episodes: how many, >= 1, with seeds from ``seed`` on, side by side.
        horizon: control periods of a plan, >= 1.
        every: actions between two plannings, 1 to ``horizon``.
        guardrails: limits of every imagined period; a plan that passes one is not executed.
        margins: added to what is imagined, see :func:`pdessl.control.calibrate`.
        adapt: rounds in which a world model is trained on what went otherwise than it imagined, see
            :func:`pdessl.experiments.adapting.adapt`; 0: none.
        critic: rounds of learning what follows after a plan, see :func:`pdessl.control.learn_critic`; 0: no critic.
        critic_horizon: control periods ahead of the plans in its first round, >= 1; None: ``horizon``.
        rounds: of distilling a policy from the last row's controller; 0: none. See :func:`pdessl.control.distil`. A
            round of these three takes as many episodes as are measured, with seeds of their own.
        futures: in how many futures a plan is imagined, where the environment has an unseen force or a world model a
            latent variable; the row of the most likely future, ξ = 0, stands beside. 0: only that one.
        case: average or worst: what a plan costs over its futures, see :class:`pdessl.control.ManyFutures`.
        agent: sac or ppo: a floor that is trained now from rewards alone, see :func:`pdessl.control.train_agent`; it
            needs the extra ``rl``. None: none.
        agent_periods: control periods that it is trained for.
        seed: of the first episode, >= 0.
        out: folder; receives ``report.html``, ``report.json`` and ``report.npz``, and what was learned: ``adapted/``
            (a world model), ``critic/``, ``policy/``. None: nothing is written.
        commands: for the report.
        settings: of the planner of that name, ``{"iterations": 10}``.
        announce: receives a line after each row.

    Raises:
        CatalogError: no such environment or planner.
        CheckpointError: a folder without a world model.
        DependencyError: an agent without the extra ``rl``.
        DataError: numbers out of range, a price that plans would not cost, a model of another equation, one that
            cannot be adapted, or, with lqr, one that linear feedback cannot hold.
        ShapeError: a model of another number of actuators, or another grid.
        StoreError: a folder that cannot be written.
    """
    env = environment if isinstance(environment, ControlledPDE) else load_environment(environment)
    guardrails = (*env.guardrails, *guardrails)
    check_axes(guardrails, len(env.grid))
    search = None if planner == LINEAR else _planner(planner, settings)
    if episodes < 1 or seed < 0 or min(adapt, critic, rounds) < 0:
        raise DataError(
            f"episodes {episodes}, seed {seed}, adapt {adapt}, critic {critic}, distil {rounds}: expected at least one "
            "episode and numbers >= 0."
        )
    if critic_horizon is not None and (not critic or critic_horizon < horizon):
        raise DataError(
            f"critic_horizon {critic_horizon}, horizon {horizon}, {critic} rounds of a critic: expected rounds, and "
            "plans in the first one that look at least as far as the others."
        )
    if search is None and (adapt or critic):
        raise DataError("lqr imagines nothing: adapt and critic go with a planner that searches, as gradient.")
    _check_price(price, model, env, search is None, bool(guardrails), bool(critic))
    if out is not None:
        check_writable(Path(out))
    teacher = horizon if critic_horizon is None else critic_horizon
    word = planner if isinstance(planner, str) else type(planner).__name__
    seeds = range(seed, seed + episodes)
    made = Planned(Oracle(env), "the solver as model")
    if model is not None:
        known = isinstance(model, (str, os.PathLike, Sequence))
        place = interval_environment(env, "laws and world models are made") if known else env
        made = model_of(model, place, data, price, announce, doubt)
    if adapt and not isinstance(made.model, LatentWorld):
        raise DataError(f"{made.title} cannot be adapted; give --model the folder of a world model.")

    if futures < 0 or case not in CASES:
        raise DataError(f"futures {futures}, case '{case}': expected a number >= 0, and {' or '.join(CASES)}.")
    if futures and not (search and open_ended(made.model)):
        raise DataError(
            f"futures {futures}: {made.title} leaves nothing open, or nothing is searched for. Plan in an environment "
            "with an unseen force, or in a world model with a latent variable, with a planner that searches."
        )

    def planned(
        imagining: Model, terminal: Terminal | None = None, horizon: int = horizon, several: int = futures
    ) -> Controller:
        assert search is not None  # noqa: S101  (looked at by whoever calls)
        believed = min(trusted, horizon)
        ahead = horizon if isinstance(imagining, Oracle) else believed
        often = every if ahead == horizon else min(every, ahead)
        over = several if open_ended(imagining) else 0
        limits = (guardrails, margins)
        return RecedingHorizon(
            env, imagining, search, ahead, often, *limits, terminal=terminal, futures=over, case=case
        )

    told, trusted = [], max(horizon, teacher)
    if trust is not None and model is not None:
        wrong = errors(env, made.model, range(TRUSTED, TRUSTED + TRUSTED_STARTS), horizon)
        trusted = usable_horizon(wrong, trust)
        told.append(f"{made.title} is believed for {trusted} of {horizon} periods ahead (error at most {trust:g}).")
        if not trusted:
            raise DataError(f"{told[0]} Ask for less, or train it longer.")
    controllers: dict[str, Controller] = {"no control": Zero(env), "random": Random(env)}
    notes, title = [*_feedback(env, made, model is not None, search is None, controllers), *made.notes, *told], ""
    if search is not None:
        sources = [("the solver as model", Oracle(env))] if oracle or model is None else []
        sources += [] if model is None else [(made.title, made.model)]
        for name, source in sources:
            title = f"{word}, {name}"
            controllers[title] = planned(source, several=0)
            if futures and open_ended(source):
                title = f"{title}, {case} of {futures} futures"
                controllers[title] = planned(source)
    flat = title
    if upper is not None:
        if search is None or guardrails or adapt or critic or rounds or trust is not None:
            raise DataError("upper goes with a planner that searches, without limits, trust, adapt, critic and distil.")
        slow = load_slow_world(upper, made.model)
        often = min(every, slow.blocks.stride)
        if oracle:
            both = TwoLevels(env, SlowOracle(env, slow.blocks), search, every=often)
            controllers[f"{word}, two levels, the solver as models"] = both
        controllers[f"{word}, two levels, the world models"] = TwoLevels(env, slow, search, every=often)
    stages, found, training = Stages(announce), {}, {}
    if agent is not None:
        with stages.stage(f"train {agent}"):
            trained = train_agent(env, agent, agent_periods)
        first, *others = controllers.items()
        controllers = dict([first, (f"agent ({agent})", trained), *others])
        training[f"agent ({agent})"] = agent_periods
    for name, controller in controllers.items():
        with stages.stage(name):
            found[name] = run_episodes(env, controller, seeds)
    if made.steps is not None:
        training |= {name: made.steps for name in found if made.title in name}
    models: dict[str, Model] = {} if model is None or search is None else {flat: made.model}
    expert, imagining = list(controllers.values())[-1], made.model
    saved: dict[str, Callable[[Path], object]] = {}

    def learned(name: str, controller: Controller, spent: int) -> None:
        nonlocal title
        with stages.stage(name):
            found[name] = run_episodes(env, controller, seeds)
        if title in training:  # plans ask a learned model alone, but these episodes ran in the solver
            training[name] = training[title] + spent
        title = name

    if adapt:
        with stages.stage("adapt"):
            better = adapt_world(made.model, planned, range(ADAPTED, ADAPTED + episodes), adapt)
        imagining, expert = better.world, planned(better.world)
        first = found[title]
        learned(f"{title}, adapted", expert, better.periods)
        was, now = better.errors(first, found[title])
        told = "Mean error of all windows of the episodes of its row and of the row before, which it was not trained on"
        notes.append(f"{made.title}: {better} {told}: {was:.3g} as it was, {now:.3g} adapted.")
        models[title] = imagining
        saved["adapted"] = lambda folder: save_adapted(folder, better, made.steps)
    if critic:
        with stages.stage("critic"):
            seen = range(CRITIC, CRITIC + episodes)
            place = interval_environment(env, "a critic is learned")
            terminal = learn_critic(place, lambda t: planned(imagining, t, horizon if t else teacher), seen, critic)
        expert = planned(imagining, terminal)
        learned(f"{title}, with a critic", expert, critic * episodes * env.steps)
        said = {"provenance": {"environment": env.name, "discount": terminal.discount}}
        saved["critic"] = lambda folder: save_pretrained(folder, terminal.critic, said)
    if rounds:
        told_by = title or list(controllers)[-1]
        with stages.stage("distil"):
            asked, widen = range(DISTILLED, DISTILLED + episodes), labels_by_symmetry(env)
            policy = distil(env, expert, asked, rounds, widen=widen)
        learned(f"policy distilled from: {told_by}", Distilled(env, policy), rounds * episodes * env.steps)
        kept = {"provenance": {"environment": env.name, "expert": told_by}}
        saved["policy"] = lambda folder: save_pretrained(folder, policy, kept)
    imagined = {name: imagination(env, m, seeds, horizon) for name, m in models.items()}
    dreams = {name: dream(env, m, found[name], horizon) for name, m in models.items()}
    spent = {name: one.imagined for name, one in controllers.items() if isinstance(one, (RecedingHorizon, TwoLevels))}
    result = PlanningResult(env, found, tuple(guardrails), tuple(notes), imagined, training, dreams, spent)
    if out is not None:
        for name, save in saved.items():
            save(Path(out) / name)
        recipe = {
            "planner": LINEAR if search is None else repr(search),
            "horizon": horizon,
            "every": every,
            "seed": seed,
            "futures": futures,
            "case": case,
            "guardrails": [repr(rail) for rail in guardrails],
        }
        announce(f"report: {_write(Path(out), result, recipe, commands, stages)}")
    return result


def _check_price(
    price: Price,
    model: str | os.PathLike[str] | Model | Sequence[str | os.PathLike[str]] | None,
    env: ControlledPDE,
    linear: bool,
    limited: bool,
    critic: bool,
) -> None:
    """Refuse a price that plans would not cost, because states are read, or because the model has no prices."""
    one = model[0] if isinstance(model, Sequence) and not isinstance(model, str) and len(model) == 1 else model
    several = isinstance(one, Sequence) and not isinstance(one, str)
    folder = isinstance(one, (str, os.PathLike)) and str(one) != "law"
    asked = one.price if isinstance(one, LatentWorld) and price == "decoded" else price
    if asked == "decoded":
        return
    reasons = {
        "several models": several,
        "no world model's folder": not several and not folder and getattr(one, "price", None) != asked,
        "guardrails": limited,
        "a critic": critic,
        "linear feedback alone": linear,
        "a target other than 0": asked == "probe" and env.targeted,
        "a cost that is not of squares": not env.prices_squares,
    }
    found = [reason for reason, there in reasons.items() if there]
    if found:
        raise DataError(
            f"price '{asked}' with {' and '.join(found)}: plans would cost the decoded field all the same. Take the "
            f"price 'decoded', or leave that out: '{asked}' is of one world model (--model FOLDER) and a planner that "
            "searches."
        )


def _feedback(
    env: ControlledPDE, made: Planned, learned: bool, needed: bool, controllers: dict[str, Controller]
) -> list[str]:
    """Add linear feedback of the true state, and of the model's, where it can hold u = 0; return what is to be said."""
    if not isinstance(env, Environment):
        if needed:
            raise DataError(f"lqr: {env.name} is on a plane, where no row of linear feedback is made.")
        return [f"{env.name} is on a plane, where no row of linear feedback is made."]
    linear = linearise(env)
    reached = controllability(linear)
    notes, price = [f"{env.name}: {reached}"], env.file.cost.action or FREE_PRICE
    asked = bool(env.file.cost.state) and env.file.cost.target is None
    if reached.stabilisable and asked:
        controllers["linear feedback (LQR)"] = LinearFeedback(env, lqr(linear, price))
    else:
        notes.append("No row of linear feedback: it cannot hold u = 0, or u = 0 is not what is asked for.")
        if needed and not learned:
            raise DataError(" ".join(notes))
    if not learned:
        return notes
    if not asked or not isinstance(made.model, Linearised):
        if needed:
            raise DataError(f"lqr: {made.title} has no linearisation, or u = 0 is not what is asked for.")
        return notes
    try:
        feedback = lqr(made.model.linearised(), price, LEARNED)
    except DataError as error:
        if needed:
            raise
        notes.append(f"No row of linear feedback of the model: {error}")
    else:
        controllers[f"linear feedback (LQR), {made.title}"] = LinearFeedback(env, feedback, made.model.coordinates)
    return notes


def _write(
    out: Path, result: PlanningResult, recipe: Mapping[str, Any], commands: Sequence[str], stages: Stages
) -> Path:
    section, arrays = as_report(result)
    report: dict[str, Any] = {"title": f"planning: {result.environment.name}", "control": section}
    report |= {"commands": list(commands), "versions": versions(), "machine": machine()}
    report |= {"seconds": dict(stages.seconds), "recipe": dict(recipe)}
    runs = list(result.episodes.values())
    first, last = (result.environment.pictured(run.fields[0]).cpu() for run in (runs[0], runs[-1]))
    control_gif(out / "control.gif", first, last, arrays["control/time"])
    return write_report(out, report, arrays)


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
