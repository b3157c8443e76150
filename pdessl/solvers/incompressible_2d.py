"""Incompressible flow on a periodic rectangle, stepped in its vorticity: what Navier-Stokes and Boussinesq share."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pdessl.solvers.periodic_2d import Drift, Periodic2D
from pdessl.solvers.spectral_2d import SpectralGrid, as_complex, as_real

__all__ = ["FlowOperators", "IncompressibleFlow2D", "velocity_of_vorticity"]


class FlowOperators:
    """Linear maps between velocity, vorticity and stresses in Fourier space.

        w = v_x - u_y,    u = ψ_y, v = -ψ_x, -∇²ψ = w
        w_t + ... = (∂_yy - ∂_xx)(u v) + ∂_xy (u² - v²)

    The last line is the curl of -∇·(u u): two products and two transforms instead of three.

    Source: Basdevant, J. Comput. Phys. 50 (1983).
    """

    def __init__(self, grid: SpectralGrid) -> None:
        self.grid = grid
        kx, ky = grid.kx, grid.ky
        inverse = grid.inverse_k_squared
        self.gradient = torch.cat([1j * kx.expand_as(inverse), 1j * ky.expand_as(inverse)], dim=1)
        #: From w to (u, v), shape (B, 2, K, J).
        self.velocity = torch.cat([1j * ky * inverse, -1j * kx * inverse], dim=1)
        #: From (u v, u² - v²), seen as real numbers, to the rate of w, shape (B, 2, K, 2 J).
        self.stress = torch.cat([kx**2 - ky**2, -kx * ky], dim=1).repeat_interleave(2, dim=-1)

    def vorticity(self, velocity: Tensor) -> Tensor:
        """Return the modes of v_x - u_y, shape (B, 1, K, J), of those of (u, v)."""
        return self.gradient[:, :1] * velocity[:, 1:] - self.gradient[:, 1:] * velocity[:, :1]

    def torque(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the modes of the curl of -∇·(u u), shape (B, 1, K, J), of fields u and v (B, X, Y)."""
        products = torch.stack([u * v, torch.addcmul(u * u, v, v, value=-1)], dim=1)
        terms = self.stress * as_real(self.grid.to_modes(products))
        return as_complex(terms[:, :1] + terms[:, 1:])

    def pressure(self, velocity: Tensor) -> Tensor:
        """Return p with -∇²p = ∂_i ∂_j (u_i u_j) and mean zero, shape (B, 1, K, J), of the modes of (u, v).

        The gradient of this p takes the divergence out of the advection.
        """
        u, v = self.grid.to_fields(velocity).unbind(dim=1)
        uu, uv, vv = self.grid.to_modes(torch.stack([u * u, u * v, v * v], dim=1)).split(1, dim=1)
        kx, ky = self.grid.kx, self.grid.ky
        return -(kx**2 * uu + 2 * kx * ky * uv + ky**2 * vv) * self.grid.inverse_k_squared

    def potential(self, force: Tensor) -> Tensor:
        """Return the pressure that takes the divergence out of a body force (f_x, f_y): ∇²p = ∇·f, (B, 1, K, J)."""
        return -(self.gradient * force).sum(dim=1, keepdim=True) * self.grid.inverse_k_squared


def velocity_of_vorticity(vorticity: Tensor, lengths: Tensor) -> Tensor:
    """Return the velocity (u, v) of mean zero whose vorticity v_x - u_y is given.

    Args:
        vorticity: fields on a periodic rectangle, shape (B, X, Y), X and Y even, of mean zero (a mean is dropped: no
            periodic velocity has it). Modes above a third of the points are dropped, too.
        lengths: domain lengths, shape (B, 2).

    Returns:
        shape (B, 2, X, Y).
    """
    grid = SpectralGrid.build(lengths.to(vorticity.dtype), vorticity.shape[1:])
    return grid.to_fields(FlowOperators(grid).velocity * grid.to_modes(vorticity[:, None]))


class IncompressibleFlow2D(Periodic2D):
    """Flow with velocity (u, v) as the first two channels of its state and vorticity as first prognostic variable.

    The initial velocity is made free of divergence by projection. Its mean is a uniform flow, which is solved exactly
    and decays with the drag only: the mean of a body force is balanced by a uniform pressure gradient, which the
    returned pressure (periodic, mean zero) does not contain.
    """

    def encode(self, grid: SpectralGrid, state: Tensor) -> Tensor:
        """Return the modes of the vorticity and of all channels after the velocity."""
        return torch.cat([FlowOperators(grid).vorticity(state[:, :2]), state[:, 2:]], dim=1)

    def drift(self, state: Tensor, parameters: Mapping[str, Tensor]) -> Drift:
        """Return the mean velocity and the rate at which drag slows it down."""
        velocity = state[:, :2, 0, 0].real
        drag = parameters.get("drag")
        return Drift(velocity, torch.zeros_like(velocity[:, 0]) if drag is None else drag[:, 0, 0, 0])

    def flow_fields(
        self,
        grid: SpectralGrid,
        vorticity: Tensor,
        speed: Tensor | None,
        force: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the modes (B, 1, K, J) of those of u, v, w, p that are asked for.

        Args:
            grid: the modes' grid.
            vorticity: shape (B, 1, K, J).
            speed: mean velocity, shape (B, 2), or None.
            force: body force without its mean, modes of shape (B, 2, K, J), or None.
        """
        operators = FlowOperators(grid)
        velocity = operators.velocity * vorticity
        found = {"w": vorticity}
        if "p" in self.field_names:
            found["p"] = operators.pressure(velocity)
            if force is not None:
                found["p"] = found["p"] + operators.potential(force)
        if speed is not None:
            mean = torch.zeros_like(velocity)
            mean[..., 0, 0] = speed.to(velocity.dtype)
            velocity = velocity + mean
        found["u"], found["v"] = velocity.split(1, dim=1)
        return found

    def _crossing_rate(self, initial: Tensor) -> Tensor:
        """Return max |u| / dx + max |v| / dy without the mean flow, (B,); fields on any grid, dx and dy of this one."""
        grid, vorticity = self._vorticity(initial)
        speeds = grid.to_fields(FlowOperators(grid).velocity * vorticity).abs().amax(dim=(2, 3))
        return (speeds / self.spacing(initial).detach()).sum(dim=1)

    def _largest_vorticity(self, initial: Tensor) -> Tensor:
        """Return max |w| of fields on any grid, shape (B,), float64."""
        grid, vorticity = self._vorticity(initial)
        return grid.to_fields(vorticity).abs().amax(dim=(1, 2, 3))

    def _vorticity(self, initial: Tensor) -> tuple[SpectralGrid, Tensor]:
        grid = SpectralGrid.build(self.lengths(initial).detach(), tuple(initial.shape[2:]), self.degree)
        return grid, FlowOperators(grid).vorticity(grid.to_modes(initial[:, :2].detach().to(torch.float64)))
