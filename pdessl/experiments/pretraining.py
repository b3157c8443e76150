"""``pdessl pretrain``: train an encoder without labels, from a recipe of the catalog."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from pdessl import catalog
from pdessl.errors import CatalogError, PdesslError, did_you_mean
from pdessl.schema import merge

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

__all__ = ["TASKS", "PretrainingRun", "default_precision", "pretrain", "run_words"]

TASKS = ("Pretraining", "TemporalPrediction", "MaskedPrediction")

_DESCRIPTION = """Train an encoder on unlabelled runs: on pairs of views made by the symmetries of the equation, by
predicting the latent of the next window, or of hidden blocks.

A recipe names the task, and gives its settings (model), the data (data) and the trainer; every field can be changed on
the command line. 'pdessl list objectives' says which objective is for what.
  pdessl pretrain --config burgers_vicreg --data data/burgers
  pdessl pretrain --config burgers_vicreg --data.path data/burgers --trainer.max_epochs 1 --out runs/short
  pdessl pretrain --config burgers_vicreg --data.stream burgers   simulated while training: no run is seen twice
  pdessl pretrain --config burgers_vicreg --print_config          the recipe, complete, ready to run
  pdessl pretrain --config burgers_jepa --preset full --data.path data/burgers --monitor.stop_on_collapse true
  pdessl pretrain --config burgers_vicreg --data.path data/burgers --out runs/short --ckpt_path runs/short/last.ckpt
                                                                  goes on where a killed run stopped
The run's folder (--out) then holds the encoder for pdessl.load, the curves (history.json), and last.ckpt for resuming.
In Python: pdessl.experiments.pretraining.pretrain("burgers_vicreg", ["--data.path", "data/burgers"])"""


def _read_recipes(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Read the recipes after --config, lay their preset over them, and find the task.

    Returns:
        the words with each recipe in place of its name (so that names work from an installed wheel), and the name of
        the task: the last of what --task and the recipes say.
    """
    words, preset = _take(list(map(str, arguments)), "--preset")
    task, known = "Pretraining", []
    read: list[str] = []
    for name, value in _pairs(words):
        if name in ("--config", "-c") and value is not None:
            content = catalog.read("configs", value) if not Path(value).is_file() else catalog.read_yaml(value)
            presets = content.pop("presets", {})
            known += presets
            content = merge(content, presets.get(preset, {}))
            task = str(content.get("task", task))
            read += [name, json.dumps(content)]
            continue
        task = value if name == "--task" and value is not None else task
        name = "--data.path" if name == "--data" and value is not None else name
        read += [name] if value is None else [f"{name}={value}"] if name.startswith("--") else [name, value]
    if preset is not None and preset not in known:
        names = ", ".join(known) or "none"
        raise CatalogError(f"the recipe has no preset '{preset}'.{did_you_mean(preset, known)} Presets: {names}.")
    if task not in TASKS:
        raise CatalogError(f"no task '{task}'.{did_you_mean(task, TASKS)} Tasks: {', '.join(TASKS)}.")
    return read, task


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Split words into options with their values (None for a word that stands alone)."""
    i = 0
    while i < len(words):
        name, equals, value = words[i].partition("=")
        follows = i + 1 < len(words) and not words[i + 1].startswith("--")
        if name.startswith("-") and equals:
            yield name, value
        elif name.startswith("-") and follows:
            yield name, words[i + 1]
            i += 1
        else:
            yield words[i], None
        i += 1


def _take(words: list[str], option: str) -> tuple[list[str], str | None]:
    """Remove an option of ours from the words, and return its value."""
    rest: list[str] = []
    found = None
    for name, value in _pairs(words):
        if name == option:
            if value is None:
                raise PdesslError(f"pdessl pretrain: {option} needs a name.")
            found = value
        else:
            rest += [name] if value is None else [f"{name}={value}"] if name.startswith("--") else [name, value]
    return rest, found


def _streams(words: Sequence[str]) -> bool:
    """Whether runs are simulated while training instead of read: --data.stream, or the same in a recipe."""
    return any(
        name == "--data.stream"
        or (name in ("--config", "-c") and "stream" in (json.loads(value or "{}").get("data") or {}))
        for name, value in _pairs(words)
    )


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


def _command_line(arguments: list[str], task: str) -> LightningCLI:
    import torch
    from jsonargparse import ArgumentError, Namespace
    from lightning.pytorch.cli import LightningCLI

    import pdessl.augmentation

    # Imported so that recipes may name the classes of these packages without their path.
    import pdessl.models
    import pdessl.objectives
    import pdessl.tasks
    from pdessl.data import PDEDataModule, StreamingDataModule
    from pdessl.experiments.from_data import complete, first_view

    class PretrainingCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--task", type=Literal[TASKS], default=task, help="what is trained, see pdessl.tasks")
            parser.add_lightning_class_args(pdessl.tasks.CollapseAlarm, "monitor")
            parser.add_argument(
                "--average_weights",
                type=int,
                default=0,
                metavar="EPOCHS",
                help="save the mean of the encoder's weights over the last epochs; 0: the last weights",
            )
            parser.add_argument(
                "--best",
                type=str | None,
                default=None,
                metavar="MONITOR",
                help="save the encoder of the epoch in which a label-free monitor was highest, e.g. monitor/lidar",
            )
            parser.add_argument("--compile", type=bool, default=False, help="compile the encoder (torch.compile)")
            parser.add_argument("--out", type=str, default="runs/pretraining", help="folder of the run")
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="last.ckpt of a run to continue")
            parser.add_argument(
                "--any_version", type=bool, default=False, help="continue what another version of pdessl or torch wrote"
            )

        def parse_arguments(self, parser: Any, args: Any) -> None:
            self.config: Namespace = parser.parse_args(args)

        def before_instantiate_classes(self) -> None:
            trainer = self.config["trainer"]
            if trainer["precision"] is None:
                trainer["precision"] = default_precision(trainer["accelerator"], torch.cuda.is_available())
            model = self.config["model"]
            complete(model, first_view(data_module, self.config["data"], model.get("augmentation")))

    data_module = StreamingDataModule if _streams(arguments) else PDEDataModule
    defaults = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return PretrainingCLI(
            getattr(pdessl.tasks, task),
            data_module,
            args=arguments,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults=defaults,
            parser_kwargs={"exit_on_error": False, "prog": "pdessl pretrain", "description": _DESCRIPTION},
        )
    except ArgumentError as error:
        said = " ".join(str(error).split())
        if "No module named" in said:
            said += " Python must find a class of your own: PYTHONPATH=FOLDER pdessl pretrain ..."
        raise PdesslError(f"pdessl pretrain: {said}") from None


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
        ckpt_path: checkpoint of the same task to continue. Where it is damaged, the one before it is read, which is
            said; one that another version of pdessl, torch or Lightning wrote needs ``--any_version true``.

    Returns:
        The run; ``pdessl.load(run.folder)`` gives the encoder.

    Raises:
        CatalogError: no such recipe.
        CheckpointError: the checkpoint is of another task, network or version, or damaged (as the one before it is).
        PdesslError: a field of the recipe that does not exist or has the wrong type.
    """
    words = [] if config is None else ["--config", str(config)]
    words += [str(w) for w in overrides]
    words += [] if out is None else ["--out", str(out)]
    words += [] if ckpt_path is None else ["--ckpt_path", str(ckpt_path)]
    return run_words(words)


