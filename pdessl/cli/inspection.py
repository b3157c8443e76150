"""``pdessl inspect``: what is in a store, or in files of any layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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
            "pdessl inspect ks_control_4",
        ],
        python="import pdessl\nprint(pdessl.inspect('data/burgers'))",
    )
    parser.add_argument(
        "path",
        help="folder of a store; a file, or a folder of files; or an environment ('pdessl list environments'): its "
        "actuators, and which modes they reach",
    )
    parser.add_argument(
        "--mapping", help="how to read files: a name of 'pdessl list datasets' or a YAML file; default: recognised"
    )
    parser.add_changes("mapping", "missing=drop")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read everything: a store is compared with its checksums, of files every value is looked at",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for another program to read")
    options = parser.parse_args(arguments)

    from pdessl.data.inspection import inspect, verify

    if not Path(options.path).is_dir() and Path(options.path).suffix in ("", ".yaml", ".yml"):
        from pdessl.control import describe_environment, load_environment
        from pdessl.experiments.controlled_runs import is_environment

        if is_environment(options.path):
            say(describe_environment(load_environment(options.path, options.set)))
            return 0
    mapping = parser.mapping(options)
    if options.print_config:
        return 0
    if options.verify:
        say(verify(options.path, mapping))
    found = inspect(options.path, mapping, isolate=True)
    say(json.dumps(found.summary, indent=2, default=str) if options.json else found)
    return 0
