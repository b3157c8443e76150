"""Scores of the time-steppers of a comparison, and their section of a report."""

# B runs, C channels, T frames, X points

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdessl.evaluation.metrics import nmse, nmse_per_frame
from pdessl.evaluation.rollouts import (
    band_error,
    bootstrap,
    correlation_time,
    gap_closed,
    geometric_mean,
    nrmse,
    pooled_nmse,
    relative_l2,
    spectra,
    vrmse,
)
from pdessl.evaluation.tables import measured
from pdessl.trajectory import Trajectories

__all__ = ["TITLES", "Scores", "SteppingResult", "as_report", "scores", "table"]

_AFTER = (1, 10, 50, 100, 200)  # steps
TITLES = {
    "persistence": "persistence: nothing changes",
    "none": "time-stepper, unconditioned",
    "representation": "conditioned on the representation",
    "recomputed": "the same, read anew from its own frames",
    "predicted": "conditioned on the predicted {target}",
    "posterior": "told draws of the posterior of the {target}; mean of the rollouts",
    "operator": "conditioned on the code of the law",
    "hybrid": "a coarse step of the law, corrected by a network",
    "shuffled": "conditioned on the representation of another run (floor)",
    "random": "conditioned on an untrained encoder (floor)",
    "parameter": "conditioned on the true {target} (ceiling)",
    "law": "the law itself, its code from the context; no training",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one method and seed on the test runs; formulas are in :mod:`pdessl.evaluation.rollouts`.

    Args:
        one_step: NMSE of single steps from true frames.
        rollout: NMSE of rollouts, the mean over runs.
        pooled: NMSE of rollouts, sums over runs.
        pooled_one_step: the same of single steps.
        over_time: NMSE per frame.
        geometric: geometric mean over frames of the mean nRMSE.
        nrmse: mean over runs, per frame.
        vrmse: mean over runs and frames.
        correlated: mean time until the correlation falls below 0.8 and 0.9.
        bands: error of low, middle and high waves.
        relative_l2: of every run.
        covered: share of the true values, over runs, frames and nodes, inside the band of a posterior, if any.
        width: root mean square of half the band over that of the true values.
    """

    one_step: float
    rollout: float
    pooled: float
    pooled_one_step: float
    over_time: list[float]
    geometric: float
    nrmse: list[float]
    vrmse: float
    correlated: tuple[float, float]
    bands: list[float]
    relative_l2: Tensor
    covered: float | None = None
    width: float | None = None


def scores(
    near: Tensor, far: Tensor, test: Trajectories, context: int, band: tuple[Tensor, Tensor] | None = None
) -> Scores:
    """Score one-step predictions, rollouts and the band around these, (B, C, T - context, *X) each."""
    truth, interval = test.fields[:, :, context:], test.time_step
    covered = width = None
    if band is not None:
        covered = float(((band[0] <= truth) & (truth <= band[1])).double().mean())
        width = float(((band[1] - band[0]).double().square().mean() / truth.double().square().mean()).sqrt() / 2)
    relative = nrmse(far, truth).mean(dim=0)
    return Scores(
        covered=covered,
        width=width,
        one_step=float(nmse(near, truth)),
        rollout=float(nmse(far, truth)),
        pooled=float(pooled_nmse(far, truth)),
        pooled_one_step=float(pooled_nmse(near, truth)),
        over_time=nmse_per_frame(far, truth).tolist(),
        geometric=float(geometric_mean(relative)),
        nrmse=relative.tolist(),
        vrmse=float(vrmse(far, truth).mean()),
        correlated=tuple(float(correlation_time(far, truth, interval, c).mean()) for c in (0.8, 0.9)),  # type: ignore[arg-type]
        bands=band_error(far, truth).tolist(),
        relative_l2=relative_l2(far, truth),
    )


@dataclass
class SteppingResult:
    """Scores by method (one per seed), and of the first seed one run rolled out and the spectra of all.

    Args:
        target: parameters of the ceiling.
        run: name of the run that is shown.
        row: its number.
        truth, time, space: of it, after the context.
        frames: numbers of those of which spectra are kept.
        spectra: ``truth`` and by method, (frames, bands).
        scores, shown, notes: by method.
    """

    target: str
    run: str
    row: int
    truth: Tensor
    time: Tensor
    space: Tensor
    frames: list[int] = field(default_factory=list)
    spectra: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, list[Scores]] = field(default_factory=dict)
    shown: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(test: Trajectories, context: int, target: str) -> SteppingResult:
        """Return an empty result that shows the run a quarter up the range of the target."""
        values = test.parameters.get(target)
        row = 0 if values is None else int(values.argsort()[len(test) // 4])
        name = f"run {row}" if values is None else f"{target} {float(values[row]):.3f}"
        truth = test.fields[:, :, context:]
        frames = sorted({0, truth.shape[2] // 2, truth.shape[2] - 1})
        held = {"truth": spectra(truth[:, :, frames])}
        return SteppingResult(
            target, name, row, truth[row, 0], test.time[row, context:], test.space[0][row], frames, held
        )

    def add(self, method: str, found: Scores, rollouts: Tensor | None) -> None:
        """Add the scores of a seed and, for the first, its rollouts."""
        self.scores.setdefault(method, []).append(found)
        if rollouts is not None:
            self.shown[method] = rollouts[self.row, 0].float()
            self.spectra[method] = spectra(rollouts[:, :, self.frames])

    @property
    def rollout(self) -> dict[str, list[float]]:
        """NMSE of rollouts by method, one value per seed."""
        return {m: [s.rollout for s in found] for m, found in self.scores.items()}

    @property
    def one_step(self) -> dict[str, list[float]]:
        """NMSE of single steps by method, one value per seed."""
        return {m: [s.one_step for s in found] for m, found in self.scores.items()}

    def gap(self, method: str, single: bool = False) -> list[float]:
        """Return the share of the gap between no condition and the true parameter that a method closes, per seed.

        It is taken of pooled squared errors, to which noise of the test frames adds the same for every method.
        """
        if not {"none", "parameter"} <= set(self.scores):
            return []

        def error(name: str) -> list[float]:
            return [s.pooled_one_step if single else s.pooled for s in self.scores[name]]

        none, ceiling = error("none"), error("parameter")
        mean = (sum(none) / len(none), sum(ceiling) / len(ceiling))
        found = [gap_closed(mean[0], e, mean[1]) for e in error(method)]
        return [] if any(math.isnan(g) for g in found) else found


def table(result: SteppingResult) -> str:
    """Return the table as Markdown: errors with standard errors over seeds, and the share of the gap closed."""
    lines = [
        "| method | one step, NMSE | rollout, NMSE | pooled | correlated until (.8) | gap closed |",
        "|---|---|---|---|---|---|",
    ]
    for method, found in result.scores.items():
        cells = [[s.one_step for s in found], [s.rollout for s in found], [s.pooled for s in found]]
        cells += [[s.correlated[0] for s in found]]
        gaps = result.gap(method) if method not in ("persistence", "none", "parameter") else []
        told = TITLES[method].format(target=result.target)
        lines.append(f"| {told} | {' | '.join(_number(c) for c in cells)} | {_number(gaps, percent=True)} |")
    return "\n".join(lines) + "\n"


def _number(values: list[float], percent: bool = False) -> str:
    if not values:
        return "–"
    found = measured(values)
    factor, unit = (100, " %") if percent else (1, "")
    error = f" ± {factor * found['standard_error']:.2g}" if found["standard_error"] is not None else ""
    return f"{factor * found['mean']:.3g}{error}{unit}"


def _line(values: Tensor) -> Tensor:
    """Return one field over time and its first axis: planes at the middle of the others."""
    while values.ndim > 2:
        values = values[..., values.shape[-1] // 2]
    return values


def _bands(rows: list[dict[str, Any]]) -> list[str]:
    """Return what is to be said of the bands of posteriors."""
    return [
        f"The band of 90 % of '{r['title']}' holds {100 * r['covered']['mean']:.0f} % of the observed values; half of "
        f"it is {100 * r['width']['mean']:.1f} % of their root mean square. It is what is not known of the parameter, "
        "and neither the noise of the frames nor the error of the network."
        for r in rows
        if "covered" in r
    ]


def as_report(result: SteppingResult, settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    titles = {m: title.format(target=result.target) for m, title in TITLES.items()}
    kept = [m for m in result.shown if m not in ("parameter", "shuffled", "random")]
    shown = {m: result.shown[m] for m in kept[:4]}
    arrays: dict[str, Any] = {f"rollout/{m}": _line(values).numpy() for m, values in shown.items()}
    arrays |= {"rollout/time": result.time.numpy(), "rollout/space": result.space.numpy()}
    arrays["rollout/truth"] = _line(result.truth).numpy()
    arrays |= {f"spectra/{m}": result.spectra[m].numpy() for m in ("truth", *shown)}
    arrays["spectra/time"] = result.time[result.frames].numpy()
    rows, over_time = [], {}
    for method, found in result.scores.items():
        row: dict[str, Any] = {"method": method, "title": titles[method]}
        row["one_step"] = measured([s.one_step for s in found])
        row["rollout"] = measured([s.rollout for s in found])
        row["pooled"] = measured([s.pooled for s in found])
        row["geometric_mean_nrmse"] = measured([s.geometric for s in found])
        row["nrmse"] = {str(n): measured([s.nrmse[n - 1] for s in found]) for n in _AFTER if n <= len(found[0].nrmse)}
        row["vrmse"] = measured([s.vrmse for s in found])
        row["correlation_time"] = {c: measured([s.correlated[i] for s in found]) for i, c in enumerate(("0.8", "0.9"))}
        row["bands"] = [measured(list(values)) for values in zip(*(s.bands for s in found), strict=True)]
        row["relative_l2"] = measured([float(s.relative_l2.mean()) for s in found])
        if len(result.scores[method][0].relative_l2) > 1:
            row["relative_l2"]["interval"] = list(bootstrap(torch.stack([s.relative_l2 for s in found]).mean(dim=0)))
        if found[0].covered is not None:
            row["covered"] = measured([float(s.covered or 0.0) for s in found])
            row["width"] = measured([float(s.width or 0.0) for s in found])
        for name, single in (("gap_closed", False), ("gap_closed_one_step", True)):
            gaps = result.gap(method, single)
            if gaps and method not in ("persistence", "none", "parameter"):
                row[name] = measured(gaps)
        rows.append(row)
        over_time[titles[method]] = torch.tensor([s.over_time for s in found]).mean(dim=0).tolist()
    section = {
        "rows": rows,
        "frames": result.time.shape[0],
        "error_over_time": over_time,
        "run": result.run,
        "notes": [
            f"A small network predicts the next frame from the last {settings.past}. Conditions are computed from the "
            f"first {settings.context} frames of a run, and prediction starts after them. Errors are against observed "
            "frames, whose noise no method can predict.",
            *_bands(rows),
            *dict.fromkeys(result.notes),
        ],
    }
    if shown:
        section["shown"] = {m: titles[m] for m in shown}
    return {"timestepping": section}, arrays
