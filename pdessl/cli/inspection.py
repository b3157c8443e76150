"""``pdessl inspect``: what is in a store, or in files of any layout."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.data.inspect`, print."""
    parser = Parser(
        "inspect",
        "Print what a store, or files of any layout, hold: format, splits, fields, grid, times, parameters,\n"
        "ranges, whether the grid resolves the fields, and what is known to be wrong with them.",
        examples=[
            "pdessl inspect data/burgers",
            "pdessl inspect /data/NavierStokes2D_cond/ --json",
            "pdessl inspect my_runs/ --mapping my.yaml",
            "pdessl inspect data/burgers --verify",
        ],
        python="import pdessl\nprint(pdessl.inspect('data/burgers'))",
    )
    parser.add_argument("path", help="folder of a store; or a file, or a folder of files")
    parser.add_argument(
        "--mapping", help="how to read files: a name of 'pdessl list datasets' or a YAML file; default: recognised"
    )
    parser.add_changes("mapping", "missing=drop")
    parser.add_argument(
        "--verify", action="store_true", help="read every byte of a store and compare it with its checksums first"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for another program to read")
    options = parser.parse_args(arguments)

    from pdessl.data.inspection import inspect, verify

    mapping = parser.mapping(options)
    if options.print_config:
        return 0
    if options.verify:
        say(verify(options.path))
    found = inspect(options.path, mapping, isolate=True)
    say(json.dumps(found.summary, indent=2, default=str) if options.json else found)
    return 0
