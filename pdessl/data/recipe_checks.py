"""What a dataset file may say: every key, its type and its range, refused with the place and the repair."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pdessl.data.distribution import Distribution
from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import Count, Natural, Positive, Range, Size, check_keys, fill
from pdessl.solvers import FAMILIES, FORCINGS, Simulator

__all__ = [
    "TEXTS", "DatasetFile", "ObservationSettings", "SolverSettings", "SplitSettings", "check_content",
    "check_simulator", "without_nulls",
]  # fmt: skip

#: Keys that do not change the data.
TEXTS = ("title", "about", "known", "chosen", "aliases")

_Points: TypeAlias = Annotated[int, Range(8)]
_Observed: TypeAlias = Annotated[int, Range(2)]
# Constructor arguments of a simulator that the plan of a dataset chooses.
_PLANNED = (
    "domain_length",
    "points",
    "substeps",
    "time_step",
    "check_resolution",
    "dtype",
    "precision",
    "forcing",
)


@dataclass(frozen=True)
class SolverSettings:
    """How a dataset is simulated.

    Args:
        simulator: name or import path of its class; default the equation's.
        points: solver points per axis, even: a number for all axes, one per axis, a list of either to choose from, or
            ``auto``.
        time_step: of the solver, or
        courant: the Courant number that gives it; default chosen.
        precision: arithmetic.
        check_resolution: whether fields that the grid does not resolve are refused.
        arguments: further arguments of the simulator.
    """

    simulator: str | None = None
    points: Literal["auto"] | _Points | dict[str, _Points] | tuple[_Points | dict[str, _Points], ...] = "auto"
    time_step: Positive | None = None
    courant: Positive | None = None
    precision: Literal["float32", "float64"] = "float64"
    check_resolution: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ObservationSettings:
    """What of a simulation is stored.

    Args:
        points: observed points per axis, for all axes or for each.
        frames: number of observed times, from ``start`` to ``end`` (in ``unit``), both included.
        end: time of the last frame.
        start: time of the first frame.
        time_scale: number or distribution of the factor that stretches a trajectory's times.
        noise: standard deviation of white noise in the unit of the field, of all fields or of each.
        sampling: values at points, averages over cells, or the truncated spectrum.
        unit: of time, free text.
    """

    points: _Observed | dict[str, _Observed]
    frames: _Observed
    end: Positive
    start: Natural = 0.0
    time_scale: Any = 1.0
    noise: Natural | dict[str, Natural] = 0.0
    sampling: Literal["points", "cell_average", "spectral"] = "points"
    unit: str = ""


@dataclass(frozen=True)
class SplitSettings:
    """A split of a dataset: trajectories, and whether their parameters are stored."""

    size: Size
    labels: bool = True


@dataclass(frozen=True)
class DatasetFile:
    """The keys of a dataset file; ``datasets/README.md`` explains them.

    Sections that are mappings from names the file chooses, or whose keys a class says, are checked by
    :func:`check_content` and :func:`check_simulator`. What is said of a field is text by any name;
    its ``unit`` is read.
    """

    equation: str
    domain: dict[str, Any]
    initial_condition: dict[str, Any]
    solver: SolverSettings
    observation: ObservationSettings
    splits: dict[str, SplitSettings]
    parameters: dict[str, Any] = field(default_factory=dict)
    forcing: dict[str, Any] | None = None
    fields: dict[str, dict[str, str | None]] = field(default_factory=dict)
    shard_size: Count = 1024
    seed: Size = 0
    title: str = ""
    about: str = ""
    known: str = ""
    chosen: str = ""
    aliases: tuple[str, ...] = ()


class _Recipe(Protocol):
    """What of a :class:`pdessl.data.recipe.DatasetRecipe` is checked, as it is documented there."""

    @property
    def name(self) -> str: ...
    @property
    def content(self) -> Mapping[str, Any]: ...
    @property
    def parameters(self) -> Mapping[str, Distribution]: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def axis_names(self) -> tuple[str, ...]: ...
    @property
    def lengths(self) -> tuple[Distribution, ...]: ...
    @property
    def observation(self) -> dict[str, Any]: ...
    @property
    def observed(self) -> tuple[int, ...]: ...
    @property
    def time_scale(self) -> Distribution: ...
    @property
    def simulator(self) -> type[Simulator]: ...
    @property
    def grids(self) -> list[tuple[int, ...]] | None: ...


def without_nulls(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Leave out keys, and keys of sections, that are null: the same data have one content, and one hash.

    Raises:
        SchemaError: a key that a dataset file does not have, whatever its value.
    """
    fill(DatasetFile, content, name)
    return {
        key: {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value
        for key, value in content.items()
        if value is not None
    }


def check_content(recipe: _Recipe) -> None:
    """Check all that can be checked without importing the simulator, which opening somebody's store must not do.

    Raises:
        SchemaError: what was found, where, and what was expected.
    """
    file = fill(DatasetFile, recipe.content, recipe.name)
    _check_family(recipe, "initial_condition", FAMILIES, ("record",))
    if not isinstance(file.initial_condition.get("record", False), bool):
        raise SchemaError(
            f"{recipe.name}: initial_condition.record: expected true or false, found "
            f"{file.initial_condition['record']!r}."
        )
    if file.forcing is not None:
        _check_family(recipe, "forcing", FORCINGS)
    _check_domain(recipe)
    _check_axes(recipe, file)
    _ = recipe.parameters
    _check_observation(recipe, file.observation)
    if not file.splits:
        raise SchemaError(f"{recipe.name}: splits: expected at least one split.")
    for split in file.splits:
        if not split.replace("_", "").isalnum():
            raise SchemaError(
                f"{recipe.name}: splits: a split's name holds letters, digits and '_' only, found '{split}'."
            )


def check_simulator(recipe: _Recipe) -> None:
    """Check what only the simulator's class knows: its parameters, dimensions, fields and further arguments.

    Raises:
        CatalogError: no such simulator.
        SchemaError: parameters, fields or arguments the simulator does not have, or another number of dimensions.
    """
    simulator, name = recipe.simulator, recipe.name
    defaults = inspect.signature(simulator).parameters
    needed = tuple(n for n in simulator.parameter_names if defaults[n].default is inspect.Parameter.empty)
    check_keys(recipe.content.get("parameters", {}), simulator.parameter_names, needed, f"{name}: parameters")
    arguments = recipe.content["solver"].get("arguments", {})
    free = tuple(n for n in defaults if n not in (*simulator.parameter_names, *_PLANNED))
    check_keys(arguments, free, (), f"{name}: solver.arguments")
    if simulator.dimensions != recipe.dimensions:
        fitting = ", ".join(n for n, f in FAMILIES.items() if f.dimensions == simulator.dimensions)
        raise SchemaError(
            f"{name}: initial_condition.family '{recipe.content['initial_condition']['family']}' has "
            f"{recipe.dimensions} space dimensions, the simulator {simulator.__name__} has {simulator.dimensions}. "
            f"Families that fit: {fitting}."
        )
    if "forcing" in recipe.content:
        _check_forcing(recipe, recipe.content["forcing"]["family"])
    if "precision" in recipe.content["solver"] and "precision" not in defaults:
        raise SchemaError(
            f"{name}: solver.precision: {simulator.__name__} calculates in float64 only. Leave the key (--dtype) out."
        )
    outputs = tuple(arguments.get("outputs") or simulator.field_names)
    check_keys(recipe.content.get("fields", {}), outputs, (), f"{name}: fields")
    noise = recipe.observation["noise"]
    if isinstance(noise, Mapping):
        check_keys(noise, outputs, (), f"{name}: observation.noise")


def _check_forcing(recipe: _Recipe, chosen: str) -> None:
    simulator, family = recipe.simulator, FORCINGS[chosen]
    named = simulator.field_names
    if family.dimensions != recipe.dimensions or (len(named) != 1 if family.fields is None else named != family.fields):
        of = "one field" if family.fields is None else f"the fields {', '.join(family.fields)}"
        raise SchemaError(
            f"{recipe.name}: forcing.family '{chosen}' acts on {of} with {family.dimensions} space dimension(s), "
            f"{simulator.__name__} has {', '.join(named)} and {simulator.dimensions}."
        )


def _check_domain(recipe: _Recipe) -> None:
    where, domain = f"{recipe.name}: domain", recipe.content["domain"]
    if any(axis in domain for axis in recipe.axis_names):
        check_keys(domain, (*recipe.axis_names, "unit"), recipe.axis_names, where)
    else:
        check_keys(domain, ("length", *recipe.axis_names, "unit"), ("length",), where)
    if not isinstance(domain.get("unit", ""), str):
        raise SchemaError(f"{where}.unit: expected text, found {domain['unit']!r}.")
    keys = ("length",) if "length" in domain else recipe.axis_names
    for key, length in zip(keys, recipe.lengths, strict=True):
        if length.low <= 0:
            raise SchemaError(f"{where}.{key}: expected > 0, found {length.low}.")


def _check_family(recipe: _Recipe, key: str, families: Mapping[str, type], further: tuple[str, ...] = ()) -> None:
    """Check the family that a section names, and its arguments."""
    where, value = f"{recipe.name}: {key}", recipe.content[key]
    check_keys(value, None, ("family",), where)
    if value["family"] not in families:
        raise SchemaError(
            f"{where}.family: unknown '{value['family']}'.{did_you_mean(str(value['family']), families)} "
            f"Known: {', '.join(families)}."
        )
    allowed = tuple(inspect.signature(families[value["family"]]).parameters)
    check_keys(value, ("family", *allowed, *further), (), where)
    try:
        _ = getattr(recipe, key)
    except TypeError as error:
        raise SchemaError(f"{where}: {error}.") from None
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from None


def _check_axes(recipe: _Recipe, file: DatasetFile) -> None:
    """Check that what is given per axis names every axis, and that the solver's step is given once."""
    where = f"{recipe.name}: solver"
    points = file.solver.points
    for value in points if isinstance(points, tuple) else (points,):
        if isinstance(value, Mapping):
            check_keys(value, recipe.axis_names, recipe.axis_names, f"{where}.points")
    if file.solver.time_step is not None and file.solver.courant is not None:
        raise SchemaError(f"{where}: give time_step or courant, not both.")
    if isinstance(file.observation.points, Mapping):
        where = f"{recipe.name}: observation.points"
        check_keys(file.observation.points, recipe.axis_names, recipe.axis_names, where)


def _check_observation(recipe: _Recipe, observation: ObservationSettings) -> None:
    where = f"{recipe.name}: observation"
    if observation.start >= observation.end:
        raise SchemaError(f"{where}: expected start < end, found {observation.start} and {observation.end}.")
    if recipe.time_scale.low <= 0:
        raise SchemaError(f"{where}.time_scale: expected > 0, found {recipe.time_scale.low}.")
    for grid in recipe.grids() or []:
        for points, observed in zip(grid, recipe.observed, strict=True):
            if points % observed:
                raise SchemaError(
                    f"{recipe.name}: solver.points: {points} is not a multiple of the {observed} observed points. "
                    f"Use {-(-points // observed) * observed}."
                )
