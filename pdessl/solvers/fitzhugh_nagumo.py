"""FitzHugh-Nagumo reaction and diffusion: an activator that excites itself and an inhibitor that follows it."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic_2d import Periodic2D, Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["FitzHughNagumo"]


class FitzHughNagumo(Periodic2D):
    """FitzHugh-Nagumo model of an activator u and an inhibitor v.

        u_t = D_u ∇²u + u - u³ - k - v + f_u
        v_t = D_v ∇²v + u - v + f_v,        periodic rectangle

    The only uniform steady state is u = v = -k^(1/3). It is stable to uniform perturbations where k is not 0, and where
    D_v is much larger than D_u patterns grow on it (Turing). Diffusion is integrated exactly (ETDRK4). All modes
    that a product of three factors leaves free of aliasing are kept.

    Args:
        activator_diffusivity: D_u, > 0, length²/time; a number or shape (B,).
        inhibitor_diffusivity: D_v, > 0, length²/time; a number or shape (B,).
        threshold: k; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2.
        points: grid points, even, >= 8; a number or (X, Y).
        outputs: returned fields, of ``u``, ``v``.
        settings: see :class:`pdessl.solvers.Simulator`; a ``forcing`` is (f_u, f_v), shape (B, 2, X, Y).

    Shapes:
        initial u and v (B, 2, X, Y) -> trajectories (B, len(outputs), T, X, Y).

    Good values: D_u and D_v of 0.01 to 0.5 on a side of 2, k of 0.005 to 0.1, times up to 6.

    Fails when:
        the grid is coarser than a front, √D / max(1, max |u|) wide, D the smaller diffusivity: refused above half a
        width.

    Raises:
        DataError: a diffusivity <= 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, or a grid too coarse; the message states the points needed.

    Source: FitzHugh, Biophysical Journal 1 (1961); Nagumo, Arimoto, Yoshizawa, Proceedings of the IRE 50 (1962); with
        diffusion of both and these reactions: Takamoto et al. (2022), arXiv:2210.07182, section D.4.
    """

    equation = "fitzhugh_nagumo"
    field_names = ("u", "v")
    parameter_names = ("activator_diffusivity", "inhibitor_diffusivity", "threshold")
    positive = ("activator_diffusivity", "inhibitor_diffusivity")
    degree = 3
    largest_courant = 3.0  # steps of 0.3; errors there are those of courant 1 times 3⁴

    def __init__(
        self,
        activator_diffusivity: float | Tensor,
        inhibitor_diffusivity: float | Tensor,
        threshold: float | Tensor,
        domain_length: float | Tensor = 2.0,
        points: int | Sequence[int] = 64,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {
            "activator_diffusivity": activator_diffusivity,
            "inhibitor_diffusivity": inhibitor_diffusivity,
            "threshold": threshold,
        }
        super().__init__(parameters, domain_length, points, outputs, **settings)

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -D_u k² and -D_v k² - 1; the growth of u is left to the reaction, which stops it."""
        square = grid.k_squared
        inhibitor = -parameters["inhibitor_diffusivity"] * square - 1.0
        return torch.cat([-parameters["activator_diffusivity"] * square, inhibitor], dim=1)

    def steady_source(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -k, the same everywhere."""
        mean = torch.zeros(2, *grid.shape, dtype=grid.kx.dtype, device=grid.kx.device)
        mean[0, 0, 0] = 1.0
        return (-parameters["threshold"] * mean).to(torch.complex(mean, mean).dtype)

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return u - u³ - v and u."""

        def reaction(modes: Tensor, time: Tensor) -> Tensor:
            activator, inhibitor = modes[:, :1], modes[:, 1:]
            cube = grid.to_modes(grid.to_fields(activator) ** 3)
            return torch.cat([activator - cube - inhibitor, activator], dim=1)

        return reaction

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / (4 + 6 max u²): a fifth to a half of the time of the reaction, 1 / |1 - 3 u²|."""
        largest = initial[:, 0].detach().abs().amax(dim=(1, 2)).to(torch.float64).clamp_min(1.0)
        return courant / (4 + 6 * largest**2)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return 2 L max(1, max |u|) / √D, D the smaller diffusivity, at least 8: dx is half the width of a front."""
        smallest = torch.minimum(*(self.parameter(n, initial).detach() for n in self.positive))
        largest = initial[:, 0].detach().abs().amax(dim=(1, 2)).to(torch.float64).clamp_min(1.0)
        return (2 * self.lengths(initial).detach().amax(dim=1) * largest / smallest.sqrt()).clamp_min(8.0)
