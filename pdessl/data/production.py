"""One shard: simulated, written, and described for the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pdessl.data.recipe import DatasetRecipe
from pdessl.data.shards import entry_of, write_shard
from pdessl.data.simulation import SimulatedShard, find_device, simulate_shard, threads

__all__ = ["make_shard"]


def make_shard(
    recipe: DatasetRecipe,
    folder: Path,
    split: str,
    start: int,
    count: int,
    device: str | torch.device,
    workers: int | None = None,
) -> dict[str, Any]:
    """Simulate trajectories ``start`` to ``start + count - 1`` of a split, write their shard, return its entry."""
    found = find_device(device)
    with threads(found, workers) as pool:
        shard = simulate_shard(recipe, split, list(range(start, start + count)), found, pool)
    labels = recipe.splits[split]["labels"]
    trajectories = shard.trajectories if labels else shard.trajectories.without_parameters()
    path = folder / f"{split}-{start // recipe.shard_size:05d}.nc"
    write_shard(path, trajectories, recipe, split, start)
    return _entry(path, start, shard)


def _entry(path: Path, start: int, shard: SimulatedShard) -> dict[str, Any]:
    fields = shard.trajectories.fields.to("cpu", torch.float64)
    summary = {}
    for channel, name in enumerate(shard.trajectories.field_names):
        values = fields[:, channel]
        summary[name] = {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "mean_square": float(values.square().mean()),
        }
    return {
        **entry_of(path, start, len(shard.trajectories)),
        "rejected_draws": shard.rejected,
        "blown_up_draws": shard.blown_up,
        "solver_points": dict(sorted(shard.grids.items())),
        "spectral_tail": {"largest": max(shard.tails), "above_1e-3": sum(t > 1e-3 for t in shard.tails)},
        "fields": summary,
    }
