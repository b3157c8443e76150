"""``pdessl plan``: steer a controlled PDE by planning, in the real solver, beside its floors."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.plan`, print the table."""
    parser = Parser(
        "plan",
        "Steer a controlled PDE: search for the amplitudes of its actuators whose imagined outcome costs least, act\n"
        "on the first ones in the real solver, and plan again. The model is the solver itself, a world model that was\n"
        "trained, or the law of a few runs; beside it no control, chance, and linear feedback where that can work.\n"
        "Prints the costs and which modes no actuator reaches; writes report.html, report.json and control.gif.",
        examples=[
            "pdessl plan --environment ks_control_5 --planner gradient --episodes 4 --out runs/plan",
            "pdessl plan --environment ks_control_5 --planner icem --amplitude-limit 5 --set control.steps=100",
            "pdessl plan --model law --environment ks_control_4 --horizon 60 --out runs/law",
            "pdessl plan --model runs/ks4 --environment ks_control_4 --horizon 40 --out runs/plan",
            "pdessl plan --model runs/ks4 --environment ks_control_4 --adapt 1 --critic 2 --out runs/better",
            "pdessl list environments",
        ],
        python="import pdessl\nprint(pdessl.plan('ks_control_5', planner='gradient', episodes=4, out='runs/plan'))",
    )
    parser.add_argument("--environment", metavar="NAME", help="of 'pdessl list environments', or a YAML file")
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="RUN|law",
        help="folder of 'pdessl pretrain --config world/...' (several: their mean, and a price where they disagree), "
        "or law: the equation, found now from a few hundred control periods; default: the solver itself",
    )
    parser.add_argument("--upper", metavar="RUN", help="a slower world model on --model's latents: plan on two levels")
    parser.add_argument("--data", metavar="STORE", help="runs of 'pdessl generate' that the law is found from")
    parser.add_argument(
        "--price",
        choices=("decoded", "probe", "latent"),
        default="decoded",
        help="a world model's plans cost what is read from the latent as field (decoded) or as energy (probe), or the "
        "distance to the latent of the target; the last two: one model, without limits or a critic",
    )
    parser.add_argument("--doubt", type=float, default=1.0, metavar="W", help="price of a disagreement of models")
    parser.add_argument("--trust", type=float, metavar="E", help="plans end where a model's relative error passes this")
    parser.add_argument("--no-oracle", action="store_true", help="leave out the row of the solver as model")
    parser.add_argument(
        "--planner", default="gradient", metavar="NAME", help="gradient, cem, icem, mppi, newton, lagrangian or lqr"
    )
    parser.add_argument(
        "--search", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of the planner: iterations=10"
    )
    parser.add_argument(
        "--adapt",
        type=int,
        default=0,
        metavar="ROUNDS",
        help="train a world model on what surprised it, then plan again",
    )
    parser.add_argument(
        "--critic", type=int, default=0, metavar="ROUNDS", help="learn what follows after a plan, then plan again"
    )
    parser.add_argument(
        "--critic-horizon", type=int, metavar="H", help="of the plans in the critic's first round; default: --horizon"
    )
    parser.add_argument(
        "--distil", type=int, default=0, metavar="ROUNDS", help="distil a policy from the planner, which acts at once"
    )
    parser.add_argument("--futures", type=int, default=0, metavar="S", help="futures a plan is imagined in (0: one)")
    parser.add_argument("--case", choices=("average", "worst"), default="average", help="what it costs over them")
    parser.add_argument("--agent", metavar="NAME", help="a floor trained from rewards alone: sac or ppo (extra rl)")
    parser.add_argument("--agent-periods", type=int, default=50_000, metavar="N", help="that it is trained for")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="how many, side by side; default 20")
    parser.add_argument("--horizon", type=int, default=20, metavar="H", help="control periods of a plan; default 20")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="actions between two plannings; default 4")
    parser.add_argument("--energy-limit", type=float, metavar="E", help="guardrail: the mean of u² stays below")
    parser.add_argument("--amplitude-limit", type=float, metavar="U", help="guardrail: the largest |u| stays below")
    parser.add_argument("--seed", type=int, metavar="N", help="of the first episode; default: of those held out")
    parser.add_changes("environment", "control.steps=100")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write; default: nothing is written")
    options = parser.parse_args(arguments)
    parser.require(options, "environment")
    if options.environment is None:
        parser.error("--print_config prints an environment; give --environment NAME")
    limits = [value for value in (options.energy_limit, options.amplitude_limit) if value is not None]
    if any(not value > 0 for value in limits):
        parser.error("--energy-limit and --amplitude-limit are above 0")

    from pdessl.control import AmplitudeLimit, EnergyLimit, load_environment
    from pdessl.experiments.planning import HELD_OUT, plan
    from pdessl.schema import dump_yaml, read_words

    environment = load_environment(options.environment, options.set)
    if options.print_config:
        print(dump_yaml(environment.file), end="")
        return 0
    guardrails = [] if options.energy_limit is None else [EnergyLimit(options.energy_limit)]
    guardrails += [] if options.amplitude_limit is None else [AmplitudeLimit(options.amplitude_limit)]
    result = plan(
        environment,
        model=options.model,
        upper=options.upper,
        data=options.data,
        price=options.price,
        doubt=options.doubt,
        trust=options.trust,
        oracle=not options.no_oracle,
        planner=options.planner,
        settings=read_words(options.search),
        adapt=options.adapt,
        critic=options.critic,
        critic_horizon=options.critic_horizon,
        rounds=options.distil,
        futures=options.futures,
        case=options.case,
        agent=options.agent,
        agent_periods=options.agent_periods,
        episodes=options.episodes,
        horizon=options.horizon,
        every=options.every,
        guardrails=guardrails,
        seed=HELD_OUT if options.seed is None else options.seed,
        out=options.out,
        commands=[shlex.join(["pdessl", "plan", *arguments])],
    )
    say(result)
    return 0
