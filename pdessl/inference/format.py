"""The input a model declares: names, units and sizes that it needs, and the ranges that it was trained on."""

# B runs, T frames, X space, d space axes

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from pdessl.conventions import RUN_NAMES
from pdessl.errors import FormatError, did_you_mean
from pdessl.inference.encoding import RunEncoder
from pdessl.inference.regridding import regridded, trained_steps
from pdessl.inference.views import Views
from pdessl.models.encoder import network_of
from pdessl.operators import LatentOperator
from pdessl.trajectory import Trajectories
from pdessl.units import conversion

__all__ = ["InputFormat", "constants_of"]


@runtime_checkable
class _Stacked(Protocol):
    """A network of so many frames, stacked as channels: it reads no other number."""

    stacked_frames: int | None


_ROUNDING = 1e-3  # relative: a spacing that differs by less is the same


@dataclass(frozen=True)
class InputFormat:
    """What a model takes.

    Args:
        field_names, axis_names, boundary, equation: as in :class:`pdessl.Trajectories`.
        units: unit of fields, axes and ``time`` as far as known. A file that names another one of the same kind (cm for
            m) is converted; one of another kind is refused.
        needed: frames and nodes per axis that the encoder or its window takes at least, (1 + d,).
        frames: number of frames the encoder takes, no more and no fewer; None: any from ``needed`` on.
        whole: space axes that views hold whole, so that a run may have any number of nodes along them.
        constants: parameters that had one value in all runs of training and are no target (the coefficient of a term,
            which some symmetries need); new runs are taken to have it too.
        steps: smallest and largest step of ``time`` and of each space axis that the encoder was trained on; runs on
            other grids are brought to them (:func:`pdessl.inference.regridding.regridded`).
        ranges: smallest and largest frames, time step, nodes, spacing and length of the runs it was fitted on. Runs
            outside are accepted with a warning.
    """

    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    boundary: tuple[str, ...]
    equation: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    needed: tuple[int, ...] = ()
    frames: int | None = None
    whole: tuple[bool, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @staticmethod
    def of(
        data: Trajectories,
        encoder: nn.Module | RunEncoder,
        views: Views,
        units: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> InputFormat:
        """Return the format of runs that a model is fitted on, as it reads them through its views.

        Args:
            data: the runs. Where the encoder knows the steps it was trained on, they are brought to them first.
            encoder: as in :class:`pdessl.inference.ParameterModel`. A law reads runs on the grid they have.
            views: that features are averaged over.
            units: of fields and axes.
            constants: parameters that are the same in all runs.

        Raises:
            FormatError: runs on a grid that is too coarse for the encoder.
        """
        own = isinstance(encoder, LatentOperator) or getattr(encoder, "reads_any_grid", False)
        steps = {} if own else trained_steps(encoder, data)
        parts = [part.runs for part in regridded(data, steps)]
        runs = parts[0]
        inner = network_of(encoder) if isinstance(encoder, nn.Module) else encoder
        stacked = inner.stacked_frames if isinstance(inner, _Stacked) else None
        nodes = tuple(min(sizes) for sizes in zip(*(p.fields.shape[3:] for p in parts), strict=True))
        window = views.window or (stacked or 1, *nodes)
        whole = tuple(w >= n for w, n in zip(window[1:], nodes, strict=True))
        known = {*runs.field_names, *runs.axis_names, "time"}
        return InputFormat(
            field_names=runs.field_names,
            axis_names=runs.axis_names,
            boundary=runs.boundary,
            equation=runs.equation,
            units={n: u for n, u in (units or {}).items() if n in known and u},
            needed=(window[0], *(1 if all_of_it else w for w, all_of_it in zip(window[1:], whole, strict=True))),
            frames=stacked if views.window is None else None,
            whole=whole,
            constants=dict(constants or {}),
            steps=steps,
            ranges={n: (float(v.min()), float(v.max())) for n, v in _measured(parts).items()},
        )

    def fitted(self, views: Views, runs: Trajectories) -> Views:
        """Return the views with a window that holds as many nodes of these runs as it held of those of training."""
        if views.window is None:
            return views
        sizes = zip(views.window[1:], self.whole, runs.fields.shape[3:], strict=True)
        return dataclasses.replace(views, window=(views.window[0], *(n if w else size for size, w, n in sizes)))

    # ------------------------------------------------------------------------------ refused

    def check(self, dataset: xr.Dataset) -> str | None:
        """Check names, dimensions and sizes of a dataset, and return its dimension of runs (None: one run).

        Raises:
            FormatError: a field or dimension that is not the declared one; the message says how to mend it.
        """
        held = ", ".join(f"'{n}' {tuple(v.dims)}" for n, v in dataset.data_vars.items()) or "nothing"
        for name in self.field_names:
            if name not in dataset.data_vars:
                free = [str(n) for n in dataset.data_vars if n not in self.field_names and dataset[n].ndim > 1]
                other = f"'{free[0]}'" if free else "'its name there'"
                raise FormatError(
                    f"the data have no variable '{name}'.{did_you_mean(name, free)} They hold {held}; the model takes "
                    f"{', '.join(self.field_names)}. If it has another name there: ds.rename({{{other}: '{name}'}})."
                )
        dimension = self._run_dimension(dataset)
        order = {"time", *self.axis_names} | ({dimension} if dimension else set())
        for name in self.field_names[1:]:
            if set(dataset[name].dims) != order:
                raise FormatError(
                    f"field '{name}' has dimensions {tuple(dataset[name].dims)}; expected "
                    f"{tuple(dataset[self.field_names[0]].dims)} in any order, as '{self.field_names[0]}' has. Bring "
                    "both to one grid, e.g. with ds.interp."
                )
        for name in ("time", *self.axis_names):
            if not dataset.sizes[name]:
                raise FormatError(f"the data have no entries along '{name}'. Give a longer run.")
        return dimension

    def check_size(self, runs: Trajectories, done: Mapping[str, str]) -> None:
        """Check that runs on the grid of training are long enough.

        Args:
            runs: as they came out of :func:`pdessl.inference.regridding.regridded`.
            done: what was done to which axis.

        Raises:
            FormatError: too few frames or nodes, or too many frames for the encoder.
        """
        for name, size, needed in zip(("time", *self.axis_names), runs.fields.shape[2:], self.needed, strict=True):
            brought = f", {done[name]}" if name in done else ""
            if size < needed:
                raise FormatError(
                    f"the data have {size} entries along '{name}'{brought}; the model needs {needed} or more. Give a "
                    "longer run, or fit a model with a smaller window."
                )
            if name == "time" and self.frames is not None and size != self.frames:
                repair = "Give shorter runs." if brought else f"Cut them: ds.isel(time=slice({self.frames}))."
                raise FormatError(f"the data have {size} frames{brought}; the encoder takes {self.frames}. {repair}")

    def _run_dimension(self, dataset: xr.Dataset) -> str | None:
        first = dataset[self.field_names[0]]
        wanted, found = ("time", *self.axis_names), [str(d) for d in first.dims]
        runs = next((d for d in found if d in RUN_NAMES and d not in wanted), None)
        extra = [d for d in found if d not in wanted and d != runs]
        missing = [d for d in wanted if d not in found]
        if not missing and not extra:
            return runs
        text = f"field '{first.name}' has dimensions {tuple(found)}; the model takes (runs, {', '.join(wanted)}). "
        if len(extra) == len(missing):
            names = ", ".join(f"'{a}': '{b}'" for a, b in zip(extra, missing, strict=True))
            raise FormatError(f"{text}Rename them: ds.rename({{{names}}}).")
        if missing:
            raise FormatError(
                f"{text}'{missing[0]}' is missing: the model was trained on {len(self.axis_names)} space dimension(s) "
                f"and time, and takes no others. Train an encoder on data like these."
            )
        raise FormatError(
            f"{text}'{extra[0]}' is one too many. If it counts runs: ds.rename({{'{extra[0]}': 'trajectory'}}); if it "
            f"is an axis of space, choose a slice: ds.isel({extra[0]}=0)."
        )

    def conversions(self, dataset: xr.Dataset) -> dict[str, tuple[str, float]]:
        """Return, by variable, the unit of the data and the factor from it to that of training, where these differ.

        Raises:
            FormatError: a unit that no factor takes to the declared one; the message says how to mend it.
        """
        found = {}
        for name, unit in self.units.items():
            for variable in (name, f"{name}_nodes", f"length_{name}"):
                if variable not in dataset.variables:
                    continue
                stated = [str(dataset[v].attrs.get("units", "")) for v in (variable, name) if v in dataset.variables]
                here = next((u for u in stated if u), unit)
                factor = conversion(here, unit)
                if factor is None:
                    raise FormatError(
                        f"'{variable}' is in '{here}' in the data; the model was trained on '{unit}'. Convert the "
                        f"values, or, where both mean the same, write ds['{variable}'].attrs['units'] = '{unit}'."
                    )
                if factor != 1:
                    found[variable] = here, factor
        return found

    # ------------------------------------------------------------------------------ accepted with a warning

    def with_constants(self, runs: Trajectories) -> Trajectories:
        """Return runs whose only parameters are the constants: what views may know of new runs."""
        return runs.replace(
            parameters={
                n: torch.full((len(runs),), v, dtype=torch.float64, device=runs.device)
                for n, v in self.constants.items()
            }
        )

    def departures(self, runs: Trajectories) -> dict[str, Tensor]:
        """Return what of which runs is outside the ranges of training: ``{name: (B,) bool}``, where some is."""
        found = {}
        for name, values in _measures(runs).items():
            low, high = self.ranges[name]
            outside = (values < low * (1 - _ROUNDING)) | (values > high * (1 + _ROUNDING))
            if bool(outside.any()):
                found[name] = outside
        return found

    def state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "field_names": list(self.field_names),
            "axis_names": list(self.axis_names),
            "boundary": list(self.boundary),
            "equation": self.equation,
            "units": dict(self.units),
            "needed": list(self.needed),
            "frames": self.frames,
            "whole": list(self.whole),
            "constants": dict(self.constants),
            "steps": {n: list(r) for n, r in self.steps.items()},
            "ranges": {n: list(r) for n, r in self.ranges.items()},
        }

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> InputFormat:
        """Return the format that :meth:`state` described."""
        return InputFormat(
            field_names=tuple(map(str, state["field_names"])),
            axis_names=tuple(map(str, state["axis_names"])),
            boundary=tuple(map(str, state["boundary"])),
            equation=state["equation"],
            units={str(n): str(u) for n, u in state["units"].items()},
            needed=tuple(map(int, state["needed"])),
            frames=state["frames"],
            whole=tuple(map(bool, state["whole"])),
            constants={str(n): float(v) for n, v in state["constants"].items()},
            # Models written before steps were kept stay as they were: runs are read on the grid they have.
            **{
                kind: {str(n): (float(low), float(high)) for n, (low, high) in state.get(kind, {}).items()}
                for kind in ("steps", "ranges")
            },
        )


def constants_of(data: xr.Dataset | Trajectories, besides: Collection[str] = ()) -> dict[str, float]:
    """Return the parameters that have one value in all of several runs, but for those of other names."""
    if isinstance(data, Trajectories):
        named: Mapping[str, Any] = {n: v.cpu().numpy() for n, v in data.parameters.items()}
    else:
        names = [n for n in str(data.attrs.get("parameters", "")).split(",") if n in data.variables]
        named = {n: data[n].values for n in names}
    held = {n: np.asarray(v, dtype=np.float64).reshape(-1) for n, v in named.items() if n not in besides}
    return {n: float(v[0]) for n, v in held.items() if len(v) > 1 and (v == v[0]).all()}


def _measured(parts: Sequence[Trajectories]) -> dict[str, Tensor]:
    each = [_measures(runs) for runs in parts]
    return {n: torch.cat([m[n] for m in each]) for n in each[0]}


def _measures(runs: Trajectories) -> dict[str, Tensor]:
    """Return frames, time step, nodes, spacing and length of each run, (B,) each."""
    count = torch.ones(len(runs), dtype=torch.float64)
    found = {"frames": count * runs.time.shape[1], "time step": runs.time_step}
    for i, axis in enumerate(runs.axis_names):
        found[f"nodes along {axis}"] = count * runs.space[i].shape[1]
        found[f"spacing along {axis}"] = runs.grid_spacing[:, i]
        found[f"length of {axis}"] = runs.lengths[:, i]
    return {n: v.detach().cpu() for n, v in found.items()}
