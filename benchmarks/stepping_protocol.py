"""Coefficients inferred, on the public one-dimensional protocol whose published networks are given them.

    python benchmarks/stepping_protocol.py --out results/rows/stepping_protocol.json        # some minutes of one core

The protocol: 30 runs at each of the coefficients that arXiv:2511.09729 tests at (difficulties of APEBench, turned into
coefficients in units of a node and a frame), mean nRMSE after 1, 10, 50, 100 and 200 steps. *ours*: one law for all of
them, found in unlabelled runs of the training ranges of KdV and Kuramoto-Sivashinsky together; its coefficients are
read from the first 16 frames of each test run, and it is integrated from the last of these. Nothing is trained and no
coefficient is given. *own law*: the same, found in the runs of the one equation alone. Burgers is in neither.

Published rows, read from the data of the paper's figures, start from the initial field and are given the coefficients.
"""

import argparse
import time
from pathlib import Path

import torch

import pdessl
from pdessl.data import load_recipe
from pdessl.evaluation.rollouts import nrmse
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.operators import follow
from pdessl.trajectory import Trajectories

AFTER = (1, 10, 50, 100, 200)
CONTEXT = 16
_LITTLE = 1e-6
DATASETS = {"kdv": "apebench_kdv", "ks": "apebench_ks", "burgers": "apebench_kdv"}
# set, equation and coefficients, from difficulties (delta, gamma_j, ...) with a = -delta, a_j = gamma_j / 2^(j-1)
SETS = {
    "kdv-in": ("KdV in", "kdv", [(-1.5, 0, -14, -6), (-1.2, 0, -18, -8)]),
    "kdv-out": ("KdV out", "kdv", [(-2, 0, -5, -9)]),
    "ks-in": ("KS in", "ks", [(-1.5, -1.5, 0, -20), (-1, -1.2, 0, -15)]),
    "ks-out": ("KS out", "ks", [(-1, -2, 0, -30)]),
    "burgers": ("Burgers, never seen", "burgers", [(-1.5, 1.5, 0, 0), (-1.5, 5, 0, 0)]),
}
PUBLISHED = {
    "LC (corrected coarse solver)": {
        "KdV in": (0.0001, 0.0009, 0.0017, 0.0026, 0.0049), "KdV out": (0.0003, 0.0023, 0.0025, 0.0043, 0.0079),
        "KS in": (0.0002, 0.0016, 0.020, 0.218, 1.13), "KS out": (0.0002, 0.0009, 0.007, 0.032, 0.42),
        "Burgers, never seen": (0.0017, 0.017, 0.035, 0.033, 0.042),
    },
    "PI-FNO-UNet (derivatives as input)": {
        "KdV in": (0.0001, 0.0008, 0.0028, 0.0042, 0.0069), "KdV out": (0.0003, 0.0035, 0.0056, 0.0099, 0.020),
        "KS in": (0.0002, 0.0016, 0.025, 0.228, 1.16), "KS out": (0.0002, 0.0015, 0.018, 0.069, 0.70),
        "Burgers, never seen": (0.0054, 0.051, 0.125, 0.164, 0.264),
    },
    "one equation, own network (Dil)": {
        "KdV in": (0.0046, 0.018, 0.061, 0.154, 0.54), "KS in": (0.0046, 0.030, 0.43, 1.19, 1.42),
        "Burgers, never seen": (0.0047, 0.016, 0.045, 0.11, 0.33),
    },
}  # fmt: skip
SOURCE = "arXiv:2511.09729, coefficients given"


def coefficients(equation, difficulties):
    """Return what the simulator is called with, for nodes and frames a unit apart and a largest value of 1."""
    delta, second, third, fourth = difficulties
    viscosity, dispersion, hyperviscosity = second / 2, -third / 4, -fourth / 8
    if equation == "ks":
        return {"steepening": -delta, "antidiffusion": -viscosity, "hyperviscosity": hyperviscosity}
    # Burgers' equation has no fourth derivative, and its solver here needs some: a millionth of what KdV's has.
    return {
        "steepening": -delta, "viscosity": viscosity, "dispersion": dispersion,
        "hyperviscosity": hyperviscosity or _LITTLE,
    }  # fmt: skip


def simulated(equation, split, runs, frames, difficulties=None, warm=True):
    """Return runs of the training ranges, or of one set of coefficients; without warm-up KS starts at time 0."""
    given = {} if difficulties is None else coefficients(equation, difficulties)
    changes = {f"parameters.{n}": {"distribution": "constant", "value": v} for n, v in given.items()}
    start = load_recipe(DATASETS[equation]).content["observation"]["start"] if warm else 0.0
    changes |= {"observation.frames": frames, "observation.start": start, "observation.end": start + frames - 1.0}
    return pdessl.simulate(load_recipe(DATASETS[equation], overrides=changes), split, range(runs))


def errors(law, runs):
    """Return nRMSE after the steps of the protocol, and the processor time of a run."""
    steps = runs.fields.shape[2] - CONTEXT
    began = time.process_time()
    ahead = follow(law, runs.window(slice(0, CONTEXT)), steps, rounds=2).fields
    seconds = time.process_time() - began
    found = nrmse(ahead, runs.fields[:, :, CONTEXT:]).mean(dim=0)
    return found[[n - 1 for n in AFTER if n <= steps]].double(), seconds / len(runs)


def line(name, where, values, source, **more):
    return {
        "row": name, "set": where, **{f"after {n}": float(v) for n, v in zip(AFTER, values, strict=False)},
        "source": source, **more,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--unlabelled", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="few frames and no warm-up: to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames, warm = (24, False) if options.tiny else (CONTEXT + 200, True)
    train = {n: simulated(n, "unlabelled", options.unlabelled, frames, warm=warm) for n in ("kdv", "ks")}
    bare = {n: r.without_parameters().replace(equation=None) for n, r in train.items()}
    # KS starts late: the same clock for both, as a law does not know of one.
    clock = bare["kdv"].time
    both = Trajectories.concatenate([r.replace(time=clock) for r in bare.values()])
    laws = {"one law for all": pdessl.discover(both, rank=4, resamples=2)}
    asked = {SETS[n][1] for n in options.only}
    laws |= {n: pdessl.discover(runs, resamples=2) for n, runs in bare.items() if n in asked}
    for name, law in laws.items():
        print(f"{name:<18s} {law}")
    rows = []
    for where, equation, points in (SETS[n] for n in options.only):
        sets = [simulated(equation, "test", options.runs, CONTEXT + options.steps, p, warm) for p in points]
        ours = {"ours, one law for all": laws["one law for all"]}
        ours |= {"ours, own law": laws[equation]} if equation in laws else {}
        for name, law in ours.items():
            found = [errors(law, runs) for runs in sets]
            values = torch.stack([f for f, _ in found]).mean(dim=0)
            seconds = sum(s for _, s in found) / len(found)
            rows.append(line(name, where, values, "coefficients inferred", seconds=seconds, law=str(law)))
            print(f"{where:<20s} {name:<24s} " + " ".join(f"{v:.2g}" for v in values.tolist()))
        rows += [line(n, where, held[where], SOURCE) for n, held in PUBLISHED.items() if where in held]
    if options.out is not None:
        command = "python benchmarks/stepping_protocol.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
