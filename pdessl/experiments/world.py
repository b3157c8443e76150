"""World models of run folders: read-outs fitted after training, and plans made in their latent space."""

# B episodes or runs, N candidates, H control periods, A actuators, T frames, X grid points, D latent width

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.control import Ensemble, Environment, Linearisation, Situation, jacobians
from pdessl.control.receding import Model
from pdessl.data import open as open_data
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.experiments.controlled_runs import ControlledRuns, environment_of
from pdessl.experiments.law_model import LawModel, identify
from pdessl.models import Encoder, LatentVariable, StateReadout, fit_ridge, load, roll_out, save_pretrained
from pdessl.tasks import WorldModel
from pdessl.trajectory import Trajectories

__all__ = [
    "LatentWorld",
    "Planned",
    "Price",
    "fit_readout",
    "frames_of",
    "load_world",
    "model_of",
    "provenance_of",
    "save_world",
]

Price = Literal["decoded", "probe", "latent"]
OBSERVABLES = ("energy", "dissipation")
LAW_RUNS, LAW_PERIODS = 8, 50  # what a law is found from: 400 control periods
_STATES = 4096  # that read-outs are fitted on, at most
_COLLAPSED = 0.5  # of the field's variance: a latent from which less is read does not hold the state
_FINEST = 2e3  # of forms over a latent: with more products than states there are no quadratic read-outs


def fit_readout(task: WorldModel, runs: Trajectories, held: Trajectories) -> StateReadout:
    """Fit what is read from a world model's latents, by ridge regression; nothing of the model is changed.

    The field u, linearly; energy, the mean of u², and dissipation, the mean of u_x², as quadratic forms.

    Args:
        task: trained.
        runs: to fit on, one field on one axis.
        held: other runs, on which the share of variance that is read is measured.

    Raises:
        ShapeError: runs of several fields or axes.
    """
    if runs.fields.ndim != 4 or runs.fields.shape[1] != 1:
        raise ShapeError(f"read-outs are of one field on one axis; the runs are {tuple(runs.fields.shape)}.")
    latents, fields = _states(task, runs)
    others, true = _states(task, held)
    field = fit_ridge(latents, fields.flatten(1))
    readout = StateReadout(latents.shape[1], fields.shape[1:], OBSERVABLES).double()
    weight = field.weights / field.scale[:, None]
    readout.field_weight.copy_(weight.T)
    readout.field_bias.copy_(field.intercept - field.centre @ weight)
    wanted = _observed(fields, runs.lengths[0, 0])
    i, j = torch.triu_indices(latents.shape[1], latents.shape[1])
    if len(i) > min(_FINEST, len(latents) / 4):
        i = j = torch.arange(latents.shape[1])
    products = latents[:, i] * latents[:, j]
    probe = fit_ridge(torch.cat([products, latents], dim=1), wanted)
    slope = (probe.weights / probe.scale[:, None]).T
    readout.forms[:, i, j] = slope[:, : len(i)]
    readout.slopes.copy_(slope[:, len(i) :])
    readout.offsets.copy_(probe.intercept - slope @ probe.centre)
    with torch.no_grad():
        shares = [_share(readout(others).flatten(1), true.flatten(1))]
        shares += [
            _share(a, b) for a, b in zip(readout.observe(others).T, _observed(true, held.lengths[0, 0]).T, strict=True)
        ]
        readout.r2.copy_(torch.tensor(shares))
    return readout.float().eval()


def _states(task: WorldModel, runs: Trajectories) -> tuple[Tensor, Tensor]:
    """Return latents (n, D) and the fields (n, 1, X) they are of, float64, spread over the runs."""
    steps = runs.fields.shape[2] - task.frames + 1
    every = max(1, math.ceil(len(runs) * steps / _STATES))
    windows = runs.fields.unfold(2, task.frames, every).movedim(-1, 3).movedim(2, 1).flatten(0, 1)  # (n, C, H, X)
    task.eval()
    with torch.no_grad():
        latents = task.latent(windows.to(task.device)).flatten(1)
    return latents.double().cpu(), windows[:, :, -1].double()


