"""The recipe of a pretraining for whom none was named: chosen from what the data are."""

# N runs, T frames, X space

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdessl import catalog
from pdessl.augmentation import LieAugmentation
from pdessl.data import open as open_data
from pdessl.data.selection import Selection
from pdessl.data.source import Source
from pdessl.data.splits import ALIASES, assign_roles
from pdessl.errors import DataError, PdesslError
from pdessl.experiments.provenance import check_writable
from pdessl.files import write_text
from pdessl.schema import dump_yaml

__all__ = ["chosen_recipe", "recipe_for"]

_FEW = 200  # runs, below which none are set aside: regress leaves out labelled ones in turn
_MOST_POINTS = {1: 256, 2: 64, 3: 32}  # nodes of a view along an axis
_STEPS = {1: 300, 2: 120, 3: 60}  # on two cores about a minute
_FRAMES = {1: 16, 2: 8, 3: 4}  # of a view
_WIDTH = {1: 16, 2: 8, 3: 8}
_FEWEST = 8  # runs


def recipe_for(
    data: str | os.PathLike[str], changes: Mapping[str, Any], out: str | os.PathLike[str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the recipe for data and lines that say what it is; write it to ``recipe.yaml`` in ``out``.

    Args:
        data: store or files.
        changes: of the recipe, ``{"section.key": value}``; those of ``data.mapping`` say how files are read.
        out: folder of the run; None: nothing is written.

    Raises:
        DataError: see :func:`chosen_recipe`.
        StoreError: a folder that cannot be written.
    """
    mapping = changes.get("data.mapping")
    content, lines = chosen_recipe(data, mapping)
    content["data"]["path"] = os.fspath(data)
    if out is None:
        return content, lines
    path = Path(out) / "recipe.yaml"
    check_writable(Path(out))
    said = ("Chosen by pdessl pretrain for these data; change what you like.", *lines)
    head = "".join(f"# {line}\n" for line in said)
    write_text(path, head + dump_yaml(content))
    return content, [*lines, f"recipe: {path}; change it and run  pdessl pretrain --config {path} --out {out}"]


def chosen_recipe(
    data: str | os.PathLike[str] | Source, mapping: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe for ``pdessl pretrain`` on these data, and why it is what it is, a line each.

    Any field in one, two or three dimensions, periodic or not. Two views of a run agree (VICReg). Where the data name
    an equation of the catalog, views are made by its symmetries; else they are windows of the run at other times,
    which is right for every law that does not change in time.

    Args:
        data: store or files.
        mapping: how files are read.

    Raises:
        DataError: fewer than eight runs, or runs of fewer than four frames.
    """
    source = data if isinstance(data, Source) else open_data(data, mapping)
    splits = _splits(source)
    pool = assign_roles(source, splits)["unlabelled"]
    count, space = len(pool), pool.of_equal_shape()[0].shape[2:]
    frames = _frames(pool, source)
    if count < _FEWEST:
        raise DataError(
            f"{source.name} has {count} runs to pretrain on; expected {_FEWEST} or more. With so few labelled runs, "
            f"hand-made features and the law of the runs need no pretraining: pdessl regress --data {source.name}"
        )
    points = [min(n, _MOST_POINTS[min(len(space), 3)]) for n in space]
    axes = min(len(space), 3)
    window = max(2, min(_FRAMES[axes], frames // 2))
    batch = min(32 if axes == 1 else 16, count)
    epochs = math.ceil(_STEPS[axes] / (count // batch))
    augmentation, views = _views(source, pool, window, points)
    content: dict[str, Any] = {
        "model": {
            "encoder": {
                "class_path": "pdessl.models.ConvEncoder",
                "init_args": {"width": _WIDTH[axes], "blocks": [1, 1, 1], "pool": "last"},
            },
            "projector": {
                "class_path": "pdessl.models.Projector",
                "init_args": {"in_features": 8 * _WIDTH[axes], "hidden": [128], "out_features": 64},
            },
            "objective": {"class_path": "pdessl.objectives.VICReg"},
            "augmentation": augmentation,
            "learning_rate": 2e-3,
            "weight_decay": 1e-4,
        },
        "data": {"path": source.name, "batch_size": batch},
        "trainer": {
            "max_epochs": epochs,
            "gradient_clip_val": 100.0,
            "check_val_every_n_epoch": max(1, epochs // 10),
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
        },
        "presets": {
            "quick": {"trainer": {"max_epochs": max(1, epochs // 8)}},
            "long": {"trainer": {"max_epochs": 5 * epochs}},
        },
    }
    if splits:
        content["data"]["splits"] = splits
    if mapping is not None:
        content["data"]["mapping"] = mapping
    lengths = {part.shape[1] for part in pool.of_equal_shape()}
    if len(lengths) > 1:
        content["data"]["crop"] = {"frames": frames}
    shape = " x ".join(map(str, (max(lengths), *space)))
    boundary = ", ".join(f"{a} {k}" for a, k in zip(source.axis_names, source.boundary, strict=True))
    lines = [
        f"data: {count} runs of {shape} (frames, {', '.join(source.axis_names)}), {', '.join(source.field_names)}; "
        f"{boundary}",
        f"views: {views}",
        f"training: {epochs} epochs of {count // batch} steps of {batch} runs; --preset quick or long for less or more",
    ]
    return content, lines


def _splits(source: Source) -> dict[str, float | str] | None:
    """Return what is set aside: nothing of a few runs without splits of their own."""
    named = [n for role in ("validation", "test") for n in ALIASES[role] if source.splits.get(n)]
    if named or any(n in source.splits for n in ("unlabelled", "labelled")) or len(source) >= _FEW:
        return None
    return {"validation": 0.0, "test": 0.0}


def _frames(pool: Selection, source: Source) -> int:
    """Return the frames that a batch has: of runs of different lengths those of the shortest, unless it is a stump."""
    lengths = [part.shape[1] for part in pool.of_equal_shape()]
    frames = min(n for n in lengths if 2 * n >= max(lengths))
    if frames < 4:
        raise DataError(f"{source.name} has runs of {frames} frames; expected 4 or more, for two views of each.")
    return frames


def _views(source: Source, pool: Selection, frames: int, points: list[int]) -> tuple[Mapping[str, Any], str]:
    """Return class and arguments of what makes views, and that in words."""
    why = "no equation is named"
    if source.equation is not None:
        why = f"{source.equation} is not in the catalog"
        if source.equation in catalog.names("symmetries"):
            arguments = {"algebra": source.equation, "window": [frames, *points]}
            try:
                made = LieAugmentation(**arguments)
                made(source.load(pool.splits[pool.split[0]], pool.rows[:1]).without_parameters(source.constants))
            except PdesslError as error:
                why = f"the symmetries of {source.equation} cannot be used here: {error}"
            else:
                names = ", ".join(factor.name for factor in made.factors) or "none"
                found = {"class_path": "pdessl.augmentation.LieAugmentation", "init_args": arguments}
                return found, f"symmetries of {source.equation} ({names}) and windows of {frames} frames"
    window: dict[str, Any] = {"frames": frames}
    sizes = pool.of_equal_shape()[0].shape[2:]
    cut = any(p < n for p, n in zip(points, sizes, strict=True))
    if cut:
        window["points"] = points
    found = {"class_path": "pdessl.augmentation.RandomWindows", "init_args": window}
    return found, f"windows of {frames} frames at two times of a run ({why})"
