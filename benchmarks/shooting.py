"""How near fitting the simulator to a run comes, beside the weak form that starts it; processor-seconds a run.

    python benchmarks/shooting.py --out results/rows/shooting.json        # some minutes of one core

Datasets as shipped, noise included; nothing is chosen by these runs.
"""

import argparse
import time
from pathlib import Path

import torch

import pdessl
from pdessl.evaluation.classical import weak_form
from pdessl.evaluation.metrics import error_in_percent
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.inference.shooting import shoot

CASES = {
    "burgers": "viscosity", "kdv": "dispersion", "kuramoto_sivashinsky": "hyperviscosity", "heat": "diffusivity",
    "advection_diffusion": "diffusivity",
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    head = f"{'weak form, %':>12s} {'shooting, %':>12s} {'ratio':>6s} {'|z| < 1.64, %':>14s} {'CPU-s a run':>12s}"
    print(f"{'data':<22s} {head}")
    for dataset in options.only:
        name = CASES[dataset]
        runs = pdessl.simulate(dataset, "test", range(options.runs))
        truth = runs.parameters[name].double()
        bare = runs.replace(parameters={n: v for n, v in runs.parameters.items() if n != name})
        weak = float(error_in_percent(weak_form(runs.equation, bare, name), truth))
        start = time.process_time()
        found = shoot(runs.equation, bare, name)
        seconds = (time.process_time() - start) / len(runs)
        error = float(error_in_percent(found.value[:, 0], truth))
        inside = float((((found.value[:, 0] - truth) / found.error[:, 0]).abs() < 1.645).double().mean())
        row = {"data": dataset, "target": name, "runs": len(runs), "weak_form": weak, "shooting": error}
        rows.append({**row, "inside_90": inside, "seconds_a_run": seconds})
        print(f"{dataset:<22s} {weak:12.3f} {error:12.3f} {error / weak:6.2f} {100 * inside:14.0f} {seconds:12.2f}")
    if options.out is not None:
        command = "python benchmarks/shooting.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
