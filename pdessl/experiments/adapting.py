"""World models that learn from what surprised them: windows that went otherwise than imagined are retrained on."""

# B runs, T control periods, K periods of a window, A actuators, X grid points, D latent width, n windows

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pdessl.control import Environment, Episodes, record_runs, run_episodes
from pdessl.control.episodes import Controller
from pdessl.errors import DataError
from pdessl.experiments.world import LatentWorld
from pdessl.models import roll_out, save_pretrained

__all__ = ["Adapted", "Windows", "adapt", "save_adapted"]

SOUND = 3_000_000  # first seed of the runs that say which errors are usual
SOUND_RUNS = 6  # at least
WINDOW = 8  # control periods: what shipped recipes train on
_BATCH = 256
_FLOOR = 1e-3  # of the mean square of the sound runs: below it errors are not relative any more


@dataclass(frozen=True, eq=False)
class Windows:
    """Pieces of runs: fields (n, K + 1, X) and the amplitudes between them (n, K, A)."""

    fields: Tensor
    actions: Tensor

    @classmethod
    def cut(cls, fields: Tensor, actions: Tensor, periods: int) -> Windows:
        """Cut runs (B, T + 1, X), (B, T, A) into pieces one after the other."""
        starts = range(0, actions.shape[1] - periods + 1, periods)
        return cls(
            torch.cat([fields[:, s : s + periods + 1] for s in starts]),
            torch.cat([actions[:, s : s + periods] for s in starts]),
        )

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, rows: Tensor) -> Windows:
        return Windows(self.fields[rows], self.actions[rows])

    def __add__(self, other: Windows) -> Windows:
        return Windows(torch.cat([self.fields, other.fields]), torch.cat([self.actions, other.actions]))


@dataclass(frozen=True, eq=False)
class Adapted:
    """A world model after its rounds.

    Args:
        world: the model as it is.
        before: as it was.
        periods: control periods of the environment that this took.
        stored: windows that surprised it, in each round.
        usual: the error that windows of sound runs seldom pass, relative to the mean square of the field.
        floor: added to that mean square.
    """

    world: LatentWorld
    before: LatentWorld
    periods: int
    stored: tuple[int, ...]
    usual: float
    floor: float

    def errors(self, *runs: Episodes) -> tuple[float, float]:
        """Return the mean error of all windows of episodes, by the model as it was and as it is.

        Of episodes of other seeds than it was adapted in: stored windows were trained on, and were stored because the
        model erred. A model errs more where its own plans go; give episodes that each of the two steered.
        """
        windows = [Windows.cut(run.fields.float(), run.actions.float(), WINDOW) for run in runs]
        found = [torch.cat([_errors(w, each, self.floor) for each in windows]) for w in (self.before, self.world)]
        return float(found[0].mean()), float(found[1].mean())

    def __str__(self) -> str:
        """Return it in words."""
        told = f"adapted in {len(self.stored)} rounds; windows stored, with an error above {self.usual:.3g}: "
        return told + ", ".join(map(str, self.stored)) + "."


