"""Codes of the runs in files under a law, by least forecast error: no label, nothing trained."""

# n runs

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import norm
from torch import Tensor

from pdessl.conventions import run_name
from pdessl.errors import CheckpointError, DataError
from pdessl.inference.energy import EnergyEncoder
from pdessl.inference.prediction import for_files
from pdessl.operators import LatentOperator
from pdessl.operators.following import prediction_errors, shortened
from pdessl.trajectory import Trajectories

__all__ = ["Codes", "codes_of_files"]


@dataclass(frozen=True)
class _Code:
    name: str
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of the runs in files.

    Args:
        targets: the codes, by the letters of the law.
        table: over ``run``, with ``file`` and ``label`` of each: every code, the ends of its interval (``_low``,
            ``_high``), and ``misfit``, the mean square of the errors of what is foreseen over what is expected of it:
            near 1 where the law holds and noise is white.
        level: of the intervals.
    """

    targets: tuple[_Code, ...]
    table: xr.Dataset
    level: float


def codes_of_files(
    law: Any,
    paths: Sequence[str | os.PathLike[str]],
    level: float = 0.9,
    mapping: Any = None,
    split: str | None = None,
) -> Codes:
    """Return the codes of all runs of files by :class:`EnergyEncoder`, with intervals from the curvature.

    They are in the units of the law, u_t = z u_xx and the like, and no label has calibrated the intervals:
    ``pdessl regress --inference energy`` does that, and saves a model for ``pdessl predict --model``.

    Args:
        law: whose codes are asked for, a :class:`pdessl.operators.LatentOperator`.
        paths: stores, or files of any layout that :func:`pdessl.open` reads.
        level: of the intervals, between 0 and 1.
        mapping: how files are read.
        split: of a store; default all.

    Raises:
        CheckpointError: anything but a law.
        DataError: a level outside (0, 1), or runs that the law cannot foresee.
    """
    if not isinstance(law, LatentOperator):
        raise CheckpointError(
            f"{type(law).__name__} is no law: codes are read by one of 'pdessl discover --out FOLDER'."
        )
    if not 0 < level < 1:
        raise DataError(f"level {level:g}; expected a share between 0 and 1, such as 0.9.")
    encoder, reach = EnergyEncoder(law), float(norm.ppf(0.5 + level / 2))

    def inferred(data: xr.Dataset) -> xr.Dataset:
        run = run_name(data.dims)
        runs = Trajectories.from_xarray(data, parameters=(), trajectory=run)
        found = encoder.infer(runs)
        columns: dict[str, Tensor] = {}
        for r, name in enumerate(law.letters):
            value, half = found.codes[:, r], reach * found.deviation[:, r]
            columns |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
        errors = prediction_errors(shortened(law, runs.fields.shape[2]), runs, found.codes, encoder.refine)
        columns["misfit"] = errors.square().sum(dim=1) / (errors != 0).sum(dim=1).clamp_min(1)
        made = xr.Dataset({n: (run, v.numpy()) for n, v in columns.items()})
        return made.assign_coords({run: data[run].values if run in data.coords else np.arange(len(runs))})

    table = for_files(inferred, paths, mapping, split)
    return Codes(tuple(_Code(name) for name in law.letters), table, level)
