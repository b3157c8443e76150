"""Settings of a verb: dataclasses filled from a YAML mapping and from KEY=VALUE words; keys and types are checked."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml

from pdessl.errors import SchemaError, did_you_mean

__all__ = ["assign", "fill", "flatten", "merge", "read_words"]

T = TypeVar("T")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping; other values are replaced whole.

    A mapping that names a class (``class_path``) replaces the whole old one: the old arguments belong to another class.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both and "class_path" not in value else value
    return merged


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys; a mapping that names a class stays whole."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        nested = isinstance(value, Mapping) and value and "class_path" not in value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Read ``a.b=value`` words as dotted keys and values; values are YAML, so ``[32, 64]`` works, and ``1e-3`` too.

    Raises:
        SchemaError: a word without ``=``, or a value that is not YAML.
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise SchemaError(f"'{word}' is not like section.key=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SchemaError(f"'{word}': '{text}' is not a YAML value.") from None
        found[key] = _with_numbers(value)
    return found


def _with_numbers(value: Any) -> Any:
    """Return a value with texts that are numbers as numbers, at any depth: YAML 1.1 reads 1e-3 as text."""
    if isinstance(value, Mapping):
        return {key: _with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner) for inner in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def assign(content: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Lay ``a.b=value`` words over a mapping, see :func:`read_words`."""
    for key, value in read_words(words).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        content = merge(content, value)
    return dict(content)


def fill(kind: type[T], content: Any, where: str) -> T:
    """Return a dataclass filled from a mapping.

    Args:
        kind: the dataclass; nested dataclasses, tuples, mappings, numbers, text and optional values are understood.
        content: what the YAML file holds there.
        where: file and key, for messages.

    Raises:
        SchemaError: an unknown key (the nearest is suggested), a missing one, or a value of another type.
    """
    if not isinstance(content, Mapping):
        raise SchemaError(f"{where}: expected a mapping of keys, found {content!r}.")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in content:
        if key not in fields:
            raise SchemaError(f"{where}: no key '{key}'.{did_you_mean(str(key), fields)} Keys: {', '.join(fields)}.")
    hints = typing.get_type_hints(kind)
    values = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in content.items()}
    missing = [
        f.name
        for f in fields.values()
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SchemaError(f"{where}: missing key '{missing[0]}'.")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [a for a in arguments if a is not type(None)]
        lists = [a for a in kinds if typing.get_origin(a) is tuple] if isinstance(value, list) else []
        return _convert((lists or kinds)[0], value, where)
    if dataclasses.is_dataclass(hint):
        return fill(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SchemaError(f"{where}: expected a list, found {value!r}.")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise SchemaError(f"{where}: expected {len(kinds)} values, found {value!r}.")
        return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SchemaError(f"{where}: expected a mapping of keys, found {value!r}.")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise SchemaError(f"{where}: expected {words.get(hint, hint.__name__)}, found {value!r}.")
    return value
