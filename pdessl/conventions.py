"""What files of other people mean without saying so: names of runs, values for nothing written, nodes stored twice."""

# X nodes of an axis

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

__all__ = ["DEFAULT_FILLS", "RUN_NAMES", "is_default_fill", "repeated_nodes", "run_name"]

RUN_NAMES = (
    "trajectory", "sample", "run", "realization", "realisation", "member", "ensemble", "ensemble_member", "number",
    "batch", "simulation", "sim", "case", "trial",
)  # fmt: skip
"""Names that dimensions of runs go by, the first that a field has counts; ``number`` is that of ERA5."""


def run_name(dimensions: Iterable[Hashable]) -> str:
    """Return which of the dimensions counts runs; ``trajectory`` where none has a name for that."""
    held = set(dimensions)
    return next((n for n in RUN_NAMES if n in held), "trajectory")


DEFAULT_FILLS: dict[str, float] = {
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
}
"""What netCDF writes where nothing was written, by type; no attribute of the file need say so.

Source: netCDF-C, netcdf.h, NC_FILL_SHORT to NC_FILL_UINT64; bytes have no default that readers may rely on."""

MAX_REPEATED = 8
AGREE = 1e-3  # of the step between neighbours: round-off, not a wave that happens to close


def is_default_fill(values: np.ndarray) -> np.ndarray:
    """Return where floating-point values are what netCDF writes for nothing written, a mask of their shape."""
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        return np.zeros(values.shape, dtype=bool)
    return values == values.dtype.type(DEFAULT_FILLS["f8"])


def repeated_nodes(values: np.ndarray, axis: int) -> int:
    """Return how many nodes at the end of an axis repeat those at its begin, 0 for an axis stored once.

    1 is a periodic axis written with its end node; 2 w one with w halo cells on each side. The smallest number of nodes
    (at most 8) that agree to 1/1000 of the step between neighbours counts; 0 where nothing varies along the axis.

    Args:
        values: fields of several frames, any shape; only finite ones can agree.
        axis: which axis.
    """
    values = np.moveaxis(values, axis, -1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(values, axis=-1)
        scale = float(np.sqrt(np.mean(np.square(steps)))) if steps.size else 0.0
        if not 0 < scale < np.inf:
            return 0
        for count in range(1, min(MAX_REPEATED, values.shape[-1] // 2 - 1) + 1):
            if np.abs(values[..., :count] - values[..., -count:]).max() > AGREE * scale:
                continue
            # A field that mirrors itself between cell centres, cos(x), has equal ends without being stored twice.
            mirrored = np.abs(values[..., :4] - values[..., -4:][..., ::-1]).max() <= AGREE * scale
            if not mirrored or _roughness(values[..., :-count]) < _roughness(values):
                return count
    return 0


def _roughness(values: np.ndarray) -> float:
    """Return the root mean square of fourth differences across the ends of an axis that is taken as periodic."""
    seam = np.concatenate([values[..., -4:], values[..., :4]], axis=-1)
    return float(np.sqrt(np.mean(np.square(np.diff(seam, n=4, axis=-1)))))
