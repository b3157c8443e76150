"""The trajectories of one split in one file, read piece by piece as a mapping says."""

# n trajectories of the file, C channels, T frames, X space, d space axes

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pdessl.data.arrays import FileArray
from pdessl.data.formats.channels import Channel, channel_of, sizes_of
from pdessl.data.formats.container import Container
from pdessl.data.formats.hdf5 import HDF5File
from pdessl.data.formats.mapping import DatasetMapping, ParameterRule
from pdessl.data.formats.nodes import Nodes, evaluate
from pdessl.data.formats.transform import TRANSFORMS, to_centres
from pdessl.data.memory import check_memory
from pdessl.errors import DataError, FormatError

__all__ = ["Part"]

SCAN_BYTES = 64 << 20
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"


class Part:
    """The trajectories of one split in one file.

    Args:
        container: the file.
        mapping: how its arrays are to be read; every key explicit.
        split: name of the split.
        prefixes: one prefix of the names of its arrays (``train/``), or one per trajectory where every run has a group.
        several: several groups, each a trajectory.

    Attributes:
        count: number of trajectories n, those left out not counted.
        shape: (C, T, *X).
        dtype: type of the values read.
        parameters: ``{name: values}``, each (n,), float64.
        dropped: number of trajectories left out, by reason.
        warnings: what is odd about this file.

    Raises:
        FormatError: an array is missing, or arrays do not fit each other.
        DataError: a coordinate is missing or irregular.
    """

    def __init__(
        self, container: Container, mapping: DatasetMapping, split: str, prefixes: Sequence[str], several: bool = False
    ) -> None:
        self.container, self.mapping, self.split = container, mapping, split
        self.prefixes, self.several = list(prefixes), several
        self.axes = mapping.axes
        name = container.path.name if container.path else ""
        is_open = any(fnmatch.fnmatch(name, pattern) for pattern in mapping.get("open_files", ()))
        self.boundary = tuple("window" if is_open else mapping.boundary.get(a, "window") for a in self.axes)
        self.warnings: list[str] = []
        self.dropped: dict[str, int] = {}
        self.channels = tuple(
            channel_of(container, mapping, rule, self.prefixes[0], several) for rule in mapping.fields.values()
        )
        sizes = sizes_of(container, self.channels, self.prefixes[0], self.axes)
        self.stored = len(self.prefixes) if several else sizes.get("trajectory", 1)
        first = self.prefixes[0]
        self.time = evaluate(mapping.time, container, first, "time", self.stored, sizes["time"])
        self.space: list[Nodes] = []
        for axis, rule in mapping.space.items():
            nodes = evaluate(rule, container, first, axis, self.stored, sizes[axis])
            if rule.end == "repeated" or (rule.end == "measured" and self._repeats(axis, sizes)):
                nodes = nodes.without_last()
                if rule.end == "measured":
                    self.warnings.append(f"the last node of axis {axis} repeats the first; it is left out.")
            self.space.append(nodes)
        self.shape = (len(self.channels), sizes["time"], *(s.values.shape[1] for s in self.space))
        self.dtype = self._dtype()
        self.keep: np.ndarray | None = None
        self.parameters = self._parameters()
        self._leave_out()

    @property
    def label(self) -> str:
        """What messages call the file."""
        return self.container.label

    @property
    def count(self) -> int:
        """Number of trajectories."""
        return self.stored if self.keep is None else len(self.keep)

    # ------------------------------------------------------------------------------ taking the file apart

    def _dtype(self) -> np.dtype:
        found = []
        for channel in self.channels:
            dtype = self.container.array(self.prefixes[0] + channel.dataset).dtype
            integer = dtype.kind in "iu" and self.mapping.get("integers") == "convert"
            if dtype.kind != "f" and not integer:
                raise FormatError(
                    f"{self.label}: '{channel.dataset}' holds {dtype}, expected floating-point numbers."
                    + (" To convert integers, say so in the mapping:  integers: convert" if dtype.kind in "iu" else "")
                )
            found.append(dtype if dtype.kind == "f" else np.dtype(self.mapping.get("dtype", np.float64)))
        return np.dtype(self.mapping.get("dtype") or np.result_type(*found)).newbyteorder("=")

    def _repeats(self, axis: str, sizes: dict[str, int]) -> bool:
        """Say whether the last node of an axis holds what the first does, in all frames of the first trajectory."""
        channel = next(c for c in self.channels if axis in c.roles)
        ends = []
        for node in (0, sizes[axis] - 1):
            cuts = {"trajectory": slice(0, 1), axis: slice(node, node + 1)}
            ends.append(self._array(self.prefixes[0], channel, cuts))
        scale = max(float(np.abs(ends[0]).max()), np.finfo(np.float32).tiny)
        return bool(np.abs(ends[0] - ends[1]).max() <= 1e-5 * scale)

    # ------------------------------------------------------------------------------ parameters

    def _parameters(self) -> dict[str, np.ndarray]:
        found = {}
        for name, rule in self.mapping.parameters.items():
            values = self._parameter(name, rule)
            if values is not None:
                found[name] = values * rule.scale if rule.scale != 1.0 else values
        return found

    def _parameter(self, name: str, rule: ParameterRule) -> np.ndarray | None:
        where = f"{self.label}: parameter '{name}'"
        named = _after_token(rule.token, self.container.path) if rule.token else None
        if rule.dataset is not None:
            try:
                values = np.array([self._number(p + rule.dataset, where) for p in self.prefixes], dtype=object)
            except FormatError:
                if not rule.optional:
                    raise
                return None
            return np.concatenate(
                [np.broadcast_to(v, (1,) if self.several else (self.stored,)) for v in values]
            ).astype(np.float64)
        value = None if rule.attribute is None else self._attribute(rule, where)
        if isinstance(value, np.ndarray):
            return value
        if value is None:
            value = named
        elif named is not None and abs(named - value) > 1e-6 * abs(value):
            self.warnings.append(
                f"{self.label}: attribute {rule.attribute} is {value:g}, the file's name says {named:g}; the "
                f"attribute is "
                f"taken."
            )
        value = rule.value if value is None else value
        if value is None:
            if rule.optional:
                return None
            looked = [f"attribute '{rule.attribute}'"] if rule.attribute else []
            looked += [f"line '{rule.entry}: NUMBER' in it"] if rule.entry else []
            looked += [f"'{rule.token}' in the file's name"] if rule.token else []
            raise FormatError(
                f"{where}: found no {' and no '.join(looked) or 'rule'}. Give it in the mapping:  "
                f"parameters: {{{name}: {{value: 0.01}}}}"
            )
        return np.full(self.stored, float(value))

    def _attribute(self, rule: ParameterRule, where: str) -> float | np.ndarray | None:
        """Return the number an attribute holds; with a group per run one per run, where the groups have it."""
        if self.several:
            places = [self.container.attributes(prefix + rule.of) for prefix in self.prefixes]
            found = [_number_in(held.get(rule.attribute), rule, where) for held in places]
            if None not in found:
                return np.array(found, dtype=np.float64)
        return _number_in(self.container.attributes(rule.of).get(rule.attribute), rule, where)

    def _number(self, name: str, where: str) -> np.ndarray:
        array = self.container.array(name)
        if array.dtype.kind not in "fiu" or tuple(n for n in array.shape if n != 1) not in ((), (self.stored,)):
            raise FormatError(
                f"{where}: '{name}' is {array.dtype} {array.shape}, expected one number or one per trajectory "
                f"({self.stored},)."
            )
        return self.container.read(name).astype(np.float64).reshape(-1)

    # ------------------------------------------------------------------------------ leaving out

    def _leave_out(self) -> None:
        """Leave out trajectories whose solver failed, or that hold NaN where the mapping says so."""
        bad = np.zeros(self.stored, dtype=bool)
        if self.mapping.get("failed") == "zeros":
            bad |= self._count("zero throughout: their solver failed", self._zero())
        if self.mapping.get("missing") == "drop":
            bad |= self._count("not finite", self._not_finite())
        if bad.any():
            self.keep = np.flatnonzero(~bad)
            self.parameters = {n: v[self.keep] for n, v in self.parameters.items()}

    def _count(self, reason: str, bad: np.ndarray) -> np.ndarray:
        if bad.any():
            self.dropped[reason] = int(bad.sum())
            self.warnings.append(
                f"{self.label}: {int(bad.sum())} of {self.stored} trajectories of split {self.split} are {reason}. "
                f"They "
                f"are left out (first: number {int(bad.argmax())} in the file)."
            )
        return bad

    def _zero(self) -> np.ndarray:
        whole = tuple(slice(None) for _ in self.axes)
        bad = np.zeros(self.stored, dtype=bool)
        for rows in self._blocks(1):
            first = self._values(rows, slice(0, 1), whole, raw=True)
            bad[rows] = ~first.reshape(len(rows), -1).any(axis=1)
        for row in np.flatnonzero(bad):
            bad[row] = not self._values(np.array([row]), slice(None), whole, raw=True).any()
        return bad

    def _not_finite(self) -> np.ndarray:
        whole = tuple(slice(None) for _ in self.axes)
        bad = np.zeros(self.stored, dtype=bool)
        for rows in self._blocks(self.shape[1]):
            values = self._values(rows, slice(None), whole, raw=True)
            bad[rows] = ~np.isfinite(values).reshape(len(rows), -1).all(axis=1)
        return bad

    def _blocks(self, frames: int) -> Iterator[np.ndarray]:
        size = self.dtype.itemsize * frames * int(np.prod(self.shape)) // self.shape[1]
        step = max(1, SCAN_BYTES // max(size, 1))
        return (np.arange(i, min(i + step, self.stored)) for i in range(0, self.stored, step))

    # ------------------------------------------------------------------------------ reading

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers that trajectories have in the file."""
        return rows if self.keep is None else self.keep[rows]

    def unpacked(self) -> Iterator[str]:
        """Yield the names of the arrays of channels that are not mapped from a plain run of the file."""
        for prefix in self.prefixes:
            for name in dict.fromkeys(prefix + channel.dataset for channel in self.channels):
                if not (isinstance(self.container, HDF5File) and self.container.mapped(name)):
                    yield name

    def probe(self, name: str) -> None:
        """Read the first and the last value of an array."""
        sizes = self.container.array(name).shape
        for corner in ([0] * len(sizes), [n - 1 for n in sizes]):
            self.container.read(name, [slice(i, i + 1) for i in corner])

    def plain(self, channels: Sequence[int]) -> list[FileArray] | None:
        """Return the arrays of channels that are stored as they are read, (n, T, *X) each; None if one is not."""
        chosen = [self.channels[number] for number in channels]
        order = ("trajectory", "time", *self.axes)
        if self.several or not isinstance(self.container, HDF5File):
            return None
        if any(c.roles != order or c.rule.transform is not None or c.rule.scale != 1.0 for c in chosen):
            return None
        if self._centred and any(c.rule.staggered is not None for c in chosen):
            return None
        return [self.container.place(self.prefixes[0] + c.dataset) for c in chosen]

    def read(self, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]) -> np.ndarray:
        """Read values, shape (len(rows), len(channels), t, *x); see :meth:`pdessl.data.source.Source.read`.

        Raises:
            DataError: values that are not finite; the message names the trajectory.
        """
        values = self._values(self.rows(rows), frames, space, channels)
        if not np.isfinite(values).all():
            row, channel, frame = np.argwhere(~np.isfinite(values))[0][:3]
            name = list(self.mapping.fields)[channels[channel]]
            raise DataError(
                f"{self.label}: field '{name}' is not finite in trajectory {int(rows[row])} of split "
                f"'{self.split}', frame "
                f"{(frames.start or 0) + int(frame) * (frames.step or 1)}. Repair the file, or leave such "
                f"trajectories out "
                f"with  missing: drop  in the mapping."
            )
        return values

    def _values(
        self,
        rows: np.ndarray,
        frames: slice,
        space: tuple[slice, ...],
        channels: Sequence[int] | None = None,
        raw: bool = False,
    ) -> np.ndarray:
        """Read stored rows; ``raw``: without transforms, for finding failed trajectories."""
        channels = range(len(self.channels)) if channels is None else channels
        asked = zip(("time", *self.axes), (frames, *space), self.shape[1:], strict=True)
        cuts = {name: slice(*cut.indices(n)) for name, cut, n in asked}
        sizes = [len(range(cut.start, cut.stop, cut.step)) for cut in cuts.values()]
        shape = (len(rows), len(channels), *sizes)
        check_memory(int(np.prod(shape, dtype=object)) * self.dtype.itemsize, f"{self.label}: reading {shape} values")
        out = np.empty(shape, dtype=self.dtype)
        for start, stop, prefix, block in self._runs(rows):
            place = slice(start, stop)
            for names, together in self._by_array(channels):
                pieces = self._pieces(prefix, together, cuts | {"trajectory": block}, rows[place], raw)
                # What does not fit into the type asked for becomes infinite, and is refused as such.
                with np.errstate(over="ignore", invalid="ignore"):
                    for position, piece in zip(names, pieces, strict=True):
                        out[place, position] = piece
        return out

    def _runs(self, rows: np.ndarray) -> Iterator[tuple[int, int, str, slice]]:
        """Split rows into pieces that lie one after another in the file."""
        if self.several:
            yield from ((i, i + 1, self.prefixes[row], slice(None)) for i, row in enumerate(rows))
            return
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            yield start, stop, self.prefixes[0], slice(int(rows[start]), int(rows[stop - 1]) + 1)

    def _by_array(self, channels: Sequence[int]) -> Iterator[tuple[list[int], list[Channel]]]:
        """Group channels that are components of one array, which is then read once."""
        groups: dict[tuple[str, int], list[int]] = {}
        for position, number in enumerate(channels):
            channel = self.channels[number]
            alone = channel.rule.transform is not None or (channel.rule.staggered is not None and self._centred)
            groups.setdefault((channel.dataset, position if alone else -1), []).append(position)
        for positions in groups.values():
            yield positions, [self.channels[channels[p]] for p in positions]

    @property
    def _centred(self) -> bool:
        return self.mapping.get("staggering") == "centred"

    def _pieces(
        self, prefix: str, channels: list[Channel], cuts: dict[str, slice], rows: np.ndarray, raw: bool
    ) -> list[np.ndarray]:
        """Return the values of channels of one array, each (rows, t, *x)."""
        first = channels[0]
        rule = first.rule
        if rule.transform is not None and not raw:
            whole = {axis: slice(0, n) for axis, n in zip(self.axes, self.shape[2:], strict=True)}
            values = self._array(prefix, first, cuts | whole)
            lengths = np.stack([s.lengths(rows, b) for s, b in zip(self.space, self.boundary, strict=True)], axis=1)
            values = TRANSFORMS[rule.transform](values, lengths, self.label, **rule.arguments)
            return [values[(slice(None), slice(None), *(cuts[a] for a in self.axes))]]
        if rule.staggered is not None and self._centred and not raw:
            axis = self.axes.index(rule.staggered)
            size, kind = self.shape[2 + axis], self.boundary[axis]

            def faces(cut: slice) -> np.ndarray:
                return self._array(prefix, first, cuts | {self.axes[axis]: cut})

            return [to_centres(faces, cuts[self.axes[axis]], size, 2 + axis, kind, self.label)]
        if len(channels) == 1:
            return [self._array(prefix, first, cuts)]
        return self._components(prefix, channels, cuts)

    def _components(self, prefix: str, channels: list[Channel], cuts: dict[str, slice]) -> list[np.ndarray]:
        """Read an array once for several of its components."""
        roles = channels[0].roles
        differing = [i for i, found in enumerate(zip(*(c.roles for c in channels), strict=True)) if len(set(found)) > 1]
        lowest = {i: min(int(c.roles[i]) for c in channels) for i in differing}
        selection = [cuts.get(r, slice(None)) if isinstance(r, str) else r for r in roles]
        for i in differing:
            selection[i] = slice(lowest[i], max(int(c.roles[i]) for c in channels) + 1)
        values = self.container.read(prefix + channels[0].dataset, selection)
        kept = [i for i, r in enumerate(roles) if isinstance(r, str) or i in differing]
        named = [roles[i] for i in kept if isinstance(roles[i], str)]
        return [
            self._ordered(
                values[tuple(int(c.roles[i]) - lowest[i] if i in differing else slice(None) for i in kept)],
                named,
                c.rule.scale,
            )
            for c in channels
        ]

    def _array(self, prefix: str, channel: Channel, cuts: dict[str, slice]) -> np.ndarray:
        selection = [cuts.get(r, slice(None)) if isinstance(r, str) else r for r in channel.roles]
        values = self.container.read(prefix + channel.dataset, selection)
        return self._ordered(values, [r for r in channel.roles if isinstance(r, str)], channel.rule.scale)

    def _ordered(self, values: np.ndarray, named: list[str], scale: float) -> np.ndarray:
        """Put axes in the order trajectory, time, space; an axis the array lacks gets size 1 and broadcasts."""
        order = ("trajectory", "time", *self.axes)
        present = [r for r in order if r in named]
        values = values.transpose([named.index(r) for r in present])
        shape = iter(values.shape)
        values = values.reshape([next(shape) if r in named else 1 for r in order])
        return values * scale if scale != 1.0 else values


def _number_in(value: object, rule: ParameterRule, where: str) -> float | None:
    if rule.entry is not None and isinstance(value, str):
        found = re.search(rf"(?m)^\s*{re.escape(rule.entry)}\s*:\s*({NUMBER})\s*$", value)
        return None if found is None else float(found.group(1))
    if value is not None and not isinstance(value, (int, float)):
        raise FormatError(f"{where}: attribute '{rule.attribute}' is {value!r:.80}, expected a number.")
    return value


def _after_token(token: str, path: Path | None) -> float | None:
    """Return the number that follows a text in the file's name, else in its folder's."""
    if path is None:
        return None
    for text in (path.name, path.parent.name):
        found = re.search(rf"(?:^|[^A-Za-z]){re.escape(token)}_?({NUMBER})", text)
        if found:
            return float(found.group(1))
    return None
