"""Checkpoints that a kill, a full disk or a damaged file cannot take away: written beside, kept, checked when read."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from pdessl.errors import CheckpointError
from pdessl.files import replacing, versions

__all__ = ["VERSIONS", "WholeCheckpoints", "check_checkpoint", "previous", "whole_checkpoint"]

_log = logging.getLogger(__name__)
VERSIONS = "pdessl_versions"
_KEYS = (
    "epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states",
    "lr_schedulers",
)  # fmt: skip
_REPAIR = "Free space or choose another folder, then continue with --ckpt_path {path}."


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written so that a whole one is on disk at every moment.

    Lightning writes to the system's temporary folder and moves the file to its place. Where the two are on different
    file systems that move is a copy over the former checkpoint, and a kill or a full disk in the middle of it leaves
    none. Here the new file is written beside its place, flushed, and renamed. The former ``last.ckpt`` stays as
    ``last.previous.ckpt``, which is read where the last turns out damaged. The versions of pdessl, torch and Lightning
    are written into every checkpoint. For a trainer of one's own::

        trainer = lightning.Trainer(plugins=[pdessl.tasks.WholeCheckpoints()])

    Args:
        kept: names without ending of the checkpoints whose former state is kept.

    Raises:
        StoreError: the checkpoint cannot be written; the message names it.
        CheckpointError: neither the checkpoint nor the one before it is whole.
    """

    def __init__(self, kept: tuple[str, ...] = ("last",)) -> None:
        super().__init__()
        self.kept = kept

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; see the class."""
        checkpoint = {**checkpoint, VERSIONS: _versions()}
        if "://" in str(path):  # an address, not a file: what is there to do is up to what lies behind it
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        packed = io.BytesIO()
        torch.save(checkpoint, packed)
        repair = _REPAIR.format(path=place)
        with replacing(place, repair, previous(place) if place.stem in self.kept else None) as temporary:
            temporary.write_bytes(packed.getbuffer())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = lambda storage, place: storage, **settings: Any
    ) -> dict[str, Any]:
        """Read a checkpoint, or the one before it where it is damaged."""
        place = path if "://" in str(path) else whole_checkpoint(path)
        return super().load_checkpoint(place, map_location, **settings)


def _versions() -> dict[str, str]:
    return versions() | {"lightning": str(lightning.__version__)}


def previous(path: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint before this one is kept: ``last.previous.ckpt`` for ``last.ckpt``."""
    place = Path(path)
    return place.with_name(f"{place.stem}.previous{place.suffix}")


def whole_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint if it is whole, else the one before it, which is said.

    Raises:
        CheckpointError: no such file, or neither is whole.
    """
    place = Path(path)
    fault = _fault(place)
    if fault is None:
        return place
    before = previous(place)
    if _fault(before) is None:
        _log.warning("%s; going on from the checkpoint before it, %s.", fault, before)
        return before
    if not place.is_file() and not before.is_file():
        raise CheckpointError(f"no checkpoint {place}. A run keeps its own in its folder, as last.ckpt.")
    also = f", and so is {before}" if before.is_file() else ""
    raise CheckpointError(f"{fault}{also}. Start the run again without --ckpt_path.")


def _fault(path: Path) -> str | None:
    """Say what is wrong with a file; the archive that torch writes has a checksum of each part."""
    if not path.is_file():
        return f"no checkpoint {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as error:  # noqa: BLE001 - damage shows in as many ways as there are bytes
        bad = " ".join(str(error).split()) or type(error).__name__
    return None if bad is None else f"{path} cannot be read as a checkpoint: it is damaged ({bad})"


def check_checkpoint(path: str | os.PathLike[str], task: lightning.LightningModule, any_version: bool = False) -> Path:
    """Return the checkpoint to resume from, after Lightning's reading of it can no longer fail for want of sense.

    Args:
        path: the checkpoint.
        task: what will be resumed, as its recipe builds it.
        any_version: accept what other versions of pdessl, torch or Lightning wrote.

    Returns:
        ``path``, or the checkpoint before it where that is damaged.

    Raises:
        CheckpointError: no such file, damaged, not a checkpoint of plain data, of another task, network or version.
    """
    place = whole_checkpoint(path)
    try:
        content = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (torch names many kinds of damage; all mean the same here)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{place} cannot be read as a checkpoint: {reason}") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{place} cannot be read as a checkpoint: it holds no training. Give last.ckpt of a run.")
    found, name = content.get("pdessl_task", "another program"), type(task).__name__
    if found != name:
        raise CheckpointError(
            f"{place} was written by {found}; --ckpt_path resumes {name} only. To start from its encoder: "
            f"--model.encoder pdessl.models.pretrained --model.encoder.checkpoint {place.parent}"
        )
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise CheckpointError(
            f"{place} cannot be read as a checkpoint: it has no '{missing[0]}'. Give last.ckpt as the run wrote it."
        )
    _check_versions(content.get(VERSIONS), place, any_version)
    _check_shapes(content["state_dict"], task, place)
    return place


def _check_versions(written: Any, place: Path, any_version: bool) -> None:
    now = _versions()
    written = written if isinstance(written, Mapping) else {}
    # Another Python or NumPy changes no number of a training: views and batches are drawn by torch.
    differ = [f"{n} {written.get(n, 'unknown')} (now {now[n]})" for n in ("pdessl", "torch", "lightning")
              if written.get(n) != now[n]]  # fmt: skip
    if not differ:
        return
    said = f"{place} was written with {', '.join(differ)}: a run continued from it is that of neither version"
    if not any_version:
        raise CheckpointError(
            f"{said}. Install those versions, start again without --ckpt_path, or continue all the same with "
            "--set any_version=true."
        )
    _log.warning("%s.", said)


def _check_shapes(state: Mapping[str, Any], task: lightning.LightningModule, place: Path) -> None:
    expected = {n: tuple(v.shape) for n, v in task.state_dict().items()}
    found = {n: tuple(getattr(v, "shape", ())) for n, v in state.items()}
    differ = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
    if differ:
        first = differ[0]
        raise CheckpointError(
            f"{place} belongs to another network than the recipe describes: {len(differ)} tensors differ, first "
            f"'{first}': found {found.get(first, 'nothing')}, expected {expected.get(first, 'nothing')}. Give the "
            "recipe that the run was begun with."
        )
