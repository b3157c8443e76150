"""Features of runs: the one path from fields to what every readout reads."""

# n runs, V views of each, D feature width

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.errors import CheckpointError
from pdessl.inference.views import Views
from pdessl.models import embed
from pdessl.models.encoder import network_of
from pdessl.models.spacing import takes_spacing
from pdessl.operators import LatentOperator
from pdessl.trajectory import Trajectories

__all__ = ["LAYERS", "RunEncoder", "features", "gives_codes", "has_trunk", "read_of", "sees_views", "views_of"]

LAYERS = ("features", "trunk", "both")
_BATCH = 256  # views per call of a network


class RunEncoder(Protocol):
    """What makes features of runs without a network: hand-made features, a law.

    One that has ``sees_views = True`` is given views of runs where they are drawn; others are given whole runs.
    """

    def features(self, runs: Trajectories) -> Tensor:
        """Return features (n, D), float64."""


@runtime_checkable
class _Headed(Protocol):
    """A network whose features are ``head(trunk(fields))``."""

    head: nn.Module
    feature_dim: int

    def trunk(self, fields: Tensor, **given: Tensor) -> Tensor: ...


class _Layers(nn.Module):
    """The pooled values below an encoder's head, (B, ``trunk_dim``), or its features and those, in one pass."""

    def __init__(self, encoder: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.uses_spacing = takes_spacing(encoder)

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return what was asked for."""
        trunk = self.encoder.trunk(fields, **given)
        return trunk if self.head is None else torch.cat([self.head(trunk), trunk], dim=1)


def has_trunk(encoder: Any) -> bool:
    """Return whether an encoder has a head, and values below it that can be read."""
    return isinstance(encoder, nn.Module) and _headed(encoder) is not None


def _headed(encoder: nn.Module) -> _Headed | None:
    """Return the network of an encoder if it has a trunk and a head that changes it."""
    inner = network_of(encoder)
    if not isinstance(inner, _Headed) or not isinstance(inner.head, nn.Module) or isinstance(inner.head, nn.Identity):
        return None
    return inner


def gives_codes(encoder: Any) -> bool:
    """Return whether features are codes of a law, given or learned, which parameters are affine functions of."""
    inner = getattr(encoder, "module", encoder)
    return isinstance(encoder, LatentOperator) or bool(getattr(inner, "gives_codes", False))


def features(
    encoder: nn.Module | RunEncoder,
    runs: Trajectories,
    views: Views | None = None,
    equation: str | None = None,
    seed: int = 0,
    batch: int = _BATCH,
    layer: str = "features",
    average: bool = True,
) -> Tensor:
    """Return features of runs, averaged over views where the encoder sees views.

    Every run is seen through the same V draws, many runs at a time, so that its features (and a prediction made of
    them) are the same alone, in a file of a thousand, and in whatever pieces that file is read, up to the rounding of
    a larger batch.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D); runs are moved to its device and precision. Or anything
            else that makes features of runs: a law (its codes), :class:`pdessl.inference.PhysicsEncoder`.
        runs: n runs of equal shape, with no parameters but those that new runs are known to have.
        views: how views are drawn; default whole runs as they are. Networks see views, and hand-made features; codes of
            a law, and the energy balance, are those of whole runs.
        equation: name in the catalog; needed where views are drawn.
        seed: of the draws.
        batch: views per call of the network.
        layer: ``features``; ``trunk``: the pooled values below the encoder's head; ``both``, side by side. An encoder
            without a head has its features only.
        average: over views; else features of every view.

    Returns:
        Shape (n, D), or (n, V, D) with ``average=False``, float64, on the CPU.

    Raises:
        CheckpointError: an encoder that is neither.
    """
    views = views or Views()
    network = isinstance(encoder, nn.Module)
    made = functools.partial(embed, read_of(encoder, layer)) if network else _hand_made(encoder)
    rows = made(views_of(encoder, runs, views, equation, seed, batch)).cpu()
    if not views.drawn or not sees_views(encoder):
        return rows if average else rows[:, None]
    rows = rows.reshape(len(runs), views.count, -1)
    return rows.mean(dim=1) if average else rows


def read_of(encoder: nn.Module, layer: str) -> nn.Module:
    """Return the network that gives a layer of an encoder, with the encoder's own weights."""
    headed = None if layer == "features" else _headed(encoder)
    return encoder if headed is None else _Layers(encoder, headed.head if layer == "both" else None)


def views_of(
    encoder: nn.Module | RunEncoder,
    runs: Trajectories,
    views: Views,
    equation: str | None = None,
    seed: int = 0,
    batch: int = _BATCH,
) -> Iterator[Trajectories]:
    """Yield what :func:`features` shows an encoder, in batches: V views of the first run, of the second, and so on.

    Arguments are those of :func:`features`; runs are on the device and in the precision of a network.
    """
    augmentation = views.augmentation(equation or "") if views.drawn and sees_views(encoder) else None
    if isinstance(encoder, nn.Module):
        weight = next(encoder.parameters(), None)
        if weight is not None:
            runs = runs.to(weight.device)
        runs = runs.replace(fields=runs.fields.to(torch.float32 if weight is None else weight.dtype))
    if augmentation is None:
        size = batch if isinstance(encoder, nn.Module) else len(runs)
        yield from (runs[slice(i, i + size)] for i in range(0, len(runs), size))
        return
    count = max(1, batch // views.count)
    for start in range(0, len(runs), count):
        places = torch.arange(start, min(start + count, len(runs))).repeat_interleave(views.count)
        generator = torch.Generator(device=runs.device).manual_seed(seed)
        yield augmentation(runs[places.tolist()], generator, common=views.count)[0]


def sees_views(encoder: Any) -> bool:
    """Return whether an encoder makes features of views: a network does, unless they are codes; others say so."""
    if isinstance(encoder, nn.Module):
        return True
    return bool(getattr(encoder, "sees_views", False))


def _hand_made(encoder: Any) -> Callable[[Iterable[Trajectories]], Tensor]:
    """Return what makes features (n, D) of batches of runs, of an encoder that is no network."""
    if isinstance(encoder, LatentOperator):
        return lambda batches: torch.cat([encoder.encode(batch)[0] for batch in batches])
    if not hasattr(encoder, "features"):
        raise CheckpointError(
            f"{type(encoder).__name__} is no encoder. Give a torch.nn.Module on fields, a law, or an object with "
            "features(runs) -> (n, D)."
        )
    return lambda batches: torch.cat([encoder.features(batch) for batch in batches])
