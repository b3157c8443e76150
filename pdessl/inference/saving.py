"""A ParameterModel as one folder: arrays (safetensors), description (JSON), card, encoder. Loading runs no code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pdessl import models
from pdessl.errors import CheckpointError, StoreError
from pdessl.evaluation.novelty import Novelty
from pdessl.files import checksum, replacing, write_json, write_text
from pdessl.inference.card import card
from pdessl.inference.conformal import CrossConformal, CrossQuantiles
from pdessl.inference.encoding import LAYERS
from pdessl.inference.format import InputFormat
from pdessl.inference.model import ParameterModel, Target
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.readouts import Estimator, readout_arrays, readout_from
from pdessl.inference.views import Views
from pdessl.operators import LatentOperator, load_law, save_law
from pdessl.operators.saving import LAW

__all__ = ["ARRAYS", "CARD", "DESCRIPTION", "load", "save"]

DESCRIPTION = "parameter_model.json"
ARRAYS = "parameter_model.safetensors"
CARD = "card.md"
PHYSICS = "features.json"
# what is in the folder of an encoder, by its kind
_ENCODERS = {
    "network": (models.checkpoint.WEIGHTS, models.checkpoint.RECIPE),
    "law": (LAW,),
    "physics": (PHYSICS,),
}
_FORMAT = 2
_MOST_VIEWS = 4096


def save(path: str | os.PathLike[str], model: ParameterModel) -> Path:
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
        "format": _FORMAT,
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
        files = {n: folder / n for n in _files(content["encoder"], model.head is not None)}
        content["sha256"] = {n: checksum(p) for n, p in files.items()}
        write_text(folder / CARD, card(model))
        write_text(folder / DESCRIPTION, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except StoreError:
        raise
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from None
    return folder


def load(path: str | os.PathLike[str], allow: Sequence[str] = ()) -> ParameterModel | LatentOperator | nn.Module:
    """Load what is saved at a path: a :class:`ParameterModel`, a law, or a network as :func:`pdessl.models.load` does.

    Nothing is unpickled and no code of the folder is run.

    Args:
        path: folder of a model, a run folder that holds it as ``model/``, or the folder of a network.
        allow: further packages that the class of a network may come from.

    Raises:
        CheckpointError: nothing of the kind there, damaged, of another version, or files that do not belong together.
    """
    folder = Path(path)
    if (folder / LAW).is_file():
        return load_law(folder)
    for candidate in (folder, folder / "model"):
        if (candidate / DESCRIPTION).is_file():
            return _load(candidate, allow)
    left = next((f for f in (folder, folder / "model") if (f / ARRAYS).is_file()), None)
    if left is not None:
        raise CheckpointError(
            f"{left} has no {DESCRIPTION}: writing the model was interrupted, or not all was copied. Copy the whole "
            "folder, or fit the model again."
        )
    if not folder.is_file() and not any((f / models.checkpoint.RECIPE).exists() for f in (folder, folder / "encoder")):
        raise CheckpointError(
            f"{folder} holds neither a model of parameters ({DESCRIPTION}, written by 'pdessl regress') nor a network "
            f"({models.checkpoint.RECIPE}, written by 'pdessl pretrain'). Check the path."
        )
    return models.load(path, allow)


def _load(folder: Path, allow: Sequence[str]) -> ParameterModel:
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected JSON. Copy the folder again.") from None
    if not isinstance(content, dict) or content.get("kind") != "parameter_model":
        raise CheckpointError(
            f"{path} does not describe a model of parameters. Give the folder that 'pdessl regress' or "
            "ParameterModel.save wrote."
        )
    if content.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')}; this version reads {_FORMAT}. Install the version of pdessl "
            "that wrote it, or fit the model again."
        )
    sums, kind = content.get("sha256"), content.get("encoder")
    if kind not in _ENCODERS or not isinstance(sums, dict) or not set(_files(kind, False)) <= set(sums):
        raise CheckpointError(f"{path}: key 'encoder' or 'sha256' is missing or incomplete. Copy the folder again.")
    has_head = any(name.startswith("head/") for name in sums)
    for name in sums:
        if name not in _files(kind, has_head):
            raise CheckpointError(f"{path} names a file '{name}' that no model has. Copy the folder again.")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}. Copy the whole folder.")
        if checksum(folder / name) != sums[name]:
            raise CheckpointError(
                f"{folder / name} is truncated or was changed after the model was written. Copy the folder again, or "
                "fit the model again."
            )
    head = models.load(folder / "head", allow) if has_head else None
    network = models.load(folder / "encoder", allow) if kind == "network" else None
    try:
        encoder = network if network is not None else _load_plain(folder / "encoder", kind)
        # Products round differently where arrays are not aligned as torch aligns its own; those of a file are not.
        arrays = {n: v.clone() for n, v in load_file(folder / ARRAYS).items()}
        views, below = content["views"], content.get("trunk_novelty")
        found = ParameterModel(
            encoder=encoder,
            views=Views(
                strengths={str(n): float(s) for n, s in views["strengths"].items()},
                window=None if views["window"] is None else tuple(map(int, views["window"])),
                reflections=named if isinstance(named := views["reflections"], bool) else tuple(map(str, named)),
                count=int(views["count"]),
            ),
            format=InputFormat.from_state(content["input"]),
            targets=tuple(_target_in(t, f"targets/{i}/", arrays, head) for i, t in enumerate(content["targets"])),
            novelty=_novelty_in(content["novelty"], "novelty/", arrays),
            trunk_novelty=None if below is None else _novelty_in(below, "trunk_novelty/", arrays),
            level=float(content["level"]),
            record=dict(content["record"]),
            head=head,
            seed=int(content["seed"]),
            layer=str(content["layer"]),
        )
        _check(found, arrays)
        return found
    except Exception as error:  # noqa: BLE001  (whatever a description by a stranger leads to)
        raise CheckpointError(
            f"{path} or {ARRAYS} beside it is damaged ({type(error).__name__}: {error}). Copy the folder again."
        ) from None


def _check(model: ParameterModel, arrays: Mapping[str, Tensor]) -> None:
    """Check what would otherwise fail, or silently predict nonsense, with the first run.

    Raises:
        ValueError: numbers out of range, or arrays that do not fit each other.
        PdesslError: views that cannot be drawn.
    """
    if not (0 < model.level < 1 and 1 <= model.views.count <= _MOST_VIEWS and model.layer in LAYERS[:2]):
        raise ValueError(f"level {model.level}, {model.views.count} views, layer {model.layer}")
    declared = model.format
    sizes = (*declared.needed, *(model.views.window or ()))
    steps = [value for ends in declared.steps.values() for value in ends]
    if len(declared.needed) != 1 + len(declared.axis_names) or min(sizes) < 1 or not all(s > 0 for s in steps):
        raise ValueError(f"sizes {sizes}, steps {steps}")
    for name, values in arrays.items():
        if not name.endswith("threshold") and not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} holds values that are not finite")
    width = len(model.novelty.mean)
    for name, values in arrays.items():
        kind, part = name.split("/")[-2:]
        if kind == "readout" and part in ("centre", "scale", "weights") and len(values) != width:
            raise ValueError(f"{name} has {len(values)} rows for {width} features")
    if model.views.drawn:
        model.views.augmentation(declared.equation or "")


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


def _target_in(data: Mapping[str, Any], prefix: str, arrays: Mapping[str, Tensor], head: nn.Module | None) -> Target:
    parts = [_estimator_in(e, f"{prefix}{k}/", arrays, head) for k, e in enumerate(data["estimators"])]
    fold, runs = arrays[f"{prefix}fold"].numpy(), arrays.get(f"{prefix}calibration/features")
    conformal: CrossConformal | CrossQuantiles
    if runs is not None:
        conformal = CrossQuantiles(runs, arrays[f"{prefix}calibration/truth"], fold)
    else:
        conformal = CrossConformal(arrays[f"{prefix}scores"].numpy(), fold)
    folds = tuple(parts[1:]) or (parts[0],)
    outside = conformal.count and not 0 <= conformal.fold.min() <= conformal.fold.max() < len(folds)
    if data["scale"] not in ("log", "linear") or outside:
        raise ValueError(f"target {data['name']!r}")
    return Target(
        name=str(data["name"]),
        scale=data["scale"],
        unit=str(data["unit"]),
        low=float(data["low"]),
        high=float(data["high"]),
        count=int(data["count"]),
        estimator=parts[0],
        folds=folds,
        conformal=conformal,
    )


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


def _estimator_in(
    data: Mapping[str, Any], prefix: str, arrays: Mapping[str, Tensor], head: nn.Module | None
) -> Estimator:
    found = {}
    for name in ("readout", "spread"):
        if name in data:
            start = f"{prefix}{name}/"
            own = {n.removeprefix(start): v for n, v in arrays.items() if n.startswith(start)}
            found[name] = readout_from(data[name], own, head)
    low, high = map(float, data["labels"])
    return Estimator(
        found["readout"],
        (low, high),
        found.get("spread"),  # type: ignore[arg-type]
        float(data["typical"]),
        math.nan if data["left_out"] is None else float(data["left_out"]),
        *(arrays.get(f"{prefix}left_out/{n}") for n in ("known", "residuals")),
    )


def _novelty_out(novelty: Novelty | None, prefix: str, arrays: dict[str, Tensor]) -> dict[str, Any] | None:
    if novelty is None:
        return None
    state = novelty.state()
    for name in ("mean", "scale", "reference"):
        arrays[f"{prefix}{name}"] = torch.from_numpy(np.ascontiguousarray(state[name]))
    # An infinite threshold (none could be set) is no JSON.
    arrays[f"{prefix}threshold"] = torch.tensor(novelty.threshold, dtype=torch.float64)
    return {"method": novelty.method, "neighbours": novelty.neighbours}


def _novelty_in(data: Mapping[str, Any], prefix: str, arrays: Mapping[str, Tensor]) -> Novelty:
    threshold = float(arrays[f"{prefix}threshold"])
    if data["method"] not in ("mahalanobis", "neighbours") or not threshold > 0 or math.isnan(threshold):
        raise ValueError(f"novelty method {data['method']!r}, threshold {threshold}")
    mean, scale, reference = (arrays[f"{prefix}{n}"].numpy() for n in ("mean", "scale", "reference"))
    return Novelty(data["method"], mean, scale, reference, int(data["neighbours"]), threshold)


# --------------------------------------------------------------------------------------------- files


def _files(encoder: str, head: bool) -> tuple[str, ...]:
    network = models.checkpoint.WEIGHTS, models.checkpoint.RECIPE
    return (ARRAYS, *(f"encoder/{f}" for f in _ENCODERS[encoder]), *(f"head/{f}" for f in network if head))


def _kind(encoder: Any) -> str:
    """Return what an encoder is, as files call it."""
    if isinstance(encoder, LatentOperator):
        return "law"
    if isinstance(encoder, PhysicsEncoder):
        return "physics"
    if isinstance(encoder, nn.Module):
        return "network"
    raise CheckpointError(f"cannot save an encoder of class {type(encoder).__name__}; networks, laws and physics can.")


def _save_encoder(folder: Path, encoder: Any, record: Mapping[str, Any]) -> None:
    kind = _kind(encoder)
    if kind == "network":
        models.save_pretrained(folder, encoder, {"provenance": dict(record)})
    elif kind == "law":
        save_law(encoder, folder)
    else:
        write_json(folder / PHYSICS, {"names": list(encoder.names)})


def _load_plain(folder: Path, kind: str) -> LatentOperator | PhysicsEncoder:
    """Load an encoder that is no network."""
    if kind == "law":
        return load_law(folder)
    names = json.loads((folder / PHYSICS).read_text(encoding="utf-8"))["names"]
    return PhysicsEncoder(tuple(map(str, names)))


def _unwritable(folder: Path, error: Exception) -> StoreError:
    return StoreError(f"cannot write the model to {folder}: {error}. Choose a folder with write access and space.")
