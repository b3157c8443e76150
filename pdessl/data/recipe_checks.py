"""What a dataset file may say: every key, its type and its range, refused with the place and the repair."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pdessl.data.schema import check_keys, check_type, is_number
from pdessl.errors import SchemaError, did_you_mean
from pdessl.solvers import FAMILIES, FORCINGS

if TYPE_CHECKING:
    from pdessl.data.recipe import DatasetRecipe

__all__ = ["PRECISIONS", "SECTIONS", "TEXTS", "check_content", "check_simulator"]

#: Keys that do not change the data.
TEXTS = ("title", "about", "known", "chosen", "aliases")
#: Arithmetic of the simulator.
PRECISIONS = ("float32", "float64")
#: The sections of a dataset file.
SECTIONS = {
    "equation": str,
    "domain": dict,
    "initial_condition": dict,
    "parameters": dict,
    "forcing": dict,
    "solver": dict,
    "observation": dict,
    "fields": dict,
    "splits": dict,
    "shard_size": int,
    "seed": int,
}
_OPTIONAL = ("fields", "forcing", "parameters", "shard_size", "seed")
_SAMPLINGS = ("points", "cell_average", "spectral")
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


def check_content(recipe: DatasetRecipe) -> None:
    """Check all that can be checked without importing the simulator, which opening somebody's store must not do.

    Raises:
        SchemaError: what was found, where, and what was expected.
    """
    content, name = recipe.content, recipe.name
    check_keys(content, (*SECTIONS, *TEXTS), tuple(k for k in SECTIONS if k not in _OPTIONAL), name)
    for key, kind in SECTIONS.items():
        if key in content:
            check_type(content[key], kind, f"{name}: {key}")
    if content.get("seed", 0) < 0:
        raise SchemaError(f"{name}: seed: expected an integer >= 0, found {content['seed']}.")
    if content.get("shard_size", 1) < 1:
        raise SchemaError(f"{name}: shard_size: expected an integer >= 1, found {content['shard_size']}.")
    _check_family(recipe, "initial_condition", FAMILIES, ("record",))
    check_type(content["initial_condition"].get("record", False), bool, f"{name}: initial_condition.record")
    if "forcing" in content:
        _check_family(recipe, "forcing", FORCINGS)
    _check_domain(recipe)
    _check_solver(recipe)
    _ = recipe.parameters
    _check_observation(recipe)
    _check_splits(recipe)


def check_simulator(recipe: DatasetRecipe) -> None:
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
    if "forcing" in recipe.content and recipe.dimensions != 1:
        raise SchemaError(f"{name}: forcing: its families have one space dimension, {simulator.__name__} has more.")
    if "precision" in recipe.content["solver"] and "precision" not in defaults:
        raise SchemaError(
            f"{name}: solver.precision: {simulator.__name__} calculates in float64 only. Leave the key (--dtype) out."
        )
    outputs = tuple(arguments.get("outputs") or simulator.field_names)
    check_keys(recipe.content.get("fields", {}), outputs, (), f"{name}: fields")
    noise = recipe.observation["noise"]
    if isinstance(noise, Mapping):
        check_keys(noise, outputs, (), f"{name}: observation.noise")


def _check_domain(recipe: DatasetRecipe) -> None:
    where, domain = f"{recipe.name}: domain", recipe.content["domain"]
    if any(axis in domain for axis in recipe.axis_names):
        check_keys(domain, (*recipe.axis_names, "unit"), recipe.axis_names, where)
    else:
        check_keys(domain, ("length", *recipe.axis_names, "unit"), ("length",), where)
    check_type(domain.get("unit", ""), str, f"{where}.unit")
    keys = ("length",) if "length" in domain else recipe.axis_names
    for key, length in zip(keys, recipe.lengths, strict=True):
        if length.low <= 0:
            raise SchemaError(f"{where}.{key}: expected > 0, found {length.low}.")


def _check_family(recipe: DatasetRecipe, key: str, families: Mapping[str, type], further: tuple[str, ...] = ()) -> None:
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


def _check_solver(recipe: DatasetRecipe) -> None:
    where, solver = f"{recipe.name}: solver", recipe.content["solver"]
    allowed = ("simulator", "points", "time_step", "courant", "precision", "check_resolution", "arguments")
    check_keys(solver, allowed, (), where)
    points = solver.get("points", "auto")
    for value in points if isinstance(points, list) else [points]:
        if isinstance(value, Mapping):
            check_keys(value, recipe.axis_names, recipe.axis_names, f"{where}.points")
        for number in value.values() if isinstance(value, Mapping) else [value]:
            if number != "auto" and (not isinstance(number, int) or isinstance(number, bool) or number < 8):
                raise SchemaError(
                    f"{where}.points: expected 'auto', an even integer >= 8 (or a mapping of them by axis), or a list "
                    f"of them, found {points!r}."
                )
    if "time_step" in solver and "courant" in solver:
        raise SchemaError(f"{where}: give time_step or courant, not both.")
    for key in ("time_step", "courant"):
        if key in solver:
            check_type(solver[key], float, f"{where}.{key}")
            if not solver[key] > 0:
                raise SchemaError(f"{where}.{key}: expected > 0, found {solver[key]}.")
    if solver.get("precision", "float64") not in PRECISIONS:
        raise SchemaError(
            f"{where}.precision: unknown '{solver['precision']}'.{did_you_mean(str(solver['precision']), PRECISIONS)} "
            f"Known: {', '.join(PRECISIONS)}."
        )
    check_type(solver.get("check_resolution", True), bool, f"{where}.check_resolution")
    check_type(solver.get("arguments", {}), dict, f"{where}.arguments")


def _check_observation(recipe: DatasetRecipe) -> None:
    where, value = f"{recipe.name}: observation", recipe.content["observation"]
    allowed = ("points", "frames", "start", "end", "time_scale", "noise", "sampling", "unit")
    check_keys(value, allowed, ("points", "frames", "end"), where)
    if isinstance(value["points"], Mapping):
        check_keys(value["points"], recipe.axis_names, recipe.axis_names, f"{where}.points")
        for axis, number in value["points"].items():
            check_type(number, int, f"{where}.points.{axis}")
    else:
        check_type(value["points"], int, f"{where}.points")
    check_type(value["frames"], int, f"{where}.frames")
    for key in ("start", "end"):
        if key in value:
            check_type(value[key], float, f"{where}.{key}")
    o = recipe.observation
    if min(recipe.observed) < 2 or o["frames"] < 2:
        raise SchemaError(f"{where}: expected at least 2 points and 2 frames, found {o['points']} and {o['frames']}.")
    if not 0 <= o["start"] < o["end"] or not math.isfinite(o["end"]):
        raise SchemaError(f"{where}: expected 0 <= start < end, found {o['start']} and {o['end']}.")
    if recipe.time_scale.low <= 0:
        raise SchemaError(f"{where}.time_scale: expected > 0, found {recipe.time_scale.low}.")
    _check_noise(o["noise"], f"{where}.noise")
    if o["sampling"] not in _SAMPLINGS:
        raise SchemaError(
            f"{where}.sampling: unknown '{o['sampling']}'.{did_you_mean(str(o['sampling']), _SAMPLINGS)} "
            f"Known: {', '.join(_SAMPLINGS)}."
        )
    for grid in recipe.grids() or []:
        for points, observed in zip(grid, recipe.observed, strict=True):
            if points % observed:
                raise SchemaError(
                    f"{recipe.name}: solver.points: {points} is not a multiple of the {observed} observed points. "
                    f"Use {-(-points // observed) * observed}."
                )


def _check_noise(noise: Any, where: str) -> None:
    for key, level in noise.items() if isinstance(noise, Mapping) else [("", noise)]:
        place = f"{where}.{key}" if key else where
        if not is_number(level):
            raise SchemaError(f"{place}: expected a number (or a mapping from field to number), found {level!r}.")
        if not 0 <= level < math.inf:
            raise SchemaError(f"{place}: expected a standard deviation >= 0 in the unit of the field, found {level}.")


def _check_splits(recipe: DatasetRecipe) -> None:
    where = f"{recipe.name}: splits"
    if not recipe.content["splits"]:
        raise SchemaError(f"{where}: expected at least one split.")
    for split, value in recipe.content["splits"].items():
        check_type(value, dict, f"{where}.{split}")
        check_keys(value, ("size", "labels"), ("size",), f"{where}.{split}")
        check_type(value["size"], int, f"{where}.{split}.size")
        check_type(value.get("labels", True), bool, f"{where}.{split}.labels")
        if value["size"] < 0:
            raise SchemaError(f"{where}.{split}.size: expected >= 0, found {value['size']}.")
        if not isinstance(split, str) or not split.replace("_", "").isalnum():
            raise SchemaError(f"{where}: a split's name holds letters, digits and '_' only, found '{split}'.")