def run_words(words: Sequence[str]) -> PretrainingRun:
    """Pretrain as the words of a command line say."""
    return _fit(_command_line(*_read_recipes(words)))


def _fit(cli: LightningCLI) -> PretrainingRun:
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.pytorch.callbacks import ModelCheckpoint

    from pdessl.experiments.training import Curves, interruptible
    from pdessl.tasks import WholeCheckpoints
    from pdessl.tasks.checkpointing import check_checkpoint

    folder = Path(cli.config["out"])
    resumed = cli.config["ckpt_path"]
    if resumed:
        resumed = check_checkpoint(resumed, cli.model, cli.config["any_version"])
    folder.mkdir(parents=True, exist_ok=True)
    _check_saving(cli.model, cli.config["model"]["encoder"], folder)
    curves = Curves(folder)
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = _best(cli.config, folder)
    callbacks: list[Any] = [] if best is None else [best]
    if cli.config["average_weights"]:
        from pdessl.tasks import AverageWeights

        callbacks.append(AverageWeights(cli.config["average_weights"]))
    # The checkpoint is written after the curves of the epoch are complete, so that a resumed run continues them.
    cli.trainer.callbacks += [*callbacks, curves, last]
    strategy = cli.trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:  # unless the recipe chose another
        strategy.checkpoint_io = WholeCheckpoints()
    compiled = _compiled(cli.model.encoder.module) if cli.config["compile"] else nullcontext()
    with interruptible(), compiled:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed, weights_only=True)
    if best is not None and best.best_model_path:
        import torch

        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        cli.model.load_state_dict(state["state_dict"])
    if cli.trainer.is_global_zero:
        recipe = json.loads(cli.parser.dump(cli.config, format="json", skip_validation=True))
        cli.model.save_encoder(folder / "encoder", {"recipe": recipe})
    return PretrainingRun(folder, curves.curves, cli.model)


def _check_saving(task: Any, settings: Any, folder: Path) -> None:
    """Save an encoder from outside pdessl once before it is trained: what cannot be loaded back is told in time.

    Unless it keeps its arguments itself (``init_args``), they are those of the recipe, if they are plain values.
    """
    encoder = task.encoder.module
    if _package(encoder) == "pdessl":
        return
    if not hasattr(encoder, "init_args") and settings["class_path"].rpartition(".")[2] == type(encoder).__name__:
        given = settings.get("init_args")
        arguments = {} if given is None else given.as_dict()
        if not any(isinstance(value, Mapping) and "class_path" in value for value in arguments.values()):
            encoder.init_args = arguments
    with TemporaryDirectory(dir=folder) as trial:
        task.save_encoder(trial)


def _package(module: Any) -> str:
    return type(module).__module__.partition(".")[0]


@contextmanager
def _compiled(encoder: Any) -> Iterator[None]:
    """Compile what tasks call of an encoder. ``encoder.compile()`` would leave tokens and trunk as they are."""
    import torch

    methods = [name for name in ("forward", "trunk", "tokens", "trunk_and_tokens") if hasattr(encoder, name)]
    for name in methods:
        setattr(encoder, name, torch.compile(getattr(encoder, name)))
    try:
        yield
    finally:
        for name in methods:
            delattr(encoder, name)


def _best(config: Any, folder: Path) -> Any:
    """A checkpoint of the epoch in which a monitor was highest; probes see labels and may not choose."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    name = config["best"]
    if name is None:
        return None
    if not name.startswith(("monitor/", "train/")):
        raise PdesslError(
            f"--best {name}: expected a label-free monitor such as monitor/lidar or monitor/rank_me; a probe sees "
            "labels, and choosing by it would leak them."
        )
    if config["average_weights"]:
        raise PdesslError("--best and --average_weights exclude each other: choose one epoch, or the mean of the last.")
    return ModelCheckpoint(
        dirpath=folder, filename="best", monitor=name, mode="min" if name == "train/loss" else "max",
        enable_version_counter=False,
    )  # fmt: skip
