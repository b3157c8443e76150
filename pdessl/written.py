"""Names by strangers in what is written: nothing that a terminal obeys or a spreadsheet computes."""

from __future__ import annotations

from typing import Any, TextIO

__all__ = ["cell", "markdown_cell", "say", "visible"]

_FORMULA = ("=", "+", "-", "@")


def visible(text: str, keep: str = "") -> str:
    r"""Return text in which characters that steer a terminal are written out, an escape as ``\x1b``.

    Args:
        text: what to print.
        keep: characters that stay, such as the ends of lines of a message.
    """
    # Not only control characters: marks that turn the direction of writing hide what a line says.
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def say(what: Any, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print the text of something, :func:`visible` line by line: names of runs, fields and units come from files."""
    print(visible(str(what), keep="\n\t"), end=end, file=file, flush=flush)


def cell(text: str) -> str:
    """Return text for a cell of a table in a file: visible, and behind an apostrophe where it could be a formula.

    Numbers stay as they are.
    """
    shown = visible(text)
    if not shown.lstrip().startswith(_FORMULA):
        return shown
    try:
        float(shown)
    except ValueError:
        return f"'{shown}"
    return shown


def markdown_cell(text: str) -> str:
    """Return text for a cell of a table in Markdown: visible, and without an end of the cell in it."""
    return visible(text).replace("|", "\\|")
