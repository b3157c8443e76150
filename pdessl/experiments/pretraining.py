"""``pdessl pretrain``: train an encoder without labels, from a recipe of the catalog."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from pdessl import catalog
from pdessl.errors import CatalogError, PdesslError, SchemaError, did_you_mean
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.experiments.loggers import with_loggers
from pdessl.experiments.recipes import read_recipe
from pdessl.files import writes_to
from pdessl.schema import Overrides, override

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

__all__ = ["TASKS", "PretrainingRun", "default_precision", "pretrain", "pretraining_recipe", "settings_help"]

TASKS = ("Pretraining", "TemporalPrediction", "MaskedPrediction", "WorldModel")


def default_precision(accelerator: str, cuda: bool) -> str:
    """Return bf16 with float32 weights where a GPU trains, float32 elsewhere; a recipe may say otherwise."""
    return "bf16-mixed" if cuda and str(accelerator) in ("auto", "gpu", "cuda") else "32-true"


class PretrainingRun:
    """A finished pretraining.

    Attributes:
        folder: where the encoder, the curves and the checkpoint are.
        curves: name -> one value per epoch.
        task: the trained LightningModule.
        early: what says that it ended long before its loss had settled; empty where nothing does.
    """

    def __init__(self, folder: Path, curves: dict[str, list[float]], task: Any, early: str = "") -> None:
        self.folder, self.curves, self.task, self.early = folder, curves, task, early


def _command_line(content: Mapping[str, Any], allow: Collection[str], dry: bool = False) -> LightningCLI:
    """Return task, data and trainer of a recipe; only its complete settings where ``dry``."""
    content = with_loggers(content)
    check_allowed(content, allow, "pdessl pretrain")
    import torch
    from jsonargparse import ArgumentError, Namespace
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.utilities import rank_zero_info

    import pdessl.augmentation

    # Imported so that recipes may name the classes of these packages without their path.
    import pdessl.models
    import pdessl.objectives
    import pdessl.tasks
    from pdessl.data import PDEDataModule, StreamingDataModule
    from pdessl.data.recipe import import_simulator
    from pdessl.experiments.from_data import choose_frames, complete, first_view
    from pdessl.experiments.named_classes import check_named, check_types

    data = content.get("data") or {}
    if not isinstance(data, Mapping):
        raise SchemaError(f"pdessl pretrain: data: expected a section, found {data!r:.100}.")
    task = content.get("task", TASKS[0])
    if task not in TASKS:
        raise CatalogError(f"no task '{task}'.{did_you_mean(str(task), TASKS)} Tasks: {', '.join(TASKS)}.")

    class PretrainingCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--task", type=Literal[TASKS], default=task, help="what is trained, see pdessl.tasks")
            parser.add_lightning_class_args(pdessl.tasks.CollapseAlarm, "monitor")
            parser.add_lightning_class_args(pdessl.tasks.Probes, "probe")
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
            known = {key: value for key, value in parser.get_defaults().as_dict().items() if key != "config"}
            check_named(args, known, _CLASSES, "pdessl pretrain")
            self.config: Namespace = parser.parse_object(copy.deepcopy(args))
            check_types(args, self.config.as_dict(), "pdessl pretrain")

        def before_instantiate_classes(self) -> None:
            if dry:
                return
            trainer = self.config["trainer"]
            if trainer["precision"] is None:
                trainer["precision"] = default_precision(trainer["accelerator"], torch.cuda.is_available())
            model = self.config["model"]
            for line in choose_frames(model, data_module, self.config["data"]):
                rank_zero_info(line)
            complete(model, first_view(data_module, self.config["data"], model.get("augmentation")))

        def instantiate_classes(self) -> None:
            if not dry:
                super().instantiate_classes()

    data_module = StreamingDataModule if "stream" in data else PDEDataModule
    if isinstance(simulated := data.get("stream", data.get("dataset")), str):
        import_simulator(override(catalog.read("datasets", simulated), data.get("overrides")), allow)
    defaults = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return PretrainingCLI(
            getattr(pdessl.tasks, task),
            data_module,
            args=dict(content),
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults=defaults,
            parser_kwargs={"exit_on_error": False, "prog": "pdessl pretrain"},
        )
    except ArgumentError as error:
        said = " ".join(str(error).split())
        if "No module named" in said:
            said += (
                " Python must find a class of your own: run it in the folder of the module, or set PYTHONPATH=FOLDER."
            )
        raise PdesslError(f"pdessl pretrain: {said}") from None
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        if allow or isinstance(error, PdesslError):  # of a class of the user's own they want to see where
            raise
        said = " ".join(str(error).split())[:300]
        raise PdesslError(f"pdessl pretrain: cannot make what the recipe describes: {said}") from error


# Where classes are that recipes may name without their path.
_CLASSES = ("pdessl.models", "pdessl.objectives", "pdessl.augmentation", "pdessl.tasks")


def settings_help() -> str:
    """Return every key of a pretraining recipe with its type, default and meaning, Lightning's among them."""
    return _command_line(_content("burgers_vicreg", None, None, None, None), dry=True).parser.format_help()


