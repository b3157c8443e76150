"""A dataset under other splits: which runs serve as what, by run, file, group, value or share."""

# N trajectories of the dataset, n of a split

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdessl.data.lengths import named, parts_of
from pdessl.data.selection import Selection
from pdessl.data.source import Coordinates, Source
from pdessl.errors import DataError, did_you_mean

__all__ = ["Resplit", "more_labels", "resplit"]

_COMPARED: Mapping[str, Callable[[Any, float], Any]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: np.isclose(a, b, rtol=1e-9, atol=0),
}
_EXPECTED = (
    "a share (0.2), runs by number (3 or 0:10), a file (run_003.nc, or run_0*.nc), a group (group:4), a value "
    "(viscosity>0.01), or 'known' and 'unknown' (runs with and without a label)"
)


class Resplit(Source):
    """Some trajectories of another source, under splits of their own.

    Args:
        base: the source.
        chosen: split -> trajectories of one shape.
        rules: what chose them, in words.
    """

    def __init__(self, base: Source, chosen: Mapping[str, Selection], rules: Mapping[str, str]) -> None:
        self.base, self.chosen, self.rules = base, dict(chosen), dict(rules)
        for name in (
            "name", "format", "equation", "field_names", "axis_names", "boundary", "parameters", "constants", "units",
            "staggered", "warnings", "actuation",
        ):  # fmt: skip
            setattr(self, name, getattr(base, name))
        self.splits = {name: len(found) for name, found in self.chosen.items()}

    def shape(self, split: str) -> tuple[int, ...]:  # noqa: D102
        return self.chosen[self.known(split)].shape

    def groups(self, split: str) -> np.ndarray:  # noqa: D102
        return self.chosen[self.known(split)].groups()

    def parameter_values(self, split: str) -> dict[str, np.ndarray]:  # noqa: D102
        return self.chosen[self.known(split)].parameter_values()

    def coordinates(self, split: str, rows: np.ndarray) -> Coordinates:  # noqa: D102
        found = [(where, self.base.coordinates(name, inside)) for where, name, inside in self._located(split, rows)]
        order = np.argsort(np.concatenate([where for where, _ in found]))
        time, lengths = (np.concatenate([getattr(c, n) for _, c in found])[order] for n in ("time", "lengths"))
        space = [np.concatenate(nodes)[order] for nodes in zip(*(c.space for _, c in found), strict=True)]
        return Coordinates(time, tuple(space), lengths)

    def read(  # noqa: D102
        self, split: str, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]
    ) -> np.ndarray:
        found = [
            (where, self.base.read(name, inside, frames, space, channels))
            for where, name, inside in self._located(split, rows)
        ]
        order = np.argsort(np.concatenate([where for where, _ in found]))
        return np.concatenate([values for _, values in found])[order]

    def actions(self, split: str, rows: np.ndarray) -> np.ndarray | None:  # noqa: D102
        found = [(where, self.base.actions(name, inside)) for where, name, inside in self._located(split, rows)]
        held = [values for _, values in found if values is not None]
        if not held:
            return None
        return np.concatenate(held)[np.argsort(np.concatenate([where for where, _ in found]))]

    def _located(self, split: str, rows: np.ndarray) -> list[tuple[NDArray[np.int64], str, NDArray[np.int64]]]:
        chosen = self.chosen[self.known(split)]
        number, inside = chosen.split[rows], chosen.rows[rows]
        return [(w, chosen.splits[k], inside[w]) for k in np.unique(number) for w in (np.flatnonzero(number == k),)]


