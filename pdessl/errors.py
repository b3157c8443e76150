"""The error classes of pdessl.

Every message says what was found, what was expected, and what to do about it. All classes derive from
:class:`PdesslError`, which the command line prints as one line without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CatalogError",
    "CheckpointError",
    "DataError",
    "DependencyError",
    "EquationError",
    "FormatError",
    "PdesslError",
    "ResolutionError",
    "SchemaError",
    "ShapeError",
    "StoreError",
    "SymmetryError",
    "did_you_mean",
]


class PdesslError(Exception):
    """Base of all errors that a user can repair."""


class CatalogError(PdesslError, LookupError):
    """A named equation, dataset, recipe, class or split does not exist."""


class SchemaError(PdesslError, ValueError):
    """A YAML file does not follow its format; the message names file, key, found and expected."""


class EquationError(PdesslError, ValueError):
    """The text of an equation cannot be read; the message shows the place in the text."""


class SymmetryError(PdesslError, ValueError):
    """A vector field or map is not a symmetry, or is not one that was asked for; the message prints the residual."""


class ShapeError(PdesslError, ValueError):
    """A tensor has the wrong shape."""


class DataError(PdesslError, ValueError):
    """Data hold NaN or infinite values, or coordinates that make no sense."""


class ResolutionError(PdesslError, ValueError):
    """The grid or step cannot resolve what was asked for; the message gives one that can."""


class FormatError(PdesslError, ValueError):
    """A file is not in the layout that was expected, or is truncated."""


class StoreError(PdesslError, OSError):
    """A store cannot be written, continued or opened."""


class DependencyError(PdesslError, ImportError):
    """An optional package is not installed; the message says how to install it."""


class CheckpointError(PdesslError, ValueError):
    """A checkpoint belongs to another architecture or task, or is incomplete."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known spelling, or an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
