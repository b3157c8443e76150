"""Datasets in memory, and the keywords that stand for a mapping."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pdessl.data.formats.explicit import explicit
from pdessl.data.formats.files import Files
from pdessl.data.formats.labelled import LabelledFile
from pdessl.data.formats.mapping import DatasetMapping, load_mapping
from pdessl.errors import DataError
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["from_xarray", "is_dataset", "source_from_xarray"]


def is_dataset(value: object) -> bool:
    """Whether a value is an :class:`xarray.Dataset`; there are none where nobody has loaded xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, xarray.Dataset)


def from_xarray(
    dataset: xr.Dataset,
    fields: Sequence[str] | Mapping[str, str] | None = None,
    time: str | None = None,
    space: Sequence[str] | None = None,
    parameters: Sequence[str] | Mapping[str, float | str] | None = None,
    equation: str | None = None,
    *,
    trajectory: str | None = None,
    boundary: str | Sequence[str] | None = None,
    dt: float | None = None,
    dx: float | Sequence[float] | None = None,
    length: float | Sequence[float] | None = None,
    select: Mapping[str, int] | None = None,
    missing: str = "refuse",
    dtype: str | None = None,
) -> Trajectories:
    """Read an :class:`xarray.Dataset` of one's own.

    ::

        pdessl.from_xarray(ds, fields=["u"], time="t", space=["x"], parameters=["nu"], equation="burgers")

    Dimensions may be in any order; those of size 1 that are not named are dropped. Units in the attributes are carried
    along, nothing is converted.

    Args:
        dataset: fields as variables over time, space and, where there are several runs, a run dimension.
        fields: variables to read, or ``{channel: variable}``; default the attribute ``fields``, else all floating-point
            variables with the time dimension.
        time: name of the time dimension; default ``time`` or ``t``.
        space: names of the space dimensions, in axis order; default the others of the first field, where their names
            or coordinates say that they are space.
        parameters: variables over the runs, scalars or attributes to read as parameters, or ``{name: variable or
            number}``. A letter of the equation (``nu``) gets the name users see (``viscosity``).
        equation: name in the catalog.
        trajectory: name of the run dimension; default the first of :data:`pdessl.conventions.RUN_NAMES` that the first
            field has. A dataset without one is a single run.
        boundary: ``periodic``, ``wall`` or ``window``, for all axes or one per axis; default the attribute
            ``boundary``, else ``window``.
        dt: interval between frames, where the dataset has no coordinate of time; goes before one it has.
        dx: distance between nodes, for all axes or one per axis; goes before the coordinates.
        length: length of the axes: with coordinates or ``dx`` their period, else nodes are at j length / X.
        select: entries of further dimensions, ``{"level": 0}``.
        missing: ``refuse`` NaN, or ``drop`` the trajectories that hold some.
        dtype: ``float32`` or ``float64`` to convert the fields, also integers; default as they are.

    Raises:
        DataError: a field, dimension, coordinate or parameter is missing, coordinates are irregular, or values are not
            finite; the message says what there is and what to write.
        FormatError: a field is not floating-point, or has a further dimension.
        CatalogError: no such equation.
    """
    if not is_dataset(dataset):
        raise DataError(
            f"expected an xarray.Dataset, found {type(dataset).__name__}. Make one:  "
            f"xr.Dataset({{'u': (('run', 'time', 'x'), values)}}, coords={{'time': t, 'x': x}})"
        )
    fields, space, parameters = ((v,) if isinstance(v, str) else v for v in (fields, space, parameters))
    content: dict[str, Any] = {"format": "xarray", "layout": "labelled", "missing": missing}
    if fields is not None:
        content["fields"] = dict(fields) if isinstance(fields, Mapping) else {name: {} for name in fields}
    if time is not None or dt is not None:
        content["time"] = ({"dimension": time} if time is not None else {}) | ({"step": dt} if dt is not None else {})
    axes = space
    if axes is None and (dx is not None or length is not None or boundary is not None):
        guess = DatasetMapping("dataset", content | ({"trajectory": trajectory} if trajectory else {}))
        axes = explicit(LabelledFile(dataset=dataset), guess).axes
    if axes is not None:
        rules: dict[str, dict[str, Any]] = {axis: {} for axis in axes}
        for key, value in (("step", dx), ("length", length)):
            values = value if isinstance(value, Sequence) else [value] * len(rules)
            for axis, number in zip(rules, _one_per_axis(key, values, rules), strict=True):
                if number is not None:
                    rules[axis][key] = number
        content["space"] = rules
        if boundary is not None:
            kinds = [boundary] * len(rules) if isinstance(boundary, str) else list(boundary)
            content["boundary"] = dict(zip(rules, _one_per_axis("boundary", kinds, rules), strict=True))
    if parameters is not None:
        content["parameters"] = dict(parameters) if isinstance(parameters, Mapping) else {n: {} for n in parameters}
    optional = {
        "equation": equation,
        "trajectory": trajectory,
        "dtype": dtype,
        "integers": dtype and "convert",
        "select": select and dict(select),
    }
    content |= {key: value for key, value in optional.items() if value is not None}
    return source_from_xarray(dataset, content).load("all")


def source_from_xarray(dataset: xr.Dataset, mapping: Mapping[str, Any] | DatasetMapping) -> Files:
    """Return a dataset in memory as a source, read as a mapping says; see :func:`pdessl.data.formats.load_mapping`."""
    return Files("dataset", load_mapping(mapping), [LabelledFile(dataset=dataset)])


def _one_per_axis(key: str, values: Sequence[Any], axes: Mapping[str, Any]) -> Sequence[Any]:
    if len(values) != len(axes):
        word = {"step": "dx", "length": "length"}.get(key, key)
        raise DataError(f"{len(values)} values of {word} for the axes {', '.join(axes)}; give one, or one per axis.")
    return values
