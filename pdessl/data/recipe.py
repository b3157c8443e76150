"""Dataset files: what is simulated, from which random draws, and how it is observed."""

# T frames, d number of space axes

from __future__ import annotations

import hashlib
import importlib
import inspect as python_inspect
import json
import math
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pdessl import catalog
from pdessl.data.distribution import Distribution
from pdessl.data.recipe_checks import TEXTS, check_content, check_simulator, without_nulls
from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.schema import Overrides, override, read_yaml
from pdessl.solvers import FAMILIES, FORCINGS, SIMULATORS, ForcingFamily, InitialCondition, Simulator

__all__ = ["DatasetRecipe", "differences", "import_simulator", "load_recipe"]


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
        check_content(self)

    @property
    def hash(self) -> str:
        """SHA-256 of everything that determines the data (texts, aliases, and the file's name, do not)."""
        essential = {k: v for k, v in self.content.items() if k not in TEXTS}
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
    def nbytes(self) -> int:
        """Bytes of the fields of all splits on disk, float32."""
        fields = self.content["solver"].get("arguments", {}).get("outputs", self.simulator.field_names)
        values = len(fields) * self.observation["frames"] * math.prod(self.observed)
        return 4 * values * sum(split["size"] for split in self.splits.values())

    # ------------------------------------------------------------------------------ what is drawn

    @cached_property
    def parameters(self) -> dict[str, Distribution]:
        """Distribution of each physical parameter."""
        where = f"{self.name}: parameters"
        return {n: Distribution.parse(v, f"{where}.{n}") for n, v in self.content.get("parameters", {}).items()}

    @cached_property
    def constants(self) -> dict[str, float]:
        """Values of the parameters that every trajectory shares: they belong to the equation and are no labels."""
        return {n: d.low for n, d in self.parameters.items() if d.kind == "constant"}

    @cached_property
    def initial_condition(self) -> InitialCondition:
        """The family of initial fields with its arguments."""
        arguments = {k: v for k, v in self.content["initial_condition"].items() if k != "record"}
        return FAMILIES[arguments.pop("family")](**arguments)

    @cached_property
    def forcing(self) -> ForcingFamily | None:
        """The family of source terms with its arguments, or None."""
        if "forcing" not in self.content:
            return None
        arguments = dict(self.content["forcing"])
        return FORCINGS[arguments.pop("family")](**arguments)

    @property
    def records_coefficients(self) -> bool:
        """Whether the coefficients of the initial fields are stored beside the parameters."""
        return self.content["initial_condition"].get("record", False)

    # ---------------------------------------------------------------------------------- geometry

    @cached_property
    def dimensions(self) -> int:
        """Number of space axes, d."""
        return FAMILIES[self.content["initial_condition"]["family"]].dimensions

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the space axes."""
        return ("x", "y", "z")[: self.dimensions]

    @cached_property
    def lengths(self) -> tuple[Distribution, ...]:
        """Distribution of the domain length per axis; a single one means one number drawn for all axes."""
        domain = self.content["domain"]
        keys = ("length",) if "length" in domain else self.axis_names
        found = (Distribution.parse(domain[key], f"{self.name}: domain.{key}") for key in keys)
        return tuple(one if one.unit else replace(one, unit=domain.get("unit", "")) for one in found)

    def per_axis(self, points: int | Mapping[str, int]) -> tuple[int, ...]:
        """Return numbers of points per axis from one number for all of them, or from a mapping by axis."""
        if isinstance(points, Mapping):
            return tuple(points[name] for name in self.axis_names)
        return (points,) * self.dimensions

    # ---------------------------------------------------------------------- simulation, observation

    @property
    def observation(self) -> dict[str, Any]:
        """``{points, frames, start, end, noise, sampling, unit}``, defaults filled in."""
        return {"start": 0.0, "noise": 0.0, "sampling": "points", "unit": ""} | dict(self.content["observation"])

    @property
    def observed(self) -> tuple[int, ...]:
        """Observed points per axis."""
        return self.per_axis(self.content["observation"]["points"])

    @property
    def times(self) -> np.ndarray:
        """Times of the frames before the trajectory's own time scale, shape (T,)."""
        o = self.observation
        return np.linspace(o["start"], o["end"], o["frames"])

    @cached_property
    def time_scale(self) -> Distribution:
        """Distribution of the factor that stretches a trajectory's times."""
        value = self.content["observation"].get("time_scale", 1.0)
        return Distribution.parse(value, f"{self.name}: observation.time_scale")

    def noise(self, field_names: tuple[str, ...]) -> tuple[float, ...]:
        """Standard deviation of the noise of each field."""
        noise = self.observation["noise"]
        return tuple(noise.get(n, 0.0) if isinstance(noise, Mapping) else noise for n in field_names)

    @property
    def simulator(self) -> type[Simulator]:
        """The simulator's class: a name of :data:`pdessl.solvers.SIMULATORS` or an import path of a subclass.

        What a file names is not imported for it: the module of your own class has been imported, see
        :func:`import_simulator`.
        """
        name = self.content["solver"].get("simulator", self.equation)
        if name in SIMULATORS:
            return SIMULATORS[name]
        known = f"Known: {', '.join(SIMULATORS)}, or the import path of a class of your own."
        if "." not in name or "__main__" in name.split(".") or name.startswith("pdessl.cli."):
            raise CatalogError(f"{self.name}: no simulator named '{name}'.{did_you_mean(name, SIMULATORS)} {known}")
        module, _, attribute = name.rpartition(".")
        if module not in sys.modules:
            package = module.partition(".")[0]
            raise CatalogError(
                f"{self.name}: the simulator '{name}' is code of another package, which runs when it is imported. If "
                f"you trust it, say so: pdessl generate or pretrain with --allow {package} (in Python import {module} "
                f"before). {known}"
            )
        try:
            cls = getattr(sys.modules[module], attribute)
        except (AttributeError, TypeError) as error:
            raise CatalogError(f"{self.name}: cannot import simulator '{name}': {error}. {known}") from None
        if not (python_inspect.isclass(cls) and issubclass(cls, Simulator)):
            raise CatalogError(f"{self.name}: '{name}' is not a subclass of pdessl.solvers.Simulator.")
        return cls

    def grids(self) -> list[tuple[int, ...]] | None:
        """Return the solver grids to choose from, points per axis, ascending; None for ``points: auto``."""
        points = self.content["solver"].get("points", "auto")
        if points == "auto":
            return None
        return sorted(self.per_axis(p) for p in (points if isinstance(points, list) else [points]))


