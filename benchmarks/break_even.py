"""After how many solves a time-stepper pays, against our own solver at the coarsest setting of equal error.

    pdessl timestep --data data/burgers --config timestep/burgers_steps --out runs/steps
    python benchmarks/break_even.py runs/steps --dataset burgers --out results/rows/break_even_burgers.json

Models of a ``timestep`` run predict the frames after noisy contexts; errors are against the same runs without noise.
The solver is given what no model has, the true parameters and the last frame of the context without noise on a fine
grid, and is made coarser in space, in time and in precision as long as its error is no larger. Costs are processor
seconds on one thread, runs in one batch. *Once* is what a model costs before its first run: simulating the labelled
runs, training, and, where a law is needed, simulating and searching the unlabelled ones.
"""

import argparse
import itertools
import time
from pathlib import Path

import torch

import pdessl
from pdessl.data import load_recipe
from pdessl.evaluation.rollouts import break_even, pooled_nmse
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.solvers import SIMULATORS
from pdessl.solvers.pseudo_spectral import interpolate

FINE = 4  # nodes of the grid that the solver starts from, over those of the data
FROM_A_LAW = ("operator", "hybrid", "law")


def timed(action, repeats=3):
    """Return what an action gives, and the least processor time of several."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        result = action()
        found.append(time.process_time() - began)
    return result, min(found)


def solver_runs(recipe, runs, start, context, options):
    """Yield settings of the solver, its error and the seconds of a run."""
    simulator = SIMULATORS[recipe.content["solver"]["simulator"]]
    truth, nodes = runs.fields[:, :, context:], runs.fields.shape[3]
    given = {n: runs.parameters[n] for n in simulator.parameter_names if n in runs.parameters}
    times = (runs.time - runs.time[:, context - 1 : context])[:, context:]
    points = [n for n in (nodes // 4, nodes // 2, nodes, 2 * nodes) if n >= 8]
    for n, steps, precision in itertools.product(points, options.substeps, (torch.float32, torch.float64)):
        made = simulator(
            **given, domain_length=runs.lengths[:, 0], points=n, substeps=steps, check_resolution=False,
            precision=precision,
        )  # fmt: skip
        begins = interpolate(start, (n,))
        found, seconds = timed(lambda: made.solve(begins, times).trajectories.fields, options.repeats)  # noqa: B023
        error = float(pooled_nmse(interpolate(found.double(), (nodes,)), truth))
        setting = f"{n} points, {steps} steps a frame, {str(precision).removeprefix('torch.')}"
        yield setting, error, seconds / len(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of pdessl timestep")
    parser.add_argument("--dataset", required=True, help="what its data were generated from")
    parser.add_argument("--labelled", type=int, default=256, help="runs it was trained on")
    parser.add_argument("--unlabelled", type=int, default=256, help="runs that a law is searched in")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--substeps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(options.dataset)
    noisy = pdessl.simulate(recipe, "test", range(options.runs))
    clean = pdessl.simulate(load_recipe(recipe, overrides={"observation.noise": 0.0}), "test", range(options.runs))
    nodes = clean.fields.shape[3]
    finer = {"observation.noise": 0.0, "observation.points": FINE * nodes}
    fine = pdessl.simulate(load_recipe(recipe, overrides=finer), "test", range(options.runs))
    train, seconds = timed(lambda: pdessl.simulate(recipe, "unlabelled", range(options.unlabelled)), 1)
    generation = seconds / options.unlabelled
    folders = sorted(p.parent for p in options.run.glob("*/surrogate.json"))
    models = {p.name: pdessl.load(p) for p in folders}
    context = next(iter(models.values())).context
    searching = 0.0
    if set(FROM_A_LAW) & set(models):
        found = train.without_parameters()
        pdessl.discover(found[slice(0, 16)], resamples=2)  # what comes first takes seconds of its own
        _, seconds = timed(lambda: pdessl.discover(found, resamples=2), 1)
        searching = seconds + generation * options.unlabelled
    start = fine.fields[:, :, context - 1].double()
    solved = list(solver_runs(recipe, clean, start, context, options))
    truth, seen, rows = clean.fields[:, :, context:], noisy.window(slice(0, context)), []
    for name, model in models.items():
        ahead, seconds = timed(lambda: model.ahead(seen, truth.shape[2]), options.repeats)  # noqa: B023
        error, seconds = float(pooled_nmse(ahead[:, : truth.shape[1]], truth)), seconds / len(seen)
        once = float(model.record.get("seconds of training, processor", 0.0))
        once += searching * (name in FROM_A_LAW) + generation * options.labelled * (name != "law")
        equal = min((s for s in solved if s[1] <= error), key=lambda s: s[2], default=None)
        row = {"model": name, "error": error, "seconds_a_run": seconds, "once": once}
        if equal is not None:
            row |= {"solver": equal[0], "its_error": equal[1], "its_seconds": equal[2]}
            pays = break_even(once, seconds, equal[2])
            row["pays_after"] = "never" if pays == float("inf") else f"{pays:.0f} solves"
        rows.append(row)
        print(
            f"{name:<15s} error {error:.2e} {seconds * 1e3:8.3f} ms a run, once {once:6.1f} s; solver "
            f"{row.get('solver', 'none tried'):<36s} {row.get('its_seconds', 0) * 1e3:8.3f} ms: "
            f"{row.get('pays_after', '-')}"
        )
    if options.out is not None:
        command = f"python benchmarks/break_even.py RUN --dataset {options.dataset}"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
