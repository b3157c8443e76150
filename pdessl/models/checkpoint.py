"""Saved models: a folder with weights (safetensors) and a recipe (JSON). Loading runs no code from the folder."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from pdessl.errors import CheckpointError, StoreError
from pdessl.files import checksum, replacing
from pdessl.models.encoder import Encoder

__all__ = ["RECIPE", "WEIGHTS", "build", "describe", "load", "pretrained", "save_pretrained"]

WEIGHTS = "model.safetensors"
RECIPE = "recipe.json"
_FORMAT = 1
_OURS = ("pdessl.models", "pdessl.operators", "pdessl.inference")
# Imported with torch or Lightning whether wanted or not; of them only torch.nn may be named.
_LIBRARIES = ("torch", "lightning", "pytorch_lightning", "torchmetrics", "torchvision", "sympy", "numpy", "scipy")
_MOST_UNSAVED = 1 << 24


def save_pretrained(path: str | os.PathLike[str], module: nn.Module, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write a module as a folder of weights and recipe.

    The recipe holds ``class_path`` and ``init_args`` of the module, ``normalisation`` (mean and std per channel where
    the module is :class:`~pdessl.models.Encoder`, else null), ``trained_on`` (``equation``, and ``steps``: smallest
    and largest step of ``time`` and each space axis by name), ``provenance``
    and the hash of the weights. The module is built once from this recipe before anything is written, so that what is
    written can be loaded.

    Args:
        path: folder to write; its two files are replaced if they exist.
        module: a module with an attribute ``init_args`` (a plain dictionary of its constructor's arguments), or whose
            constructor needs none.
        recipe: optional ``class_path`` and ``init_args`` for a module without such an attribute, and ``provenance``
            (plain data: what trained it, on which data, versions).

    Returns:
        The folder.

    Raises:
        CheckpointError: the arguments of the module are not known, not plain data, or do not rebuild it.
        StoreError: the folder cannot be written.
    """
    recipe = dict(recipe or {})
    unknown = set(recipe) - {"class_path", "init_args", "provenance"}
    if unknown:
        raise CheckpointError(
            f"save_pretrained got recipe keys {sorted(unknown)}; expected class_path, init_args and provenance."
        )
    inner = module.module if isinstance(module, Encoder) else module
    kind = type(inner)
    class_path = recipe.get("class_path") or _public_path(kind)
    init_args = recipe.get("init_args", getattr(inner, "init_args", None))
    if init_args is None:
        needed = [
            p.name
            for p in inspect.signature(kind).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if needed:
            raise CheckpointError(
                f"cannot save a {kind.__name__}: its arguments ({', '.join(needed)}) are not known. Set "
                "self.init_args in its "
                "constructor to a dictionary of plain values, or pass recipe={'init_args': {...}}."
            )
        init_args = {}
    content: dict[str, Any] = {
        "format": _FORMAT,
        "class_path": class_path,
        "init_args": init_args,
        "normalisation": module.statistics if isinstance(module, Encoder) else None,
        "trained_on": module.trained_on if isinstance(module, Encoder) else {},
        "provenance": recipe.get("provenance", {}),
    }
    try:
        content = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot save a {kind.__name__}: the recipe must be plain data (JSON): {error}."
        ) from None
    state = {name: value.detach().cpu().contiguous().clone() for name, value in inner.state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # building draws initial weights; the caller's random numbers stay
        rebuilt = _build(content, "the module to be saved", allow=(kind.__module__.split(".")[0],))
    _compare(state, rebuilt, f"a {kind.__name__} rebuilt from its recipe")
    folder = Path(path)
    try:
        with replacing(folder / WEIGHTS) as temporary:
            save_file(state, temporary)
            content["weights_sha256"] = checksum(temporary)
            # The recipe knows the weights by their hash. Whoever reads between the two renamings is told that the
            # weights were changed, never given those of another recipe.
            with replacing(folder / RECIPE) as recipe_temporary:
                recipe_temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except SafetensorError as error:
        raise StoreError(
            f"cannot write the model to {folder}: {error}. Choose a folder with write access and space."
        ) from None
    return folder


def load(path: str | os.PathLike[str], allow: Sequence[str] = ()) -> nn.Module:
    """Load a module written by :func:`save_pretrained`, in evaluation mode, on the CPU.

    Where a normalisation was saved it is an :class:`~pdessl.models.Encoder`; ``trained_on`` then holds equation and
    steps of the runs it was trained on.

    Nothing in the folder is run or unpickled: the weights are numbers, the recipe is data, and its class path must name
    a ``torch.nn.Module`` of ``pdessl.models``, of ``torch.nn``, of a module of its own that the program has already
    imported, or of a package in ``allow``. A network of pdessl or torch is made without memory first, and its sizes are
    compared with those of the weights.

    Args:
        path: the folder, or a run folder that holds it as ``encoder/``.
        allow: further top-level packages that may be imported for the class.

    Raises:
        CheckpointError: a file is missing or damaged, the class may not be used, or the weights belong to another
            architecture; the message says which and what to do.
    """
    folder = Path(path)
    if folder.is_file():
        beside = folder.parent / "encoder"
        hint = f" Did you mean '{beside}'?" if (beside / RECIPE).is_file() else ""
        raise CheckpointError(
            f"{folder} is a file; expected a folder with {RECIPE} and {WEIGHTS}, as 'pdessl pretrain' writes it "
            f"(RUN/encoder).{hint}"
        )
    if not (folder / RECIPE).exists() and (folder / "encoder" / RECIPE).is_file():
        folder = folder / "encoder"
    content = _read_recipe(folder)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}; expected it beside {RECIPE}. Copy the whole folder.")
    damaged = (
        f"{folder / WEIGHTS} is truncated or was changed after it was written. Copy the folder again, or train again."
    )
    if checksum(folder / WEIGHTS) != content["weights_sha256"]:
        raise CheckpointError(damaged)
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError):
        raise CheckpointError(damaged) from None
    module = _build(content, str(folder / RECIPE), allow, state)
    _compare(state, module, f"{content['class_path']} as {folder / RECIPE} describes it")
    module.load_state_dict(state)
    statistics = content["normalisation"]
    if statistics is None:
        return module.eval()
    return Encoder(module, statistics["mean"], statistics["std"], content.get("trained_on")).eval()


