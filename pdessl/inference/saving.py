"""A ParameterModel as one folder: arrays (safetensors), description (JSON), card, encoder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pdessl import models
from pdessl.errors import CheckpointError, StoreError
from pdessl.evaluation.novelty import Novelty
from pdessl.files import checksum, replacing, write_json, write_text
from pdessl.inference.card import card
from pdessl.inference.conformal import CrossQuantiles
from pdessl.inference.energy import EnergyEncoder
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.readouts import Estimator, readout_arrays
from pdessl.inference.target import FittedModel, Target
from pdessl.operators import LatentOperator, save_law
from pdessl.operators.saving import LAW

__all__ = ["ARRAYS", "CARD", "DESCRIPTION", "ENCODERS", "ENERGY", "FORMAT", "PHYSICS", "saved_files", "save"]

DESCRIPTION = "parameter_model.json"
ARRAYS = "parameter_model.safetensors"
CARD = "card.md"
PHYSICS = "features.json"
ENERGY = "energy.json"
# what is in the folder of an encoder, by its kind
ENCODERS = {
    "network": (models.checkpoint.WEIGHTS, models.checkpoint.RECIPE),
    "law": (LAW,),
    "physics": (PHYSICS,),
    "energy": (LAW, ENERGY),
}
FORMAT = 2


def save(path: str | os.PathLike[str], model: FittedModel) -> Path:
    """Write a model as a folder: description, arrays, card, and its encoder (and head) as folders of their own.

    The description is written last and holds the checksums of the others: a folder in which a write was interrupted, or
    whose files were mixed with others', is refused when it is read.

    Args:
        path: folder; files of an older model in it are replaced.
        model: what to write.

    Raises:
        CheckpointError: the encoder cannot be rebuilt from plain data, or the record is not plain data.
        StoreError: the folder cannot be written.
    """
    folder = Path(path)
    arrays: dict[str, Tensor] = {}
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": "parameter_model",
        "level": model.level,
        "seed": model.seed,
        "layer": model.layer,
        "encoder": _kind(model.encoder),
        "input": model.format.state(),
        "views": {
            "strengths": dict(model.views.strengths),
            "window": None if model.views.window is None else list(model.views.window),
            "reflections": named if isinstance(named := model.views.reflections, bool) else list(named),
            "count": model.views.count,
            "time": model.views.time,
        },
        "targets": [_target_out(t, f"targets/{i}/", arrays) for i, t in enumerate(model.targets)],
        "novelty": _novelty_out(model.novelty, "novelty/", arrays),
        "trunk_novelty": _novelty_out(model.trunk_novelty, "trunk_novelty/", arrays),
        "record": dict(model.record),
    }
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot save the model: its record must be plain data (JSON): {error}. Give numbers, texts, lists and "
            "dictionaries."
        ) from None
    try:
        (folder / DESCRIPTION).unlink(missing_ok=True)  # until all is there, nothing looks finished
    except OSError as error:
        raise _unwritable(folder, error) from None
    _save_encoder(folder / "encoder", model.encoder, model.record)
    if model.head is not None:
        models.save_pretrained(folder / "head", model.head, {"provenance": dict(model.record)})
    try:
        with replacing(folder / ARRAYS) as temporary:
            save_file({n: v.contiguous().clone() for n, v in arrays.items()}, temporary)
        files = {n: folder / n for n in saved_files(content["encoder"], model.head is not None)}
        content["sha256"] = {n: checksum(p) for n, p in files.items()}
        write_text(folder / CARD, card(model))
        write_text(folder / DESCRIPTION, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except StoreError:
        raise
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from None
    return folder


# ------------------------------------------------------------------------------------------- targets


def _target_out(target: Target, prefix: str, arrays: dict[str, Tensor]) -> dict[str, Any]:
    shared = target.folds == (target.estimator,)
    estimators = [target.estimator, *(() if shared else target.folds)]
    rule = target.conformal
    if isinstance(rule, CrossQuantiles):
        arrays |= {f"{prefix}calibration/features": rule.features, f"{prefix}calibration/truth": rule.truth}
    else:
        arrays[f"{prefix}scores"] = torch.from_numpy(rule.scores)
    arrays[f"{prefix}fold"] = torch.from_numpy(rule.fold)
    return {
        "name": target.name,
        "scale": target.scale,
        "unit": target.unit,
        "low": target.low,
        "high": target.high,
        "count": target.count,
        "estimators": [_estimator_out(e, f"{prefix}{k}/", arrays) for k, e in enumerate(estimators)],
    }


def _estimator_out(estimator: Estimator, prefix: str, arrays: dict[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {"typical": estimator.typical, "labels": list(estimator.labels)}
    # A trained head leaves no label out.
    found["left_out"] = estimator.left_out if math.isfinite(estimator.left_out) else None
    parts = {"readout": estimator.readout} | ({} if estimator.spread is None else {"spread": estimator.spread})
    for name, readout in parts.items():
        found[name], values = readout_arrays(readout)
        arrays.update({f"{prefix}{name}/{n}": v for n, v in values.items()})
    if estimator.known is not None and estimator.residuals is not None:
        arrays.update({f"{prefix}left_out/known": estimator.known, f"{prefix}left_out/residuals": estimator.residuals})
    return found


def _novelty_out(novelty: Novelty | None, prefix: str, arrays: dict[str, Tensor]) -> dict[str, Any] | None:
    if novelty is None:
        return None
    state = novelty.state()
    for name in ("mean", "scale", "reference"):
        arrays[f"{prefix}{name}"] = torch.from_numpy(np.ascontiguousarray(state[name]))
    # An infinite threshold (none could be set) is no JSON.
    arrays[f"{prefix}threshold"] = torch.tensor(novelty.threshold, dtype=torch.float64)
    return {"method": novelty.method, "neighbours": novelty.neighbours}


# --------------------------------------------------------------------------------------------- files


def saved_files(encoder: str, head: bool) -> tuple[str, ...]:
    """Return the files of a model besides its description and card, by the kind of its encoder."""
    network = models.checkpoint.WEIGHTS, models.checkpoint.RECIPE
    return (ARRAYS, *(f"encoder/{f}" for f in ENCODERS[encoder]), *(f"head/{f}" for f in network if head))


def _kind(encoder: Any) -> str:
    """Return what an encoder is, as files call it."""
    if isinstance(encoder, LatentOperator):
        return "law"
    if isinstance(encoder, PhysicsEncoder):
        return "physics"
    if isinstance(encoder, EnergyEncoder):
        return "energy"
    if isinstance(encoder, nn.Module):
        return "network"
    raise CheckpointError(f"cannot save an encoder of class {type(encoder).__name__}; networks, laws and physics can.")


def _save_encoder(folder: Path, encoder: Any, record: Mapping[str, Any]) -> None:
    kind = _kind(encoder)
    if kind == "network":
        models.save_pretrained(folder, encoder, {"provenance": dict(record)})
    elif kind == "law":
        save_law(encoder, folder)
    elif kind == "energy":
        save_law(encoder.law, folder)
        settings = {"width": encoder.width, "rounds": encoder.rounds, "refine": encoder.refine}
        write_json(folder / ENERGY, settings)
    else:
        write_json(folder / PHYSICS, {"names": list(encoder.names)})


def _unwritable(folder: Path, error: Exception) -> StoreError:
    return StoreError(f"cannot write the model to {folder}: {error}. Choose a folder with write access and space.")
