"""Loading what was saved: a ParameterModel, a law, or a network. Nothing is unpickled, and loading runs no code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pdessl import models
from pdessl.augmentation.placement import TIMES
from pdessl.errors import CheckpointError
from pdessl.evaluation.novelty import Novelty
from pdessl.files import checksum
from pdessl.inference.conformal import CrossConformal, CrossQuantiles
from pdessl.inference.encoding import LAYERS
from pdessl.inference.energy import EnergyEncoder
from pdessl.inference.format import InputFormat
from pdessl.inference.model import ParameterModel
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.readouts import Estimator, readout_from
from pdessl.inference.saving import ARRAYS, DESCRIPTION, ENCODERS, ENERGY, FORMAT, PHYSICS, saved_files
from pdessl.inference.surprise import DETECTOR, SurpriseDetector, load_detector
from pdessl.inference.surrogates import SURROGATE, SurrogateModel, load_surrogate
from pdessl.inference.target import Target
from pdessl.inference.views import Views
from pdessl.operators import LatentOperator, load_law
from pdessl.operators.saving import LAW

__all__ = ["load"]

_MOST_VIEWS = 4096
_MOST_ROUNDS = 100  # of a search


def load(
    path: str | os.PathLike[str], allow: Sequence[str] = ()
) -> ParameterModel | SurrogateModel | SurpriseDetector | LatentOperator | nn.Module:
    """Load what is saved at a path: a model of parameters, a surrogate, a detector of surprises, a law, or a network.

    Nothing is unpickled and no code of the folder is run.

    Args:
        path: folder of a model, a run folder that holds it as ``model/``, or the folder of a network.
        allow: further packages that the class of a network may come from.

    Raises:
        CheckpointError: nothing of the kind there, damaged, of another version, or files that do not belong together.
    """
    folder = Path(path)
    if (folder / SURROGATE).is_file():
        return load_surrogate(folder, allow)
    if (folder / DETECTOR).is_file():
        return load_detector(folder, allow)
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
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')}; this version reads {FORMAT}. Install the version of pdessl "
            "that wrote it, or fit the model again."
        )
    sums, kind = content.get("sha256"), content.get("encoder")
    if kind not in ENCODERS or not isinstance(sums, dict) or not set(saved_files(kind, False)) <= set(sums):
        raise CheckpointError(f"{path}: key 'encoder' or 'sha256' is missing or incomplete. Copy the folder again.")
    has_head = any(name.startswith("head/") for name in sums)
    for name in sums:
        if name not in saved_files(kind, has_head):
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
                time=TIMES[TIMES.index(views.get("time", "random"))],
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


def _novelty_in(data: Mapping[str, Any], prefix: str, arrays: Mapping[str, Tensor]) -> Novelty:
    threshold = float(arrays[f"{prefix}threshold"])
    if data["method"] not in ("mahalanobis", "neighbours") or not threshold > 0 or math.isnan(threshold):
        raise ValueError(f"novelty method {data['method']!r}, threshold {threshold}")
    mean, scale, reference = (arrays[f"{prefix}{n}"].numpy() for n in ("mean", "scale", "reference"))
    return Novelty(data["method"], mean, scale, reference, int(data["neighbours"]), threshold)


def _load_plain(folder: Path, kind: str) -> LatentOperator | PhysicsEncoder | EnergyEncoder:
    """Load an encoder that is no network."""
    if kind == "law":
        return load_law(folder)
    if kind == "energy":
        told = json.loads((folder / ENERGY).read_text(encoding="utf-8"))
        return EnergyEncoder(
            load_law(folder), float(told["width"]), min(int(told["rounds"]), _MOST_ROUNDS), int(told["refine"])
        )
    names = json.loads((folder / PHYSICS).read_text(encoding="utf-8"))["names"]
    return PhysicsEncoder(tuple(map(str, names)))
