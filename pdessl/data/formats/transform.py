"""What a layout stores in another form than the equation has it: Cole-Hopf potentials, velocities on faces."""

# n trajectories, T frames, X nodes of the only space axis

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pdessl.errors import DataError

__all__ = ["TRANSFORMS", "cole_hopf", "to_centres"]


def cole_hopf(potential: np.ndarray, lengths: np.ndarray, label: str, viscosity: float) -> np.ndarray:
    """Return the solution of Burgers' equation that a positive solution of the heat equation stands for.

        u = -2 nu psi_x / psi,    psi_t = nu psi_xx   =>   u_t + u u_x = nu u_xx

    The derivative is spectral; u loses the digits by which psi varies over its period (psi from 1e-4 to 1e4 leaves
    about 8 of 16).

    Args:
        potential: psi > 0, shape (n, T, X), on X equally spaced nodes of a period.
        lengths: periods, shape (n, 1).
        label: file, for messages.
        viscosity: nu, length^2/time.

    Raises:
        DataError: psi is not positive everywhere.

    Source: Hopf (1950); Cole (1951).
    """
    psi = potential.astype(np.float64)
    if not (psi > 0).all():
        row = int(np.argmax((psi <= 0).any(axis=(1, 2))))
        raise DataError(
            f"{label}: the heat solution is not positive (trajectory {row} of those read), so it stands for no "
            f"solution of "
            f"Burgers' equation. Leave such trajectories out with  indices=..."
        )
    points = psi.shape[-1]
    waves = 2j * np.pi * np.arange(points // 2 + 1) / lengths[:, :, None]
    if points % 2 == 0:
        waves[..., -1] = 0.0  # the derivative of the highest cosine vanishes on the nodes
    slope = np.fft.irfft(waves * np.fft.rfft(psi, axis=-1), n=points, axis=-1)
    return -2.0 * viscosity * slope / psi


TRANSFORMS: dict[str, Callable[..., np.ndarray]] = {"cole_hopf": cole_hopf}


def to_centres(
    read: Callable[[slice], np.ndarray], cut: slice, size: int, axis: int, boundary: str, label: str, name: str
) -> np.ndarray:
    """Return the mean of the lower and the upper face of cells.

    Args:
        read: gives the values on the lower faces of a slice of cells.
        cut: which cells.
        size: number of cells along the axis.
        axis: number of the axis in the array that ``read`` gives.
        boundary: beyond the last cell lies the first (``periodic``), or a face where the value is 0 (``wall``).
        label: file, for messages.
        name: of the axis, for messages.

    Raises:
        DataError: the axis is a ``window``: what lies beyond its last cell is not known.
    """
    if boundary == "window":
        raise DataError(
            f"{label}: staggering 'centred' needs to know what lies beyond the last cell. Say so in the mapping:  "
            f"boundary: {{{name}: wall}}  or periodic; or read the values as stored:  staggering: stored"
        )
    start, stop, step = cut.indices(size)
    last = range(start, stop, step)[-1]
    lower = read(slice(start, last + 1))
    if last + 1 < size:
        beyond = read(slice(last + 1, last + 2))
    else:
        beyond = read(slice(0, 1)) if boundary == "periodic" else np.zeros_like(np.take(lower, [0], axis=axis))
    faces = np.concatenate([lower, beyond], axis=axis)
    index = np.arange(0, last + 1 - start, step)
    return ((np.take(faces, index, axis=axis) + np.take(faces, index + 1, axis=axis)) / 2).astype(lower.dtype)
