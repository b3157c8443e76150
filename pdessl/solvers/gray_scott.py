"""Gray-Scott reaction and diffusion: spots that divide, stripes, waves."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic_2d import Periodic2D, Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["GrayScott"]


class GrayScott(Periodic2D):
    """Gray-Scott model of a substrate u that is fed in and an activator v that consumes it and decays.

        u_t = D_u ∇²u - u v² + F (1 - u) + f_u
        v_t = D_v ∇²v + u v² - (F + k) v + f_v,        periodic rectangle

    u = 1, v = 0 is a stable state; patterns grow from patches of v of finite size. Diffusion and decay are integrated
    exactly (ETDRK4). The 2/3 rule does not take all aliasing out of the cubic reaction; what is left is of the size of
    the spectral tail.

    Args:
        feed_rate: F, > 0, 1/time; a number or shape (B,).
        kill_rate: k, > 0, 1/time; a number or shape (B,).
        substrate_diffusivity: D_u, > 0, length²/time; a number or shape (B,).
        activator_diffusivity: D_v, > 0, length²/time; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2.5.
        points: grid points, even, >= 8; a number or (X, Y).
        outputs: returned fields, of ``u``, ``v``.
        settings: see :class:`pdessl.solvers.Simulator`; a ``forcing`` is (f_u, f_v), shape (B, 2, X, Y).

    Shapes:
        initial u and v (B, 2, X, Y) -> trajectories (B, len(outputs), T, X, Y).

    Good values: D_u = 2e-5, D_v = 1e-5, sides of 1 to 2.5 and (F, k) = (0.03, 0.062) spots that divide, (0.035, 0.06) a
        maze of stripes; patterns take times of 1e3 to 1e4. A patch needs v of about 1/4 over a radius of about 0.05, or
        it dies out (at (0.035, 0.065) and (0.014, 0.054) wider and weaker ones did).

    Fails when:
        the grid is coarser than a front, √(D_v / (F + k)) wide. Difference from a grid of 192 points, sides of 1, at
        t = 500 and (0.04, 0.06): 5e-3 with dx 1.04 widths (spectral tail 4e-3), 8e-2 with 1.6 widths; refused above
        0.83 widths (tail below 1e-3). The default step makes errors of 1e-3 by then, half of it 1e-4.

    Raises:
        DataError: a rate or diffusivity <= 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, or a grid too coarse for the width of a front; the message states
            the points needed.

    Source: Pearson, Science 261 (1993).
    """

    equation = "gray_scott"
    field_names = ("u", "v")
    parameter_names = ("feed_rate", "kill_rate", "substrate_diffusivity", "activator_diffusivity")
    positive = parameter_names
    largest_courant = 2.0  # errors of 2e-2 there, of 8e-2 at 3

    def __init__(
        self,
        feed_rate: float | Tensor,
        kill_rate: float | Tensor,
        substrate_diffusivity: float | Tensor = 2e-5,
        activator_diffusivity: float | Tensor = 1e-5,
        domain_length: float | Tensor = 2.5,
        points: int | Sequence[int] = 128,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {
            "feed_rate": feed_rate,
            "kill_rate": kill_rate,
            "substrate_diffusivity": substrate_diffusivity,
            "activator_diffusivity": activator_diffusivity,
        }
        super().__init__(parameters, domain_length, points, outputs, **settings)

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -D_u k² - F and -D_v k² - F - k."""
        square, feed = grid.k_squared, parameters["feed_rate"]
        substrate = -parameters["substrate_diffusivity"] * square - feed
        activator = -parameters["activator_diffusivity"] * square - feed - parameters["kill_rate"]
        return torch.cat([substrate, activator], dim=1)

    def steady_source(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the feed F, the same everywhere."""
        mean = torch.zeros(2, *grid.shape, dtype=grid.kx.dtype, device=grid.kx.device)
        mean[0, 0, 0] = 1.0
        return (parameters["feed_rate"] * mean).to(torch.complex(mean, mean).dtype)

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return the reaction."""

        def reaction(modes: Tensor, time: Tensor) -> Tensor:
            u, v = grid.to_fields(modes).unbind(dim=1)
            consumed = grid.to_modes((u * v * v)[:, None])
            return torch.cat([-consumed, consumed], dim=1)

        return reaction

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / max v²: the reaction limits the step."""
        largest = initial[:, 1].detach().abs().amax(dim=(1, 2)).to(torch.float64).clamp_min(0.5)
        return courant / largest**2

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return 1.2 L / √(D / (F + k)), D the smaller diffusivity, at least 8: dx is 0.8 widths of a front."""
        decay = self.parameter("feed_rate", initial) + self.parameter("kill_rate", initial)
        smallest = torch.minimum(
            self.parameter("substrate_diffusivity", initial), self.parameter("activator_diffusivity", initial)
        )
        width = torch.sqrt(smallest / decay).detach()
        return (1.2 * self.lengths(initial).detach().amax(dim=1) / width).clamp_min(8.0)
