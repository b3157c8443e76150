"""Other values for what a file says: ``KEY=VALUE`` words and mappings, laid over it by one rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pdessl.errors import SchemaError
from pdessl.schema.text import DEPTH, dump_value, parse_yaml

__all__ = ["Overrides", "merge", "override", "read_words", "write_words"]

#: ``{"section.key": value}``, or the words ``["section.key=value"]`` of a command line.
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]

# A mapping with one of these keys says by it which further keys there are.
_KINDS = ("class_path", "family", "distribution")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping; lists and other values are replaced whole.

    A mapping that names a class (``class_path``), a family of initial fields or forcings (``family``) or a distribution
    (``distribution``) replaces the whole old one: the old arguments belong to another.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and not any(kind in value for kind in _KINDS)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Read ``section.key=value`` words as dotted keys and values; values are YAML as in a file, ``[32, 64]``, ``1e-3``.

    Raises:
        SchemaError: a word without ``=``, or a value that is not YAML.
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(key.split(".")) or key.startswith("-"):
            raise SchemaError(f"'{word}' is not like section.key=value.")
        found[key] = parse_yaml(text, f"'{word}'")
    return found


def write_words(changes: Mapping[str, Any]) -> list[str]:
    """Return the words that :func:`read_words` reads as these changes; nested mappings become dotted keys.

    A mapping that is replaced whole (see :func:`merge`), and one with a key that words cannot name, is one value.
    """
    words = []
    for key, value in changes.items():
        inner = value if isinstance(value, Mapping) and value and not any(kind in value for kind in _KINDS) else {}
        if inner and all(isinstance(k, str) and k and not {".", "="} & set(k) for k in inner):
            words += [f"{key}.{word}" for word in write_words(inner)]
        else:
            words.append(f"{key}={dump_value(value)}")
    return words


def override(content: Mapping[str, Any], changes: Overrides | None) -> dict[str, Any]:
    """Return a copy of ``content`` with changes laid over it, in their order, each by the rule of :func:`merge`.

    Args:
        content: what a file says.
        changes: values by dotted key, ``{"observation.noise": 0.0}``, which says the same as nested mappings; or
            words, ``["observation.noise=0"]``, see :func:`read_words`.

    Raises:
        SchemaError: a word that is not like ``section.key=value``.
    """
    changed = copy.deepcopy(dict(content))
    if isinstance(changes, str):
        raise SchemaError(f"'{changes}': expected a list of words like section.key=value, found one text.")
    for key, value in (changes if isinstance(changes, Mapping) else read_words(changes or ())).items():
        value, parts = copy.deepcopy(value), str(key).split(".")
        if len(parts) > DEPTH:
            raise SchemaError(f"'{key:.60}...': expected at most {DEPTH} names joined by dots, found {len(parts)}.")
        for part in reversed(parts):
            value = {part: value}
        changed = merge(changed, value)
    return changed
