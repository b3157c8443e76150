"""Mean and standard deviation of fields, of data of any size."""

# B batch, C channels, M values

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import DataError

__all__ = ["FieldStatistics", "far_from_zero", "field_statistics"]

OFFSET = 1e4  # mean over deviation, from which on float32 keeps three digits of the deviation or fewer


@dataclass(frozen=True)
class FieldStatistics:
    """Mean and standard deviation of one field over a training split, in the unit of the field."""

    mean: float
    std: float


def far_from_zero(found: Mapping[str, FieldStatistics]) -> list[str]:
    """Return which fields lie so far from 0 that float32, in which they are trained on, loses what they do.

    Args:
        found: mean and deviation per field, taken in float64.
    """
    return [
        f"field {name} is {s.mean:.6g} with a deviation of {s.std:.3g}: in float32, in which it is trained on, its "
        f"step is {np.spacing(np.float32(abs(s.mean))) / s.std:.2g} of that. Subtract a constant:  "
        f"ds.assign({name}=ds.{name} - {s.mean:.6g})"
        for name, s in found.items()
        if 0 < OFFSET * s.std < abs(s.mean)
    ]


def field_statistics(batches: Iterable[Tensor], names: tuple[str, ...]) -> dict[str, FieldStatistics]:
    """Return mean and standard deviation (with M - 1) per channel over all values of some batches.

    In one pass, in float64: means and sums of squared deviations of the batches are merged, which loses no digits where
    the mean is large against the deviation.

    Args:
        batches: fields, each (B, C, ...).
        names: names of the channels, length C.

    Raises:
        DataError: no batch, or values that are not finite.

    Source: Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances.
    """
    count, mean, squares = 0, torch.zeros(len(names), dtype=torch.float64), torch.zeros(len(names), dtype=torch.float64)
    for fields in batches:
        for run in fields:
            # One run at a time: a copy in float64 of a whole batch may not fit beside it.
            values = run.to("cpu", torch.float64, copy=True).flatten(1)
            size, own = values.shape[1], values.mean(dim=1)
            delta = own - mean
            total = count + size
            deviations = values.sub_(own[:, None]).square_()
            squares += deviations.sum(dim=1) + delta.square() * count * (size / total)
            mean += delta * (size / total)
            count = total
    if not count:
        raise DataError("no trajectories to take mean and standard deviation of; the training split is empty.")
    bad = [n for n, m, s in zip(names, mean.tolist(), squares.tolist(), strict=True) if not abs(m) + s < float("inf")]
    if bad:
        raise DataError(
            f"field '{bad[0]}' holds NaN or infinite values in the training split, so it has no mean. Remove these "
            f"trajectories: data.load(split).check_finite() names them."
        )
    std = (squares / max(count - 1, 1)).sqrt()
    return {n: FieldStatistics(m, s) for n, m, s in zip(names, mean.tolist(), std.tolist(), strict=True)}
