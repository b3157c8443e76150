"""What verbs are given, a path or the thing itself, as the thing itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.labels import with_labels
from pdessl.errors import CatalogError, DataError
from pdessl.inference import ParameterModel, RunEncoder, load

__all__ = ["FEW", "read_data", "read_encoder", "read_labelled", "split_labels", "to_be_left_out"]

FEW = 200  # labelled runs, below which they are left out in turn where nothing is called test


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
    module.setup()
    return module


def split_labels(labels: Any) -> tuple[tuple[int, ...] | None, Any]:
    """Return numbers of labelled runs, and a table of labels: what was given is one of both."""
    if labels is None:
        return None, None
    if isinstance(labels, Sequence) and not isinstance(labels, str) and all(isinstance(n, int) for n in labels):
        return tuple(labels), None
    return None, labels


def read_labelled(
    data: str | os.PathLike[str] | PDEDataModule, target: str, table: Any = None, mapping: Any = None
) -> PDEDataModule:
    """Return a data module that has been set up, its labels from a table where one is given.

    Where files have neither a test split nor many labels, all labelled runs are labelled runs: nothing is set aside.

    Raises:
        DataError: a table beside a data module.
    """
    if isinstance(data, PDEDataModule):
        if table is not None or mapping is not None:
            raise DataError("a data module reads its own labels: give the path of the data beside labels or a mapping.")
        return data
    if table is not None:
        mapping = with_labels(data, mapping, table, target)
    module = PDEDataModule(data, mapping=mapping)  # type: ignore[arg-type]
    module.setup()
    source = module.store
    own = any(source.splits.get(name) for name in ("labelled", "unlabelled", "test", "testing"))
    count = _with_label(source, target)
    if own or not 0 < count == len(source) < FEW:
        return module
    module = PDEDataModule(data, mapping=mapping, splits={"validation": 0.0, "test": 0.0, "labelled": 1.0})  # type: ignore[arg-type]
    module.setup()
    return module


def _with_label(source: Any, target: str) -> int:
    values = [source.parameter_values(split).get(target, np.empty(0)) for split in source.splits]
    return int(sum(np.isfinite(v).sum() for v in values))


def to_be_left_out(module: PDEDataModule, target: str) -> bool:
    """Return whether labelled runs have to be left out in turn: nothing serves as test, or none of it has a label."""
    try:
        test = [s.parameter_values().get(target, np.empty(0)) for s in module.selections("test")]
    except CatalogError:
        return True
    if any(len(values) and np.isfinite(values).all() for values in test):
        return False
    # A target that is made of other parameters is in neither: the comparison makes it, or says that it cannot.
    return _with_label(module.store, target) > 0
