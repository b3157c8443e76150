"""Mapping files: how the arrays of an external layout become fields, coordinates and parameters."""

# T frames, X nodes of an axis

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pdessl import catalog
from pdessl.conventions import run_name
from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.schema import (
    Finite,
    Overrides,
    Positive,
    Share,
    Size,
    Text,
    check_keys,
    fill,
    override,
    read_value,
    read_yaml,
)
from pdessl.trajectory import BOUNDARIES

__all__ = ["AxisRule", "DatasetMapping", "FieldRule", "ParameterRule", "load_mapping", "mapping_names", "user_names"]

Rule = TypeVar("Rule", bound="FieldRule | AxisRule | ParameterRule")
SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}


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
    transform: Literal["cole_hopf"] | None = None
    arguments: Mapping[str, Finite] = field(default_factory=dict)
    scale: Finite = 1.0
    unit: str = ""
    description: str = ""


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
    step: Positive | str | None = None
    start: Finite | None = None
    length: Positive | str | None = None
    extent_of: str | None = None
    nodes: Literal["points", "centres", "ends"] = "points"
    end: Literal["repeated", "measured", "kept"] | None = None
    scale: Finite = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        given = [k for k in ("dataset", "step", "extent_of") if getattr(self, k) is not None]
        if len(given) > 1:
            raise SchemaError(f"give one of {', '.join(given)}, not {len(given)}.")


@dataclass(frozen=True)
class ParameterRule:
    """Where a physical parameter comes from: the first of ``dataset``, ``attribute``, ``token``, ``value`` there is.

    Args:
        dataset: array with one number, or one per trajectory.
        attribute: attribute of the file (or, with ``of``, of a group or array); with a group per run, of that group.
        of: the group or array.
        entry: the attribute is a text (a configuration); the number that follows this word and a colon in it.
        token: text in the file's (else its folder's) name that a number follows, e.g. ``Nu``; empty: the name begins
            with the number.
        value: the number itself.
        scale: factor from what is stored to the parameter.
        power: what is stored is raised to it before: 2 where the equation has its square, -1 for a Reynolds number.
        optional: files without it are accepted; the parameter is then missing from the whole dataset.
        unit: free text.
    """

    dataset: str | None = None
    attribute: str | None = None
    of: str = ""
    entry: str | None = None
    token: str | None = None
    value: Finite | None = None
    scale: Finite = 1.0
    power: Finite = 1.0
    optional: bool = False
    unit: str = ""


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
        fill(MappingFile, self.content, self.name)
        content = {key: value for key, value in self.content.items() if value is not None}
        object.__setattr__(self, "content", content)
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
        run = self.content.get("trajectory") or run_name(names)
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
        found = self.content.get("fields", {})
        return {n: self._rule(FieldRule, v, f"fields.{n}", {"dataset": n}) for n, v in found.items()}

    @property
    def time(self) -> AxisRule:
        """Rule of the times."""
        return self._rule(AxisRule, self.content.get("time") or {}, "time")

    @property
    def space(self) -> dict[str, AxisRule]:
        """Rule of the nodes of each axis."""
        return {n: self._rule(AxisRule, v or {}, f"space.{n}") for n, v in (self.content.get("space") or {}).items()}

    @property
    def parameters(self) -> dict[str, ParameterRule]:
        """Rule of each parameter, by the name users see: the equation's letter ``nu`` becomes ``viscosity``."""
        found, letters = self.content.get("parameters", {}), user_names(self.get("equation"))
        return {letters.get(n, n): self._rule(ParameterRule, v, f"parameters.{n}") for n, v in found.items()}

    def _rule(self, kind: type[Rule], value: Any, where: str, defaults: Mapping[str, Any] | None = None) -> Rule:
        """Read a rule; a bare text names its array, and a bare number is a parameter's value."""
        where = f"{self.name}: {where}"
        if kind is ParameterRule and not isinstance(value, (str, Mapping)):
            value = {"value": read_value(Finite, value, where)}
        value = {"dataset": value} if isinstance(value, str) else value
        return fill(kind, {**(defaults or {}), **value} if isinstance(value, Mapping) else value, where)


@dataclass(frozen=True)
class Requirements:
    """By what the files of a layout are recognised: arrays, attributes, names of files, what is not there, ranks."""

    arrays: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    rank: dict[str, Size] = field(default_factory=dict)


@dataclass(frozen=True)
class MappingFile:
    """The keys of a mapping file; :func:`load_mapping` says what they mean."""

    format: str
    layout: Literal["arrays", "meshgrid", "well", "labelled"] = "arrays"
    equation: str | None = None
    files: tuple[str, ...] = ()
    requires: Requirements = Requirements()
    group: str = ""
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    divide: dict[str, Share] = field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    select: dict[str, int] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    boundary: dict[str, str] = field(default_factory=dict)
    open_files: tuple[str, ...] = ()
    divergence_free: tuple[str, ...] = ()
    time: Any = None
    space: dict[str, Any] = field(default_factory=dict)
    trajectory: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    group_by: Literal["file", "index", "trajectory"] | None = None
    dtype: Literal["float32", "float64"] | None = None
    integers: Literal["refuse", "convert"] = "refuse"
    missing: Literal["refuse", "drop"] = "refuse"
    unwritten: Literal["missing", "fill"] = "missing"
    pieces: Literal["join", "separate"] = "join"
    failed: Literal["zeros"] | None = None
    staggering: Literal["stored", "centred"] = "stored"
    faults: tuple[str, ...] = ()
    title: Text = ""
    about: Text = ""
    known: Text = ""
    licence: Text = ""
    source: Text = ""
    aliases: tuple[str, ...] = ()


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


def load_mapping(
    mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping, overrides: Overrides | None = None
) -> DatasetMapping:
    """Find, read and check a mapping.

    Args:
        mapping: name of a mapping in the catalog (``pdearena_smoke``), path of a YAML file, or its content as plain
            data. A mapping that names the ``format`` of the catalog and has no ``fields`` of its own changes that one:
            ``{"format": "pdearena_smoke", "staggering": "centred"}``.
        overrides: other values, ``{"staggering": "centred"}`` or ``["staggering=centred"]``, laid over that by the rule
            of :func:`pdessl.schema.merge`.

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
        labels: {viscosity: {unit: m^2/s, values: {run_001.nc: 0.01}}}      # by file, in place of what files state
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
    name, content = _found(mapping)
    return DatasetMapping(name, override(content, overrides))


def _found(mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping) -> tuple[str, Mapping[str, Any]]:
    if isinstance(mapping, DatasetMapping):
        return mapping.name, mapping.content
    if isinstance(mapping, Mapping):
        if "format" not in mapping:
            return "mapping", {"format": "custom", **mapping}
        if "fields" not in mapping and mapping["format"] in mapping_names():
            name, base = _found(mapping["format"])
            return name, {**base, **mapping}
        return "mapping", mapping
    text = os.fspath(mapping)
    if text.endswith((".yaml", ".yml")):
        return Path(text).name, {"format": Path(text).stem, **read_yaml(catalog.find("datasets", text))}
    known = {n.rsplit("/", 1)[-1]: n for n in mapping_names()}
    if text not in known and text not in known.values():
        raise CatalogError(
            f"no mapping named '{text}'.{did_you_mean(text, known)} Known: {', '.join(known)}, or the path of a "
            f"YAML file."
        )
    return text, catalog.read("datasets", known.get(text, text))
