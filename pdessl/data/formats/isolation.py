"""Reading damaged files in a process of its own: the HDF5 library crashes, or never returns, on some of them."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pdessl.errors import FormatError, PdesslError

__all__ = ["cheap", "isolated"]

LIMIT = 120.0
MEMORY = 4 << 30  # bytes that reading headers, coordinates and a sample may take besides what the process has


def cheap() -> bool:
    """Whether a process starts at once here: by a fork, and not from a worker of a loader, which may have none."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def isolated(function: Callable[..., Any], *arguments: Any, label: str, limit: float = LIMIT) -> Any:
    """Call a function in another process and return what it returns.

    Args:
        function: importable by name; what it returns must survive pickling.
        arguments: its arguments.
        label: file, for messages.
        limit: seconds after which the process is ended; on Linux also after an eighth of them spent computing, as a
            library does that never returns and a slow disk does not.

    Raises:
        FormatError: the process died, did not end or ran out of memory: the file is damaged in a way the library does
            not survive.
        PdesslError, ImportError, OSError, ValueError: what the function raised; RuntimeError with its traceback for
            any other error.
    """
    # A fork starts at once; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(send, math.ceil(limit / 8), function, arguments), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on forks beside threads: the child runs none of them
        process.start()
    send.close()
    try:
        if not receive.poll(limit):
            raise FormatError(f"{label}: reading did not end within {limit:g} s; the file is damaged. Fetch it again.")
        good, value = receive.recv()
    except EOFError:
        process.join()
        end = f"the HDF5 library crashed on it (exit code {process.exitcode})"
        if hasattr(signal, "SIGXCPU") and process.exitcode == -signal.SIGXCPU:
            end = f"reading did not end within {math.ceil(limit / 8)} s of computing"
        raise FormatError(f"{label}: {end}; the file is damaged. Fetch it again.") from None
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        receive.close()
    if isinstance(value, MemoryError):
        raise FormatError(f"{label}: reading it asks for more memory than there is; it is damaged or too large.")
    if good:
        return value
    raise value


def _answer(send: Connection, seconds: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)  # threads of the parent do not exist here, and waiting for them would never end
    _bound(seconds)
    try:
        answer = True, function(*arguments)
    except PdesslError as error:
        answer = False, error
    except MemoryError as error:
        answer = False, MemoryError(str(error))  # numpy's own does not survive pickling
    except (ImportError, OSError, ValueError) as error:
        answer = False, type(error)(str(error))
    except Exception as error:  # noqa: BLE001 - a mistake of ours, which is no damage of the file's
        answer = False, RuntimeError("".join(traceback.format_exception(error)))
    send.send(answer)
    send.close()


def _bound(seconds: int) -> None:
    """Bound the computing time and the memory of this process."""
    try:
        import resource  # absent on Windows

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # data and stack
        wanted = ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_DATA, pages * os.sysconf("SC_PAGE_SIZE") + MEMORY))
        for kind, bound in wanted:
            soft, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (min([bound, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]), hard))
    except (ImportError, OSError, ValueError, IndexError):
        pass  # not Linux: the checks of sizes before reading are what there is
