"""The content folders as YAML files: ``symmetries/`` (equations), ``datasets/``, ``configs/``, ``environments/``."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import Any

from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.schema import read_yaml

__all__ = ["KINDS", "aliases", "find", "folders", "names", "read"]

KINDS = ("symmetries", "datasets", "configs", "environments")


def folders(kind: str) -> list[Path]:
    """Return the folders that hold content of this kind, the user's first.

    Args:
        kind: one of :data:`KINDS`.

    The environment variable ``PDESSL_PATH`` (a list separated like ``PATH``) adds folders that hold ``symmetries/``,
    ``datasets/``, ``configs/`` or ``environments/`` of the user; after them come the folders of the installed package
    or the checkout.
    """
    if kind not in KINDS:
        raise CatalogError(f"no kind of content named '{kind}'.{did_you_mean(kind, KINDS)} Kinds: {', '.join(KINDS)}.")
    user = [Path(p) / kind for p in os.environ.get("PDESSL_PATH", "").split(os.pathsep) if p]
    wheel = Path(str(importlib.resources.files("pdessl"))) / "_content" / kind
    checkout = Path(__file__).resolve().parent.parent / kind
    return [p for p in (*user, wheel if wheel.is_dir() else checkout) if p.is_dir()]


def _files(kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def names(kind: str) -> list[str]:
    """Return the sorted names of all content of a kind; files in subfolders are named ``folder/name``."""
    return sorted(_files(kind))


def aliases(kind: str) -> dict[str, str]:
    """Return the other names that files give themselves under ``aliases``, each with the name it stands for.

    A file whose name is the alias of another goes first, and so does the user's.
    """
    found: dict[str, str] = {}
    for name, path in _files(kind).items():
        try:
            listed = read_yaml(path).get("aliases", [])
        except SchemaError:  # said when that file is asked for
            continue
        for alias in listed if isinstance(listed, list) else []:
            found.setdefault(str(alias), name)
    return found


def find(kind: str, name: str | os.PathLike[str]) -> Path:
    """Return the path of a named file, or of a YAML file given by its path.

    Args:
        kind: one of :data:`KINDS`.
        name: name from :func:`names`, the part after its folder where that is unique, an alias, or a path.

    Raises:
        CatalogError: no such name; the message suggests the nearest and lists where it looked.
    """
    text = os.fspath(name)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if path.is_file():
            return path
        raise CatalogError(f"no file '{text}'. Give an existing YAML file, or a name from 'pdessl list {kind}'.")
    known = _files(kind)
    if text in known:
        return known[text]
    by_stem = [n for n in known if n.rsplit("/", 1)[-1] == text]
    if len(by_stem) == 1:
        return known[by_stem[0]]
    others = aliases(kind)
    if text in others:
        return known[others[text]]
    where = ", ".join(str(p) for p in folders(kind)) or "no folder"
    singular = {"symmetries": "equation", "datasets": "dataset", "configs": "recipe", "environments": "environment"}[
        kind
    ]
    raise CatalogError(
        f"no {singular} named '{text}'.{did_you_mean(text, [*known, *(n.rsplit('/', 1)[-1] for n in known), *others])} "
        f"Searched: {where}. 'pdessl list {kind}' prints all of them."
    )


def read(kind: str, name: str | os.PathLike[str]) -> dict[str, Any]:
    """Find and read a content file; see :func:`find` and :func:`pdessl.schema.read_yaml`."""
    return read_yaml(find(kind, name))
