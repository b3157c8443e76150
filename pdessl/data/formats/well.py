"""The Well's HDF5 layout (version 1.2): what the attributes of a file say about its arrays."""

# T frames, d space axes

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdessl.data.formats.container import Container
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.errors import FormatError
from pdessl.schema import read_yaml

__all__ = ["RANKS", "STATISTICS", "published_statistics", "well_mapping"]

RANKS = ("t0_fields", "t1_fields", "t2_fields")
STATISTICS = ("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")
_KINDS = {"PERIODIC": "periodic", "WALL": "wall", "OPEN": "window"}


def well_mapping(container: Container, mapping: DatasetMapping) -> DatasetMapping:
    """Return a mapping with the fields, axes, boundaries and scalars that a file of The Well names in its attributes.

    Channels are in the order of the attributes, t0 then t1 then t2; components are named by axis (``velocity_x``,
    ``D_xy``). A field that does not vary along an axis, or in time, is repeated along it.

    Raises:
        FormatError: an attribute is missing or contradicts the arrays.
    """
    root = container.attributes()
    axes = _strings(container.attributes("dimensions").get("spatial_dims"))
    if not axes:
        raise FormatError(
            f"{container.label}: group 'dimensions' has no attribute 'spatial_dims', so it is not in The Well's "
            f"layout. "
            f"{container.held()} Describe the file in a mapping:  dimensions: [trajectory, time, x], fields: {{...}}"
        )
    fields: dict[str, dict[str, Any]] = {}
    for rank, group in enumerate(RANKS):
        for name in _strings(container.attributes(group).get("field_names")):
            fields |= _channels(container, f"{group}/{name}", name, rank, axes)
    faults: list[str] = []
    boundary = _boundaries(container, axes, faults)
    if root.get("grid_type", "cartesian") != "cartesian":
        faults.append(
            f"the grid is {root['grid_type']}: derivatives and shifts that assume straight axes do not apply."
        )
    for axis in axes:
        if container.attributes(f"dimensions/{axis}").get("time_varying"):
            raise FormatError(f"{container.label}: the nodes of axis {axis} move in time, which is not supported.")
    content = {
        **mapping.content,
        "title": f"The Well, {root.get('dataset_name', 'unnamed')}",
        "fields": mapping.content.get("fields") or fields,
        "dimensions": ["trajectory", "time", *axes],
        "time": mapping.content.get("time") or {"dataset": "dimensions/time"},
        "space": mapping.content.get("space") or {a: {"dataset": f"dimensions/{a}"} for a in axes},
        "boundary": boundary | mapping.boundary,
        "parameters": mapping.content.get("parameters") or _scalars(container, root, faults),
        "faults": [*mapping.content.get("faults", ()), *faults],
    }
    return DatasetMapping(mapping.name, content)


def _channels(container: Container, path: str, name: str, rank: int, axes: list[str]) -> dict[str, dict[str, Any]]:
    attributes = container.attributes(path)
    varies = attributes.get("dim_varying")
    if not isinstance(varies, list) or len(varies) != len(axes):
        raise FormatError(f"{container.label}: '{path}' has dim_varying {varies!r}, expected {len(axes)} booleans.")
    dimensions = ["trajectory"] * bool(attributes.get("sample_varying"))
    dimensions += ["time"] * bool(attributes.get("time_varying"))
    dimensions += [axis for axis, there in zip(axes, varies, strict=True) if there] + ["component"] * rank
    shape = container.array(path).shape
    if len(shape) != len(dimensions) or shape[len(shape) - rank :] != (len(axes),) * rank:
        raise FormatError(
            f"{container.label}: '{path}' has shape {shape}; by its attributes its axes are {', '.join(dimensions)}, "
            f"with {len(axes)} components. Repair the attributes sample_varying, time_varying and dim_varying."
        )
    numbers: list[tuple[int, ...]] = [()]
    for _ in range(rank):
        numbers = [(*n, i) for n in numbers for i in range(len(axes))]
    rule = {"dataset": path, "dimensions": dimensions}
    return {
        (f"{name}_{''.join(axes[i] for i in n)}" if n else name): rule | ({"component": list(n)} if n else {})
        for n in numbers
    }


def _boundaries(container: Container, axes: list[str], faults: list[str]) -> dict[str, str]:
    """Return the kind of boundary per axis: as The Well's reader has it, open where no mask holds."""
    found = dict.fromkeys(axes, "window")
    seen: dict[str, set[str]] = {axis: set() for axis in axes}
    for name in sorted({a.split("/")[1] for a in container.arrays() if a.startswith("boundary_conditions/")}):
        attributes = container.attributes(f"boundary_conditions/{name}")
        kind = str(attributes.get("bc_type", "")).upper()
        for axis in _strings(attributes.get("associated_dims")):
            mask = f"boundary_conditions/{name}/mask"
            if axis not in seen or mask not in container.arrays() or container.arrays()[mask].bytes > 1 << 24:
                continue
            if container.read(mask).any():
                seen[axis].add(_KINDS.get(kind, "window"))
            else:
                faults.append(
                    f"{container.label}: boundary '{name}' has an empty mask, so axis {axis} reads as open. If it is "
                    f"{kind.lower()}, say so in the mapping:  boundary: {{{axis}: {_KINDS.get(kind, 'window')}}}"
                )
    for axis, kinds in seen.items():
        if kinds:
            found[axis] = "window" if "window" in kinds else "periodic" if kinds == {"periodic"} else "wall"
    return found


def _scalars(container: Container, root: Mapping[str, Any], faults: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in _strings(container.attributes("scalars").get("field_names")):
        if container.attributes(f"scalars/{name}").get("time_varying"):
            faults.append(f"{container.label}: scalar '{name}' varies in time and is not read as a parameter.")
        else:
            found[name] = {"dataset": f"scalars/{name}"}
    for name in _strings(root.get("simulation_parameters")):
        if name not in found and isinstance(root.get(name), (int, float)):
            found[name] = {"attribute": name}
    return found


def _strings(value: Any) -> list[str]:
    # An empty list of names is stored by h5py as an empty array of numbers.
    return [str(v) for v in value] if isinstance(value, list) else []


def published_statistics(
    path: Path, field_names: tuple[str, ...], axes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Return the statistics a data set of The Well ships in ``stats.yaml``, ``{statistic: {channel: value}}``.

    Args:
        path: the data set's folder, its ``data`` folder, a split's folder or a file.
        field_names: the channels wanted.
        axes: names of the space axes, which name components.

    Returns:
        An empty mapping where there is no such file.
    """
    for folder in [path, *path.parents[:3]]:
        if (folder / "stats.yaml").is_file():
            content = read_yaml(folder / "stats.yaml")
            break
    else:
        return {}
    found: dict[str, dict[str, float]] = {}
    for statistic in STATISTICS:
        entries = content.get(statistic)
        flat: dict[str, float] = {}
        for name, value in entries.items() if isinstance(entries, dict) else ():
            _flatten(str(name), value, axes, flat, True)
        if flat:
            found[statistic] = {n: v for n, v in flat.items() if n in field_names}
    return found


def _flatten(name: str, value: Any, axes: tuple[str, ...], found: dict[str, float], first: bool) -> None:
    if isinstance(value, list):
        for axis, entry in zip(axes, value, strict=False):
            _flatten(f"{name}{'_' if first else ''}{axis}", entry, axes, found, False)
    elif isinstance(value, (int, float)):
        found[name] = float(value)
