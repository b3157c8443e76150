"""Control periods per second of processor time, alone and in batches, and milliseconds of planning an action.

python benchmarks/control.py                       # Kuramoto-Sivashinsky with four actuators
python benchmarks/control.py --planning            # planners in the true solver, at their defaults
python benchmarks/control.py --environment smoke_fans --batches 1,64
"""

import argparse
import time

import torch

from pdessl.control import VectorEnvironment, load_environment
from pdessl.control.receding import Imagined, Oracle
from pdessl.experiments.planning import PLANNERS

DRY = {"burn_in": 0.0}


def processor_seconds(run, repeats):
    """The least of the repeats."""
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        run()
        spent.append(time.process_time() - begun)
    return min(spent)


def stepping(name, batches, periods, repeats):
    """Print control periods, and inner steps of the solver, per second of processor time."""
    env = load_environment(name, DRY)
    for batch in batches:
        state = env.start([0]).expand(batch, -1).contiguous()
        actions = torch.zeros(batch, env.actuators, dtype=torch.float64)
        count = max(2, min(periods // batch, 1000))

        def run(state=state, actions=actions, count=count):
            now = state
            for _ in range(count):
                now = env.step(now, actions)

        rate = batch * count / processor_seconds(run, repeats)
        print(f"{name}  batch {batch:4d}  {rate:10,.0f} periods/s  {rate * env.file.solver.substeps:10,.0f} steps/s")


def planning(name, episodes, horizon, repeats):
    """Print milliseconds of processor time for one planning of one episode, and how many candidates were imagined."""
    env = load_environment(name, DRY)
    now = VectorEnvironment(env).reset(range(episodes))
    problem = Imagined(env, Oracle(env), now)
    start = torch.zeros(episodes, horizon, env.actuators, dtype=torch.float64)
    for word, planner in PLANNERS.items():
        search = planner()
        found = []

        def run(search=search, found=found):
            found.append(search.plan(problem, start, env.bound, torch.Generator().manual_seed(0)))

        spent = 1e3 * processor_seconds(run, repeats) / episodes
        print(
            f"{word:<10} {spent:10.1f} ms  {found[0].evaluations:6d} candidates  cost {float(found[0].cost.mean()):.4f}"
        )


def main():
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default="ks_control_4")
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 64, 512])
    parser.add_argument("--periods", type=int, default=20_000, help="of all episodes together, at most 1000 of each")
    parser.add_argument("--planning", action="store_true")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.planning:
        planning(given.environment, given.episodes, given.horizon, given.repeats)
    else:
        stepping(given.environment, given.batches, given.periods, given.repeats)


if __name__ == "__main__":
    main()
