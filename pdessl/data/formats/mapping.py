"""Mapping files: how the arrays of an external layout become fields, coordinates and parameters."""

# T frames, X nodes of an axis

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdessl import catalog
from pdessl.conventions import RUN_NAMES
from pdessl.data.schema import check_keys, check_type, is_number
from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.trajectory import BOUNDARIES

__all__ = ["AxisRule", "DatasetMapping", "FieldRule", "ParameterRule", "load_mapping", "mapping_names", "user_names"]

LAYOUTS = ("arrays", "meshgrid", "well", "labelled")
NODES = ("points", "centres", "ends")
ENDS = ("repeated", "measured", "kept")
TRANSFORMS = ("cole_hopf",)
SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
_TEXTS = ("title", "about", "known", "licence", "source")


@dataclass(frozen=True)
class FieldRule:
    """Where a channel comes from.

    Args:
        dataset: array that holds it; ``prefix*`` stands for the only one whose name begins so.
        component: number along the dimension ``component`` of that array, or one per dimension of that name, or None.
        dimensions: names of the array's axes; None: those of the mapping.
        staggered: axis on whose lower cell faces the values lie, or None for the nodes.
        transform: ``cole_hopf`` or None.
        arguments: what the transform needs, e.g. ``{viscosity: 0.01}``.
        scale: factor to the unit given, 1 leaves the values as stored.
        unit, description: free text.
    """

    dataset: str
    component: int | tuple[int, ...] | None = None
    dimensions: tuple[str, ...] | None = None
    staggered: str | None = None
    transform: str | None = None
    arguments: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    unit: str = ""
    description: str = ""

    _TYPES = {
        "dataset": str,
        "component": object,
        "dimensions": list,
        "staggered": str,
        "transform": str,
        "arguments": dict,
        "scale": float,
        "unit": str,
        "description": str,
    }


@dataclass(frozen=True)
class AxisRule:
    """Coordinates of time or of a space axis, by the first of ``dataset``, ``step``, ``extent_of``, ``length`` given.

    Args:
        dimension: name of the axis in files that name their dimensions; default that of the axis, or the dimension of
            ``dataset``.
        dataset: array of the nodes, shape (X,), or (n, X) with one row per trajectory.
        index: for an array of more axes: one entry per axis, an integer or ``:``.
        trim: the array may be longer than the axis by one entry, which is left out.
        step: distance between nodes: a number, or an array of one number per trajectory.
        start: coordinate of the first node.
        length: length of the whole axis: a number, or an array of one per trajectory.
        extent_of: array of nodes whose last minus first entry is the length of the axis; its other entries are not
            used.
        nodes: with ``length`` or ``extent_of``: ``points`` j L/X, ``centres`` (j + 1/2) L/X, ``ends`` j L/(X - 1). With
            ``dataset``, ``centres`` says that the axis goes on half a step beyond its outer nodes.
        end: ``repeated``: the last node of a periodic axis repeats the first and is left out; ``measured``: nodes that
            repeat others (an end node, halo cells) are left out where the first trajectory shows that they do; None:
            measured on periodic axes; ``kept``: all are nodes like the others.
        scale: factor to the unit given.
        unit: free text.
    """

    dimension: str | None = None
    dataset: str | None = None
    index: tuple[int | str, ...] | None = None
    trim: bool = False
    step: float | str | None = None
    start: float | None = None
    length: float | str | None = None
    extent_of: str | None = None
    nodes: str = "points"
    end: str | None = None
    scale: float = 1.0
    unit: str = ""

    _TYPES = {
        "dimension": str,
        "dataset": str,
        "index": list,
        "trim": bool,
        "step": object,
        "start": float,
        "length": object,
        "extent_of": str,
        "nodes": str,
        "end": str,
        "scale": float,
        "unit": str,
    }


