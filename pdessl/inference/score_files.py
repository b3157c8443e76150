"""What scores frames, on disk: all of it but functions. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pdessl import models
from pdessl.errors import CheckpointError
from pdessl.files import checksum, replacing
from pdessl.inference.feature_scores import FeatureScores, LatentScores
from pdessl.inference.frame_scores import Foreseen, LawScores, StepScores
from pdessl.inference.known_equation import EquationScores
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.surrogates import load_surrogate
from pdessl.inference.window_scores import WindowScores
from pdessl.models import Encoder
from pdessl.models.checkpoint import RECIPE
from pdessl.operators import load_law, save_law

__all__ = ["load_scores", "save_scores"]

_ARRAYS = "scores.safetensors"


def save_scores(source: Foreseen, folder: Path, boundary: Mapping[str, str]) -> dict[str, Any]:
    """Write what scores frames into a folder, and return plain data from which :func:`load_scores` knows it.

    Args:
        source: scores by a law, a time-stepper, a world model, a temporal JEPA, a known equation, or features.
        folder: of the detector.
        boundary: of each axis of the runs, by name.

    Raises:
        CheckpointError: a function, or a network whose arguments are not known.
        StoreError: the folder cannot be written.
    """
    if isinstance(source, LawScores):
        save_law(source.law, folder / "law", dict(boundary))
        return {"kind": "law", "recent": source.recent, "width": source.width}
    if isinstance(source, StepScores):
        surrogate = source.model
        surrogate.save(folder / "surrogate")
        return {"kind": "surrogate"}
    if isinstance(source, EquationScores):
        half = source.half_width
        return {
            "kind": "equation", "equation": source.equation, "unknown": [*source.unknown],
            "constants": dict(source.constants), "recent": source.recent,
            "half_width": None if half is None else [*half], "noise_level": source.noise_level,
        }  # fmt: skip
    if isinstance(source, LatentScores) and isinstance(source.encoder, Encoder):
        networks = _save_networks(folder, encoder=source.encoder, predictor=source.predictor)
        told = {"kind": "world model", "frames": source.frames, "on_tokens": source.on_tokens}
        return {**told, "networks": networks}
    if isinstance(source, WindowScores) and source.roots is not None:
        networks = _save_networks(folder, encoder=source.encoder, predictor=source.predictor)
        told = {"kind": "temporal jepa", "frames": source.frames, "on_tokens": source.on_tokens}
        arrays = _save_arrays(folder, {"roots": source.roots})
        return {**told, "with_places": source.with_places, "networks": networks, "sha256": arrays}
    if isinstance(source, FeatureScores) and isinstance(source.features, (Encoder, PhysicsEncoder)):
        told = {"kind": "features", "window": source.window, "stride": source.stride}
        if isinstance(source.features, Encoder):
            told["networks"] = _save_networks(folder, encoder=source.features)
        else:
            told["names"] = [*source.features.names]
        return {**told, "sha256": _save_arrays(folder, {"centre": source.centre, "root": source.root})}
    raise CheckpointError(
        f"a detector whose scores come from {type(source).__name__} cannot be saved: a function is not written to a "
        "file. Fit it again where it is needed."
    )


def load_scores(told: Mapping[str, Any], folder: Path, allow: Sequence[str] = ()) -> Foreseen:
    """Return what :func:`save_scores` wrote.

    Args:
        told: what it returned.
        folder: where it wrote.
        allow: packages that classes of networks may come from.

    Raises:
        CheckpointError: a network that is damaged or missing, or whose class may not be used.
        ValueError, KeyError, TypeError: anything else that was not written by it.
    """
    kind = told["kind"]
    if kind == "law":
        return LawScores(load_law(folder / "law"), int(told["recent"]), int(told["width"]))
    if kind == "surrogate":
        return StepScores(load_surrogate(folder / "surrogate", allow))
    if kind == "equation":
        half = told["half_width"]
        return EquationScores(
            str(told["equation"]), [str(n) for n in told["unknown"]],
            {str(n): float(v) for n, v in told["constants"].items()}, int(told["recent"]),
            None if half is None else tuple(int(n) for n in half), float(told["noise_level"]),
        )  # fmt: skip
    if kind == "world model":
        encoder, predictor = _load_networks(told, folder, allow)
        return LatentScores(encoder, predictor, _count(told["frames"]), bool(told["on_tokens"]))
    if kind == "temporal jepa":
        encoder, predictor = _load_networks(told, folder, allow)
        roots = _load_arrays(folder, told["sha256"])["roots"]
        if roots.ndim != 3 or roots.shape[0] != 2 or roots.shape[1] != roots.shape[2]:
            raise ValueError(f"roots of shape {tuple(roots.shape)}")
        on_tokens, with_places = bool(told["on_tokens"]), bool(told["with_places"])
        return WindowScores(encoder, predictor, _count(told["frames"]), on_tokens, with_places, roots)
    if kind == "features":
        arrays = _load_arrays(folder, told["sha256"])
        centre, root = arrays["centre"], arrays["root"]
        if root.shape != (len(centre), len(centre)):
            raise ValueError(f"root of shape {tuple(root.shape)} for {len(centre)} features")
        names = told.get("names")
        features = _encoder(told, folder, allow) if names is None else PhysicsEncoder(tuple(str(n) for n in names))
        return FeatureScores(features, centre, root, _count(told["window"]), _count(told["stride"]))
    raise ValueError(f"scores by '{kind}'")


def _save_networks(folder: Path, **networks: nn.Module) -> dict[str, str]:
    """Write networks, each into a folder of its name, and return what tells them from others."""
    for name, network in networks.items():
        models.save_pretrained(folder / name, network)
    return {name: checksum(folder / name / RECIPE) for name in networks}


def _load_networks(told: Mapping[str, Any], folder: Path, allow: Sequence[str]) -> tuple[Encoder, nn.Module]:
    return _encoder(told, folder, allow), _network("predictor", told, folder, allow)


def _encoder(told: Mapping[str, Any], folder: Path, allow: Sequence[str]) -> Encoder:
    found = _network("encoder", told, folder, allow)
    if not isinstance(found, Encoder):
        raise ValueError(f"encoder/ holds a {type(found).__name__} without a normalisation")
    return found


def _network(name: str, told: Mapping[str, Any], folder: Path, allow: Sequence[str]) -> nn.Module:
    found = models.load(folder / name, allow)
    # A recipe knows its weights by their hash: with this one neither is of another training than the thresholds.
    if checksum(folder / name / RECIPE) != told["networks"][name]:
        raise ValueError(f"{name}/ is not the network that the detector was calibrated with")
    return found


def _save_arrays(folder: Path, arrays: Mapping[str, Tensor]) -> str:
    with replacing(folder / _ARRAYS) as temporary:
        save_file({n: v.detach().cpu().contiguous().clone() for n, v in arrays.items()}, temporary)
        return checksum(temporary)


def _load_arrays(folder: Path, total: Any) -> dict[str, Tensor]:
    if checksum(folder / _ARRAYS) != total:
        raise ValueError(f"{_ARRAYS} was changed after it was written")
    # Products round differently where arrays are not aligned as torch aligns its own; those of a file are not.
    return {n: v.clone() for n, v in load_file(folder / _ARRAYS).items()}


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"a count of {value!r}")
    return value
