"""``pdessl generate``: simulate a dataset of the catalog, or of a file, into a store on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, sizes
from pdessl.written import say

__all__ = ["main"]


def _workers(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of threads like 4")
    return int(text)


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.generate`, print where the store is."""
    parser = Parser(
        "generate",
        "Simulate a dataset: draw parameters and initial conditions, integrate the equation in batches, observe, and\n"
        "write HDF5 shards that xarray opens, with a manifest. A killed run is continued with --resume.",
        examples=[
            "pdessl generate burgers --out data/burgers",
            "pdessl generate smoke_buoyancy --out data/smoke --size 512 --device cuda --dtype float32",
            "pdessl generate burgers --out data/small --size unlabelled=256,labelled=64,validation=32,test=64",
            "pdessl generate my_dataset.yaml --out data/mine --device cuda --dtype float32",
            "pdessl generate burgers --out data/quiet --set observation.noise=0 observation.points=128",
            "pdessl generate burgers --set observation.noise=0 --print_config > quiet.yaml",
            "pdessl generate ks --out data/ks --size 1000000 --scheduler tcp://10.0.0.1:8786",
            "pdessl generate ks_control_4 --out data/ks4",
        ],
        python="import pdessl\npdessl.generate('burgers', out='data/burgers')",
    )
    parser.add_argument(
        "dataset",
        help="name from 'pdessl list datasets', or a YAML file; or of 'pdessl list environments': runs with actuators",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the store to write")
    parser.add_argument(
        "--size",
        type=sizes,
        metavar="N|SPLIT=N,...",
        help="trajectories of the first split ('unlabelled' in every dataset here); the other splits shrink in "
        "proportion and never grow, so N is not the total. Or per split, the others as in the dataset's file",
    )
    parser.add_changes("dataset's file", "observation.noise=0")
    parser.add_argument("--device", default="cpu", help="torch device that simulates: cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="arithmetic of the simulator (default as in the dataset's file, float64 unless it says); another one is "
        "another recipe: the data differ in their last digits, and after a while altogether where the equation is "
        "chaotic",
    )
    parser.add_argument("--workers", type=_workers, metavar="N", help="threads; default one per processor")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="Dask scheduler, tcp://host:port: the shards are made by its workers"
    )
    parser.add_argument("--resume", action="store_true", help="continue a generation that was interrupted")
    parser.add_argument(
        "--any-version", action="store_true", help="continue what another version of pdessl, torch or NumPy began"
    )
    parser.add_allowed()
    options = parser.parse_args(arguments)
    parser.require(options, "out")

    from rich import filesize

    from pdessl.data import load_recipe
    from pdessl.experiments.allowed_classes import find_beside
    from pdessl.experiments.controlled_runs import generate, is_environment
    from pdessl.schema import dump_yaml

    if is_environment(options.dataset):
        return _environment(options)
    find_beside(options.allow)
    recipe = load_recipe(options.dataset, options.size, options.set, options.allow)
    # What the file says already is not said again: the same data keep the same hash.
    if options.dtype not in (None, recipe.content["solver"].get("precision", "float64")):
        recipe = load_recipe(recipe, overrides={"solver.precision": options.dtype})
    if options.print_config:
        print(dump_yaml(recipe.content), end="")
        return 0
    wanted = ", ".join(f"{split['size']} {name}" for name, split in recipe.splits.items())
    say(f"{recipe.name}: {wanted}; {filesize.decimal(recipe.nbytes)}", flush=True)
    store = generate(
        recipe,
        out=options.out,
        device=options.device,
        resume=options.resume,
        workers=options.workers,
        scheduler=options.scheduler,
        any_version=options.any_version,
    )
    say(f"{options.out}: complete")
    if store.rejected_draws:
        say(f"{store.rejected_draws} draws blew up or were not finite and were drawn again")
    return 0


def _environment(options: argparse.Namespace) -> int:
    from pdessl.control import load_environment
    from pdessl.experiments.controlled_runs import generate, split_sizes
    from pdessl.schema import dump_yaml

    environment = load_environment(options.dataset, options.set)
    if options.print_config:
        print(dump_yaml(environment.file), end="")
        return 0
    sizes_of = split_sizes(options.size)
    wanted = ", ".join(f"{n} {name}" for name, n in sizes_of.items())
    say(f"{environment.name}: {wanted} runs of {environment.steps} control periods", flush=True)
    other = {"workers": options.workers, "scheduler": options.scheduler, "device": options.device}
    generate(
        environment, options.out, sizes_of, resume=options.resume, any_version=options.any_version, **other
    )  # fmt: skip
    say(f"{options.out}: complete")
    return 0
