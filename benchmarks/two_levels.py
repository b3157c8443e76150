"""Two time scales: how far ahead the models of both see, and what planning on two levels reaches beside a flat plan.

    python benchmarks/two_levels.py --low runs/tracer --high runs/tracer_slow --out two_levels.json

Errors of what is imagined, over the mean square of the field, after whole blocks from the starts of the measured
episodes, under smooth random amplitudes and under those of plans on two levels in the solver: the fast model rolled out
by periods, the slow one by blocks. Then closed loops in the solver with the same search in all rows; candidates of flat
plans are set so that as many steps of models are imagined for an episode as on two levels. Delivered: the overlap with
the target over the last tenth; success: more than half.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdessl.control import (
    CEM,
    Environment,
    Oracle,
    RecedingHorizon,
    Situation,
    SlowOracle,
    TwoLevels,
    VectorEnvironment,
    Zero,
    load_environment,
    run_episodes,
)
from pdessl.control.recording import Behaviour
from pdessl.experiments.planning import HELD_OUT
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.slow_world import SlowWorld, load_slow_world
from pdessl.experiments.world import LatentWorld, load_world
from pdessl.files import write_json

Row = dict[str, Any]
SAMPLES, ELITES, ROUNDS = 24, 16, 4


def errors(env: Environment, fast: LatentWorld, slow: SlowWorld, starts: int, samples: int) -> list[Row]:
    """Return the errors of both models after every block, under smooth amplitudes and under those of plans."""
    seeds = range(HELD_OUT, HELD_OUT + starts)
    now, stride = VectorEnvironment(env).reset(seeds), slow.blocks.stride
    smooth = Behaviour(env, ["smooth"] * starts)
    planned = TwoLevels(env, SlowOracle(env, slow.blocks), search(samples), every=stride)
    ways = {
        "smooth": torch.stack([smooth.act(replace(now, step=step)) for step in range(env.steps)], dim=1),
        "of plans": run_episodes(env, planned, seeds).actions,
    }
    return [
        {"table": "errors", "amplitudes": name, **row}
        for name, actions in ways.items()
        for row in _errors(env, fast, slow, now, actions[:, None, : env.steps // stride * stride])
    ]


def _errors(env: Environment, fast: LatentWorld, slow: SlowWorld, now: Situation, actions: Tensor) -> list[Row]:
    stride = slow.blocks.stride
    with torch.no_grad():
        real = env.rollout(now.state, actions[:, 0])[:, stride::stride]
        codes = slow.blocks.codes(actions)
        found = {
            "fast": fast.imagine(now, actions)[:, 0, stride - 1 :: stride],
            "slow": slow.imagine_blocks(now, codes)[:, 0],
            # The same amplitudes but for what a code leaves out of them: an error that no slow model can be without.
            "codes": Oracle(env).imagine(now, slow.blocks.amplitudes(codes))[:, 0, stride - 1 :: stride],
        }
    size = env.mean_square(real).mean(dim=0)
    shares = {name: (env.mean_square(states - real).mean(dim=0) / size).tolist() for name, states in found.items()}
    return [
        {"periods": stride * (m + 1), "fast_model": fast_, "slow_model": slow_, "code_alone": code}
        for m, (fast_, slow_, code) in enumerate(zip(*shares.values(), strict=True))
    ]


def flat(env: Environment, model: Any, horizon: int, every: int, budget: int) -> RecedingHorizon:
    """Return a flat plan whose candidates make up a budget of imagined steps in an episode."""
    ahead = sum(min(horizon, env.steps - step) for step in range(0, env.steps, every))
    samples = max(8, budget // (ahead * ROUNDS))
    return RecedingHorizon(env, model, search(samples), horizon, every)


def search(samples: int) -> CEM:
    """Return the search of all rows, with so many draws in the first of its rounds."""
    return CEM(samples, min(ELITES, max(2, samples // 4)), ROUNDS, colour=2.0, keep=0.3)


def closed_loops(
    env: Environment, fast: LatentWorld, slow: SlowWorld, episodes: int, horizon: int, every: int, samples: int
) -> list[Row]:
    """Return what every controller delivers."""
    seeds, rows, stride = range(HELD_OUT, HELD_OUT + episodes), [], slow.blocks.stride
    two = {
        "two levels, the world models": TwoLevels(env, slow, search(samples), every=stride),
        "two levels, the solver as both": TwoLevels(env, SlowOracle(env, slow.blocks), search(samples), every=stride),
    }

    def measure(name: str, controller: Any, ahead: int | None = None) -> int:
        begun = time.process_time()
        run = run_episodes(env, controller, seeds)
        spent = 1e3 * (time.process_time() - begun) / (episodes * env.steps)
        last = max(1, env.steps // 10)
        delivered = 1 - run.costs[:, -last:].mean(dim=1)
        imagined = int(getattr(controller, "imagined", 0))
        row = {"table": "loops", "planner": name, "periods_ahead": ahead, "imagined_per_episode": imagined}
        row |= {"mean_cost": float(run.mean_cost.mean()), "delivered": float(delivered.mean())}
        row |= {"success": float((delivered > 0.5).double().mean()), "cpu_milliseconds_an_action": spent}
        rows.append(row)
        print(row, flush=True)
        return imagined

    measure("no control", Zero(env))
    budget = 0
    for name, controller in two.items():
        budget = measure(name, controller, env.steps)
    for source, model in (("the world model", fast), ("the solver", Oracle(env))):
        measure(f"flat, {source}", flat(env, model, horizon, every, budget), horizon)
        measure(f"flat to the end, {source}", flat(env, model, env.steps, stride, budget), env.steps)
    measure("flat to the end, the solver, ten times the budget", flat(env, Oracle(env), env.steps, stride, 10 * budget),
            env.steps)  # fmt: skip
    return rows


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--low", type=Path, required=True, help="run of world/tracer")
    parser.add_argument("--high", type=Path, required=True, help="run of world/tracer_slow on it")
    parser.add_argument("--environment", default="tracer_ring")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--horizon", type=int, default=8, help="of flat plans, control periods")
    parser.add_argument("--every", type=int, default=2, help="actions between two plannings of the short flat plan")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="draws of a round on two levels")
    parser.add_argument("--only", choices=("errors", "loops"))
    parser.add_argument("--seed", type=int, default=0, help="of the training, for the rows")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    env = load_environment(given.environment, given.set)
    fast = load_world(given.low, env)
    slow = load_slow_world(given.high, fast)
    rows = errors(env, fast, slow, given.episodes, given.samples) if given.only != "loops" else []
    if given.only != "errors":
        rows += closed_loops(env, fast, slow, given.episodes, given.horizon, given.every, given.samples)
    rows = [{"training_seed": given.seed, **row} for row in rows]
    command = shlex.join(["python", "benchmarks/two_levels.py", *sys.argv[1:]])
    write_json(given.out, {"command": command, "versions": versions(), "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
