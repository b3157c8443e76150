"""Latent operators: error from few labels beside the floors, under shifts, of few runs, and what they cost.

Every command keeps its rows as JSON in a folder; 'table' writes the tables of a page from the rows there.

python benchmarks/operators.py errors --only burgers,kdv --seed 1   laws of fresh draws, and errors from few labels
python benchmarks/operators.py errors --only smoke                  all fields of smoke in a box
python benchmarks/operators.py reading --seed 1                     smoke, half-widths given: two ways to read codes
python benchmarks/operators.py shifts --only burgers,kdv            nothing found again, and found again in such runs
python benchmarks/operators.py learned                              drawn functions and free kernels, no library
python benchmarks/operators.py amortised --only burgers,smoke       an encoder beside a law, or a law, by gradient
python benchmarks/operators.py distilled                            an encoder taught by a law, on poorer runs
python benchmarks/operators.py unlabelled --only burgers --runs 16,64,256,1024,4096
python benchmarks/operators.py diagnostics                          what is said of a wrong library or rank
python benchmarks/operators.py cost --runs 64,256,1024
python benchmarks/operators.py memory --runs 1000,4000,10000        peak of a process that finds the law of a store
python benchmarks/operators.py pysindy                              PySINDy's weak library, one run at a time
python benchmarks/operators.py table results/operators.md           all rows into the page
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

import pdessl
from pdessl.data import generate, load_recipe, simulate
from pdessl.errors import PdesslError
from pdessl.evaluation.classical import weak_form
from pdessl.experiments.discovery import unlabelled_runs
from pdessl.experiments.pretraining import pretrain
from pdessl.files import write_json, write_text
from pdessl.inference.affine import AffineReadout
from pdessl.inference.encoding import features
from pdessl.models import load
from pdessl.operators import Projection, Term, default_library, discover, fit_learned, save_law, weak_grams
from pdessl.operators.fit import encode, fit, gauged, loss
from pdessl.operators.latent import normals
from pdessl.operators.library import curl_form
from pdessl.operators.steady import steady_codes


@dataclass(frozen=True)
class Case:
    """A dataset of the catalog, its targets, and how many runs are used where no number is given."""

    dataset: str
    targets: tuple[str, ...]
    unlabelled: int = 1024
    labelled: int = 256
    test: int = 256
    shifts: dict = field(default_factory=dict)  # name -> changes of the recipe


CASES = {
    "burgers": Case(
        "burgers",
        ("viscosity",),
        shifts={
            "noise 10 % of the field": {"observation.noise": 0.036},
            "noise 30 % of the field": {"observation.noise": 0.108},
            "half of the points": {"observation.points": 32},
            "first half of the frames": {"observation.frames": 20, "observation.end": 4.0 * 19 / 39},
            "finer initial fields": {"initial_condition.wave_numbers": [3, 8]},
        },
    ),
    "kuramoto_sivashinsky": Case(
        "kuramoto_sivashinsky",
        ("hyperviscosity",),
        shifts={
            "32 points": {"observation.points": 32},
            "noise 30 % of the field": {"observation.noise": 0.39},
            "32 points, noise 30 % of the field": {"observation.points": 32, "observation.noise": 0.39},
        },
    ),
    "kdv": Case(
        "kdv",
        ("dispersion",),
        shifts={
            "half of the points": {"observation.points": 32},
            "half of the points, noise 30 % of the field": {"observation.points": 32, "observation.noise": 0.18},
        },
    ),
    "kdv_burgers": Case("kdv_burgers", ("viscosity", "dispersion")),
    "heat": Case("heat", ("diffusivity",)),
    "advection_diffusion": Case("advection_diffusion", ("diffusivity",)),
    "smoke": Case("smoke_buoyancy_small", ("buoyancy",), 96, 64, 96),
}


def relative(found, truth):
    return float(100 * ((found - truth).abs() / truth.abs()).mean())


class Drawn:
    """Unlabelled, labelled and test runs of a case, from a seed of the data."""

    def __init__(self, case, options, changes=None):
        self.case = case
        self.recipe = load_recipe(case.dataset, None, {"seed": options.seed, **(changes or {})})
        self.count = options.unlabelled or case.unlabelled

    def runs(self, split, count=None):
        return simulate(self.recipe, split, range(count or getattr(self.case, split)), workers=1)

    def law(self, options, count=None):
        """Return the law of unlabelled runs and the processor seconds it took."""
        runs = self.runs("unlabelled", count or self.count).without_parameters()
        started = time.process_time()
        return discover(runs, resamples=0), time.process_time() - started


def said_of(law, seconds):
    """Return what is kept of a law."""
    return {
        "law": str(law),
        "unlabelled": law.count,
        "reliability": law.reliability,
        "unexplained": law.unexplained,
        "rank": law.rank,
        "half_width": list(law.half_width),
        "noise_removed": law.noise_removed,
        "steady": law.steady,
        "high_pass": law.projection.high_pass,
        "noise": law.level.tolist(),
        "warnings": law.warnings(),
        "seconds": round(seconds, 1),
        "version": pdessl.__version__,
    }


def of_labels(codes, known, at_test, truth, counts, draws):
    """Return by number of labels the errors of the draws, and those of the mean of 16 labels."""
    found, means = {}, []
    for count in (n for n in counts if n <= len(known)):
        found[count] = []
        for draw in range(draws):
            rows = torch.randperm(len(known), generator=torch.Generator().manual_seed(draw))[:count]
            found[count].append(relative(AffineReadout.fit(codes[rows], known[rows]).predict(at_test), truth))
            if count == 16:
                means.append(relative(known[rows].mean().expand_as(truth), truth))
    return found, means


def of_the_equation(recipe, test, target, level):
    try:
        return relative(weak_form(recipe.equation, test, target, noise_level=level), test.parameters[target].double())
    except PdesslError as error:
        return type(error).__name__


def read(law, drawn, options, test=None):
    """Return the errors of every target from few labels, beside the floors."""
    labelled, test = drawn.runs("labelled"), test or drawn.runs("test")
    codes, at_test = law.encode(labelled)[0], law.encode(test)[0]
    found = {}
    for target in drawn.case.targets:
        known, truth = labelled.parameters[target].double(), test.parameters[target].double()
        errors, means = of_labels(codes, known, at_test, truth, options.labels, options.draws)
        classical = of_the_equation(drawn.recipe, test, target, float(law.level[0]))
        found[target] = {"error": errors, "mean of 16": means, "equation known": classical}
    return found


def errors(options):
    for name in options.only or CASES:
        drawn = Drawn(CASES[name], options)
        law, seconds = drawn.law(options)
        row = {"case": name, "seed": options.seed, **said_of(law, seconds), "targets": read(law, drawn, options)}
        keep(options, f"errors-{name}-seed{options.seed}", row)


def reading(options):
    """Smoke, the law of the vorticity with all its terms, half-widths given: least squares, and steady codes."""
    drawn = Drawn(CASES["smoke"], options)
    runs = {split: drawn.runs(split) for split in ("labelled", "test")}
    runs["unlabelled"] = drawn.runs("unlabelled", drawn.count).without_parameters()
    named = runs["unlabelled"]
    form = curl_form(named.field_names, named.axis_names, (0, 1))
    terms = tuple(t for t, own in zip(form.terms, form.allowed[0], strict=True) if own)
    known, truth = (runs[s].parameters["buoyancy"].double() for s in ("labelled", "test"))
    for width in ((6, 4, 4), (9, 4, 4)):
        projection = Projection(terms, width, form.targets[:1], form.derived, stride=(1, 2, 2))
        whole, _ = normals(weak_grams(named, projection), len(terms), True)
        law = gauged(fit(whole, 1), whole)
        row = {"case": "smoke", "seed": options.seed, "unlabelled": len(named), "half_width": list(width), "ways": {}}
        row["unexplained"] = float(loss(law, encode(law, whole), whole).mean())
        for way, rounds in (("least squares", 0), ("steady", 8)):
            made = {s: steady_codes(law, r, projection, True, rounds) for s, r in runs.items()}
            first, second = made["unlabelled"][1].unbind(dim=1)
            apart = float((2 * (first - second).abs() / (first.abs() + second.abs())).mean())
            found, _ = of_labels(made["labelled"][0], known, made["test"][0], truth, options.labels, options.draws)
            row["ways"][way] = {"halves apart": apart, "error": found}
            print(width, way, f"{apart:.4f}", {n: stated(v) for n, v in found.items()}, flush=True)
        keep(options, f"reading-smoke-{'x'.join(map(str, width))}-seed{options.seed}", row, quiet=True)


def shifts(options):
    """Labels of runs as in training; test runs that differ: with the law found before, and one found in such runs."""
    options.labels = [32]
    for name in options.only or [n for n, c in CASES.items() if c.shifts]:
        case, plain = CASES[name], Drawn(CASES[name], options)
        law, _ = plain.law(options)
        for title, changes in {"as in training": {}, **case.shifts}.items():
            drawn = Drawn(case, options, changes)
            row = {"case": name, "seed": options.seed, "shift": title, "changes": changes}
            row["kept"] = read_or_reason(law, plain, options, drawn.runs("test"))
            again, seconds = drawn.law(options)
            row |= said_of(again, seconds) | {"targets": read(again, drawn, options)}
            keep(options, f"shifts-{name}-{slug(title)}-seed{options.seed}", row)
        row = {"case": name, "seed": options.seed, "shift": "labels below the lower third, tests above the upper one"}
        row |= {"targets": {t: beyond(law, plain, t, options) for t in case.targets}}
        keep(options, f"shifts-{name}-extrapolation-seed{options.seed}", row)


def read_or_reason(law, drawn, options, test):
    try:
        return read(law, drawn, options, test)
    except PdesslError as error:
        return f"{type(error).__name__}: {error}"


def beyond(law, drawn, target, options):
    """Return the error on the upper third of the test runs from labels of the lower third of the labelled ones."""
    labelled, test = drawn.runs("labelled"), drawn.runs("test")
    known, truth = labelled.parameters[target].double(), test.parameters[target].double()
    low, high = known <= known.quantile(1 / 3), truth >= truth.quantile(2 / 3)
    codes, at_test = law.encode(labelled)[0][low], law.encode(test)[0][high]
    found, _ = of_labels(codes, known[low], at_test, truth[high], options.labels, options.draws)
    return {"error": found, "mean of 16": [], "equation known": ""}


def learned(options):
    """The same errors of laws whose functions and kernels nobody chose."""
    for name in options.only or ["burgers", "kdv", "kuramoto_sivashinsky", "smoke"]:
        drawn = Drawn(CASES[name], options)
        runs = drawn.runs("unlabelled", options.unlabelled or min(256, drawn.count)).without_parameters()
        started = time.process_time()
        law = fit_learned(runs)
        seconds = time.process_time() - started
        held, test = drawn.runs("labelled"), drawn.runs("test")
        codes, at_test = (law.encoder(r).features.detach() for r in (held, test))
        row = {"case": name, "seed": options.seed, "unlabelled": law.count, "seconds": round(seconds, 1)}
        row |= {"reliability": law.reliability, "unexplained": law.unexplained, "rank": law.encoder.feature_dim}
        row["targets"] = {}
        for target in drawn.case.targets:
            known, truth = held.parameters[target].double(), test.parameters[target].double()
            found, means = of_labels(codes, known, at_test, truth, options.labels, options.draws)
            row["targets"][target] = {"error": found, "mean of 16": means, "equation known": ""}
        keep(options, f"learned-{name}-seed{options.seed}", row)


GRADIENT = {"burgers": "burgers", "kdv": "kdv", "kuramoto_sivashinsky": "ks", "smoke": "smoke"}  # names of recipes


def amortised(options):
    """The same errors of what is trained by gradient: an encoder beside a law, or a law of learned functions."""
    for name in options.only or list(GRADIENT):
        drawn, recipe = Drawn(CASES[name], options), f"pretrain/{GRADIENT[name]}_{options.recipe}"
        with tempfile.TemporaryDirectory() as folder:
            size = {"unlabelled": drawn.count, "labelled": 4, "validation": 32, "test": 4}
            changes = {"seed": options.seed}
            store = generate(drawn.case.dataset, Path(folder) / "data", size=size, overrides=changes, progress=False)
            given = {"data.path": str(store.path), "trainer.enable_progress_bar": False}
            given |= {"trainer.max_epochs": options.epochs} if options.epochs else {}
            started = time.process_time()
            run = pretrain(recipe, given, Path(folder) / "encoder")
            seconds, encoder = time.process_time() - started, load(run.folder)
        held, test = drawn.runs("labelled"), drawn.runs("test")
        row = {"case": name, "seed": options.seed, "recipe": recipe, "unlabelled": drawn.count}
        row |= {"epochs": run.task.trainer.max_epochs, "steps": run.task.trainer.global_step}
        row |= {"seconds": round(seconds, 1), "targets": {}}
        for way in ("minimised", "amortised") if options.recipe == "amortised" else ("minimised",):
            encoder.module.inference = way
            codes, at_test = (features(encoder, r) for r in (held, test))
            for target in drawn.case.targets:
                known, truth = held.parameters[target].double(), test.parameters[target].double()
                found, means = of_labels(codes, known, at_test, truth, options.labels, options.draws)
                said = {"error": found, "mean of 16": means, "equation known": ""}
                row["targets"][f"{target}, {way}"] = said
        keep(options, f"gradient-{GRADIENT[name]}_{options.recipe}-seed{options.seed}", row)


POOR = {
    "as in training": {},
    "half of the points": {"observation.points": 32},
    "a quarter of the frames": {"observation.frames": 10, "observation.end": 4.0 * 9 / 39},
    "noise 30 % of the field": {"observation.noise": 0.108},
    "all three": {
        "observation.points": 32,
        "observation.frames": 10,
        "observation.end": 4.0 * 9 / 39,
        "observation.noise": 0.108,
    },
}


def distilled(options):
    """An encoder taught the codes of a law on poor views, and the law, on runs poorer than those it was found in."""
    options.labels = [32]
    with tempfile.TemporaryDirectory() as folder:
        changes = {"seed": options.seed}
        size = {"unlabelled": options.unlabelled or 1024, "labelled": 4, "validation": 64, "test": 4}
        store = generate("burgers", Path(folder) / "data", size=size, overrides=changes).path
        law = discover(unlabelled_runs(store), resamples=0)
        save_law(law, Path(folder) / "law")
        started = time.process_time()
        given = {
            "data.path": str(store),
            "model.augmentation.init_args.law": str(Path(folder) / "law"),
            "trainer.max_epochs": options.epochs or 40,
            "trainer.enable_progress_bar": False,
        }
        run = pretrain("pretrain/burgers_distilled", given, Path(folder) / "encoder")
        seconds, encoder = time.process_time() - started, load(run.folder)
    case = CASES["burgers"]
    for title, changes in POOR.items():
        drawn = Drawn(case, options, changes)
        known, test = drawn.runs("labelled"), drawn.runs("test")
        row = {"case": "burgers", "seed": options.seed, "runs": title, "epochs": options.epochs or 40}
        row |= {"seconds": round(seconds, 1), "unlabelled": options.unlabelled or 1024}
        truth, labels = (r.parameters["viscosity"].double() for r in (test, known))
        row["encoder"], row["encoder, labels of training"] = (
            of_logarithms(features(encoder, held), labels, features(encoder, test), truth, options.draws)
            for held in (known, Drawn(case, options).runs("labelled"))
        )
        row["law"] = codes_or_reason(law, known, test, truth, options)
        try:
            again, _ = drawn.law(options, 256)
            row["law found again"] = codes_or_reason(again, known, test, truth, options)
        except PdesslError as error:
            row["law found again"] = type(error).__name__
        keep(options, f"distilled-burgers-{slug(title)}-seed{options.seed}", row, quiet=True)
        print(
            title, {k: v if isinstance(v, str) else stated(v) for k, v in row.items() if k.startswith(("enc", "law"))}
        )


def codes_or_reason(law, known, test, truth, options):
    try:
        codes, at_test = law.encode(known)[0], law.encode(test)[0]
    except PdesslError as error:
        return type(error).__name__
    return of_labels(codes, known.parameters["viscosity"].double(), at_test, truth, [32], options.draws)[0][32]


def of_logarithms(codes, known, at_test, truth, draws, count=32):
    """Return the errors of log p = a + b e fitted on draws of labels."""
    found = []
    for draw in range(draws):
        rows = torch.randperm(len(known), generator=torch.Generator().manual_seed(draw))[:count]
        columns = [torch.cat([torch.ones(len(e), 1, dtype=torch.float64), e.double()], dim=1) for e in (codes, at_test)]
        weights = torch.linalg.lstsq(columns[0][rows], known[rows].log()[:, None]).solution
        found.append(relative((columns[1] @ weights)[:, 0].exp(), truth))
    return found


def unlabelled(options):
    options.labels = [32]
    for name in options.only or ["burgers"]:
        drawn = Drawn(CASES[name], options)
        for count in options.runs or [16, 64, 256, 1024, 4096]:
            law, seconds = drawn.law(options, count)
            row = {"case": name, "seed": options.seed, **said_of(law, seconds), "targets": read(law, drawn, options)}
            keep(options, f"unlabelled-{name}-{count:05d}-seed{options.seed}", row)


def cost(options):
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); processor seconds")
    first, rows = None, []
    for count in options.runs or [64, 256, 1024]:
        runs = simulate("burgers", "unlabelled", range(count))
        started = time.process_time()
        discover(runs, half_width=(9, 13), resamples=0)
        spent = time.process_time() - started
        first = first or spent / count
        rows.append({"runs": count, "seconds": round(spent, 2)})
        print(f"{count:6d} runs {spent:7.2f} s, per run {spent / count / first:.2f} of the first line's", flush=True)
    keep(options, "cost", {"machine": platform.machine(), "torch": torch.__version__, "rows": rows}, quiet=True)


FOUND = """
import resource, sys, time
from pdessl.experiments.discovery import discover
started = time.process_time()
law = discover(sys.argv[1], half_width=(9, 13), limit=int(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(law.count, peak, time.process_time() - started)
"""


def memory(options):
    """Peak of the resident memory of processes that find the law of the first runs of one store, part by part."""
    counts, rows = options.runs or [1000, 4000, 10000], []
    with tempfile.TemporaryDirectory() as folder:
        size = {"unlabelled": max(counts), "labelled": 4, "validation": 4, "test": 4}
        store = generate("burgers", Path(folder) / "data", size=size, overrides={"shard_size": 512}).path
        for count in counts:
            command = [sys.executable, "-c", FOUND, str(store), str(count)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            row = {"runs": int(said[0]), "megabytes": round(float(said[1])), "seconds": round(float(said[2]), 1)}
            rows.append(row | {"fields": round(count * 40 * 64 * 4 / 2**20)})
            print(f"{row['runs']:6d} runs {row['megabytes']:5d} MB {row['seconds']:6.1f} s", flush=True)
    keep(options, "memory", {"machine": platform.machine(), "torch": torch.__version__, "rows": rows}, quiet=True)


def diagnostics(options):
    """Keep what is said of laws whose library lacks a term, or whose rank is too large; no label is read."""
    runs = simulate("burgers", "unlabelled", range(options.unlabelled or 256))
    whole = default_library(1, 1)
    even = {Term((m,), (r,)) for m in (1, 2, 3) for r in (2, 4)}
    cases = {
        "whole library": (whole, 1),
        "no products": (tuple(t for t in whole if t.powers == (1,)), 1),
        "no u_xx": (tuple(t for t in whole if t != Term((1,), (2,))), 1),
        "no even derivative": (tuple(t for t in whole if t not in even), 1),
        "one number too many": (whole, 2),
    }
    labelled, test = (simulate("burgers", s, range(256)) for s in ("labelled", "test"))
    rows = []
    for name, (terms, rank) in cases.items():
        law = discover(runs, terms=terms, rank=rank, half_width=(9, 13), resamples=0)
        known, truth = (r.parameters["viscosity"].double() for r in (labelled, test))
        found, _ = of_labels(law.encode(labelled)[0], known, law.encode(test)[0], truth, [32], options.draws)
        rows.append({"library": name, **said_of(law, 0.0), "error": found[32]})
        print(f"{name}: reliability {law.reliability:.3f}, unexplained {law.unexplained:.1%}", flush=True)
    keep(options, "diagnostics", {"case": "burgers", "rows": rows}, quiet=True)


def pysindy(options):
    """A peer on the same runs, one at a time: weak SINDy with the derivatives and products of the default library."""
    try:
        import numpy as np
        import pysindy as ps
    except ImportError:
        print(
            "pysindy is not installed; pip install pysindy, in an environment of its own if need be. Nothing was run."
        )
        return
    drawn = Drawn(CASES["burgers"], options)
    count = (options.runs or [32])[0]
    test = drawn.runs("test", count)
    found, started = [], time.process_time()
    for run in range(count):
        u = test.fields[run, 0].double().numpy().T[:, :, None]  # (X, T, 1)
        x, t = test.space[0][run].double().numpy(), test.time[run].double().numpy()
        np.random.seed(run)  # the library draws its domains from this one
        grid = np.stack(np.meshgrid(x, t, indexing="ij"), axis=-1)
        library = ps.WeakPDELibrary(
            function_library=ps.PolynomialLibrary(degree=2, include_bias=False),
            derivative_order=4,
            spatiotemporal_grid=grid,
            K=400,
            H_xt=[13 * (x[1] - x[0]), 9 * (t[1] - t[0])],
            p=8,
        )
        model = ps.SINDy(
            feature_library=library, optimizer=ps.STLSQ(threshold=0.01, alpha=1e-8, normalize_columns=False)
        )
        model.fit(u, t=t[1] - t[0], feature_names=["u"])
        names, values = model.get_feature_names(), model.coefficients()[0]
        found.append(float(values[names.index("u_11")]))
    seconds, truth = time.process_time() - started, test.parameters["viscosity"].double()
    values = torch.tensor(found, dtype=torch.float64)
    row = {"case": "burgers", "seed": options.seed, "runs": count, "error": relative(values, truth)}
    row |= {"seconds": round(seconds, 1), "pysindy": ps.__version__, "zero": int((values == 0).sum())}
    keep(options, f"pysindy-burgers-seed{options.seed}", row)


# ------------------------------------------------------------------------------------------------ rows and tables


def slug(text):
    return "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_")


def keep(options, name, row, quiet=False):
    write_json(Path(options.out) / f"{name}.json", json.loads(json.dumps(row)))
    if not quiet:
        print(name, json.dumps({k: row[k] for k in ("law", "reliability", "unexplained", "seconds") if k in row}))
        for target, held in row.get("targets", {}).items():
            print("   ", target, {n: stated(v) for n, v in held["error"].items()}, held["equation known"], flush=True)


def stated(values):
    if not values:
        return ""
    values = torch.tensor(values, dtype=torch.float64)
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
    return f"{float(values.mean()):.2f} ± {error:.2f}"


def rows_of(folder, kind):
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(Path(folder).glob(f"{kind}*.json"))]


def plain(value):
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def lines(head, body):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in body)]


def errors_table(folder):
    rows = rows_of(folder, "errors-")
    counts = sorted({int(n) for r in rows for t in r["targets"].values() for n in t["error"]})
    head = ["data, target", "seed of the data", "law", *(f"{n} labels" for n in counts), "mean of 16"]
    body = [
        [
            f"{r['case']}, {target}",
            str(r["seed"]),
            "; ".join(f"`{line}`" for line in r["law"].splitlines()),
            *(stated(held["error"].get(str(n), [])) for n in counts),
            stated(held["mean of 16"]),
            plain(held["equation known"]),
            f"{r['reliability']:.4f}",
            f"{r['unexplained']:.2%}",
            "x".join(map(str, r["half_width"])),
            f"{r['seconds']} ({r['unlabelled']})",
        ]
        for r in rows
        for target, held in r["targets"].items()
    ]
    return lines([*head, "equation known", "reliability", "unexplained", "half-widths", "CPU-s (runs)"], body)


def reading_table(folder):
    rows = rows_of(folder, "reading-")
    counts = sorted({int(n) for r in rows for w in r["ways"].values() for n in w["error"]})
    body = [
        [str(r["seed"]), "x".join(map(str, r["half_width"])), way, f"{held['halves apart']:.2%}",
         *(stated(held["error"].get(str(n), [])) for n in counts), f"{r['unexplained']:.2%}"]
        for r in rows for way, held in r["ways"].items()
    ]  # fmt: skip
    head = ["seed of the data", "half-widths", "codes", "halves of a run apart", *(f"{n} labels" for n in counts)]
    return lines([*head, "unexplained"], body)


def learned_table(folder):
    rows = rows_of(folder, "learned-")
    counts = sorted({int(n) for r in rows for t in r["targets"].values() for n in t["error"]})
    body = [
        [f"{r['case']}, {t}", str(r["seed"]), str(r["unlabelled"]),
         *(stated(held["error"].get(str(n), [])) for n in counts),
         f"{r['reliability']:.4f}", f"{r['unexplained']:.2%}", str(r["seconds"])]
        for r in rows for t, held in r["targets"].items()
    ]  # fmt: skip
    head = ["data, target", "seed of the data", "unlabelled runs", *(f"{n} labels" for n in counts)]
    return lines([*head, "reliability", "unexplained", "CPU-s"], body)


def gradient_table(folder):
    rows = rows_of(folder, "gradient-")
    counts = sorted({int(n) for r in rows for t in r["targets"].values() for n in t["error"]})
    body = [
        [r["recipe"], t, str(r["seed"]), str(r["unlabelled"]),
         *(stated(held["error"].get(str(n), [])) for n in counts), f"{r['steps']:,}", str(r["seconds"])]
        for r in rows for t, held in r["targets"].items()
    ]  # fmt: skip
    head = ["recipe", "target, codes", "seed of the data", "unlabelled runs", *(f"{n} labels" for n in counts)]
    return lines([*head, "steps", "CPU-s"], body)


def distilled_table(folder):
    ways = ["law", "law found again", "encoder", "encoder, labels of training"]
    rows = rows_of(folder, "distilled-")
    body = [
        [r["runs"], *(r[w] if isinstance(r[w], str) else stated(r[w]) for w in ways)]
        for title in POOR for r in rows if r["runs"] == title
    ]  # fmt: skip
    return lines(["labelled and test runs", *ways], body)


def shifts_table(folder):
    body = []
    for r in rows_of(folder, "shifts-"):
        for target, held in r["targets"].items():
            kept = r.get("kept", "")
            kept = stated(kept[target]["error"]["32"]) if isinstance(kept, dict) else kept.partition(":")[0]
            own = [f"{r[k]:.3f}" if k in r else "" for k in ("reliability", "unexplained")]
            again = stated(held["error"]["32"])
            body.append([f"{r['case']}, {target}", r["shift"], kept, again, *own, plain(held["equation known"])])
    names = ["nothing found again", "found again in such runs", "reliability", "unexplained", "equation known"]
    return lines(["data, target", "test runs", *names], body)


def unlabelled_table(folder):
    body = [
        [f"{r['case']}, {t}", str(r["unlabelled"]), stated(held["error"]["32"]), f"{r['reliability']:.4f}",
         f"{r['unexplained']:.2%}", str(r["seconds"]), "; ".join(f"`{line}`" for line in r["law"].splitlines())]
        for r in rows_of(folder, "unlabelled-") for t, held in r["targets"].items()
    ]  # fmt: skip
    return lines(["data, target", "unlabelled runs", "32 labels", "reliability", "unexplained", "CPU-s", "law"], body)


def diagnostics_table(folder):
    body = [
        [r["library"], stated(r["error"]), f"{r['reliability']:.3f}", f"{r['unexplained']:.1%}",
         " ".join(r["warnings"]) or "nothing"]
        for held in rows_of(folder, "diagnostics") for r in held["rows"]
    ]  # fmt: skip
    return lines(["library", "32 labels", "reliability", "unexplained", "said"], body)


def cost_table(folder):
    body = [[f"{r['runs']:,}", f"{r['seconds']:.2f}", f"{1000 * r['seconds'] / r['runs']:.2f}"]
            for held in rows_of(folder, "cost") for r in held["rows"]]  # fmt: skip
    return lines(["runs", "CPU-s", "ms a run"], body)


def memory_table(folder):
    body = [[f"{r['runs']:,}", str(r["fields"]), str(r["megabytes"]), str(r["seconds"])]
            for held in rows_of(folder, "memory") for r in held["rows"]]  # fmt: skip
    return lines(["runs", "their fields, MB", "peak of the process, MB", "CPU-s"], body)


def pysindy_table(folder):
    body = [[r["pysindy"], str(r["runs"]), plain(r["error"]), str(r["zero"]), str(r["seconds"])]
            for r in rows_of(folder, "pysindy-")]  # fmt: skip
    return lines(["PySINDy", "runs", "error [%]", "runs with the term dropped", "CPU-s"], body)


TABLES = {
    "errors": errors_table,
    "reading": reading_table,
    "learned": learned_table,
    "gradient": gradient_table,
    "distilled": distilled_table,
    "shifts": shifts_table,
    "unlabelled": unlabelled_table,
    "diagnostics": diagnostics_table,
    "cost": cost_table,
    "memory": memory_table,
    "pysindy": pysindy_table,
}


def table(options):
    """Put the tables of all rows between their marks in a page, or print them."""
    made = {name: "\n".join(make(options.out)) for name, make in TABLES.items()}
    if options.page is None:
        print("\n\n".join(made.values()))
        return
    text = Path(options.page).read_text(encoding="utf-8")
    for name, found in made.items():
        start, end = f"<!-- rows: {name} -->\n", f"<!-- end of rows: {name} -->"
        if start in text and end in text:
            before, rest = text.split(start, 1)
            text = f"{before}{start}{found}\n{end}{rest.split(end, 1)[1]}"
    write_text(Path(options.page), text)


def numbers(text):
    return [int(n) for n in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = [
        errors,
        reading,
        learned,
        amortised,
        distilled,
        shifts,
        unlabelled,
        diagnostics,
        cost,
        memory,
        pysindy,
        table,
    ]
    parser.add_argument("what", choices=[c.__name__ for c in commands])
    parser.add_argument("page", nargs="?", help="of 'table': the page to write; default: print")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(CASES)}")
    parser.add_argument("--labels", type=numbers, default=[2, 4, 16, 32, 64, 256])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the data")
    parser.add_argument("--unlabelled", type=int, help="runs; default 1024, of smoke 96")
    parser.add_argument("--runs", type=numbers)
    parser.add_argument("--epochs", type=int, help="of the encoder of 'distilled' (default 40), and of 'amortised'")
    parser.add_argument("--recipe", choices=("amortised", "learned_law"), default="amortised", help="of 'amortised'")
    parser.add_argument("--out", default="results/operators", help="folder of the rows")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    {c.__name__: c for c in commands}[chosen.what](chosen)