@torch.no_grad()
def _unseen(task: WorldModel, runs: Trajectories) -> tuple[Tensor, Tensor]:
    """Return mean and logarithmic variance (n, d) of what a world model infers of what nobody saw, on some runs."""
    task.eval()
    horizon = (runs.fields.shape[2] - task.frames) // task.blocks.stride
    whole = runs[slice(0, max(1, math.ceil(_STATES / horizon)))]
    states = whole.fields.unfold(2, task.frames, task.blocks.stride)
    states = states.movedim(-1, 3).movedim(2, 1).to(task.device)  # (B, K + 1, C, H, X)
    latents = task.latent(states.flatten(0, 1)).unflatten(0, states.shape[:2])
    actions = task.amplitudes(whole).to(latents)
    found = task.inferred(latents, latents[:, 1:], actions)
    return tuple(part.flatten(0, 1) for part in found)  # type: ignore[return-value]


def _observed(fields: Tensor, length: Tensor) -> Tensor:
    """Return energy and dissipation (n, 2) of fields (n, 1, X) on a periodic interval."""
    modes = torch.fft.rfft(fields[:, 0], norm="forward")
    wave = 2 * math.pi / float(length) * torch.arange(modes.shape[1], dtype=torch.float64)
    power = 2 * (modes.real.square() + modes.imag.square())
    power[:, 0] /= 2
    return torch.stack([power.sum(dim=1), (power * wave.square()).sum(dim=1)], dim=1)


def _share(found: Tensor, true: Tensor) -> float:
    return 1 - float((found - true).square().sum() / (true - true.mean(dim=0)).square().sum().clamp_min(1e-300))


def save_world(folder: Path, task: WorldModel, data: PDEDataModule, provenance: dict[str, Any]) -> None:
    """Write predictor, latent variable and read-outs of a world model beside its encoder, each for pdessl.load."""
    runs = data.unlabelled
    periods = len(runs) * (runs.fields.shape[2] - 1)
    provenance = provenance | {"frames": task.frames, "on_tokens": task.on_tokens, "periods": periods}
    provenance |= {"stride": task.blocks.stride, "pieces": task.blocks.pieces}
    save_pretrained(folder / "predictor", task.predictor, {"provenance": provenance})
    if task.latent_variable is not None:
        task.latent_variable.set_moments(*_unseen(task, runs))
        save_pretrained(folder / "latent_variable", task.latent_variable, {"provenance": provenance})
    if runs.fields.ndim == 4 and runs.fields.shape[1] == 1:
        save_pretrained(folder / "readout", fit_readout(task, runs, data.validation), {"provenance": provenance})


