"""Environments of the catalog, or of a YAML file: on an interval, or on a plane."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pdessl import catalog
from pdessl.control.controlled import ControlledPDE
from pdessl.control.description import EnvironmentFile
from pdessl.control.environment import Environment
from pdessl.control.plane import PlaneEnvironment
from pdessl.control.plane_description import PlaneFile
from pdessl.errors import DataError
from pdessl.schema import Overrides, fill, override, read_yaml

__all__ = ["environment_file", "interval_environment", "load_environment", "make_environment", "read_environment"]


def environment_file(content: Any, where: str) -> EnvironmentFile | PlaneFile:
    """Return what an environment's file says; one whose domain has ``lengths`` is on a plane.

    Raises:
        SchemaError: a key or a value that does not belong, with its place.
    """
    domain = content.get("domain") if isinstance(content, Mapping) else None
    if isinstance(domain, Mapping) and "lengths" in domain:
        return fill(PlaneFile, content, where)
    return fill(EnvironmentFile, content, where)


def read_environment(
    name: str | os.PathLike[str], overrides: Overrides | None = None
) -> tuple[str, EnvironmentFile | PlaneFile]:
    """Read an environment of the catalog, or a YAML file; return its name and what it says.

    Args:
        name: name from ``pdessl list environments``, or the path of a YAML file.
        overrides: other values by dotted key, see :func:`pdessl.schema.override`.

    Raises:
        CatalogError: no such environment.
        SchemaError: a key or a value that does not belong, with its place.
    """
    path = Path(catalog.find("environments", name))
    return path.stem, environment_file(override(read_yaml(path), overrides), str(path))


def make_environment(
    name: str, file: EnvironmentFile | PlaneFile, device: torch.device | str = "cpu"
) -> Environment | PlaneEnvironment:
    """Return what a file describes."""
    return PlaneEnvironment(name, file, device) if isinstance(file, PlaneFile) else Environment(name, file, device)


def load_environment(
    name: str | os.PathLike[str], overrides: Overrides | None = None, device: torch.device | str = "cpu"
) -> Environment | PlaneEnvironment:
    """Return an environment of the catalog (``pdessl list environments``), or of a YAML file.

    Args:
        name: name or path.
        overrides: other values by dotted key, ``{"control.steps": 100}``, or words, ``["control.steps=100"]``.
        device: where states lie.

    Raises:
        CatalogError: no such environment.
        SchemaError: a file that does not follow its format.
    """
    return make_environment(*read_environment(name, overrides), device)


def interval_environment(environment: ControlledPDE, what: str) -> Environment:
    """Return the environment where it is on an interval.

    Args:
        environment: any.
        what: needs that, for the message.

    Raises:
        DataError: one on a plane.
    """
    if not isinstance(environment, Environment):
        raise DataError(
            f"{environment.name} is on a plane; {what} on an interval only. Plan with the solver as model (without "
            "--model), or choose an environment of one axis ('pdessl list environments')."
        )
    return environment
