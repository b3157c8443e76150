"""A report's plain data and arrays as one HTML page; :mod:`pdessl.evaluation.report` says what they hold."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from pdessl.errors import FormatError
from pdessl.evaluation import plots
from pdessl.evaluation.beyond import elsewhere_section, intervals_section, robustness_section
from pdessl.evaluation.control_section import control_section
from pdessl.evaluation.law_section import law_section
from pdessl.evaluation.spectra_figure import spectra_figure
from pdessl.evaluation.tables import GROUPS, findings

__all__ = ["render"]

_CSS = """
:root { --ink: #1d2733; --soft: #52606d; --line: #e1e5ea; --accent: #0072B2; --paper: #ffffff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 2rem 4rem; background: var(--paper); }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
.lead { font-size: 1.06rem; color: var(--soft); }
.finding { border-left: 4px solid var(--accent); background: #eef5fa; padding: .7rem 1rem;
  margin: 1rem 0; max-width: 50rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; color: var(--soft); font-size: .86rem; padding-top: .5rem; }
th, td { padding: .32rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 13em; }
thead th { border-bottom: 2px solid #9aa5b1; font-weight: 600; }
tr.group td { color: var(--soft); font-size: .84rem; padding-top: .9rem; border-bottom: none; }
td.best { font-weight: 700; }
td .pm { color: var(--soft); font-weight: 400; }
figure { margin: 1.4rem 0; }
figure svg { width: 100%; height: auto; max-width: 60rem; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 50rem; }
pre, code { font: .86rem/1.45 ui-monospace, "SF Mono", Menlo, monospace; }
pre { background: #f4f6f8; padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; }
.scroll { overflow-x: auto; }
details summary { cursor: pointer; color: var(--soft); }
"""


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: float, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return "not finite"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}·10<sup>{int(exponent)}</sup>"
    return f"{value:.{digits}g}" if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


def _with_error(measurement: Mapping[str, Any]) -> str:
    """Write mean ± standard error, both to the place of the error's second digit where it is small."""
    mean, error = measurement["mean"], measurement["standard_error"]
    if error is None or not math.isfinite(mean) or not math.isfinite(error):
        return _number(mean)
    if error == 0:
        return f'{_number(mean)} <span class="pm">± 0</span>'
    if 1e-3 <= abs(mean) < 1e5:
        places = min(max(1 - math.floor(math.log10(error)), 0), 2 - math.floor(math.log10(abs(mean))))
        places = max(places, 0)
        return f'{mean:.{places}f} <span class="pm">± {error:.{places}f}</span>'
    return f'{_number(mean)} <span class="pm">± {_number(error, 2)}</span>'


def _figure(figure: Any, caption: str) -> str:
    return f"<figure>{plots.svg(figure)}<figcaption>{_text(caption)}</figcaption></figure>"


def _regression_table(rows: Sequence[Mapping[str, Any]], test_size: object) -> str:
    counts = sorted({r["labels"] for r in rows if r["labels"] is not None})
    columns = counts or [None]
    cells: dict[tuple[str, Any], Mapping[str, Any]] = {(r["method"], r["labels"]): r for r in rows}
    best = {
        count: min((r["relative_error"]["mean"] for r in rows if r["labels"] in (count, None)), default=None)
        for count in columns
    }
    head = "".join(f'<th colspan="2">{count} labels</th>' if count else '<th colspan="2"></th>' for count in columns)
    head2 = "<th>relative error, %</th><th>NMSE</th>" * len(columns)
    body = []
    for group, title in GROUPS.items():
        methods = {r["method"]: r["title"] for r in rows if r["group"] == group}
        if methods:
            body.append(f'<tr class="group"><td colspan="{1 + 2 * len(columns)}">{_text(title)}</td></tr>')
        for method, name in methods.items():
            line = f"<td>{_text(name)}</td>"
            for count in columns:
                row = cells.get((method, count)) or cells.get((method, None))
                if row is None:
                    line += "<td>–</td><td>–</td>"
                    continue
                mark = ' class="best"' if row["relative_error"]["mean"] == best[count] else ""
                line += f"<td{mark}>{_with_error(row['relative_error'])}</td><td>{_with_error(row['nmse'])}</td>"
            body.append(f"<tr>{line}</tr>")
    caption = (
        f"Mean ± standard error over seeds, on {_text(test_size)} test runs. Relative error: mean of "
        "|predicted − true| / true. "
        "NMSE: mean squared error over the variance of the target. Lowest relative error of each column in bold. "
        "A method that uses no labels has the same value in every column."
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr><tr><th>method</th>{head2}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody><caption>{caption}</caption></table></div>"
    )


def _regression(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    section = report["regression"]
    target = str(section.get("target", "parameter"))
    rows = section["rows"]
    parts = [f"<h2>{_text(target.capitalize())} from few labels</h2>"]
    parts += [f"<p>{_text(p)}</p>" for p in section.get("notes", [])]
    parts.append(_regression_table(rows, section.get("test_size", "the")))
    counts = sorted({r["labels"] for r in rows if r["labels"] is not None})
    if len(counts) > 1:
        curves = {}
        for method, title in {r["method"]: r["title"] for r in rows}.items():
            found = {r["labels"]: r["relative_error"] for r in rows if r["method"] == method}
            at = [found.get(n) or found.get(None) for n in counts]
            means = [m["mean"] if m else math.nan for m in at]
            curves[title] = (means, [(m["standard_error"] or 0.0) if m else math.nan for m in at])
        parts.append(
            _figure(plots.label_curve_figure(counts, curves), "The table above as curves; bars are standard errors.")
        )
    if "predictions" in report:
        section = report["predictions"]
        predicted = {title: arrays[f"predictions/{key}"] for key, title in section["methods"].items()}
        parts.append(
            _figure(
                plots.predictions_figure(arrays["predictions/true"], predicted, target),
                f"Predicted against true {target} on the test set, {section['labels']} labels, first seed.",
            )
        )
    if "embedding" in report:
        encoders = {title: arrays[f"embedding/{key}"] for key, title in report["embedding"]["encoders"].items()}
        parts.append(
            _figure(
                plots.embedding_figure(encoders, arrays["embedding/parameter"], target),
                f"First two principal components of the representation of the test runs, coloured by {target}.",
            )
        )
    return "".join(parts)


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    error = f" ± {100 * found['standard_error']:.1f}" if found["standard_error"] is not None else ""
    return f"{100 * found['mean']:.1f}{error} %"


def _timestepping(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    section = report["timestepping"]
    body = "".join(
        f"<tr><td>{_text(r['title'])}</td><td>{_with_error(r['one_step'])}</td><td>{_with_error(r['rollout'])}</td>"
        f"<td>{_share(r.get('gap_closed'))}</td></tr>"
        for r in section["rows"]
    )
    parts = ["<h2>Time-stepping</h2>"]
    parts += [f"<p>{_text(p)}</p>" for p in section.get("notes", [])]
    parts.append(
        "<table><thead><tr><th>method</th><th>one step, NMSE</th>"
        f"<th>rollout over {_text(section.get('frames', '?'))} frames, NMSE</th><th>gap closed</th></tr></thead>"
        f"<tbody>{body}</tbody>"
        "<caption>Mean ± standard error over seeds. NMSE: squared error over the mean square of the true field. Gap "
        "closed: (E_none − E)/(E_none − E_parameter) of squared errors of rollouts summed over runs."
        "</caption></table>"
    )
    if "shown" in section:
        shown = {title: arrays[f"rollout/{key}"] for key, title in section["shown"].items()}
        figure = plots.rollout_figure(
            arrays["rollout/time"],
            arrays["rollout/space"],
            arrays["rollout/truth"],
            shown,
            section["error_over_time"],
            section.get("run", ""),
        )
        parts.append(_figure(figure, "Above: one test run, rolled out from its first frames. Below: error over time."))
    if "shown" in section and "spectra/truth" in arrays:
        held = {title: arrays[f"spectra/{key}"] for key, title in section["shown"].items()}
        figure = spectra_figure(arrays["spectra/time"], arrays["spectra/truth"], held)
        parts.append(_figure(figure, "Energy of the waves of each length, mean over the test runs."))
    return "".join(parts)


def _views(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    section = report["views"]
    rows, columns = section["row_titles"], section["column_titles"]

    def grid(kind: str) -> list[list[NDArray[Any]]]:
        return [[arrays[f"views/{i}/{j}/{kind}"] for j in range(len(columns))] for i in range(len(rows))]

    parts = ["<h2>The data, and views of it</h2>"]
    parts += [f"<p>{_text(p)}</p>" for p in section.get("notes", [])]
    if section.get("strengths"):
        lines = "".join(
            f"<tr><td>{_text(s['generator'])}</td><td>{_text(s['strength'])}</td></tr>" for s in section["strengths"]
        )
        parts.append(
            f"<table><thead><tr><th>generator</th><th>greatest strength</th></tr></thead><tbody>{lines}</tbody></table>"
        )
    figure = plots.views_figure(grid("field"), grid("time"), grid("space"), rows, columns, section.get("field", "u"))
    parts.append(
        _figure(figure, section.get("caption", "Simulated runs as observed, and two augmented views of each."))
    )
    return "".join(parts)


def _training(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    section = report["training"]
    figure = plots.training_figure(section["curves"], section.get("width"))
    caption = section.get(
        "caption",
        "A collapsed representation would show a standard deviation near 0 or an effective rank near 1. The online "
        "probe sees labels, and gives the encoder no gradient.",
    )
    notes = "".join(f"<p>{_text(p)}</p>" for p in section.get("notes", []))
    return f"<h2>Pretraining without labels</h2>{notes}{_figure(figure, caption)}"


def _provenance(report: Mapping[str, Any]) -> str:
    parts = ["<h2>How this was made</h2>"]
    if report.get("commands"):
        parts.append(f"<pre>{_text(chr(10).join(report['commands']))}</pre>")
    if report.get("seconds"):
        total = sum(report["seconds"].values())
        lines = "".join(f"<tr><td>{_text(n)}</td><td>{s:.1f}</td></tr>" for n, s in report["seconds"].items())
        lines += f"<tr><td><b>all stages</b></td><td><b>{total:.1f}</b></td></tr>"
        parts.append(f"<table><thead><tr><th>stage</th><th>seconds</th></tr></thead><tbody>{lines}</tbody></table>")
    for name in ("machine", "versions"):
        if report.get(name):
            facts = ", ".join(f"{k} {v}" for k, v in report[name].items())
            parts.append(f"<p>{name.capitalize()}: {_text(facts)}.</p>")
    if report.get("recipe"):
        recipe = _text(json.dumps(report["recipe"], indent=1))
        parts.append(f"<details><summary>The whole recipe</summary><pre>{recipe}</pre></details>")
    return "".join(parts)


def _section(
    name: str, section: Callable[..., str], report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> str:
    try:
        return section(report, arrays)
    except KeyError as error:
        raise FormatError(
            f"the report's section '{name}' lacks {error}. Run the command that wrote it again."
        ) from None


def render(report: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the report as one HTML page that loads nothing from elsewhere.

    Args:
        report: plain data, see the module; sections that are absent are left out.
        arrays: the figures' arrays by name.

    Raises:
        FormatError: a figure's array is missing.
    """
    title = _text(report.get("title", "pdessl report"))
    parts = [f"<h1>{title}</h1>"]
    if report.get("law"):  # a sentence and a picture, before what is explained
        parts.append(_section("law", law_section, report, arrays))
    parts += [f'<p class="lead">{_text(p)}</p>' for p in report.get("summary", [])]
    if report.get("regression"):
        found = report["regression"]
        lines = findings(found["rows"], found.get("test_size"))
        parts += [f'<p class="finding">{_text(line)}</p>' for line in lines]
    sections: dict[str, Callable[..., str]] = {
        "views": _views,
        "training": _training,
        "regression": _regression,
        "intervals": intervals_section,
        "robustness": robustness_section,
        "elsewhere": elsewhere_section,
        "timestepping": _timestepping,
        "control": control_section,
    }
    for name, section in sections.items():
        if report.get(name):
            parts.append(_section(name, section, report, arrays))
    parts.append(_provenance(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )
