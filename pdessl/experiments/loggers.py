"""TensorBoard and Weights & Biases beside the curves of a run, by a short name; they are extras of the package."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from pdessl.errors import PdesslError

__all__ = ["with_loggers"]

# Short name -> (class of Lightning, what it needs).
_KNOWN = {"tensorboard": ("TensorBoardLogger", "tensorboard"), "wandb": ("WandbLogger", "wandb")}
_PACKAGE = "lightning.pytorch.loggers"


def with_loggers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which ``trainer.logger: tensorboard`` or ``wandb``, or a list of them, is the class they mean.

    TensorBoard writes to the folder ``tensorboard`` of the run; W&B to the project ``pdessl``, with its files in the
    run's folder. Lightning's own spelling, ``{class_path: ..., init_args: ...}``, and true or false are kept.

    Args:
        content: the recipe, complete but for its defaults.

    Raises:
        PdesslError: a logger whose package is not installed.
    """
    trainer = content.get("trainer")
    if not isinstance(trainer, Mapping) or "logger" not in trainer:
        return dict(content)
    out = os.path.abspath(str(content.get("out") or "runs/pretraining"))
    given = trainer["logger"]
    loggers = [_spelt(entry, out) for entry in given] if isinstance(given, list) else _spelt(given, out)
    return {**content, "trainer": {**trainer, "logger": loggers}}


def _spelt(entry: Any, out: str) -> Any:
    named = entry.get("class_path", "") if isinstance(entry, Mapping) else entry
    if not isinstance(named, str):
        return entry
    short = next((n for n, (kind, _) in _KNOWN.items() if named in (n, kind, f"{_PACKAGE}.{kind}")), None)
    if short is None:
        return entry
    kind, needed = _KNOWN[short]
    if importlib.util.find_spec(needed) is None:
        raise PdesslError(f"trainer.logger: {named} needs the package '{needed}': pip install 'pdessl[{short}]'")
    if isinstance(entry, Mapping):
        return entry
    where = {"name": "", "version": "tensorboard"} if short == "tensorboard" else {"project": "pdessl"}
    return {"class_path": f"{_PACKAGE}.{kind}", "init_args": {"save_dir": out, **where}}
