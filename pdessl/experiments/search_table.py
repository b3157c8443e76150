"""What a search found, in words and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pdessl.evaluation.tables import measured
from pdessl.experiments.study_table import table
from pdessl.written import markdown_cell

__all__ = ["search_table", "short"]

_SHOWN = 10  # trials


def search_table(results: Mapping[str, Any], by_hand: str, found: str) -> str:
    """Return trials, what label-free scores know of the error, and the comparison on test runs, in Markdown.

    Trials are the best by validation error, beside the one that was chosen and the recipe.

    Args:
        results: of :func:`pdessl.experiments.search.search`.
        by_hand: name of the variant of the comparison that the recipe is.
        found: name of the other.
    """
    good = [t for t in results["trials"] if "failed" not in t["result"]]
    keys = list(results["search"]["space"])
    head = ["trial", *(k.rpartition(".")[2] for k in keys), "validation error [%]"]
    ranked = sorted(good, key=lambda t: t["result"]["error"])
    shown = ranked[:_SHOWN] + [t for t in ranked[_SHOWN:] if t["number"] in (0, results["best"])]
    names = {n: f" ({name})" for n, name in ((results["best"], found), (0, by_hand))}
    rows = [
        [f"{t['number']}{names.get(t['number'], '')}", *(short(t["values"][k]) for k in keys),
         f"{t['result']['error']:.2f}"]
        for t in shown
    ]  # fmt: skip
    lines = ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + "---|" * len(head))
    failed = len(results["trials"]) - len(good)
    count = f"{len(results['trials'])} trials{f', {failed} failed' if failed else ''}"
    said = [f"{count}, by validation error; chosen by '{results['search']['select']}': trial {results['best']}."]
    scores = ", ".join(f"{name} {value:+.2f}" for name, value in results["spearman"].items())
    after = [f"Rank correlation of label-free scores with the validation error: {scores}."] if scores else []
    return "\n".join([*said, "", *lines, "", *after, *_verdict(results["confirmed"], by_hand, found), "",
                      table(results["confirmed"])])  # fmt: skip


def short(value: Any) -> str:
    """Return a setting as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _verdict(confirmed: Mapping[str, Any], by_hand: str, found: str) -> list[str]:
    """Say on test runs, with new draws, whether what was found is better by more than its uncertainty."""
    labels = confirmed["study"]["labels"][0]
    errors = {}
    for name in (by_hand, found):
        rows = [r for run in confirmed["results"] if run["variant"] == name and "rows" in run for r in run["rows"]]
        errors[name] = [r["relative_error"]["mean"] for r in rows if r["method"] == "frozen" and r["labels"] == labels]
    if not all(errors.values()):
        return []
    before, after = (measured(errors[name]) for name in (by_hand, found))
    gain = before["mean"] - after["mean"]
    start = f"Test runs, {labels} labels: {after['mean']:.2f} % found, {before['mean']:.2f} % by hand"
    if min(len(e) for e in errors.values()) < 2:
        return [f"{start}; one seed each says nothing of their uncertainty."]
    spread = math.hypot(before["standard_error"], after["standard_error"])
    better = "better" if gain > 2 * spread else "worse" if gain < -2 * spread else "no different"
    return [f"{start}, {len(errors[found])} seeds: the search found settings that are {better} (two standard errors: "
            f"{2 * spread:.2f})."]  # fmt: skip
