"""Tables of results/ from rows on disk.

    python benchmarks/tables.py collect runs/viscosity results/rows/regression/burgers0.json   # keep the rows of a run
    python benchmarks/tables.py write                                                          # write all tables again

``collect`` keeps what tables need, and where it comes from, of the ``report.json`` of a quickstart, of ``regress`` or
``timestep``, of ``design --compare``, or of the ``results.json`` of a study: rows, versions, machine, seconds, recipe.
A file that is there is not written over. ``write`` fills every table of results/*.md, which stands between two
comments,

    <!-- table: KIND FILE [FILE ...] [OPTION=VALUE ...] -->
    <!-- end of table -->

with FILE below results/rows/, where ``*`` matches. Kinds: ``regression`` (rows by method; a row per file for methods
that have a pretrained encoder), ``shifts`` (errors at the most labels on other runs: mean over files and range),
``intervals``, ``noticed`` (the saved model on other runs), ``spread`` (over pretraining seeds), ``study``, ``steps``,
``seconds``, ``plain`` (rows with method and labels), ``surrogates`` (conditions of a time-stepper), ``ways``,
``columns`` and ``horizons`` (errors after numbers of steps); ``control`` (controllers of an environment, a row per
file for models that were learned); ``inverse`` (rows of an inverse benchmark, a file each);
``grouped`` (rows of grouped.py, a file each); ``reference`` (the study table1); ``sizes`` (the study sizes). Options:
``ways=``, ``columns=``, ``without=``, ``where=``, ``methods=``, ``labels=``, ``kinds=``, ``metric=``, ``value=``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdessl.errors import PdesslError
from pdessl.evaluation.sizes import sizes_table
from pdessl.evaluation.tables import measured
from pdessl.experiments.inverse_table import inverse_table
from pdessl.experiments.reference_study import reference_table
from pdessl.experiments.study_table import table as study_table
from pdessl.files import write_json, write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
_TABLE = re.compile(r"<!-- table: (?P<words>[^>]*?) -->\n.*?<!-- end of table -->", re.DOTALL)
_KEPT = (
    "rows", "truths", "level", "title", "commands", "law", "model", "regression", "intervals", "robustness",
    "elsewhere", "timestepping", "data",
    "recipe", "versions", "machine", "seconds", "study", "store", "results", "provenance", "control", "published",
)  # fmt: skip
_OWN = ("frozen", "neighbours", "finetuned", "norms", "attentive")  # methods of a pretrained encoder


def collect(run: Path, kept: Path) -> None:
    """Keep the rows of a finished run.

    Raises:
        PdesslError: no such run, or a file that is there already.
    """
    if kept.exists():
        raise PdesslError(f"{kept} is there already: rows are added, never written over. Choose another name.")
    found = next((run / name for name in ("report.json", "results.json") if (run / name).is_file()), None)
    if found is None:
        raise PdesslError(f"{run} holds neither report.json nor results.json. Give the folder of a finished run.")
    content = json.loads(found.read_text(encoding="utf-8"))
    kept_content = {name: content[name] for name in _KEPT if name in content}
    stepping = kept_content.get("timestepping", {})
    if stepping:
        kept_content["timestepping"] = {n: v for n, v in stepping.items() if n != "shown"}
    for result in kept_content.get("results", []):
        result.pop("predictions", None)
    write_json(kept, kept_content)


def written(text: str) -> str:
    """Return the text of a page with every table made again from its rows.

    Raises:
        PdesslError: a table of an unknown kind, or without rows.
    """
    return _TABLE.sub(lambda m: f"<!-- table: {m['words']} -->\n{_table(m['words'])}<!-- end of table -->", text)


def _table(words: str) -> str:
    kind, *rest = words.split()
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    names = [word for word in rest if "=" not in word]
    paths = [path for name in names for path in sorted((RESULTS / "rows").glob(name))]
    if kind not in _KINDS or not paths:
        raise PdesslError(f"table '{words}': expected one of {', '.join(_KINDS)} and files below results/rows/.")
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return _KINDS[kind](reports, options)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _value(found: dict[str, Any], digits: int = 2) -> str:
    error = found["standard_error"]
    return f"{found['mean']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _seed(stem: str) -> str:
    """Return the pretraining seed, the digits at the end of the name of a file."""
    found = re.search(r"\d+$", stem)
    return found.group() if found else stem


def _regression(reports: dict[str, Any], options: dict[str, str]) -> str:
    metric = options.get("metric", "relative_error")
    every = [row for report in reports.values() for row in report["regression"]["rows"]]
    counts = sorted({row["labels"] for row in every if row["labels"] is not None})
    counts = [int(n) for n in options["labels"].split(",")] if "labels" in options else counts
    methods = options["methods"].split(",") if "methods" in options else list(dict.fromkeys(r["method"] for r in every))
    several = len(reports) > 1
    rows = []
    for method in methods:
        held: list[tuple[str, dict[Any, Any]]] = []
        for stem, report in reports.items():
            mine = {r["labels"]: r[metric] for r in report["regression"]["rows"] if r["method"] == method}
            if mine:
                held.append((stem, mine))
        title = next((r["title"] for r in every if r["method"] == method), method)
        # What no encoder enters is the same in every file.
        for stem, mine in held if method in _OWN else held[:1]:
            cells = [_value(mine.get(n) or mine[None]) if n in mine or None in mine else "-" for n in counts]
            rows.append([title, *([_seed(stem) if method in _OWN else ""] if several else []), *cells])
    head = ["method", *(["pretraining seed"] if several else []), *(f"{n} labels" for n in counts)]
    return _lines(head, rows)


def _shifts(reports: dict[str, Any], options: dict[str, str]) -> str:
    first = next(iter(reports.values()))
    names = list(dict.fromkeys(r["runs"] for r in first["robustness"]["rows"]))
    methods = list(dict.fromkeys(r["method"] for r in first["robustness"]["rows"]))
    methods = options["methods"].split(",") if "methods" in options else methods
    most = first["robustness"]["labels"]
    rows = []
    for method in methods:
        cells, title = [], method
        for name in ("", *names):
            values = []
            for report in reports.values():
                if name:
                    found = [r for r in report["robustness"]["rows"] if r["runs"] == name and r["method"] == method]
                    values += [r["relative_error"] for r in found]
                else:
                    found = [r for r in report["regression"]["rows"] if r["method"] == method]
                    at = [r for r in found if r["labels"] in (most, None)]
                    values += [r["relative_error"]["mean"] for r in at]
                title = found[0]["title"] if found else title
            spread = f" ({min(values):.2f} to {max(values):.2f})" if method in _OWN and len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "not read")
        rows.append([title, *cells])
    return _lines([f"method, {most} labels", "as in training", *names], rows)


def _intervals(reports: dict[str, Any], options: dict[str, str]) -> str:
    kinds = options.get("kinds", "constant,quantile").split(",")
    held = {(stem, r["runs"], r["kind"]): r for stem, report in reports.items() for r in report["intervals"]["rows"]}
    systems = list(dict.fromkeys(re.sub(r"\d+$", "", stem) for stem in reports))
    names = list(dict.fromkeys(runs for _, runs, _ in held))
    rows = []
    for name in names:
        row = [name]
        for system in systems:
            for kind in kinds:
                at = [held[s, name, kind] for s in reports if s.startswith(system) and (s, name, kind) in held]
                shares = "/".join(f"{100 * r['share']:.0f}" for r in at)
                width = statistics.mean(r["median_relative_width"] for r in at) if at else 0
                row.append(f"{shares} ({width:.0f})" if at else "")
        rows.append(row)
    return _lines(["test runs", *(f"{system}: {kind}" for system in systems for kind in kinds)], rows)


def _noticed(reports: dict[str, Any], options: dict[str, str]) -> str:
    systems: dict[str, list[dict[str, Any]]] = {}
    for stem, report in reports.items():
        systems.setdefault(re.sub(r"\d+$", "", stem), []).append(report)
    rows = []
    for system, held in systems.items():
        names = list(dict.fromkeys(n for report in held for n in report.get("elsewhere", {}).get("rows", {})))
        for name in names:
            at = [report["elsewhere"]["rows"].get(name, {}) for report in held if "elsewhere" in report]
            read = [row for row in at if "refused" not in row and row]
            saved = ", ".join(dict.fromkeys(report.get("model", "") for report in held if report.get("model")))
            rows.append(
                [
                    system + (f": {saved}" if saved else ""),
                    name,
                    _joined(f"{next(iter(r['error'].values())):.1f}" if r["error"] else "-" for r in read),
                    _joined(f"{r['area']:.2f}" if "area" in r else "-" for r in read),
                    _joined(f"{100 * r['novel']:.0f}" for r in read),
                    _joined(f"{100 * next(iter(r['coverage'].values())):.0f}" if r["coverage"] else "-" for r in read),
                ]
            )
    head = ["model of", "runs", "error, %", "AUROC of the novelty", "flagged, %", "truth in the 90 % interval, %"]
    return _lines(head, rows)


def _joined(values: Any) -> str:
    """Return the values of all files, one where they are the same."""
    found = list(values)
    return ", ".join(found if len(set(found)) > 1 else found[:1]) or "refused"


def _study(reports: dict[str, Any], options: dict[str, str]) -> str:
    return "\n".join(study_table(report) for report in reports.values())


def _steps(reports: dict[str, Any], options: dict[str, str]) -> str:
    first = next(iter(reports.values()))["timestepping"]
    rows = [[r["title"], _value(r["one_step"], 4), _value(r["rollout"], 4)] for r in first["rows"]]
    return _lines(["time-stepper", "one step, NMSE", f"rollout over {first['frames']} frames, NMSE"], rows)


def _surrogates(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Conditions of a time-stepper: errors, how long it stays correlated, and the share of the gap it closes."""
    first = next(iter(reports.values()))["timestepping"]
    shares = {r["method"]: r.get("gap_closed") for r in first["rows"]}
    rows = []
    for r in first["rows"]:
        share = shares[r["method"]]
        closed = "-" if share is None else f"{_value(_in_percent(share), 1)} %"
        rows.append([r["title"], *(_value(r[n], 4) for n in ("one_step", "rollout", "pooled")),
                     _value(r["correlation_time"]["0.8"]), closed])  # fmt: skip
    head = ["method", "one step, NMSE", "rollout, NMSE", "pooled", "correlated until (.8)", "gap closed"]
    return _lines(head, rows)


