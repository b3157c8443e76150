"""``pdessl.pretrain``: train an encoder without labels, from objects in Python or from a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from pdessl.data import open as open_data
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import SchemaError
from pdessl.experiments.default_recipe import recipe_for
from pdessl.experiments.pretraining import PretrainingRun
from pdessl.experiments.pretraining import pretrain as pretrain_recipe
from pdessl.experiments.provenance import check_writable
from pdessl.experiments.scales import ScaleCheck
from pdessl.experiments.training import Curves, in_own_folder, interruptible
from pdessl.files import writes_to
from pdessl.models import Projector
from pdessl.schema import Overrides, override
from pdessl.tasks import Pretraining, WholeCheckpoints
from pdessl.tasks.checkpointing import check_checkpoint

__all__ = ["pretrain"]

_BATCH = 64


@writes_to("out")
def pretrain(
    data: str | os.PathLike[str] | PDEDataModule,
    encoder: nn.Module | None = None,
    objective: nn.Module | Callable[..., Any] | None = None,
    augmentation: nn.Module | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    projector: nn.Module | None = None,
    out: str | os.PathLike[str] = "runs/pretraining",
    epochs: int = 40,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    seed: int = 0,
    ckpt_path: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
    **trainer: Any,
) -> PretrainingRun:
    """Train an encoder on unlabelled runs, and save it for :func:`pdessl.load`.

    Either of objects::

        views = pdessl.LieAugmentation("burgers")
        run = pdessl.pretrain("data/burgers", ConvEncoder(width=8), VICReg(), views, out="runs/x")

    or of a recipe, as ``pdessl pretrain`` does::

        run = pdessl.pretrain("data/burgers", config="burgers_vicreg", overrides={"seed_everything": 1}, out="runs/x")

    or of nothing but data, for which a recipe is made (:func:`pdessl.experiments.default_recipe.recipe_for`) and
    written to ``recipe.yaml``::

        run = pdessl.pretrain("runs/", out="work/encoder")

    ``in_channels`` and ``periodic`` of networks that leave them open, and the normalisation of the fields, come from
    the data.

    Args:
        data: a store or file, or a data module.
        encoder: network on fields (B, C, T, *X) giving (B, D).
        objective: of the views: one of :mod:`pdessl.objectives`, or a function ``(z, z') -> loss``.
        augmentation: makes a view: :class:`pdessl.LieAugmentation`.
        config: name or file of a recipe, instead of the three above.
        overrides: other values of the recipe.
        projector: network on features giving embeddings; default a :class:`pdessl.models.Projector` on the encoder's
            ``feature_dim``, of one hidden layer of 128 and 64 outputs.
        out: folder; receives ``encoder/``, ``history.json`` and ``last.ckpt``.
        epochs: passes over the unlabelled runs.
        batch_size: runs per step, where ``data`` is a path; default 64, or all unlabelled runs where they are fewer.
        learning_rate: of AdamW.
        seed: of batches and views. Networks that were made before have their weights.
        ckpt_path: ``last.ckpt`` of a run to go on with.
        settings: further settings of :class:`pdessl.tasks.Pretraining`.
        allow: packages of your own that a recipe may name classes of.
        **trainer: of ``lightning.Trainer``.

    Returns:
        The run; ``run.task.encoder`` is the encoder, ``run.curves`` its curves.

    Raises:
        SchemaError: some but not all of encoder, objective and augmentation, or a recipe beside them.
        CheckpointError: a checkpoint of another task or network, or an encoder that could not be loaded back.
    """
    parts = {"encoder": encoder, "objective": objective, "augmentation": augmentation}
    given = [name for name, part in parts.items() if part is not None]
    if config is not None:
        if given or isinstance(data, PDEDataModule):
            what = given[0] if given else "a data module"
            raise SchemaError(f"pretrain got a recipe and {what}; a recipe names its own. Leave out one of them.")
        return pretrain_recipe(config, _with_path(overrides, data), out, ckpt_path, allow=allow)
    if not given and not isinstance(data, PDEDataModule):
        changes = override({}, overrides)
        mapping = changes.get("data", {}).get("mapping")
        recipe, _ = recipe_for(data, {} if mapping is None else {"data.mapping": mapping}, out)
        return pretrain_recipe(recipe, _with_path(overrides, data), out, ckpt_path, allow=allow)
    if encoder is None or objective is None or augmentation is None:
        missing = ", ".join(name for name, part in parts.items() if part is None)
        raise SchemaError(f"pretrain got no {missing}; give encoder, objective and augmentation, or config='RECIPE'.")
    if isinstance(data, PDEDataModule):
        module = data
    else:
        if batch_size is None:
            batch_size = min(_BATCH, open_data(data).splits.get("unlabelled") or _BATCH)
        module = PDEDataModule(data, batch_size=batch_size, seed=seed)
    if projector is None:
        projector = Projector(_width(encoder), [128], 64)
    task = Pretraining(
        encoder, projector, objective, augmentation, learning_rate=learning_rate, seed=seed, **(settings or {})
    )
    folder = Path(out)
    check_writable(folder)
    with TemporaryDirectory(dir=folder) as trial:
        task.save_encoder(trial)  # what cannot be loaded back is told before it is trained
    curves = Curves(folder)
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    usual: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    fitter = lightning.Trainer(
        max_epochs=epochs, callbacks=[*trainer.pop("callbacks", []), ScaleCheck(), curves, last], **(usual | trainer)
    )
    if type(fitter.strategy.checkpoint_io) is TorchCheckpointIO:
        fitter.strategy.checkpoint_io = WholeCheckpoints()
    resumed = None if ckpt_path is None else check_checkpoint(ckpt_path, task)
    with interruptible(), in_own_folder():
        fitter.fit(task, datamodule=module, ckpt_path=resumed, weights_only=True)
    if fitter.is_global_zero:
        task.save_encoder(folder / "encoder", {"data": str(getattr(module, "path", "")), "epochs": epochs})
    task.encoder.eval()
    return PretrainingRun(folder, curves.curves, task)


def _width(encoder: nn.Module) -> int:
    width = getattr(encoder, "feature_dim", None)
    if not isinstance(width, int):
        raise SchemaError(
            f"{type(encoder).__name__} has no attribute feature_dim, from which a projector would be made. Set it to "
            "the width of its features, or give projector=."
        )
    return width


def _with_path(overrides: Overrides | None, data: str | os.PathLike[str] | PDEDataModule) -> Overrides:
    path = str(data)
    if overrides is None:
        return {"data.path": path}
    return {**overrides, "data.path": path} if isinstance(overrides, Mapping) else [*overrides, f"data.path={path}"]
