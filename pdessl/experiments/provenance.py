"""Where results come from: versions, machine; and that a folder can be written before anything is computed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pdessl.errors import StoreError

__all__ = ["check_same_version", "check_writable", "machine", "versions"]


def check_writable(folder: Path) -> None:
    """Fail before minutes of work, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}. Choose another folder with --out.") from None


def check_same_version(written: Any, path: Path, any_version: bool) -> None:
    """Refuse a kept result that another version of pdessl, torch or NumPy computed: one table would mix both.

    Args:
        written: the versions in the file, name -> version.
        path: the file, for messages.
        any_version: accept it.

    Raises:
        StoreError: another version, or none that is known.
    """
    now = versions()
    written = written if isinstance(written, Mapping) else {}
    differ = [f"{n} {written.get(n, 'unknown')} (now {now[n]})" for n in ("pdessl", "torch", "numpy")
              if written.get(n) != now[n]]  # fmt: skip
    if differ and not any_version:
        raise StoreError(
            f"{path} was computed with {', '.join(differ)}; one table would mix both. Choose another folder, install "
            "those versions, or keep it all the same with --any-version (in Python any_version=True)."
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("pdessl", "torch", "lightning", "numpy", "sympy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", "unknown")
    return found


def machine() -> dict[str, Any]:
    """Return system, processor and threads."""
    return {"system": platform.system(), "processor": platform.machine(), "threads": torch.get_num_threads()}
