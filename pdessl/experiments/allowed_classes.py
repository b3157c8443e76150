"""Which code a recipe may name: networks, objectives, callbacks; nothing else is imported, whatever a recipe says."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pdessl.errors import PdesslError, SchemaError
from pdessl.schema import read_yaml

__all__ = ["ALLOWED", "check_allowed", "find_beside"]

ALLOWED = (
    "pdessl.models", "pdessl.objectives", "pdessl.augmentation", "pdessl.tasks", "pdessl.symmetry", "pdessl.operators",
    "torch.nn", "torch.optim",
    "lightning.pytorch.callbacks", "lightning.pytorch.loggers", "lightning.pytorch.profilers",
    "lightning.pytorch.strategies", "lightning.pytorch.plugins", "lightning.pytorch.accelerators",
)  # fmt: skip
_IMPORTABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_SECTIONS = ("model", "trainer")  # where jsonargparse takes plain text for the path of a class or function


def check_allowed(content: Mapping[str, Any], allow: Collection[str], where: str) -> None:
    """Refuse a recipe that names code outside :data:`ALLOWED` and the packages the user allows; before any is imported.

    Allowed packages that Python does not find, and that lie in the working folder, are found there afterwards.

    Args:
        content: the recipe, not yet read by jsonargparse. Files that stand in the place of a class are looked into.
        allow: top-level packages or modules, whose import runs their code.
        where: for messages.

    Raises:
        SchemaError: the first such name, with what to do.
    """
    find_beside(allow)
    for key, value in content.items():
        for place, path in _named(value, f"{where}: {key}", key in _SECTIONS):
            _check(path, allow, place)


def _named(value: Any, where: str, text: bool) -> Iterator[tuple[str, str]]:
    """Yield what looks like the path of a class or function, with its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "class_path" and isinstance(inner, str):
                yield f"{where}.class_path", inner
            else:
                yield from _named(inner, f"{where}.{key}", text)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _named(inner, f"{where}[{i}]", text)
    elif isinstance(value, str) and text:
        if _IMPORTABLE.fullmatch(value) and _is_module(value.partition(".")[0]):
            yield where, value
        elif _is_file(value):
            try:
                content = read_yaml(Path(value))
            except PdesslError:
                return  # data; jsonargparse cannot read it either
            yield from _named(content, f"{where} ({value})", True)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _is_module(name: str) -> bool:
    """Whether there is such a package, without importing it."""
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _check(path: str, allow: Collection[str], where: str) -> None:
    if "." not in path:
        return  # a class of pdessl or Lightning that is imported already
    module = path.rpartition(".")[0]
    package = path.partition(".")[0]
    ours = module == "pdessl" or any(module == a or module.startswith(f"{a}.") for a in ALLOWED)
    if "__main__" in path.split(".") or not (ours or package in allow):
        advice = f" If you trust it, say so: --allow {package} (in Python allow=('{package}',))."
        if package in ("pdessl", "torch", "lightning") or "__main__" in path:
            advice = ""
        raise SchemaError(
            f"{where}: '{path}' is neither of pdessl's models, objectives, augmentation or tasks, nor of torch.nn, "
            f"torch.optim or Lightning's callbacks, loggers, profilers, strategies or plugins.{advice}"
        )
    if not ours:
        return
    # A module of an allowed package has other modules as attributes: what counts is where the thing itself was made.
    origin = str(getattr(_found(path), "__module__", None) or package)
    if origin.partition(".")[0] not in (package, "torch") or origin.startswith("pdessl.cli"):
        raise SchemaError(f"{where}: '{path}' is imported there from {origin}, which recipes may not name.")


def _found(path: str) -> Any:
    """Return what a path names, an attribute (of an attribute ...) of a module; None where there is none."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except (ImportError, ValueError):
            continue
        for name in parts[end:]:
            found = getattr(found, name, None)
        return found
    return None  # jsonargparse says so


def find_beside(allow: Collection[str]) -> None:
    """Let Python find modules of the working folder that the user allows: last, so that they hide nothing."""
    for name in allow:
        here = str(Path.cwd())
        beside = [Path(here, f"{name}.py"), Path(here, name, "__init__.py")]
        if not _is_module(name) and any(map(_is_file, map(str, beside))) and here not in sys.path:
            sys.path.append(here)
            importlib.invalidate_caches()
