"""The manifest of a store: what it holds and by which recipe, with the checksums of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pdessl
from pdessl.data.converted import ConvertedRecipe
from pdessl.data.recipe import DatasetRecipe
from pdessl.errors import StoreError
from pdessl.files import versions, write_json

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "REPAIR_WRITING",
    "MANIFEST",
    "continue_with",
    "manifest_recipe",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMAT = "pdessl-store"
FORMAT_VERSION = 1
REPAIR_WRITING = "Free space or choose a folder that can be written, then continue with --resume (resume=True)."


def manifest_recipe(manifest: Mapping[str, Any]) -> DatasetRecipe | ConvertedRecipe:
    """Return the recipe a manifest holds."""
    kind = ConvertedRecipe if "converted" in manifest["recipe"] else DatasetRecipe
    return kind(manifest["dataset"], manifest["recipe"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        StoreError: no such folder or manifest, not JSON, or another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = f"{folder} holds no {MANIFEST}" if folder.is_dir() else f"no folder {folder}"
        raise StoreError(f"{what}. A store is made by: pdessl generate DATASET --out {folder}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Generate the store again into an empty folder.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path} is not the manifest of a pdessl store. Choose the folder 'pdessl generate' wrote.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {manifest.get('format_version')}, "
            f"this pdessl ({pdessl.__version__}) reads {FORMAT_VERSION}. Use the pdessl that wrote "
            f"it, or generate it again."
        )
    _check_manifest(manifest, path)
    return manifest


def _check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest that lacks entries, or names files outside its folder."""
    try:
        recipe = manifest_recipe(manifest)
        if recipe.hash != manifest["recipe_hash"] or not isinstance(manifest["complete"], bool):
            raise ValueError("its recipe and the recipe's hash differ")
        for name, split in recipe.splits.items():
            if manifest["splits"][name]["size"] != split["size"]:
                raise ValueError(f"split {name} has another size than in the recipe")
            for shard in manifest["splits"][name]["shards"]:
                if Path(shard["file"]).name != shard["file"]:
                    raise ValueError(f"'{shard['file']}' is not the name of a file in the folder")
                numbers = [shard[key] for key in ("start", "count", "bytes", "rejected_draws")]
                if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or not isinstance(
                    shard["sha256"], str
                ):
                    raise ValueError(f"shard '{shard['file']}' has numbers {numbers}")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        what = f"has no entry {error}" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{path} is damaged: {what}. Generate the store again into an empty folder.") from error


def continue_with(manifest: dict[str, Any], folder: Path, any_version: bool) -> None:
    """Refuse to add to a store of another version, unless told; then note in the manifest what continued it.

    Raises:
        StoreError: the store was begun by another version of pdessl, torch or NumPy.
    """
    now, begun = versions(), manifest.get("versions")
    begun = begun if isinstance(begun, dict) else {}
    # Another Python changes no number.
    differ = [f"{n} {begun.get(n)} (now {now[n]})" for n in ("pdessl", "torch", "numpy") if begun.get(n) != now[n]]
    if not differ:
        return
    if not any_version:
        raise StoreError(
            f"{folder} was begun with {', '.join(differ)}: its shards would be of two kinds. Install those versions, "
            f"choose another folder, or continue all the same with --any-version (any_version=True)."
        )
    if now not in (held := manifest.setdefault("continued_with", [])):
        held.append(now)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest atomically."""
    write_json(folder / MANIFEST, manifest, REPAIR_WRITING)
