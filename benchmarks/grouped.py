"""Rows of results/grouped.md: what groups of runs are worth, beside their floors. Rows are JSON, tables made of them.

python benchmarks/grouped.py burgers DATA --out ROWS            # DATA: pdessl generate burgers_grouped --out DATA
python benchmarks/grouped.py smoke DATA --out ROWS --fields u v # DATA: pdessl generate smoke_buoyancy_grouped_small
python benchmarks/grouped.py burgers DATA --out ROWS --encoder RUN --name "VICReg, grouped"   # a pretraining of yours
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import pdessl
from pdessl.data import PDEDataModule
from pdessl.evaluation.metrics import r2, relative_error
from pdessl.evaluation.physics_features import moments_of, physics_features
from pdessl.experiments.untrained import calibrated
from pdessl.files import write_json
from pdessl.inference import Views
from pdessl.inference import features as features_of
from pdessl.inference.discriminant import GroupDiscriminant
from pdessl.models import ConvEncoder, Encoder, bounded, embed, fit_ridge, from_scale, to_scale

TARGETS = {"burgers": ("viscosity", "log"), "smoke": ("buoyancy", "linear")}
VIEWS = {
    "burgers": Views({"space_translation": 0.5, "galilean_boost": 0.25}, (32, 64), (), True, 4),
    "smoke": Views({}, (16, 32, 32), (), True, 2),
}


def of_moments(runs, correlations=False):
    made = moments_of(runs, correlations)
    return embed(made, (runs[slice(i, i + 64)] for i in range(0, len(runs), 64)))


class Rows:
    def __init__(self, case, data, out, labels, seeds, frames=None):
        self.case, self.data, self.out, self.labels, self.seeds, self.frames = case, data, out, labels, seeds, frames
        self.name, self.scale = TARGETS[case]
        self.known, self.test = self.cut(data.labelled_subset(None)), self.cut(data.test)
        self.truth = self.test.parameters[self.name].double()
        self.stored = to_scale(self.known.parameters[self.name].double(), self.scale, self.name)

    def cut(self, runs):
        return runs if self.frames is None else runs.window(slice(0, self.frames))

    def write(self, method, grouped, features, seconds, note=""):
        """Read features (of labelled and test runs; None: the mean) by ridge from few labels; keep the row."""
        row = {"case": self.case, "method": method, "grouped": grouped, "seconds": round(seconds, 1), "note": note}
        row |= {"fields": list(self.known.field_names), "unlabelled": sum(map(len, self.data.selections("unlabelled")))}
        row |= {"error": {}, "r2": {}}
        for count in self.labels:
            errors, scores = [], []
            for seed in range(self.seeds):
                chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.known))[:count])
                y = self.stored[chosen]
                if features is None:
                    found = y.mean().expand(len(self.truth))
                else:
                    found = bounded(fit_ridge(features[0][chosen], y).predict(features[1])[:, 0], y)
                value = from_scale(found, self.scale)
                errors.append(float(relative_error(value, self.truth)))
                scores.append(float(r2(value, self.truth)))
            row["error"][count], row["r2"][count] = errors, scores
        slug = "".join(c if c.isalnum() else "_" for c in method.lower())
        write_json(Path(self.out) / f"{self.case}-{slug}.json", row)
        print(
            method, {n: round(statistics.mean(e), 2) for n, e in row["error"].items()}, f"{seconds:.1f} s", flush=True
        )

    def both(self, make):
        started = time.perf_counter()
        return [make(self.known), make(self.test)], time.perf_counter() - started


def closed_forms(rows):
    rows.write("mean", False, None, 0.0)
    unlabelled, groups = rows.cut(rows.data.unlabelled), rows.data.pairs.groups
    correlations = len(unlabelled.space) == 1  # as GroupDiscriminant has it
    started = time.perf_counter()
    training = of_moments(unlabelled, correlations).numpy()
    spent = time.perf_counter() - started
    features, seconds = rows.both(lambda runs: of_moments(runs, correlations))
    names = moments_of(unlabelled, correlations).names
    sizes = torch.tensor(["log rms" in name for name in names])
    rows.write("moments", False, [f[:, sizes] for f in features], seconds)

    def code(title, grouped, note="", groups=groups, **settings):
        fitted = GroupDiscriminant(**settings).fit(training, groups=groups)
        found = [torch.from_numpy(fitted.transform(f.numpy())) for f in features]
        note = note or f"{len(fitted.map_.scores)} codes, ridge {fitted.map_.ridge:g}"
        rows.write(title, grouped, found, spent + fitted.seconds_, note)

    code("discriminant of moments", True)
    permuted = np.random.default_rng(0).permutation(groups)
    code("discriminant, groups permuted", True, "a check: nothing is shared", permuted, components=2)
    code("linear VICReg on pairs of a group", True, method="views", components=4)
    code("principal components of moments", False, method="principal", components=4)
    rows.write("random encoder", False, *random_encoder(rows, unlabelled))
    names = physics_features(rows.test[[0]]).names
    features, seconds = rows.both(lambda runs: physics_features(runs).values)
    before = torch.tensor(["log rms of" not in name for name in names])
    rows.write("hand-made features before moments", False, [f[:, before] for f in features], seconds)
    rows.write("hand-made features with moments", False, features, seconds)


def seen(rows, network, runs, views, equation, layer="features"):
    """Features of runs of which nothing but the constants is known."""
    known = {name: values for name, values in runs.parameters.items() if name in rows.data.store.constants}
    return features_of(network, runs.replace(parameters=known), views, equation, layer=layer)


def random_encoder(rows, unlabelled):
    started = time.perf_counter()
    torch.manual_seed(1000)
    mean, std = zip(*((s.mean, s.std) for s in rows.data.statistics.values()), strict=True)
    periodic = [kind == "periodic" for kind in unlabelled.boundary]
    stacked = None if len(periodic) == 1 else 16
    fresh = ConvEncoder(len(mean), 16, (1, 1, 1), periodic=periodic, pool="last", stacked_frames=stacked)
    views, equation = VIEWS[rows.case], rows.data.store.equation
    batches = [views.augmentation(equation)(unlabelled[slice(i, i + 64)])[0] for i in range(0, 256, 64)]
    network = calibrated(Encoder(fresh, mean, std), batches)
    found = [seen(rows, network, runs, views, equation) for runs in (rows.known, rows.test)]
    return found, time.perf_counter() - started


def pretrained(rows, folder, name):
    encoder = pdessl.load(folder)
    record = json.loads((Path(folder) / "encoder" / "recipe.json").read_text())["provenance"]
    seen_in_training = record["recipe"]["model"]["augmentation"]["init_args"]
    window, when = tuple(seen_in_training["window"]), seen_in_training.get("time", "random")
    views, equation = dataclasses.replace(VIEWS[rows.case], window=window, time=when), rows.data.store.equation
    data = record["recipe"]["data"]
    note = f"{record['steps']} steps of {data['batch_size']}, seed {record['seed']}"
    layers = ["features", "trunk"] if encoder.module.trunk_dim != encoder.feature_dim else ["features"]
    for layer in layers:
        found = [seen(rows, encoder, runs, views, equation, layer) for runs in (rows.known, rows.test)]
        rows.write(f"{name}, {layer}", data.get("grouped") is not None, found, 0.0, note)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*TARGETS])
    parser.add_argument("data", help="the store")
    parser.add_argument("--out", default="rows")
    parser.add_argument("--fields", nargs="+")
    parser.add_argument("--frames", type=int, help="use the first frames only")
    parser.add_argument("--labels", nargs="+", type=int, default=[16, 32, 256])
    parser.add_argument("--seeds", type=int, default=3, help="labelled subsets")
    parser.add_argument("--encoder", help="folder of a pretraining: its rows only")
    parser.add_argument("--name", default="pretrained")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = PDEDataModule(given.data, fields=given.fields, grouped="file")
    rows = Rows(given.case, data, given.out, given.labels, given.seeds, given.frames)
    pretrained(rows, given.encoder, given.name) if given.encoder else closed_forms(rows)


if __name__ == "__main__":
    main()
