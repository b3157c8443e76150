"""A periodic simulator taken one control period at a time: the coefficients of its scheme are computed once."""

# B batch, X grid points, K kept Fourier modes

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pdessl.solvers import ETDRK4, PeriodicSimulator
from pdessl.solvers.pseudo_spectral import kept_modes, tracked, wave_numbers

__all__ = ["HeldStepper"]


class HeldStepper:
    """One control period of u_t = L u - a ∂x(u²/2) + f(x), f held, in the arithmetic of the simulator.

    Equal, bit by bit, to what the simulator gives with as many steps per output and a forcing held between outputs;
    the row of a batch does not depend on the others. Where a derivative is asked for, every step keeps its graph;
    otherwise steps are taken in place.

    Args:
        simulator: with one set of parameters for all trajectories.
        period: of the control, > 0, time.
        substeps: ETDRK4 steps in it, >= 1.
        device: where the states lie.
    """

    def __init__(
        self, simulator: PeriodicSimulator, period: float, substeps: int, device: torch.device | str = "cpu"
    ) -> None:
        self.points, self.substeps = simulator.points[0], substeps
        self.modes = kept_modes(self.points)
        one = torch.zeros(1, 1, self.points, dtype=torch.float64, device=device)
        length = simulator.lengths(one)[:, 0]
        columns = {name: simulator.parameter(name, one)[:, None] for name in simulator.parameters}
        linear = simulator.linear(wave_numbers(length, self.modes), columns).to(torch.complex128)
        steepening = simulator.steepening(columns)
        self.factor = None
        if steepening is not None:
            factor = -0.5j / self.points**2 * steepening * wave_numbers(length, self.modes)
            self.factor = factor.to(torch.complex128)
        step = torch.full((1,), period, dtype=torch.float64, device=device) / substeps
        self.scheme = ETDRK4.build(linear, step)

    def __call__(self, modes: Tensor, source: Tensor) -> Tensor:
        """Return the modes (B, K), complex128, one period later under a source (B, K)."""
        if tracked(modes, source):
            for _ in range(self.substeps):
                modes = self.scheme.advance(modes, partial(self._rate, source))
            return modes
        with torch.no_grad():
            return self._in_place(modes, source)

    def _rate(self, source: Tensor, modes: Tensor, _: float) -> Tensor:
        if self.factor is None:
            return source.clone()
        field = torch.fft.irfft(modes, n=self.points, norm="forward")
        return self.factor * torch.fft.rfft(field * field)[:, : self.modes] + source

    def _in_place(self, modes: Tensor, source: Tensor) -> Tensor:
        padded = modes.new_zeros(len(modes), self.points // 2 + 1)
        head = padded[:, : self.modes]
        head.copy_(modes)
        memory = [torch.empty_like(modes) for _ in range(3)]
        rate: Callable[[float], Tensor] = partial(self._rate, source, padded)
        for _ in range(self.substeps):
            self.scheme.advance_in_place(head, rate, memory)
        return head.clone()
