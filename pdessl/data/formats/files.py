"""A dataset of one or many files in an external layout."""

# N trajectories of a split, C channels, T frames, X space

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pdessl.data.formats.agreement import agree
from pdessl.data.formats.checks import check_axis_order
from pdessl.data.formats.collecting import LABELLED_SUFFIXES, collect, label_of
from pdessl.data.formats.container import Container
from pdessl.data.formats.explicit import explicit
from pdessl.data.formats.hdf5 import HDF5File, close_all
from pdessl.data.formats.labelled import LabelledFile, close_labelled
from pdessl.data.formats.mapping import SPLIT_WORDS, DatasetMapping
from pdessl.data.formats.meshgrid import meshgrid_mapping
from pdessl.data.formats.parameters import fixed_parameters
from pdessl.data.formats.part import Part
from pdessl.data.formats.pieces import Joined, join
from pdessl.data.formats.tables import give_labels
from pdessl.data.formats.well import well_mapping
from pdessl.data.lengths import named
from pdessl.data.memory import check_memory
from pdessl.data.source import Coordinates, Source
from pdessl.errors import DataError, FormatError

__all__ = ["Files", "container_of", "split_of"]

Held = tuple[Part | Joined, int, int]  # a part, and the first and last (exclusive) of its rows
_LOOKED_AT = 1000  # files of which the last frame is read when they are opened
SPLIT_ORDER = (*SPLIT_WORDS, "all")


def container_of(path: Path, layout: str | None = None) -> Container:
    """Return a file as a container, by what the mapping says or by its suffix."""
    labelled = layout == "labelled" if layout is not None else path.suffix.lower() in LABELLED_SUFFIXES
    return LabelledFile(path) if labelled else HDF5File(path)


def split_of(words: Iterable[str], splits: Mapping[str, Sequence[str]]) -> str | None:
    """Return the split that one of the words names, or None."""
    named = {word: split for split, known in splits.items() for word in known}
    return next((named[w.lower()] for w in words if w.lower() in named), None)


