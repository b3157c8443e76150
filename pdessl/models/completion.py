"""What a network's arguments leave open and the data say: how many channels there are, which axes are periodic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from pdessl.models.encoder import Encoder

__all__ = ["OpenNetwork", "complete_networks", "open_networks"]


@runtime_checkable
class OpenNetwork(Protocol):
    """A network that knows its arguments, and which of them nobody gave."""

    init_args: dict[str, Any]
    left_open: tuple[str, ...]
    time_first: ClassVar[bool]


def open_networks(module: nn.Module) -> list[nn.Module]:
    """Return the networks inside a module of which an argument was left open."""
    return [part for part in module.modules() if isinstance(part, OpenNetwork) and part.left_open]


def complete_networks(module: nn.Module, channels: int, periodic: Sequence[bool]) -> bool:
    """Fill in, in place, what the networks inside a module leave open.

    A network whose default differs from what is filled in is built again, in place, with new weights drawn from torch's
    generator; others keep theirs. An encoder without a normalisation gets one of as many channels.

    Args:
        module: a task, an objective, an encoder.
        channels: number of the data's fields.
        periodic: of each space axis of the views.

    Returns:
        Whether any network was built again.
    """
    built = False
    for part in open_networks(module):
        axes = [False, *periodic] if part.time_first else list(periodic)
        values = {name: axes if name == "periodic" else channels for name in part.left_open}
        if any(part.init_args[name] != value for name, value in values.items()):
            weight, training = next(part.parameters(), None), part.training
            # The same object: whoever holds the network holds the one that is trained.
            type(part).__init__(part, **(part.init_args | values))
            part.train(training)
            if weight is not None:
                part.to(weight.device, weight.dtype)
            built = True
        part.left_open = ()
    for part in module.modules():
        if isinstance(part, Encoder):
            part.follow_channels()
    return built
