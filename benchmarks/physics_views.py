"""Hand-made features from few labels, read three ways: of whole runs, averaged over views, and of every view.

    python benchmarks/physics_views.py --out results/rows/physics_views.json

Ridge on the features of labelled runs, penalty chosen on them; error on validation runs, no test run is read. Views are
those of the shipped recipes (``configs/regression``), the same number of every run. "every view" is the row ``physics``
of ``pdessl regress`` (:func:`pdessl.models.ridge.fit_ridge_on_views`).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from pdessl import catalog
from pdessl.data import simulate
from pdessl.evaluation.metrics import error_in_percent
from pdessl.evaluation.tables import measured
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.quickstart import read_settings
from pdessl.files import write_json
from pdessl.inference.encoding import features
from pdessl.inference.physics import PhysicsEncoder
from pdessl.models import bounded, fit_ridge
from pdessl.models.ridge import fit_ridge_on_views
from pdessl.trajectory import Trajectories

CASES = {"burgers": "viscosity", "kdv": "dispersion", "kuramoto_sivashinsky": "hyperviscosity"}


def views_of(runs: Trajectories, count: int) -> Any:
    """Return the views of the recipe for an equation, so many of a run."""
    name = f"regression/{runs.equation}"
    settings = read_settings(name if name in catalog.names("configs") else "regression/default", None, [])
    return dataclasses.replace(settings.regression.views.within(runs), moves=(), count=count)


def main() -> None:
    """Print a table, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--labels", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--validation", type=int, default=128, help="runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for dataset in options.only:
        target, errors = CASES[dataset], {}
        held = simulate(dataset, "validation", range(options.validation))
        pool = simulate(dataset, "labelled", range(max(options.labels) * options.draws))
        views = views_of(held, options.views)
        physics = PhysicsEncoder.of(pool, views)
        plain = PhysicsEncoder.of(pool)
        every = [features(physics, r, views, equation=held.equation, average=False) for r in (pool, held)]
        whole = [features(plain, r) for r in (pool, held)]
        truth, logs = held.parameters[target].double(), pool.parameters[target].double().log()
        for count in options.labels:
            for k in range(options.draws):
                part = slice(k * count, (k + 1) * count)
                y, seen = logs[part], every[1].mean(dim=1)
                found = {
                    "whole runs": fit_ridge(whole[0][part], y).predict(whole[1])[:, 0],
                    "features averaged over views": fit_ridge(every[0][part].mean(dim=1), y).predict(seen)[:, 0],
                    "every view": fit_ridge_on_views(every[0][part], y)[0].predict(seen)[:, 0],
                }
                for way, values in found.items():
                    error = float(error_in_percent(bounded(values, y).exp(), truth))
                    errors.setdefault((way, count), []).append(error)
        for (way, count), values in errors.items():
            rows.append({"data": dataset, "method": way, "labels": count, "relative_error": measured(values)})
            print(f"{dataset:22s} {way:30s} {count:4d} labels {rows[-1]['relative_error']['mean']:6.2f} %")
    if options.out is not None:
        command = "python benchmarks/physics_views.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
