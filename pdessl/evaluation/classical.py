"""Classical estimates of a viscosity: least squares of the equation's own terms, with nothing learnt."""

# B batch, T time, X space, K test functions

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.trajectory import Trajectories

__all__ = ["least_squares_viscosity", "weak_form_viscosity"]


def _checked(trajectories: Trajectories, frames: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return fields (B, T, X) in float64, the time step (B,) and the spacing (B,), or say what does not fit."""
    fields = trajectories.fields
    if fields.ndim != 4 or fields.shape[1] != 1:
        raise ShapeError(f"the estimate needs one field on one space axis, (B, 1, T, X); found {tuple(fields.shape)}.")
    if trajectories.boundary[0] != "periodic":
        raise DataError(
            f"the estimate needs a periodic space axis, found '{trajectories.boundary[0]}': use whole runs."
        )
    if fields.shape[2] < frames or fields.shape[3] < points:
        raise ShapeError(
            f"{fields.shape[2]} frames of {fields.shape[3]} points; the estimate needs {frames} of {points}."
        )
    steps = trajectories.time.diff(dim=1)
    if not torch.allclose(steps, steps[:, :1].expand_as(steps), rtol=1e-4, atol=0.0):
        raise DataError("the estimate needs frames equally spaced in time.")
    points_x = fields.shape[3]
    return fields[:, 0].double(), trajectories.time_step.double(), trajectories.lengths[:, 0].double() / points_x


def _space_derivatives(u: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """Return u_x and u_xx of (B, T, X) by Fourier differentiation."""
    points = u.shape[-1]
    wavenumber = 2 * torch.pi * torch.fft.rfftfreq(points, dtype=u.dtype, device=u.device) / spacing[:, None, None]
    spectrum = torch.fft.rfft(u)
    first = 1j * wavenumber * spectrum
    if points % 2 == 0:
        first[..., -1] = 0  # the derivative of the highest cosine vanishes on the grid
    return torch.fft.irfft(first, n=points), torch.fft.irfft(-(wavenumber**2) * spectrum, n=points)


def least_squares_viscosity(trajectories: Trajectories) -> Tensor:
    """Viscosity of Burgers' equation from its terms at every grid point.

        ν = Σ u_xx (u_t + u u_x) / Σ u_xx²,        from u_t + u u_x = ν u_xx

    u_t by fourth-order central differences (the two frames at each end are not used), u_x and u_xx by Fourier
    differentiation. On clean data that resolve the solution in space and time this is nearly exact. Noise enters u_xx
    amplified by the square of the largest wavenumber and biases the estimate towards 0.

    Args:
        trajectories: one field (B, 1, T, X) on a periodic axis, T >= 5, equal time steps.

    Returns:
        ν (B,), float64, length²/time. It may be negative where noise dominates.

    Raises:
        ShapeError: another number of fields or axes, or too few frames.
        DataError: not periodic, or unequal time steps.
    """
    u, dt, dx = _checked(trajectories, frames=5, points=4)
    u_t = (u[:, :-4] - 8 * u[:, 1:-3] + 8 * u[:, 3:-1] - u[:, 4:]) / (12 * dt[:, None, None])
    u_x, u_xx = (derivative[:, 2:-2] for derivative in _space_derivatives(u, dx))
    residual = u_t + u[:, 2:-2] * u_x
    return (u_xx * residual).sum(dim=(1, 2)) / (u_xx**2).sum(dim=(1, 2)).clamp_min(torch.finfo(u.dtype).tiny)


def _bump(half_width: int, power: int) -> tuple[Tensor, Tensor]:
    """Return (1 - s²)^p at s = j/(h + 1), j = -h..h, and its derivative in grid units.

    The derivative is scaled so that integrating a straight line by parts is exact also as a sum over nodes.
    """
    h = half_width + 1
    j = torch.arange(-half_width, half_width + 1, dtype=torch.float64)
    q = 1 - (j / h) ** 2
    values, slope = q**power, -2 * power * (j / h) * q ** (power - 1) / h
    return values, slope * (values.sum() / -(j * slope).sum())


def _sum_in_time(values: Tensor, weights: Tensor) -> Tensor:
    """Sum over j of weights[j] values[t + j], where the whole window lies inside: (B, T, X) -> (B, T - 2h, X)."""
    return values.unfold(1, weights.shape[0], 1) @ weights.to(values)


def weak_form_viscosity(
    trajectories: Trajectories, half_width: tuple[int, int] = (6, 6), power: int = 4, noise_level: float = 0.0
) -> Tensor:
    """Viscosity of Burgers' equation from its weak form, which differentiates no data.

        ν ∫∫ φ_xx u = - ∫∫ (φ_t u + φ_x u²/2),        φ = (1 - (t/a)²)^p (1 - (x/b)²)^p around every grid point

    Integrating by parts moves all derivatives onto the test functions, so noise is averaged instead of amplified; ν is
    the least-squares solution over all positions of φ. White noise still adds a known variance to the left-hand side,
    which biases ν towards 0; with ``noise_level`` given it is subtracted exactly in expectation.

    Args:
        trajectories: one field (B, 1, T, X) on a periodic axis, equal time steps.
        half_width: frames and grid points on each side of the centre, >= 1. Wide: less noise, fewer independent
            equations, and small scales are averaged away.
        power: p >= 3, so that φ_xx vanishes at the edge.
        noise_level: standard deviation of white noise on the field, in its unit, >= 0.

    Returns:
        ν (B,), float64, length²/time.

    Raises:
        ShapeError: another number of fields or axes, or windows larger than the data.
        DataError: not periodic, or unequal time steps.
        ValueError: half widths below 1, power below 3, or a negative noise level.

    Source: Messenger and Bortz (2021), Weak SINDy for partial differential equations, arXiv:2007.02848.
    """
    frames, points = half_width
    if frames < 1 or points < 1 or power < 3 or noise_level < 0:
        raise ValueError(
            f"half_width {half_width} must be >= 1, power {power} >= 3 and noise_level {noise_level} >= 0."
        )
    u, dt, dx = _checked(trajectories, frames=2 * frames + 1, points=2 * points + 1)
    in_time, in_time_slope = _bump(frames, power)
    in_space = torch.zeros(u.shape[-1], dtype=u.dtype)
    in_space[torch.arange(-points, points + 1)] = _bump(points, power)[0]
    # φ is even in x, so that sums against φ(x' - x) are circular convolutions. Derivatives in x are those of φ on its
    # grid by FFT, which makes the integration by parts exact for resolved fields and any width.
    kernel = in_space.to(u.device).expand(len(u), 1, -1)
    kernel_x, kernel_xx = _space_derivatives(kernel, dx)
    smooth = _sum_in_time(u, in_time)
    left = _convolve(smooth, kernel_xx)
    right = _convolve(_sum_in_time(u, -in_time_slope), kernel) / dt[:, None, None]
    right = right + _convolve(_sum_in_time(u**2 / 2, in_time), kernel_x)
    squares = (left**2).sum(dim=(1, 2))
    if noise_level:
        count = left.shape[1] * left.shape[2]
        added = count * noise_level**2 * (in_time**2).sum().to(u.device) * (kernel_xx**2).sum(dim=(1, 2))
        # Never below a tenth of what was measured: beyond that the data hold no information and 1/0 would be returned.
        squares = torch.maximum(squares - added, 0.1 * squares)
    return (left * right).sum(dim=(1, 2)) / squares.clamp_min(torch.finfo(u.dtype).tiny)


def _convolve(values: Tensor, kernel: Tensor) -> Tensor:
    """Circular convolution along the last axis."""
    return torch.fft.irfft(torch.fft.rfft(values) * torch.fft.rfft(kernel), n=values.shape[-1])
