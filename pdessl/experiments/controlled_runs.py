"""``generate`` for a controlled PDE: runs with actuators to learn from, written into a store like any dataset."""

# N runs of a split, n of them asked for, A actuators, T frames, X grid points

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pdessl import catalog
from pdessl.control import (
    BEHAVIOURS,
    ControlledPDE,
    environment_file,
    load_environment,
    make_environment,
    record_runs,
)
from pdessl.data import convert
from pdessl.data import generate as generate_dataset
from pdessl.data.recipe import DatasetRecipe
from pdessl.data.reporting import Progress
from pdessl.data.source import Coordinates, Source
from pdessl.data.store import Store
from pdessl.errors import DataError, PdesslError
from pdessl.schema import Overrides, read_yaml

__all__ = ["SIZES", "ControlledRuns", "environment_of", "generate", "is_environment"]

#: Runs per split where none are asked for; the splits after the first are a tenth of it where another number is.
SIZES = {"unlabelled": 110, "validation": 11}
_FIRST_SEED = {"unlabelled": 0, "validation": 500_000}


class ControlledRuns(Source):
    """Runs of an environment under amplitudes of all :data:`pdessl.control.BEHAVIOURS`, simulated when they are read.

    Run k of a split depends on environment, split and k alone.

    Args:
        environment: what is controlled.
        splits: runs of ``unlabelled`` and ``validation``.
    """

    def __init__(self, environment: ControlledPDE, splits: Mapping[str, int]) -> None:
        file, d = environment.file, len(environment.grid)
        self.field_names, self.axis_names = environment.channels, ("x", "y")[:d]
        self.boundary, self.staggered = environment.boundary, environment.staggered
        self.environment, self.splits = environment, dict(splits)
        self.name = self.format = environment.name
        self.equation, self.constants = file.equation, dict(file.parameters)
        units = dict.fromkeys(environment.channels, "") | dict.fromkeys(self.axis_names, file.domain.unit)
        self.units = units | {"time": "time", "actions": "u/time"}
        self.actuation = {
            "positions": [list(place) for place in environment.places],
            "bound": environment.bound,
            "environment": environment.name,
            "file": json.loads(json.dumps(dataclasses.asdict(file))),
            "behaviours": list(BEHAVIOURS),
        }
        self._last: tuple[tuple[int, ...], xr.Dataset] | None = None

    def shape(self, split: str) -> tuple[int, ...]:  # noqa: D102
        self.known(split)
        return (len(self.field_names), self.environment.steps + 1, *self.environment.grid)

    def groups(self, split: str) -> np.ndarray:  # noqa: D102
        names = list(self.splits)
        before = sum(self.splits[name] for name in names[: names.index(self.known(split))])
        return before + np.arange(self.splits[split], dtype=np.int64)

    def parameter_values(self, split: str) -> dict[str, np.ndarray]:  # noqa: D102
        return {}

    def coordinates(self, split: str, rows: np.ndarray) -> Coordinates:  # noqa: D102
        env, n = self.environment, len(rows)
        time = env.file.control.period * np.arange(env.steps + 1)
        space = tuple(np.tile(nodes.numpy(), (n, 1)) for nodes in env.nodes())
        return Coordinates(np.tile(time, (n, 1)), space, np.tile(np.asarray(env.lengths), (n, 1)))

    def read(  # noqa: D102
        self, split: str, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]
    ) -> np.ndarray:
        runs = self._recorded(split, rows)
        return np.stack([runs[self.field_names[c]].values[(slice(None), frames, *space)] for c in channels], axis=1)

    def actions(self, split: str, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._recorded(split, rows)["actions"].values

    def _recorded(self, split: str, rows: np.ndarray) -> xr.Dataset:
        seeds = tuple(int(_FIRST_SEED[self.known(split)] + row) for row in rows)
        if self._last is None or self._last[0] != seeds:
            self._last = seeds, record_runs(self.environment, seeds)
        return self._last[1]


def is_environment(name: object) -> bool:
    """Return whether a name is that of an environment of the catalog, or of a YAML file that describes one."""
    if not isinstance(name, (str, os.PathLike)):
        return False
    text = os.fspath(name)
    if text.endswith((".yaml", ".yml")):
        try:
            content = read_yaml(text)
        except (PdesslError, OSError):  # said by whoever reads it next
            return False
        return isinstance(content, Mapping) and "actuators" in content
    return text in catalog.names("environments") and text not in catalog.names("datasets")


def environment_of(source: Source) -> ControlledPDE:
    """Return the environment that runs with actuators were recorded in.

    Raises:
        DataError: runs that do not say.
    """
    content = source.actuation.get("file")
    if not isinstance(content, Mapping):
        raise DataError(
            f"{source.name} does not say in which environment it was recorded. Make such runs with "
            "'pdessl generate ENVIRONMENT' ('pdessl list environments')."
        )
    return make_environment(str(source.actuation.get("environment", "")), environment_file(content, source.name))


def generate(
    dataset: str | os.PathLike[str] | DatasetRecipe | ControlledPDE,
    out: str | os.PathLike[str],
    size: int | Mapping[str, int] | None = None,
    *,
    resume: bool = False,
    overrides: Overrides | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    any_version: bool = False,
    **settings: Any,
) -> Store:
    """Simulate a dataset, or runs of an environment, into a store on disk.

    Runs of an environment hold ``actions`` (B, A, T - 1), amplitudes held between frames: none, smooth random ones, and
    linear feedback with noise, in turn. They begin after the environment's burn-in.

    Args:
        dataset: a name from ``pdessl list datasets`` or ``pdessl list environments``, a YAML file, a recipe or an
            environment.
        out: folder of the store; made if missing. It must be empty unless ``resume``.
        size: runs of the first split, or a mapping from split to number. Of an environment: ``unlabelled`` and
            ``validation``, a tenth of it.
        resume: continue an interrupted generation.
        overrides: other values of the file, ``{"control.steps": 100}``.
        progress: see :func:`pdessl.data.generate`.
        any_version: with ``resume``, continue what another version began.
        **settings: of a dataset: ``device``, ``workers``, ``scheduler``, see :func:`pdessl.data.generate`.

    Raises:
        CatalogError: no such dataset or environment.
        SchemaError: a file that does not follow its format.
        DataError: sizes of other splits, or settings that are none of an environment's.
        StoreError: a folder that holds something else, or cannot be written.
    """
    if not isinstance(dataset, ControlledPDE) and not is_environment(dataset):
        return generate_dataset(
            dataset, out, size, resume=resume, overrides=overrides, progress=progress, any_version=any_version,
            **settings,
        )  # fmt: skip
    if given := [name for name, value in settings.items() if value not in (None, "cpu")]:
        raise DataError(
            f"{given[0]} is a setting of datasets; runs of an environment are simulated here. Leave it out."
        )
    env = dataset if isinstance(dataset, ControlledPDE) else load_environment(os.fspath(dataset), overrides)
    runs = ControlledRuns(env, split_sizes(size))
    return convert(runs, out, resume=resume, progress=progress, any_version=any_version)


def split_sizes(size: int | Mapping[str, int] | None) -> dict[str, int]:
    """Return how many runs of an environment there are per split, see :func:`generate`."""
    if size is None:
        return dict(SIZES)
    if isinstance(size, Mapping):
        unknown = set(size) - set(SIZES)
        if unknown or any(n < 1 for n in size.values()):
            raise DataError(f"sizes {dict(size)}: an environment has the splits {', '.join(SIZES)}, of at least 1 run.")
        return SIZES | dict(size)
    if size < 1:
        raise DataError(f"size {size}: expected at least one run.")
    return {"unlabelled": size, "validation": max(1, size // 10)}
