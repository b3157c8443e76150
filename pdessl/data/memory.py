"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

from pdessl.errors import DataError

__all__ = ["available_memory", "check_memory", "readable_size"]


def available_memory() -> int:
    """Return the bytes that can still be allocated.

    The least of: what the machine has free, what a container's limit leaves, and the limits of the process
    (``ulimit -v``, ``ulimit -d``). The memory of the whole machine where the system tells none of them.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except OSError:
        pass  # not Linux
    return max(min([*found, *_container(), *_limits()]), 0)


def _container() -> list[int]:
    """Return what the limit of a container (cgroup version 2, then 1) leaves."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return [int(Path(limit).read_text()) - int(Path(used).read_text())]
        except (OSError, ValueError):
            continue  # no such file, or "max"
    return []


def _limits() -> list[int]:
    try:
        import resource  # absent on Windows

        pages = [int(n) for n in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    except (ImportError, OSError, ValueError):
        return []
    size = os.sysconf("SC_PAGE_SIZE")
    # statm: address space first, data and stack sixth.
    used = ((resource.RLIMIT_AS, pages[0] * size), (resource.RLIMIT_DATA, pages[5] * size))
    soft = [(resource.getrlimit(kind)[0], held) for kind, held in used]
    return [limit - held for limit, held in soft if limit != resource.RLIM_INFINITY]


def readable_size(size: float) -> str:
    """Return a number of bytes as people write it: ``3.2 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def check_memory(wanted: int, what: str) -> None:
    """Refuse what does not fit into memory before it is allocated.

    Args:
        wanted: bytes.
        what: beginning of the message: what needs them.

    Raises:
        DataError: more bytes than are available.
    """
    # Asking the system costs more than reading a small piece, and a small piece fits.
    if wanted > 64 << 20 and wanted > (available := available_memory()):
        raise DataError(
            f"{what} needs {readable_size(wanted)} of memory, {readable_size(available)} are available. Read fewer "
            f"trajectories (indices=...), frames or fields at once, or convert the data:  "
            f"pdessl convert PATH --out STORE"
        )
