"""Latent operators: error from few labels beside the floors, and cost against the number of runs.

python benchmarks/operators.py errors                  the laws, and the table of results/operators.md
python benchmarks/operators.py cost --runs 64,256,1024
python benchmarks/operators.py diagnostics            what is said of a wrong library or rank
"""

import argparse
import platform
import time

import torch

from pdessl.data import load_recipe, simulate
from pdessl.errors import PdesslError
from pdessl.evaluation.classical import weak_form
from pdessl.inference.affine import AffineReadout
from pdessl.operators import Term, default_library, discover

CASES = {
    "burgers": ("viscosity",),
    "kuramoto_sivashinsky": ("hyperviscosity",),
    "kdv": ("dispersion",),
    "kdv_burgers": ("viscosity", "dispersion"),
    "heat": ("diffusivity",),
    "advection_diffusion": ("diffusivity",),
}


def relative(found, truth):
    return float(100 * ((found - truth).abs() / truth.abs()).mean())


def stated(values):
    values = torch.tensor(values, dtype=torch.float64)
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
    return f"{float(values.mean()):.2f} ± {error:.2f}"


def errors(options):
    counts = [int(n) for n in options.labels.split(",")]
    print(
        f"| data, target | law | {' | '.join(f'{n} labels' for n in counts)} | mean of 16 | weak form, equation known |"
    )
    print("|" + "---|" * (len(counts) + 4))
    for name in options.cases.split(","):
        runs = simulate(name, "unlabelled", range(options.unlabelled))
        labelled, test = (simulate(name, s, range(n)) for s, n in (("labelled", 256), ("test", 256)))
        started = time.process_time()
        law = discover(runs, resamples=0)
        spent = time.process_time() - started
        codes, at_test = law.encode(labelled)[0], law.encode(test)[0]
        for target in CASES[name]:
            known, truth = labelled.parameters[target].double(), test.parameters[target].double()
            cells, means = [], []
            for count in counts:
                found = []
                for draw in range(options.draws):
                    rows = torch.randperm(256, generator=torch.Generator().manual_seed(draw))[:count]
                    found.append(relative(AffineReadout.fit(codes[rows], known[rows]).predict(at_test), truth))
                    if count == 16:
                        means.append(relative(known[rows].mean().expand_as(truth), truth))
                cells.append(stated(found))
            try:
                equation = load_recipe(name).equation
                level = float(law.level[0])
                classical = f"{relative(weak_form(equation, test, target, noise_level=level), truth):.2f}"
            except PdesslError as error:
                classical = f"({type(error).__name__})"
            text = str(law).replace("\n", "; ")
            mean = stated(means) if means else ""
            print(f"| {name}, {target} | `{text}` | {' | '.join(cells)} | {mean} | {classical} |", flush=True)
        width = "x".join(map(str, law.half_width))
        print(
            f"<!-- {name}: reliability {law.reliability:.4f}, unexplained {law.unexplained:.4f}, rank {law.rank}, "
            f"half-widths {width}, noise {law.level.tolist()}, {spent:.1f} CPU-s for {law.count} runs -->"
        )


def cost(options):
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); processor seconds")
    first = None
    for count in [int(n) for n in options.runs.split(",")]:
        runs = simulate("burgers", "unlabelled", range(count))
        started = time.process_time()
        discover(runs, half_width=(9, 13), resamples=0)
        spent = time.process_time() - started
        first = first or spent / count
        print(f"{count:6d} runs {spent:7.2f} s, per run {spent / count / first:.2f} of the first line's")


def diagnostics(options):
    """Print what is said of laws whose library lacks a term, or whose rank is too large; no label is read."""
    runs = simulate("burgers", "unlabelled", range(options.unlabelled))
    whole = default_library(1, 1)
    even = {Term((m,), (r,)) for m in (1, 2, 3) for r in (2, 4)}
    cases = {
        "whole library": (whole, 1),
        "no products": (tuple(t for t in whole if t.powers == (1,)), 1),
        "no u_xx": (tuple(t for t in whole if t != Term((1,), (2,))), 1),
        "no even derivative": (tuple(t for t in whole if t not in even), 1),
        "one number too many": (whole, 2),
    }
    print("| library | reliability | unexplained | said |\n|---|---|---|---|")
    for name, (terms, rank) in cases.items():
        law = discover(runs, terms=terms, rank=rank, half_width=(9, 13), resamples=0)
        print(f"| {name} | {law.reliability:.3f} | {law.unexplained:.1%} | {' '.join(law.warnings()) or 'nothing'} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["errors", "cost", "diagnostics"])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--labels", default="2,4,16,32,64,256")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--unlabelled", type=int, default=1024)
    parser.add_argument("--runs", default="64,256,1024")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    {"errors": errors, "cost": cost, "diagnostics": diagnostics}[chosen.what](chosen)
