"""``pdessl inspect``: what is in a store or file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pdessl.cli.parsing import Parser

__all__ = ["format_summary", "main"]


def format_summary(summary: Mapping[str, object] | str, indent: str = "") -> str:
    """Return a nested summary as indented lines, one fact each."""
    if isinstance(summary, str):
        return summary
    lines = []
    for name, value in summary.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", format_summary(value, indent + "  ")]
        elif isinstance(value, (list, tuple)) and not isinstance(value, str):
            lines.append(f"{indent}{name}: " + ", ".join(str(v) for v in value))
        else:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(line for line in lines if line)


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.data.inspect`, print."""
    parser = Parser(
        "inspect",
        "Print what a store or file holds: format, splits, fields, grid, time step, parameters and ranges, origin.",
        examples=["pdessl inspect data/burgers", "pdessl inspect data/burgers --json"],
        python="import pdessl.data\npdessl.data.inspect('data/burgers')",
    )
    parser.add_argument("path", help="folder of a store, or a file of one")
    parser.add_argument("--json", action="store_true", help="print JSON, for another program to read")
    options = parser.parse_args(arguments)

    from pdessl.data import inspect

    summary = inspect(options.path)
    print(json.dumps(summary, indent=2, default=str) if options.json else format_summary(summary))
    return 0
