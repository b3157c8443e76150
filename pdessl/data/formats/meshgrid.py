"""Two-dimensional grids stored as mesh grids, whose index order differs from file to file."""

from __future__ import annotations

import numpy as np

from pdessl.data.formats.container import Container
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.errors import FormatError

__all__ = ["meshgrid_mapping"]


def meshgrid_mapping(container: Container, mapping: DatasetMapping, prefix: str) -> DatasetMapping:
    """Return a mapping whose axis order is the one in which the stored mesh grid varies.

    The array ``x`` of shape (2, N_1, N_2) holds the x coordinate of every node and then the y coordinate. Where x[0]
    varies along its first axis the fields are stored (..., x, y), where it varies along its second (..., y, x).

    Raises:
        FormatError: the array is no mesh grid.
    """
    name = prefix + (mapping.space["x"].dataset or "x")
    array = container.array(name)
    problem = f"{container.label}: '{name}' {array.shape} is not the mesh grid of two axes, expected (2, N, M)"
    if len(array.shape) != 3 or array.shape[0] != 2 or min(array.shape) < 2 or array.bytes > 1 << 30:
        raise FormatError(f"{problem}. Give the axes in a mapping of your own.")
    grid = container.read(name).astype(np.float64)
    along_first = np.ptp(grid[0], axis=0).max() > np.ptp(grid[0], axis=1).max()
    order = ("x", "y") if along_first else ("y", "x")
    index: dict[str, list[int | str]] = {"x": [0, ":", 0], "y": [1, 0, ":"]}
    if not along_first:
        index = {"x": [0, 0, ":"], "y": [1, ":", 0]}
    again = np.meshgrid(grid[tuple(_index(index["x"]))], grid[tuple(_index(index["y"]))], indexing="ij")
    if not all(np.array_equal(a if along_first else a.T, g) for a, g in zip(again, grid, strict=True)):
        raise FormatError(f"{problem} of straight lines. Give the axes in a mapping of your own.")
    space = {
        a: {**(mapping["space"].get(a) or {}), "dataset": name.removeprefix(prefix), "index": index[a]} for a in "xy"
    }
    dimensions = [*(d for d in mapping.dimensions if d not in ("x", "y")), *order]
    return DatasetMapping(mapping.name, {**mapping.content, "dimensions": dimensions, "space": space})


def _index(entries: list[int | str]) -> list[int | slice]:
    return [slice(None) if e == ":" else int(e) for e in entries]
