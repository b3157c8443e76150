"""The task of a world model: latents of states, and what amplitudes make of them, rolled out over several periods."""

# B windows of a batch, C channels, H frames of a state, K control periods, X space, D latent width, A actuators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.models import Blocks, follow, roll_out
from pdessl.objectives import ExponentialMovingAverage, Terms
from pdessl.objectives.latents import prediction_term
from pdessl.tasks.batches import step_generator
from pdessl.tasks.latent_prediction import Guarded
from pdessl.tasks.representation import RepresentationTask, refuse_untrained_head
from pdessl.trajectory import Trajectories

__all__ = ["WorldModel"]


class WorldModel(RepresentationTask):
    """Train an encoder and a predictor that imagines what actions lead to; no reward, and no label.

        z_t = f(u_{t-H+1} .. u_t),    ẑ_{t+k} = P(ẑ_{t+k-1}, a_{t+k-1}),  ẑ_t = z_t,  k = 1 .. K
        loss = objective(ẑ, z, z_t) + ω mean (a_t - g(z_t, z_{t+1}))² + ω mean (a_t .. a_{t+K-1} - h(z_t, z_{t+K}))²
               + δ mean (z_{t+1} - z_t)²

    With a latent variable the predictor is P(z, a, ξ): ξ_t is drawn from q(ξ | z_t, z_{t+1}), and what it tells is
    priced, + β nats a period. It takes up what state and actions do not determine; see
    :class:`pdessl.models.LatentVariable`.

    f: encoder, P: predictor, g, h: inverse dynamics over one period and over the window. The inverse dynamics are what
    makes the latent keep directions that the actuators move: without, unstable modes may be left out of it. Gradients
    go through both branches unless there is a teacher, whose latents are then the targets.

    Validation, its collapse monitors and its online probe: see :class:`RepresentationTask`.

    Args:
        encoder: network on fields (B, C, H, *X).
        predictor: called with latents and amplitudes (B, A), as :class:`pdessl.models.ActionPredictor`; with a latent
            variable with (B, A + d), and with (B, A) for ξ = 0. With ``actions`` 0 runs need none, and theirs are not
            read: what the actuators do is then not determined.
        objective: called with prediction and target (B, K, D) (K N rows where latents are tokens) and the first latent,
            as :class:`pdessl.objectives.TemporalJEPA`.
        inverse: g, called with two latents, gives (B, 1, A) in units of ``bound``, as
            :class:`pdessl.models.InverseDynamics`; None: without.
        ends: h, gives (B, K, A); None: without.
        horizon: K, control periods of a roll-out, >= 1.
        frames: H, frames of a state, >= 1.
        windows: cut out of each run of a batch.
        stride, pieces: control periods of a step of the model, s, and numbers an actuator has in it, p: the model is
            then that of a slower level, whose actions are codes of blocks (B, p A), see :class:`pdessl.models.Blocks`.
            The inverse dynamics give codes too. With the default 1 an action is an amplitude.
        on_tokens: latents are the encoder's tokens (True) or its features.
        teacher_forced: each latent is also predicted from the true ones before it, with equal weight: the objective
            gets 2 K rows. With :class:`pdessl.models.CausalActionPredictor` the task is that of a whole sequence.
        inverse_weight: ω >= 0.
        similarity: δ >= 0.
        bound: of the amplitudes, in their unit.
        augmentation: called with windows and a generator, gives windows and what was drawn; it must move actions with
            the fields, as :class:`pdessl.augmentation.ActuatedSymmetries`. None: none.
        teacher: settings of the moving average (``start``, ``end``, ``schedule``); None: no teacher.
        latent_variable: q, as :class:`pdessl.models.LatentVariable`, of as many numbers as the predictor has
            ``undetermined``; None: without. What it is priced on are the rows of this process.
        price: β >= 0, of a nat.
        learning_rate, weight_decay, warmup, seed: see :class:`RepresentationTask`.

    Raises:
        SchemaError: a setting out of range; neither an anti-collapse term nor a teacher, and an encoder that learns:
            the constant one would solve the task; ``on_tokens`` and an encoder with a head, which nothing would train;
            or a latent variable of another size than the predictor's.
        DataError: runs without actions.
        ShapeError: runs shorter than a window.

    Source: Sobal et al. (2025), arXiv:2502.14819 (PLDM: variance, covariance, similarity, inverse dynamics); Assran et
        al. (2025), arXiv:2506.09985 (roll-outs in latent space beside teacher forcing).
    """

    def __init__(
        self,
        encoder: nn.Module,
        predictor: nn.Module,
        objective: nn.Module,
        inverse: nn.Module | None = None,
        ends: nn.Module | None = None,
        horizon: int = 8,
        frames: int = 1,
        windows: int = 16,
        stride: int = 1,
        pieces: int = 1,
        on_tokens: bool = False,
        teacher_forced: bool = False,
        inverse_weight: float = 1.0,
        similarity: float = 0.0,
        bound: float = 1.0,
        augmentation: nn.Module | None = None,
        teacher: dict[str, Any] | None = None,
        latent_variable: nn.Module | None = None,
        price: float = 1e-3,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, learning_rate, weight_decay, warmup, seed)
        if min(horizon, frames, windows) < 1 or min(inverse_weight, similarity, price) < 0 or not bound > 0:
            raise SchemaError(
                f"WorldModel got horizon {horizon}, frames {frames}, windows {windows}, inverse_weight "
                f"{inverse_weight}, similarity {similarity}, price {price}, bound {bound}; expected counts >= 1, "
                "weights >= 0 and a bound > 0."
            )
        learns = any(True for _ in self.encoder.parameters())
        if learns and teacher is None and isinstance(objective, Guarded) and not objective.guarded:
            raise SchemaError(
                "WorldModel got neither a teacher nor an objective with a regulariser: a constant encoder predicts "
                "itself. Give the objective regulariser: vc (or sigreg)."
            )
        if on_tokens:
            refuse_untrained_head(self.encoder, "WorldModel on tokens")
        inferred, read = getattr(latent_variable, "size", 0), getattr(predictor, "undetermined", 0)
        if inferred != read:
            raise SchemaError(
                f"WorldModel got a latent variable of {inferred} numbers and a predictor with undetermined {read}; "
                "expected the same: give both latent_variable and predictor.undetermined, or neither."
            )
        self.predictor, self.objective = predictor, objective
        self.latent_variable, self.price = latent_variable, price
        self.inverse, self.ends, self.augmentation = inverse, ends, augmentation
        self.horizon, self.frames, self.windows, self.on_tokens = horizon, frames, windows, on_tokens
        self.blocks = Blocks(stride, pieces)
        self.inverse_weight, self.similarity, self.bound = inverse_weight, similarity, bound
        self.teacher_forced = teacher_forced
        if teacher is not None:
            self.teacher = ExponentialMovingAverage(self.encoder, **teacher)

    def trained(self) -> Sequence[nn.Module]:
        """Return encoder, predictor, objective, inverse dynamics and latent variable."""
        parts = (self.encoder, self.predictor, self.objective, self.inverse, self.ends, self.latent_variable)
        return [part for part in parts if part is not None]

    def student(self) -> nn.Module:
        """Return the encoder."""
        return self.encoder

    def views(self) -> nn.Module | None:
        """Return what cuts a state out of a run, at random."""
        return _States(self.frames)

    def latent(self, fields: Tensor, taught: bool = False) -> Tensor:
        """Return the latents of states (B, C, H, *X): features (B, D), or tokens (B, N, D); the teacher's if asked."""
        encoder = self.teacher.module if taught and self.teacher is not None else self.encoder
        return encoder.tokens(fields) if self.on_tokens else encoder(fields)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cut windows, imagine them, return the loss."""
        generator = step_generator(self, self.seed, batch_idx, batch.fields)
        with torch.no_grad():
            view = self.cut(batch, generator)
            if self.augmentation is not None:
                view, _ = self.augmentation(view, generator)
        fields, b = view.fields, len(view)
        actions = self.amplitudes(view)
        # (B, K + 1, C, H, *X)
        states = fields.unfold(2, self.frames, self.blocks.stride).movedim(-1, 3).movedim(2, 1)
        latents = self.latent(states.flatten(0, 1)).unflatten(0, (b, -1))
        target = latents[:, 1:]
        if self.teacher is not None:
            with torch.no_grad():
                target = self.latent(states[:, 1:].flatten(0, 1), taught=True).unflatten(0, (b, -1))
        acting, nats = actions, None
        if self.latent_variable is not None:
            found = self.inferred(latents, target, actions)
            noise = draw_rows(
                lambda n, g: torch.randn((n, *found[0].shape[1:]), generator=g, device=fields.device), b, generator
            ).to(fields.dtype)
            acting = torch.cat([actions, self.latent_variable.drawn(*found, noise)], dim=2)
            nats = self.latent_variable.price(*(part.flatten(0, 1) for part in found))
        imagined = roll_out(self.predictor, latents[:, 0], acting)
        if self.teacher_forced:
            forced = follow(self.predictor, latents[:, :-1], acting)
            imagined, target = torch.cat([imagined, forced], dim=1), torch.cat([target, target], dim=1)
        rows = [_rows(z) for z in (imagined, target)]
        terms = Terms.of(self.objective(*rows, _rows(latents[:, :1])))
        terms = self._with_dynamics(terms, latents, actions / self.bound)
        if nats is not None:
            terms = Terms(terms.total + self.price * nats, {**terms.named, "nats": nats})
        self.log_terms(terms, fields)
        return terms.total

    def inferred(self, latents: Tensor, after: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithmic variance of q(ξ | z_t, z_{t+1}), (B, K, d) each.

        Args:
            latents: z_t .. z_{t+K-1}, or one more, (B, K, ...).
            after: z_{t+1} .. z_{t+K}, (B, K, ...).
            actions: (B, K, A).
        """
        before = latents[:, : after.shape[1]]
        # What is missed is a measurement: an error that is wanted for what ξ makes of it would be no prediction.
        missed = (after - follow(self.predictor, before, actions)).detach()
        assert self.latent_variable is not None  # noqa: S101  (asked only with one)
        found = self.latent_variable(before.flatten(0, 1), missed.flatten(0, 1))
        return tuple(part.unflatten(0, after.shape[:2]) for part in found)  # type: ignore[return-value]

    def amplitudes(self, runs: Trajectories) -> Tensor:
        """Return the actions after each state of runs but the last, (B, K, p A), as the predictor reads them."""
        fields = runs.fields
        if self._unacted or runs.actions is None:
            return fields.new_zeros(len(fields), (fields.shape[2] - self.frames) // self.blocks.stride, 0)
        return self.blocks.codes(runs.actions[:, :, self.frames - 1 :].transpose(1, 2).to(fields.dtype))

    @property
    def _unacted(self) -> bool:
        return getattr(self.predictor, "actions", None) == 0

    def _with_dynamics(self, terms: Terms, latents: Tensor, actions: Tensor) -> Terms:
        named, total = dict(terms.named), terms.total
        if self.inverse is not None:
            found = self.inverse(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1))
            named["inverse"] = prediction_term(found, actions.flatten(0, 1)[:, None])
            total = total + self.inverse_weight * named["inverse"]
        if self.ends is not None:
            named["ends"] = prediction_term(self.ends(latents[:, 0], latents[:, -1]), actions)
            total = total + self.inverse_weight * named["ends"]
        if self.similarity:
            named["similarity"] = prediction_term(latents[:, 1:], latents[:, :-1])
            total = total + self.similarity * named["similarity"]
        return Terms(total, named)

    def cut(self, batch: Any, generator: torch.Generator | None) -> Trajectories:
        """Return windows of H + K s frames, ``windows`` of each run one after the other, at random places.

        Raises:
            DataError: runs without actions, and a predictor that reads some.
            ShapeError: runs that are shorter.
        """
        if getattr(batch, "actions", None) is None and not self._unacted:
            raise DataError(
                "WorldModel needs runs with actions. Make some: pdessl generate ENVIRONMENT --out FOLDER ('pdessl list "
                "environments' prints them); or set the predictor's actions to 0."
            )
        size = self.frames + self.horizon * self.blocks.stride
        return _cut(batch, size, self.windows, generator)

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return the features of the last state of each run, and the latents that the objective keeps apart."""
        states = batch.fields[:, :, batch.fields.shape[2] - self.frames :]
        latents = self.latent(states)
        features = self.encoder(states) if self.on_tokens else latents
        return {"features": features, "embeddings": latents.mean(dim=1) if self.on_tokens else latents}


def _rows(latents: Tensor) -> Tensor:
    """Latents (B, K, D) or (B, K, N, D) as (B, K N, D)."""
    return latents if latents.ndim == 3 else latents.flatten(1, 2)


def _cut(batch: Trajectories, size: int, count: int, generator: torch.Generator | None) -> Trajectories:
    spare = batch.fields.shape[2] - size
    if spare < 0:
        raise ShapeError(
            f"windows of {size} frames do not fit runs of {batch.fields.shape[2]}; lower horizon, or make longer runs."
        )
    device = batch.fields.device
    start = draw_rows(
        lambda n, g: torch.randint(spare + 1, (n, count), generator=g, device=device), len(batch), generator
    )
    rows = torch.arange(len(batch), device=device).repeat_interleave(count)
    index = start.flatten()[:, None] + torch.arange(size, device=device)
    actions = None
    if batch.actions is not None:
        actions = batch.actions.transpose(1, 2)[rows[:, None], index[:, :-1]].transpose(1, 2)
    fields = batch.fields.movedim(2, 1)[rows[:, None], index].movedim(1, 2)
    first = batch.window(slice(0, size))  # of the right size: whole runs are not copied
    several = first[rows] if count > 1 else first
    return several.replace(fields=fields, time=batch.time[rows].gather(1, index), actions=actions)


class _States(nn.Module):
    """Cut a state of some frames out of each run, at a random place."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> tuple[Any, None]:
        return _cut(batch, self.frames, 1, generator), None
