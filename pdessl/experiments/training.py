"""What the training verbs share: curves kept with the run, a quiet trainer, Ctrl-C as Ctrl-C."""

from __future__ import annotations

import logging
import math
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from pdessl.files import write_json

__all__ = ["Curves", "interruptible", "quietly"]


class Curves(Callback):
    """Keeps every number logged per epoch, in the checkpoint and in ``history.json``.

    Args:
        folder: where ``history.json`` is written after every epoch; None keeps the curves in memory only.

    Attributes:
        curves: name -> one value per epoch (NaN where it was not logged); ``epoch`` counts from 1.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.curves: dict[str, list[float]] = {"epoch": []}

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Append what was logged in this epoch (validation, if any, has run by now)."""
        done = len(self.curves["epoch"])
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
        for name in values:
            self.curves.setdefault(name, [math.nan] * done)
        for name, curve in self.curves.items():
            curve.append(trainer.current_epoch + 1 if name == "epoch" else values.get(name, math.nan))
        if self.folder is not None and trainer.is_global_zero:
            write_json(self.folder / "history.json", self.curves)

    def state_dict(self) -> dict[str, Any]:
        """Return the curves so far."""
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curves of a resumed run."""
        self.curves = {name: list(values) for name, values in state_dict["curves"].items()}


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C inside a fit a KeyboardInterrupt again: Lightning makes it exit code 1 and ignores later ones."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        raise


@contextmanager
def quietly() -> Iterator[None]:
    """Silence what Lightning says about hardware, loaders and loggers in runs made by another program."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
