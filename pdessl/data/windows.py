"""Windows of trajectories, from memory or from disk, joined to batches."""

# B batch, C channels, T frames, t of them in a window, X space, x of it in a window, d space axes

from __future__ import annotations

import copy
import itertools
import math
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pdessl.data.arrays import all_finite, copy_windows
from pdessl.data.sampling import Draw
from pdessl.data.selection import Selection
from pdessl.data.source import Coordinates, Source
from pdessl.errors import DataError, ShapeError
from pdessl.trajectory import Trajectories

__all__ = ["Crop", "Windows"]

SPARE_BUFFERS = 8


@dataclass(frozen=True)
class Crop:
    """The size of a window.

    Args:
        frames: number of frames; None: all.
        points: number of nodes, for all axes or one per axis; None: all.
    """

    frames: int | None = None
    points: int | tuple[int, ...] | None = None


class _Buffers:
    """Memory of batches that is used again once nothing refers to the batch.

    A fresh large allocation costs as much as the reading: the system hands out its pages one by one.
    """

    def __init__(self) -> None:
        self._spare: deque[np.ndarray] = deque(maxlen=SPARE_BUFFERS)

    def __getstate__(self) -> dict[str, Any]:
        return {"_spare": deque(maxlen=SPARE_BUFFERS)}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return float32 memory of a shape, with any content."""
        size = math.prod(shape)
        buffer = None
        while self._spare and buffer is None:
            buffer = self._spare.pop()
            if len(buffer) != size:
                buffer = None  # from an incomplete batch
        if buffer is None:
            buffer = np.empty(size, np.float32)
        held = buffer.reshape(shape)
        # A tensor made from this array refers to this object as long as any view of the tensor lives.
        weakref.finalize(held, self._spare.append, buffer).atexit = False
        return held


class _Part:
    """The trajectories of one dataset that windows are cut from, on disk or in memory."""

    def __init__(self, selection: Selection, fields: Sequence[str], labels: bool, held: bool) -> None:
        self.selection, self.source = selection, selection.source
        self.shape = selection.shape
        self.channels = self.source.channels(fields)
        if labels:
            self.parameters = selection.parameter_values()
        else:
            self.parameters = {n: np.full(len(selection), v) for n, v in self.source.constants.items()}
        self.held: Trajectories | None = None
        if held:
            everything = np.arange(len(selection))
            values = np.empty((len(selection), len(self.channels), *self.shape[1:]), np.float32)
            self.read_whole(everything, values)
            place, actions = self.coordinates(everything), self.actions(everything)
            self.held = Trajectories(
                fields=torch.from_numpy(values),
                time=torch.from_numpy(np.ascontiguousarray(place.time)),
                space=tuple(torch.from_numpy(np.ascontiguousarray(nodes)) for nodes in place.space),
                lengths=torch.from_numpy(np.ascontiguousarray(place.lengths)),
                parameters={name: torch.from_numpy(value) for name, value in self.parameters.items()},
                field_names=tuple(fields),
                axis_names=self.source.axis_names,
                boundary=self.source.boundary,
                index=torch.from_numpy(selection.rows),
                equation=self.source.equation,
                actions=None if actions is None else torch.from_numpy(actions),
                actuators=() if actions is None else self.source.actuators,
            )
            self._check_finite()

    def _check_finite(self) -> None:
        try:
            for start in range(0, len(self.held), 64):
                self.held[start : start + 64].check_finite()
        except DataError as error:
            raise DataError(f"{self.source.name}: {error}") from None

    def read(
        self,
        numbers: np.ndarray,
        starts: np.ndarray,
        sizes: tuple[int, ...],
        stride: int,
        out: np.ndarray,
        places: np.ndarray,
    ) -> bool:
        """Copy windows that begin at ``starts`` (n, 1 + d) to their ``places`` in ``out`` (m, C, *sizes).

        Returns:
            Whether all values are finite; those held in memory are known to be.
        """
        if self.held is not None:
            return copy_windows(self.held.fields.numpy(), numbers, starts, sizes, stride, out, places)
        split, rows = self.selection.split[numbers], self.selection.rows[numbers]
        finite = True
        for name in np.unique(split):
            which = np.flatnonzero(split == name)
            finite &= self.source.read_windows(
                self.selection.splits[name],
                rows[which],
                starts[which],
                sizes,
                stride,
                self.channels,
                out,
                places[which],
            )
        return finite

    def read_whole(self, numbers: np.ndarray, out: np.ndarray) -> None:
        """Copy whole trajectories to ``out`` (n, C, T, *X)."""
        sizes = self.shape[1:]
        self.read(numbers, np.zeros((len(numbers), len(sizes)), int), sizes, 1, out, np.arange(len(numbers)))

    def actions(self, numbers: np.ndarray) -> np.ndarray | None:
        """Return the amplitudes between the frames of whole trajectories; None for runs without."""
        if self.held is not None:
            return None if self.held.actions is None else self.held.actions.numpy()[numbers]
        split, rows = self.selection.split[numbers], self.selection.rows[numbers]
        values: np.ndarray | None = None
        for name in np.unique(split):
            places = np.flatnonzero(split == name)
            found = self.source.actions(self.selection.splits[name], rows[places])
            if found is not None:
                values = np.empty((len(rows), *found.shape[1:]), found.dtype) if values is None else values
                values[places] = found
        return values

    def coordinates(self, numbers: np.ndarray) -> Coordinates:
        """Return the coordinates of whole trajectories."""
        if self.held is not None:
            held = self.held
            return Coordinates(
                held.time.numpy()[numbers], tuple(s.numpy()[numbers] for s in held.space), held.lengths.numpy()[numbers]
            )
        split, rows = self.selection.split[numbers], self.selection.rows[numbers]
        if not (split != split[0]).any():
            return self.source.coordinates(self.selection.splits[split[0]], rows)
        _, frames, *points = self.shape
        time, space = np.empty((len(rows), frames)), tuple(np.empty((len(rows), size)) for size in points)
        lengths = np.empty((len(rows), len(points)))
        for name in np.unique(split):
            places = np.flatnonzero(split == name)
            found = self.source.coordinates(self.selection.splits[name], rows[places])
            time[places], lengths[places] = found.time, found.lengths
            for whole, nodes in zip(space, found.space, strict=True):
                whole[places] = nodes
        return Coordinates(time, space, lengths)


class Windows(Dataset[Trajectories]):
    """A dataset of windows, indexed by :class:`Draw`: one index gives one batch.

    Args:
        selections: trajectories of one dataset, or of several that are mixed; numbered one after the other.
        crop: size of the windows; default whole trajectories.
        stride: of the frames; a window of t frames spans (t - 1) stride + 1 of those stored.
        fields: names of the channels; default all.
        labels: whether batches have all parameters; without, they have those that are constant in the whole dataset.
        held: read everything into memory first.

    Fields are float32. An axis that is cut becomes a ``window``. Windows without a drawn place lie in the middle.

    Raises:
        ShapeError: a window that does not fit, or datasets whose trajectories cannot be in one batch.
        DataError: ``held``, and values that are not finite.
    """

    def __init__(
        self,
        selections: Sequence[Selection],
        crop: Crop | None = None,
        stride: int = 1,
        fields: Sequence[str] | None = None,
        labels: bool = True,
        held: bool = False,
    ) -> None:
        first = selections[0].source
        self.crop, self.stride = crop or Crop(), stride
        self.field_names = tuple(fields) if fields is not None else tuple(first.field_names)
        self.axis_names, self.equation = tuple(first.axis_names), first.equation
        self._parts = [_Part(selection, self.field_names, labels, held) for selection in selections]
        self._first = np.cumsum([0, *(len(selection) for selection in selections)])
        self.sizes = self._window_sizes()
        self._cut = [any(p.shape[2 + i] != n for p in self._parts) for i, n in enumerate(self.sizes[1:])]
        self._check_mixture()
        self._buffers = _Buffers()
        self._numbers: np.ndarray | None = None

    def subset(self, numbers: np.ndarray) -> Windows:
        """Return the windows of some trajectories, numbered anew in this order; they share what is held in memory."""
        chosen = copy.copy(self)
        chosen._numbers = numbers if self._numbers is None else self._numbers[numbers]
        return chosen

    # ------------------------------------------------------------------------------ shapes

    def __len__(self) -> int:
        return int(self._first[-1]) if self._numbers is None else len(self._numbers)

    @property
    def sources(self) -> list[Source]:
        """The datasets."""
        return [part.source for part in self._parts]

    @property
    def sizes_of_parts(self) -> list[int]:
        """Number of trajectories of each dataset; of a subset, its size."""
        return np.diff(self._first).tolist() if self._numbers is None else [len(self._numbers)]

    @property
    def held_bytes(self) -> int:
        """Bytes of fields held in memory; 0: they are read from disk."""
        return sum(part.held.fields.nbytes for part in self._parts if part.held is not None)

    @property
    def window_axes(self) -> int:
        """1 + d where windows have a place that can be drawn, else 0."""
        return 0 if self.crop == Crop() else 1 + len(self.axis_names)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of one window, (C, t, *x)."""
        return (len(self.field_names), *self.sizes)

    def _window_sizes(self) -> tuple[int, ...]:
        """Return (t, *x)."""
        names, points = self.axis_names, self.crop.points
        per_axis = (points,) * len(names) if points is None or isinstance(points, int) else tuple(points)
        if len(per_axis) != len(names):
            raise ShapeError(f"crop.points has {len(per_axis)} numbers for the axes {', '.join(names)}.")
        found: set[tuple[int, ...]] = set()
        for part in self._parts:
            _, frames, *space = part.shape
            there = (-(-frames // self.stride), *space)
            wanted = tuple(w or n for w, n in zip((self.crop.frames, *per_axis), there, strict=True))
            if any(not 1 <= w <= n for w, n in zip(wanted, there, strict=True)):
                raise ShapeError(
                    f"{part.source.name}: a window of {_times(wanted)} (frames, {', '.join(names)}) does not fit into "
                    f"trajectories of {_times(there)}{f' at stride {self.stride}' if self.stride > 1 else ''}. Lower "
                    f"crop.frames or crop.points."
                )
            found.add(wanted)
        if len(found) > 1:
            raise ShapeError(
                f"trajectories of {' and '.join(map(_times, sorted(found)))} (frames, {', '.join(names)}) cannot be in "
                f"one batch. Cut windows of one size: crop: {{frames: ..., points: ...}}"
            )
        return found.pop()

    def _boundary(self, part: _Part) -> tuple[str, ...]:
        """Return the kinds of boundary of windows; an axis that is cut in one dataset is a window in all."""
        return tuple("window" if cut else kind for cut, kind in zip(self._cut, part.source.boundary, strict=True))

    def _check_mixture(self) -> None:
        first = self._parts[0]
        for part in self._parts[1:]:
            for what, one, other in (
                ("axes", self.axis_names, tuple(part.source.axis_names)),
                ("equation", self.equation, part.source.equation),
                ("boundary", self._boundary(first), self._boundary(part)),
                ("parameters", sorted(first.parameters), sorted(part.parameters)),
                ("actuators", first.source.actuators, part.source.actuators),
            ):
                if one != other:
                    raise ShapeError(
                        f"{first.source.name} and {part.source.name} cannot be mixed: {what} {one} and {other}. Train "
                        f"on one after the other, or map both to the same {what}."
                    )

    # ------------------------------------------------------------------------------ batches

    def __getitem__(self, draw: Draw) -> Trajectories:
        first = self._parts[0]
        numbers = draw.numbers.numpy()
        if self._numbers is not None:
            numbers = self._numbers[numbers]
        if self._held_whole:
            return first.held[torch.from_numpy(numbers)]
        uniform = None if draw.places is None else draw.places.numpy()
        n, d = len(numbers), len(self.axis_names)
        fields = self._buffers.take((n, *self.batch_shape))
        nodes = [np.empty((n, size)) for size in self.sizes]
        lengths, index = np.empty((n, d)), np.empty(n, np.int64)
        parameters = {name: np.empty(n) for name in first.parameters}
        actions: np.ndarray | None = None
        owner = np.searchsorted(self._first, numbers, side="right") - 1
        for number in np.unique(owner):
            part, places = self._parts[number], np.flatnonzero(owner == number)
            inside = numbers[places] - self._first[number]
            starts = self._starts(part, len(places), None if uniform is None else uniform[places])
            if not part.read(inside, starts, self.sizes, self.stride, fields, places):
                self._refuse(part, inside, fields, places)
            whole = part.coordinates(inside)
            for axis, full in enumerate((whole.time, *whole.space)):
                steps = np.arange(self.sizes[axis]) * (self.stride if axis == 0 else 1)
                nodes[axis][places] = np.take_along_axis(full, starts[:, axis, None] + steps, axis=1)
            lengths[places], index[places] = whole.lengths, part.selection.rows[inside]
            held = part.actions(inside)
            if held is not None:
                cut = self._cut_actions(part, held, starts)
                actions = np.empty((n, *cut.shape[1:]), cut.dtype) if actions is None else actions
                actions[places] = cut
            for name, values in parameters.items():
                values[places] = part.parameters[name][inside]
        for axis, cut in enumerate(self._cut):
            if cut:
                lengths[:, axis] = nodes[1 + axis][:, -1] - nodes[1 + axis][:, 0]
        return Trajectories(
            fields=torch.from_numpy(fields),
            time=torch.from_numpy(nodes[0]),
            space=tuple(torch.from_numpy(axis) for axis in nodes[1:]),
            lengths=torch.from_numpy(lengths),
            parameters={name: torch.from_numpy(values) for name, values in parameters.items()},
            field_names=self.field_names,
            axis_names=self.axis_names,
            boundary=self._boundary(first),
            index=torch.from_numpy(index),
            equation=self.equation,
            actions=None if actions is None else torch.from_numpy(actions),
            actuators=() if actions is None else first.source.actuators,
        )

    def _cut_actions(self, part: _Part, actions: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the amplitudes (n, A, t - 1) between the frames of windows that begin at ``starts``."""
        if self.stride != 1:
            raise DataError(
                f"{part.source.name}: stride {self.stride} on runs with actions, which are held between neighbouring "
                "frames only. Leave stride out."
            )
        steps = starts[:, :1, None] + np.arange(self.sizes[0] - 1)
        return np.take_along_axis(actions, np.broadcast_to(steps, (*actions.shape[:2], steps.shape[2])), axis=2)

    @property
    def _held_whole(self) -> bool:
        """Whether a batch is an indexing operation on one object in memory."""
        return self._parts[0].held is not None and len(self._parts) == 1 and self.crop == Crop() and self.stride == 1

    def everything(self) -> Trajectories:
        """Return all windows at once; without a copy if they are in memory as they are."""
        if self._held_whole and self._numbers is None:
            return self._parts[0].held
        return self[Draw(torch.arange(len(self)))]

    def whole_fields(self, numbers: np.ndarray, at_once: int = 8 << 20) -> Iterator[torch.Tensor]:
        """Yield all values of whole trajectories, in pieces (b, C, t, *X) of about ``at_once`` bytes, float32."""
        if self._numbers is not None:
            numbers = self._numbers[numbers]
        owner = np.searchsorted(self._first, numbers, side="right") - 1
        for number in np.unique(owner):
            part, inside = self._parts[number], numbers[owner == number] - self._first[number]
            _, frames, *points = part.shape
            frame = 4 * len(part.channels) * math.prod(points)
            rows, t = max(1, at_once // (frame * frames)), min(frames, max(1, at_once // frame))
            for start, first in itertools.product(range(0, len(inside), rows), range(0, frames, t)):
                some = inside[start : start + rows]
                sizes = (min(t, frames - first), *points)
                values = self._buffers.take((len(some), len(part.channels), *sizes))
                starts = np.tile([first, *(0 for _ in points)], (len(some), 1))
                part.read(some, starts, sizes, 1, values, np.arange(len(some)))
                yield torch.from_numpy(values)

    def _refuse(self, part: _Part, numbers: np.ndarray, fields: np.ndarray, places: np.ndarray) -> None:
        """Raise an error that names the first trajectory whose window is not finite."""
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            for name, values in zip(self.field_names, fields[place], strict=True):
                if not all_finite(np.ascontiguousarray(values)):
                    split = part.selection.splits[part.selection.split[number]]
                    raise DataError(
                        f"{part.source.name}: field '{name}' is not finite in trajectory "
                        f"{int(part.selection.rows[number])} of split '{split}'. Repair it, or leave such trajectories "
                        f"of files out with  missing: drop  in the mapping."
                    )

    def _starts(self, part: _Part, n: int, uniform: np.ndarray | None) -> np.ndarray:
        """Return the first frame and nodes of windows, shape (n, 1 + d)."""
        steps = (self.stride,) + (1,) * len(self.axis_names)
        spans = zip(part.shape[1:], self.sizes, steps, strict=True)
        room = np.array([there - ((size - 1) * step + 1) for there, size, step in spans])
        if uniform is None:
            # Whole trajectories begin at their first frame, also where the stride leaves some over at the end.
            middle = room // 2
            middle[0] *= self.crop.frames is not None
            return np.tile(middle, (n, 1))
        return np.floor(uniform * (room + 1)).astype(np.int64)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
