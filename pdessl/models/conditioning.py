"""How a vector acts on the hidden channels of a network, sample by sample."""

# B batch, W hidden channels, F width of the condition, H width of its code, X grid

from __future__ import annotations

from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError

__all__ = ["MODULATIONS", "ConditionCode", "Modulation", "check_frames"]

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


def check_frames(
    network: nn.Module, frames: Tensor, condition: Tensor | None, channels: int, past: int, axes: int, width: int
) -> None:
    """Refuse frames or a condition that a stepper was not made for.

    Args:
        network: for its name.
        frames: expected (B, channels, past, *X) with so many axes.
        condition: expected (B, width), or None where width is 0.
        channels: of the network, and so on.
        past: frames given.
        axes: space axes.
        width: of the condition.

    Raises:
        ShapeError: otherwise.
    """
    name = type(network).__name__
    if frames.ndim != 3 + axes or frames.shape[1:3] != (channels, past):
        raise ShapeError(
            f"{name} got frames {tuple(frames.shape)}; expected (B, {channels}, {past}, *X) with {axes} space axes."
        )
    given = None if condition is None else tuple(condition.shape)
    wanted = (len(frames), width) if width else None
    if given != wanted:
        repair = f"Set condition={given[-1] if given else 0}." if given or not wanted else "Give the condition."
        raise ShapeError(f"{name} got a condition of shape {given}; expected {wanted}. {repair}")
