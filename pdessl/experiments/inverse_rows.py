"""One row of an inverse benchmark: a route on a set, with so many frames, noise and labels, scored at every place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import DataError, PdesslError, StoreError
from pdessl.evaluation.intervals import conformal_quantile
from pdessl.evaluation.novelty import Novelty
from pdessl.experiments.inverse_degradation import Degradation
from pdessl.experiments.inverse_routes import LABELLED, Route, Setting, best_constant, reader
from pdessl.experiments.inverse_sets import PLACES, Held, InverseSet, content_hash, windows
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.training import quietly
from pdessl.schema import fill

__all__ = ["Case", "compute"]

_FEWEST = 10  # calibration runs below which nothing is said of intervals and novelty


@dataclass(frozen=True)
class Case:
    """Everything that determines a row.

    Args:
        set_name, of: the set.
        route_name, route: the route.
        frames: of a window.
        noise: standard deviation over that of the fields.
        labels: labelled training runs; 0 for all.
        seed: of windows, noise, choice of labels and weights.
        level: of intervals.
        false_alarms: share of runs in distribution that may be flagged as novel.
        data: hash of the dataset.
        degraded, degradation: what else is done to the frames; default nothing.
    """

    set_name: str
    of: InverseSet
    route_name: str
    route: Route
    frames: int
    noise: float
    labels: int
    seed: int
    level: float
    false_alarms: float
    data: str
    degraded: str = ""
    degradation: Degradation = Degradation()

    @property
    def hash(self) -> str:
        """Of everything that determines the numbers."""
        return content_hash(asdict(self))

    @property
    def file(self) -> str:
        """Name of the row's file."""
        words = f"{self.set_name}-{self.route_name}-frames{self.frames}-noise{self.noise:g}"
        if self.degraded:
            words += f"-{self.degraded}"
        if self.route.kind in LABELLED:
            words += f"-labels{self.labels or 'all'}"
        return "".join(c if c.isalnum() or c in "-." else "_" for c in f"{words}-seed{self.seed}") + ".json"

    @staticmethod
    def read(recipe: Mapping[str, Any], where: str) -> Case:
        """Return the case that a row states.

        Raises:
            SchemaError: it is none.
        """
        return fill(Case, recipe, where)


def compute(case: Case, folder: Path) -> dict[str, Any]:
    """Return a row; a route that cannot read such windows is a row too, which says why.

    Args:
        case: what is computed.
        folder: of the set's data, generated where it is missing.

    Raises:
        StoreError: the dataset is another than the one the case names.
    """
    started = time.process_time()
    held = Held.make(case.of, folder)
    if held.recipe.hash != case.data:
        raise StoreError(
            f"{case.set_name}: the dataset {case.of.dataset} is not the one this row was computed on; its file has "
            "changed. Take the version of pdessl that the row names."
        )
    row: dict[str, Any] = {
        "set": case.set_name, "route": case.route_name, "kind": case.route.kind, "frames": case.frames,
        "noise": case.noise, "labels": case.labels if case.route.kind in LABELLED else None, "seed": case.seed,
        **({"degraded": case.degraded} if case.degraded else {}),
    }  # fmt: skip
    with quietly():
        try:
            row |= _scores(case, held)
        except PdesslError as error:
            row["refused"] = " ".join(str(error).split())[:300]
    row |= {"recipe": asdict(case), "hash": case.hash, "versions": versions(), "machine": machine()}
    return {**row, "seconds": round(time.process_time() - started, 2)}


def _scores(case: Case, held: Held) -> dict[str, Any]:
    count = len(held.training)
    if case.labels > count:
        raise DataError(f"{case.labels} labels of {count} training runs.")
    chosen = np.random.default_rng(case.seed).permutation(count)[: case.labels or count]
    labelled = held.training[np.sort(chosen)]

    def seen(runs: Any, purpose: str) -> Any:
        return windows(runs, case.frames, case.noise, case.seed, purpose, case.degradation)

    looked_at = seen(held.validation, "validation")
    read = reader(case.route, Setting(held, labelled, looked_at, case.frames, case.noise, case.seed, case.degradation))
    found, features = read(looked_at)
    truth = held.truth(looked_at)
    half = [_quantile(found[:, i] - truth[:, i], case.level) for i in range(found.shape[1])]
    novelty, rate = _novelty(read, seen(held.training, "training"), features, case)
    constant = best_constant(held.truth(labelled))
    places = {}
    for place in PLACES:
        runs = seen(held.test[place], f"test {place}")
        estimates, own = read(runs)
        right = held.truth(runs)
        off = (estimates - right).abs() / right.abs()
        row: dict[str, Any] = {"runs": len(runs), "error": _percent(off.mean()), "median": _percent(off.median())}
        row["floor"] = _percent(((constant - right).abs() / right.abs()).mean())
        if len(case.of.targets) > 1:
            row["errors"] = {case.of.name(n): _percent(off[:, i].mean()) for i, n in enumerate(case.of.targets)}
        if None not in half:
            inside = torch.stack([(estimates[:, i] - right[:, i]).abs() <= h for i, h in enumerate(half)], dim=1)
            row["inside"] = _percent(inside.double().mean())
            widths = torch.tensor([2 * float(h or 0.0) for h in half], dtype=torch.float64) / right.abs()
            row["width"] = _percent(widths.median())
        if novelty is not None:
            row["novel"] = _percent(_flagged(novelty, own).double().mean())
        places[place] = row
    return {"places": places, "false_alarms": rate}


def _percent(value: Tensor) -> float:
    return float(100 * value)


def _quantile(rest: Tensor, level: float) -> float | None:
    size = rest.abs().numpy()
    if len(size) < _FEWEST or not np.isfinite(size).all():
        return None
    found = conformal_quantile(size, level)
    return found if np.isfinite(found) else None


def _novelty(read: Any, training: Any, calibration: Tensor, case: Case) -> tuple[Novelty | None, float | None]:
    """Return the judge and the share of known runs it may flag: with few to calibrate on, more than is asked for."""
    known = read(training)[1]
    known = known[torch.isfinite(known).all(dim=1)]
    calibration = calibration[torch.isfinite(calibration).all(dim=1)]
    n = len(calibration)
    if case.route.kind == "constant" or n < _FEWEST or len(known) < _FEWEST:
        return None, None
    rate = max(case.false_alarms, 1 / (n + 1))
    method = "mahalanobis" if case.route.kind == "network" else "neighbours"
    return Novelty.fit(known.numpy(), calibration.numpy(), 1 - rate, method), rate


def _flagged(novelty: Novelty, features: Tensor) -> Tensor:
    """Return which runs are novel, (B,); what has no finite features is."""
    good = torch.isfinite(features).all(dim=1)
    found = torch.ones(len(features), dtype=torch.bool)
    if bool(good.any()):
        found[good] = torch.from_numpy(novelty.score(features[good].numpy()) > 1)
    return found
