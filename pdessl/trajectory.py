"""Trajectories: fields on a grid with their coordinates, physical parameters and boundary conditions."""

# B batch, C channels (field components), T time frames, X space (one axis per dimension), d number of space axes,
# A actuators

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pdessl.conventions import DEFAULT_FILLS, repeated_nodes
from pdessl.errors import DataError, ShapeError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr  # loaded where a dataset is made: that takes a second

__all__ = ["BOUNDARIES", "Trajectories"]

BOUNDARIES = ("periodic", "wall", "window")
NamedArray = tuple[tuple[str, ...], np.ndarray]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """A batch of trajectories of one PDE system on regular grids.

    Args:
        fields: values, shape (B, C, T, *X), any float dtype.
        time: times of the frames, shape (B, T), float64, strictly increasing.
        space: one tensor per space axis, shape (B, X_i), float64, the coordinates of the nodes.
        lengths: period of each periodic axis (and extent of the others), shape (B, d), float64.
        parameters: physical parameters by the name users see (``viscosity``), each of shape (B,), float64. Empty where
            they are unknown.
        field_names: names of the channels, length C.
        axis_names: names of the space axes, length d.
        boundary: per space axis ``periodic``, ``wall``, or ``window`` (a piece cut out of something larger).
        index: number of each trajectory in its split, shape (B,), int64.
        equation: name of the equation in the catalog, or None.
        partner: as many other trajectories, row by row one that was made at the same setting as this one; None where
            they are not drawn in pairs.
        actions: amplitudes of actuators, each held from its frame to the next one, shape (B, A, T - 1), in the unit of
            the fields over time; None for runs without.
        actuators: where they are, A tuples of d coordinates each; empty where that is not known.

    Units are those of the user's data; nothing here rescales them.

    Raises:
        ShapeError: shapes that do not fit each other; the message names both.
        DataError: an unknown boundary kind, or coordinates that do not increase.
    """

    fields: Tensor
    time: Tensor
    space: tuple[Tensor, ...]
    lengths: Tensor
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    field_names: tuple[str, ...] = ("u",)
    axis_names: tuple[str, ...] = ("x",)
    boundary: tuple[str, ...] = ("periodic",)
    index: Tensor | None = None
    equation: str | None = None
    partner: Trajectories | None = None
    actions: Tensor | None = None
    actuators: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.fields.shape)
        d = len(self.space)
        if len(shape) != 3 + d:
            raise ShapeError(
                f"fields have shape {shape}; with space axes {', '.join(self.axis_names)} expected (B, C, T, *X), "
                f"that is {3 + d} axes."
            )
        b, c, t = shape[:3]
        expected: dict[str, tuple[Tensor, tuple[int, ...]]]
        expected = {"time": (self.time, (b, t)), "lengths": (self.lengths, (b, d))}
        expected |= {
            f"space['{n}']": (s, (b, x)) for n, s, x in zip(self.axis_names, self.space, shape[3:], strict=False)
        }
        expected |= {f"parameters['{n}']": (p, (b,)) for n, p in self.parameters.items()}
        if self.index is not None:
            expected["index"] = (self.index, (b,))
        for name, (tensor, want) in expected.items():
            if tuple(tensor.shape) != want:
                raise ShapeError(f"{name} has shape {tuple(tensor.shape)}, expected {want} to fit fields {shape}.")
        self._check_actions(b, t)
        if self.partner is not None and len(self.partner) != b:
            raise ShapeError(f"{len(self.partner)} partners for {b} trajectories; expected one each.")
        if len(self.field_names) != c:
            raise ShapeError(f"{len(self.field_names)} field names {self.field_names} for {c} channels.")
        if len(self.axis_names) != d or len(self.boundary) != d:
            raise ShapeError(f"axis_names {self.axis_names} and boundary {self.boundary} must have {d} entries each.")
        for kind in self.boundary:
            if kind not in BOUNDARIES:
                raise DataError(
                    f"unknown boundary '{kind}'.{did_you_mean(kind, BOUNDARIES)} Known: {', '.join(BOUNDARIES)}."
                )

    def _check_actions(self, b: int, t: int) -> None:
        if self.actions is not None:
            found = tuple(self.actions.shape)
            if len(found) != 3 or found[::2] != (b, max(t - 1, 0)):
                raise ShapeError(
                    f"actions have shape {found}, expected (B, A, T - 1) = ({b}, A, {max(t - 1, 0)}): an amplitude of "
                    "every actuator for each interval between two frames."
                )
        count = 0 if self.actions is None else self.actions.shape[1]
        if self.actuators and (len(self.actuators) != count or {len(p) for p in self.actuators} != {len(self.space)}):
            raise ShapeError(
                f"positions {self.actuators} for the amplitudes of {count} actuators; expected {count} positions of "
                f"{len(self.space)} coordinates."
            )

    # ---------------------------------------------------------------- geometry

    def __len__(self) -> int:
        return self.fields.shape[0]

    def __repr__(self) -> str:
        axes = zip(self.axis_names, self.fields.shape[3:], self.boundary, strict=True)
        parts = [
            f"{len(self)} of {self.equation or 'an equation not named'}",
            f"fields {', '.join(self.field_names)} ({str(self.fields.dtype).removeprefix('torch.')})",
            f"{self.fields.shape[2]} frames",
            *(f"{name} {points} {kind}" for name, points, kind in axes),
            f"parameters {', '.join(self.parameters) or 'unknown'}",
            *([] if self.actions is None else [f"{self.actions.shape[1]} actuators"]),
        ]
        return f"Trajectories({'; '.join(parts)})"

    @property
    def device(self) -> torch.device:
        """Device of the fields (coordinates and parameters lie on the same one)."""
        return self.fields.device

    @property
    def time_step(self) -> Tensor:
        """Mean interval between frames, shape (B,), time."""
        steps = max(self.time.shape[1] - 1, 1)
        return (self.time[:, -1] - self.time[:, 0]) / steps

    @property
    def grid_spacing(self) -> Tensor:
        """Distance between nodes along each axis, shape (B, d), length."""
        return torch.stack([(s[:, -1] - s[:, 0]) / max(s.shape[1] - 1, 1) for s in self.space], dim=1)

    # --------------------------------------------------------- moving and slicing

    def _map(self, function: Any, **changes: Any) -> Trajectories:
        """Apply ``function`` to every tensor whose first axis is B."""
        return dataclasses.replace(
            self,
            fields=function(self.fields),
            time=function(self.time),
            space=tuple(function(s) for s in self.space),
            lengths=function(self.lengths),
            parameters={n: function(p) for n, p in self.parameters.items()},
            index=None if self.index is None else function(self.index),
            partner=None if self.partner is None else self.partner._map(function),
            actions=None if self.actions is None else function(self.actions),
            **changes,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Trajectories:
        """Return the batch on another device (Lightning calls this for every batch)."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Trajectories:
        """Return the batch in page-locked memory, from which a GPU fetches it while it computes."""
        return self._map(Tensor.pin_memory)

    def replace(self, **changes: Any) -> Trajectories:
        """Return a copy with some attributes replaced; shapes are checked again."""
        return dataclasses.replace(self, **changes)

    def __getitem__(self, key: int | slice | Sequence[int] | Tensor | np.ndarray) -> Trajectories:
        """Select trajectories; the result always keeps the batch axis."""
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"trajectory {key} of {len(self)}")
            key = [int(key)]
        if isinstance(key, (list, tuple, np.ndarray)):
            key = torch.as_tensor(np.asarray(key), device=self.device)
        return self._map(lambda t: t[key])

    def __iter__(self) -> Iterator[Trajectories]:
        return (self[i] for i in range(len(self)))

    def window(self, frames: slice, *space: slice) -> Trajectories:
        """Cut out frames and, per space axis, nodes. An axis that is cut becomes a ``window`` and loses its period."""
        if len(space) > len(self.space):
            raise ShapeError(f"{len(space)} space slices for {len(self.space)} space axes.")
        space = space + (slice(None),) * (len(self.space) - len(space))
        nodes = tuple(s[:, cut] for s, cut in zip(self.space, space, strict=True))
        boundary, lengths = list(self.boundary), self.lengths.clone()
        for i, (node, full) in enumerate(zip(nodes, self.space, strict=True)):
            if node.shape[1] != full.shape[1]:
                boundary[i] = "window"
                lengths[:, i] = node[:, -1] - node[:, 0]
        return dataclasses.replace(
            self,
            fields=self.fields[(slice(None), slice(None), frames, *space)],
            time=self.time[:, frames],
            space=nodes,
            lengths=lengths,
            boundary=tuple(boundary),
            partner=None if self.partner is None else self.partner.window(frames, *space),
            actions=self._actions_between(frames),
        )

    def _actions_between(self, frames: slice) -> Tensor | None:
        if self.actions is None:
            return None
        first, last, step = frames.indices(self.fields.shape[2])
        if step != 1:
            raise ShapeError(
                f"every {step}th frame of runs with actions: amplitudes are held between neighbouring frames only. "
                "Take all frames, or drop the actions: runs.replace(actions=None, actuators=())."
            )
        return self.actions[:, :, first : max(last - 1, first)]

    def without_parameters(self, but: Collection[str] = ()) -> Trajectories:
        """Return the batch with its labels removed, all but those named."""
        kept = {n: v for n, v in self.parameters.items() if n in but}
        partner = None if self.partner is None else self.partner.without_parameters(but)
        return dataclasses.replace(self, parameters=kept, partner=partner)

    @staticmethod
    def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
        """Join batches that share grid sizes, channels and parameters.

        Raises:
            ShapeError: nothing to join, or parts that differ in channels, axes, boundaries or parameter names.
        """
        if not parts:
            raise ShapeError("concatenate got no batches; give at least one.")
        first = parts[0]
        for part in parts[1:]:
            for name in ("field_names", "axis_names", "boundary", "equation", "actuators"):
                if getattr(part, name) != getattr(first, name):
                    raise ShapeError(
                        f"cannot join batches: {name} is {getattr(first, name)} in one and {getattr(part, name)} in "
                        "another."
                    )
            if set(part.parameters) != set(first.parameters):
                raise ShapeError(
                    f"cannot join batches: parameters {sorted(first.parameters)} and {sorted(part.parameters)}."
                )
            if part.fields.shape[1:] != first.fields.shape[1:]:
                raise ShapeError(
                    f"cannot join batches of shape {tuple(first.fields.shape)} and {tuple(part.fields.shape)}."
                )
        indices = [p.index for p in parts if p.index is not None]
        partners = [p.partner for p in parts if p.partner is not None]
        actions = [p.actions for p in parts if p.actions is not None]
        if len(actions) not in (0, len(parts)) or len({a.shape[1] for a in actions}) > 1:
            raise ShapeError("cannot join batches: they differ in their actuators, or only some have actions.")
        return dataclasses.replace(
            first,
            fields=torch.cat([p.fields for p in parts]),
            time=torch.cat([p.time for p in parts]),
            space=tuple(torch.cat([p.space[i] for p in parts]) for i in range(len(first.space))),
            lengths=torch.cat([p.lengths for p in parts]),
            parameters={n: torch.cat([p.parameters[n] for p in parts]) for n in first.parameters},
            index=torch.cat(indices) if len(indices) == len(parts) else None,
            partner=Trajectories.concatenate(partners) if len(partners) == len(parts) else None,
            actions=torch.cat(actions) if actions else None,
        )

    def without_repeated_nodes(self) -> tuple[Trajectories, dict[str, int]]:
        """Return the batch without nodes of periodic axes that repeat others, and how many these are per axis.

        An end node stored twice or halo cells, see :func:`pdessl.conventions.repeated_nodes`; looked for in the first,
        middle and last frame of every trajectory. A length that counts these nodes is corrected.
        """
        batch, left_out = self, {}
        frames = sorted({0, self.fields.shape[2] // 2, self.fields.shape[2] - 1})
        for axis, (name, kind) in enumerate(zip(self.axis_names, self.boundary, strict=True)):
            count = repeated_nodes(self.fields[:, :, frames].cpu().numpy(), 3 + axis) if kind == "periodic" else 0
            if not count:
                continue
            points, first = self.fields.shape[3 + axis], count // 2
            kept, lengths = slice(first, first + points - count), batch.lengths.clone()
            whole = self.grid_spacing[:, axis] * points
            counted = (lengths[:, axis] / whole - 1).abs() < 1e-6
            lengths[:, axis] = torch.where(counted, whole * (points - count) / points, lengths[:, axis])
            nodes = tuple(s[:, kept] if i == axis else s for i, s in enumerate(batch.space))
            fields = batch.fields[(..., *(kept if i == axis else slice(None) for i in range(len(nodes))))]
            batch, left_out[name] = batch.replace(fields=fields, space=nodes, lengths=lengths), count
        return batch, left_out

    def check_finite(self) -> Trajectories:
        """Return self, or raise naming the first trajectory, channel and frame that hold NaN or infinity.

        Raises:
            DataError: a value is not finite, or coordinates do not increase.
        """
        bad = ~torch.isfinite(self.fields)
        if self.fields.dtype in (torch.float32, torch.float64):
            bad |= self.fields == DEFAULT_FILLS["f8"]
        if bad.any():
            where = bad.nonzero()[0].tolist()
            rows = int(bad.flatten(1).any(dim=1).sum())
            raise DataError(
                f"field '{self.field_names[where[1]]}' is not finite in {rows} of {len(self)} trajectories, first in "
                f"trajectory {where[0]}, frame {where[2]}. Remove or repair these trajectories."
            )
        if self.actions is not None and not bool(torch.isfinite(self.actions).all()):
            raise DataError("actions are not finite. Remove or repair these trajectories.")
        for name, nodes in {"time": self.time, **dict(zip(self.axis_names, self.space, strict=True))}.items():
            if not torch.isfinite(nodes).all() or (nodes.shape[1] > 1 and not (nodes.diff(dim=1) > 0).all()):
                raise DataError(f"coordinate '{name}' must be finite and strictly increasing in every trajectory.")
        return self

    # ------------------------------------------------------------------- xarray

    def to_xarray(self) -> xr.Dataset:
        """Return a dataset with dimensions ``trajectory, time, *axes`` and one variable per channel.

        Coordinates shared by all trajectories become one-dimensional; others keep the ``trajectory`` dimension (as
        ``t`` for times, with integer ``time``). Parameters become variables over ``trajectory``. Actions become a
        variable ``actions`` over ``trajectory, actuator, interval``, the intervals between frames, with the positions
        of the actuators as coordinates.
        """
        import xarray as xr

        data, coordinates, attributes = self.to_arrays()
        return xr.Dataset(data, coords=coordinates, attrs=attributes)

    def to_arrays(self) -> tuple[dict[str, NamedArray], dict[str, NamedArray], dict[str, str]]:
        """Return what :meth:`to_xarray` makes a dataset of: variables and coordinates, each as names of its dimensions
        and values, and attributes.
        """
        cpu = self.to("cpu")
        dims = ("trajectory", "time", *self.axis_names)
        data: dict[str, NamedArray] = {n: (dims, cpu.fields[:, i].numpy()) for i, n in enumerate(self.field_names)}
        data |= {name: (("trajectory",), value.numpy()) for name, value in cpu.parameters.items()}
        coordinates: dict[str, NamedArray] = {}
        for name, nodes in {"time": cpu.time, **dict(zip(self.axis_names, cpu.space, strict=True))}.items():
            if bool((nodes == nodes[:1]).all()):
                coordinates[name] = ((name,), nodes[0].numpy())
            else:
                coordinates[f"{name}_nodes"] = (("trajectory", name), nodes.numpy())
        if cpu.actions is not None:
            data["actions"] = (("trajectory", "actuator", "interval"), cpu.actions.numpy())
            for axis, name in enumerate(self.axis_names if self.actuators else ()):
                coordinates[f"actuator_{name}"] = (("actuator",), np.array([p[axis] for p in self.actuators]))
        index = np.arange(len(self)) if cpu.index is None else cpu.index.numpy()
        coordinates["trajectory"] = (("trajectory",), index)
        for i, name in enumerate(self.axis_names):
            data[f"length_{name}"] = (("trajectory",), cpu.lengths[:, i].numpy())
        attributes = {"boundary": ",".join(self.boundary), "fields": ",".join(self.field_names)}
        attributes["parameters"] = ",".join(self.parameters)
        if self.equation:
            attributes["equation"] = self.equation
        return data, coordinates, attributes

    @staticmethod
    def from_xarray(
        dataset: xr.Dataset,
        fields: Sequence[str] | None = None,
        parameters: Sequence[str] | None = None,
        time: str = "time",
        space: Sequence[str] | None = None,
        trajectory: str = "trajectory",
        boundary: Sequence[str] | None = None,
        equation: str | None = None,
    ) -> Trajectories:
        """Read a dataset whose fields have dimensions trajectory, time and the space axes, in any order.

        The inverse of :meth:`to_xarray`; :func:`pdessl.from_xarray` reads datasets that are less complete.

        Args:
            dataset: fields as variables, coordinates for time and space, parameters as variables over trajectories (or
                scalars). A missing trajectory dimension means one run.
            fields: variables to read; default the dataset attribute ``fields``, else all that have the time dimension.
            parameters: variables to read as parameters; default attribute ``parameters``, else none.
            time: name of the time dimension.
            space: names of the space dimensions, in axis order; default all others of the first field.
            trajectory: name of the run dimension.
            boundary: per axis, see :class:`Trajectories`; default attribute ``boundary``, else ``window``.
            equation: name in the catalog; default the attribute ``equation``.

        Raises:
            DataError: a field, coordinate or parameter is missing (the message lists what there is), or values are not
                finite.
        """
        attributes = dataset.attrs
        if fields is None:
            named = [n for n in str(attributes.get("fields", "")).split(",") if n]
            fields = named or [str(n) for n, v in dataset.data_vars.items() if time in v.dims and v.ndim > 1]
        held = ", ".join(f"{n} {tuple(v.dims)}" for n, v in dataset.data_vars.items())
        missing = [n for n in fields if n not in dataset.data_vars]
        if missing or not fields:
            raise DataError(
                f"no variable '{missing[0] if missing else '(any with a time dimension)'}' in the dataset; it holds "
                f"{held or 'nothing'}. "
                f"Name the fields to read: fields=['...']."
            )
        first = dataset[fields[0]]
        if time not in first.dims:
            raise DataError(
                f"field '{fields[0]}' has dimensions {first.dims}, none named '{time}'. Name it: time='...'."
            )
        axes = list(space) if space is not None else [str(n) for n in first.dims if n not in (time, trajectory)]
        if trajectory not in first.dims:
            dataset = dataset.expand_dims(trajectory)
        order = (trajectory, time, *axes)
        for name in fields:
            if set(dataset[name].dims) != set(order):
                raise DataError(f"field '{name}' has dimensions {dataset[name].dims}, expected {order} in any order.")
        values = torch.stack([torch.as_tensor(np.array(dataset[n].transpose(*order).values)) for n in fields], dim=1)
        b = values.shape[0]

        def nodes(name: str) -> Tensor:
            for candidate in (f"{name}_nodes", name):
                if candidate in dataset.coords:
                    array = torch.as_tensor(np.array(dataset[candidate].values, dtype=np.float64))
                    return array if array.ndim == 2 else array.expand(b, -1).contiguous()
            raise DataError(f"coordinate '{name}' is missing: give the dataset one, e.g. ds.assign_coords({name}=...).")

        if boundary is None:
            boundary = str(attributes["boundary"]).split(",") if attributes.get("boundary") else ["window"] * len(axes)
        if len(boundary) != len(axes):
            raise DataError(
                f"{len(boundary)} boundary kinds {list(boundary)} for the space axes {axes} of field '{fields[0]}', "
                f"which has dimensions {first.dims}. Give one per axis: boundary=[...]."
            )
        space_nodes = tuple(nodes(n) for n in axes)
        lengths = []
        for name, node, kind in zip(axes, space_nodes, boundary, strict=True):
            if f"length_{name}" in dataset:
                lengths.append(torch.as_tensor(np.array(dataset[f"length_{name}"].values, dtype=np.float64)).reshape(b))
            else:
                step = (node[:, -1] - node[:, 0]) / max(node.shape[1] - 1, 1)
                lengths.append(step * (node.shape[1] - (kind != "periodic")))
        if parameters is None:
            parameters = [n for n in str(attributes.get("parameters", "")).split(",") if n]
        absent = [n for n in parameters if n not in dataset]
        if absent:
            raise DataError(f"no parameter '{absent[0]}' in the dataset; it holds {held}.")
        actions: Tensor | None = None
        actuators: tuple[tuple[float, ...], ...] = ()
        if "actions" in dataset:
            axes_of = (trajectory, "actuator", "interval")
            if set(dataset["actions"].dims) != set(axes_of):
                raise DataError(f"'actions' has dimensions {dataset['actions'].dims}, expected {axes_of} in any order.")
            actions = torch.as_tensor(np.array(dataset["actions"].transpose(*axes_of).values))
            places = [dataset[f"actuator_{n}"].values.tolist() for n in axes if f"actuator_{n}" in dataset.coords]
            actuators = tuple(zip(*places, strict=True)) if len(places) == len(axes) else ()
        index = None
        if trajectory in dataset.coords and np.issubdtype(dataset[trajectory].dtype, np.integer):
            index = torch.as_tensor(np.array(dataset[trajectory].values, dtype=np.int64)).reshape(b)
        return Trajectories(
            fields=values,
            time=nodes(time),
            space=space_nodes,
            lengths=torch.stack(lengths, dim=1),
            parameters={
                n: torch.as_tensor(np.array(np.broadcast_to(dataset[n].values, (b,)), dtype=np.float64))
                for n in parameters
            },
            field_names=tuple(fields),
            axis_names=tuple(axes),
            boundary=tuple(boundary),
            index=index,
            equation=equation or attributes.get("equation"),
            actions=actions,
            actuators=actuators,
        ).check_finite()
