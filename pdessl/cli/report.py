"""``pdessl report``: draw the page of a run again from its tables and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, read the run's tables and arrays, write the page, print its path."""
    parser = Parser(
        "report",
        "Write the tables and figures of a run as one HTML file that needs nothing else. The run's folder holds\n"
        "report.json (the tables) and report.npz (the figures); quickstart, regress and timestep write them.",
        examples=["pdessl report quickstart", "pdessl report runs/viscosity --out shown"],
        python="from pdessl.evaluation.report import read_report, write_report\n"
        "write_report('shown', *read_report('quickstart'))",
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write; default the run's own")
    options = parser.parse_args(arguments)

    from pdessl.evaluation.report import read_report, write_report

    say(write_report(options.out or options.run, *read_report(options.run)))
    return 0