def resplit(source: Source, rules: Mapping[str, str | float], seed: int = 0) -> Resplit:
    """Return a source whose splits are those asked for.

    Args:
        source: the dataset.
        rules: split -> which runs: a share (0.2, of whole groups), runs by number in the order of ``pdessl inspect``
            (``3``, ``0:10``), files (a name, or a pattern with ``*``), a group (``group:4``), a value
            (``viscosity>0.01``), ``known`` or ``unknown`` (with and without a label). What no rule names is ``train``,
            or ``unlabelled`` where a split is called ``labelled``.
        seed: of shares.

    Raises:
        DataError: a rule that cannot be read or names nothing, runs that two rules name, or a group (runs of one file
            with one value) that a test or validation split cuts through.
    """
    whole = Selection.whole(source, [name for name, size in source.splits.items() if size])
    owner = np.full(len(whole), "", dtype=object)
    shares = {name: float(rule) for name, rule in rules.items() if _is_share(rule)}
    for name, rule in rules.items():
        if name in shares:
            continue
        those = _named(source, whole, str(rule), name)
        twice = [n for n in owner[those] if n]
        if twice:
            raise DataError(f"--split: a run is both in {twice[0]} and in {name} ({rule}). A run is in one split.")
        owner[those] = name
    groups = whole.groups()
    if sum(shares.values()) >= 1 and "labelled" not in shares:
        raise DataError(f"--split: the shares {shares} leave nothing to train on; their sum must be below 1.")
    for name, share in shares.items():
        free = np.unique(groups[owner == ""]).tolist()
        free.sort(key=lambda g: hashlib.sha256(f"{seed} {name} {g}".encode()).digest())
        wanted, held = share * len(whole), 0
        for group in free:
            if held >= wanted:
                break
            those = (groups == group) & (owner == "")
            owner[those], held = name, held + int(those.sum())
    rest = "unlabelled" if "labelled" in rules else "train"
    owner[owner == ""] = rest
    for group in np.unique(groups):
        inside = set(owner[groups == group])
        if len(inside) > 1 and inside & {"test", "validation"}:
            raise DataError(
                f"--split: group {group} (runs that share a file or a value) would be in "
                f"{' and '.join(sorted(inside))}, which leaks. Put whole groups into a split."
            )
    chosen: dict[str, Selection] = {}
    for name in dict.fromkeys((*rules, rest)):
        for number, part in enumerate(whole[np.flatnonzero(owner == name)].of_equal_shape()):
            if len(part):
                chosen[name if not number else named(name, part.shape[1])] = part
    return Resplit(source, chosen, {name: str(rule) for name, rule in rules.items()})


def more_labels(source: Source, path: str, labels: int) -> str:
    """Return what makes a dataset with so many labelled trajectories of one that has fewer, in words that may be typed.

    Args:
        source: a store or files.
        path: of it.
        labels: how many are wanted.
    """
    command, total = getattr(source, "command", None), len(source)
    if command is None or (getattr(source, "converted", False) and "labelled" not in source.splits):
        return "raise its share, e.g. splits: {labelled: 0.5}"
    command = command.replace(path, "ANOTHER_FOLDER")
    if not getattr(source, "converted", False):
        return f"generate more: {command} --size labelled={labels}"
    held = {n: sum(source.splits[part] for part in parts_of(n, source.splits)) for n in ("validation", "test")}
    kept = {name: count for name, count in held.items() if count}
    if labels + sum(kept.values()) > total:
        return f"label more files and convert them: {total} trajectories are all there are"
    shares = [
        f"{name}={math.ceil(1e4 * count / total) / 1e4:g}" for name, count in {**kept, "labelled": labels}.items()
    ]
    return f"convert with a larger share: {command} --split {','.join(shares)}"


def _is_share(rule: str | float) -> bool:
    return isinstance(rule, float) or bool(re.fullmatch(r"0?\.\d+|1\.0*", str(rule)))


def _named(source: Source, whole: Selection, rule: str, name: str) -> NDArray[np.int64]:
    """Return which trajectories a rule names."""
    compared = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=|==|<|>)\s*(\S+)\s*", rule)
    found: NDArray[np.bool_]
    if compared:
        values = whole.parameter_values()
        if compared[1] not in values:
            held = ", ".join(values) or "none"
            raise DataError(
                f"--split {name}={rule}: no parameter '{compared[1]}'.{did_you_mean(compared[1], values)} "
                f"Parameters: {held}."
            )
        try:
            found = _COMPARED[compared[2]](values[compared[1]], float(compared[3]))
        except ValueError:
            raise DataError(f"--split {name}={rule}: '{compared[3]}' is no number.") from None
    elif rule in ("known", "unknown"):
        values = list(whole.parameter_values().values())
        known = np.isfinite(np.stack(values)).any(axis=0) if values else np.zeros(len(whole), dtype=bool)
        found = known if rule == "known" else ~known
    elif group := re.fullmatch(r"group:(\d+)", rule):
        found = whole.groups() == int(group[1])
    elif cut := re.fullmatch(r"(\d*):(\d*)|(\d+)", rule):
        number = np.arange(len(whole))
        single = cut[3] is not None
        low, high = (int(cut[3]), int(cut[3]) + 1) if single else (int(cut[1] or 0), int(cut[2] or len(whole)))
        found = (number >= low) & (number < high)
    else:
        origins = getattr(source, "origins", None)
        if origins is None:
            raise DataError(f"--split {name}={rule}: expected {_EXPECTED}; files are named where there are several.")
        files = [file for split in whole.splits for file, _ in origins(split)]
        found = np.array([any(fnmatch.fnmatch(f, rule) for f in (file, Path(file).name)) for file in files])
    if not found.any():
        raise DataError(f"--split {name}={rule} names no run of {source.name}; expected {_EXPECTED}.")
    return np.flatnonzero(found)
