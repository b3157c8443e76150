"""The trajectories of one split in one file, read piece by piece as a mapping says."""

# n trajectories of the file, C channels, T frames, X space, d space axes

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pdessl.conventions import repeated_nodes
from pdessl.data.arrays import FileArray
from pdessl.data.formats.channels import Channel, channel_of, check_alike, sizes_of
from pdessl.data.formats.container import Container
from pdessl.data.formats.hdf5 import HDF5File
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.data.formats.nodes import Nodes, evaluate
from pdessl.data.formats.parameters import parameters_of
from pdessl.data.formats.transform import TRANSFORMS, to_centres
from pdessl.data.memory import check_memory
from pdessl.errors import DataError, FormatError

__all__ = ["Part"]

SCAN_BYTES = 64 << 20


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
        parameters: ``{name: values}``, each (n,), float64; what the file lacks is left out, why is in ``lacking``.
        skipped: nodes of each axis left out at its begin, halo cells that repeat others.
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
        container.fill_is_value = mapping.get("unwritten") == "fill"
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
        self.skipped: dict[str, int] = {}
        for axis, rule in mapping.space.items():
            nodes = evaluate(rule, container, first, axis, self.stored, sizes[axis])
            repeated = 1 if rule.end == "repeated" else self._repeated(axis, sizes, rule.end)
            if repeated:
                self.skipped[axis] = repeated // 2
                nodes = nodes.without_repeated(repeated)
            self.space.append(nodes)
        self.shape = (len(self.channels), sizes["time"], *(s.values.shape[1] for s in self.space))
        self.dtype = self._dtype()
        self.keep: np.ndarray | None = None
        self.lacking: dict[str, str] = {}
        self.parameters = parameters_of(
            container, mapping, self.prefixes, several, self.stored, self.warnings, self.lacking
        )
        self._leave_out()
        self._note_unwritten()

    @property
    def label(self) -> str:
        """What messages call the file."""
        return self.container.label

    @property
    def pieces(self) -> list[Part]:
        """The parts this one is made of: itself."""
        return [self]

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

    def _repeated(self, axis: str, sizes: dict[str, int], end: str | None) -> int:
        """Return how many nodes at the end of an axis repeat those at its begin, in frames of the first trajectory."""
        periodic = self.boundary[self.axes.index(axis)] == "periodic"
        if end == "kept" or not (periodic or end == "measured") or sizes[axis] < 5:
            return 0
        frames = np.unique(np.linspace(0, sizes["time"] - 1, 3).astype(int)).tolist()
        found = set()
        for channel in self.channels:
            if axis in channel.roles:
                cuts = [{"trajectory": slice(0, 1), "time": slice(frame, frame + 1)} for frame in frames]
                values = np.concatenate([self._array(self.prefixes[0], channel, cut) for cut in cuts])
                place = 2 + self.axes.index(axis)
                if np.ptp(values, axis=place).max() > 0:  # what does not vary along the axis says nothing
                    found.add(repeated_nodes(values, place))
        count = found.pop() if len(found) == 1 else 0
        if count:
            what = "the last node of axis {0} repeats the first; it is"
            if count > 1:
                what = f"the last {count} nodes of axis {{0}} repeat the first {count} (halo cells); {count} are"
            self.warnings.append(f"{what.format(axis)} left out (end: kept in space.{axis} keeps all nodes).")
        return count

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

    def _note_unwritten(self) -> None:
        for channel in self.channels:
            for prefix in self.prefixes:
                if text := self.container.unwritten(prefix + channel.dataset):
                    self.warnings.append(f"{self.label}: {text}.")

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

    def limited(self, frames: int) -> Part:
        """Return the same trajectories without what comes after the first frames."""
        part = copy.copy(self)
        part.shape = (self.shape[0], frames, *self.shape[2:])
        part.time = replace(self.time, values=self.time.values[:, :frames])
        return part

    def frames_held(self) -> int:
        """Return after how many frames nothing follows: no value of any field, of the first trajectory.

        Nothing but the last frame is read where that one holds something.
        """
        rows, whole, size = self.rows(np.zeros(1, int)), tuple(slice(None) for _ in self.axes), self.shape[1]
        block = 1
        while size > 0:
            start = max(0, size - block)
            values = self._values(rows, slice(start, size), whole, raw=True)
            there = np.isfinite(values).any(axis=(0, 1, *range(3, values.ndim)))
            if there.any():
                return start + int(np.flatnonzero(there)[-1]) + 1
            size, block = start, 2 * block
        return 0

    def unpacked(self) -> Iterator[str]:
        """Yield the names of the arrays of channels that are not mapped from a plain run of the file."""
        for prefix in self.prefixes:
            for name in dict.fromkeys(prefix + channel.dataset for channel in self.channels):
                if not self.container.mapped(name):
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
        names = [self.prefixes[0] + c.dataset for c in chosen]
        if any(self.skipped.values()) or any(self.container.unwritten(n) or self.container.fills(n) for n in names):
            return None
        return [self.container.place(name) for name in names]

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
                f"{self.label}: field '{name}' is not finite in trajectory {int(rows[row])} of split '{self.split}', "
                f"frame {(frames.start or 0) + int(frame) * (frames.step or 1)}{self._reason(channels[channel])}. "
                f"Repair the file, or leave such trajectories out with  missing: drop  in the mapping."
            )
        return values

    def _reason(self, channel: int) -> str:
        """Return why values are missing, as far as the file shows."""
        name = self.prefixes[0] + self.channels[channel].dataset
        unwritten = self.container.unwritten(name)
        return f" ({unwritten})" if unwritten else ""

    def rescale(self, field: str, factor: float) -> None:
        """Multiply a field by a factor from now on: its unit becomes another one."""
        number = list(self.mapping.fields).index(field)
        channel = self.channels[number]
        if channel.rule.transform is not None:
            raise FormatError(f"{self.label}: field '{field}' is made by a transform, which has units of its own.")
        changed = replace(channel, rule=replace(channel.rule, scale=channel.rule.scale * factor))
        self.channels = (*self.channels[:number], changed, *self.channels[number + 1 :])

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
                check_alike(self.container, together[0].dataset, prefix, self.prefixes[0])
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

            return [to_centres(faces, cuts[self.axes[axis]], size, 2 + axis, kind, self.label, self.axes[axis])]
        if len(channels) == 1:
            return [self._array(prefix, first, cuts)]
        return self._components(prefix, channels, cuts)

    def _components(self, prefix: str, channels: list[Channel], cuts: dict[str, slice]) -> list[np.ndarray]:
        """Read an array once for several of its components."""
        roles = channels[0].roles
        differing = [i for i, found in enumerate(zip(*(c.roles for c in channels), strict=True)) if len(set(found)) > 1]
        lowest = {i: min(int(c.roles[i]) for c in channels) for i in differing}
        selection = [self._stored_cut(r, cuts) for r in roles]
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

    def _stored_cut(self, role: str | int, cuts: dict[str, slice]) -> slice | int:
        """Return which stored entries of an axis are wanted: nodes are counted from the first that is not repeated."""
        if isinstance(role, int):
            return role
        cut, skipped = cuts.get(role, slice(None)), self.skipped.get(role, 0)
        return slice(cut.start + skipped, cut.stop + skipped, cut.step) if skipped and cut.start is not None else cut

    def _array(self, prefix: str, channel: Channel, cuts: dict[str, slice]) -> np.ndarray:
        selection = [self._stored_cut(role, cuts) for role in channel.roles]
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
