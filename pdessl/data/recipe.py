"""Dataset files: what is simulated, from which random draws, and how it is observed."""

# B batch, J terms of the initial condition

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect as python_inspect
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdessl import catalog
from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.solvers import FAMILIES, SIMULATORS, InitialCondition, Simulator

__all__ = ["DatasetRecipe", "Distribution", "load_recipe"]

_TEXTS = ("title", "about", "known", "chosen")
_KEYS = {
    "equation": str,
    "domain": dict,
    "initial_condition": dict,
    "parameters": dict,
    "solver": dict,
    "observation": dict,
    "fields": dict,
    "splits": dict,
    "shard_size": int,
    "seed": int,
}
_OPTIONAL = ("fields", "parameters", "shard_size", "seed")
_SAMPLINGS = ("points", "cell_average", "spectral")


@dataclass(frozen=True)
class Distribution:
    """Distribution of one number per trajectory.

    Args:
        kind: ``constant`` (low), ``uniform`` on [low, high], ``log_uniform`` on [low, high] with low > 0, or ``choice``
            with equal weights among ``values``.
        low, high, values: see kind.
        unit: unit of the number, free text.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()
    unit: str = ""

    @staticmethod
    def parse(value: Any, where: str) -> Distribution:
        """Read a number, or a mapping with ``distribution`` and its arguments.

        Raises:
            SchemaError: with ``where`` (file and key), what was found and what was expected.
        """
        if _is_number(value):
            return Distribution("constant", float(value), float(value))
        _check_type(value, dict, where)
        wanted = {
            "constant": ("value",),
            "uniform": ("low", "high"),
            "log_uniform": ("low", "high"),
            "choice": ("values",),
        }
        kind = value.get("distribution", "constant")
        if kind not in wanted:
            raise SchemaError(
                f"{where}.distribution: unknown '{kind}'.{did_you_mean(str(kind), wanted)} Known: {', '.join(wanted)}."
            )
        _check_keys(value, ("distribution", "unit", *wanted[kind]), wanted[kind], where)
        unit = str(value.get("unit", ""))
        if kind == "choice":
            values = value["values"]
            if not isinstance(values, list) or not values or not all(_is_number(v) for v in values):
                raise SchemaError(f"{where}.values: expected a list of numbers, found {values!r}.")
            return Distribution(kind, min(values), max(values), tuple(float(v) for v in values), unit)
        numbers = [value[key] for key in wanted[kind]]
        for key, number in zip(wanted[kind], numbers, strict=True):
            _check_type(number, float, f"{where}.{key}")
        low, high = float(numbers[0]), float(numbers[-1])
        if low > high or (kind == "log_uniform" and low <= 0):
            raise SchemaError(
                f"{where}: expected {'0 < ' if kind == 'log_uniform' else ''}low <= high, found {low} and {high}."
            )
        return Distribution(kind, low, high, (), unit)

    def draw(self, stream: np.random.Generator) -> float:
        """Draw one number."""
        if self.kind == "constant":
            return self.low
        if self.kind == "uniform":
            return float(stream.uniform(self.low, self.high))
        if self.kind == "log_uniform":
            return float(math.exp(stream.uniform(math.log(self.low), math.log(self.high))))
        return self.values[int(stream.integers(len(self.values)))]


@dataclass(frozen=True)
class DatasetRecipe:
    """A dataset file, read and checked.

    Args:
        name: name in the catalog, or stem of the file.
        content: the file's content with all overrides applied, plain data.
    """

    name: str
    content: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._check()

    # ------------------------------------------------------------------------------- reading

    @property
    def hash(self) -> str:
        """SHA-256 of everything that determines the data (texts, and the file's name, do not)."""
        essential = {k: v for k, v in self.content.items() if k not in _TEXTS}
        return hashlib.sha256(json.dumps(essential, sort_keys=True).encode()).hexdigest()

    @property
    def equation(self) -> str:
        """Name of the equation in the catalog."""
        return self.content["equation"]

    @property
    def seed(self) -> int:
        """Seed of all draws."""
        return self.content.get("seed", 0)

    @property
    def shard_size(self) -> int:
        """Trajectories per file."""
        return self.content.get("shard_size", 1024)

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """``{name: {size, labels}}`` in the order of the file."""
        return {n: {"size": s["size"], "labels": s.get("labels", True)} for n, s in self.content["splits"].items()}

    @property
    def parameters(self) -> dict[str, Distribution]:
        """Distribution of each physical parameter."""
        where = f"{self.name}: parameters"
        return {n: Distribution.parse(v, f"{where}.{n}") for n, v in self.content.get("parameters", {}).items()}

    @property
    def length(self) -> Distribution:
        """Distribution of the domain length."""
        domain = dict(self.content["domain"])
        unit = domain.pop("unit", "")
        length = Distribution.parse(domain["length"], f"{self.name}: domain.length")
        return length if length.unit else Distribution(length.kind, length.low, length.high, length.values, unit)

    @property
    def observation(self) -> dict[str, Any]:
        """``{points, frames, start, end, noise, sampling, unit}``, defaults filled in."""
        return {"start": 0.0, "noise": 0.0, "sampling": "points", "unit": ""} | dict(self.content["observation"])

    @property
    def times(self) -> np.ndarray:
        """Times of the frames, shape (T,)."""
        o = self.observation
        return np.linspace(o["start"], o["end"], o["frames"])

    @property
    def initial_condition(self) -> InitialCondition:
        """The family of initial fields with its arguments."""
        arguments = dict(self.content["initial_condition"])
        return FAMILIES[arguments.pop("family")](**arguments)

    @property
    def simulator(self) -> type[Simulator]:
        """The simulator's class: a name of :data:`pdessl.solvers.SIMULATORS` or an import path of a subclass."""
        name = self.content["solver"].get("simulator", self.equation)
        if name in SIMULATORS:
            return SIMULATORS[name]
        known = f"Known: {', '.join(SIMULATORS)}, or the import path of a class of your own."
        if "." not in name:
            raise CatalogError(f"{self.name}: no simulator named '{name}'.{did_you_mean(name, SIMULATORS)} {known}")
        module, _, attribute = name.rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise CatalogError(f"{self.name}: cannot import simulator '{name}': {error}. {known}") from None
        if not (python_inspect.isclass(cls) and issubclass(cls, Simulator)):
            raise CatalogError(f"{self.name}: '{name}' is not a subclass of pdessl.solvers.Simulator.")
        return cls

    def grids(self) -> list[int] | None:
        """Return the solver grids to choose from, ascending; None for ``points: auto``."""
        points = self.content["solver"].get("points", "auto")
        if points == "auto":
            return None
        return sorted(points) if isinstance(points, list) else [points]

    # ------------------------------------------------------------------------------ checking

    def _check(self) -> None:
        content, name = self.content, self.name
        _check_keys(content, (*_KEYS, *_TEXTS), tuple(k for k in _KEYS if k not in _OPTIONAL), name)
        for key, kind in _KEYS.items():
            if key in content:
                _check_type(content[key], kind, f"{name}: {key}")
        if content.get("seed", 0) < 0:
            raise SchemaError(f"{name}: seed: expected an integer >= 0, found {content['seed']}.")
        if content.get("shard_size", 1) < 1:
            raise SchemaError(f"{name}: shard_size: expected an integer >= 1, found {content['shard_size']}.")
        _check_keys(content["domain"], ("length", "unit"), ("length",), f"{name}: domain")
        if self.length.low <= 0:
            raise SchemaError(f"{name}: domain.length: expected > 0, found {self.length.low}.")
        self._check_initial_condition()
        self._check_solver()
        self._check_parameters()
        self._check_observation()
        self._check_splits()

    def _check_initial_condition(self) -> None:
        where, value = f"{self.name}: initial_condition", self.content["initial_condition"]
        _check_keys(value, None, ("family",), where)
        if value["family"] not in FAMILIES:
            raise SchemaError(
                f"{where}.family: unknown '{value['family']}'.{did_you_mean(str(value['family']), FAMILIES)} "
                f"Known: {', '.join(FAMILIES)}."
            )
        allowed = tuple(python_inspect.signature(FAMILIES[value["family"]]).parameters)
        _check_keys(value, ("family", *allowed), (), where)
        try:
            _ = self.initial_condition
        except TypeError as error:
            raise SchemaError(f"{where}: {error}.") from None
        except SchemaError as error:
            raise SchemaError(f"{where}: {error}") from None

    def _check_solver(self) -> None:
        where, solver = f"{self.name}: solver", self.content["solver"]
        _check_keys(solver, ("simulator", "points", "time_step", "courant", "arguments"), (), where)
        points = solver.get("points", "auto")
        for value in points if isinstance(points, list) else [points]:
            if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 8):
                raise SchemaError(
                    f"{where}.points: expected 'auto', an even integer >= 8 or a list of them, found {points!r}."
                )
        if "time_step" in solver and "courant" in solver:
            raise SchemaError(f"{where}: give time_step or courant, not both.")
        for key in ("time_step", "courant"):
            if key in solver:
                _check_type(solver[key], float, f"{where}.{key}")
                if not solver[key] > 0:
                    raise SchemaError(f"{where}.{key}: expected > 0, found {solver[key]}.")

    def check_simulator(self) -> None:
        """Check what only the simulator's class knows: its parameters, fields and further arguments.

        Apart from the other checks, because it imports the class, which opening somebody's store must not do.

        Raises:
            CatalogError: no such simulator.
            SchemaError: parameters, fields or arguments the simulator does not have.
        """
        simulator = self.simulator
        defaults = python_inspect.signature(simulator).parameters
        needed = tuple(n for n in simulator.parameter_names if defaults[n].default is python_inspect.Parameter.empty)
        given = self.content.get("parameters", {})
        _check_keys(given, simulator.parameter_names, needed, f"{self.name}: parameters")
        _check_keys(self.content.get("fields", {}), simulator.field_names, (), f"{self.name}: fields")
        planned = (
            *simulator.parameter_names,
            "domain_length",
            "points",
            "substeps",
            "time_step",
            "check_resolution",
            "dtype",
        )
        free = tuple(n for n in defaults if n not in planned)
        _check_keys(self.content["solver"].get("arguments", {}), free, (), f"{self.name}: solver.arguments")

    def _check_parameters(self) -> None:
        for key, distribution in self.parameters.items():
            if not math.isfinite(distribution.low + distribution.high):
                raise SchemaError(f"{self.name}: parameters.{key}: expected finite numbers.")

    def _check_observation(self) -> None:
        where, value = f"{self.name}: observation", self.content["observation"]
        allowed = ("points", "frames", "start", "end", "noise", "sampling", "unit")
        _check_keys(value, allowed, ("points", "frames", "end"), where)
        for key in ("points", "frames"):
            _check_type(value[key], int, f"{where}.{key}")
        for key in ("start", "end", "noise"):
            if key in value:
                _check_type(value[key], float, f"{where}.{key}")
        o = self.observation
        if o["points"] < 2 or o["frames"] < 2:
            raise SchemaError(
                f"{where}: expected at least 2 points and 2 frames, found {o['points']} and {o['frames']}."
            )
        if not 0 <= o["start"] < o["end"] or not math.isfinite(o["end"]):
            raise SchemaError(f"{where}: expected 0 <= start < end, found {o['start']} and {o['end']}.")
        if not 0 <= o["noise"] < math.inf:
            raise SchemaError(
                f"{where}.noise: expected a standard deviation >= 0 in the unit of the field, found {o['noise']}."
            )
        if o["sampling"] not in _SAMPLINGS:
            raise SchemaError(
                f"{where}.sampling: unknown '{o['sampling']}'.{did_you_mean(str(o['sampling']), _SAMPLINGS)} "
                f"Known: {', '.join(_SAMPLINGS)}."
            )
        for points in self.grids() or []:
            if points % o["points"]:
                raise SchemaError(
                    f"{self.name}: solver.points: {points} is not a multiple of the {o['points']} observed points. "
                    f"Use {-(-points // o['points']) * o['points']}."
                )

    def _check_splits(self) -> None:
        where = f"{self.name}: splits"
        if not self.content["splits"]:
            raise SchemaError(f"{where}: expected at least one split.")
        for split, value in self.content["splits"].items():
            _check_type(value, dict, f"{where}.{split}")
            _check_keys(value, ("size", "labels"), ("size",), f"{where}.{split}")
            _check_type(value["size"], int, f"{where}.{split}.size")
            _check_type(value.get("labels", True), bool, f"{where}.{split}.labels")
            if value["size"] < 0:
                raise SchemaError(f"{where}.{split}.size: expected >= 0, found {value['size']}.")
            if not isinstance(split, str) or not split.replace("_", "").isalnum():
                raise SchemaError(f"{where}: a split's name holds letters, digits and '_' only, found '{split}'.")


