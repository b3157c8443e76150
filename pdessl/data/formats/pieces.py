"""Files that continue each other: one simulation written piece by piece is one run, not several."""

# n trajectories of a file, C channels, T frames, X space

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from pdessl.data.formats.mapping import DatasetMapping
from pdessl.data.formats.nodes import Nodes
from pdessl.data.formats.part import Part
from pdessl.errors import DataError, FormatError

__all__ = ["Joined", "join"]

CONTINUOUS = 2.0  # the step across a seam over that between frames beside it; independent runs differ by much more
ROUNDING = 0.02  # of a time step
COMPARED = 4096  # nodes of a frame that are compared
Edges = dict[tuple[int, int, int | None], np.ndarray]
RUNS = 4  # trajectories of a file that are compared


class Joined:
    """Pieces of the same trajectories, one after another in time, read as one :class:`Part`.

    Args:
        pieces: in the order of their times; where two overlap, the later one counts, as after a restart.

    Attributes are those of a part; ``pieces`` are the parts.
    """

    def __init__(self, pieces: Sequence[Part]) -> None:
        self.pieces = list(pieces)
        first = self.pieces[0]
        self.container, self.mapping, self.split, self.axes = first.container, first.mapping, first.split, first.axes
        self.boundary, self.channels, self.space = first.boundary, first.channels, first.space
        self.parameters, self.dtype, self.count, self.prefixes = (
            first.parameters, first.dtype, first.count, first.prefixes
        )  # fmt: skip
        self.warnings = list(dict.fromkeys(w for piece in self.pieces for w in piece.warnings))
        self.dropped: dict[str, int] = {}
        times = [piece.time.values for piece in self.pieces]
        self.used = [
            int((a[0] < b[0, 0] - ROUNDING * _step(a, b)).sum()) for a, b in itertools.pairwise(times)
        ] + [times[-1].shape[1]]  # fmt: skip
        rows = max(len(t) for t in times)
        kept = [np.broadcast_to(t[:, :n], (rows, n)) for t, n in zip(times, self.used, strict=True)]
        self.time = Nodes(np.ascontiguousarray(np.concatenate(kept, axis=1)))
        self.shape = (first.shape[0], sum(self.used), *first.shape[2:])

    @property
    def label(self) -> str:
        """What messages call the files."""
        return f"{self.pieces[0].label} and {len(self.pieces) - 1} more"

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers that trajectories have in the files."""
        return rows

    def plain(self, channels: Sequence[int]) -> None:
        """Return None: no single array holds these runs."""
        return

    def read(self, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]) -> np.ndarray:
        """Read values, shape (len(rows), len(channels), t, *x); see :meth:`Part.read`."""
        wanted = np.arange(*frames.indices(self.shape[1]))
        found, begin = [], 0
        for piece, used in zip(self.pieces, self.used, strict=True):
            inside = wanted[(wanted >= begin) & (wanted < begin + used)] - begin
            if len(inside):
                cut = slice(int(inside[0]), int(inside[-1]) + 1, frames.step or 1)
                found.append(piece.read(rows, cut, space, channels))
            begin += used
        return np.concatenate(found, axis=2)


def join(parts: Sequence[Part], mapping: DatasetMapping) -> tuple[list[Part | Joined], list[str]]:
    """Join the parts that continue each other.

    Two parts do where the times of one begin a step after those of the other end (or before, as after a restart), all
    else but the number of frames is the same, and the fields are continuous: the step across the seam is at most twice
    that between the frames beside it.

    Args:
        parts: of all files, in one unit.
        mapping: with ``pieces: separate`` nothing is joined.

    Returns:
        The parts, those joined in the place of their first piece; and what a user should know.

    Raises:
        FormatError: pieces of one simulation lie in different splits.
    """
    if mapping.get("pieces") == "separate" or len(parts) < 2:
        return list(parts), []
    chains = [chain for chain in _chains(parts) if len(chain) > 1]
    later = {id(piece) for chain in chains for piece in chain[1:]}
    heads = {id(chain[0]): chain for chain in chains}
    result: list[Part | Joined] = []
    for part in parts:
        if id(part) in heads:
            result.append(Joined(heads[id(part)]))
        elif id(part) not in later:
            result.append(part)
    warnings = []
    for chain in chains:
        names = [piece.label for piece in chain]
        for a, b in itertools.pairwise(chain):
            if a.split != b.split:
                raise FormatError(
                    f"{b.label} (split {b.split}) continues {a.label} (split {a.split}) in time: they are pieces of "
                    f"one simulation, and a split through it leaks. Put both into one split, or, if they are "
                    f"independent, say so in the mapping:  pieces: separate"
                )
    if chains:
        names = [piece.label for piece in chains[0]]
        total = sum(map(len, chains))
        one = f"{total} files hold consecutive pieces of " + ("1 run" if len(chains) == 1 else f"{len(chains)} runs")
        warnings.append(
            f"{one}, which are joined (the first: {names[0]} to {names[-1]}, {len(names)} pieces). If they are "
            f"independent, say so in the mapping:  pieces: separate"
        )
    return result, warnings


def _step(a: np.ndarray, b: np.ndarray) -> float:
    """Return the time step of two pieces, each (n, T)."""
    steps = [t[0, -1] - t[0, 0] for t in (a, b) if t.shape[1] > 1]
    counts = [t.shape[1] - 1 for t in (a, b) if t.shape[1] > 1]
    return float(sum(steps) / sum(counts)) if steps else float(b[0, 0] - a[0, 0])


def _chains(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yield the parts as chains of pieces; most are alone."""
    able = [p for p in parts if p.count and p.keep is None]
    order = sorted(range(len(able)), key=lambda i: (float(able[i].time.values[0, 0]), i))
    singles = np.unique([able[i].time.values[0, 0] for i in order if able[i].shape[1] == 1])
    single = float(np.diff(singles).min()) if len(singles) > 1 else None
    edges: Edges = {}
    links = []
    starts, ends = (np.array([p.time.values[0, frame] for p in able]) for frame in (0, -1))
    for i in order:
        step = (ends[i] - starts[i]) / max(able[i].shape[1] - 1, 1) or single or 0.0
        near = (starts > starts[i]) & (ends > ends[i]) & (starts <= ends[i] + (1 + ROUNDING) * step)
        for j in np.flatnonzero(near).tolist():
            seam = _seam(able[i], able[j], single)
            jump = np.inf if seam is None else _jump(able[i], able[j], seam, edges)
            if jump <= CONTINUOUS:
                links.append((jump, i, j))
    after: dict[int, int] = {}
    before: dict[int, int] = {}
    for _, i, j in sorted(links):
        if i not in after and j not in before:
            after[i], before[j] = j, i
    for start in order:
        if start not in before:
            chain = [start]
            while chain[-1] in after:
                chain.append(after[chain[-1]])
            yield [able[i] for i in chain]


