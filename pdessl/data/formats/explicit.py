"""What netCDF, Zarr and xarray say of themselves made into a mapping: which dimension is time, runs or space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pdessl.conventions import run_name
from pdessl.data.formats.container import Array, Container
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.errors import DataError, FormatError, did_you_mean
from pdessl.units import conversion

__all__ = ["explicit"]

TIME_NAMES = ("time", "t")
_NO_PARAMETERS = ("time", "t", "x", "y", "z", "index", "split", "trajectory", "crs", "grid_mapping", "mesh")
SPACE_NAMES = re.compile(
    r"n?[xyz](?:[\d_].*|[cfghpqtuvw]\d*|coord\w*|grid\w*)?|r?(?:lat|lon)(?:itude|gitude)?(?:[\d_].*)?|r|radius|theta|phi|"
    r"azimuth|height|depth|altitude|(?:xi|eta|zeta)(?:_\w+)?|south_north|west_east|bottom_top",
    re.IGNORECASE,
)


def explicit(container: Container, mapping: DatasetMapping) -> DatasetMapping:
    """Return a mapping in which every field names its dimensions, from the names the file has and the mapping's.

    The time dimension is that of the mapping, else ``time`` or ``t``; the run dimension that of the mapping, else the
    first of :data:`pdessl.conventions.RUN_NAMES`; the others of the first field are space where their names, attributes
    or the mapping say so, or where there is only one.
    Attributes ``fields``, ``parameters``, ``boundary`` and ``equation``, as :meth:`Trajectories.to_xarray` writes them,
    count where the mapping is silent.

    Raises:
        DataError: a field, dimension or parameter is missing; the message lists what there is.
        FormatError: fields are integers, and the mapping does not say that they may be converted; a dimension of which
            nothing says what it is; or fields on different grids.
    """
    arrays, attributes, content = container.arrays(), container.attributes(), dict(mapping.content)
    dimensions = {d for a in arrays.values() for d in a.dimensions or ()}
    time = _time(mapping, dimensions, container)
    if not content.get("fields"):
        content["fields"] = dict.fromkeys(_fields(mapping, attributes, arrays, time, container), {})
    fields = {
        n: ({"dataset": r} if isinstance(r, str) else {"dataset": n} | dict(r)) for n, r in content["fields"].items()
    }
    for name, rule in fields.items():
        if rule["dataset"] not in arrays:
            known = [n for n, a in arrays.items() if time in (a.dimensions or ())]
            raise DataError(
                f"{container.label} has no variable '{rule['dataset']}'.{did_you_mean(rule['dataset'], known)} "
                f"{container.held()} Map it:  fields: {{{name}: {known[0] if known else 'NAME'}}}"
            )
    first = arrays[next(iter(fields.values()))["dataset"]]
    if time not in (first.dimensions or ()):
        if any(d.startswith("phony_dim") for d in first.dimensions or ()):
            raise DataError(
                f"{container.label}: the axes of '{first.name}' {first.shape} have no names in the file. Name them in "
                f"the mapping, in the order they are stored:  dimensions: [trajectory, time, x]"
            )
        raise DataError(
            f"{container.label}: field '{first.name}' has dimensions {first.dimensions}, none named '{time}'. Name the "
            f"time dimension: time='...', in a mapping  time: {{dataset: ...}}"
        )
    given = mapping.get("space")
    own = set(first.dimensions or ()) - set(given or ())
    run = mapping.get("trajectory") or run_name(own)
    chosen = (time, run, *mapping.get("select", {}))
    names = given or _space(first, chosen, attributes, container)
    _one_grid(fields, first, chosen, container)
    space, renamed = {}, {time: "time", run: "trajectory"}
    for axis in names:
        rule = _plain((given or {}).get(axis))
        dimension = rule.get("dimension", axis)
        if dimension not in dimensions and rule.get("dataset") in arrays:
            dimension = (*(arrays[rule["dataset"]].dimensions or ()), axis)[0]
        if dimension not in (first.dimensions or ()):
            raise DataError(
                f"{container.label}: field '{first.name}' has dimensions {first.dimensions}, no axis '{axis}'."
                f"{did_you_mean(axis, first.dimensions or ())} Name the axes: space=[...], in a mapping  space: "
                f"{{x: {{}}}}"
            )
        renamed[dimension] = axis
        space[axis] = _coordinate(rule, dimension, axis, container)
    for name, rule in fields.items():
        held = arrays[rule["dataset"]].dimensions or ()
        rule.setdefault("dimensions", [renamed.get(d, d) for d in held])
        rule.setdefault("unit", str(container.attributes(rule["dataset"]).get("units", "")))
        if rule["dimensions"].count("time") != 1:
            raise DataError(f"{container.label}: field '{name}' has dimensions {held}, expected '{time}' among them.")
    content |= {
        "layout": "labelled",
        "fields": fields,
        "space": space,
        "dimensions": ["trajectory", "time", *space],
        "time": _coordinate(_of_times(_plain(mapping.get("time")), dimensions, container), time, "time", container),
        "boundary": _boundary(attributes, list(space)) | mapping.boundary,
        "parameters": _parameters(mapping, attributes, container, run),
    }
    if attributes.get("equation") and not content.get("equation"):
        content["equation"] = str(attributes["equation"])
    return DatasetMapping(mapping.name, content)


def _space(first: Array, chosen: tuple[str, ...], attributes: Mapping[str, Any], container: Container) -> list[str]:
    """Return the dimensions of a field that are axes of space.

    Raises:
        FormatError: one of several may be something else.
    """
    sizes = dict(zip(first.dimensions or (), first.shape, strict=True))
    names = [d for d, n in sizes.items() if d not in chosen and n > 1]
    if len(names) < 2 or len(str(attributes.get("boundary", "")).split(",")) == len(names):
        return names
    for name in names:
        if not _is_axis(name, container):
            axes = ", ".join(f"{n}: {{}}" for n in names)
            runs = f"If its entries are runs:  trajectory: {name}. " if chosen[1] not in sizes else ""
            raise FormatError(
                f"{container.label}: '{first.name}' has a further dimension '{name}' of size {sizes[name]}, and "
                f"nothing says what it is. {runs}For one entry of it:  select: {{{name}: 0}}. If it is an axis of "
                f"space, name all of them:  space: {{{axes}}}"
            )
    return names


def _is_axis(name: str, container: Container) -> bool:
    """Whether a dimension is an axis of space, by its name or by what its coordinate says of itself."""
    if SPACE_NAMES.fullmatch(name):
        return True
    found = container.attributes(name) if name in container.arrays() else {}
    unit, standard = str(found.get("units", "")), str(found.get("standard_name", ""))
    return (
        str(found.get("axis", "")).upper() in ("X", "Y", "Z")
        or any(word in standard for word in ("projection", "latitude", "longitude"))
        or unit.startswith("degree")
        or (bool(unit) and conversion(unit, "m") is not None)
    )


def _one_grid(fields: Mapping[str, Any], first: Array, chosen: tuple[str, ...], container: Container) -> None:
    """Refuse fields that lie on other nodes than the first, such as faces beside centres."""
    arrays, here = container.arrays(), dict(zip(first.dimensions or (), first.shape, strict=True))
    for name, rule in fields.items():
        array = arrays[rule["dataset"]]
        held = dict(zip(array.dimensions or (), array.shape, strict=True))
        other = [d for d, n in held.items() if d not in here and d not in chosen and n > 1]
        lacking = [d for d, n in here.items() if d not in held and d not in chosen and n > 1]
        if len(other) == 1 == len(lacking):
            a, b = other[0], lacking[0]
            brought = ""
            if a in arrays and b in arrays:
                stored = rule["dataset"]
                brought = f", or bring it there:  ds.assign({stored}=ds.{stored}.interp({a}=ds.{b}).drop_vars('{a}'))"
            kept = next(iter(fields))
            raise FormatError(
                f"{container.label}: '{name}' lies on another grid than '{kept}': along '{a}' ({held[a]} nodes), where "
                f"'{kept}' has '{b}' ({here[b]} nodes). Read one of them:  fields: {{{kept}: {{}}}}  "
                f"(fields=['{kept}']){brought}"
            )


def _plain(rule: Any) -> dict[str, Any]:
    return {"dataset": rule} if isinstance(rule, str) else dict(rule or {})


def _time(mapping: DatasetMapping, dimensions: set[str], container: Container) -> str:
    rule = _plain(mapping.get("time"))
    named = rule.get("dimension") or rule.get("dataset")
    if named in container.arrays() and named not in dimensions and container.array(named).dimensions:
        return container.array(named).dimensions[-1]  # type: ignore[index]
    if named is not None:
        return named
    return next((n for n in TIME_NAMES if n in dimensions), "time")


def _of_times(rule: dict[str, Any], dimensions: set[str], container: Container) -> dict[str, Any]:
    """Return the rule of the times where it names a coordinate along another dimension in place of a dimension."""
    named = rule.get("dimension")
    return {"dataset": named} | rule if named in container.arrays() and named not in dimensions else rule


def _fields(
    mapping: DatasetMapping, attributes: Mapping[str, Any], arrays: Mapping[str, Array], time: str, container: Container
) -> list[str]:
    named = [n for n in str(attributes.get("fields", "")).split(",") if n in arrays]
    coordinates = {d for a in arrays.values() for d in a.dimensions or ()}
    # Ends of the cells of a coordinate, named by CF attributes, are no fields.
    coordinates |= {str(container.attributes(n).get(key, "")) for n in arrays for key in ("bounds", "climatology")}
    over_time = [
        n
        for n, a in arrays.items()
        if time in (a.dimensions or ()) and len(a.shape) > 1 and n not in coordinates and not n.endswith("_nodes")
    ]
    kinds = "fiu" if mapping.get("integers") == "convert" else "f"
    found = named or [n for n in over_time if arrays[n].dtype.kind in kinds]
    integers = [n for n in over_time if arrays[n].dtype.kind in "iu"]
    if not found and integers:
        raise FormatError(
            f"{container.label}: '{integers[0]}' holds {arrays[integers[0]].dtype}, expected floating-point numbers. "
            f"To convert integers, say so in the mapping:  integers: convert"
        )
    if not found:
        raise DataError(
            f"{container.label}: no variable with a time dimension '{time}' and another one. {container.held()} "
            f"Name the "
            f"fields to read: fields=['...'], and the time dimension: time='...'."
        )
    return found


def _coordinate(rule: dict[str, Any], dimension: str, axis: str, container: Container) -> dict[str, Any]:
    """Return the rule of an axis with the file's own coordinate, length and unit where it names none."""
    arrays = container.arrays()
    if rule.get("dataset") not in arrays:
        rule.pop("dataset", None)
    if not {"dataset", "step", "extent_of", "nodes"} & set(rule):
        found = next((n for n in (f"{dimension}_nodes", dimension) if n in arrays), None)
        if found is not None:
            rule["dataset"] = found
            if f"length_{dimension}" in arrays:
                rule.setdefault("length", f"length_{dimension}")
    if rule.get("dataset") in arrays and "unit" not in rule:
        rule["unit"] = str(container.attributes(rule["dataset"]).get("units", ""))
    return rule


