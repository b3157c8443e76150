"""Views of runs as settings, and features averaged over them: the same for a run whatever file it comes in."""

# n runs, V views of each, D feature width

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pdessl.augmentation import LieAugmentation
from pdessl.models import embed
from pdessl.schema import Count, Natural
from pdessl.trajectory import Trajectories

__all__ = ["Views", "WithTrunk", "features_of", "with_trunk"]


@dataclass(frozen=True)
class Views:
    """How views are drawn.

    Args:
        strengths: generator -> greatest strength, in the unit of the equation's file.
        window: frames and points of a view; None: whole runs.
        moves: parameters that generators may move, by name; labels move with them.
        reflections: draw the equation's reflections too, or those named.
        count: views that features or predictions are averaged over when evaluating.
    """

    strengths: dict[str, Natural] = field(default_factory=dict)
    window: tuple[Count, ...] | None = None
    moves: tuple[str, ...] = ()
    reflections: bool | tuple[str, ...] = False
    count: Count = 8

    @property
    def drawn(self) -> bool:
        """Whether a view differs from its run at all."""
        return bool(self.strengths) or self.window is not None or bool(self.reflections)

    def augmentation(self, equation: str) -> LieAugmentation | None:
        """Return the augmentation, or None where nothing is drawn and nothing cut."""
        if not self.drawn:
            return None
        return _augmentation(equation, tuple(self.strengths.items()), self.window, self.moves, self.reflections)


@functools.lru_cache(maxsize=32)
def _augmentation(
    equation: str,
    strengths: tuple[tuple[str, float], ...],
    window: tuple[int, ...] | None,
    moves: tuple[str, ...],
    reflections: bool | tuple[str, ...],
) -> LieAugmentation:
    # Verifying the algebra and composing its flows takes 0.1 s; a sweep asks for the same views many times.
    return LieAugmentation(equation, dict(strengths), window=window, moves=moves, reflections=reflections)


def features_of(
    encoder: nn.Module, runs: Trajectories, views: Views, equation: str | None, seed: int = 0, batch: int = 64
) -> Tensor:
    """Return features of runs, averaged over views; those of a run depend on nothing but the run.

    Every run is seen through the same V draws, so that its features (and a prediction made of them) are the same alone,
    in a file of a thousand, and in whatever pieces that file is read (where nothing is drawn, up to the rounding of a
    larger batch).

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D); runs are moved to its device and precision.
        runs: n runs of equal shape, with no parameters but those that new runs are known to have.
        views: how views are drawn.
        equation: name in the catalog; needed where views are drawn.
        seed: of the draws.
        batch: runs per call of the encoder where nothing is drawn.

    Returns:
        Shape (n, D), float64, on the CPU.
    """
    weight = next(encoder.parameters(), None)
    if weight is not None:
        runs = runs.to(weight.device)
    runs = runs.replace(fields=runs.fields.to(torch.float32 if weight is None else weight.dtype))
    augmentation = views.augmentation(equation or "") if views.drawn else None
    if augmentation is None:
        return embed(encoder, (runs[slice(i, i + batch)] for i in range(0, len(runs), batch))).cpu()

    def drawn() -> Iterator[Trajectories]:
        for run in runs:
            generator = torch.Generator(device=runs.device).manual_seed(seed)
            yield augmentation(run[[0] * views.count], generator)[0]

    rows = embed(encoder, drawn()).cpu()
    return rows.reshape(len(runs), views.count, -1).mean(dim=1)


class WithTrunk(nn.Module):
    """An encoder's features and, behind them, the pooled values its head makes them of: (B, D + ``trunk_dim``)."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.uses_spacing = getattr(encoder, "uses_spacing", False)

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return both, in one pass."""
        trunk = self.encoder.trunk(fields, **given)
        return torch.cat([self.head(trunk), trunk], dim=1)


def with_trunk(encoder: nn.Module) -> nn.Module:
    """Return the encoder together with what is below its head; the encoder itself where it has no head."""
    inner = getattr(encoder, "module", encoder)
    head = getattr(inner, "head", None)
    known = hasattr(inner, "trunk") and hasattr(inner, "feature_dim")
    if not known or not isinstance(head, nn.Module) or isinstance(head, nn.Identity):
        return encoder
    return WithTrunk(encoder, head)