def _seam(a: Part, b: Part, single: float | None) -> int | None:
    """Return how many frames of ``a`` lie at or after the first of ``b``; None where ``b`` does not continue ``a``."""
    if a.count != b.count or a.shape[2:] != b.shape[2:] or set(a.parameters) != set(b.parameters):
        return None
    ta, tb = a.time.values, b.time.values
    steps = [float(t[0, -1] - t[0, 0]) / (t.shape[1] - 1) for t in (ta, tb) if t.shape[1] > 1] or [single or 0.0]
    step = steps[0]
    if not step > 0 or abs(steps[-1] / step - 1) > ROUNDING:
        return None
    gap = (tb[:, 0] - ta[:, -1]) / step
    if gap.max() > 1 + ROUNDING or tb[0, 0] <= ta[0, 0] + 0.5 * step or tb[0, -1] <= ta[0, -1] + 0.5 * step:
        return None
    if np.abs(gap - np.round(gap)).max() > ROUNDING or np.ptp(np.round(gap)) > 0:
        return None
    same = all(np.array_equal(v, b.parameters[n]) for n, v in a.parameters.items())
    for one, other in zip(a.space, b.space, strict=True):
        width = float(np.abs(np.diff(one.values[0, :2])).max()) if one.values.shape[1] > 1 else 1.0
        same = same and bool(np.abs(one.values[:1] - other.values[:1]).max() <= ROUNDING * width)
    return 1 - int(np.round(gap[0])) if same else None


def _jump(a: Part, b: Part, overlap: int, edges: Edges) -> float:
    """Return the step of the fields across a seam over that between frames beside it, the larger of both."""
    try:
        one, other = (_frames(a, slice(-2 - overlap, None), edges), _frames(b, slice(0, 2), edges))
    except DataError:
        return 1.0  # values are missing: the times say that it continues
    end = one[:, :, -overlap] if overlap else one[:, :, -1]
    change = 0.0
    for values in (one, other):
        if values.shape[2] > 1:
            change = max(change, float(np.sqrt(np.mean(np.square(np.diff(values, axis=2))))))
    across = float(np.sqrt(np.mean(np.square(other[:, :, 0] - end))))
    if overlap:
        across *= 10  # the same frame, stored twice
    if not change:
        return 0.0 if across == 0 or (one.shape[2] == 1 and other.shape[2] == 1) else np.inf
    return across / change


def _frames(part: Part, frames: slice, edges: Edges) -> np.ndarray:
    key = (id(part), frames.start, frames.stop)
    if key not in edges:
        start, stop, _ = frames.indices(part.shape[1])
        stride = max(1, round((np.prod(part.shape[2:]) / COMPARED) ** (1 / len(part.axes))))
        space = tuple(slice(0, n, stride if n > stride else 1) for n in part.shape[2:])
        rows = np.arange(min(part.count, RUNS))
        values = part.read(rows, slice(start, stop), space, range(part.shape[0]))
        edges[key] = values.astype(np.float64)
    return edges[key]
