"""``pdessl inspect``: what is in a store or file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pdessl.cli.parsing import Parser

__all__ = ["main"]


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

    from pdessl.data.inspection import inspect

    found = inspect(options.path)
    print(json.dumps(found.summary, indent=2, default=str) if options.json else found)
    return 0
