"""Files that are whole or not there: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["write_json", "write_text"]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8); folders above it are made. A process that is killed leaves the former file as it was.

    Raises:
        OSError: the folder cannot be written to.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain data as JSON, see :func:`write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")