class LatentWorld:
    """A trained world model that imagines in its latent space; see :class:`pdessl.control.Oracle`.

    Args:
        environment: what is controlled.
        encoder: of states, from observations on the grid, or at the nodes of it that the environment has sensors at.
        predictor: of the latents.
        readout: of field and energy.
        on_tokens: latents are the encoder's tokens.
        price: what the cost is made of: ``decoded``, the field read from the latent; ``probe``, the energy read from it
            (where the target is 0); ``latent``, the distance to the latent of the target, in mean squares of the field
            per square of a latent, over all directions alike.
        frames: observations of a state, this one and those before it; before an episode the first one stands.
        latent_variable: of what is not determined, for planning over it; None: ξ is left at 0.

    Raises:
        ShapeError: a model of another number of actuators or grid.
        DataError: a model of another equation, or of other sensors.
    """

    def __init__(
        self,
        environment: Environment,
        encoder: Encoder,
        predictor: nn.Module,
        readout: StateReadout,
        on_tokens: bool = False,
        price: Price = "decoded",
        frames: int = 1,
        latent_variable: LatentVariable | None = None,
    ) -> None:
        actions, equation = getattr(predictor, "actions", None), encoder.trained_on.get("equation")
        if equation not in (None, environment.file.equation):
            raise DataError(
                f"the model was trained on '{equation}', {environment.name} is '{environment.file.equation}'. Plan in "
                "an environment of the equation it was trained on."
            )
        if actions != environment.actuators or readout.shape != (1, environment.points):
            raise ShapeError(
                f"the model has {actions} actuators and fields {readout.shape}; {environment.name} has "
                f"{environment.actuators} and {(1, environment.points)}. Plan in the environment it was trained in."
            )
        nodes, read = _sensor_nodes(environment), getattr(encoder.module, "sensors", None)
        if nodes is not None and (read is None or not set(read) <= set(nodes)):
            raise DataError(
                f"{environment.name} is seen by {environment.observed} sensors at nodes {nodes}, the model reads "
                f"{'the whole grid' if read is None else f'nodes {list(read)}'}. Plan where it sees what it was "
                "trained on: sensors of the encoder, sensors.positions of the environment."
            )
        self.frames, self._nodes = frames, nodes
        self.environment, self.encoder, self.predictor, self.readout = environment, encoder, predictor, readout
        self.on_tokens, self.price, self.latent_variable = on_tokens, price, latent_variable
        self._seen: tuple[Situation, Tensor] | None = None

    @property
    def undetermined(self) -> int:
        """How many numbers ξ a period has, see :class:`pdessl.control.Undetermined`; 0 without a latent variable."""
        return 0 if self.latent_variable is None else self.latent_variable.size

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return draws of ξ, (count, d), with the moments that it had over training runs."""
        if self.latent_variable is None:
            raise DataError("the world model has no latent variable; train one with model.latent_variable.")
        return self.latent_variable.sample(count, generator)

    def latents(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return the latents (B, N, H, D), tokens together, after each period under candidates (B, N, H, A).

        Candidates may have ξ behind, (B, N, H, A + d).
        """
        b, n, h, a = actions.shape
        latent = self.encoded_now(situation)
        start = latent[:, None].expand(b, n, *latent.shape[1:]).flatten(0, 1)
        imagined = roll_out(self.predictor, start, actions.reshape(b * n, h, a).to(start.dtype))
        return imagined.flatten(2).unflatten(0, (b, n))

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return the states (B, N, H, K) that are read from what is imagined."""
        return self.environment.state(self.readout(self.latents(situation, actions))[..., 0, :])

    def energies(self, situation: Situation, actions: Tensor) -> Tensor | None:
        """Return what stands for the mean of (u - u*)², (B, N, H); None where the decoded field is to be measured."""
        if self.price == "latent":
            env, target = self.environment, situation.target
            goal = self._rest() if target is None else self.encoded(self._still(env.observe(target))).flatten(1)
            error = self.latents(situation, actions) - goal.reshape(-1, 1, 1, goal.shape[-1])
            return self.readout.field_weight.square().sum() / env.points * error.square().mean(dim=-1).double()
        if self.price == "decoded" or situation.target is not None:
            return None
        return self.readout.observe(self.latents(situation, actions))[..., 0].double()

    def coordinates(self, situation: Situation) -> Tensor:
        """Return the latents (B, D), tokens together, float64, from that of the field 0."""
        return (self.encoded_now(situation).flatten(1) - self._rest()).double()

    def linearised(self) -> Linearisation:
        """Return the derivative of the predictor at the latent of the field 0, and the cost of the decoded field."""
        env, rest = self.environment, self._rest()
        exact = copy.deepcopy(self.predictor).double()
        shape = (-1, rest.numel() // self._width, self._width) if self.on_tokens else (-1, rest.numel())

        def step(latent: Tensor, actions: Tensor) -> Tensor:
            return exact(latent.reshape(shape), actions).flatten(1)

        transition, entry, _ = jacobians(step, rest.double(), env.actuators)
        decoder, weights = self.readout.field_weight.double(), env.file.cost
        return Linearisation(
            transition, entry, weights.state, weights.action / env.actuators, weights.terminal, env.file.control.period,
            "the world model", decoder.T @ decoder / env.points,
        )  # fmt: skip

    @property
    def _width(self) -> int:
        return int(self.predictor.latent)

    def encoded_now(self, situation: Situation) -> Tensor:
        """Return the latents (B, D), or tokens (B, N, D), of what was observed; computed once for a situation."""
        if self._seen is None or self._seen[0] is not situation:
            self._seen = situation, self.encoded(self._on_grid(situation.last(self.frames)))
        return self._seen[1]

    def shaped(self, latents: Tensor) -> Tensor:
        """Return latents (..., D), tokens together, as the encoder gives them: (..., N, D') where they are tokens."""
        return latents.unflatten(-1, (-1, self._width)) if self.on_tokens else latents

    def _on_grid(self, seen: Tensor) -> Tensor:
        if self._nodes is None:
            return seen
        fields = seen.new_zeros(*seen.shape[:2], self.environment.points)
        fields[..., self._nodes] = seen
        return fields

    def _still(self, observation: Tensor) -> Tensor:
        """Return observations (B, M) as states (B, frames, X) that stand still."""
        return self._on_grid(observation[:, None].expand(-1, self.frames, -1))

    def encoded(self, fields: Tensor) -> Tensor:
        """Return the latents (n, D), or tokens (n, N, D), of states (n, frames, X), or (n, X) of one frame."""
        rows = fields.float()[:, None] if fields.ndim == 3 else fields.float()[:, None, None]
        with torch.no_grad():
            return self.encoder.tokens(rows) if self.on_tokens else self.encoder(rows)

    def with_predictor(self, predictor: nn.Module) -> LatentWorld:
        """Return the same model with another predictor of its latents."""
        return LatentWorld(
            self.environment, self.encoder, predictor, self.readout, self.on_tokens, self.price, self.frames,
            self.latent_variable,
        )  # fmt: skip

    def _rest(self) -> Tensor:
        env = self.environment
        return self.encoded(torch.zeros(1, self.frames, env.points, device=env.device)).flatten()


def load_world(folder: str | os.PathLike[str], environment: Environment, price: Price = "decoded") -> LatentWorld:
    """Load the world model of a run folder for planning; nothing is unpickled.

    Raises:
        CheckpointError: no world model there.
    """
    place = Path(folder)
    if not (place / "predictor").is_dir() or not (place / "readout").is_dir():
        raise CheckpointError(
            f"{place} holds no world model (predictor/ and readout/). Train one: pdessl pretrain --config world/ks4 "
            "--data DATA --out FOLDER"
        )
    encoder, predictor, readout = (load(place / name) for name in ("encoder", "predictor", "readout"))
    if not isinstance(readout, StateReadout):
        raise CheckpointError(f"{place / 'readout'} holds a {type(readout).__name__}; expected a StateReadout.")
    unseen = load(place / "latent_variable") if (place / "latent_variable").is_dir() else None
    if unseen is not None and not isinstance(unseen, LatentVariable):
        raise CheckpointError(f"{place / 'latent_variable'} holds a {type(unseen).__name__}, no LatentVariable.")
    said = provenance_of(place)
    if said.get("stride", 1) != 1:
        raise CheckpointError(
            f"{place} is the model of a slower level, of {said['stride']} control periods a step; give it as --upper, "
            "and as --model the one it was trained on."
        )
    tokens = bool(said.get("on_tokens"))
    return LatentWorld(environment, Encoder.of(encoder), predictor, readout, tokens, price, frames_of(said), unseen)


def _sensor_nodes(environment: Environment) -> list[int] | None:
    """Return the nodes of the grid that the sensors are at; None where every node is seen.

    Raises:
        DataError: sensors between nodes.
    """
    places = environment.file.sensors.positions
    if places is None:
        return None
    shares = [x / environment.file.domain.length * environment.points for x in places]
    if any(abs(share - round(share)) > 1e-6 for share in shares):
        raise DataError(
            f"{environment.name} has sensors between the nodes of its grid; a world model reads nodes, which are "
            f"{environment.file.domain.length / environment.points:g} apart."
        )
    return [round(share) % environment.points for share in shares]


def provenance_of(folder: Path) -> Mapping[str, Any]:
    """Return what was noted of a world model when it was trained; empty where nothing can be read."""
    try:
        recipe = json.loads((folder / "predictor" / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = recipe.get("provenance") if isinstance(recipe, dict) else None
    return found if isinstance(found, dict) else {}


def frames_of(provenance: Mapping[str, Any]) -> int:
    """Return how many frames a state of a world model has."""
    frames = provenance.get("frames", 1)
    return frames if isinstance(frames, int) and frames > 0 else 1


@dataclass(frozen=True, eq=False)
class Planned:
    """A model to plan in, and what is said of it.

    Args:
        model: imagines.
        title: of its row.
        notes: for people.
        steps: control periods of the environment it was made from (of several models, the most); None: not known.
    """

    model: Model
    title: str
    notes: tuple[str, ...] = ()
    steps: int | None = None


def model_of(
    model: str | os.PathLike[str] | Model | Sequence[str | os.PathLike[str]],
    environment: Environment,
    data: str | os.PathLike[str] | None = None,
    price: Price = "decoded",
    announce: Callable[[str], None] = print,
    doubt: float = 1.0,
) -> Planned:
    """Return what can be planned in: a law that is found now, a run folder, or a model as it is.

    Args:
        model: ``law``, a folder of ``pdessl pretrain`` with a world model, several such folders, or an object with
            ``imagine``.
        environment: what is controlled.
        data: runs that the law is found from, see :func:`pdessl.generate`; None: 400 control periods are recorded.
        price: what a world model's cost is made of, see :class:`LatentWorld`.
        announce: receives the notes.
        doubt: what a disagreement of several models costs, see :class:`pdessl.control.Ensemble`.

    Raises:
        CheckpointError: no world model there.
        DataError, ShapeError: one that does not belong to the environment.
    """
    if isinstance(model, Sequence) and not isinstance(model, str):
        if len(model) != 1:
            parts = [model_of(one, environment, data, price, announce) for one in model]
            several = Ensemble(environment, [part.model for part in parts], doubt)
            steps = [part.steps for part in parts]
            most = None if None in steps or not steps else max(step for step in steps if step is not None)
            return Planned(several, f"{len(parts)} world models", sum((p.notes for p in parts), ()), most)
        model = model[0]
    if not isinstance(model, (str, os.PathLike)):
        return Planned(model, type(model).__name__)
    if str(model) == "law":
        law = identify(_law_runs(environment, data), environment)
        said = f"law found from {law.periods} control periods: {law}"
        announce(said)
        return Planned(LawModel(environment, law), "the law found", (said,), law.periods)
    world = load_world(model, environment, price)
    found = dict(zip(("field", *world.readout.observables), world.readout.r2.tolist(), strict=True))
    said = f"{model}: read from the latent of other runs, R²: " + ", ".join(f"{n} {v:.4f}" for n, v in found.items())
    notes = [said]
    if found["field"] < _COLLAPSED:
        notes.append(
            f"{model}: the latent does not hold the state (it collapsed, or was hardly trained); plans in it are worth "
            "nothing."
        )
    for line in notes:
        announce(line)
    periods = provenance_of(Path(model)).get("periods")
    return Planned(world, "the world model", tuple(notes), periods if isinstance(periods, int) else None)


def _law_runs(environment: Environment, data: str | os.PathLike[str] | None) -> Trajectories:
    if data is not None:
        source = open_data(data)
        if environment_of(source).file.actuators != environment.file.actuators:
            raise DataError(f"{data} was recorded with other actuators than those of {environment.name}.")
        return source.load(next(iter(source.splits)))
    few = _shorter(environment, LAW_PERIODS)
    return ControlledRuns(few, {"unlabelled": LAW_RUNS, "validation": 1}).load("unlabelled")


def _shorter(environment: Environment, steps: int) -> Environment:
    """Return the same environment with episodes of other length."""
    file = environment.file
    return Environment(environment.name, replace(file, control=replace(file.control, steps=steps)), environment.device)
