"""``pdessl pretrain``: train an encoder without labels, from a recipe of the catalog."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdessl import catalog
from pdessl.errors import PdesslError

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

__all__ = ["PretrainingRun", "default_precision", "main", "pretrain"]

_DESCRIPTION = """Train an encoder on pairs of views of unlabelled runs, made by the symmetries of the equation.

A recipe gives the task (model), the data (data) and the trainer; every field can be changed on the command line.
  pdessl pretrain --config burgers_vicreg --data.path data/burgers
  pdessl pretrain --config burgers_vicreg --data.path data/burgers --trainer.max_epochs 1 --out runs/short
  pdessl pretrain --config burgers_vicreg --print_config          the recipe, complete, ready to run
  pdessl pretrain --config burgers_vicreg --data.path data/burgers --out runs/short --ckpt_path runs/short/last.ckpt
                                                                  goes on where a killed run stopped
The run's folder (--out) then holds the encoder for pdessl.load, the curves (history.json), and last.ckpt for resuming.
In Python: from pdessl.cli.pretrain import pretrain; pretrain("burgers_vicreg", ["--data.path", "data/burgers"])"""


def _with_recipe_paths(arguments: Sequence[str]) -> list[str]:
    """Replace a bare recipe name after --config by the path of its file, so that names work from an installed wheel."""
    words = [str(w) for w in arguments]
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-c"):
            continue
        if equals and not Path(value).is_file():
            words[i] = f"{name}={catalog.find('configs', value)}"
        elif not equals and i + 1 < len(words) and not Path(words[i + 1]).is_file():
            words[i + 1] = str(catalog.find("configs", words[i + 1]))
    return words


def default_precision(accelerator: str, cuda: bool) -> str:
    """Return bf16 with float32 weights where a GPU trains, float32 elsewhere; a recipe may say otherwise."""
    return "bf16-mixed" if cuda and str(accelerator) in ("auto", "gpu", "cuda") else "32-true"


class PretrainingRun:
    """A finished pretraining.

    Attributes:
        folder: where the encoder, the curves and the checkpoint are.
        curves: name -> one value per epoch.
        task: the trained LightningModule.
    """

    def __init__(self, folder: Path, curves: dict[str, list[float]], task: Any) -> None:
        self.folder, self.curves, self.task = folder, curves, task


def _command_line(arguments: list[str]) -> LightningCLI:
    import torch
    from jsonargparse import ArgumentError, Namespace
    from lightning.pytorch.cli import LightningCLI

    # Imported so that recipes may name the classes of these packages without their path.
    import pdessl.models
    import pdessl.objectives
    import pdessl.symmetry  # noqa: F401
    from pdessl.data.datamodule import PDEDataModule
    from pdessl.tasks import Pretraining

    class PretrainingCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--out", type=str, default="runs/pretraining", help="folder of the run")
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="last.ckpt of a run to continue")

        def parse_arguments(self, parser: Any, args: Any) -> None:
            self.config: Namespace = parser.parse_args(args)

        def before_instantiate_classes(self) -> None:
            trainer = self.config["trainer"]
            if trainer["precision"] is None:
                trainer["precision"] = default_precision(trainer["accelerator"], torch.cuda.is_available())

    defaults = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return PretrainingCLI(
            Pretraining,
            PDEDataModule,
            args=arguments,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults=defaults,
            parser_kwargs={"exit_on_error": False, "prog": "pdessl pretrain", "description": _DESCRIPTION},
        )
    except ArgumentError as error:
        raise PdesslError(f"pdessl pretrain: {' '.join(str(error).split())}") from None


def pretrain(
    config: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    ckpt_path: str | os.PathLike[str] | None = None,
) -> PretrainingRun:
    """Pretrain from a recipe and save the encoder.

    Args:
        config: recipe name from ``pdessl list configs``, or a YAML file.
        overrides: words as on the command line, ``["--trainer.max_epochs", "1"]``.
        out: folder of the run; default the recipe's.
        ckpt_path: checkpoint of the same task to continue.

    Returns:
        The run; ``pdessl.load(run.folder)`` gives the encoder.

    Raises:
        CatalogError: no such recipe.
        CheckpointError: the checkpoint is of another task.
        PdesslError: a field of the recipe that does not exist or has the wrong type.
    """
    words = [] if config is None else ["--config", str(config)]
    words += [str(w) for w in overrides]
    words += [] if out is None else ["--out", str(out)]
    words += [] if ckpt_path is None else ["--ckpt_path", str(ckpt_path)]
    return _fit(_command_line(_with_recipe_paths(words)))


def _fit(cli: LightningCLI) -> PretrainingRun:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from pdessl.cli.training import Curves, check_same_task, interruptible

    folder = Path(cli.config["out"])
    resumed = cli.config["ckpt_path"]
    if resumed:
        check_same_task(resumed, type(cli.model).__name__)
    folder.mkdir(parents=True, exist_ok=True)
    curves = Curves(folder)
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    # The checkpoint is written after the curves of the epoch are complete, so that a resumed run continues them.
    cli.trainer.callbacks += [curves, last]
    with interruptible():
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed, weights_only=True)
    if cli.trainer.is_global_zero:
        recipe = json.loads(cli.parser.dump(cli.config, format="json", skip_validation=True))
        cli.model.save_encoder(folder / "encoder", {"recipe": recipe})
    return PretrainingRun(folder, curves.curves, cli.model)


def main(arguments: Sequence[str]) -> int:
    """Parse with LightningCLI, fit, print where the encoder is."""
    if not arguments:
        raise PdesslError("pdessl pretrain needs a recipe: --config NAME ('pdessl list configs' prints them).")
    run = _fit(_command_line(_with_recipe_paths(arguments)))
    print(f"{run.folder}: encoder saved; pdessl.load('{run.folder}') reads it")
    return 0
