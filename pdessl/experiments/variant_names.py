"""Names of the variants of a study, each of which names a folder and a row of a table."""

from __future__ import annotations

from collections.abc import Iterable

from pdessl.errors import SchemaError

__all__ = ["check_names", "folder_name"]

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
