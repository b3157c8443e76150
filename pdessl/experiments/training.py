"""What the training verbs share: curves kept with the run, a quiet trainer, Ctrl-C as Ctrl-C."""

from __future__ import annotations

import logging
import math
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from pdessl.files import write_json
from pdessl.written import say

__all__ = ["Curves", "ProgressLines", "in_own_folder", "interruptible", "quietly", "stopped_early"]

_EVERY = 20.0  # seconds between two lines of progress
_FEW_STEPS = 50
_STILL = 0.03  # of all that a loss has fallen, in the last tenth of the epochs: it has not settled


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


class ProgressLines(Callback):
    """Print a line now and then with the loss and the time that is left: where no bar can be shown, as in a batch job.

    Args:
        every: seconds between two lines; the first comes after the second epoch, when a rate is known.
        announce: receives the lines.
    """

    def __init__(self, every: float = _EVERY, announce: Callable[[str], None] = say) -> None:
        self.every, self.announce = every, announce
        self._started = self._last = math.nan
        self._first = 0

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print, if it is time."""
        now, epoch, total = time.monotonic(), trainer.current_epoch + 1, trainer.max_epochs or 0
        if math.isnan(self._started):
            self._started, self._first = now, epoch
            return
        if not trainer.is_global_zero or (
            not math.isnan(self._last) and now - self._last < self.every and epoch < total
        ):
            return
        self._last = now
        left = (now - self._started) / (epoch - self._first) * max(total - epoch, 0)
        loss = trainer.callback_metrics.get("train/loss")
        value = "" if loss is None else f", loss {float(loss):.4g}"
        self.announce(f"epoch {epoch} of {total}{value}, {left:.0f} s left")


def stopped_early(losses: Sequence[float], steps: int) -> str:
    """Return what says that a training ended long before its loss had settled; empty where nothing does.

    Args:
        losses: one per epoch.
        steps: of the optimiser, all epochs together.
    """
    known = [value for value in losses if math.isfinite(value)]
    # A key that every recipe takes; only some have a preset that is longer.
    advice = f"Train longer: --set trainer.max_epochs={4 * max(len(losses), 1)}"
    if steps < _FEW_STEPS:
        return f"training stopped far too early: {steps} steps. {advice}"
    tenth = len(known) // 10
    if tenth < 1:
        return ""
    last, before = (sum(part) / tenth for part in (known[-tenth:], known[-2 * tenth : -tenth]))
    fallen, noise = max(known) - last, statistics.pstdev(known[-tenth:])
    if before - last > max(_STILL * fallen, 2 * noise):
        return (
            f"training stopped too early: its loss was still falling, from {before:.4g} to {last:.4g} over the last "
            f"tenth of {len(known)} epochs ({steps} steps). {advice}"
        )
    return ""


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
def in_own_folder() -> Iterator[None]:
    """Silence that the folder of checkpoints is not empty: its lock lies in it, and a run that is continued."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        yield


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
