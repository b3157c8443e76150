"""A run as one self-contained HTML page, a JSON file of its tables, and the arrays of its figures.

A report is a plain dictionary (what ``report.json`` holds) and a dictionary of named arrays. Every section is optional:

* ``title``, ``summary`` (paragraphs), ``commands``, ``versions``, ``machine``, ``seconds`` (stage -> s), ``recipe``
* ``law``: ``equation`` (lines), ``diagnostics``, ``symmetries``, ``warnings``, ``target``, ``labels``, ``runs``,
  ``reason``; where its code was read also ``error``, ``coverage``, ``shown``, ``field``; arrays ``law/shown``,
  ``law/parameter``, ``law/field|time|space``
* ``views``: ``row_titles`` and ``column_titles``; arrays ``views/ROW/COLUMN/field|time|space``; ``strengths``, a list
  of generators with their greatest strengths
* ``training``: ``curves`` (name -> list) and ``width``
* ``regression``: ``target``, ``test_size``, ``rows`` (see :func:`pdessl.evaluation.tables.regression_row`), ``notes``
* ``predictions``: ``labels`` and ``methods`` (key -> title); arrays ``predictions/true`` and ``predictions/KEY``
* ``intervals``: ``rows`` and ``reliability``; ``robustness``: ``labels`` and ``rows``; ``elsewhere``: ``level`` and
  ``rows``, see :mod:`pdessl.evaluation.beyond`
* ``embedding``: ``encoders`` (key -> title); arrays ``embedding/parameter`` and ``embedding/KEY``
* ``control``: ``episodes``, ``steps``, ``rows`` (``key``, ``title``, ``mean_cost``, ``gain``, ``settled``,
  ``milliseconds``, ``fallbacks``, ``breaches``), ``shown`` (keys), ``notes``; arrays ``control/time|space``,
  ``control/cost/KEY``, of those shown ``control/field|actions/KEY``, of models ``control/imagined|dreamed|came/KEY``
* ``timestepping``: ``rows`` (``title``, ``one_step``, ``rollout``), ``frames``, ``error_over_time`` (title -> list),
  ``shown`` (key -> title); arrays ``rollout/time|space|truth`` and ``rollout/KEY``, and at some times
  ``spectra/time|truth`` and ``spectra/KEY``
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdessl.errors import FormatError
from pdessl.evaluation.page import render
from pdessl.files import write_bytes, write_json, write_text

__all__ = ["read_report", "write_report"]


def write_report(folder: str | os.PathLike[str], report: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    """Write ``report.json``, ``report.npz`` (the arrays of the figures) and ``report.html``; return the page's path.

    The figures of the page are beside it, too, for slides and papers: ``figures/figure_1.svg`` and so on, in its order.

    Args:
        folder: made if it does not exist. Each file appears whole or not at all.
        report: plain data, see the module.
        arrays: the figures' arrays by name.

    Raises:
        FormatError: no page can be made of them; nothing is written then.
    """
    folder = Path(folder)
    held = {name: np.asarray(value) for name, value in arrays.items()}
    try:
        page = render(report, held)
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError) as error:
        raise FormatError(
            f"this report cannot be shown ({' '.join(str(error).split())[:200]}): it was damaged, or is not one that "
            "pdessl wrote. Run the command that wrote it again."
        ) from error
    packed = io.BytesIO()
    renamed: dict[str, Any] = {name.replace("/", "|"): value for name, value in held.items()}
    np.savez_compressed(packed, **renamed)
    write_bytes(folder / "report.npz", packed.getvalue())
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", page)
    figures = re.findall(r"<figure>(<svg.*?</svg>)", page, re.DOTALL)
    for number, drawn in enumerate(figures, 1):
        write_text(folder / "figures" / f"figure_{number}.svg", f'<?xml version="1.0" encoding="utf-8"?>\n{drawn}\n')
    for old in (folder / "figures").glob("figure_*.svg"):  # of a report with more of them
        if old.stem.removeprefix("figure_").isdigit() and int(old.stem.removeprefix("figure_")) > len(figures):
            old.unlink()
    return folder / "report.html"


def read_report(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read back what :func:`write_report` wrote.

    Raises:
        FormatError: the folder holds no report, or a damaged one.
    """
    folder = Path(folder)
    if not (folder / "report.json").is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise FormatError(f"{folder} holds no report.json ({held or 'empty'}). Give the folder of a finished run.")
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        arrays: dict[str, NDArray[Any]] = {}
        if (folder / "report.npz").is_file():
            stored = io.BytesIO((folder / "report.npz").read_bytes())
            with np.load(stored, allow_pickle=False) as packed:
                arrays = {name.replace("|", "/"): packed[name] for name in packed.files}
    except Exception as error:  # noqa: BLE001  (an archive can be damaged in as many ways as it has parts)
        raise FormatError(
            f"{folder}: the report cannot be read ({error}). Run the command that wrote it again."
        ) from None
    if not isinstance(report, dict):
        raise FormatError(f"{folder}/report.json holds a {type(report).__name__}, expected a mapping.")
    return report, arrays
