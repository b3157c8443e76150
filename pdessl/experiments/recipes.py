"""Recipes of the catalog, the same for every verb: a file, one of its presets laid over it, other values over that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdessl import catalog
from pdessl.errors import CatalogError, did_you_mean
from pdessl.schema import Overrides, check_keys, merge, override, read_yaml

__all__ = ["read_recipe", "recipe_path"]


def recipe_path(config: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe: of that name in ``pdessl list configs``, or at that path.

    Raises:
        CatalogError: no such recipe.
    """
    return Path(config) if Path(config).is_file() else catalog.find("configs", config)


def read_recipe(
    config: str | os.PathLike[str] | Mapping[str, Any], preset: str | None = None, overrides: Overrides | None = None
) -> dict[str, Any]:
    """Return what a recipe says, as plain data without its presets; who uses it checks its keys.

    Args:
        config: name from ``pdessl list configs``, a file (YAML or JSON), or its content.
        preset: a name under the recipe's key ``presets``, whose values are laid over the others.
        overrides: ``{"section.key": value}`` or ``["section.key=value"]``, laid over that, see
            :func:`pdessl.schema.override`.

    Raises:
        CatalogError: no such recipe or preset.
        SchemaError: the file cannot be read, or a word is not like ``section.key=value``.
    """
    path = Path("the recipe") if isinstance(config, Mapping) else recipe_path(config)
    content = _nested(dict(config) if isinstance(config, Mapping) else read_yaml(path))
    presets = content.pop("presets", None) or {}
    check_keys(presets, None, (), f"{path.name}: presets")
    if preset is not None:
        if preset not in presets:
            known = ", ".join(presets) or "none"
            raise CatalogError(f"{path} has no preset '{preset}'.{did_you_mean(preset, presets)} Presets: {known}.")
        content = merge(content, presets[preset] or {})
    return override(content, overrides)


def _nested(content: Any) -> Any:
    """Write dotted keys under ``overrides`` as nested ones: what is laid over them later finds them."""
    if not isinstance(content, dict):
        return content
    return {
        key: override({}, value) if key == "overrides" and isinstance(value, dict) else _nested(value)
        for key, value in content.items()
    }
