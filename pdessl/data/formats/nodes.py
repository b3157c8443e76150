"""Coordinates of an axis from what a layout stores of them: arrays, steps or lengths."""

# n trajectories of a file, X nodes

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pdessl.data.formats.container import Container
from pdessl.data.formats.mapping import AxisRule
from pdessl.errors import DataError, FormatError

__all__ = ["Nodes", "evaluate"]

# Nodes stored in float32 deviate from equal spacing by round-off: at 1000 nodes about 1e-4 of a step.
IRREGULAR = 1e-2


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes of one axis in one file.

    Args:
        values: shape (1, X) where all trajectories share them, else (n, X), float64, increasing.
        length: length of the whole axis where the layout states it, shape (1,) or (n,), or None.
    """

    values: np.ndarray
    length: np.ndarray | None = None

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the nodes of some trajectories, shape (len(rows), X)."""
        if len(self.values) == 1:
            return np.repeat(self.values, len(rows), axis=0)
        return self.values[rows]

    def lengths(self, rows: np.ndarray, boundary: str) -> np.ndarray:
        """Return the length of the axis of some trajectories, shape (len(rows),).

        As stated by the layout; else X times the step for a periodic axis, last minus first node for the others.
        """
        if self.length is not None:
            return np.broadcast_to(self.length, (len(rows),)) if len(self.length) == 1 else self.length[rows]
        nodes = self.rows(rows)
        span = nodes[:, -1] - nodes[:, 0]
        count = nodes.shape[1]
        return span * count / max(count - 1, 1) if boundary == "periodic" else span

    def without_repeated(self, count: int) -> Nodes:
        """Return the nodes without so many that repeat others, half of them (rounded down) at the begin.

        The length is then that of a period: so many steps as nodes are left; one that the layout states stays.
        """
        first, points = count // 2, self.values.shape[1]
        span = (self.values[:, -1] - self.values[:, 0]) * (points - count) / max(points - 1, 1)
        kept = self.values[:, first : first + points - count]
        return replace(self, values=np.ascontiguousarray(kept), length=span if self.length is None else self.length)


def evaluate(
    rule: AxisRule, container: Container, prefix: str, name: str, count: int, points: int, default: str | None = None
) -> Nodes:
    """Return the nodes of an axis as its rule says.

    Args:
        rule: the rule; without ``dataset``, ``step``, ``length`` or ``extent_of``, the array ``default`` is taken.
        container: the file.
        prefix: put before the names of arrays, e.g. ``train/``.
        name: name of the axis, for messages.
        count: number of trajectories n.
        points: number of nodes X of the fields.
        default: name of the array of nodes that the file itself associates with the axis, if there is one.

    Raises:
        FormatError: an array is missing, has the wrong size or is no array of numbers.
        DataError: no coordinate is given, or nodes that are not equally spaced, increasing and finite.
    """
    where = f"{container.label}: {'time' if name == 'time' else f'axis {name}'}"
    dataset = rule.dataset if rule.dataset is not None else default
    length = None if rule.length is None else _per_trajectory(container, prefix, rule.length, count, where)
    if rule.step is not None:
        step = _per_trajectory(container, prefix, rule.step, count, where)
        values = (rule.start or 0.0) + step[:, None] * np.arange(points)
    elif dataset is not None and rule.extent_of is None and (length is None or rule.dataset is not None):
        values = _array(container, prefix + dataset, count, points, where, rule)
        if rule.nodes == "centres" and length is None and points > 1:
            length = (values[:, -1] - values[:, 0]) * points / (points - 1)
    elif length is not None or rule.extent_of is not None:
        if rule.extent_of is not None:
            known = _array(container, prefix + rule.extent_of, count, None, where)
            length = known[:, -1] - known[:, 0]
        offset = 0.5 if rule.nodes == "centres" else 0.0
        parts = max(points - 1, 1) if rule.nodes == "ends" else points
        values = (rule.start or 0.0) + (np.arange(points) + offset) * length[:, None] / parts
    else:
        key = "time: {step: 0.1}  (dt=0.1)" if name == "time" else f"space: {{{name}: {{step: 0.1}}}}  (dx=0.1)"
        other = "" if name == "time" else f", or its length:  space: {{{name}: {{length: 1.0}}}}  (length=1.0)"
        if name not in ("time", "x", "y", "z"):
            other += f". If it is no axis of space, choose an entry:  select: {{{name}: 0}}"
        raise DataError(f"{where}: the coordinate is missing. Give the step in the mapping:  {key}{other}")
    if rule.scale != 1.0:
        values, length = values * rule.scale, None if length is None else length * rule.scale
    stored = (dataset or "").rpartition("/")[2]
    known = container.arrays().get(prefix + stored)
    along = known.dimensions[-1] if known is not None and known.dimensions else stored
    kind = container.dates(stored) if known is not None else ""
    if known is not None and " since " in str(container.attributes(stored).get("units", "")) and container.path:
        kind = "number"
    _check(values, where, _Repair(stored if stored.isidentifier() else name, along or name, kind))
    if len(values) > 1 and (values == values[:1]).all() and (length is None or (length == length[:1]).all()):
        values, length = values[:1], None if length is None else length[:1]
    return Nodes(np.ascontiguousarray(values), length)


