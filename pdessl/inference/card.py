"""The model card: what a model was trained on, where it holds, how far it was checked, in words and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pdessl.inference.elsewhere import AS_IN_TRAINING
from pdessl.inference.target import FittedModel, Target

__all__ = ["card"]

_READOUTS = {
    "RidgeReadout": "ridge",
    "NeighbourReadout": "nearest neighbours",
    "HeadReadout": "trained head",
    "MeanReadout": "mean of the labels",
    "CodeReadout": "affine in the codes",
}


def card(model: FittedModel) -> str:
    """Return the card of a model as Markdown."""
    declared, record = model.format, dict(model.record)
    names = ", ".join(t.name for t in model.targets)
    coverage, floors = record.pop("coverage", {}), record.pop("floors", {})
    versions, elsewhere = record.pop("versions", {}), record.pop("elsewhere", {})
    lines = [
        f"# {names.capitalize()} of {declared.equation or 'runs'}",
        "",
        f"Predicts {names} of a run, with an interval, and says whether the run is like those of training.",
        "",
        "## Parameters",
        "",
        "| parameter | unit | labels | range of the labels | scale | readout | calibration |",
        "|---|---|---|---|---|---|---|",
        *(_target_row(t) for t in model.targets),
        "",
        "Outside the range of the labels a prediction is an extrapolation. Intervals are for each parameter alone.",
        "",
        "## Coverage",
        "",
        *_coverage(coverage, model),
        "",
        "## Errors and floors",
        "",
        *_errors(elsewhere, model),
        *([f"* {n}: {_short(v)}" for n, v in floors.items()] or ["No floors were given by who fitted the model."]),
        *_elsewhere(elsewhere, model),
        "",
        "## Input",
        "",
        f"* fields: {', '.join(_with_unit(n, declared.units) for n in declared.field_names)}",
        f"* axes: {', '.join(_with_unit(n, declared.units) for n in ('time', *declared.axis_names))}",
        f"* boundary: {', '.join(declared.boundary)}",
        *([f"* constants: {_short(declared.constants)}"] if declared.constants else []),
        f"* at least {declared.needed[0]} frames and {' x '.join(map(str, declared.needed[1:]))} nodes",
        "",
        "| quantity | smallest in training | largest |",
        "|---|---|---|",
        *(f"| {n} | {low:.6g} | {high:.6g} |" for n, (low, high) in declared.ranges.items()),
        "",
        "Runs outside these ranges are predicted with a warning; the coverage is not guaranteed there.",
        "",
        f"Features are averaged over {_views(model)}.",
        "",
        "## Novelty",
        "",
        _novelty(model),
        "",
        "## Record",
        "",
        *(f"* {n}: {_short(v)}" for n, v in {**record, **versions}.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _target_row(target: Target) -> str:
    count = target.conformal.count
    way = "split conformal" if len(target.folds) == 1 else f"CV+ with {len(target.folds)} folds"
    way = way if count else "none: too few labels"
    width = "adaptive width" if target.estimator.spread is not None else "constant width"
    width = width if target.estimator.known is None else "conformalised quantiles"
    readout = _READOUTS.get(type(target.estimator.readout).__name__, "other")
    return (
        f"| {target.name} | {target.unit or '-'} | {target.count} | {target.low:.4g} to {target.high:.4g} | "
        f"{target.scale} | {readout} | {way}, {count} runs, {width} |"
    )


def _coverage(coverage: Mapping[str, Mapping[str, Any]], model: FittedModel) -> list[str]:
    if not coverage:
        return [
            f"Promised: {model.level:.0%} on runs exchangeable with those of calibration. Not measured on held-out "
            "runs: `model.measure(runs)` does."
        ]
    lines = ["| parameter | promised | measured | chance allows | mean width | runs |", "|---|---|---|---|---|---|"]
    for name, c in coverage.items():
        width = "infinite" if c["width"] is None else f"{c['width']:.3g}"
        lines.append(
            f"| {name} | {c['level']:.0%} | {c['share']:.1%} | {c['low']:.0%} to {c['high']:.0%} | {width} | "
            f"{c['count']} |"
        )
    runs = min(t.conformal.count for t in model.targets)
    if not runs:
        return [*lines, "", "Too few labels to leave some out: the intervals are infinite."]
    most = runs / (runs + 1)
    few = [f"{runs} calibration runs allow intervals at level {most:.3g} at most; above it they are infinite.", ""]
    spread = math.sqrt(model.level * (1 - model.level) / runs)
    return [
        *lines,
        "",
        *(few if model.level > most + 1e-9 else []),
        f"Measured on held-out runs of the same kind; it does not hold run by run, nor under shift. What chance allows "
        f"is that of the held-out runs; the draw of {runs} calibration runs moves the coverage by about ±{spread:.0%} "
        "besides.",
    ]


def _errors(elsewhere: Mapping[str, Mapping[str, Any]], model: FittedModel) -> list[str]:
    if AS_IN_TRAINING not in elsewhere:
        return []
    row = elsewhere[AS_IN_TRAINING]
    return [f"* this model, {n}: {v:.4g} % on {row['count']} held-out runs" for n, v in row["error"].items()]


def _elsewhere(elsewhere: Mapping[str, Mapping[str, Any]], model: FittedModel) -> list[str]:
    """Return the section on runs that differ from those of training, where some were tried."""
    if len(elsewhere) < 2:
        return []
    names = [t.name for t in model.targets]
    head = [f"{n}: {what}" for n in names for what in ("error, %", f"in its {model.level:.0%} interval")]
    head = ["runs", "number", *head, "flagged", "AUROC of novelty"]
    lines = ["", "## Runs unlike those of training", "", _row(head), _row(["---"] * len(head))]
    notes = []
    for name, row in elsewhere.items():
        if "refused" in row:
            lines.append(_row([name, "-", *["-"] * (2 * len(names)), "refused", "-"]))
            notes.append(f"* {name}: refused: {row['refused']}")
            continue
        pairs = [(row["error"].get(n), row["coverage"].get(n)) for n in names]
        cells = [c for e, s in pairs for c in (("-", "-") if e is None else (f"{e:.3g}", f"{s:.0%}"))]
        area = f"{row['area']:.2f}" if "area" in row else "-"
        lines.append(_row([name, str(row["count"]), *cells, f"{row['novel']:.0%}", area]))
    said = "AUROC: how often the novelty of such a run is above that of a run as in training; 0.5 is chance."
    return [*lines, "", said, *(["", *notes] if notes else [])]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _views(model: FittedModel) -> str:
    views = model.views
    if not views.drawn:
        return "nothing: runs are encoded as they are"
    parts = [f"{views.count} views"]
    if views.window:
        parts.append(f"of {' x '.join(map(str, views.window))} frames and nodes")
    if views.strengths:
        parts.append("under " + ", ".join(f"{n} up to {s:g}" for n, s in views.strengths.items()))
    if views.reflections:
        parts.append(
            "and reflections" if views.reflections is True else f"and reflected: {'; '.join(views.reflections)}"
        )
    return " ".join(parts)


def _novelty(model: FittedModel) -> str:
    method = {"mahalanobis": "Mahalanobis distance", "neighbours": "distance to the nearest neighbours"}
    below = "" if model.trunk_novelty is None else ", or of the values below the encoder's head if larger"
    text = (
        f"{method[model.novelty.method]} of the features{below}, over its threshold; above 1 a run is called novel, as "
    )
    text += "is one that is predicted outside the range of the labels."
    if math.isinf(model.novelty.threshold):
        text += " Too few runs calibrated the threshold: nothing is ever called novel for its distance."
    return text


def _with_unit(name: str, units: Mapping[str, str]) -> str:
    return f"{name} ({units[name]})" if units.get(name) else name


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{n} {_short(v)}" for n, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(v) for v in value)
    return str(value)