def import_simulator(content: Mapping[str, Any], allow: Collection[str] | None = None) -> None:
    """Import the module of the simulator that a dataset's file names, if its package is allowed; None: whatever it is.

    Raises:
        CatalogError: Python does not find it.
    """
    solver = content.get("solver")
    name = solver.get("simulator") if isinstance(solver, Mapping) else None
    if not isinstance(name, str) or "." not in name or (allow is not None and name.partition(".")[0] not in allow):
        return
    try:
        importlib.import_module(name.rpartition(".")[0])
    except (ImportError, TypeError, ValueError) as error:
        raise CatalogError(f"cannot import simulator '{name}': {error}. Is its folder on PYTHONPATH?") from None


def load_recipe(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    size: int | Mapping[str, int] | None = None,
    overrides: Overrides | None = None,
    allow: Collection[str] = (),
) -> DatasetRecipe:
    """Find, read, change and check a dataset file.

    Args:
        dataset: a name from ``pdessl list datasets``, a path of a YAML file, or a recipe.
        size: number of trajectories of the first split of the file, where the others shrink in proportion (rounded up)
            and never grow; or a mapping from split to number, where the others stay.
        overrides: other values, e.g. ``{"observation.noise": 0.0}`` or ``["observation.noise=0"]``, laid over the file
            by the rule of :func:`pdessl.schema.merge`; None leaves a key out, a new key is refused by the check.
        allow: packages of your own that may be imported for a simulator; importing them runs their code.

    Raises:
        CatalogError: no such dataset, simulator or split.
        SchemaError: the file, or a change, does not follow the format.
    """
    if isinstance(dataset, DatasetRecipe):
        name, content = dataset.name, dict(dataset.content)
    else:
        path = catalog.find("datasets", dataset)
        name = Path(path).name if os.fspath(dataset).endswith((".yaml", ".yml")) else str(dataset)
        # By an alias it is the same dataset, and its files are the same.
        name = catalog.aliases("datasets").get(name, name) if Path(path).stem != Path(name).stem else name
        content = read_yaml(path)
    if "format" in content:
        raise SchemaError(
            f"{name} maps files of another format ('{content['format']}') onto fields and parameters; it does not say "
            f"how to simulate. Files of that format are read with: pdessl inspect PATH, pdessl convert PATH."
        )
    content = without_nulls(override(content, overrides), name)
    import_simulator(content, allow)
    if size is not None:
        splits = DatasetRecipe(name, content).content["splits"]  # checked before it is changed
        for split, number in (size if isinstance(size, Mapping) else _in_proportion(splits, size)).items():
            if split not in splits:
                raise CatalogError(
                    f"{name} has no split '{split}'.{did_you_mean(split, splits)} Splits: {', '.join(splits)}."
                )
            splits[split]["size"] = number
    recipe = DatasetRecipe(name, content)
    check_simulator(recipe)
    return recipe


def _in_proportion(splits: Mapping[str, Mapping[str, Any]], size: int) -> dict[str, int]:
    """Return the size of every split when the first has ``size``: no split gets larger by it but the first."""
    first, *others = splits
    whole = splits[first]["size"]
    smaller = {name: -(-splits[name]["size"] * size // whole) for name in others} if size < whole else {}
    return {first: size, **smaller}


def differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return ``{dotted key: (old, new)}`` of what two recipes' contents say differently; texts are left out."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(k for k in new if k not in old)]
        skip = TEXTS if not prefix else ()
        return {
            key: pair
            for k in keys
            if k not in skip
            for key, pair in differences(old.get(k), new.get(k), f"{prefix}{k}.").items()
        }
    return {} if old == new else {prefix[:-1]: (old, new)}
