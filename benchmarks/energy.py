"""Inference by minimising an energy, beside what it starts from and those who know the equation; errors and coverage.

    python benchmarks/energy.py --only ks --out results/rows/imagination/energy_ks.json      # minutes of one core

A law is found in unlabelled runs; codes of test runs are read from it by least squares, and by the least error of its
forecasts started there. A straight line through codes and labels, by least relative squares, makes parameters of them.
Intervals are from the curvature at the minimum, through the line's slope.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

import torch

from pdessl.data import simulate
from pdessl.data.recipe import load_recipe
from pdessl.evaluation.classical import weak_form
from pdessl.evaluation.metrics import error_in_percent
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.inference import EnergyEncoder
from pdessl.inference.shooting import shoot
from pdessl.operators import discover
from pdessl.operators.following import shortened

CASES = {
    "burgers": ("burgers", "viscosity", 14, {"observation.points": 32, "observation.frames": 20}, 0.02),
    "ks": ("kuramoto_sivashinsky", "hyperviscosity", 20,
           {"observation.points": 64, "observation.frames": 32}, 0.065),
    "kdv": ("kdv", "dispersion", 20, {"observation.points": 32, "observation.frames": 32}, 0.03),
}  # fmt: skip


def conditions(case):
    """Return, by name, what is changed of a dataset, the frames that are kept, and the noise."""
    _, _, frames, coarse, noise = CASES[case]
    points, held = coarse["observation.points"], coarse["observation.frames"]
    return {
        f"as the dataset gives them, noise {noise:g}": ({}, None, noise),
        "without noise": ({"observation.noise": 0.0}, None, 0.0),
        f"{frames} frames of them": ({}, frames, noise),
        f"{points} points, {held} frames": (coarse, None, noise),
        f"noise {5 * noise:g}": ({"observation.noise": 5 * noise}, None, 5 * noise),
    }


def line(codes, labels):
    """Return slope and intercept of labels over codes, weighted as relative errors are."""
    weight = 1 / labels
    left = torch.stack([codes * weight, weight], dim=1)
    slope, intercept = torch.linalg.lstsq(left, (labels * weight)[:, None]).solution[:, 0]
    return slope, intercept


def row(case, condition, law, sizes, simulator):
    """Return the errors in per cent under a condition, and the law that was found if none is given."""
    dataset, name, *_ = CASES[case]
    changes, frames, noise = condition
    recipe = load_recipe(dataset, overrides=changes)
    cut = slice(0, frames)
    parts = {s: simulate(recipe, s, range(n)).window(cut) for s, n in sizes.items()}
    law = discover(parts["unlabelled"].without_parameters(), resamples=0) if law is None else law
    test, labelled = parts["test"], parts["labelled"]
    truth, labels = (runs.parameters[name].double() for runs in (test, labelled))
    found = {}
    if law.rank == 1:
        read = shortened(law, test.fields.shape[2])
        seen = {}
        for way in ("least_squares", "least_forecast_error"):
            begun = time.process_time()
            if way == "least_squares":
                codes = [read.encode(runs.without_parameters()) for runs in (labelled, test)]
                pairs = [(value[:, 0], error[:, 0]) for value, error in codes]
            else:
                inferred = [EnergyEncoder(law).infer(runs.without_parameters()) for runs in (labelled, test)]
                pairs = [(m.codes[:, 0], m.deviation[:, 0]) for m in inferred]
            slope, intercept = line(pairs[0][0], labels)
            value, deviation = slope * pairs[1][0] + intercept, slope.abs() * pairs[1][1]
            off = (value - truth) / deviation
            seen[way] = (value, off, (time.process_time() - begun) / (len(truth) + len(labels)))
            found[f"code_by_{way}"] = float(error_in_percent(value, truth))
        off = seen["least_forecast_error"][1]
        found["curvature_90_holds"] = 100 * float((off.abs() < 1.645).double().mean())
        found["error_over_curvature"] = float(off.square().mean().sqrt())
        found["energy_seconds_a_run"] = seen["least_forecast_error"][2]
    bare = test.replace(parameters={n: v for n, v in test.parameters.items() if n != name})
    found["weak_form_of_the_known_equation"] = float(error_in_percent(weak_form(test.equation, bare, name), truth))
    told = weak_form(test.equation, bare, name, noise_level=noise)
    found["weak_form_told_the_noise"] = float(error_in_percent(told, truth))
    if simulator:
        few = bare[slice(0, simulator)]
        begun = time.process_time()
        fit = shoot(test.equation, few, name)
        found["simulator_seconds_a_run"] = (time.process_time() - begun) / len(few)
        found["fitted_simulator"] = float(error_in_percent(fit.value[:, 0], truth[: len(few)]))
        off = (fit.value[:, 0] - truth[: len(few)]) / fit.error[:, 0]
        found["simulator_90_holds"] = 100 * float((off.abs() < 1.645).double().mean())
    found["predict_the_mean"] = float(error_in_percent(labels.mean().expand(len(truth)), truth))
    return {**found, "law": str(law)}, law


def main():
    """Print a row per case and condition, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--unlabelled", type=int, default=256)
    parser.add_argument("--labelled", type=int, default=32)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument(
        "--simulator", type=int, default=0, metavar="RUNS", help="fit the simulator to so many test runs"
    )
    parser.add_argument(
        "--conditions", type=int, nargs="+", choices=range(5), default=[*range(5)], help="numbers of them"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun, rows = time.process_time(), []
    sizes = {"unlabelled": options.unlabelled, "labelled": options.labelled, "test": options.test}
    for case in options.only:
        every, first = list(conditions(case).items()), None
        for number in options.conditions:
            title, condition = every[number]
            found, law = row(case, condition, None, sizes, options.simulator)
            first = law if number == 0 else first
            rows.append({"data": case, "runs": title, "law_found_in": "the same runs", **found})
            if number == 4 and first is not None:  # much noise: also by the law of the runs as they are
                found, _ = row(case, condition, first, sizes, 0)
                rows.append({"data": case, "runs": title, "law_found_in": every[0][0], **found})
    for one in rows:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()})
    if options.out is not None:
        command = shlex.join(["python", "benchmarks/energy.py", *sys.argv[1:]])
        seconds = round(time.process_time() - begun)
        content = {"rows": rows, "command": command, "versions": versions(), "machine": machine(), "seconds": seconds}
        write_json(options.out, content | {"sizes": sizes})


if __name__ == "__main__":
    main()
