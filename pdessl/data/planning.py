"""Which grid and which step each trajectory of a dataset needs: from its own draw, before anything is simulated."""

# B batch, X solver grid (one axis per dimension), d number of space axes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdessl.data.drawing import Draw, draw, stack
from pdessl.data.memory import available_memory, readable_size
from pdessl.data.recipe import DatasetRecipe
from pdessl.errors import DataError, ResolutionError
from pdessl.solvers import Simulator

__all__ = ["Plan", "build_simulator", "check_before_starting", "plan"]

# Grids and steps are rounded up to few values, so that trajectories can be advanced together.
LADDER = tuple(sorted({m << n for m in (1, 3) for n in range(14)}))
# Inner steps longer than this many advisable ones (courant = 1) are refused where the simulator knows no limit itself.
LONGEST_STEP = 4.0
# Trajectories of each split that are planned before starting, and the grid values that they may have together.
CHECKED, CHECKED_VALUES = 256, 1 << 18
MOST_SHARDS = 10**6
MOST_STEPS = 10**8  # of one trajectory: hours to days on any machine
PLANNED_VALUES = 1 << 22  # grid values that are looked at together


@dataclass(frozen=True, order=True)
class Plan:
    """How a trajectory is computed; those with the same plan can be advanced together.

    Args:
        points: solver grid, points per axis.
        substeps: inner steps per interval between frames.
    """

    points: tuple[int, ...]
    substeps: int

    @property
    def cost(self) -> int:
        """Grid points times steps."""
        return math.prod(self.points) * self.substeps


def build_simulator(
    recipe: DatasetRecipe,
    draws: Sequence[Draw],
    points: tuple[int, ...],
    substeps: int | None = None,
    device: torch.device | None = None,
) -> Simulator:
    """Return the recipe's simulator for a batch of draws on a grid; its source term lies on ``device``."""
    solver = recipe.content["solver"]
    _, lengths = stack(draws)
    parameters = {n: torch.tensor([d.parameters[n] for d in draws], dtype=torch.float64) for n in recipe.parameters}
    optional: dict[str, Any] = {}
    if recipe.forcing is not None:
        numbers = torch.stack([d.forcing for d in draws if d.forcing is not None]).to(device or "cpu")
        optional["forcing"] = recipe.forcing.forcing(numbers, points[0] if recipe.dimensions == 1 else points)
    precision = getattr(torch, solver.get("precision", "float64"))
    if "precision" in solver:
        optional["precision"] = precision
    return recipe.simulator(
        **parameters,
        domain_length=lengths[:, 0] if recipe.dimensions == 1 else lengths,
        points=points[0] if recipe.dimensions == 1 else points,
        substeps=substeps,
        check_resolution=False,  # the plan has chosen a grid that passes
        dtype=precision,
        **optional,
        **solver.get("arguments", {}),
    )


