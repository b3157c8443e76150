"""What foresees latents, of run folders: predictors of temporal JEPAs and world models, kept beside their encoders."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdessl.errors import CheckpointError
from pdessl.experiments.world import frames_of, provenance_of
from pdessl.inference import load
from pdessl.inference.feature_scores import LatentScores
from pdessl.inference.window_scores import WindowScores
from pdessl.models import Encoder, save_pretrained
from pdessl.models import load as load_network
from pdessl.models.checkpoint import RECIPE
from pdessl.tasks import TemporalPrediction

__all__ = ["foreseen", "save_predictor"]

_TASK = "TemporalPrediction"


def save_predictor(folder: Path, task: TemporalPrediction, settings: Mapping[str, Any], recipe: Any) -> None:
    """Write the predictor of a temporal JEPA beside its encoder, which is there already, for ``pdessl surprise``.

    Args:
        folder: of the run.
        task: trained.
        settings: of the predictor in the recipe, ``class_path`` and ``init_args``, for one that does not keep its own.
        recipe: plain data, for provenance.

    Warns of a predictor that cannot be rebuilt from plain data: the encoder is of use without it.
    """
    told: dict[str, Any] = {}
    given = settings.get("init_args")
    own = str(settings.get("class_path", "")).rpartition(".")[2] == type(task.predictor).__name__
    if own and given is not None and not hasattr(task.predictor, "init_args"):
        told["init_args"] = given if isinstance(given, dict) else given.as_dict()
    told["provenance"] = {
        "recipe": recipe, "task": _TASK, "frames": task.frames, "on_tokens": task.on_tokens,
        "with_places": task.with_places, "encoder": _weights(folder / "encoder"),
    }  # fmt: skip
    try:
        save_pretrained(folder / "predictor", task.predictor, told)
    except CheckpointError as error:
        warnings.warn(f"the predictor is not kept, and 'pdessl surprise' cannot use this run: {error}", stacklevel=2)


def foreseen(path: str | os.PathLike[str]) -> Any:
    """Return what a folder holds that may foresee: a law, a time-stepper, a detector, a world model, a temporal JEPA.

    Raises:
        CheckpointError: nothing that can be read, an encoder without a predictor, or one with that of another encoder.
    """
    folder = Path(path)
    found = load(path)
    if not isinstance(found, Encoder):
        return found
    if not (folder / "predictor").is_dir():
        raise CheckpointError(
            f"{folder} holds an encoder and no predictor (predictor/): it describes runs and foresees nothing. An "
            "encoder that was trained on views never has one; a temporal JEPA that was trained before predictors were "
            "kept has to be trained again (pdessl pretrain --config burgers_jepa). Or give a law (pdessl discover)."
        )
    said = provenance_of(folder)
    predictor, tokens = load_network(folder / "predictor").eval(), bool(said.get("on_tokens"))
    if said.get("task") != _TASK:
        return LatentScores(found, predictor, frames_of(said), tokens)
    if said.get("encoder") != _weights(folder / "encoder"):
        raise CheckpointError(
            f"{folder}: predictor/ and encoder/ are of different trainings. Copy the whole folder of one run, or train "
            "again."
        )
    return WindowScores(found, predictor, frames_of(said), tokens, bool(said.get("with_places")))


def _weights(folder: Path) -> str:
    """Return the hash of the weights that an encoder was saved with; empty where nothing can be read."""
    try:
        return str(json.loads((folder / RECIPE).read_text(encoding="utf-8"))["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