def pretrained(checkpoint: str) -> nn.Module:
    """Load a saved encoder: :func:`load` under the name recipes use as a class path.

    Args:
        checkpoint: folder written by pretraining.
    """
    return load(checkpoint)


def describe(module: nn.Module) -> dict[str, Any]:
    """Return class path and arguments of a network, for one that holds it; :func:`build` makes it again.

    Raises:
        CheckpointError: a network that does not keep its arguments (``init_args``).
    """
    arguments = getattr(module, "init_args", None)
    if not isinstance(arguments, dict):
        raise CheckpointError(f"a {type(module).__name__} does not keep its arguments: set self.init_args.")
    return {"class_path": _public_path(type(module)), "init_args": arguments}


def build(description: Mapping[str, Any], source: str) -> nn.Module:
    """Construct a network, with fresh weights, from what :func:`describe` says of it.

    Args:
        description: ``class_path``, of a network of ``pdessl.models``, and ``init_args``.
        source: for messages.

    Raises:
        CheckpointError: other keys, a class that may not be used, or arguments that it does not accept.
    """
    arguments = description.get("init_args")
    if set(description) != {"class_path", "init_args"} or not isinstance(arguments, Mapping):
        raise CheckpointError(f"{source}: keys {sorted(map(str, description))}; expected class_path and init_args.")
    return _build(description, source, ())


def _public_path(kind: type) -> str:
    """Shortest import path: the package that exports the class, else its module."""
    parts = kind.__module__.split(".")
    for depth in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:depth]))
        if getattr(package, kind.__name__, None) is kind:
            return f"{'.'.join(parts[:depth])}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _read_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {RECIPE}; expected a folder written by 'pdessl pretrain' (RUN/encoder). Check the path."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected JSON. Copy the folder again.") from None
    kinds = {
        "format": int,
        "class_path": str,
        "init_args": dict,
        "normalisation": (dict, type(None)),
        "weights_sha256": str,
    }
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected an object with {', '.join(kinds)}.")
    for key, kind in kinds.items():
        if key not in content or not isinstance(content[key], kind):
            raise CheckpointError(f"{path}: key '{key}' is missing or of the wrong type. Copy the folder again.")
    if content["format"] != _FORMAT:
        raise CheckpointError(f"{path} has format {content['format']}; this version reads {_FORMAT}. Upgrade pdessl.")
    statistics = content["normalisation"]
    if statistics is not None and not all(isinstance(statistics.get(k), list) for k in ("mean", "std")):
        raise CheckpointError(f"{path}: normalisation must hold lists 'mean' and 'std'. Copy the folder again.")
    known = content.get("trained_on", {})  # folders of before have none
    steps = known.get("steps", {}) if isinstance(known, dict) else None
    pairs = list(steps.values()) if isinstance(steps, dict) else [None]
    if not all(isinstance(p, list) and len(p) == 2 and all(_step(v) for v in p) for p in pairs):
        raise CheckpointError(f"{path}: trained_on.steps must hold two numbers per axis. Copy the folder again.")
    return content


