"""Pretraining by prediction in latent space: the next window from the past, or hidden blocks from the visible rest."""

# B batch, N tokens, K visible tokens, M hidden tokens, D token width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.errors import SchemaError, ShapeError
from pdessl.models import Encoder, next_window, spacing_arguments, view_seed
from pdessl.objectives import BlockMasks, ExponentialMovingAverage, Masks, Terms
from pdessl.objectives.distributed import row_share
from pdessl.objectives.views import arguments_needed
from pdessl.tasks.batches import step_generator
from pdessl.tasks.representation import RepresentationTask, refuse_untrained_head

__all__ = ["MaskedPrediction", "TemporalPrediction"]


@runtime_checkable
class Guarded(Protocol):
    """An objective that says whether anything of it keeps a constant encoder from solving the task."""

    @property
    def guarded(self) -> bool:
        """Whether something does."""


class TemporalPrediction(RepresentationTask):
    """Train an encoder without labels: predict the latent of the next window from that of the past one.

        loss = objective(g(f(past)), f(next), f(past))

    f: encoder, g: predictor. A window of twice ``frames`` frames is cut out of each trajectory (by the augmentation, or
    at a random place without one) and halved. Latents are the encoder's tokens where the predictor takes tokens, and
    its features (B, D) otherwise.

    Validation, its collapse monitors and its online probe: see :class:`RepresentationTask`.

    Args:
        encoder: network on fields (B, C, T, *X) with methods ``tokens`` and ``token_grid`` for token latents.
        predictor: network on latents: tokens (B, N, D) -> (B, N, D), a
            network that is called as :class:`pdessl.models.TokenPredictor`, with places, or features (B, D) -> (B, D).
        objective: called with prediction, target and context latents; returns a named tuple with ``loss`` first, or a
            scalar.
        frames: frames of each window, >= 2.
        augmentation: makes one view of twice ``frames`` frames; None: a random window of the trajectory.
        on_tokens: predict tokens (True) or features.
        learning_rate, weight_decay, warmup, seed: see :class:`RepresentationTask`. Probes see windows of ``frames``
            frames only if their ``views`` is 1 or more.

    Raises:
        SchemaError: a setting out of range; an objective with neither an anti-collapse term nor a stop-gradient: the
            constant encoder would solve the task; or ``on_tokens`` and an encoder with a head, which nothing would
            train.
        ShapeError: trajectories (or views) with fewer than twice ``frames`` frames.

    Source: Representation Learning for Spatiotemporal Physical Systems (2026), arXiv:2603.13227.
    """

    def __init__(
        self,
        encoder: nn.Module,
        predictor: nn.Module,
        objective: nn.Module,
        frames: int,
        augmentation: nn.Module | None = None,
        on_tokens: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, learning_rate, weight_decay, warmup, seed)
        if frames < 2:
            raise SchemaError(f"TemporalPrediction got frames {frames}; expected at least 2.")
        if isinstance(objective, Guarded) and not objective.guarded:
            raise SchemaError(
                "TemporalPrediction got an objective with neither a regulariser nor stop_gradient: a constant encoder "
                "predicts itself. Give the objective regulariser: vc (or sigreg)."
            )
        if on_tokens:
            refuse_untrained_head(self.encoder, "TemporalPrediction on tokens")
        self.predictor, self.objective = predictor, objective
        self.frames, self.on_tokens = frames, on_tokens
        self.augmentation = _Windows(2 * frames) if augmentation is None else augmentation

    def trained(self) -> Sequence[nn.Module]:
        """Return encoder, predictor and objective."""
        return [self.encoder, self.predictor, self.objective]

    def views(self) -> nn.Module | None:
        """Return what cuts the first half out of a view."""
        return _FirstFrames(self.augmentation, self.frames)

    def latent(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return the latent of raw fields: tokens (B, N, D) or features (B, D)."""
        return self.encoder.tokens(fields, **given) if self.on_tokens else self.encoder(fields, **given)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cut two consecutive windows, predict the latent of the second, return the loss."""
        generator = step_generator(self, self.seed, batch_idx, batch.fields)
        with torch.no_grad():
            view, _ = self.augmentation(batch, generator)
        if view.fields.shape[2] < 2 * self.frames:
            raise ShapeError(
                f"TemporalPrediction needs views of {2 * self.frames} frames, got {view.fields.shape[2]}. Set the "
                f"augmentation's window to ({2 * self.frames}, ...) or lower frames."
            )
        past, following = view.fields[:, :, : self.frames], view.fields[:, :, self.frames : 2 * self.frames]
        given = spacing_arguments(self.encoder, view)
        context, target = self.latent(past, **given), self.latent(following, **given)
        terms = Terms.of(self.objective(self._predict(context, past.shape[2:]), target, context))
        self.log_terms(terms, batch.fields)
        return terms.total

    @property
    def with_places(self) -> bool:
        """Whether the predictor is called with the places of tokens, as :class:`pdessl.models.TokenPredictor` is."""
        return self.on_tokens and arguments_needed(self.predictor) > 1

    def _predict(self, context: Tensor, grid: Sequence[int]) -> Tensor:
        return next_window(self.predictor, context, self.encoder.token_grid(grid) if self.with_places else None)

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return features, and the mean of the tokens (or the features again)."""
        return _pooled(self.encoder, batch, self.on_tokens)


class MaskedPrediction(RepresentationTask):
    """Train an encoder without labels: predict latents of hidden space-time blocks from the visible tokens.

        loss = objective(g(f(visible), places), t(everything) at the hidden places)

    f: encoder that is given visible tokens only, g: predictor, t: a slow teacher or, without one, f itself.

    Validation, its collapse monitors and its online probe: see :class:`RepresentationTask`.

    Args:
        encoder: network with ``tokens(fields, keep)``, as :class:`pdessl.models.SpaceTimeTransformer`.
        predictor: called ``(tokens, places, asked places, token grid)``, as :class:`pdessl.models.TokenPredictor`.
        objective: called with prediction and target (B, blocks, M, D) and context (B, K, D).
        masks: settings of :class:`pdessl.objectives.BlockMasks` besides grid and periodicity.
        teacher: settings of the moving average (``start``, ``end``, ``schedule``); None: no teacher, and the
            objective's anti-collapse term is what keeps the encoder from collapse.
        augmentation: makes one view of each trajectory; None: the trajectory as it is.
        learning_rate, weight_decay, warmup, seed: see :class:`RepresentationTask`.

    Raises:
        SchemaError: no teacher and no anti-collapse term: the constant encoder would solve the task; or an encoder
            with a head above its tokens, which nothing would train.

    Source: Assran et al. (2023), arXiv:2301.08243; Bardes et al. (2024), arXiv:2404.08471.
    """

    def __init__(
        self,
        encoder: nn.Module,
        predictor: nn.Module,
        objective: nn.Module,
        masks: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        augmentation: nn.Module | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, learning_rate, weight_decay, warmup, seed)
        if teacher is None and not (isinstance(objective, Guarded) and objective.guarded):
            raise SchemaError(
                "MaskedPrediction got neither a teacher nor an objective with a regulariser: a constant encoder "
                "predicts itself. Give teacher: {start: 0.996}, or the objective regulariser: vc (or sigreg)."
            )
        refuse_untrained_head(self.encoder, "MaskedPrediction")
        self.predictor, self.objective, self.augmentation = predictor, objective, augmentation
        self.masks = dict(masks or {})
        self._drawers: dict[tuple[tuple[int, ...], tuple[bool, ...]], BlockMasks] = {}
        if teacher is not None:
            self.teacher = ExponentialMovingAverage(self.encoder, **teacher)

    def trained(self) -> Sequence[nn.Module]:
        """Return encoder, predictor and objective."""
        return [self.encoder, self.predictor, self.objective]

    def student(self) -> nn.Module:
        """Return the encoder."""
        return self.encoder

    def views(self) -> nn.Module | None:
        """Return the augmentation."""
        return self.augmentation

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Hide blocks, predict their latents, return the loss."""
        view = batch
        if self.augmentation is not None:
            with torch.no_grad():
                view, _ = self.augmentation(batch, step_generator(self, self.seed, batch_idx, batch.fields))
        fields = view.fields
        grid = self.encoder.token_grid(fields.shape[2:])
        masks = self._masks(grid, view, batch_idx)
        given = spacing_arguments(self.encoder, view)
        context = self.encoder.tokens(fields, masks.context, **given)
        whole = self.encoder.tokens(fields, **given) if self.teacher is None else self._taught(fields, **given)
        blocks, hidden = masks.targets.shape[1:]
        # Blocks do not see each other: each is predicted in a row of its own.
        rows = context.repeat_interleave(blocks, dim=0), masks.context.repeat_interleave(blocks, dim=0)
        predicted = self.predictor(*rows, masks.targets.flatten(0, 1), grid)
        target = whole.gather(1, masks.targets.flatten(1)[..., None].expand(-1, -1, whole.shape[2]))
        shape = (len(fields), blocks, hidden, whole.shape[2])
        terms = Terms.of(self.objective(predicted.view(shape), target.view(shape), context))
        self.log_terms(terms, batch.fields)
        return terms.total

    def _taught(self, fields: Tensor, **given: Tensor) -> Tensor:
        with torch.no_grad():
            return self.teacher.module.tokens(fields, **given)

    def _masks(self, grid: tuple[int, ...], view: Any, batch_idx: int) -> Masks:
        """The masks of this process's rows, drawn with those of all processes: blocks and contexts have one size.

        On the CPU: the same on every device.
        """
        fields = view.fields
        # Without the rank, and apart from the numbers that augmentations draw.
        generator = torch.Generator().manual_seed(view_seed(self.seed, self.current_epoch, batch_idx))
        first, total = row_share(fields)
        mine = slice(first, first + len(fields))
        return self._drawer(grid, view)(total, generator, fields.device, mine)

    def _drawer(self, grid: tuple[int, ...], view: Any) -> BlockMasks:
        periodic = (False, *(kind == "periodic" for kind in view.boundary))
        if (grid, periodic) not in self._drawers:
            self._drawers[grid, periodic] = BlockMasks(grid, periodic, **self.masks)
        return self._drawers[grid, periodic]

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return features, and the mean of the tokens."""
        return _pooled(self.encoder, batch, True)


def _pooled(encoder: Encoder, batch: Any, on_tokens: bool) -> dict[str, Tensor]:
    """Features, and as embeddings the mean of the tokens, or the features again."""
    given = spacing_arguments(encoder, batch)
    features = encoder(batch.fields, **given)
    latent = encoder.tokens(batch.fields, **given).mean(dim=1) if on_tokens else features
    return {"features": features, "embeddings": latent}


class _Windows(nn.Module):
    """Cut a window of some frames out of each trajectory, at a random place."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> tuple[Any, None]:
        spare = batch.fields.shape[2] - self.frames
        if spare < 0:
            raise ShapeError(
                f"windows of {self.frames} frames do not fit trajectories of {batch.fields.shape[2]}; lower frames."
            )
        device = batch.fields.device
        start = draw_rows(
            lambda n, g: torch.randint(spare + 1, (n, 1), generator=g, device=device), len(batch), generator
        )
        index = start + torch.arange(self.frames, device=device)
        rows = torch.arange(len(batch), device=device)[:, None]
        fields = batch.fields.movedim(2, 1)[rows, index].movedim(1, 2)
        time = batch.time.gather(1, index)
        return batch.replace(fields=fields, time=time, actions=None, actuators=()), None


class _FirstFrames(nn.Module):
    """The first frames of a view."""

    def __init__(self, augmentation: nn.Module, frames: int) -> None:
        super().__init__()
        self.augmentation, self.frames = augmentation, frames

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> tuple[Any, Any]:
        view, elements = self.augmentation(batch, generator)
        return view.window(slice(0, self.frames)), elements
