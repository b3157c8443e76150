"""Which runs of a dataset to label next, as a table to fill in; and what each way of choosing buys."""

# n runs, D feature width

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdessl.data import open as open_data
from pdessl.data.formats.files import Files
from pdessl.data.lengths import parts_of, split_of_part
from pdessl.data.source import Source
from pdessl.errors import DataError
from pdessl.evaluation.metrics import error_in_percent
from pdessl.evaluation.tables import measured
from pdessl.experiments.inputs import read_encoder
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.files import replacing, write_json
from pdessl.inference.encoding import features, gives_codes
from pdessl.inference.labelling import ACQUISITIONS, next_to_label
from pdessl.inference.readouts import fit_estimator
from pdessl.written import cell, say

__all__ = ["Labelling", "compare_labelling", "label_next"]

_COLUMNS = ("run", "value")
_PIECE = 256
_POOL = 0.5  # share of the labelled runs that a seed may choose from


@dataclass(frozen=True)
class Labelling:
    """Runs to label next, the first to label first.

    Args:
        runs: file (of a store, split) of each, and its number there.
        by: how they were chosen.
        of: number of runs they were chosen from.
    """

    runs: Sequence[tuple[str, int]]
    by: str
    of: int

    def __str__(self) -> str:
        """Return them as text, one a line."""
        return "\n".join([f"{len(self.runs)} of {self.of} runs, {ACQUISITIONS[self.by]}:",
                          *(f"  {name}  run {row}" for name, row in self.runs)])  # fmt: skip


def _parts(source: Source, split: str | None) -> list[str]:
    """Return what is chosen from: a split with its parts of other lengths, or the default one."""
    if split is not None:
        return parts_of(source.known(split), source.splits)
    there = [name for name, count in source.splits.items() if count]
    waiting = [name for name in there if split_of_part(name) == "unlabelled"]
    return waiting or [name for name in there if split_of_part(name) not in ("validation", "test")] or there


def _read(source: Source, parts: Sequence[str], encoder: Any) -> tuple[Tensor, list[tuple[str, int]]]:
    """Return features (n, D) of the runs of some splits, and where each run is."""
    rows, places = [], []
    for part in parts:
        for start in range(0, source.splits[part], _PIECE):
            cut = slice(start, min(start + _PIECE, source.splits[part]))
            runs = source.load(part, cut).without_parameters(())
            rows.append(features(encoder, runs))
            if isinstance(source, Files):
                places += source.origins(part)[cut]
            else:
                places += [(part, row) for row in range(cut.start, cut.stop)]
    if not rows:
        told = ", ".join(f"{name} {count}" for name, count in source.splits.items())
        raise DataError(f"{source.name}: no runs to choose from in {', '.join(parts)}. Runs by split: {told}.")
    return torch.cat(rows), places