@dataclass(frozen=True)
class ParameterRule:
    """Where a physical parameter comes from: the first of ``dataset``, ``attribute``, ``token``, ``value`` there is.

    Args:
        dataset: array with one number, or one per trajectory.
        attribute: attribute of the file (or, with ``of``, of a group or array); with a group per run, of that group.
        of: the group or array.
        entry: the attribute is a text (a configuration); the number that follows this word and a colon in it.
        token: text in the file's (else its folder's) name that a number follows, e.g. ``Nu``.
        value: the number itself.
        scale: factor from what is stored to the parameter.
        optional: files without it are accepted; the parameter is then missing from the whole dataset.
        unit: free text.
    """

    dataset: str | None = None
    attribute: str | None = None
    of: str = ""
    entry: str | None = None
    token: str | None = None
    value: float | None = None
    scale: float = 1.0
    optional: bool = False
    unit: str = ""

    _TYPES = {
        "dataset": str,
        "attribute": str,
        "of": str,
        "entry": str,
        "token": str,
        "value": float,
        "scale": float,
        "optional": bool,
        "unit": str,
    }


@dataclass(frozen=True)
class DatasetMapping:
    """A mapping file, read and checked.

    Args:
        name: name in the catalog, stem of the file, or ``mapping``.
        content: the file's content, plain data; :func:`load_mapping` says what the keys mean.

    Raises:
        SchemaError: a key that does not exist, is missing, or has a wrong value; the message names it.
    """

    name: str
    content: Mapping[str, Any]

    def __post_init__(self) -> None:
        content = self.content
        check_keys(content, (*_KEYS, *_TEXTS), ("format",), self.name)
        for key, kind in _KEYS.items():
            if key in content and kind is not object:
                check_type(content[key], kind, f"{self.name}: {key}")
        self._one_of("layout", LAYOUTS)
        self._one_of("integers", ("refuse", "convert"))
        self._one_of("missing", ("refuse", "drop"))
        self._one_of("unwritten", ("missing", "fill"))
        self._one_of("pieces", ("join", "separate"))
        self._one_of("staggering", ("stored", "centred"))
        self._one_of("group_by", ("file", "index", "trajectory"))
        self._one_of("dtype", ("float32", "float64"))
        if self.layout in ("arrays", "meshgrid"):
            check_keys(content, None, ("fields", "dimensions", "time", "space"), self.name)
            if "time" not in self.dimensions:
                raise SchemaError(f"{self.name}: dimensions: no 'time' among {list(self.dimensions)}.")
        for axis, kind in self.boundary.items():
            if kind not in BOUNDARIES:
                raise SchemaError(
                    f"{self.name}: boundary.{axis}: unknown '{kind}'.{did_you_mean(str(kind), BOUNDARIES)} "
                    f"Known: {', '.join(BOUNDARIES)}."
                )
        axes = self.axes
        for rule_name, rule in self.fields.items():
            if rule.staggered is not None and axes and rule.staggered not in axes:
                raise SchemaError(
                    f"{self.name}: fields.{rule_name}.staggered: no axis '{rule.staggered}'. Axes: {', '.join(axes)}."
                )
        _ = self.time, self.space, self.parameters

    def _one_of(self, key: str, known: Sequence[str]) -> None:
        value = self.content.get(key)
        if value is not None and value not in known:
            raise SchemaError(
                f"{self.name}: {key}: unknown '{value}'.{did_you_mean(str(value), known)} Known: {', '.join(known)}."
            )

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        return self.content.get(key, default)

    @property
    def format(self) -> str:
        """Name of the layout."""
        return self.content["format"]

    @property
    def layout(self) -> str:
        """How files are taken apart: ``arrays``, ``meshgrid``, ``well`` or ``labelled``."""
        return self.content.get("layout", "labelled" if "dimensions" not in self.content else "arrays")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes of the field arrays, in the order they are stored; that of the runs is ``trajectory``."""
        names = tuple(self.content.get("dimensions", ()))
        run = self.content.get("trajectory") or next((n for n in RUN_NAMES if n in names), "trajectory")
        return names if "trajectory" in names else tuple("trajectory" if n == run else n for n in names)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the space axes, in the order of the trajectories."""
        return tuple(self.content.get("space") or ())

    @property
    def boundary(self) -> dict[str, str]:
        """Kind of boundary per axis, as far as the mapping says."""
        return dict(self.content.get("boundary", {}))

    @property
    def fields(self) -> dict[str, FieldRule]:
        """Rule of each channel, in their order."""
        rules = {n: self._rule(FieldRule, v, f"fields.{n}") for n, v in self.content.get("fields", {}).items()}
        for name, rule in rules.items():
            if rule.transform is not None and rule.transform not in TRANSFORMS:
                raise SchemaError(
                    f"{self.name}: fields.{name}.transform: unknown '{rule.transform}'. Known: {', '.join(TRANSFORMS)}."
                )
        return rules

    @property
    def time(self) -> AxisRule:
        """Rule of the times."""
        return self._axis(self.content.get("time") or {}, "time")

    @property
    def space(self) -> dict[str, AxisRule]:
        """Rule of the nodes of each axis."""
        return {n: self._axis(v or {}, f"space.{n}") for n, v in (self.content.get("space") or {}).items()}

    @property
    def parameters(self) -> dict[str, ParameterRule]:
        """Rule of each parameter, by the name users see: the equation's letter ``nu`` becomes ``viscosity``."""
        found, letters = self.content.get("parameters", {}), user_names(self.get("equation"))
        return {letters.get(n, n): self._rule(ParameterRule, v, f"parameters.{n}", "value") for n, v in found.items()}

    def _axis(self, value: Any, where: str) -> AxisRule:
        rule = self._rule(AxisRule, value, where)
        given = [k for k in ("dataset", "step", "extent_of") if getattr(rule, k) is not None]
        if len(given) > 1:
            raise SchemaError(f"{self.name}: {where}: give one of {', '.join(given)}, not {len(given)}.")
        for key in ("step", "length"):
            number = getattr(rule, key)
            if number is not None and not (isinstance(number, str) or (is_number(number) and 0 < number < math.inf)):
                raise SchemaError(
                    f"{self.name}: {where}.{key}: expected a number > 0 or the name of an array, found {number!r}."
                )
        if rule.nodes not in NODES:
            raise SchemaError(f"{self.name}: {where}.nodes: unknown '{rule.nodes}'. Known: {', '.join(NODES)}.")
        if rule.end not in (None, *ENDS):
            raise SchemaError(f"{self.name}: {where}.end: unknown '{rule.end}'. Known: {', '.join(ENDS)}.")
        return rule

    def _rule(self, kind: type, value: Any, where: str, plain: str = "dataset") -> Any:
        """Read a rule; a bare text names its array, and a bare number is its value."""
        if isinstance(value, str):
            value = {"dataset": value}
        elif is_number(value) and plain == "value":
            value = {"value": value}
        check_type(value, dict, f"{self.name}: {where}")
        check_keys(value, tuple(kind._TYPES), (), f"{self.name}: {where}")
        if kind is FieldRule:
            value = {"dataset": where.split(".", 1)[1]} | value
        for key, entry in value.items():
            if kind._TYPES[key] is not object:
                check_type(entry, kind._TYPES[key], f"{self.name}: {where}.{key}")
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})


