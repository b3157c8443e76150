"""Argument parsers of the simple verbs, and readers of common argument forms."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from pdessl.errors import PdesslError

__all__ = ["Parser", "integers", "sizes"]


class Parser(argparse.ArgumentParser):
    """An argument parser for one verb, whose mistakes are reported like all other errors of the user.

    Args:
        verb: the word after ``pdessl``.
        description: what the verb does, in the user's words.
        examples: lines to copy, shown at the end of ``--help``.
        python: the Python call that does the same.
    """

    def __init__(self, verb: str, description: str, examples: Sequence[str] = (), python: str = "") -> None:
        epilog = "Examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else ""
        if python:
            epilog += "\n\nIn Python:\n" + "\n".join(f"  {line}" for line in python.splitlines())
        super().__init__(
            prog=f"pdessl {verb}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise PdesslError(f"{self.prog}: {message}. '{self.prog} --help' explains the options.")


def integers(text: str) -> list[int]:
    """Read ``32,64,256`` as a list of positive whole numbers."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers like 32,64,256") from None
    if any(value <= 0 for value in values):
        raise argparse.ArgumentTypeError(f"'{text}': every number must be positive")
    return values


def sizes(text: str) -> dict[str, int] | int:
    """Read ``1000``, or ``unlabelled=2048,test=512``, as the sizes of a dataset's splits."""
    if "=" not in text:
        return integers(text)[0]
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor like unlabelled=2048,test=512")
    return {name.strip(): integers(value)[0] for name, value in pairs}