def adapt(
    world: LatentWorld,
    controller: Callable[[LatentWorld], Controller],
    seeds: Sequence[int],
    rounds: int = 1,
    level: float = 0.9,
    steps: int = 400,
    learning_rate: float = 5e-4,
    seed: int = 0,
) -> Adapted:
    """Run episodes, store what went otherwise than imagined, and train the predictor on it.

        e = Σ_k mean (û_k - u_k)² / Σ_k mean u_k²,    stored where e > q

    q is passed by a share of at most 1 - level of windows of sound runs (recorded for this, under amplitudes of
    all behaviours: six, or as many as have level / (1 - level) windows). The predictor is trained on all windows that
    were stored so far and as many sound ones, on the same relative error of latents; the encoder and what is read from
    it stay, so that nothing can collapse.

    Args:
        world: the model; it is not changed.
        controller: made for a model, ``lambda w: RecedingHorizon(env, w, ...)``.
        seeds: of the episodes of a round; each round has its own, by adding their number.
        rounds: how many, >= 1.
        level: in (0, 1).
        steps: of AdamW in each round.
        learning_rate: of these.
        seed: of the batches.

    Raises:
        DataError: numbers out of range, or episodes shorter than a window.

    Source: the quantile: Vovk, Gammerman, Shafer (2005).
    """
    env = world.environment
    if world.frames > 1 or env.observed < env.points:
        raise DataError(f"{env.name}: a model is adapted where a state is one frame that is seen whole.")
    if rounds < 1 or not 0 < level < 1 or env.steps < WINDOW:
        raise DataError(
            f"adapt got {rounds} rounds, level {level}, episodes of {env.steps} periods; expected at least one round, "
            f"a level between 0 and 1 and {WINDOW} periods or more, which a window takes."
        )
    recorded = max(SOUND_RUNS, math.ceil(_fewest(level) / (env.steps // WINDOW)))
    sound = _sound(env, recorded)
    floor = _FLOOR * float(sound.fields.square().mean())
    usual = _quantile(_errors(world, sound, floor), level)
    generator, stored, counts, now = torch.Generator().manual_seed(seed), None, [], world
    for turn in range(rounds):
        run = run_episodes(env, controller(now), [s + turn * len(seeds) for s in seeds])
        seen = Windows.cut(run.fields.float(), run.actions.float(), WINDOW)
        strange = seen[_errors(now, seen, floor) > usual]
        counts.append(len(strange))
        stored = strange if stored is None else stored + strange
        if len(stored):
            now = _retrained(now, stored, sound, floor, steps, learning_rate, generator)
    periods = recorded * env.steps + rounds * len(seeds) * env.steps
    return Adapted(now, world, periods, tuple(counts), usual, floor)


def _sound(env: Environment, count: int) -> Windows:
    runs = record_runs(env, range(SOUND, SOUND + count))
    fields = torch.from_numpy(runs["u"].values)
    actions = torch.from_numpy(runs["actions"].values).mT.float()
    return Windows.cut(fields, actions, WINDOW)


def _fewest(level: float) -> int:
    """Return how many errors have a quantile of that level among them."""
    return max(1, math.ceil(level / (1 - level) - 1e-9))


def _quantile(errors: Tensor, level: float) -> float:
    rank = math.ceil((len(errors) + 1) * level - 1e-9)
    return float(errors.sort().values[rank - 1])


def _latents(world: LatentWorld, fields: Tensor) -> Tensor:
    """Return latents (n, K + 1, ...) of fields (n, K + 1, X)."""
    return world.encoded(fields.flatten(0, 1)).unflatten(0, fields.shape[:2])


def _errors(world: LatentWorld, windows: Windows, floor: float) -> Tensor:
    """Return e (n,) of windows."""
    with torch.no_grad():
        start = world.encoded(windows.fields[:, 0])
        imagined = world.readout(roll_out(world.predictor, start, windows.actions).flatten(2))[:, :, 0]
        wrong = (imagined - windows.fields[:, 1:]).square().mean(dim=(1, 2))
        return wrong / (windows.fields[:, 1:].square().mean(dim=(1, 2)) + floor)


def _retrained(
    world: LatentWorld,
    stored: Windows,
    sound: Windows,
    floor: float,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
) -> LatentWorld:
    predictor: nn.Module = copy.deepcopy(world.predictor).train()
    sets = [(w, _latents(world, w.fields)) for w in (stored, sound)]
    optimiser = torch.optim.AdamW(predictor.parameters(), lr=learning_rate, weight_decay=1e-5)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rest = world.encoded(torch.zeros_like(stored.fields[:1, 0]))
    with torch.enable_grad():
        for _ in range(steps):
            parts = []
            for windows, latents in sets:
                rows = torch.randint(len(windows), (_BATCH // 2,), generator=generator)
                true, actions = latents[rows], windows.actions[rows]
                wrong = (roll_out(predictor, true[:, 0], actions) - true[:, 1:]).square().flatten(1).mean(dim=1)
                size = (true[:, 1:] - rest).square().flatten(1).mean(dim=1)
                parts.append((wrong / (size + floor)).mean())
            optimiser.zero_grad()
            torch.stack(parts).sum().backward()
            nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
            optimiser.step()
            fall.step()
    return world.with_predictor(predictor.eval())


def save_adapted(folder: Path, adapted: Adapted, periods: int | None) -> None:
    """Write an adapted world model, as :func:`pdessl.experiments.world.load_world` reads one.

    Args:
        folder: receives ``encoder/``, ``predictor/`` and ``readout/``.
        adapted: see :func:`adapt`.
        periods: control periods that the model before was made from; None: not known.
    """
    world = adapted.world
    total = None if periods is None else periods + adapted.periods
    said = {"frames": 1, "on_tokens": world.on_tokens, "periods": total, "adapted": str(adapted)}
    for name, module in (("encoder", world.encoder), ("predictor", world.predictor), ("readout", world.readout)):
        save_pretrained(folder / name, module, {"provenance": said})
