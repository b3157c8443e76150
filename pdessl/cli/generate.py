"""``pdessl generate``: simulate a dataset of the catalog, or of a file, into a store on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, sizes

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.generate`, print where the store is."""
    parser = Parser(
        "generate",
        "Simulate a dataset: draw parameters and initial conditions, integrate the equation in batches, observe, and\n"
        "write HDF5 shards that xarray opens, with a manifest. A killed run is continued with --resume.",
        examples=[
            "pdessl generate burgers --out data/burgers",
            "pdessl generate burgers --out data/small --size unlabelled=256,labelled=64,validation=32,test=64",
            "pdessl generate my_dataset.yaml --out data/mine --device cuda",
        ],
        python="import pdessl\npdessl.generate('burgers', out='data/burgers')",
    )
    parser.add_argument("dataset", help="name from 'pdessl list datasets', or a YAML file")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder of the store to write")
    parser.add_argument(
        "--size",
        type=sizes,
        metavar="N|SPLIT=N,...",
        help="trajectories per split instead of those of the dataset's file",
    )
    parser.add_argument("--device", default="cpu", help="torch device that simulates: cpu, cuda, cuda:1, ...")
    parser.add_argument("--resume", action="store_true", help="continue a generation that was interrupted")
    options = parser.parse_args(arguments)

    from pdessl.data import generate

    store = generate(options.dataset, out=options.out, size=options.size, device=options.device, resume=options.resume)
    print(f"{options.out}: " + ", ".join(f"{size} {split}" for split, size in store.splits.items()))
    if store.rejected_draws:
        print(f"{store.rejected_draws} draws were not finite and were drawn again")
    return 0
