"""``pdessl design``: the experiment that decides between hypotheses, for a laboratory or in the solver."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, integers
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.design` or :func:`compare_designs`, print what is believed and what comes next."""
    parser = Parser(
        "design",
        "Choose the experiment that decides between values of a parameter, or between rival equations: the initial\n"
        "field, the force, where sensors stand and when they are read. With --out FOLDER the next is written, with\n"
        "a table to fill in; run the same command again and it reads the results, updates the posterior, and writes\n"
        "the one after it. With --truth the experiments are made in the solver. With --compare the ways of choosing\n"
        "are measured against each other. With --label-next: which runs of a dataset to label next.",
        examples=[
            "pdessl design burgers_viscosity --out runs/laboratory        again after result.csv is filled in",
            "pdessl design burgers_viscosity --truth viscosity=0.11 --out runs/loop",
            "pdessl design burgers_or_kdv_burgers --compare information random sobol equal --out runs/design",
            "pdessl design my_study.yaml --set noise=0.01 limits.peak=0.5",
            "pdessl design --label-next 16 --encoder runs/x --data my_runs/ --by d_optimal --out labels.csv",
        ],
        python="found = pdessl.design('burgers_viscosity', {'viscosity': 0.11})\nfound.answers",
    )
    parser.add_argument("study", nargs="?", metavar="STUDY", help="name (configs/design/), or a YAML file")
    parser.add_argument(
        "--by",
        metavar="WAY",
        help="information (expected gain, default), separation (worst case), random, sobol or equal; of --label-next: "
        "random (default), sobol, k_centre or d_optimal",
    )
    parser.add_argument(
        "--truth",
        nargs="+",
        metavar="KEY=VALUE",
        help="make the experiments in the solver, with these parameters: viscosity=0.1 (and equation=NAME of a rival)",
    )
    parser.add_argument(
        "--compare", nargs="*", metavar="WAY", help="measure ways of choosing in the solver; none named: all"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of --compare; default 5")
    parser.add_argument("--experiments", type=int, default=16, metavar="N", help="most experiments; default 16")
    parser.add_argument("--until", type=float, default=0.95, metavar="P", help="weight of a sure answer; default 0.95")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of search and noise; default 0")
    parser.add_changes("study", "noise=0.01")
    parser.add_argument(
        "--label-next", type=integers, metavar="N", help="choose N runs of --data; with --compare N,N,...: measure ways"
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="of --label-next: whose features tell runs apart")
    parser.add_argument("--data", metavar="PATH", help="of --label-next: a store or files")
    parser.add_argument("--target", metavar="NAME", help="of --label-next --compare: the parameter")
    parser.add_argument(
        "--out", type=Path, metavar="PLACE", help="folder of experiments and report; CSV of --label-next"
    )
    options = parser.parse_args(arguments)
    if options.label_next:
        return _label(parser, options)
    if options.study is None:
        parser.error("give a STUDY, or --label-next N")
    if options.truth and options.compare is not None:
        parser.error("--truth makes experiments, --compare measures ways of choosing; give one of them")

    from pdessl.control.rivals import read_study
    from pdessl.experiments.design import WAYS, design
    from pdessl.experiments.design_comparison import compare_designs
    from pdessl.schema import dump_yaml, read_words

    where, content = read_study(options.study, options.set)
    if options.print_config:
        say(dump_yaml(content), end="")
        return 0
    if options.compare is not None:
        found = compare_designs(
            content,
            options.compare or tuple(WAYS),
            seeds=options.seeds,
            experiments=options.experiments,
            level=options.until,
            out=options.out,
            where=where,
        )
        say(found)
        return 0
    result = design(
        content,
        None if options.truth is None else read_words(options.truth),
        by=options.by or "information",
        experiments=options.experiments,
        until=options.until,
        seed=options.seed,
        out=options.out,
        where=where,
    )
    say(result)
    if result.folder is not None:
        say(f"fill in {result.folder / 'result.csv'}, and run the same command again")
    return 0


def _label(parser: Parser, options: argparse.Namespace) -> int:
    if options.study is not None or options.encoder is None or options.data is None:
        parser.error("--label-next needs --encoder and --data, and no STUDY")

    from pdessl.experiments.labelling import compare_labelling, label_next
    from pdessl.inference.labelling import ACQUISITIONS

    if options.compare is not None:
        if options.target is None:
            parser.error("--label-next with --compare needs --target")
        ways = options.compare or tuple(ACQUISITIONS)
        place = {"seeds": options.seeds, "out": options.out}
        compare_labelling(options.encoder, options.data, options.target, options.label_next, ways, **place)
        return 0
    by = options.by or "random"
    say(label_next(options.encoder, options.data, options.label_next[0], by, seed=options.seed, out=options.out))
    return 0
