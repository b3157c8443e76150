"""Where results come from: versions, machine; and that a folder can be written before anything is computed."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pdessl.errors import StoreError

__all__ = ["check_writable", "machine", "versions"]


def check_writable(folder: Path) -> None:
    """Fail before minutes of work, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}. Choose another folder with --out.") from None


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
