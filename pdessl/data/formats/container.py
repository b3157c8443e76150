"""A file as a set of named arrays, whatever library reads it."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdessl.errors import FormatError, did_you_mean

__all__ = ["Array", "Container"]


@dataclass(frozen=True)
class Array:
    """What is known of an array without reading it.

    Args:
        name: its name in the file.
        shape: its shape.
        dtype: type of its entries.
        dimensions: names of its axes where the file has them, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    dimensions: tuple[str, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class Container(ABC):
    """A file, or an object in memory, that holds named arrays and attributes.

    Attributes:
        path: the file, or None for what is in memory.
        label: what messages call it.
        fill_is_value: what was never written is read as the fill value of the file; else it is NaN.
    """

    path: Path | None
    label: str
    fill_is_value: bool = False

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Return the arrays there are, without reading them."""

    @abstractmethod
    def array(self, name: str) -> Array:
        """Return one array without reading it.

        Raises:
            FormatError: there is none, or it must not be read.
        """

    @abstractmethod
    def read(self, name: str, selection: Sequence[slice | int] = ()) -> np.ndarray:
        """Read an array, or a piece of it, in the machine's byte order."""

    @abstractmethod
    def attributes(self, of: str = "") -> Mapping[str, Any]:
        """Return the attributes of the file, or of one of its groups or arrays, as plain values."""

    def unwritten(self, name: str) -> str:
        """Return how much of an array was never written, in words; empty where all of it was."""
        return ""

    def mapped(self, name: str) -> bool:
        """Whether an array lies in one plain run in the file and is read through a mapping of it."""
        return False

    def dates(self, name: str) -> str:
        """Return ``date`` or ``timedelta`` for an array of dates or durations, which is read as seconds, else ""."""
        return ""

    def find(self, pattern: str) -> str:
        """Return the name of an array, where ``prefix*`` stands for the only one whose name begins so.

        Raises:
            FormatError: none, or several.
        """
        if not pattern.endswith("*"):
            self.array(pattern)
            return pattern
        found = [name for name in self.arrays() if name.startswith(pattern[:-1])]
        if len(found) != 1:
            raise FormatError(
                f"{self.label}: expected one array named '{pattern}', found {', '.join(found) or 'none'}. {self.held()}"
            )
        return found[0]

    def missing(self, name: str) -> FormatError:
        """Return the error for an array that is not there."""
        known = list(self.arrays())
        short = {n.rsplit("/", 1)[-1]: n for n in known}
        return FormatError(
            f"{self.label} has no array '{name}'.{did_you_mean(name, [*known, *short])} {self.held()} "
            f"Map it in the dataset file, e.g.  fields: {{u: {self._likely(name) or 'NAME'}}}"
        )

    def _likely(self, name: str) -> str | None:
        """Return the array that a wrong name may have meant, or that looks most like a field."""
        arrays = self.arrays()
        close = difflib.get_close_matches(name, arrays, n=1)
        return close[0] if close else max(arrays, key=lambda n: len(arrays[n].shape), default=None)

    def held(self) -> str:
        """Return a sentence that lists the arrays."""
        names = []
        for name, array in list(self.arrays().items())[:12]:
            names.append(f"'{name}' {tuple(array.dimensions) if array.dimensions else array.shape}")
        more = len(self.arrays()) - len(names)
        return f"It holds {', '.join(names) or 'no arrays'}{f' and {more} more' if more else ''}."