def _filled(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and filled rows of a table that was written before.

    Raises:
        DataError: another table.
    """
    if not table.exists():
        return list(_COLUMNS), []
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restkey="", restval="")
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as a table: {error}. Choose another name.") from None
    if not set(_COLUMNS) <= set(columns) or any("" in row for row in rows):
        raise DataError(
            f"{table}: columns {', '.join(columns)}; expected run and value, of runs that were labelled: such a table "
            "is added to. Choose another name."
        )
    return columns, [row for row in rows if row["value"].strip()]


def _known(places: Sequence[tuple[str, int]], rows: Sequence[Mapping[str, str]]) -> Tensor:
    """Return numbers of the runs that a table has values of; files are also known by name, as ``regress`` has it."""
    told = {row["run"].strip() for row in rows}
    names = [(name, Path(name).name, Path(name).stem) for name, _ in places]
    return torch.tensor(
        [i for i, (_, row) in enumerate(places) if any(cell(f"{name}:{row}") in told for name in names[i])],
        dtype=torch.long,
    )


def label_next(
    encoder: Any,
    data: str | os.PathLike[str],
    count: int,
    by: str = "random",
    *,
    split: str | None = None,
    mapping: Any = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> Labelling:
    """Return the unlabelled runs of a dataset to label next.

    Args:
        encoder: folder of a pretrained encoder, a law or a saved model, or one itself.
        data: a store, or files of any layout that :func:`pdessl.open` reads.
        count: how many.
        by: a word of :data:`pdessl.inference.labelling.ACQUISITIONS`.
        split: that is chosen from; default ``unlabelled`` where it holds runs, else all but validation and test.
        mapping: how files are read.
        seed: of ways by chance.
        out: CSV file with columns ``run`` (``FILE:NUMBER``, or ``SPLIT:NUMBER`` of a store) and ``value``, to fill in;
            of files it is what ``pdessl regress --labels`` reads. A table that is there is added to: rows with a
            value stay and their runs are labelled ones, rows without make room for the new ones.

    Raises:
        DataError: too many runs, another way, or another table in the place of ``out``.
        CheckpointError: no encoder there.
    """
    network, _ = read_encoder(encoder)
    source = open_data(data, mapping)
    columns, filled = _filled(Path(out)) if out is not None else ([], [])
    rows, places = _read(source, _parts(source, split), network)
    labelled = _known(places, filled)
    chosen = next_to_label(rows, count, by, labelled, seed=seed)
    found = Labelling([places[row] for row in chosen.tolist()], by, len(places) - len(labelled))
    if out is not None:
        with replacing(Path(out)) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            writer.writerows([*filled, *({"run": cell(f"{name}:{row}")} for name, row in found.runs)])
    return found


def compare_labelling(
    encoder: Any,
    data: str | os.PathLike[str],
    target: str,
    counts: Sequence[int],
    ways: Sequence[str] = tuple(ACQUISITIONS),
    *,
    seeds: int = 5,
    mapping: Any = None,
    out: str | os.PathLike[str] | None = None,
    announce: Callable[[str], None] = say,
) -> list[dict[str, Any]]:
    """Measure what every way of choosing buys: error on the test runs of a readout fitted on the chosen ones.

    Each seed may choose from another random half of the split ``labelled``, the same half for all ways. The readout is
    a ridge on the features, or of a law the best of :func:`pdessl.inference.readouts.fit_estimator`.

    Args:
        encoder: as in :func:`label_next`.
        data: likewise, with labelled splits ``labelled`` and ``test``.
        target: name of the parameter.
        counts: numbers of runs to label, each >= 3.
        ways: words of :data:`pdessl.inference.labelling.ACQUISITIONS`.
        seeds: how many, >= 1.
        mapping: how files are read.
        out: folder for ``report.json``.
        announce: receives a line per way and count.

    Raises:
        DataError: no such labels, or numbers out of range.
    """
    network, _ = read_encoder(encoder)
    source = open_data(data, mapping)
    if seeds < 1 or not counts or min(counts) < 3:
        raise DataError(f"seeds {seeds}, counts {list(counts)}: expected one seed or more, and counts of 3 or more.")
    if out is not None:
        check_writable(Path(out))
    held = {}
    for split in ("labelled", "test"):
        labels = source.parameter_values(source.known(split)).get(target)
        if labels is None:
            raise DataError(f"{source.name}: the runs of '{split}' have no '{target}'; comparing needs labels of them.")
        held[split] = _read(source, _parts(source, split), network)[0], torch.from_numpy(labels)
    (x, y), (queries, truth) = held["labelled"], held["test"]
    log = bool((y > 0).all() and (truth > 0).all())
    scaled, kind = (y.log() if log else y), "best" if gives_codes(network) else "ridge"
    rows = []
    for way in ways:
        for count in counts:
            errors = []
            for seed in range(seeds):
                half = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: int(_POOL * len(x))]
                chosen = half[next_to_label(x[half], count, way, seed=seed)]
                fitted = fit_estimator(x[chosen], scaled[chosen], kind, "constant", "log" if log else "linear")
                predicted = torch.from_numpy(fitted.predict(queries))
                errors.append(float(error_in_percent(predicted.exp() if log else predicted, truth)))
            row = {"method": ACQUISITIONS[way], "way": way, "labels": count, "relative_error": measured(errors)}
            rows.append(row)
            announce(f"{way}, {count} labels: {row['relative_error']['mean']:.2f} %")
    if out is not None:
        write_json(Path(out) / "report.json", {"rows": rows, "versions": versions(), "machine": machine()})
    return rows
