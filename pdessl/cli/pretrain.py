"""``pdessl pretrain``: train an encoder without labels, from a recipe of the catalog."""

from __future__ import annotations

from collections.abc import Sequence

from pdessl.errors import PdesslError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse with LightningCLI, fit, print where the encoder is."""
    if not arguments:
        raise PdesslError("pdessl pretrain needs a recipe: --config NAME ('pdessl list configs' prints them).")
    from pdessl.experiments.pretraining import run_words

    run = run_words(arguments)
    package = type(run.task.encoder.module).__module__.partition(".")[0]
    trusted = "" if package in ("pdessl", "torch") else f", allow=('{package}',)"
    print(f"{run.folder}: encoder saved; pdessl.load('{run.folder}'{trusted}) reads it")
    return 0
