"""Labels of runs, from a dataset or from trajectories."""

# n runs

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdessl.errors import DataError, did_you_mean
from pdessl.trajectory import Trajectories

__all__ = ["labels_of"]


def labels_of(data: xr.Dataset | Trajectories, name: str) -> NDArray[np.float64]:
    """Return the labels (n,), float64, of one parameter.

    Raises:
        DataError: no such parameter, or values that are not finite.
    """
    known = data.parameters if isinstance(data, Trajectories) else data.variables
    if name not in known:
        raise DataError(
            f"the labelled runs have no parameter '{name}'.{did_you_mean(name, map(str, known))} They have: "
            f"{', '.join(map(str, known)) or 'none'}."
        )
    values = known[name]
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = np.atleast_1d(array).astype(np.float64).reshape(-1)
    if not np.isfinite(array).all():
        raise DataError(f"'{name}' is not finite in {int((~np.isfinite(array)).sum())} of {len(array)} labelled runs.")
    return array
