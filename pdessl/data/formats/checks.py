"""What the physics says about a file: swapped axes by the divergence, ends that meet, spectra up to the grid scale."""

# n trajectories, C channels, T frames, X space

from __future__ import annotations

import numpy as np

from pdessl.data.source import Source
from pdessl.errors import DataError, FormatError

__all__ = ["check_axis_order", "divergences", "end_jumps", "spectral_tail"]

SWAPPED = 10.0
RESOLVED = 1e-3


def divergences(fields: np.ndarray, staggered: bool, spacing: tuple[float, float]) -> tuple[float, float]:
    """Return the divergence of a plane velocity as its axes are declared, and with the two axes exchanged.

        div = (u[i+1, j] - u[i, j])/dx + (v[i, j+1] - v[i, j])/dy      on lower faces
        div = (u[i+1, j] - u[i-1, j])/(2 dx) + ...                     at nodes

    Both as root mean squares over the root mean square of the terms: 0 for a flow without divergence, about 1 for terms
    that have nothing to do with each other.

    Args:
        fields: u and v, shape (..., 2, X, Y).
        staggered: values lie on lower faces.
        spacing: dx and dy.
    """
    u, v = np.moveaxis(fields.astype(np.float64), -3, 0)
    found = []
    for first, second in ((u, v), (v, u)):
        if staggered:
            a = (first[..., 1:, :-1] - first[..., :-1, :-1]) / spacing[0]
            b = (second[..., :-1, 1:] - second[..., :-1, :-1]) / spacing[1]
        else:
            a = (first[..., 2:, 1:-1] - first[..., :-2, 1:-1]) / (2 * spacing[0])
            b = (second[..., 1:-1, 2:] - second[..., 1:-1, :-2]) / (2 * spacing[1])
        terms = np.sqrt(np.mean(a**2 + b**2))
        found.append(float(np.sqrt(np.mean((a + b) ** 2)) / terms) if terms > 0 else 0.0)
    return found[0], found[1]


def check_axis_order(source: Source, velocity: tuple[str, str]) -> tuple[float, float]:
    """Check that a velocity without divergence has none with the axes as they are declared.

    Reads the last frame of the first trajectory. A velocity whose divergence vanishes only when the axes are exchanged
    is stored in the other order.

    Raises:
        FormatError: the axes are exchanged; the message says what to write.
    """
    split = next(iter(source.splits))
    try:
        data = source.load(split, [0], frames=slice(-1, None), fields=velocity)
    except DataError:
        return 0.0, 0.0  # not finite: whoever reads it is told
    spacing = data.grid_spacing[0].tolist()
    staggered = source.staggered.get(velocity[0]) == source.axis_names[0]
    declared, exchanged = divergences(data.fields[0, :, 0].numpy(), staggered, (spacing[0], spacing[1]))
    if declared > SWAPPED * exchanged and declared > 0.1:
        a, b = source.axis_names
        raise FormatError(
            f"{source.name}: the axes look swapped: the divergence of ({velocity[0]}, {velocity[1]}) is {declared:.2g} "
            f"of its terms with axes ({a}, {b}) and {exchanged:.2g} with ({b}, {a}). The layout has {a} first, then "
            f"{b}: write the file so, or give a mapping with  dimensions: [trajectory, time, {b}, {a}]  (or, if the "
            f"flow does have a divergence,  divergence_free: [])"
        )
    return declared, exchanged


def end_jumps(fields: np.ndarray, axis: int) -> float:
    """Return the step across the ends of an axis over the step between neighbours, both root mean squares.

    About 1 for a periodic axis (the last node is followed by the first), much more for another smooth field, 0 where
    the last node repeats the first.
    """
    values = np.moveaxis(fields.astype(np.float64), axis, -1)
    inside = float(np.sqrt(np.mean(np.diff(values, axis=-1) ** 2)))
    across = float(np.sqrt(np.mean((values[..., 0] - values[..., -1]) ** 2)))
    return across / inside if inside > 0 else (0.0 if across == 0 else float("inf"))


def spectral_tail(fields: np.ndarray, axis: int, periodic: bool) -> float | None:
    """Return the amplitude near the grid scale over the largest one, along one axis.

    Fourier amplitudes on a periodic axis, cosine amplitudes (of the field mirrored at its ends) on others, root mean
    square over everything else; the largest in the upper eighth of the wave numbers over the largest but the mean.
    Below 1e-3 the grid resolves the field. None where there are too few nodes to say.
    """
    values = np.moveaxis(fields.astype(np.float64), axis, -1)
    if not periodic:
        values = np.concatenate([values, values[..., ::-1]], axis=-1)
    spectrum = np.abs(np.fft.rfft(values, axis=-1)) ** 2
    amplitude = np.sqrt(spectrum.reshape(-1, spectrum.shape[-1]).mean(axis=0))[1:]
    if len(amplitude) < 8 or not amplitude.max() > 0:
        return None
    return float(amplitude[-(len(amplitude) // 8) :].max() / amplitude.max())
