"""What jsonargparse lets pass in a recipe that names classes: unknown keys of some kinds, and text for a number."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import check_keys, place

__all__ = ["check_named", "check_types"]


def check_named(content: Mapping[str, Any], known: Mapping[str, Any], packages: Collection[str], where: str) -> None:
    """Check every key of a recipe against the sections there are, and against the classes it names.

    Args:
        content: the recipe.
        known: all keys with their defaults, sections as mappings.
        packages: where classes are looked for that are named without their path.
        where: for messages.

    Raises:
        SchemaError: an unknown section, key or argument, or class of these packages, with the nearest name there is.
    """
    check_keys(content, known, (), where)
    for key, value in content.items():
        inside, default = place(where, key), known[key]
        if isinstance(default, Mapping) and "class_path" not in default and isinstance(value, Mapping):
            check_named(value, default, packages, inside)
        else:
            _check_class(value, packages, inside)


def _check_class(value: Any, packages: Collection[str], where: str) -> None:
    if isinstance(value, list):
        for i, entry in enumerate(value):
            _check_class(entry, packages, f"{where}[{i}]")
    elif isinstance(value, Mapping):
        arguments: Any = value
        if "class_path" in value:
            check_keys(value, ("class_path", "init_args", "dict_kwargs"), (), where)
            arguments = value.get("init_args") or {}
            accepted = _arguments(value["class_path"], packages, where)
            where = f"{where}.init_args"
            check_keys(arguments, accepted, (), where)
        for key, inner in arguments.items():
            _check_class(inner, packages, f"{where}.{key}")


def _arguments(path: Any, packages: Collection[str], where: str) -> list[str] | None:
    """Return the names of a class's (or function's) arguments; None where anything may be accepted."""
    if not isinstance(path, str):
        raise SchemaError(f"{where}.class_path: expected the import path of a class, found {path!r}.")
    module, _, name = path.rpartition(".")
    try:
        modules = [importlib.import_module(m) for m in ([module] if module else packages)]
    except ImportError:
        return None  # jsonargparse says so
    found = next((getattr(m, name) for m in modules if hasattr(m, name)), None)
    if found is None:
        names = [n for m in modules for n in getattr(m, "__all__", vars(m))]
        # Without its path it may also be a class of Lightning, which jsonargparse finds.
        if module or difflib.get_close_matches(name, names, n=1, cutoff=0.8):
            raise SchemaError(f"{where}.class_path: no class '{path}'.{did_you_mean(name, names)}")
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]


def check_types(given: Any, found: Any, where: str) -> None:
    """Check that no text was taken for a number, for true or false, or for a list: ``"3"``, ``yes``, ``"[1, 2]"``.

    Args:
        given: what the recipe says.
        found: what was made of it.
        where: for messages.

    Raises:
        SchemaError: with the key, and what to write.
    """
    if isinstance(given, Mapping) and isinstance(found, Mapping):
        for key in given.keys() & found.keys():
            check_types(given[key], found[key], place(where, key))
    elif isinstance(given, (list, tuple)) and isinstance(found, (list, tuple)):
        for i, (one, other) in enumerate(zip(given, found, strict=False)):
            check_types(one, other, f"{where}[{i}]")
    elif isinstance(given, str) and isinstance(found, (bool, int, float, list, tuple)):
        meant = str(found).lower() if isinstance(found, bool) else found
        raise SchemaError(f"{where}: found the text '{given}', expected {meant} without quotes.")