def _in_percent(found: dict[str, Any]) -> dict[str, Any]:
    return measured([100 * v for v in found["values"]])


def _ways(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows by data, a column per way: mean and median of the squared error."""
    ways = options["ways"].split(",")
    rows = [row for report in reports.values() for row in report["rows"]]
    cells = [[row["data"], *(f"{row[w]['mean']:.2g}, {row[w]['median']:.2g}" for w in ways)] for row in rows]
    return _lines(["data", *(f"{way.replace('_', ' ')}: mean, median" for way in ways)], cells)


def _horizons(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Mean nRMSE after numbers of steps: rows with ``after N``, by set, or those of a time-stepping run."""
    lines: list[list[str]] = []
    steps: list[str] = []
    for report in reports.values():
        for row in report["rows"] if "rows" in report else report["timestepping"]["rows"]:
            held = {n.removeprefix("after "): v for n, v in row.items() if n.startswith("after ")}
            held = held or {n: v["mean"] for n, v in row["nrmse"].items()}
            steps = steps or list(held)
            first = [row["set"], row["row"], row["source"]] if "set" in row else [row["title"]]
            lines.append([*first, *(f"{held[n]:.2g}" if n in held else "" for n in steps)])
    named = ["runs", "method", "told"] if lines and len(lines[0]) > len(steps) + 1 else ["method"]
    return _lines([*named, *(f"after {n}" for n in steps)], lines)


def _columns(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows as they are, of which ``where=KEY:VALUE`` holds: the columns that ``columns=`` names, to three digits."""
    names = options["columns"].split(",")
    rows = [row for report in reports.values() for row in report["rows"]]
    if "where" in options:
        key, value = options["where"].split(":")
        rows = [row for row in rows if str(row.get(key)) == value]
    cells = [[_cell(row.get(n)) for n in names] for row in rows]
    return _lines([name.replace("_", " ") for name in names], cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _control(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Mean cost of every controller, its share of the best gain over no control, and what it learned from.

    Options: ``ways`` (a name per file in the place of its seed), ``columns`` (further ones: milliseconds, breaches),
    ``without=settled``.
    """
    every = [row for report in reports.values() for row in report["control"]["rows"]]
    nothing = next(row["mean_cost"]["mean"] for row in every if row["title"] == "no control")
    least = min(row["mean_cost"]["mean"] for row in every)
    settled = all(row.get("settled") is not None for row in every)
    settled = settled and options.get("without") != "settled"
    gained = nothing > least
    named = {"milliseconds": "ms an action", "breaches": "periods past the limit"}
    more = [key for key in options.get("columns", "").split(",") if key]
    ways = options["ways"].split(",") if "ways" in options else [_seed(stem) for stem in reports]
    rows, seen = [], set()
    for way, report in zip(ways, reports.values(), strict=True):
        for row in report["control"]["rows"]:
            learned = row["training_periods"] is not None
            if not learned and row["title"] in seen:
                continue
            seen.add(row["title"])
            cost = row["mean_cost"]["mean"]
            share = [f"{100 * (nothing - cost) / (nothing - least):.0f}"] if gained else []
            periods = f"{row['training_periods']}" if learned else "-"
            ends = [f"{100 * row['settled']:.0f}"] if settled else []
            others = ["-" if row[key] is None else f"{row[key]:.3g}" for key in more]
            first = [row["title"], way if learned else "-", _value(row["mean_cost"], 3)]
            rows.append([*first, *share, *ends, *others, periods])
    ends = ["settled, %"] if settled else []
    share = ["of the best gain, %"] if gained else []
    head = ["controller", "price" if "ways" in options else "seed", "mean cost of a period", *share, *ends]
    return _lines([*head, *(named[key] for key in more), "periods learned from"], rows)


def _limits(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Mean cost of every controller over episodes, its 90 % quantile, periods in which a limit is passed, refusals."""
    rows, seen = [], set()
    for report in reports.values():
        periods = report["control"]["episodes"] * report["control"]["steps"]
        for row in report["control"]["rows"]:
            if row["title"] not in seen:
                seen.add(row["title"])
                passed = "-" if row["breaches"] is None else f"{100 * row['breaches'] / periods:.1f}"
                refused = f"{100 * row['fallbacks']:.1f}"
                rows.append([row["title"], _value(row["mean_cost"], 4), f"{row['bad_cost']:.4f}", passed, refused])
    head = ["controller", "mean cost of a period", "90 % quantile", "periods above the limit, %", "plans refused, %"]
    return _lines(head, rows)


def _inverse(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows of an inverse benchmark: ``value`` is error, inside, novel or width, all in per cent."""
    return inverse_table(list(reports.values()), options.get("value", "error"))


def _reference(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows of the study table1, of one file or several, beside what was published."""
    published: dict[str, Any] = {}
    for report in reports.values():
        published |= report["published"]
    return reference_table([row for report in reports.values() for row in report["results"]], published)


def _grouped(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows of benchmarks/grouped.py, of which ``where=KEY:VALUE`` holds, the best first."""
    key, value = options["where"].split(":")
    rows = [r for r in reports.values() if str(r[key]) == value]
    labels = list(rows[0]["error"])
    head = [f"fields {', '.join(rows[0]['fields'])}", "positives", *(f"{n} labels [%]" for n in labels)]
    head += [f"R² at {labels[0]} / {labels[-1]}", "s", ""]
    lines = []
    for r in sorted(rows, key=lambda r: statistics.mean(r["error"][labels[0]])):
        cells = [f"{statistics.mean(r['error'][n]):.2f} ± {statistics.stdev(r['error'][n]):.2f}" for n in labels]
        ends = " / ".join(f"{statistics.mean(r['r2'][n]):.3f}" for n in (labels[0], labels[-1]))
        lines.append(
            [r["method"], "*grouped*" if r["grouped"] else "–", *cells, ends, f"{r['seconds']:.0f}", r["note"]]
        )
    return _lines(head, lines)


def _seconds(reports: dict[str, Any], options: dict[str, str]) -> str:
    stages = list(dict.fromkeys(stage for report in reports.values() for stage in report["seconds"]))
    rows = [[s, *(f"{report['seconds'].get(s, 0):.0f}" for report in reports.values())] for s in stages]
    totals = ["all stages", *(f"{sum(report['seconds'].values()):.0f}" for report in reports.values())]
    return _lines(["stage", *(f"{stem}, s" for stem in reports)], [*rows, totals])


def _spread(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Mean and standard error over pretraining seeds of each file's mean over draws of labels."""
    every = [row for report in reports.values() for row in report["regression"]["rows"]]
    counts = sorted({row["labels"] for row in every if row["labels"] is not None})
    rows = []
    for method in options.get("methods", "frozen").split(","):
        cells = []
        for n in counts:
            values = [r["relative_error"]["mean"] for r in every if r["method"] == method and r["labels"] == n]
            cells.append(_value(measured(values)))
        rows.append([next(r["title"] for r in every if r["method"] == method), str(len(reports)), *cells])
    return _lines(["method", "pretraining seeds", *(f"{n} labels" for n in counts)], rows)


def _plain(reports: dict[str, Any], options: dict[str, str]) -> str:
    """Rows with ``method`` and ``labels``, a column per number of labels; ``by`` names a further key of rows."""
    by, rows = options.get("by"), [row for report in reports.values() for row in report["rows"]]
    counts = sorted({row["labels"] for row in rows})
    lines = {}
    for row in rows:
        key = (*((str(row[by]),) if by else ()), row["method"])
        lines.setdefault(key, {})[row["labels"]] = _value(row["relative_error"])
    head = [*((by,) if by else ()), "method", *(f"{n} labels [%]" for n in counts)]
    return _lines(head, [[*key, *(cells.get(n, "-") for n in counts)] for key, cells in lines.items()])


def _sizes(reports: dict[str, Any], options: dict[str, str]) -> str:
    return "\n".join(sizes_table(report["rows"]) for report in reports.values())


_KINDS = {
    "regression": _regression, "shifts": _shifts, "intervals": _intervals, "noticed": _noticed, "study": _study,
    "steps": _steps, "seconds": _seconds, "spread": _spread, "plain": _plain,
    "surrogates": _surrogates, "ways": _ways, "horizons": _horizons, "columns": _columns, "control": _control,
    "limits": _limits, "inverse": _inverse, "grouped": _grouped, "reference": _reference,
    "sizes": _sizes,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect rows, or write the tables of results/ again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collecting = verbs.add_parser("collect")
    collecting.add_argument("run", type=Path)
    collecting.add_argument("kept", type=Path)
    verbs.add_parser("write")
    options = parser.parse_args(arguments)
    if options.verb == "collect":
        collect(options.run, options.kept)
        return
    for path in sorted(RESULTS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            write_text(path, after)
            print(f"{path.name}: written again")


if __name__ == "__main__":
    main()