def _step(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value < math.inf


def _find_class(class_path: str, source: str, allow: Sequence[str]) -> type[nn.Module]:
    """Return the class a recipe names; never import what the user has not chosen to trust."""
    module_path, _, name = class_path.rpartition(".")
    package = module_path.split(".")[0]
    # Of pdessl only what holds networks: its other modules do things (the command line is one).
    ours = module_path == "pdessl" or any(module_path == p or module_path.startswith(f"{p}.") for p in _OURS)
    theirs = package != "pdessl" and (package in allow or (module_path in sys.modules and package not in _LIBRARIES))
    runs = "__main__" in module_path.split(".")[1:]  # a package's own command; the running script is imported already
    if runs or not (ours or module_path == "torch.nn" or theirs):
        raise CheckpointError(
            f"{source} names the class '{class_path}', which is no torch.nn.Module of pdessl or torch.nn."
            + ("" if runs or package in ("pdessl", *_LIBRARIES) else " If you trust that package, import it first or "
               f"load with allow=('{package}',).")
        )  # fmt: skip
    try:
        kind = getattr(importlib.import_module(module_path), name)
    except (ImportError, AttributeError, ValueError):
        raise CheckpointError(
            f"{source} names the class '{class_path}', which cannot be found. Install the version of its package that "
            "wrote it."
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise CheckpointError(f"{source} names '{class_path}'; expected a subclass of torch.nn.Module.")
    return kind


def _build(
    content: Mapping[str, Any],
    source: str,
    allow: Sequence[str],
    state: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Construct the module a recipe names, after its sizes were compared with those of the weights in ``state``."""
    kind = _find_class(content["class_path"], source, allow)
    try:
        if state is not None and kind.__module__.split(".")[0] in ("pdessl", "torch"):
            with torch.device("meta"), _bounded(sum(value.numel() for value in state.values()), len(state)):
                planned = kind(**content["init_args"])
            _compare(state, planned, f"{content['class_path']} as {source} describes it")
        return kind(**content["init_args"])
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever arguments by a stranger lead to)
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{source}: {content['class_path']} does not accept the arguments {_short(content['init_args'])}: {said}. "
            "It was written by another version of this class; install that version."
        ) from None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


@contextmanager
def _bounded(weights: int, tensors: int) -> Iterator[None]:
    """Refuse, while a network without memory is made, what is larger than the weights it is made for.

    Weights are counted as they are registered, before the next is made, and so are layers, which take memory and time
    of their own. Some tables are not saved, so that the bounds are wider than what is saved.
    """
    elements, parts = 0, 0

    def count(module: nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal elements, parts
        parts += 1
        elements += 0 if value is None else value.numel()
        if elements > 2 * weights + _MOST_UNSAVED:
            raise ValueError(f"it has {elements} weights or more, where {weights} are saved")
        check_parts()

    def layer(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal parts
        parts += 1
        check_parts()

    def check_parts() -> None:
        if parts > 50 * tensors + 1000:
            raise ValueError(f"it has {parts} parts or more, where {tensors} tensors are saved")

    hooks = torch.nn.modules.module
    held = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
        hooks.register_module_module_registration_hook(layer),
    ]
    try:
        with _Counting(200 * tensors + 20_000):
            yield
    finally:
        for one in held:
            one.remove()


class _Counting(TorchFunctionMode):
    """Refuses more than so many operations: copies of layers are registered nowhere."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it takes more operations to make than its weights could be of use to")
        return func(*args, **(kwargs or {}))


def _compare(state: Mapping[str, torch.Tensor], module: nn.Module, what: str) -> None:
    """Raise if the weights do not fit the module, naming the first difference."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    different = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
    if different:
        first = different[0]
        raise CheckpointError(
            f"the weights belong to another architecture than {what}: {len(different)} tensors differ, first "
            f"'{first}': found "
            f"{found.get(first, 'nothing')}, expected {expected.get(first, 'nothing')}. Load the folder with its own "
            "recipe."
        )