class Files(Source):
    """A dataset in an external layout.

    Args:
        path: what the user gave: a file, a folder or a list of files.
        mapping: how to read it, see :func:`pdessl.data.formats.load_mapping`.
        containers: files that are open already, instead of those of the path.

    Attributes, besides those of a source:
        mapping: the mapping; ``concrete`` is the same with all that files say themselves.
        path: the file or folder, None for a list.
        files: number of files; ``paths`` are theirs.
        stored_as: name of the array each field is read from.
        dropped: number of trajectories left out, by reason.

    The split of trajectories is that of the group they are in, else of the folder, else of a word in the file's name
    (never of the whole path); else all are in one split ``all``. A mapping with ``divide`` takes fractions of every
    file instead (of the files, in random order, where each is one run), whatever the names. Runs of a split that have
    another number of frames than most are a split of their own, ``all_27frames``: see :mod:`pdessl.data.lengths`.
    A parameter that some files lack is not a number (NaN) there: their runs have no label.

    Raises:
        FormatError: no file, or files that do not fit the mapping or each other.
        DataError: coordinates are missing or irregular.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        mapping: DatasetMapping,
        containers: Sequence[Container] | None = None,
    ) -> None:
        self.mapping = mapping
        single = isinstance(path, (str, os.PathLike))
        self.name = label_of([path] if single else path)
        if containers is None:
            files = collect(path, mapping.get("files", ()) if not single or Path(path).is_dir() else ())
            containers = [container_of(file, mapping.layout) for file in files]
        self.files = len(containers)
        self.paths = tuple(c.path for c in containers if c.path is not None)
        self.path = Path(path) if single else None
        self.format = mapping.format
        try:
            parts = [part for container in containers for part in self._parts(container)]
            held = _frames_held(parts, mapping)  # while they are open: opening a small file takes longer than that
        finally:  # an open file would keep its owner from writing it
            close_all()
            close_labelled()
        if not any(part.count for part in parts):
            left_out = " ".join(w for part in parts for w in part.warnings if part.dropped)
            raise FormatError(
                f"{self.name}: no trajectories in {self.files} files. {left_out or 'Check group in the mapping.'}"
            )
        units, told = agree(parts, mapping)
        give_labels(parts, mapping, units)
        _complete_labels(parts, mapping)
        parts, joined = join(parts, mapping)
        parts, ends = _ended(parts, held)
        self._parts_of = _by_length(self._sorted(parts))
        self._describe(parts, units, [*told, *joined, *ends])
        if velocity := tuple(mapping.get("divergence_free", ())):
            check_axis_order(self, velocity)

    # ------------------------------------------------------------------------------ opening

    def _splits(self) -> Mapping[str, Sequence[str]]:
        return self.mapping.get("splits") or SPLIT_WORDS

    def _parts(self, container: Container) -> list[Part]:
        mapping, splits = self.mapping, self._splits()
        group = mapping.get("group", "")
        outside = self._split_by_name(container.path)
        if group == "{split}":
            names = [n for n in container.groups() if split_of([n], splits)] if isinstance(container, HDF5File) else []
            if not names:
                raise FormatError(
                    f"{container.label} has no group named after a split "
                    f"({', '.join(w for s in splits.values() for w in s)})"
                    f". {container.held()} Name the group in the mapping:  group: NAME"
                )
            prefixes = [(split_of([n], splits) or "all", [f"{n}/"]) for n in names]
        elif group == "{trajectory}":
            names = container.groups() if isinstance(container, HDF5File) else []
            if not names:
                raise FormatError(f"{container.label} has no groups, expected one per trajectory. {container.held()}")
            prefixes = [(outside or "all", [f"{n}/" for n in names])]
        else:
            prefixes = [(outside or "all", [f"{group}/" if group else ""])]
        result = []
        for split, names in prefixes:
            concrete = _concrete(container, mapping, names[0])
            result.append(Part(container, concrete, split, names, several=group == "{trajectory}"))
        return result

    def _split_by_name(self, path: Path | None) -> str | None:
        """Return the split a file belongs to by its folder (within the path given) or a word in its name."""
        # PDEBench keeps everything in folders and files called Train, and divides it on reading.
        if path is None or "divide" in self.mapping.content:
            return None
        folders = path.parent.parts[::-1]
        if self.path is not None and path.is_relative_to(self.path) and path != self.path:
            folders = path.parent.relative_to(self.path).parts[::-1] + (self.path.name,)
        folder = split_of(folders[:1], self._splits())
        return folder or split_of(re.split(r"[_\-. ]", path.stem)[::-1], self._splits())

    def _sorted(self, parts: Sequence[Part | Joined]) -> dict[str, list[Held]]:
        """Return per split the parts with the rows of each that belong to it, (part, start, stop)."""
        divide: Mapping[str, float] = self.mapping.get("divide", {})
        if divide:
            result: dict[str, list[Held]] = {name: [] for name in divide}
            if len(parts) > 1 and all(part.count == 1 for part in parts):
                order = np.random.default_rng(0).permutation(len(parts))  # files are often sorted by a parameter
                edges = np.round(np.cumsum([0.0, *divide.values()]) * len(parts)).astype(int)
                for name, start, stop in zip(divide, edges[:-1], edges[1:], strict=True):
                    result[name] = [(parts[i], 0, 1) for i in sorted(order[start:stop].tolist())]
                return {name: held for name, held in result.items() if held}
            for part in parts:
                edges = np.round(np.cumsum([0.0, *divide.values()]) * part.count).astype(int)
                for name, start, stop in zip(divide, edges[:-1], edges[1:], strict=True):
                    if stop > start:
                        result[name].append((part, int(start), int(stop)))
            return {name: held for name, held in result.items() if held}
        names = sorted({p.split for p in parts}, key=lambda n: SPLIT_ORDER.index(n) if n in SPLIT_ORDER else 99)
        return {name: [(p, 0, p.count) for p in parts if p.split == name and p.count] for name in names}

    def _describe(self, parts: Sequence[Part | Joined], units: Mapping[str, str], warnings: list[str]) -> None:
        first, mapping = parts[0], parts[0].mapping
        self.concrete = mapping
        self.equation = self.mapping.get("equation") or mapping.get("equation")
        self.field_names, self.axis_names, self.boundary = tuple(mapping.fields), first.axes, first.boundary
        self.splits = {name: sum(stop - start for _, start, stop in held) for name, held in self._parts_of.items()}
        self.parameters = tuple(first.parameters)
        self.constants = {n: v for n, v in fixed_parameters(mapping).items() if n in self.parameters}
        self.units = dict(units)
        centred = self.mapping.get("staggering") == "centred"
        self.staggered = {n: r.staggered for n, r in mapping.fields.items() if r.staggered and not centred}
        self.stored_as = {n: r.dataset for n, r in mapping.fields.items()}
        self.dropped: dict[str, int] = {}
        for part in parts:
            for reason, number in part.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + number
        warnings += [w for part in parts for w in part.warnings]
        self._shapes = {name: self._shape(held) for name, held in self._parts_of.items()}
        self.warnings = tuple(dict.fromkeys([*self.mapping.get("faults", ()), *mapping.get("faults", ()), *warnings]))
        self._groups = self._number(parts)
        self._values = {
            name: {n: np.concatenate([p.parameters[n][a:b] for p, a, b in held]) for n in self.parameters}
            for name, held in self._parts_of.items()
        }
        self._starts = {
            name: np.cumsum([0, *(stop - start for _, start, stop in held)]) for name, held in self._parts_of.items()
        }

    def _shape(self, held: Sequence[Held]) -> tuple[int, ...]:
        first = held[0][0]
        for part, _, _ in held:
            if part.shape[2:] != first.shape[2:]:
                raise FormatError(
                    f"{part.label} has {'x'.join(map(str, part.shape[2:]))} nodes, {first.label} has "
                    f"{'x'.join(map(str, first.shape[2:]))}. Open them apart, or resample one."
                )
        return first.shape

    def _number(self, parts: Sequence[Part | Joined]) -> dict[str, np.ndarray]:
        """Return the group of every trajectory of every split; see :meth:`pdessl.data.source.Source.groups`."""
        rule = self.mapping.get("group_by")
        if rule is None:
            one = all(len(np.unique(v)) < 2 for p in parts for v in p.parameters.values())
            rule = "file" if len(parts) > 1 and parts[0].parameters and one else "trajectory"
        order = {id(part): number for number, part in enumerate(parts)}
        starts = np.cumsum([0, *(p.count for p in parts)])
        result = {}
        for name, held in self._parts_of.items():
            numbers = []
            for part, start, stop in held:
                rows = np.arange(start, stop)
                if rule == "file":
                    numbers.append(np.full(len(rows), order[id(part)]))
                elif rule == "index":
                    numbers.append(part.rows(rows))
                else:
                    numbers.append(starts[order[id(part)]] + rows)
            result[name] = np.concatenate(numbers).astype(np.int64) if numbers else np.zeros(0, dtype=np.int64)
        return result

    # ------------------------------------------------------------------------------ reading

    def probe(self, arrays: int) -> None:
        """Read the first and the last value of so many arrays that HDF5 has to unpack.

        Raises:
            FormatError: one of them is damaged.
        """
        parts = [piece for held in self._parts_of.values() for part, _, _ in held for piece in part.pieces]
        for part, name in itertools.islice(((p, n) for p in parts for n in p.unpacked()), arrays):
            part.probe(name)

    def mapped(self, split: str) -> bool:  # noqa: D102
        part = self._parts_of[self.known(split)][0][0]
        names = {part.prefixes[0] + channel.dataset for channel in part.channels}
        return isinstance(part.container, HDF5File) and all(map(part.container.mapped, names))

    def read_windows(  # noqa: D102
        self,
        split: str,
        rows: np.ndarray,
        starts: np.ndarray,
        sizes: tuple[int, ...],
        stride: int,
        channels: Sequence[int],
        out: np.ndarray,
        places: np.ndarray,
    ) -> bool:
        finite = True
        for where, part, inside in self._located(split, rows):
            begin, place, arrays = starts[where], places[where], part.plain(channels)
            if arrays is None:
                finite &= super().read_windows(split, rows[where], begin, sizes, stride, channels, out, place)
                continue
            for number, array in enumerate(arrays):
                finite &= array.read_windows(part.rows(inside), begin, sizes, stride, out[:, number], place)
        return finite

    def shape(self, split: str) -> tuple[int, ...]:  # noqa: D102
        return self._shapes[self.known(split)]

    def groups(self, split: str) -> np.ndarray:  # noqa: D102
        return self._groups[self.known(split)]

    def parameter_values(self, split: str) -> dict[str, np.ndarray]:  # noqa: D102
        return dict(self._values[self.known(split)])

    def counts(self, split: str) -> list[int]:
        """Return how many trajectories of a split each file has."""
        found: dict[int, int] = {}
        for part, start, stop in self._parts_of[self.known(split)]:
            found[id(part.container)] = found.get(id(part.container), 0) + stop - start
        return list(found.values())

    def origins(self, split: str) -> list[tuple[str, int]]:
        """Return the file of each trajectory of a split, and its number there."""
        found = []
        for part, start, stop in self._parts_of[self.known(split)]:
            label = str(part.container.path or part.container.label)
            found += [(label, int(row)) for row in part.rows(np.arange(start, stop))]
        return found

    def _located(self, split: str, rows: np.ndarray) -> Iterable[tuple[np.ndarray, Part | Joined, np.ndarray]]:
        """Yield (positions in rows, part, rows of the part)."""
        starts = self._starts[split]
        number = np.searchsorted(starts, rows, side="right") - 1
        for i in np.unique(number):
            part, start, _ = self._parts_of[split][i]
            where = np.flatnonzero(number == i)
            yield where, part, rows[where] - starts[i] + start

    def coordinates(self, split: str, rows: np.ndarray) -> Coordinates:  # noqa: D102
        _, frames, *points = self._shapes[split]
        time = np.empty((len(rows), frames))
        space = tuple(np.empty((len(rows), n)) for n in points)
        lengths = np.empty((len(rows), len(points)))
        for where, part, inside in self._located(split, rows):
            stored = part.rows(inside)
            time[where] = part.time.rows(stored)
            for axis, nodes in enumerate(part.space):
                space[axis][where] = nodes.rows(stored)
                lengths[where, axis] = nodes.lengths(stored, part.boundary[axis])
        return Coordinates(time, space, lengths)

    def read(  # noqa: D102
        self, split: str, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]
    ) -> np.ndarray:
        pieces = list(self._located(split, rows))
        frames = slice(*frames.indices(self._shapes[split][1]))
        if len(pieces) == 1:
            return pieces[0][1].read(pieces[0][2], frames, space, channels)
        cut = [len(range(*c.indices(n))) for c, n in zip((frames, *space), self._shapes[split][1:], strict=True)]
        shape, dtype = (len(rows), len(channels), *cut), pieces[0][1].dtype
        check_memory(math.prod(shape) * dtype.itemsize, f"{self.name}: reading {len(rows)} trajectories at once")
        out = np.empty(shape, dtype)
        for where, part, inside in pieces:
            out[where] = part.read(inside, frames, space, channels)
        return out


def _complete_labels(parts: Sequence[Part], mapping: DatasetMapping) -> None:
    """Give every part all parameters that some have; what its file lacks is not a number.

    Raises:
        DataError, FormatError: a parameter that the mapping names and no file has.
    """
    names = dict.fromkeys(name for part in parts for name in part.parameters)
    for name, why in parts[0].lacking.items():
        if name not in names:
            raise DataError(why) if mapping.layout == "labelled" else FormatError(why)
    for part in parts:
        part.parameters = {n: part.parameters.get(n, np.full(part.count, np.nan)) for n in names}


def _frames_held(parts: Sequence[Part], mapping: DatasetMapping) -> dict[int, int]:
    """Return after how many frames nothing was written, by the id of the part; empty where that is not asked."""
    if mapping.layout != "labelled" or "missing" in mapping.content or not 3 <= len(parts) <= _LOOKED_AT:
        return {}
    if not all(p.count == 1 and not p.several and p.shape[1] > 2 for p in parts):
        return {}
    return {id(part): part.frames_held() for part in parts}


def _ended(parts: Sequence[Part | Joined], held: Mapping[int, int]) -> tuple[list[Part | Joined], list[str]]:
    """Leave off the frames after which nothing was written, where every file is a run and most are complete."""
    able = [p for p in parts if isinstance(p, Part) and id(p) in held]
    if not 3 <= len(able) == len(parts):
        return list(parts), []
    early = [part for part in able if 2 <= held[id(part)] < part.shape[1]]
    if not early or 2 * len(early) >= len(able):
        return list(parts), []
    told = ", ".join(f"{p.label} after {held[id(p)]} of {p.shape[1]} frames" for p in early[:3])
    more = f" and {len(early) - 3} more" if len(early) > 3 else ""
    cut = {id(part): part.limited(held[id(part)]) for part in early}
    return [cut.get(id(p), p) for p in parts], [
        f"{len(early)} of {len(parts)} runs end early, and hold no value afterwards: {told}{more}. They are read up to "
        "there; to leave them out say so in the mapping:  missing: drop"
    ]


def _by_length(splits: Mapping[str, list[Held]]) -> dict[str, list[Held]]:
    """Make runs of a split that have another number of frames than most a split of their own."""
    result: dict[str, list[Held]] = {}
    for split, held in splits.items():
        runs: dict[int, int] = {}
        for part, start, stop in held:
            runs[part.shape[1]] = runs.get(part.shape[1], 0) + stop - start
        most = max(runs, key=lambda frames: (runs[frames], frames), default=0)
        for frames in sorted(runs, key=lambda frames: (frames != most, -frames)):
            name = split if frames == most else named(split, frames)
            result[name] = [entry for entry in held if entry[0].shape[1] == frames]
        if not held:
            result[split] = []
    return result


def _concrete(container: Container, mapping: DatasetMapping, prefix: str) -> DatasetMapping:
    """Return the mapping with everything explicit that a self-describing file says itself."""
    if mapping.layout == "well":
        return well_mapping(container, mapping)
    if mapping.layout == "meshgrid":
        return meshgrid_mapping(container, mapping, prefix)
    if mapping.layout == "labelled":
        return explicit(container, mapping)
    return mapping
