"""How a vector acts on the hidden channels of a network, sample by sample."""

# B batch, W hidden channels, F width of the condition, H width of its code, X grid

from __future__ import annotations

from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError

__all__ = ["MODULATIONS", "ConditionCode", "FrameNetwork", "Modulation"]

MODULATIONS = ("film", "addition")


class ConditionCode(nn.Module):
    """A condition mixed by one hidden layer, the code that :class:`Modulation` reads.

    Args:
        condition: F.
        width: H.

    Shapes:
        (B, F) -> (B, H). Conditions should be of order one.
    """

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(condition, width), nn.GELU())

    def forward(self, condition: Tensor) -> Tensor:
        """Return the code."""
        return self.layers(condition)


class Modulation(nn.Module):
    """Hidden channels scaled and shifted by a code (FiLM, or AdaGN where they were normalised), or shifted alone.

        film: x (1 + s(code)) + b(code)        addition: x + b(code)

    s and b are linear and zero at the start: the conditioned network begins as the unconditioned one.

    Args:
        code: H, width of the code.
        width: W, channels.
        how: ``film`` or ``addition``.

    Shapes:
        x (B, W, *X), code (B, H) -> (B, W, *X)

    Raises:
        SchemaError: another name.

    Source: FiLM: Perez et al. (2018), arXiv:1709.07871; adaptive group normalisation: Dhariwal, Nichol (2021),
        arXiv:2105.05233; both for PDEs: Gupta, Brandstetter (2022), arXiv:2209.15616.
    """

    def __init__(self, code: int, width: int, how: str = "film") -> None:
        super().__init__()
        if how not in MODULATIONS:
            raise SchemaError(f"modulation '{how}'; expected one of {', '.join(MODULATIONS)}.")
        self.how = how
        self.linear = nn.Linear(code, (2 if how == "film" else 1) * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Return the modulated channels."""
        given = self.linear(code).view(len(x), -1, x.shape[1], *(1,) * (x.ndim - 2))
        if self.how == "addition":
            return x + given[:, 0]
        return x * (1 + given[:, 0]) + given[:, 1]


class FrameNetwork(nn.Module):
    """What networks from frames to frames have in common: their sizes, and what they refuse.

    Args:
        channels: C.
        past: K, frames given.
        bundle: J, frames returned.
        condition: F, width of the conditioning vector; 0 for none.
        axes: number of space axes.
    """

    def __init__(self, channels: int, past: int, bundle: int, condition: int, axes: int) -> None:
        super().__init__()
        self.in_channels, self.past, self.bundle, self.condition, self.axes = channels, past, bundle, condition, axes

    def check(self, frames: Tensor, condition: Tensor | None) -> None:
        """Refuse frames or a condition that the network was not made for.

        Args:
            frames: expected (B, C, K, *X).
            condition: expected (B, F), or None where F is 0.

        Raises:
            ShapeError: otherwise.
        """
        name = type(self).__name__
        if frames.ndim != 3 + self.axes or frames.shape[1:3] != (self.in_channels, self.past):
            raise ShapeError(
                f"{name} got frames {tuple(frames.shape)}; expected (B, {self.in_channels}, {self.past}, *X) with "
                f"{self.axes} space axes."
            )
        given = None if condition is None else tuple(condition.shape)
        wanted = (len(frames), self.condition) if self.condition else None
        if given != wanted:
            repair = f"Set condition={given[-1] if given else 0}." if given or not wanted else "Give the condition."
            raise ShapeError(f"{name} got a condition of shape {given}; expected {wanted}. {repair}")