_KEYS = {
    "format": str,
    "layout": str,
    "equation": str,
    "files": list,
    "requires": dict,
    "group": str,
    "splits": dict,
    "divide": dict,
    "dimensions": list,
    "select": dict,
    "fields": dict,
    "boundary": dict,
    "open_files": list,
    "divergence_free": list,
    "time": object,
    "space": dict,
    "trajectory": str,
    "parameters": dict,
    "group_by": str,
    "dtype": str,
    "integers": str,
    "missing": str,
    "unwritten": str,
    "pieces": str,
    "failed": str,
    "staggering": str,
    "faults": list,
}


def user_names(equation: str | None) -> dict[str, str]:
    """Return the name users see of each parameter letter of an equation, ``{"nu": "viscosity"}``.

    Raises:
        CatalogError: no such equation.
    """
    if equation is None:
        return {}
    declared = catalog.read("symmetries", equation).get("parameters", {})
    return {letter: entry.get("name", letter) for letter, entry in declared.items()}


def mapping_names() -> list[str]:
    """Return the names of the mapping files among the datasets of the catalog."""
    # A look at the text spares parsing the files that describe generated datasets.
    paths = {name: catalog.find("datasets", name) for name in catalog.names("datasets")}
    return [n for n, p in paths.items() if re.search(r"^format:", p.read_text("utf-8", "replace"), re.MULTILINE)]


