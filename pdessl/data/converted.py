"""What a store says about data that were converted into it, in place of the recipe of a generated one."""

# N trajectories of a split

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdessl.data.distribution import Distribution

__all__ = ["ConvertedRecipe"]


@dataclass(frozen=True)
class ConvertedRecipe:
    """Where converted data come from and what is known of them; the part of a recipe that a store needs.

    Args:
        name: name of the layout they were in.
        content: plain data: ``title``, ``equation``, ``converted`` (files with sizes, format, mapping), ``fields``
            {name: {unit, staggered}}, ``units``, ``parameters`` {name: {low, high, unit}}, ``constants``
            {name: value}, ``splits`` {name: {size, labels}},
            ``groups`` {split: [[group, how many in a row], ...]}, ``shard_size``, ``faults``; of runs with actuators
            ``actuation``.
    """

    name: str
    content: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    @property
    def equation(self) -> str | None:
        """Name of the equation in the catalog, or None."""
        return self.content["equation"]

    @property
    def seed(self) -> None:
        """Nothing was drawn."""
        return None

    @property
    def shard_size(self) -> int:
        """Trajectories per file."""
        return self.content["shard_size"]

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """``{name: {size, labels}}``."""
        return dict(self.content["splits"])

    @property
    def parameters(self) -> dict[str, Distribution]:
        """Range of each parameter, as far as it was found."""
        found = {}
        for name, p in self.content["parameters"].items():
            kind = "constant" if p["low"] == p["high"] else "range"
            found[name] = Distribution(kind, p["low"], p["high"], unit=p["unit"])
        return found

    @property
    def constants(self) -> dict[str, float]:
        """Values of the parameters that the mapping set once for all trajectories."""
        return dict(self.content.get("constants", {}))

    @property
    def units(self) -> dict[str, str]:
        """Units of fields, parameters, axes and time, as far as known."""
        return dict(self.content["units"])

    @property
    def staggered(self) -> dict[str, str]:
        """Fields on the lower faces of the cells along an axis, ``{field: axis}``."""
        return {n: f["staggered"] for n, f in self.content["fields"].items() if f.get("staggered")}

    @property
    def actuation(self) -> dict[str, Any]:
        """What is known of the actuators, see :class:`pdessl.data.source.Source`; empty for runs without."""
        return dict(self.content.get("actuation", {}))

    @property
    def faults(self) -> tuple[str, ...]:
        """What a user should know before trusting the data."""
        return tuple(self.content["faults"])

    @property
    def dtype(self) -> str:
        """Type of the values."""
        return self.content["dtype"]

    @property
    def origin(self) -> str:
        """One sentence on where the data come from."""
        files = self.content["converted"]["files"]
        first = next(iter(files), "memory")
        return f"converted from {first}{f' and {len(files) - 1} more files' if len(files) > 1 else ''} ({self.name})"

    def groups(self, split: str) -> np.ndarray:
        """Return the group of each trajectory of a split, shape (N,), int64."""
        runs = np.array(self.content["groups"][split], dtype=np.int64).reshape(-1, 2)
        return np.repeat(runs[:, 0], runs[:, 1])
