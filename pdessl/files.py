"""Files that are whole or not there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import platform
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from filelock import SoftFileLock, Timeout

from pdessl.errors import StoreError

__all__ = [
    "LOCK",
    "checksum",
    "fast_checksum",
    "follows",
    "host",
    "locked",
    "process_lives",
    "replacing",
    "versions",
    "write_bytes",
    "write_json",
    "write_text",
    "writes_to",
]

P = ParamSpec("P")
R = TypeVar("R")
LOCK = ".pdessl.lock"
_PIECE = 1 << 18  # of a file at a time: stays in a processor's cache
_WAIT = 0.5  # seconds; one that is about to end may
_NAMELESS = 2.0  # seconds after which a lock without a name is nobody's
_held: dict[Path, int] = {}  # folders locked by this process, and by which of its threads
_REPAIR = "Free space or choose a folder that can be written, and run it again."


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fast_checksum(path: str | os.PathLike[str]) -> str:
    """Return the CRC-32 of a file, eight hexadecimal digits: against damage and mistakes, not against forgers.

    Some gigabytes a second, a part of what SHA-256 takes on processors without instructions for it.
    """
    value, piece = 0, memoryview(bytearray(_PIECE))
    with open(path, "rb", buffering=0) as handle:
        while count := handle.readinto(piece):
            value = zlib.crc32(piece[:count], value)
    return f"{value:08x}"


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on; they are written with what was computed."""
    import numpy
    import torch

    import pdessl

    return {
        "pdessl": pdessl.__version__,
        "torch": str(torch.__version__),  # a class of its own, which a safe reader of checkpoints refuses
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def host() -> str:
    """Return the name of this machine, of characters that may stand in a file's name."""
    return re.sub(r"[^\w-]", "-", socket.gethostname(), flags=re.ASCII) or "localhost"


def process_lives(number: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError, ValueError):
        return False
    except OSError:  # it is another user's
        return True
    return True


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], repair: str = _REPAIR, keep: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; afterwards it is flushed to disk and renamed.

    A reader, or a process killed at any moment, sees the former file or the whole new one. The temporary file lies in
    the same folder: a rename within one file system is one step, while a move between two is a copy over the former
    file. What a killed process left of its own attempt at the same file is removed.

    Args:
        path: the file; folders above it are made.
        repair: what a message adds, a sentence.
        keep: where the former file is kept, in the same folder, once the new one is whole on disk.

    Raises:
        StoreError: the folder cannot be written or the disk is full; the message names the file. The former file is as
            it was, and nothing half-written is left.
    """
    place = Path(path)
    temporary = place.with_name(f".{place.name}.{host()}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        if keep is not None and place.exists():
            _keep(place, Path(keep))
        os.replace(temporary, place)
        _flush_folder(place.parent)
    except OSError as error:
        _remove(temporary)
        if isinstance(error, StoreError):
            raise
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"cannot write {place}: {reason}. Nothing half-written is left. {repair}") from error
    except BaseException:
        _remove(temporary)
        raise


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], again: bool = False) -> Iterator[None]:
    """Keep a folder to this process while it writes there; the folder is made if it is missing.

    The lock is a file that says who holds it (process and machine). It works wherever a file can be made that no
    other process made: also on network file systems, whose own locks are often absent. One whose process lives no more
    is taken over on the same machine; whether a process of another machine lives cannot be known from here. One that
    names nobody is of a process killed in the instant between making it and writing to it: it is taken over after it
    has been so for some seconds.

    Args:
        folder: what is kept.
        again: take it also where this thread has it already: a verb that calls another.

    Raises:
        StoreError: another process (or thread) writes there, or the folder cannot be written.
    """
    place = Path(folder)
    key = place.absolute()
    if again and _held.get(key) == threading.get_ident():
        yield
        return
    if place.exists() and not place.is_dir():
        raise StoreError(f"{place} is a file; choose a folder.")
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _acquired(place / LOCK)
    except OSError as error:
        raise StoreError(f"cannot write {place / LOCK}: {error.strerror or error}. {_REPAIR}") from error
    _held[key] = threading.get_ident()
    try:
        yield
    finally:
        del _held[key]
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                place.rmdir()  # only if nothing was written


def _acquired(path: Path) -> SoftFileLock:
    """Return the lock, held.

    Raises:
        StoreError: another process holds it.
    """
    for _ in range(2):
        lock = SoftFileLock(path, timeout=_WAIT, poll_interval=_WAIT / 10)
        try:
            lock.acquire()
        except Timeout:
            if _abandoned(path):
                _remove(path)
                continue
            break
        if _holder(path).startswith(f"process {os.getpid()} "):
            for left in path.parent.glob(f"{path.name}.break.*"):  # of processes killed while they took a lock over
                number = left.name.removeprefix(f"{path.name}.break.").partition(".")[0]
                if number.isdecimal() and not process_lives(int(number)):
                    _remove(left)
            return lock
        lock.release()  # taken for abandoned by another, while this process stood still before it wrote its name
        break
    raise StoreError(
        f"another process writes to {path.parent}: {_holder(path)}. Wait for it or choose another folder. If it is "
        f"known to have ended, delete {path}."
    )


def _abandoned(path: Path) -> bool:
    """Whether a lock names nobody, and stays so for longer than it takes to write a name."""
    try:
        before = path.stat()
        time.sleep(_NAMELESS if before.st_size == 0 else 0)
        after = path.stat()
    except OSError:
        return False
    return before.st_size == after.st_size == 0 and (before.st_ino, before.st_mtime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
    )


def writes_to(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that writes to the folder in its argument ``name``: it is :func:`locked` meanwhile.

    None as folder locks nothing. Of the processes that a launcher starts for one run, only the first locks.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def locking(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            folder = given.arguments[name]
            with contextlib.nullcontext() if folder is None or follows() else locked(folder, again=True):
                return function(*args, **kwargs)

        return locking

    return decorate


def follows() -> bool:
    """Whether this process is one of several that a launcher started for one run, and not the first of them."""
    numbers = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return any(number.isdecimal() and int(number) > 0 for number in numbers)


def _holder(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        words = []
    return f"process {words[0]} on {words[1]}" if len(words) > 1 else "which one is not known"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _keep(place: Path, name: Path) -> None:
    """Give a file a second name, or its only one where the file system has no such thing."""
    second = place.with_name(f".{name.name}.{host()}.{os.getpid()}.tmp")
    try:
        _remove(second)
        os.link(place, second)
    except OSError:
        os.replace(place, name)
        return
    os.replace(second, name)
    _remove(second)  # renaming does nothing where both names are the same file's already


def _sweep(place: Path) -> None:
    """Remove what processes of this machine that live no more left of their attempts at the same file."""
    start = f".{place.name}.{host()}."
    with os.scandir(place.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(start)]
    for name in names:
        number = name.removeprefix(start).removesuffix(".tmp")
        if name.endswith(".tmp") and number.isdecimal() and not process_lives(int(number)):
            _remove(place.with_name(name))


def _flush_folder(folder: Path) -> None:
    """Flush the renaming itself, where the system can; the order of what is renamed is then kept by a power cut too."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview, repair: str = _REPAIR) -> None:
    """Write a file of bytes, see :func:`replacing`."""
    with replacing(path, repair) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str, repair: str = _REPAIR) -> None:
    """Write a text file (UTF-8), see :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"), repair)


def write_json(path: str | os.PathLike[str], content: Any, repair: str = _REPAIR) -> None:
    """Write plain data as JSON, see :func:`replacing`."""
    write_text(path, json.dumps(content, indent=1) + "\n", repair)
