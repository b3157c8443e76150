"""Rows of a report's tables: measured values with standard errors, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["GROUPS", "compare", "findings", "measured", "regression_row"]

FEWEST_TESTED = 20  # runs: fewer say too little of others for a difference to be called one
GROUPS = {
    "pretrained": "pretrained without labels",
    "floor": "floors, on the same labels and test set",
    "classical": "classical: least squares of the equation's own terms",
}


def measured(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the standard error of the mean (None for one value) and the values themselves."""
    numbers = [float(v) for v in values]
    mean = sum(numbers) / len(numbers)
    error = None
    if len(numbers) > 1:
        variance = sum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1)
        error = math.sqrt(variance / len(numbers))
    return {"mean": mean, "standard_error": error, "values": numbers}


def regression_row(
    method: str,
    title: str,
    group: str,
    labels: int | None,
    relative_error: Sequence[float],
    nmse: Sequence[float],
    note: str = "",
) -> dict[str, Any]:
    """Return one row of the regression table.

    Args:
        method: short key, the same at every number of labels.
        title: what readers see.
        group: ``pretrained``, ``floor`` or ``classical``.
        labels: number of labelled runs used; None where no label is used.
        relative_error: relative error in %, one value per seed.
        nmse: mean squared error over the variance of the target, one value per seed.
        note: e.g. the learning rate that validation chose.
    """
    if group not in GROUPS:
        raise ValueError(f"group '{group}' is none of {', '.join(GROUPS)}.")
    return {
        "method": method,
        "title": title,
        "group": group,
        "labels": labels,
        "relative_error": measured(relative_error),
        "nmse": measured(nmse),
        "note": note,
    }


def compare(ours: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, str]:
    """Compare two measured errors.

    Returns:
        how many standard errors of the difference ours lies below the other (negative: above), and that in words: two
        standard errors are what it takes to be called lower or higher. NaN where one of them has no standard error.
    """
    if ours["standard_error"] is None or other["standard_error"] is None:
        return math.nan, "from one draw each, so that the difference is not tested"
    spread = math.hypot(ours["standard_error"] or 0.0, other["standard_error"] or 0.0)
    difference = other["mean"] - ours["mean"]
    score = difference / spread if spread else math.copysign(math.inf, difference) if difference else 0.0
    if score > 2:
        return score, "lower, by more than two standard errors"
    if score < -2:
        return score, "higher, by more than two standard errors"
    return score, "not told apart (within two standard errors)"


def _percent(row: Mapping[str, Any]) -> str:
    """Write an error to a tenth of a percent, a smaller one to two digits: no error is 0.0 %."""
    error = row["relative_error"]["mean"]
    return f"{error:.1f} %" if error >= 1 else f"{error:.2g} %"


def findings(rows: Sequence[Mapping[str, Any]], test_size: int | None = None) -> list[str]:
    """Say, for each number of labels, how the best use of the pretrained encoder compares with the best floor.

    Where hand-made physics features have a lower error than every use of the encoder, a line says so, whatever a law
    found in the runs reaches: a representation that loses to a power spectrum is not worth training. A last line says
    what the classical estimate reaches, which knows the equation.
    """
    lines = []
    for count in sorted({r["labels"] for r in rows if r["labels"] is not None}):
        at = [r for r in rows if r["labels"] in (count, None)]
        ours = min(
            (r for r in at if r["group"] == "pretrained"), key=lambda r: r["relative_error"]["mean"], default=None
        )
        floor = min((r for r in at if r["group"] == "floor"), key=lambda r: r["relative_error"]["mean"], default=None)
        if ours is None or floor is None:
            continue
        _, words = compare(ours["relative_error"], floor["relative_error"])
        if test_size is not None and test_size < FEWEST_TESTED:
            words = f"{test_size} test runs are too few to test the difference"
        lines.append(
            f"{count} labels: {ours['title']} {_percent(ours)}, best floor ({floor['title']}) {_percent(floor)}: "
            f"{words}."
        )
    lost = []
    for count in sorted({r["labels"] for r in rows if r["method"] == "physics"}):
        used = [r for r in rows if r["group"] == "pretrained" and r["method"] != "law"]
        at = [r["relative_error"] for r in used if r["labels"] == count]
        physics = next(r for r in rows if r["method"] == "physics" and r["labels"] == count)["relative_error"]
        if at and physics["mean"] < min(a["mean"] for a in at):
            lost.append(f"{count} labels ({physics['mean']:.2g} against {min(a['mean'] for a in at):.2g} %)")
    if lost:
        lines.append(f"The representation loses to hand-made physics features (spectra, moments) at {', '.join(lost)}.")
    classical = [r for r in rows if r["group"] == "classical"]
    if lines and classical:
        known = min(classical, key=lambda r: r["relative_error"]["mean"])
        best = min((r for r in rows if r["group"] != "classical"), key=lambda r: r["relative_error"]["mean"])
        error, ours = known["relative_error"]["mean"], best["relative_error"]["mean"]
        words = "less than any other row" if error < ours else f"more than {ours:.2g} %, {best['title']}"
        lines.append(f"Who knows the equation and needs no labels: {known['title']} {error:.2g} %, {words}.")
    return lines
