"""The law of unlabelled runs, integrated from a noisy context, against fields without noise; what its filter is worth.

    python benchmarks/law_rollouts.py --out results/rows/law_rollouts.json        # some minutes of one core

Datasets as shipped, test runs with their noise and the same runs without it. *law*: code and start from the noisy
context; *unfiltered*: the code of least squares and the last frame as observed; *clean start*: that code, from a
context without noise. NMSE of all frames after the context.
"""

import argparse
import time
from pathlib import Path

import torch

import pdessl
from pdessl.data import load_recipe
from pdessl.evaluation.metrics import nmse
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.operators import follow
from pdessl.operators.following import shortened

CASES = ("burgers", "kdv", "kuramoto_sivashinsky")
WAYS = ("persistence", "law", "unfiltered", "clean_start")


def scored(found, truth):
    """Return mean and median over runs of the squared error over the squared field."""
    error = (found - truth).square().flatten(1).sum(1) / truth.square().flatten(1).sum(1)
    return {"mean": float(nmse(found, truth)), "median": float(error.median())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--unlabelled", type=int, default=96)
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.only:
        train = pdessl.simulate(name, "unlabelled", range(options.unlabelled))
        noisy = pdessl.simulate(name, "test", range(options.runs))
        clean = pdessl.simulate(load_recipe(name, overrides={"observation.noise": 0.0}), "test", range(options.runs))
        law = pdessl.discover(train.without_parameters(), resamples=2)
        cut = slice(0, options.context)
        context, truth = noisy.window(cut), clean.fields[:, :, options.context :]
        steps = truth.shape[2]
        codes = shortened(law, options.context).encode(context)[0]
        start = time.process_time()
        found = {"law": follow(law, context, steps)}
        seconds = time.process_time() - start
        found["unfiltered"] = follow(law, context, steps, filtered=False)
        found["clean_start"] = follow(law, clean.window(cut), steps, codes=codes, filtered=False)
        last = noisy.fields[:, :, options.context - 1 : options.context]
        row = {"data": name, "equation": str(law), "seconds": seconds, "frames": steps}
        row["persistence"] = scored(last.expand_as(truth), truth)
        row |= {way: scored(run.fields, truth) for way, run in found.items()}
        rows.append(row)
        figures = ", ".join(f"{k} {row[k]['mean']:.3g} ({row[k]['median']:.2g})" for k in WAYS)
        print(f"{name:<22s} {figures}, {seconds:.1f} CPU-s")
    if options.out is not None:
        command = "python benchmarks/law_rollouts.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