def load_recipe(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    size: int | Mapping[str, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> DatasetRecipe:
    """Find, read, change and check a dataset file.

    Args:
        dataset: a name from ``pdessl list datasets``, a path of a YAML file, or a recipe.
        size: number of trajectories of the first split of the file, or a mapping from split to number.
        overrides: other values by dotted key, e.g. ``{"observation.noise": 0.0}``; a new key is refused by the check.

    Raises:
        CatalogError: no such dataset, simulator or split.
        SchemaError: the file, or a change, does not follow the format.
    """
    if isinstance(dataset, DatasetRecipe):
        name, content = dataset.name, copy.deepcopy(dict(dataset.content))
    else:
        path = catalog.find("datasets", dataset)
        name = Path(path).name if os.fspath(dataset).endswith((".yaml", ".yml")) else str(dataset)
        content = catalog.read_yaml(path)
    for key, value in (overrides or {}).items():
        _assign(content, key, value, name)
    if size is not None:
        splits = content.get("splits")
        _check_type(splits, dict, f"{name}: splits")
        sizes = dict(size) if isinstance(size, Mapping) else {next(iter(splits)): size}
        for split, number in sizes.items():
            if split not in splits:
                raise CatalogError(
                    f"{name} has no split '{split}'.{did_you_mean(split, splits)} Splits: {', '.join(splits)}."
                )
            splits[split]["size"] = number
    recipe = DatasetRecipe(name, content)
    recipe.check_simulator()
    return recipe


def _assign(content: dict[str, Any], key: str, value: Any, name: str) -> None:
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        content = content.setdefault(parent, {})
        _check_type(content, dict, f"{name}: {'.'.join(parents[: depth + 1])}")
    content[last] = copy.deepcopy(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_type(value: Any, kind: type, where: str) -> None:
    good = (
        _is_number(value)
        if kind is float
        else isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    )
    if not good:
        words = {dict: "a mapping", float: "a number", int: "an integer", bool: "true or false", str: "text"}
        raise SchemaError(f"{where}: expected {words[kind]}, found {value!r}.")


def _check_keys(
    value: Mapping[str, Any], allowed: tuple[str, ...] | None, required: tuple[str, ...], where: str
) -> None:
    for key in value:
        if allowed is not None and key not in allowed:
            raise SchemaError(
                f"{where}: unknown key '{key}'.{did_you_mean(str(key), allowed)} Keys: {', '.join(allowed) or 'none'}."
            )
    for key in required:
        if key not in value:
            raise SchemaError(f"{where}: missing key '{key}'. Needed: {', '.join(required)}.")
