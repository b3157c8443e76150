"""What verbs are given, a path or the thing itself, as the thing itself."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.inference import ParameterModel, RunEncoder, load

__all__ = ["read_data", "read_encoder"]


def read_encoder(encoder: str | os.PathLike[str] | nn.Module | RunEncoder) -> tuple[nn.Module | RunEncoder, str]:
    """Return an encoder and what reports call it.

    Args:
        encoder: folder of a pretraining run, a law or a saved encoder or model, or the network or law itself.

    Raises:
        CheckpointError: no encoder there.
    """
    if not isinstance(encoder, (str, os.PathLike)):
        return encoder, type(encoder).__name__
    found = load(Path(encoder))
    return (found.encoder if isinstance(found, ParameterModel) else found), str(encoder)  # type: ignore[return-value]


def read_data(data: str | os.PathLike[str] | PDEDataModule) -> PDEDataModule:
    """Return a data module that has been set up: the one given, or one that reads a store or file."""
    if isinstance(data, PDEDataModule):
        return data
    module = PDEDataModule(data)
    module.prepare_data()
    module.setup()
    return module
