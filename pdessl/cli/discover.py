"""``pdessl discover``: the law that unlabelled runs obey, its hidden numbers, and the symmetries it has."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.discover`, print the law and write it."""
    parser = Parser(
        "discover",
        "Find the evolution law that unlabelled runs obey: polynomial, local, first order in time, shared by all runs\n"
        "but for a few numbers. Prints the law, how reliable its numbers are and how much it leaves unexplained, and\n"
        "the symmetries that follow from it. No label and no equation is read.",
        examples=[
            "pdessl discover data/burgers --out runs/law",
            "pdessl discover my_runs/ --out runs/law --candidates",
            "pdessl discover data/large --out runs/law --scratch runs/parts --workers 8",
            "pdessl symmetries runs/law/equation.yaml       the law as an equation file, for all that follows",
        ],
        python="law = pdessl.discover('data/burgers')\ncodes, errors = law.encode(new_runs)",
    )
    parser.add_argument("data", help="folder of a store; or a file, or a folder of files")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write law.json and equation.yaml there")
    parser.add_argument("--split", help="split to read; default unlabelled, else all but validation and test")
    parser.add_argument("--limit", type=int, metavar="N", help="read so many runs at most")
    parser.add_argument("--rank", type=int, metavar="R", help="numbers that differ between runs; default: chosen")
    parser.add_argument(
        "--learned",
        action="store_true",
        help="offer no polynomial and no derivative: drawn functions and free kernels, over one or two axes. "
        "Writes an encoder, and no equation",
    )
    parser.add_argument("--candidates", action="store_true", help="print everything that was tried")
    parser.add_argument(
        "--divergence-free",
        action=argparse.BooleanOptionalAction,
        help="two fields are a velocity whose pressure is not measured; default: found out",
    )
    parser.add_argument(
        "--advected",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="rates along the flow of a velocity without divergence, for frames that are far apart",
    )
    parser.add_argument("--time-order", type=int, choices=(1, 2), default=1, help="order in time; 2 for waves")
    parser.add_argument("--known", metavar="NAMES", default="", help="recorded parameters that may multiply terms")
    parser.add_argument("--high-pass", type=int, metavar="K", help="leave out waves below this number; default: chosen")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="keep products of parts there, to go on from")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that read parts of the data")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="Dask scheduler, tcp://host:port: its workers read parts of the data"
    )
    options = parser.parse_args(arguments)
    if (options.limit is not None and options.limit < 1) or (options.rank is not None and options.rank < 0):
        parser.error("--limit is at least 1, --rank at least 0")
    if (options.high_pass is not None and options.high_pass < 0) or options.workers < 1:
        parser.error("--high-pass is at least 0, --workers at least 1")

    from pdessl.experiments.discovery import boundaries, discover, learn

    if options.learned:
        settings = {"codes": options.rank} if options.rank else {}
        say(learn(options.data, split=options.split, limit=options.limit, out=options.out, **settings))
        if options.out is not None:
            say(f"{options.out}: an encoder; pdessl.load('{options.out}') and 'pdessl regress' read it")
        return 0

    from pdessl.experiments.law_text import candidate_table, summary, symmetry_line
    from pdessl.files import locked
    from pdessl.operators.saving import save_law

    with contextlib.nullcontext() if options.out is None else locked(options.out):
        law = discover(
            options.data,
            split=options.split,
            limit=options.limit,
            scratch=options.scratch,
            workers=options.workers,
            scheduler=options.scheduler,
            rank=options.rank,
            divergence_free=options.divergence_free,
            advected=options.advected,
            time_order=options.time_order,
            known=tuple(n for n in options.known.split(",") if n),
            high_pass=options.high_pass,
        )
        if options.out is not None:  # before anything is printed, to a reader that may go away
            save_law(law, options.out, boundaries(options.data))
    say(summary(law))
    say(symmetry_line(law))
    if options.candidates:
        say(candidate_table(law))
    for warning in law.warnings():
        say(f"warning: {warning}")
    if options.out is not None:
        say(f"{options.out}: law.json, equation.yaml; pdessl.load('{options.out}') reads it")
    return 0
