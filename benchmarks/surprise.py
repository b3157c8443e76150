"""Does the law notice? Violations in the middle of test runs, their negative controls, and floors.

    python benchmarks/surprise.py --out results/rows/surprise.json

The law is found in unlabelled runs; every detector is calibrated on validation runs (half say what is usual, half set
thresholds) and judges test runs. AUROC: how often the largest statistic of a violated run is above that of another,
sound run. Paired: how often it is above that of the same run without the violation; ties count half; 50 is chance in
both. Alarms at a rate of 5 %: share of runs (of sound runs, the false ones). Delay: median number of frames from the
violation to the alarm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.data import Switch, simulate
from pdessl.evaluation.novelty import area_under_roc
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.inference.frame_scores import FrameScores, LawScores
from pdessl.inference.surprise import SurpriseDetector
from pdessl.operators import discover
from pdessl.trajectory import Trajectories

CASES = {"burgers": "viscosity", "kuramoto_sivashinsky": "hyperviscosity", "kdv": "dispersion"}
# Violations after which a run is the image of a sound run under a symmetry of the equation: none is to be noticed.
CONTROLS = ("shifted", "reflected")


def violations(dataset: str, sound: Trajectories, frame: int, indices: range) -> dict[str, Callable[[], Trajectories]]:
    """Return how to make the violated runs: all of them equal the sound ones up to the frame (controls do not)."""
    name, fields = CASES[dataset], sound.fields

    def switched(factor: float) -> Callable[[], Trajectories]:
        return lambda: simulate(dataset, "test", indices, switch=Switch(name, factor, frame)).without_parameters()

    def later(change: Callable[[Tensor], Tensor]) -> Callable[[], Trajectories]:
        return lambda: sound.replace(fields=torch.cat([fields[:, :, : frame + 1], change(fields)], dim=2))

    count = fields.shape[2] - frame - 1
    backwards = [max(frame - 1 - i, 0) for i in range(count)]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(fields[:, :, frame + 1 :].shape, generator=generator)
    level = fields.std(dim=(2, 3), keepdim=True)
    stuck = fields[:, :, frame + 1 :].clone()
    stuck[..., stuck.shape[3] // 2] = fields[:, :, frame : frame + 1, stuck.shape[3] // 2]
    patch = fields[:, :, frame + 1 :].clone()
    width = patch.shape[3] // 8
    patch[..., :width] = fields.roll(1, dims=0)[:, :, frame + 1 :, :width]
    return {
        f"{name} x 1.1": switched(1.1),
        f"{name} x 1.3": switched(1.3),
        f"{name} / 1.3": switched(1 / 1.3),
        f"{name} x 2": switched(2.0),
        "time runs backwards": later(lambda u: u[:, :, backwards]),
        "mean rises by a tenth of the deviation": later(lambda u: u[:, :, frame + 1 :] + 0.1 * level),
        "a node is stuck": later(lambda u: stuck),
        "an eighth of the places from another run": later(lambda u: patch),
        "noise of a tenth of the deviation is added": later(lambda u: u[:, :, frame + 1 :] + 0.1 * level * noise),
        "a frame is shown twice": later(lambda u: u[:, :, frame:-1]),
        "shifted": lambda: sound.replace(fields=fields.roll(11, dims=3)),
        "reflected": lambda: sound.replace(fields=-fields.flip(3).roll(1, dims=3)),
    }


def frame_difference(runs: Trajectories) -> Tensor:
    """Mean square of the change from frame to frame."""
    return runs.fields.double().diff(dim=2).square().mean(dim=(1, 3))


def energy_drift(runs: Trajectories) -> Tensor:
    """Relative change of the energy from frame to frame."""
    energy = runs.fields.double().square().mean(dim=(1, 3))
    return energy.diff(dim=1).abs() / energy[:, :-1]


def mean_drift(runs: Trajectories) -> Tensor:
    """Change of the mean, which these equations conserve, from frame to frame."""
    return runs.fields.double().mean(dim=(1, 3)).diff(dim=1).abs()


@dataclass(frozen=True, eq=False)
class OneChannel:
    """One of the scores of a law alone."""

    whole: LawScores
    name: str

    @property
    def channels(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return its scores."""
        found, number = self.whole.scores(runs), self.whole.channels.index(self.name)
        return replace(found, values=found.values[..., number : number + 1])


def measured(
    name: str, detector: SurpriseDetector, sound: Trajectories, cases: dict[str, Trajectories], frame: int
) -> list[dict[str, Any]]:
    """Return the rows of a detector."""
    base = detector.detect(sound)
    usual = np.nanmax(base.statistic.values, axis=1)
    half = len(sound) // 2
    rows = [{"detector": name, "violation": "none", "alarms": float(base.alarm.mean())}]
    start, step = sound.time[:, frame].numpy(), sound.time_step.numpy()
    for case, runs in cases.items():
        found = detector.detect(runs)
        most = np.nanmax(found.statistic.values, axis=1)
        late = ((found.alarm_time.values - start) / step)[found.alarm.values]
        rows.append(
            {
                "detector": name,
                "violation": case,
                # Other runs: the first half as they are, the second half violated.
                "auroc": 100 * area_under_roc(usual[:half], most[half:]),
                "paired": 100 * float(np.mean((most > usual) + 0.5 * (most == usual))),
                "alarms": float(found.alarm.mean()),
                "delay": float(np.median(late)) if len(late) else None,
            }
        )
    return rows


def main() -> None:
    """Print a table per dataset, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--unlabelled", type=int, default=512)
    parser.add_argument("--runs", type=int, default=128, help="test runs; four times as many calibrate")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for dataset in options.only:
        law = discover(simulate(dataset, "unlabelled", range(options.unlabelled)), resamples=0)
        calibration = simulate(dataset, "validation", range(4 * options.runs)).without_parameters()
        indices = range(options.runs)
        sound = simulate(dataset, "test", indices).without_parameters()
        frame = sound.fields.shape[2] // 2
        cases = {n: make() for n, make in violations(dataset, sound, frame, indices).items()}
        print(f"{dataset}\n{str(law)}")
        whole = LawScores(law).for_frames(sound.fields.shape[2])
        alone = {f"law, its {n} alone": OneChannel(whole, n) for n in whole.channels}
        detectors = {"law": law, **alone, "frame difference": frame_difference, "energy drift": energy_drift,
                     "drift of the mean": mean_drift}  # fmt: skip
        for name, model in detectors.items():
            begun = time.process_time()
            detector = SurpriseDetector.fit(model, calibration)
            found = measured(name, detector, sound, cases, frame)
            seconds = (time.process_time() - begun) / (len(calibration) + len(sound) * (1 + len(cases)))
            for row in found:
                row["alarms"] *= 100
                chosen = row["violation"].endswith(("x 1.3", "/ 1.3", "backwards"))
                kind = "floor" if not name.startswith("law") else "part" if name != "law" else "law"
                shown = kind if chosen or kind == "law" else "left out"
                rows.append({"data": dataset, **row, "table": shown, "ms_a_run": 1000 * seconds})
                cells = [f"{row[k]:8.1f}" if row.get(k) is not None else " " * 8 for k in ("auroc", "paired", "delay")]
                print(f"{name:22s} {row['violation']:44s} {' '.join(cells)} alarms {row['alarms']:5.1f} %")
    if options.out is not None:
        command = "python benchmarks/surprise.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