def pretraining_recipe(
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    ckpt_path: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    allow: Collection[str] = (),
) -> dict[str, Any]:
    """Return the complete recipe of a pretraining, every default written out; arguments as :func:`pretrain`."""
    return _written(_command_line(_content(config, overrides, out, ckpt_path, preset), allow, dry=True))


def pretrain(
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    ckpt_path: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    allow: Collection[str] = (),
) -> PretrainingRun:
    """Pretrain from a recipe and save the encoder.

    Args:
        config: recipe name from ``pdessl list configs``, a file, or its content; None: all that is needed is in
            ``overrides``.
        overrides: other values, ``{"trainer.max_epochs": 1}`` or ``["trainer.max_epochs=1"]``, see
            :func:`pdessl.schema.override`.
        out: folder of the run; default the recipe's.
        ckpt_path: checkpoint of the same task to continue. Where it is damaged, the one before it is read, which is
            said; one that another version of pdessl, torch or Lightning wrote needs ``any_version=true``.
        preset: name of a variant in the recipe.
        allow: packages and modules of your own whose classes and functions the recipe may name; importing them runs
            their code. Besides these it may name those of pdessl, ``torch.nn`` and Lightning, see
            :data:`pdessl.experiments.allowed_classes.ALLOWED`.

    Returns:
        The run; ``pdessl.load(run.folder)`` gives the encoder.

    Raises:
        CatalogError: no such recipe, preset or task.
        CheckpointError: the checkpoint is of another task, network or version, or damaged (as the one before it is).
        PdesslError: a field of the recipe that does not exist or has the wrong type, or code that is not allowed.
    """
    made = _command_line(_content(config, overrides, out, ckpt_path, preset), allow)
    return _fit(made, made.config["out"])


def _content(
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    overrides: Overrides | None,
    out: str | os.PathLike[str] | None,
    ckpt_path: str | os.PathLike[str] | None,
    preset: str | None,
) -> dict[str, Any]:
    content = override({}, overrides) if config is None else read_recipe(config, preset, overrides)
    paths = {"out": out, "ckpt_path": ckpt_path}
    return content | {key: os.fspath(path) for key, path in paths.items() if path is not None}


def _written(cli: LightningCLI) -> dict[str, Any]:
    return json.loads(cli.parser.dump(cli.config, format="json", skip_validation=True))


@writes_to("out")
def _fit(cli: LightningCLI, out: str) -> PretrainingRun:
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.pytorch.callbacks import ModelCheckpoint

    from pdessl.experiments.latent_forecasts import save_predictor
    from pdessl.experiments.scales import ScaleCheck
    from pdessl.experiments.training import Curves, ProgressLines, in_own_folder, interruptible, stopped_early
    from pdessl.experiments.world import save_world
    from pdessl.tasks import TemporalPrediction, WholeCheckpoints, WorldModel
    from pdessl.tasks.checkpointing import check_checkpoint

    folder = Path(out)
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
    lines = [] if cli.trainer.progress_bar_callback is not None and sys.stdout.isatty() else [ProgressLines()]
    cli.trainer.callbacks += [*callbacks, ScaleCheck(), *lines, curves, last]
    strategy = cli.trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:  # unless the recipe chose another
        strategy.checkpoint_io = WholeCheckpoints()
    compiled = _compiled(cli.model.encoder.module) if cli.config["compile"] else nullcontext()
    with interruptible(), in_own_folder(), compiled:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed, weights_only=True)
    if best is not None and best.best_model_path:
        import torch

        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        cli.model.load_state_dict(state["state_dict"])
    if cli.trainer.is_global_zero:
        cli.model.save_encoder(folder / "encoder", {"recipe": _written(cli)})
        if isinstance(cli.model, WorldModel):
            save_world(folder, cli.model, cli.datamodule, {"recipe": _written(cli)})
        elif isinstance(cli.model, TemporalPrediction):
            save_predictor(folder, cli.model, cli.config["model"]["predictor"], _written(cli))
    early = stopped_early(curves.curves.get("train/loss", ()), int(cli.trainer.global_step))
    return PretrainingRun(folder, curves.curves, cli.model, early)


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
    """Compile what tasks call of an encoder. ``encoder.compile()`` would leave the other methods as they are."""
    import torch

    from pdessl.models import RepresentationNetwork, TokenNetwork

    called = {"forward": encoder.forward}
    if isinstance(encoder, RepresentationNetwork):
        called["represent"] = encoder.represent
    if isinstance(encoder, TokenNetwork):
        called["tokens"] = encoder.tokens
    for name, method in called.items():
        setattr(encoder, name, torch.compile(method))
    try:
        yield
    finally:
        for name in called:
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
