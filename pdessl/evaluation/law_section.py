"""A report's first section: the law of the unlabelled runs, its code beside the parameter, and what few labels give."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdessl.evaluation import plots

__all__ = ["law_picture", "law_section", "sentence"]


_LONGEST = 48  # characters of a law that is part of a sentence, and of the title of a panel


def sentence(section: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which law was found and what it gives, beside the other methods with as many labels."""
    target, labels = section["target"], section["labels"]
    law = _error(rows, "law", labels)
    ours = section["error"] if law is None else law
    written, one = _short_law(section), section["shown"] != "predicted"
    found = f"From {section['runs']:,} unlabelled runs, and no equation given"
    found += f": {written}." if written else ", the law that they obey."
    read = (
        f"{section['shown']}, the one number that differs from run to run," if one else "what differs from run to run"
    )
    text = f"{found} With {labels} labels {read} is the {target} to {ours:.2g} %"
    others = [
        (words, _error(rows, method, labels))
        for method, words in (
            ("scratch", "a network trained on the same labels"),
            ("frozen", "a pretrained network"),
            ("physics", "hand-made features"),
        )
    ]
    beside = ", ".join(f"{words} {error:.2g} %" for words, error in others if error is not None)
    return f"{text}{f' ({beside})' if beside else ''}."


def _short_law(section: Mapping[str, Any]) -> str:
    """Return the law where it is one short equation, else nothing."""
    lines = [" ".join(line.split()) for line in section["equation"]]
    return lines[0] if len(lines) == 1 and len(lines[0]) <= _LONGEST else ""


def _error(rows: Sequence[Mapping[str, Any]], method: str, labels: int) -> float | None:
    found = [r["relative_error"]["mean"] for r in rows if r["method"] == method and r["labels"] == labels]
    return float(found[0]) if found else None


def law_picture(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> tuple[str, Figure, bool]:
    """Return the parameter, the section's figure, and whether it shows predictions rather than the code itself."""
    section = report["law"]
    rows = (report.get("regression") or {}).get("rows", ())
    labels, target = section["labels"], section["target"]
    errors = {
        r["title"]: r["relative_error"]["mean"]
        for r in rows
        if r["labels"] == labels and r["method"] in ("law", "frozen", "finetuned", "scratch", "physics", "mean")
    }
    predicted = section["shown"] == "predicted"
    shown_name = f"predicted {target}" if predicted else f"{section['shown']}, read without labels"
    field = None
    if "field" in section:
        field = (arrays["law/field"], arrays["law/time"], arrays["law/space"], section["field"])
    figure = plots.law_figure(
        arrays["law/shown"], arrays["law/parameter"], target, shown_name, field, errors, labels, _short_law(section)
    )
    return target, figure, predicted


def law_section(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the section as HTML."""
    section = report["law"]
    rows = (report.get("regression") or {}).get("rows", ())
    law = "\n".join([*section["equation"], section["diagnostics"], section["symmetries"]])
    details = [f"<pre>{html.escape(law)}</pre>"]
    details += [f"<p>{html.escape(str(line))}</p>" for line in [*section["warnings"], section["reason"]] if line]
    if "error" not in section:
        return "".join(details)
    target, figure, predicted = law_picture(report, arrays)
    labels = section["labels"]
    inside = section["coverage"]
    drawn = "drawn is what is predicted" if predicted else "what is drawn was read without a label, a line: equality"
    caption = (
        f"From data to law to {target}. Of the test runs {inside['share']:.0%} lie in their {inside['level']:.0%} "
        f"interval; {drawn}. Errors with {labels} labels are means over seeds."
    )
    first = f'<p class="finding">{html.escape(sentence(section, rows))}</p>'
    picture = f"<figure>{plots.svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>"
    return "".join([first, picture, *details])
