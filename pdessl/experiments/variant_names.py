"""Names of the variants of a study, each of which names a folder and a row of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pdessl.errors import SchemaError

__all__ = ["check_files", "check_names", "folder_name", "variants_of"]

_LONGEST = 200  # bytes; file systems allow 255


def folder_name(variant: str) -> str:
    """Return the name of the folder of a variant: letters and digits stay, all else becomes ``_``."""
    return "".join(c if c.isalnum() else "_" for c in variant.lower())


def check_names(variants: Iterable[object], config: str, taken: Iterable[str] = ()) -> None:
    """Refuse names that are no text, or of which two would share a folder.

    Args:
        variants: the names.
        config: what messages call the recipe.
        taken: names that the study gives itself.

    Raises:
        SchemaError: the first such name, and what it would share a folder with.
    """
    held = {folder_name(name): f"the study's own '{name}'" for name in taken}
    for name in variants:
        if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _LONGEST:
            raise SchemaError(f"{config}: a variant is named {name!r}; expected a text of 1 to {_LONGEST} bytes.")
        folder = folder_name(name)
        if folder in held:
            raise SchemaError(
                f"{config}: the variant '{name}' would share the folder {folder} with {held[folder]}. Give it another "
                "name, different in letters or digits."
            )
        held[folder] = f"'{name}'"


def check_files(jobs: Iterable[tuple[str, str]], config: str) -> None:
    """Refuse jobs of which two would write their rows into one file.

    Args:
        jobs: file and hash of each; the same job may come twice.
        config: what messages call the recipe.

    Raises:
        SchemaError: the first such file.
    """
    held: dict[str, str] = {}
    for file, content in jobs:
        if held.setdefault(file, content) != content:
            raise SchemaError(
                f"{config}: two jobs would write their rows into {file}. Give what they are named after other names, "
                "different in letters or digits."
            )


def variants_of(content: Mapping[str, Any], keys: Collection[str], config: str, only: Sequence[str]) -> dict[str, Any]:
    """Return the variants of a study's recipe, name -> what is laid over what they share.

    Args:
        content: the recipe.
        keys: that it may have.
        config: what messages call it.
        only: names that must be among the variants.

    Raises:
        SchemaError: unknown keys, no variant, none of a name in ``only``, or names that one folder would serve.
    """
    variants = content.get("variants") or {}
    missing = [name for name in only if name not in variants]
    if set(content) - set(keys) or not variants or missing:
        raise SchemaError(
            f"{config}: expected the keys {', '.join(sorted(keys))} with one variant or more, found "
            f"{', '.join(content)}; variants: {', '.join(variants) or 'none'}"
            f"{f', and none named {missing[0]!r}' if missing else ''}."
        )
    check_names(variants, config)
    return dict(variants)