def load_mapping(mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping) -> DatasetMapping:
    """Find, read and check a mapping.

    Args:
        mapping: name of a mapping in the catalog (``pdearena_smoke``), path of a YAML file, or its content as plain
            data. A mapping that names the ``format`` of the catalog and has no ``fields`` of its own changes that one:
            ``{"format": "pdearena_smoke", "staggering": "centred"}``.

    The keys of a mapping file, all but ``format`` optional unless said otherwise::

        format: my_runs                  # name of the layout; the presence of this key makes it a mapping file
        layout: arrays                   # arrays: HDF5 with the dimensions named here; labelled: netCDF, Zarr
        equation: burgers                # name in the catalog
        files: ["run_*.h5"]              # patterns of file names; default all files of a known suffix
        group: "{split}"                 # group that holds the arrays; {split}, or {trajectory}: a group per run
        splits: {train: [train], validation: [valid, val], test: [test]}    # words in group, folder or file name
        divide: {test: 0.1, train: 0.9}  # no splits on disk: fractions of each file, in this order
        dimensions: [trajectory, time, x, y]         # axes of the arrays as stored (layout arrays: required)
        select: {level: 0}               # entry of an extra dimension
        fields: {u: {dataset: velocity, component: 0, unit: m/s}}
        time: {dataset: t}               # or {step: 0.1, start: 0}; see AxisRule
        space: {x: {length: 1.0, nodes: centres}}
        boundary: {x: periodic}          # periodic, wall or window (default)
        open_files: ["*_trans_*"]        # names of files whose axes are all windows
        divergence_free: [u, v]          # plane velocity without divergence: swapped axes are noticed
        parameters: {viscosity: {attribute: Nu, token: Nu, scale: 0.318}}
        group_by: file                   # what must not be split: file, index (number within its file), trajectory
        dtype: float32                   # float32 or float64; default as stored
        integers: refuse                 # or convert: fields of integers become floating-point
        missing: refuse                  # or drop: trajectories with NaN are left out and counted
        unwritten: missing               # or fill: what was never written holds the fill value of the file, say 0
        pieces: join                     # or separate: files that continue each other in time are runs of their own
        failed: zeros                    # trajectories that are zero throughout are left out and counted
        staggering: stored               # or centred: values on faces are averaged to the centres of the cells
        faults: ["..."]                  # what is wrong with the data; shown by pdessl inspect

    Raises:
        CatalogError: no such mapping.
        SchemaError: it does not follow the format.
    """
    if isinstance(mapping, DatasetMapping):
        return mapping
    if isinstance(mapping, Mapping):
        content, name = copy.deepcopy(dict(mapping)), "mapping"
        if "format" not in content:
            content["format"] = "custom"
        elif "fields" not in content and content["format"] in mapping_names():
            base = load_mapping(content["format"])
            return DatasetMapping(base.name, {**base.content, **content})
        return DatasetMapping(name, content)
    text = os.fspath(mapping)
    if text.endswith((".yaml", ".yml")):
        content = catalog.read_yaml(catalog.find("datasets", text))
        return DatasetMapping(Path(text).name, {"format": Path(text).stem, **content})
    known = {n.rsplit("/", 1)[-1]: n for n in mapping_names()}
    if text not in known and text not in known.values():
        raise CatalogError(
            f"no mapping named '{text}'.{did_you_mean(text, known)} Known: {', '.join(known)}, or the path of a "
            f"YAML file."
        )
    return DatasetMapping(text, catalog.read("datasets", known.get(text, text)))
