"""Runs of a dataset, read piece by piece and checked, and what of the dataset is carried through to results."""

# n runs, C channels, T frames, X space, D feature width

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from pdessl.conventions import is_default_fill
from pdessl.errors import DataError, FormatError, did_you_mean
from pdessl.inference.encoding import RunEncoder, features, has_trunk, sees_views
from pdessl.inference.format import InputFormat
from pdessl.inference.regridding import Regridded, regridded
from pdessl.inference.views import Views
from pdessl.trajectory import Trajectories
from pdessl.units import conversion

__all__ = ["MISSING", "Encoded", "Piece", "RunReader", "encode"]

MISSING = ("refuse", "drop", "interpolate")


@dataclass(frozen=True, eq=False)
class Piece:
    """Some runs of equal shape: their places among all, and their values."""

    places: NDArray[np.int64]
    runs: Trajectories


class RunReader:
    """Reads runs for a model: as many at a time as fit into memory, each checked against the declared format.

    Args:
        data: a dataset (in memory, opened lazily from a file, or backed by Dask), or trajectories.
        declared: what the model takes.
        missing: what is done with runs that lack values (NaN): ``refuse``; ``drop`` all but their longest stretch of
            complete frames, so that the time step stays; ``interpolate`` linearly in time between complete frames.
        batch: runs read at a time; of data backed by Dask as many chunks as make that many, at least one.
        beyond: what follows for runs outside the range of training, in words of what they are read for.

    Attributes:
        count: number of runs.
        departures: after reading, how many runs lay outside the range of training, by what.
        regridded: after reading, how many runs were brought to the grid of training, by axis and way.
        conversions: by variable, its unit in the data and the factor that takes it to that of training.
        repaired: after reading, number of runs with frames dropped or interpolated.

    Raises:
        FormatError: data outside the declared format, with the repair.
        DataError: no runs, or an unknown choice of ``missing``.
    """

    def __init__(
        self,
        data: xr.Dataset | Trajectories,
        declared: InputFormat,
        missing: str = "refuse",
        batch: int = 64,
        beyond: str = "errors may be larger, and the coverage of intervals is not guaranteed there",
    ) -> None:
        if missing not in MISSING:
            raise DataError(f"missing='{missing}'.{did_you_mean(missing, MISSING)} Choose: {', '.join(MISSING)}.")
        if isinstance(data, Trajectories):
            data = data.to_xarray()
        if not isinstance(data, xr.Dataset):
            hint = " Make it one: array.to_dataset(name='u')." if isinstance(data, xr.DataArray) else ""
            raise FormatError(
                f"got {type(data).__name__}; expected an xarray.Dataset or pdessl.Trajectories.{hint} A file is opened "
                "with xr.open_dataset(file, decode_times=False)."
            )
        self.declared, self.missing, self.batch, self.beyond = declared, missing, batch, beyond
        self.attributes = dict(data.attrs)
        found = declared.check(data)
        self.single = found is None
        self.dimension = found or "trajectory"
        self.carried = {
            n: c.variable
            for n, c in data.coords.items()
            if set(c.dims) <= {self.dimension} and n not in declared.axis_names
        }
        self._constants = {
            n: np.unique(data[n].values)
            for n in declared.constants
            if n in data.variables and data[n].dtype.kind in "fiu"
        }
        self._data = self._needed(data if found else data.expand_dims(self.dimension))
        self.conversions = declared.conversions(self._data)
        self.count = self._data.sizes[self.dimension]
        if self.count == 0:
            raise DataError(f"the data hold no runs: '{self.dimension}' has no entries.")
        self.departures: dict[str, int] = {}
        self.regridded: dict[str, int] = {}
        self.repaired = 0
        self.repeated: dict[str, int] = {}

    def _needed(self, data: xr.Dataset) -> xr.Dataset:
        """Return fields and geometry only: what else the file holds, labels among it, is never read."""
        axes = ("time", *self.declared.axis_names)
        extra = [f"{p}{a}{s}" for a in axes for p, s in (("", "_nodes"), ("length_", ""))]
        kept = data[[*self.declared.field_names, *(n for n in extra if n in data.variables)]]
        kept = kept.drop_vars([n for n in kept.coords if n not in (*axes, *extra)])
        for name in axes:
            if f"{name}_nodes" not in kept.variables and name not in kept.coords:
                raise FormatError(
                    f"the data have no coordinate '{name}', so that their scale is unknown. Give it: "
                    f"ds.assign_coords({name}=...)."
                )
        kind = kept["time"].dtype.kind if "time" in kept.coords else "f"
        if kind in "mM":
            unit = self.declared.units.get("time", "")
            if conversion("s", unit) is None:
                raise FormatError(
                    f"'time' holds dates or durations, the model was trained on times in '{unit or 'no unit'}'. Open "
                    "the file with xr.open_dataset(file, decode_times=False, decode_timedelta=False)."
                )
            elapsed = kept["time"] - kept["time"][0] if kind == "M" else kept["time"]
            kept = kept.assign_coords(time=(elapsed / np.timedelta64(1, "s")).assign_attrs(units="s"))
        return kept

    # ------------------------------------------------------------------------------------ reading

    def __iter__(self) -> Iterator[Piece]:
        self.departures, self.regridded, self.repaired = {}, {}, 0
        for start, stop in self._ranges():
            part = self._converted(self._data.isel({self.dimension: slice(start, stop)}).compute())
            for places, chosen in self._complete(part, start):
                runs = self._trajectories(chosen)
                names = [self._label(start + int(place)) for place in places]
                for part in regridded(runs, self.declared.steps, names.__getitem__):
                    self.declared.check_size(part.runs, part.done)
                    self._note(part)
                    yield Piece(start + places[part.places], part.runs)

    def _converted(self, part: xr.Dataset) -> xr.Dataset:
        """Return a part in the units of training."""
        # Variables, not arrays: those would be aligned with the coordinates they had before.
        return part.assign({name: part[name].variable * factor for name, (_, factor) in self.conversions.items()})

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Yield first and last run (exclusive) of each piece; a chunk of Dask lies in one, so that it is made once."""
        chunks = self._data.unify_chunks().chunksizes.get(self.dimension)
        if chunks is None:
            sizes = [self.batch] * math.ceil(self.count / self.batch)
        else:
            sizes = [0]
            for size in chunks:
                if sizes[-1] and sizes[-1] + size > self.batch:
                    sizes.append(0)
                sizes[-1] += size
        start = 0
        for size in sizes:
            yield start, min(start + size, self.count)
            start += size

    def _complete(self, part: xr.Dataset, start: int) -> Iterator[tuple[NDArray[np.int64], xr.Dataset]]:
        """Yield groups of runs without missing values, of equal shape, and their places in the part."""
        complete = np.ones((part.sizes[self.dimension], part.sizes["time"]), dtype=bool)
        for name in self.declared.field_names:
            values = part[name].transpose(self.dimension, "time", *self.declared.axis_names).values
            if values.dtype.kind not in "fiu":
                raise FormatError(f"field '{name}' has dtype {values.dtype}; expected real numbers.")
            complete &= (np.isfinite(values) & ~is_default_fill(values)).reshape(*complete.shape, -1).all(axis=-1)
        whole = complete.all(axis=1)
        if whole.all():
            yield np.arange(len(whole)), part
            return
        if self.missing == "refuse":
            first = int(np.argmin(whole))
            raise DataError(
                f"{int((~whole).sum())} runs hold NaN or infinite values, first {self._label(start + first)}, in "
                f"{int((~complete[first]).sum())} of its {complete.shape[1]} frames. Leave such runs out, or keep "
                "their complete frames: missing='drop' (the longest stretch) or missing='interpolate'."
            )
        if whole.any():
            yield np.flatnonzero(whole), part.isel({self.dimension: whole})
        for row in np.flatnonzero(~whole):
            run = part.isel({self.dimension: [row]})
            self.repaired += 1
            yield np.array([row]), self._repaired(run, complete[row], self._label(start + row))

    def _repaired(self, run: xr.Dataset, complete: NDArray[np.bool_], label: str) -> xr.Dataset:
        needed = self._frames_needed(run)
        there = np.flatnonzero(complete)
        if self.missing == "interpolate" and len(there):
            stretch = slice(int(there[0]), int(there[-1]) + 1)
            gap = int(np.diff(there).max(initial=1)) - 1
            if 2 * len(there) < stretch.stop - stretch.start:
                raise DataError(
                    f"{label} lacks {int((~complete).sum())} of {len(complete)} frames (a gap of {gap}); at least half "
                    "of the frames between the first and the last complete one are needed to interpolate. Leave it out."
                )
        else:
            edges = np.flatnonzero(np.diff(np.concatenate([[False], complete, [False]]).astype(np.int8)))
            starts, stops = edges[::2], edges[1::2]
            best = int(np.argmax(stops - starts)) if len(starts) else -1
            stretch = slice(int(starts[best]), int(stops[best])) if best >= 0 else slice(0, 0)
        if stretch.stop - stretch.start < needed:
            raise DataError(
                f"{label} has {stretch.stop - stretch.start} complete frames in a row; the model needs {needed}. Leave "
                "it out, or try missing='interpolate'."
            )
        if self.missing == "interpolate":
            run = self._interpolated(run, there)
        return run.isel(time=stretch)

    def _frames_needed(self, run: xr.Dataset) -> int:
        """Return the frames of this run that last as long as those the model needs."""
        needed = self.declared.frames or max(self.declared.needed[0], 2)
        times = np.asarray(run["time_nodes" if "time_nodes" in run.variables else "time"].values).reshape(-1)
        step = float(times[-1] - times[0]) / max(len(times) - 1, 1)
        low, high = self.declared.steps.get("time", (step, step))
        if step <= 0 or low <= step <= high:
            return needed
        return max(math.ceil((needed - 1) * (low if step < low else high) / step - 1e-6) + 1, 2)

    def _interpolated(self, run: xr.Dataset, there: NDArray[np.int64]) -> xr.Dataset:
        """Fill the frames that lack values linearly in time, from the complete ones before and after."""
        times = np.asarray(run["time_nodes" if "time_nodes" in run.variables else "time"].values).reshape(-1)
        t = times.astype(np.float64)
        after = np.clip(np.searchsorted(there, np.arange(len(t)), side="left"), 1, len(there) - 1)
        low, high = there[after - 1], there[after]
        share = (t - t[low]) / (t[high] - t[low])
        filled = {}
        for name in self.declared.field_names:
            order = ("time", self.dimension, *self.declared.axis_names)
            values = run[name].transpose(*order)
            weight = share.reshape(-1, *(1,) * (values.ndim - 1))
            between = (1 - weight) * values.values[low] + weight * values.values[high]
            between[there] = values.values[there]
            filled[name] = (order, between.astype(values.dtype))
        return run.assign(filled)

    def _trajectories(self, part: xr.Dataset) -> Trajectories:
        stated = str(self.attributes.get("boundary", ""))
        kinds = stated.split(",") if stated else list(self.declared.boundary)
        if len(kinds) == 1:
            kinds *= len(self.declared.axis_names)
        runs = Trajectories.from_xarray(
            part.rename({self.dimension: "trajectory"}) if self.dimension != "trajectory" else part,
            fields=self.declared.field_names,
            parameters=(),
            space=self.declared.axis_names,
            boundary=kinds,
            equation=self.declared.equation,
        )
        runs, repeated = runs.without_repeated_nodes()
        self.repeated |= repeated
        return self.declared.with_constants(runs)

    def _label(self, place: int) -> str:
        coordinate = self.carried.get(self.dimension)
        named = "" if coordinate is None else f" ({self.dimension} {np.atleast_1d(coordinate.values)[place]})"
        return f"run {place}{named}"

    # ------------------------------------------------------------------------------------ warnings

    def _note(self, part: Regridded) -> None:
        for name, outside in self.declared.departures(part.runs).items():
            self.departures[name] = self.departures.get(name, 0) + int(outside.sum())
        for name, words in part.done.items():
            self.regridded[f"{name} {words}"] = self.regridded.get(f"{name} {words}", 0) + len(part.places)

    def warnings(self) -> list[str]:
        """Return what a user should know about the runs that were read."""
        names = self.declared.units
        found = [
            f"{name} was converted from {unit} to {names[name.removesuffix('_nodes').removeprefix('length_')]}."
            for name, (unit, _) in self.conversions.items()
            if name in names
        ]
        found += [
            f"{number} of {self.count} runs were brought to the grid of training: {what}."
            for what, number in self.regridded.items()
        ]
        found += [f"{n} nodes at the end of {a} repeat others and were left out." for a, n in self.repeated.items()]
        for name, number in self.departures.items():
            low, high = self.declared.ranges[name]
            found.append(
                f"{number} of {self.count} runs have {name} outside the range of training "
                f"({low:.4g}{'' if low == high else f' to {high:.4g}'}): {self.beyond}."
            )
        if self.repaired:
            word = "shortened to their longest complete stretch" if self.missing == "drop" else "interpolated in time"
            found.append(f"{self.repaired} of {self.count} runs lacked values and were {word}.")
        stated = str(self.attributes.get("boundary", ""))
        if stated and stated != ",".join(self.declared.boundary):
            found.append(f"the data have boundary {stated}; training had {','.join(self.declared.boundary)}.")
        for name, values in self._constants.items():
            constant = self.declared.constants[name]
            if not np.allclose(values, constant, rtol=1e-6, atol=0):
                found.append(f"the data have {name} {values[0]:.4g}; all runs of training had {constant:.4g}.")
        equation = self.attributes.get("equation")
        if equation and self.declared.equation and equation != self.declared.equation:
            found.append(f"the data are said to solve '{equation}'; training had '{self.declared.equation}'.")
        return found

    def warn(self) -> None:
        """Issue each of :meth:`warnings` once."""
        for line in self.warnings():
            warnings.warn(line, UserWarning, stacklevel=4)

    # ------------------------------------------------------------------------------------ results

    def dataset(self, variables: dict[str, tuple[NDArray[Any], dict[str, Any]]]) -> xr.Dataset:
        """Return per-run values (n,) with the run coordinates and attributes of the data."""
        result = xr.Dataset(
            {n: xr.Variable((self.dimension,), v, a) for n, (v, a) in variables.items()}, attrs=self.attributes
        )
        if self.single:
            result = result.isel({self.dimension: 0})
        # A label kept as a coordinate must not take the place of its prediction.
        return result.assign_coords({n: c for n, c in self.carried.items() if n not in variables})

    def features(self, values: NDArray[np.float64]) -> xr.DataArray:
        """Return features (n, D) over runs and ``feature``, with run coordinates and attributes of the data."""
        result = xr.DataArray(
            values, dims=(self.dimension, "feature"), coords={"feature": np.arange(values.shape[1])}, name="features"
        )
        result.attrs = self.attributes
        return result.assign_coords({n: c for n, c in self.carried.items() if n != "feature"})


@dataclass(frozen=True, eq=False)
class Encoded:
    """Runs and the features that one encoder has of them: read once, for every readout that is fitted on them.

    Args:
        data: the runs, from which labels are taken.
        reader: of these runs, which have been read; says what is carried to results.
        values: features, (n, D), float64.
        trunk: the pooled values below the encoder's head, (n, D'), where they were asked for and are there.
        rows: features of every view, (n, V, D), where they were asked for: a ridge is fitted on all of them.
    """

    data: xr.Dataset | Trajectories
    reader: RunReader
    values: Tensor
    trunk: Tensor | None = None
    rows: Tensor | None = None

    def __getitem__(self, places: NDArray[np.int64]) -> Encoded:
        """Return some of the runs, which must be trajectories, in this order."""
        assert isinstance(self.data, Trajectories)  # noqa: S101  (a dataset is read as a whole)
        runs = self.data[places.tolist()]
        reader = RunReader(runs, self.reader.declared, self.reader.missing, self.reader.batch)
        trunk, rows = (None if part is None else part[places] for part in (self.trunk, self.rows))
        return Encoded(runs, reader, self.values[places], trunk, rows)


def encode(
    data: xr.Dataset | Trajectories,
    encoder: nn.Module | RunEncoder,
    declared: InputFormat,
    views: Views,
    seed: int = 0,
    layer: str = "features",
    missing: str = "refuse",
    batch: int = 64,
    equation: str | None = None,
    every: bool = False,
) -> Encoded:
    """Read runs piece by piece and return their features, in their order; see :func:`pdessl.inference.features`.

    Args:
        data: n runs.
        encoder: a network, or another encoder of runs.
        declared: what the model takes.
        views: that features of a network are averaged over.
        seed: of the views.
        layer: ``features``, ``trunk``, or ``both``.
        missing: as in :class:`RunReader`.
        batch: likewise.
        equation: of the views; default the declared one.
        every: keep the features of every view too, of hand-made features: networks are trained to ignore views.

    Raises:
        DataError: features that are not finite.
        FormatError: data outside the declared format.
    """
    reader = RunReader(data, declared, missing, batch)
    values: Tensor | None = None
    every = every and views.drawn and not isinstance(encoder, nn.Module) and sees_views(encoder)
    for piece in reader:
        seen = declared.fitted(views, piece.runs)
        found = features(encoder, piece.runs, seen, equation or declared.equation, seed, layer=layer, average=not every)
        bad = ~torch.isfinite(found.flatten(1)).all(dim=1)
        if bool(bad.any()):
            raise DataError(
                f"the encoder gives features that are not finite for run {int(piece.places[bad.numpy()][0])}: its "
                "values are too far from those of training. Check its units."
            )
        if values is None:
            values = found.new_empty((reader.count, *found.shape[1:]))
        values[torch.from_numpy(piece.places)] = found
    assert values is not None  # noqa: S101  (a reader has runs)
    if layer == "both" and has_trunk(encoder):
        width = int(encoder.feature_dim)  # type: ignore[union-attr, arg-type]
        return Encoded(data, reader, values[:, :width].contiguous(), values[:, width:].contiguous())
    return Encoded(data, reader, values.mean(dim=1), rows=values) if every else Encoded(data, reader, values)