def _boundary(attributes: Mapping[str, Any], axes: list[str]) -> dict[str, str]:
    kinds = str(attributes.get("boundary", "")).split(",")
    return dict(zip(axes, kinds, strict=True)) if len(kinds) == len(axes) and kinds[0] else {}


def _parameters(
    mapping: DatasetMapping, attributes: Mapping[str, Any], container: Container, run: str
) -> dict[str, Any]:
    """Return the rule of each parameter that the file has, with ``dataset`` or ``attribute`` and the unit filled in.

    Where neither the mapping nor the file's attribute ``parameters`` names any, they are the numbers that a file states
    once, or once per run: attributes, and variables without dimensions or along the runs alone. One that is named and
    not there keeps a rule that leads nowhere: the runs of this file have no label.
    """
    given = mapping.get("parameters")
    if given is None and "parameters" in attributes:
        given = {n: {} for n in str(attributes["parameters"]).split(",") if n}
    if given is None:
        given = {n: {} for n in _numbers(attributes, container, run)} if container.path is not None else {}
    found = {}
    for name, value in given.items():
        rule = {"value": value} if isinstance(value, (int, float)) else _plain(value)
        if not {"dataset", "attribute", "token", "value"} & set(rule):
            rule["dataset" if name in container.arrays() else "attribute"] = name
        if rule.get("dataset") in container.arrays() and "unit" not in rule:
            rule["unit"] = str(container.attributes(rule["dataset"]).get("units", ""))
        found[name] = rule
    return found


def _numbers(attributes: Mapping[str, Any], container: Container, run: str) -> list[str]:
    """Return the names of attributes and arrays that are one number per file or run, and no coordinate of anything."""
    stated = [n for n, v in attributes.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    arrays = container.arrays()
    axes = {d for a in arrays.values() for d in a.dimensions or ()}
    scalars = [
        n
        for n, a in arrays.items()
        if a.dtype.kind in "fiu"
        and (a.dimensions in ((), (run,)) or a.shape == ())
        and n not in axes
        and n not in _NO_PARAMETERS
        and not n.endswith("_nodes")
        and not n.startswith("length_")
    ]
    return [*scalars, *(n for n in stated if n not in arrays and n not in _NO_PARAMETERS)]
