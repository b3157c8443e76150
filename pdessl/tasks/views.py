"""The views of a training batch, and what an objective may ask of them, made when it is first asked for."""

# B batch, V views, N tokens, D width, d space axes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.augmentation.relative import relative_element, source_positions
from pdessl.errors import SchemaError
from pdessl.models import Encoder, Representation
from pdessl.tasks.batches import log_shift

__all__ = ["DrawnView", "DrawnViews", "Embedder", "moved_by"]


class Embedder(nn.Module):
    """Encoder and projector as one network on batches: what a teacher is a moving average of.

    Args:
        encoder: gives the representation.
        projector: network on the features, or on the trunk.
        projected: ``features`` or ``trunk``.
    """

    def __init__(self, encoder: Encoder, projector: nn.Module, projected: str) -> None:
        super().__init__()
        self.encoder, self.projector, self.projected = encoder, projector, projected

    def given(self, representation: Representation) -> Tensor:
        """Return what the projector is given."""
        if self.projected == "features":
            return representation.features
        if representation.trunk is None:
            raise SchemaError(
                f"projected: trunk needs an encoder that gives one; {type(self.encoder.module).__name__} has no method "
                "represent. Use projected: features."
            )
        return representation.trunk

    def forward(self, batch: Any) -> Tensor:
        """Return embeddings (B, D)."""
        return self.projector(self.given(self.encoder(batch)))


@runtime_checkable
class _Moving(Protocol):
    moved_parameters: Sequence[str]


def moved_by(augmentation: nn.Module | None) -> tuple[str, ...]:
    """Return the names of the parameters that an augmentation moves, in its order."""
    return tuple(augmentation.moved_parameters) if isinstance(augmentation, _Moving) else ()


@dataclass
class DrawnView:
    """One view of each trajectory of a batch; see :class:`pdessl.objectives.View`.

    Args:
        run: the trajectories it was made from, (B, C, T, *X).
        batch: the view itself.
        element: what the augmentation drew.
        embedder: encoder and projector.
        teacher: a moving average of them, or None.
        asked: what has been asked of any view of the step; filled in.
    """

    run: Any
    batch: Any
    element: Any
    embedder: Embedder
    teacher: nn.Module | None
    asked: set[str]

    @cached_property
    def representation(self) -> Representation:
        """Features, trunk and tokens. One pass per view: batch norms see one distribution of views at a time."""
        return self.embedder.encoder(self.batch)

    @cached_property
    def embedding(self) -> Tensor:
        """Embedding (B, D)."""
        return self.embedder.projector(self.embedder.given(self.representation))

    @cached_property
    def taught(self) -> Tensor:
        """The teacher's embedding (B, D), without gradient."""
        self.asked.add("teacher")
        if self.teacher is None:
            raise SchemaError(
                "the objective asks for a teacher's embedding, and there is no teacher; give Pretraining its settings, "
                "teacher: {start: 0.996, end: 1.0} (or {} for these)."
            )
        return self.teacher(self.batch)

    @property
    def tokens(self) -> Tensor:
        """Tokens (B, N, D)."""
        found = self.representation.tokens
        if found is None:
            raise SchemaError(
                f"the objective asks for tokens, and {type(self.embedder.encoder.module).__name__} gives none; use an "
                "encoder with them, such as pdessl.models.ConvEncoder."
            )
        return found

    @cached_property
    def fields(self) -> Tensor:
        """Standardised fields (B, C, T, *X)."""
        return self.embedder.encoder.standardise(self.batch.fields)

    @cached_property
    def places(self) -> Tensor:
        """Where the tokens lie in the trajectory, (B, N, 1 + d): the mean over the nodes of each, in shares of it."""
        self.asked.add("places")
        grid = self.embedder.encoder.token_grid(self.batch.fields.shape[2:])
        sources = source_positions(self.batch, self.element).movedim(-1, 1)
        if len(grid) != sources.ndim - 2:
            raise SchemaError("an objective on tokens needs them in time and space; stacked frames have none in time.")
        pool = {2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}[len(grid)]
        pooled = pool(sources, grid).flatten(2).transpose(1, 2)
        if pooled.shape[1] != self.tokens.shape[1]:
            raise SchemaError(
                f"the encoder gave {self.tokens.shape[1]} tokens and says that its token grid is {tuple(grid)}."
            )
        return (pooled / _scale(self.run)[:, None]).to(self.run.fields.dtype)

    def shift(self, parameter: str) -> Tensor:
        """Shift of log-parameter (B,), float64; 0 where the augmentation names none."""
        self.asked.add(f"shift of {parameter}")
        return log_shift(self.element, parameter, self.run)


class DrawnViews:
    """All views of a step; see :class:`pdessl.objectives.Views`.

    Args:
        views: global ones first.
        global_views: how many of them are.
        moved: names of the parameters that the augmentation moves.
        generator: of the step, after the views were drawn from it.
    """

    def __init__(
        self, views: Sequence[DrawnView], global_views: int, moved: Sequence[str], generator: torch.Generator
    ) -> None:
        self.views, self.global_views, self.moved, self._generator = list(views), global_views, moved, generator

    @property
    def asked(self) -> set[str]:
        """What has been asked of the views: ``teacher``, ``element``, ``places``, ``shift of NAME``."""
        return self.views[0].asked

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, number: int, /) -> DrawnView:
        return self.views[number]

    def __iter__(self) -> Iterator[DrawnView]:
        return iter(self.views)

    def between(self, first: int, second: int) -> Tensor:
        """Coordinates (B, k) of the element from one view to another, see :func:`relative_element`."""
        self.asked.add("element")
        run, pair = self.views[first].run, (self.views[first].element, self.views[second].element)
        return relative_element(run, *pair, self.moved).to(run.fields.dtype)

    @property
    def period(self) -> Tensor:
        """After which distance places repeat, (B, 1 + d); infinite along time and between walls."""
        run = self.views[0].run
        lengths = [
            length if kind == "periodic" else torch.full_like(length, torch.inf)
            for length, kind in zip(run.lengths.unbind(1), run.boundary, strict=True)
        ]
        never = torch.full_like(run.lengths[:, 0], torch.inf)
        return torch.stack([never, *lengths], dim=1) / _scale(run)

    def uniform(self, columns: int) -> Tensor:
        """Uniform numbers in [0, 1), (columns, B)."""
        fields = self.views[0].run.fields
        return draw_rows(
            lambda n, g: torch.rand(columns, n, generator=g, device=fields.device), len(fields), self._generator, axis=1
        )


def _scale(run: Any) -> Tensor:
    """Duration and lengths of the trajectories, (B, 1 + d): distances between tokens are shares of them."""
    duration = (run.time[:, -1:] - run.time[:, :1]).clamp_min(torch.finfo(run.time.dtype).tiny)
    return torch.cat([duration, run.lengths], dim=1)