def _per_trajectory(container: Container, prefix: str, step: float | str, count: int, where: str) -> np.ndarray:
    if not isinstance(step, str):
        return np.array([float(step)])
    name = prefix + step
    found = container.array(name)
    if found.shape not in ((), (1,), (count,)):
        raise FormatError(
            f"{where}: '{step}' has shape {found.shape}, expected one number or one per trajectory ({count},)."
        )
    values = np.atleast_1d(_numbers(container, name, where))
    if not (values > 0).all():
        raise DataError(f"{where}: '{step}' holds numbers that are not positive. Repair the file.")
    return values


def _array(
    container: Container, name: str, count: int, points: int | None, where: str, rule: AxisRule | None = None
) -> np.ndarray:
    """Return the stored nodes, shape (1, X) or (n, X)."""
    array = container.array(name)
    shape = array.shape
    if rule is not None and rule.index is not None:
        if len(rule.index) != len(shape):
            raise FormatError(
                f"{where}: '{name}' has shape {shape}, index {list(rule.index)} names {len(rule.index)} axes."
            )
        selection = tuple(slice(None) if i == ":" else int(i) for i in rule.index)
        shape = tuple(n for n, i in zip(shape, rule.index, strict=True) if i == ":")
    else:
        selection = ()
    trim = rule is not None and rule.trim
    good = {points, None if points is None else points + trim}
    fits = len(shape) == 1 or (len(shape) == 2 and shape[0] in (1, count))
    if not fits or not (points is None or shape[-1] in good) or shape[-1] < 1 or shape[-1] > 1 << 24:
        raise FormatError(
            f"{where}: '{name}' has shape {shape}, expected ({points},) or ({count}, {points}) to fit the fields. "
            f"Name another array, or give the step:  {{step: 0.1}}"
        )
    values = _numbers(container, name, where, selection)
    values = values.reshape(-1, values.shape[-1])
    return values[:, :points] if points is not None else values


def _numbers(container: Container, name: str, where: str, selection: tuple[slice | int, ...] = ()) -> np.ndarray:
    if container.array(name).dtype.kind not in "fiu":
        raise FormatError(f"{where}: '{name}' holds {container.array(name).dtype}, expected numbers.")
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number is found when the nodes are checked
        return container.read(name, selection).astype(np.float64)


@dataclass(frozen=True)
class _Repair:
    """What to write in xarray about a coordinate.

    Args:
        name: of the coordinate.
        dimension: that it lies along.
        kind: ``date`` or ``timedelta`` for those in memory, ``number`` for dates that a file counts, else empty.
    """

    name: str
    dimension: str
    kind: str

    @property
    def dataset(self) -> str:
        """The dataset with the coordinate as a dimension."""
        return "ds" if self.name == self.dimension else f"ds.swap_dims({self.dimension}='{self.name}')"

    def resampled(self, values: np.ndarray) -> str:
        """Return how to bring fields to equally spaced nodes."""
        dataset, name = self.dataset, self.name
        if self.kind == "date":
            ends = f"{dataset}.{name}.values[0], {dataset}.{name}.values[-1]"
            return f"{dataset}.interp({name}=pd.date_range({ends}, periods={len(values)}))"
        if self.kind == "timedelta":
            dataset += f".assign_coords({name}={dataset}.{name} / np.timedelta64(1, 's'))"
        return f"{dataset}.interp({name}=np.linspace({values[0]:.6g}, {values[-1]:.6g}, {len(values)}))"

    def increasing(self, values: np.ndarray) -> str:
        """Return how to bring nodes into order, without those there twice, of which the later stays."""
        ordered = np.sort(values)
        gaps = np.diff(ordered)
        near = (gaps > 0) & (gaps < 1e-3 * np.median(gaps[gaps > 0])) if (gaps > 0).any() else np.zeros(1, dtype=bool)
        dataset = self.dataset
        if near.any():
            digits = max(0, int(np.ceil(-np.log10(np.median(gaps[gaps > 0])))) + 2)
            dataset = f"{dataset}.assign_coords({self.name}={dataset}.{self.name}.round({digits}))"
        if near.any() or (gaps == 0).any():
            dataset = f"{dataset}.drop_duplicates('{self.name}', keep='last')"
        return f"{dataset}.sortby('{self.name}')"


def _check(values: np.ndarray, where: str, repair: _Repair) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{where}: the coordinate holds values that are not finite. Give the step in the mapping.")
    if values.shape[1] < 2:
        return
    steps = np.diff(values, axis=1)
    if not (steps > 0).all():
        row = int(np.argmax((steps <= 0).any(axis=1)))
        twice = len(np.unique(values[row])) < values.shape[1]
        what = "holds values twice, as after a restart" if twice else "does not increase"
        raise DataError(
            f"{where}: the coordinate {what} (trajectory {row}). Bring it into order first:  "
            f"{repair.increasing(values[row])}"
        )
    mean = steps.mean(axis=1, keepdims=True)
    worst = np.abs(steps / mean - 1).max(axis=1)
    row = int(worst.argmax())
    if worst[row] > IRREGULAR:
        raise DataError(
            f"{where}: the spacing is irregular, {steps[row].min():.4g} to {steps[row].max():.4g} (trajectory {row}); "
            f"fields must be on equally spaced nodes. Resample first, e.g. with xarray"
            f"{' (the file opened with decode_times=False)' if repair.kind == 'number' else ''}:  "
            f"{repair.resampled(values[row])}"
        )
