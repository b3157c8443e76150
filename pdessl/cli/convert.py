"""``pdessl convert``: data of any layout into a store, or into The Well's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, split_rules
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.data.convert` or :func:`pdessl.data.formats.export_well`, print where the data are."""
    parser = Parser(
        "convert",
        "Read data of any layout (a store, PDEArena, LPSDA, PDEBench, The Well, netCDF, Zarr, HDF5 with a mapping)\n"
        "and write them into a store, shard by shard, so that data larger than memory are no problem.",
        examples=[
            "pdessl convert /data/NavierStokes2D_cond/ --out data/smoke",
            "pdessl convert runs/*.nc --mapping my.yaml --out data/mine --set missing=drop",
            "pdessl convert runs/ --out data/mine --split labelled=known,test=0.2",
            "pdessl convert data/burgers --format well --out export/burgers",
        ],
        python="import pdessl\npdessl.convert('runs/', out='data/mine', mapping='my.yaml')",
    )
    parser.add_argument("paths", nargs="+", help="files, or one folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--mapping", help="how to read files: a name of 'pdessl list datasets' or a YAML file; default: recognised"
    )
    parser.add_changes("mapping", "missing=drop")
    parser.add_argument(
        "--format",
        choices=("store", "well"),
        default="store",
        help="layout to write: our store (default), or The Well's",
    )
    parser.add_argument(
        "--split",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=RUNS",
        help="which runs are in which split, e.g. test=0.2, labelled=known, test='viscosity>0.01', test='run_05*.nc',\n"
        "validation=0:10 (numbers as inspect counts), test=group:3; default the splits of the data",
    )
    parser.add_argument("--resume", action="store_true", help="continue a conversion that was interrupted")
    parser.add_argument("--any-version", action="store_true", help="continue what another version of pdessl began")
    options = parser.parse_args(arguments)
    parser.require(options, "out")
    mapping = parser.mapping(options)
    if options.print_config:
        return 0

    from pdessl.data import convert, inspect, open

    path = options.paths[0] if len(options.paths) == 1 else options.paths
    inspect(path, mapping, isolate=True)  # on some damaged files the HDF5 library crashes: not here
    source = open(path, mapping)
    if options.format == "well":
        from pdessl.data.formats.well_export import export_well

        files = export_well(source, options.out)
        say(f"{options.out}: {len(files)} files in The Well's layout")
        return 0
    store = convert(
        source, options.out, resume=options.resume, any_version=options.any_version, split=split_rules(options.split)
    )
    say(f"{options.out}: " + ", ".join(f"{size} {split}" for split, size in store.splits.items()))
    return 0
