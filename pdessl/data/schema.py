"""Checks of plain data read from YAML: types and keys, with messages that name the place and the nearest spelling."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pdessl.errors import SchemaError, did_you_mean

__all__ = ["check_keys", "check_type", "is_number"]

_WORDS = {dict: "a mapping", list: "a list", float: "a number", int: "an integer", bool: "true or false", str: "text"}


def is_number(value: Any) -> bool:
    """Say whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_type(value: Any, kind: type, where: str) -> None:
    """Check a value's type; an integer is good where a number is expected, a boolean is no integer.

    Raises:
        SchemaError: with ``where`` (file and key), what was expected and what was found.
    """
    if kind is float:
        good = is_number(value)
    else:
        good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not good:
        raise SchemaError(f"{where}: expected {_WORDS[kind]}, found {value!r}.")


def check_keys(
    value: Mapping[str, Any], allowed: Collection[str] | None, required: Collection[str], where: str
) -> None:
    """Check that a mapping has no key but the allowed ones (None: any) and lacks none of the required.

    Raises:
        SchemaError: an unknown key, with the nearest allowed one, or a missing one.
    """
    for key in value:
        if allowed is not None and key not in allowed:
            raise SchemaError(
                f"{where}: unknown key '{key}'.{did_you_mean(str(key), allowed)} Keys: {', '.join(allowed) or 'none'}."
            )
    for key in required:
        if key not in value:
            raise SchemaError(f"{where}: missing key '{key}'. Needed: {', '.join(required)}.")