def plan(recipe: DatasetRecipe, draws: Sequence[Draw], device: torch.device | None = None) -> list[Plan]:
    """Choose the grid and the steps per frame of each trajectory.

    Args:
        recipe: the dataset.
        draws: what was drawn for each.
        device: where the fields are looked at; default the CPU.

    Raises:
        ResolutionError: the grids or the step that the recipe prescribes do not do; the message says which would.
    """
    piece = max(1, PLANNED_VALUES // math.prod(_probe(recipe)))
    pieces = [draws[i : i + piece] for i in range(0, len(draws), piece)]
    return [planned for few in pieces for planned in _plan(recipe, few, device or torch.device("cpu"))]


def _plan(recipe: DatasetRecipe, draws: Sequence[Draw], device: torch.device) -> list[Plan]:
    family = recipe.initial_condition
    numbers, lengths = stack(draws)
    probe = _probe(recipe)
    fields = family.fields(numbers.to(device), probe, lengths.to(device))
    needed = build_simulator(recipe, draws, probe, device=device).points_needed(fields).cpu()
    grids = _choose_grids(recipe, draws, fields, lengths, needed)
    advisable, wanted = torch.empty(2, len(draws), dtype=torch.float64)
    courant = recipe.content["solver"].get("courant", 1.0)
    for points in set(grids):
        rows = [i for i, g in enumerate(grids) if g == points]
        simulator = build_simulator(recipe, [draws[i] for i in rows], points, device=device)
        own = fields[rows]  # extremes are the same on every grid that resolves the field
        advisable[rows] = simulator.step_needed(own, 1.0).cpu()
        wanted[rows] = advisable[rows] if courant == 1.0 else simulator.step_needed(own, courant).cpu()
    return [Plan(g, n) for g, n in zip(grids, _count_steps(recipe, draws, advisable, wanted), strict=True)]


def check_before_starting(recipe: DatasetRecipe, device: torch.device | None = None) -> None:
    """Plan the first trajectories of every split: settings that cannot work are refused before anything is written.

    Raises:
        ResolutionError: grids or steps that resolve nothing, or more steps than could ever be made.
        DataError: more memory than there is.
    """
    _check_size(recipe)
    for split, entry in recipe.splits.items():
        if entry["size"]:
            count = min(entry["size"], CHECKED, max(1, CHECKED_VALUES // math.prod(_probe(recipe))))
            plan(recipe, [draw(recipe, split, k) for k in range(count)], device)


def check_shards(recipe: DatasetRecipe) -> None:
    """Refuse more shards than a manifest can list.

    Raises:
        DataError: with the shard size that would do.
    """
    total = sum(split["size"] for split in recipe.splits.values())
    if total > MOST_SHARDS * recipe.shard_size:
        raise DataError(
            f"{recipe.name}: {total} trajectories in shards of {recipe.shard_size} are more than {MOST_SHARDS} files. "
            f"Use shard_size {-(-total // MOST_SHARDS)} or more, or a smaller size."
        )


def _check_size(recipe: DatasetRecipe) -> None:
    """Refuse what does not fit into memory before it is allocated, with the number that would do."""
    check_shards(recipe)
    count = min(recipe.shard_size, max([split["size"] for split in recipe.splits.values()], default=1)) or 1
    frames, room = recipe.observation["frames"], available_memory()
    # A run as observed: as the solver gives it and joined with others, and with noise in double precision.
    values = frames * math.prod(recipe.observed) * len(recipe.simulator.field_names)
    finest = max([math.prod(grid) for grid in recipe.grids() or []], default=math.prod(recipe.observed))
    noisy = any(recipe.noise(recipe.simulator.field_names))
    run, working = (20 if noisy else 8) * values, 16 * 8 * finest
    if max(run, working, 8 * frames) > room:
        what = "solver.points" if working > run else "observation.frames"
        held = finest if working > run else frames
        most = max(2, int(held * room / max(run, working, 8 * frames)) // 2)
        raise DataError(
            f"{recipe.name}: one trajectory of {frames} frames of {'x'.join(map(str, recipe.observed))} points needs "
            f"{readable_size(max(run, working))}, {readable_size(room)} are available. Lower {what} to at most "
            f"{most}{' in all' if working > run and recipe.dimensions > 1 else ''}, or observation.points."
        )
    if count * run > room:
        raise DataError(
            f"{recipe.name}: a shard of {count} trajectories needs {readable_size(count * run)} while it is made, "
            f"{readable_size(room)} are available. Use shard_size {max(1, int(room / run) // 2)} or less."
        )


def _check_steps(recipe: DatasetRecipe, step: Tensor, interval: Tensor) -> None:
    """Refuse more inner steps than could ever be made."""
    per_frame = interval / step
    worst = int(per_frame.argmax())
    total = float(per_frame[worst]) * (recipe.observation["frames"] - 1)
    if not total <= MOST_STEPS:
        o = recipe.observation
        given = [key for key in ("time_step", "courant") if key in recipe.content["solver"]]
        end = o["start"] + (o["end"] - o["start"]) * MOST_STEPS / total
        raise ResolutionError(
            f"{recipe.name}: a trajectory that is drawn needs {total:.3g} steps of {float(step[worst]):.3g} from time "
            f"{o['start']:g} to {o['end']:g}; at most {MOST_STEPS:.0e} are made. Use observation.end {end:.3g} or less"
            f"{f', or a larger solver.{given[0]}' if given else ''}."
        )


def _probe(recipe: DatasetRecipe) -> tuple[int, ...]:
    """Return the grid on which fields are looked at to find what resolves them."""
    highest = recipe.initial_condition.highest
    enough = 1 << (4 * highest).bit_length() if highest else 0
    return (max(256 if recipe.dimensions == 1 else 64, enough),) * recipe.dimensions


def _choose_grids(
    recipe: DatasetRecipe, draws: Sequence[Draw], fields: Tensor, lengths: Tensor, needed: Tensor
) -> list[tuple[int, ...]]:
    highest, observed = recipe.initial_condition.highest, recipe.observed
    candidates = recipe.grids() or [
        tuple(n * m for n in observed) for m in LADDER if all(n * m >= 8 and n * m % 2 == 0 for n in observed)
    ]
    # What is needed is counted along the longest axis; a shorter one needs as many fewer points.
    per_axis = needed[:, None] * lengths / lengths.amax(dim=1, keepdim=True)
    if highest is not None:
        per_axis = per_axis.clamp_min(3 * highest + 1)
    if not recipe.content["solver"].get("check_resolution", True) and recipe.grids():
        return [candidates[-1]] * len(draws)
    wanted = per_axis.tolist()
    fitting = [
        [g for g in candidates if all(n >= w * (1 - 1e-9) for n, w in zip(g, row, strict=True))] for row in wanted
    ]
    if not all(map(math.isfinite, per_axis.flatten().tolist())):
        raise ResolutionError(
            f"{recipe.name}: no number of points resolves a trajectory that is drawn: fields or domain.length leave "
            "what can be computed with. Choose units in which they are near 1."
        )
    if not all(fitting):
        row = max((i for i, grids in enumerate(fitting) if not grids), key=lambda i: math.prod(wanted[i]))
        numbers = ", ".join(f"{n} {v:.4g}" for n, v in draws[row].parameters.items())
        # Enough for all that are drawn: one refusal, not one after another.
        units = [n if n % 2 == 0 else 2 * n for n in observed]
        most = per_axis.amax(dim=0).tolist()
        advice = "x".join(str(math.ceil(w / unit) * unit) for w, unit in zip(most, units, strict=True))
        raise ResolutionError(
            f"{recipe.name}: {'x'.join(map(str, candidates[-1]))} points do not resolve a trajectory that is drawn "
            f"({numbers}, field from {float(fields[row].min()):.3g} to {float(fields[row].max()):.3g}): it needs "
            f"{'x'.join(str(math.ceil(w)) for w in wanted[row])}. Set solver.points to 'auto' or at least {advice}, or "
            f"smooth the initial fields, or raise the parameters. solver.check_resolution: false runs it all the same."
        )
    return [grids[0] for grids in fitting]


def _count_steps(recipe: DatasetRecipe, draws: Sequence[Draw], advisable: Tensor, wanted: Tensor) -> list[int]:
    """Return the inner steps per frame of each trajectory, given the step at courant = 1 and the recipe's, (B,)."""
    times, solver = recipe.times, recipe.content["solver"]
    interval = times[1] - times[0]
    scale = torch.tensor([d.time_scale for d in draws], dtype=torch.float64)
    step = torch.full_like(wanted, float(solver["time_step"])) if "time_step" in solver else wanted
    _check_steps(recipe, step, interval * scale)
    taken = torch.minimum(step, interval * scale)
    ratio = taken / advisable
    worst = int(ratio.argmax())
    longest = min(LONGEST_STEP, recipe.simulator.largest_courant)
    if solver.get("check_resolution", True) and float(ratio[worst]) > longest:
        key = "time_step" if "time_step" in solver else "courant"
        advice = f"{float(advisable.min()):.3g}" if key == "time_step" else "1"
        raise ResolutionError(
            f"{recipe.name}: solver.{key} {solver[key]:g} makes inner steps of {float(taken[worst]):.3g}, "
            f"{float(ratio[worst]):.1f} times what is advisable for a trajectory that is drawn. Use at most {advice} "
            f"(or leave it out). solver.check_resolution: false runs it all the same."
        )
    counts = [max(1, math.ceil(float(i) / s - 1e-9)) for i, s in zip(interval * scale, step.tolist(), strict=True)]
    return [next((m for m in LADDER if m >= n), n) for n in counts]
