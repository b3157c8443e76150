"""Fourier neural operator: learned multipliers of Fourier modes, each of which a condition may move."""

# B batch, C channels (field components), K past frames, J frames given out, X space, W hidden channels, M modes

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.models.conditioning import MODULATIONS, ConditionCode, FrameNetwork, Modulation

__all__ = ["FNO"]

_HOW = ("modes", *MODULATIONS)


class _Spectral(nn.Module):
    """Multiplies the lowest Fourier modes by learned matrices, and each of them by a number made of the code."""

    def __init__(self, width: int, modes: int, axes: int, code: int) -> None:
        super().__init__()
        self.modes, self.axes, self.width = modes, axes, width
        # All axes but the last have negative modes too: 2M - 1 of them.
        self.kept = (*(2 * modes - 1,) * (axes - 1), modes)
        count = math.prod(self.kept)
        self.weight = nn.Parameter(torch.randn(count, width, width, 2) / width)
        self.by_mode = nn.Linear(code, 2 * count) if code else None
        if self.by_mode is not None:
            nn.init.zeros_(self.by_mode.weight)
            nn.init.zeros_(self.by_mode.bias)

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        sizes, dims = x.shape[2:], tuple(range(2, 2 + self.axes))
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32  # half precision has no transform
        values = x.to(exact)
        spectrum = torch.fft.rfftn(values, dim=dims, norm="forward")
        half = self.modes - 1
        for dim in dims[:-1]:
            low, high = spectrum.narrow(dim, 0, self.modes), spectrum.narrow(dim, spectrum.shape[dim] - half, half)
            spectrum = torch.cat([low, high], dim=dim)
        spectrum = spectrum.narrow(dims[-1], 0, self.modes).flatten(2)  # (B, W, M)
        weight = torch.view_as_complex(self.weight.to(exact))
        mixed = torch.bmm(spectrum.permute(2, 0, 1), weight).permute(1, 2, 0)  # (B, W, M)
        if self.by_mode is not None and code is not None:
            factor = torch.view_as_complex(self.by_mode(code).to(exact).unflatten(1, (-1, 2)))
            mixed = mixed * (1 + factor[:, None])
        mixed = mixed.unflatten(2, self.kept)
        for dim, size in zip(dims[:-1], sizes[:-1], strict=True):
            shape = list(mixed.shape)
            shape[dim] = size - self.kept[0]
            middle = mixed.new_zeros(shape)
            mixed = torch.cat([mixed.narrow(dim, 0, self.modes), middle, mixed.narrow(dim, self.modes, half)], dim=dim)
        return torch.fft.irfftn(mixed, s=tuple(sizes), dim=dims, norm="forward").to(x.dtype)


class FNO(FrameNetwork):
    """Fourier neural operator: the change of the last of K frames over the next J.

        x ← x + W₂ gelu(F⁻¹ R(k) (1 + m(k; condition)) F x + W₁ x)

    R(k) are complex matrices for the lowest modes, m(k) numbers made of the condition (per-mode modulation). Amplitudes
    of modes do not depend on the grid, so that the same weights serve grids of other sizes: fields without modes above
    those a grid holds give the same result on a finer one, but for what the activation adds above the grid's modes.

    Args:
        channels: C.
        past: K, frames given.
        bundle: J, frames given out at once.
        width: W, hidden channels.
        modes: modes kept along each axis, the mean included.
        blocks: spectral layers.
        condition: F, width of the conditioning vector; 0 for none.
        modulation: ``modes`` (per mode, and FiLM), ``film`` or ``addition``.
        periodic: per space axis, whether it is periodic; others are continued by a quarter of zeros.

    Shapes:
        frames (B, C, K, *X), condition (B, F) or None -> (B, C, J, *X); X of 2 modes nodes or more along every axis.

    Raises:
        SchemaError: an unknown modulation.
        ShapeError: frames or condition of another shape, a condition missing, or a grid too coarse for the modes.

    Source: Li et al. (2021), arXiv:2010.08895; multipliers of modes by a condition: Gupta, Brandstetter (2022),
        arXiv:2209.15616.
    """

    def __init__(
        self,
        channels: int = 1,
        past: int = 1,
        bundle: int = 1,
        width: int = 32,
        modes: int = 16,
        blocks: int = 4,
        condition: int = 0,
        modulation: str = "modes",
        periodic: Sequence[bool] = (True,),
    ) -> None:
        super().__init__(channels, past, bundle, condition, len(periodic))
        if modulation not in _HOW:
            raise SchemaError(f"FNO got modulation '{modulation}'; expected one of {', '.join(_HOW)}.")
        self.init_args = {
            "channels": channels, "past": past, "bundle": bundle, "width": width, "modes": modes, "blocks": blocks,
            "condition": condition, "modulation": modulation, "periodic": [bool(p) for p in periodic],
        }  # fmt: skip
        self.modes = modes
        code = 2 * width if condition else 0
        self.code = ConditionCode(condition, code) if condition else None
        self.lift, self.lower = nn.Linear(channels * past, width), nn.Linear(width, channels * bundle)
        by_mode = code if modulation == "modes" else 0
        how = "film" if modulation == "modes" else modulation
        self.spectral = nn.ModuleList(_Spectral(width, modes, self.axes, by_mode) for _ in range(blocks))
        self.local = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.modulations = nn.ModuleList(Modulation(code, width, how) for _ in range(blocks if code else 0))
        nn.init.zeros_(self.lower.weight)
        nn.init.zeros_(self.lower.bias)

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the change over the next frames."""
        periodic = self.init_args["periodic"]
        self.check(frames, condition)
        sizes = frames.shape[3:]
        if min(sizes) < 2 * self.modes:
            raise ShapeError(
                f"FNO keeps {self.modes} modes and got a grid {tuple(sizes)}; expected {2 * self.modes} nodes or more "
                f"along every axis. Set modes={min(sizes) // 2}."
            )
        code = None if self.code is None else self.code(condition)
        x = _nodes(self.lift, frames.flatten(1, 2))
        for dim, (size, wraps) in enumerate(zip(sizes, periodic, strict=True), start=2):
            if not wraps:
                shape = list(x.shape)
                shape[dim] = -(-size // 4)
                x = torch.cat([x, x.new_zeros(shape)], dim=dim)
        for i, spectral in enumerate(self.spectral):
            y = spectral(x, code) + _nodes(self.local[i], x)
            if code is not None:
                y = self.modulations[i](y, code)
            x = x + _nodes(self.mix[i], nn.functional.gelu(y))
        for dim, size in enumerate(sizes, start=2):
            x = x.narrow(dim, 0, size)
        return _nodes(self.lower, x).unflatten(1, (self.in_channels, self.bundle))


def _nodes(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer to the channels of every node: one matrix product, whatever the number of axes."""
    return torch.baddbmm(layer.bias[:, None], layer.weight.expand(len(x), -1, -1), x.flatten(2)).view(
        len(x), -1, *x.shape[2:]
    )
