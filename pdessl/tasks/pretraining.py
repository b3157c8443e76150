"""Joint-embedding pretraining on views made by an augmentation, on the device."""

# B batch, D feature width, V views

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, SymmetryError
from pdessl.models import SplitProjector
from pdessl.objectives import SIE, ExponentialMovingAverage, Terms, aimed_std, as_objective, name_of
from pdessl.tasks.batches import refuse_single_rows, step_generator
from pdessl.tasks.positives import refuse_places, runs_of_views
from pdessl.tasks.representation import RepresentationTask, trained_head
from pdessl.tasks.views import DrawnView, DrawnViews, Embedder, moved_by

__all__ = ["LocalViews", "Pretraining"]


@dataclass
class LocalViews:
    """Smaller views, which are drawn to the whole ones and not to each other.

    Args:
        augmentation: makes one of them: a shorter window.
        count: how many of each trajectory, >= 1.

    Raises:
        SchemaError: a count below 1.
    """

    augmentation: nn.Module
    count: int = 2

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SchemaError(f"LocalViews got count {self.count}; expected at least 1 (or no local views at all).")


class Pretraining(RepresentationTask):
    """Train an encoder without labels: views of each trajectory, and an objective between them.

        loss = objective(views).total,    for instance of the embeddings p(f(view₁)), p(f(view₂)), ...

    f: encoder, p: projector. The objective takes from the views what it wants (see :class:`pdessl.objectives.View`):
    representation, embedding, the teacher's embedding, tokens and their places, the group element drawn. A loss of two
    embeddings, ``(z, z') -> scalar``, is an objective too, averaged over pairs of views. Several are added by
    :class:`pdessl.objectives.WeightedSum`.

    A batch with ``partner``, another run of the same group for each run (``grouped`` of
    :class:`pdessl.data.PDEDataModule`), gives every second view: *grouped* positives, which share what the group shares
    and nothing else.

    Validation, its collapse monitors and its online probe: see :class:`RepresentationTask`.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D), or a :class:`pdessl.models.Encoder`.
        projector: network on features (or on the trunk) giving embeddings.
        objective: called with the views, or with two embeddings.
        augmentation: called ``augmentation(batch, generator)``; returns (view, elements). Elements that move parameters
            state it as ``log_parameter_shift``, name -> (B,). Where ``augmentation.moved_parameters`` names any, the
            objective must ask for the element, or for the shift of those: it must not take two views as equal.
        views: V >= 2, views of each trajectory by ``augmentation``.
        local: smaller views besides; None: none.
        projected: what the projector is given: the ``features``, or the ``trunk`` below the encoder's last layers. With
            ``trunk`` an objective on embeddings shapes the trunk, and the features serve an objective that asks for
            them (a forecast, equivariance) alone: a narrow code need not hold everything that two views share.
        teacher: settings of the moving average for an objective that asks for a teacher: ``start``, ``end``,
            ``schedule`` (see :class:`pdessl.objectives.ExponentialMovingAverage`); None: there is none.
        learning_rate, weight_decay, warmup, seed: see :class:`RepresentationTask`.

    Attribute ``takes_partners``: such batches are understood.

    Under gradient accumulation the statistics of an objective are those of one micro-batch. Networks with dropout draw
    from torch's global generator, which is not restored on resume; everything drawn here is.

    Raises:
        SchemaError: a setting out of range. In the first step: an objective that asks for what there is not, a teacher
            that it does not ask for, or a head that nothing trains.
        SymmetryError: in the first step: views that move a parameter, and an objective that takes them as equal.
    """

    takes_partners = True

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        objective: nn.Module | Callable[..., Any],
        augmentation: nn.Module,
        views: int = 2,
        local: LocalViews | None = None,
        projected: Literal["features", "trunk"] = "features",
        teacher: dict[str, Any] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, learning_rate, weight_decay, warmup, seed)
        if views < 2 or projected not in ("features", "trunk"):
            raise SchemaError(
                f"Pretraining got views {views} and projected '{projected}'; expected at least 2 views, and features "
                "or trunk."
            )
        self.projector, self.objective, self.augmentation = projector, as_objective(objective), augmentation
        self.view_count, self.projected = views, projected
        self.local_views = 0 if local is None else local.count
        self.local_augmentation = None if local is None else local.augmentation
        _check_split(projector, self.objective)
        if teacher is not None:
            self.teacher = ExponentialMovingAverage(self.student(), **teacher)

    @property
    def target_std(self) -> float | None:
        """The spread that the objective means embeddings to have."""
        return aimed_std(self.objective)

    def trained(self) -> Sequence[nn.Module]:
        """Return encoder, projector and objective."""
        return [self.encoder, self.projector, self.objective]

    def student(self) -> Embedder:
        """Return encoder and projector as one network."""
        return Embedder(self.encoder, self.projector, self.projected)

    def views(self) -> nn.Module | None:
        """Return the augmentation."""
        return self.augmentation

    # -------------------------------------------------------------------------- training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draw views, ask the objective, return the loss.

        Raises:
            DataError: a batch of one trajectory.
        """
        refuse_single_rows(self, len(batch.fields))
        views = self.draw(batch, step_generator(self, self.seed, batch_idx, batch.fields))
        terms = Terms.of(self.objective(views), name_of(self.objective))
        self._check_asked(views)
        if getattr(batch, "partner", None) is not None:
            refuse_places(views.asked, name_of(self.objective))
        self.log_terms(terms, batch.fields)
        return terms.total

    def draw(self, batch: Any, generator: torch.Generator) -> DrawnViews:
        """Draw the views of a batch: global ones, then local ones."""
        makers = [self.augmentation] * self.view_count + [self.local_augmentation] * self.local_views
        runs = runs_of_views(batch, len(makers))
        with torch.no_grad():
            drawn = [(run, *make(run, generator)) for make, run in zip(makers, runs, strict=True)]
        embedder, asked = self.student(), set[str]()
        views = [DrawnView(run, view, element, embedder, self.teacher, asked) for run, view, element in drawn]
        return DrawnViews(views, self.view_count, moved_by(self.augmentation), generator)

    def _check_asked(self, views: DrawnViews) -> None:
        name = name_of(self.objective)
        if self.teacher is not None and "teacher" not in views.asked:
            raise SchemaError(f"{name} does not ask for a teacher; leave out Pretraining's setting teacher.")
        moved = {*moved_by(self.augmentation), *moved_by(self.local_augmentation)}
        moved -= {asked.removeprefix("shift of ") for asked in views.asked}
        if moved and "element" not in views.asked:
            first = min(moved)
            raise SymmetryError(
                f"the views move {', '.join(sorted(moved))}, and {name} takes two views of a run as equal: the encoder "
                f"would learn to ignore {first}. Leave those generators out, or use an objective that asks for the "
                f"group element (SIE), or add one that asks for the shift (ParameterEquivariance of {first}, in a "
                "WeightedSum)."
            )

    def on_after_backward(self) -> None:
        """Refuse a head of the encoder that the objective gives no gradient: its features would stay random."""
        head = [] if self.projected == "features" else trained_head(self.encoder)
        if head and all(p.grad is None for p in head):
            raise SchemaError(
                f"{name_of(self.objective)} on the trunk trains what lies below the head of the encoder, and this one "
                f"has a head (features={self.encoder.feature_dim}), which would stay random. Leave features out of the "
                "encoder's arguments, or add an objective on the features (CrossForecast, ParameterEquivariance)."
            )

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return features, embeddings, and the trunk where that is what is projected."""
        embedder = self.student()
        representation = self.encoder(batch)
        given = embedder.given(representation)
        made = {"features": representation.features, "embeddings": self.projector(given)}
        return made | {"trunk": given} if self.projected == "trunk" else made


def _check_split(projector: nn.Module, objective: nn.Module) -> None:
    for part in objective.modules():
        if isinstance(projector, SplitProjector) and isinstance(part, SIE) and projector.first != part.invariant:
            raise SchemaError(
                f"the first part of the projector has {projector.first} columns of the embedding, and SIE takes "
                f"{part.invariant} as invariant; expected the same. Change the projector's share, or invariant."
            )
