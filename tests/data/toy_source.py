"""A dataset whose every value says where it lies, without files: 2D, with several splits, groups and a parameter."""

import numpy as np

from pdessl.data.source import Coordinates, Source


class ToySource(Source):
    """Value at (k, c, t, x, y) of a split: 1000 k + 100 c + t + 0.01 x + 0.0001 y, plus an offset per split."""

    format = "toy"
    equation = "toy"
    field_names = ("s", "u")
    axis_names = ("x", "y")
    boundary = ("periodic", "wall")
    units = {}
    staggered = {}

    def __init__(self, name="toy", per_group=4, size=(12, 6, 5), **splits):
        self.name, self.per_group, self.size, self.splits = name, per_group, size, splits or {"all": 40}
        self.parameters = ("buoyancy",)
        self.reads = []

    def shape(self, split):
        return (2, *self.size)

    def groups(self, split):
        first = 0
        for name, size in self.splits.items():
            if name == split:
                break
            first += -(-size // self.per_group)
        return first + np.arange(self.splits[split]) // self.per_group

    def parameter_values(self, split):
        return {"buoyancy": 0.2 + 0.01 * self.groups(split)}

    def coordinates(self, split, rows):
        frames, *points = self.size
        scale = 1.0 + 0.1 * rows[:, None]
        time = scale * np.arange(frames)
        space = tuple(scale * np.arange(n) for n in points)
        return Coordinates(time, space, scale * np.array(points, dtype=float))

    def values(self, split, rows):
        offset = 1e6 * list(self.splits).index(split)
        axes = np.meshgrid(rows, np.arange(2), *map(np.arange, self.size), indexing="ij", sparse=True)
        return offset + sum(w * a for w, a in zip((1000, 100, 1, 0.01, 0.0001), axes, strict=True))

    def read(self, split, rows, frames, space, channels):
        self.reads.append((split, rows.tolist()))
        return self.values(split, rows)[:, list(channels)][:, :, frames, *space]
