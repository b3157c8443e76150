"""The scale a parameter is regressed on; and whether fields have the size that the views of an equation suppose."""

from __future__ import annotations

from typing import Any

import lightning
import sympy
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from pdessl.augmentation import LieAugmentation
from pdessl.data import PDEDataModule, Store
from pdessl.data.statistics import far_from_zero
from pdessl.equations import load_equation
from pdessl.errors import CatalogError

__all__ = ["ScaleCheck", "declared_scale", "out_of_scale"]

DROWNED = 100.0  # deviation of views over that of the data, beyond any that a symmetry of the right scale leads to
_ROWS = 16


def declared_scale(data: PDEDataModule, name: str) -> str:
    """Return the scale a parameter is regressed on: ``log`` where dataset or equation say so, else ``linear``.

    The dataset says so by drawing the parameter log-uniformly, the equation's file by ``positive: true``.
    """
    store = data.store
    if isinstance(store, Store):
        parameters: Any = store.manifest["recipe"].get("parameters")
        declared = parameters.get(name) if isinstance(parameters, dict) else None
        if isinstance(declared, dict) and declared.get("distribution") in ("log_uniform", "log_spaced"):
            return "log"
    try:
        equation = load_equation(store.equation) if store.equation else None
    except CatalogError:
        return "linear"
    positive = {} if equation is None else {equation.parameter_names[letter] for letter in equation.positive}
    return "log" if name in positive else "linear"


def out_of_scale(views: Any, data: PDEDataModule) -> list[str]:
    """Return what makes a pretraining pointless before it begins: fields far from 0, or drowned by their views.

    Boosts and shears add to a field what moves the window by a part of itself, that is, multiples of its length over
    its duration. Of data in another unit, or rescaled, nothing is left beside that.

    Args:
        views: what makes views of a batch, or None.
        data: set up; some of its training windows are looked at.
    """
    found = far_from_zero(data.statistics)
    if found or not isinstance(views, LieAugmentation):
        return found
    batch = data.sample(_ROWS)
    with torch.no_grad():
        seen = views(batch, torch.Generator(batch.fields.device).manual_seed(0))[0]
    length = float((batch.grid_spacing * torch.tensor([x.shape[1] for x in batch.space])).amax())
    speed = length / float((batch.time[:, -1] - batch.time[:, 0]).amax().clamp_min(1e-300))
    for channel, name in enumerate(batch.field_names):
        own, shown = (f[:, channel].double().std(correction=0).item() for f in (batch.fields, seen.fields))
        at_zero = {f.name: f.generator.expressions().get(name, sympy.Integer(0)).subs(name, 0) for f in views.factors}
        added = [factor for factor, rest in at_zero.items() if rest != 0]
        if shown > DROWNED * own > 0 and added:
            found.append(
                f"field {name} has a deviation of {own:.3g}, its views one of {shown:.3g}: {', '.join(added)} add what "
                f"belongs to a velocity of length over duration of the window, {speed:.3g}, and {name} drowns in it. "
                f"Bring {name}, time and space to one system of units, or leave these views out (strength 0)."
            )
    return found


class ScaleCheck(Callback):
    """Warn of what :func:`out_of_scale` finds, before the first step."""

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the data module's training part, on the first process."""
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, PDEDataModule) and hasattr(pl_module, "views"):
            for line in out_of_scale(pl_module.views(), data):
                rank_zero_warn(line)
