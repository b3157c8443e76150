"""Reading damaged files in a process of its own: the HDF5 library crashes, or never returns, on some of them."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pdessl.errors import FormatError, PdesslError

__all__ = ["isolated"]

LIMIT = 120.0


def isolated(function: Callable[..., Any], *arguments: Any, label: str, limit: float = LIMIT) -> Any:
    """Call a function in another process and return what it returns.

    Args:
        function: importable by name; what it returns must be plain data.
        arguments: its arguments.
        label: file, for messages.
        limit: seconds after which the process is ended.

    Raises:
        FormatError: the process died or did not end: the file is damaged in a way the library does not survive.
        PdesslError: what the function raised.
    """
    # A fork starts at once; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(send, function, arguments), daemon=True)
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
        raise FormatError(
            f"{label}: the HDF5 library crashed on it (exit code {process.exitcode}); the file is damaged. Fetch it "
            f"again."
        ) from None
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        receive.close()
    if good:
        return value
    raise value


def _answer(send: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)  # threads of the parent do not exist here, and waiting for them would never end
    try:
        answer = True, function(*arguments)
    except PdesslError as error:
        answer = False, error
    except (ImportError, OSError, ValueError) as error:
        answer = False, type(error)(str(error))
    send.send(answer)
    send.close()
