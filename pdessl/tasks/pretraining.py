"""Joint-embedding pretraining on views made by an augmentation, on the device."""

# B batch, D feature width, N tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.augmentation.relative import relative_element, source_positions
from pdessl.errors import SchemaError, SymmetryError
from pdessl.models import Head, spacing_arguments
from pdessl.objectives import ExponentialMovingAverage, ParameterEquivariance, view_terms
from pdessl.tasks.batches import log_shift, step_generator
from pdessl.tasks.positives import runs_of_views
from pdessl.tasks.representation import RepresentationTask, refuse_untrained_head

__all__ = ["Pretraining"]


class Pretraining(RepresentationTask):
    """Train an encoder without labels: views of each trajectory, one embedding each, an objective between them.

        loss = objective(p(f(view₁)), p(f(view₂)), ...)
               + w · mean over v of mean (h(f(view_v)) - h(f(view_v')) - (δ_v - δ_v'))²
               + w' · mean over v of forecast(f(view_v), view_v')

    f: encoder, p: projector; v' = v + 1, and 1 after the last: with the usual two views each meets the other. An
    objective of two views is averaged over the pairs of more (see :func:`pdessl.objectives.view_terms`). The second
    part is there only with ``equivariance``: h is a linear head and δ the known shift of log-parameter that the
    augmentation gave each view (see :class:`pdessl.objectives.ParameterEquivariance`). The third is there only with
    ``forecast`` (see :class:`pdessl.objectives.CrossForecast`).

    An objective says by a class attribute what it wants besides the two embeddings: ``teacher`` (those of a slowly
    moving copy of encoder and projector), ``element`` (coordinates of the group element from the first view to the
    second, see :func:`pdessl.augmentation.relative.relative_element`), or ``tokens`` (token embeddings of both views
    and where in the trajectory each token lies).

    A batch with ``partner``, another run of the same group for each run (``grouped`` of
    :class:`pdessl.data.PDEDataModule`), gives every second view: *grouped* positives, which share what the group shares
    and nothing else.

    Each epoch's validation logs collapse monitors (``monitor/...``) and an online probe (``probe/...``), see
    :class:`RepresentationTask`.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D), with attribute ``feature_dim`` if ``equivariance`` is
            used.
        projector: network on features (or on the trunk) giving embeddings.
        objective: called with two embeddings; returns a named tuple with ``loss`` first, or a scalar.
        augmentation: called ``augmentation(batch, generator)``; returns (view, elements). Elements that move parameters
            state it as ``log_parameter_shift``, name -> (B,). Where ``augmentation.moved_parameters`` names any, the
            objective must not take two views as equal: it has to use the element, or ``equivariance`` has to name them.
        views: V >= 2, views of each trajectory by ``augmentation``. Objectives with a teacher, an element or tokens
            take two.
        local_augmentation: makes smaller views (a shorter window), embedded too but only by the objective; None: none.
        local_views: how many of them; needs ``local_augmentation``.
        projected: what the projector is given: the ``features``, or the ``trunk`` below the encoder's last layers (an
            encoder with methods ``trunk`` and ``head``, as :class:`pdessl.models.ConvEncoder` with ``features``). With
            ``trunk`` the objective shapes the trunk, and the features serve the forecast and the head alone: a narrow
            code need not hold everything that two views share.
        token_projector: network on tokens (B, N, D) for an objective on tokens; None: the encoder's tokens themselves.
        teacher: settings of the moving average for an objective with a teacher: ``start``, ``end``, ``schedule`` (see
            :class:`pdessl.objectives.ExponentialMovingAverage`).
        equivariance: name of the parameter whose known shift supervises a head, e.g. ``viscosity``; None for none.
        equivariance_weight: w >= 0.
        forecast: called with the features of one view, the standardised fields of the other and uniform numbers (B,);
            returns a named tuple with ``loss`` first. None for none.
        forecast_weight: w' >= 0.
        learning_rate, weight_decay, warmup, probe, probe_views, normalisation, seed, export_to: see
            :class:`RepresentationTask`.

    Attribute ``takes_partners``: such batches are understood.

    Under gradient accumulation the statistics of an objective are those of one micro-batch. Networks with dropout draw
    from torch's global generator, which is not restored on resume; everything drawn here is.

    Raises:
        SchemaError: a setting out of range.
        SymmetryError: views that move a parameter, given to an objective that takes them as equal.
    """

    takes_partners = True

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        objective: nn.Module,
        augmentation: nn.Module,
        views: int = 2,
        local_augmentation: nn.Module | None = None,
        local_views: int = 0,
        projected: Literal["features", "trunk"] = "features",
        token_projector: nn.Module | None = None,
        teacher: dict[str, Any] | None = None,
        equivariance: str | None = None,
        equivariance_weight: float = 1.0,
        forecast: nn.Module | None = None,
        forecast_weight: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        probe: list[str] | None = None,
        probe_views: int = 0,
        normalisation: dict[str, list[float]] | None = None,
        seed: int = 0,
        export_to: str | None = None,
    ) -> None:
        super().__init__(
            encoder, learning_rate, weight_decay, warmup, probe, probe_views, normalisation, seed, export_to
        )
        if min(equivariance_weight, forecast_weight) < 0 or projected not in ("features", "trunk"):
            raise SchemaError(
                f"Pretraining got equivariance_weight {equivariance_weight}, forecast_weight {forecast_weight} and "
                f"projected '{projected}'; expected weights >= 0, and features or trunk."
            )
        if projected == "trunk" and forecast is None and equivariance is None:
            refuse_untrained_head(self.encoder, "Pretraining of the trunk without a forecast or equivariance")
        _check_views(objective, views, local_views, local_augmentation)
        _check_split(projector, objective)
        self.view_count, self.local_views, self.local_augmentation = views, local_views, local_augmentation
        self.projected = projected
        self.projector, self.objective, self.augmentation = projector, objective, augmentation
        self.token_projector = nn.Identity() if token_projector is None else token_projector
        self.equivariance, self.equivariance_weight = equivariance, equivariance_weight
        for made_by in (augmentation, local_augmentation):
            _refuse_moved_positives(made_by, objective, equivariance)
        # Standardised features: the head's learning rate then fits whatever scale the encoder has.
        self.head = Head(self.encoder.feature_dim, standardise=True) if equivariance else None
        self.equivariance_objective = ParameterEquivariance() if equivariance else None
        self.forecast, self.forecast_weight = forecast, forecast_weight
        if getattr(objective, "teacher", False):
            self.teacher = ExponentialMovingAverage(self.student(), **(teacher or {}))
        elif teacher is not None:
            raise SchemaError(f"{type(objective).__name__} has no teacher; leave out the settings {teacher}.")

    def trained(self) -> Sequence[nn.Module]:
        """Return encoder, projector, objective and what is there besides."""
        optional = [module for module in (self.head, self.forecast) if module is not None]
        return [self.encoder, self.projector, self.token_projector, self.objective, *optional]

    def student(self) -> nn.Module:
        """Return encoder and projector as one network."""
        return _Embedding(self.encoder, self.projector, self.projected)

    def views(self) -> nn.Module | None:
        """Return the augmentation."""
        return self.augmentation

    # -------------------------------------------------------------------------- training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draw views, embed them, return the loss."""
        generator = step_generator(self, self.seed, batch_idx, batch.fields.device)
        makers = [self.augmentation] * self.view_count + [self.local_augmentation] * self.local_views
        runs = runs_of_views(batch, len(makers), self.objective)
        with torch.no_grad():
            views, elements = zip(*(make(r, generator) for make, r in zip(makers, runs, strict=True)), strict=True)
        # One pass per view: batch norms see one distribution of views at a time, as all views are drawn alike.
        features, projected, tokens = zip(*map(self._represented, views), strict=True)
        embeddings = [self.projector(p) for p in projected]
        wanted = self._wanted(batch, views, elements, tokens)
        objective = (lambda *z: self.objective(*z, *wanted)) if wanted else self.objective
        named = view_terms(objective, embeddings, self.view_count)
        loss = named["loss"]
        pairs = [(v, (v + 1) % self.view_count) for v in range(self.view_count)]
        if self.head is not None:
            shifts = [log_shift(e, self.equivariance, batch) for e in elements]
            outputs = [self.head(f)[:, 0] for f in features[: self.view_count]]
            known = [self.equivariance_objective(outputs[v], outputs[w], shifts[v], shifts[w]) for v, w in pairs]
            named |= {
                "equivariance": sum(terms.loss for terms in known) / len(known),
                "equivariance_floor": sum(terms.difference for terms in known) / len(known),
            }
            loss = loss + self.equivariance_weight * named["equivariance"]
        if self.forecast is not None:
            fields = [self.encoder.standardise(view.fields) for view in views[: self.view_count]]
            start = torch.rand(self.view_count, len(batch), generator=generator, device=batch.fields.device)
            ahead = [self.forecast(features[v], fields[w], start[v]) for v, w in pairs]
            named |= {
                "forecast": sum(terms.loss for terms in ahead) / len(ahead),
                "persistence": sum(terms.persistence for terms in ahead) / len(ahead),
            }
            loss = loss + self.forecast_weight * named["forecast"]
        self.log_terms(named, loss, len(batch))
        return loss

    def _represented(self, view: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features, what the projector is given, and tokens where the objective wants them."""
        given = spacing_arguments(self.encoder, view)
        if not getattr(self.objective, "tokens", False):
            return *self.represent(view.fields, **given), None
        if not hasattr(self.encoder.module, "trunk_and_tokens"):
            return *self.represent(view.fields, **given), self.encoder.tokens(view.fields, **given)
        trunk, tokens = self.encoder.trunk_and_tokens(view.fields, **given)
        features = self.encoder.module.head(trunk)
        return features, trunk if self.projected == "trunk" else features, tokens

    def _wanted(
        self, batch: Any, views: Sequence[Any], elements: Sequence[Any], tokens: Sequence[Tensor | None]
    ) -> tuple[Any, ...]:
        """What the objective wants besides the embeddings; nothing for one that any number of views may be given."""
        if getattr(self.objective, "teacher", False):
            return tuple(self.teacher(v.fields, **spacing_arguments(self.encoder, v)) for v in views)
        if getattr(self.objective, "element", False):
            moved = getattr(self.augmentation, "moved_parameters", ())
            return (relative_element(batch, *elements, moved).to(batch.fields.dtype),)
        if getattr(self.objective, "tokens", False):
            tokens = [self.token_projector(t) for t in tokens]
            places = [self._token_places(v, e, t.shape[1]) for v, e, t in zip(views, elements, tokens, strict=True)]
            period = [
                length if kind == "periodic" else torch.full_like(length, torch.inf)
                for length, kind in zip(batch.lengths.unbind(1), batch.boundary, strict=True)
            ]
            never = torch.full_like(batch.lengths[:, 0], torch.inf)
            extent = torch.stack([never, *period], dim=1) / self._scale(batch)
            return (*tokens, *((p / self._scale(batch)[:, None]).to(batch.fields.dtype) for p in places), extent)
        return ()

    @staticmethod
    def _scale(batch: Any) -> Tensor:
        """Duration and lengths of the trajectories, (B, 1 + d): distances between tokens are shares of them."""
        duration = (batch.time[:, -1:] - batch.time[:, :1]).clamp_min(torch.finfo(batch.time.dtype).tiny)
        return torch.cat([duration, batch.lengths], dim=1)

    def _token_places(self, view: Any, elements: Any, count: int) -> Tensor:
        """Where the tokens of a view lie in the trajectory, (B, N, 1 + d): the mean over the nodes of each."""
        grid = self.encoder.module.token_grid(view.fields.shape[2:])
        places = source_positions(view, elements).movedim(-1, 1)
        if len(grid) != places.ndim - 2:
            raise SchemaError("an objective on tokens needs them in time and space; stacked frames have none in time.")
        pool = {2: nn.functional.adaptive_avg_pool2d, 3: nn.functional.adaptive_avg_pool3d}[len(grid)]
        pooled = pool(places, grid).flatten(2).transpose(1, 2)
        if pooled.shape[1] != count:
            raise SchemaError(f"the encoder gave {count} tokens and says that its token grid is {tuple(grid)}.")
        return pooled

    def represent(self, fields: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Return features, and what the projector is given, of raw fields."""
        if self.projected == "trunk":
            trunk = self.encoder.trunk(fields, **given)
            return self.encoder.module.head(trunk), trunk
        features = self.encoder(fields, **given)
        return features, features

    def representations(self, fields: Tensor, **given: Tensor) -> dict[str, Tensor]:
        """Return features, projected embeddings, and the trunk where that is what is projected."""
        features, projected = self.represent(fields, **given)
        made = {"features": features, "embeddings": self.projector(projected)}
        return made | {"trunk": projected} if self.projected == "trunk" else made


class _Embedding(nn.Module):
    """Encoder and projector as one network on raw fields."""

    def __init__(self, encoder: nn.Module, projector: nn.Module, projected: str) -> None:
        super().__init__()
        self.encoder, self.projector, self.projected = encoder, projector, projected

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        encode = self.encoder.trunk if self.projected == "trunk" else self.encoder
        return self.projector(encode(fields, **given))


def _check_views(objective: nn.Module, views: int, local_views: int, local_augmentation: nn.Module | None) -> None:
    if views < 2 or local_views < 0 or (local_views > 0) != (local_augmentation is not None):
        raise SchemaError(
            f"Pretraining got views {views}, local_views {local_views} and local_augmentation "
            f"{type(local_augmentation).__name__}; expected at least 2 views, and a local_augmentation with "
            "local_views >= 1, or neither."
        )
    told = [name for name in ("teacher", "element", "tokens") if getattr(objective, name, False)]
    if told and (views > 2 or local_views):
        raise SchemaError(
            f"{type(objective).__name__} is told the {told[0]} of two views, and got {views + local_views}; leave out "
            "views and local_views, or choose an objective on embeddings alone (LeJEPA, MMCR, VICReg, ...)."
        )


def _check_split(projector: nn.Module, objective: nn.Module) -> None:
    first, invariant = getattr(projector, "first", None), getattr(objective, "invariant", None)
    if first is not None and invariant is not None and first != invariant:
        raise SchemaError(
            f"the first part of the projector has {first} columns of the embedding, and {type(objective).__name__} "
            f"takes {invariant} as invariant; expected the same. Change the projector's share, or invariant."
        )


def _refuse_moved_positives(augmentation: nn.Module | None, objective: nn.Module, equivariance: str | None) -> None:
    moved = set(getattr(augmentation, "moved_parameters", ())) - {equivariance}
    if moved and not getattr(objective, "element", False):
        name = sorted(moved)[0]
        raise SymmetryError(
            f"the views move {', '.join(sorted(moved))}, and {type(objective).__name__} takes two views of a run as "
            f"equal: the encoder would learn to ignore {name}. Leave those generators out, or use an objective that "
            f"is told the group element (SIE), or set equivariance: {name}."
        )
