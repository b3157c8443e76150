"""Speed of loading, as ratios measured in one run: python benchmarks/loading.py [--repeats 15] [--folder DIR]

    python benchmarks/loading.py --trajectories 8 --points 16 --stored 64 --repeats 1     # only whether it runs

Two workloads, both random windows in batches of float32 (8 and 64 in a batch), in one process of one thread (and the
data module's thread that reads ahead, which has nothing to overlap with here):

* ``smoke``: 16 of 56 frames of 128 x 128 x 3 from a file in PDEArena's conditioned layout (float64, contiguous),
  as long as those of the set (32 trajectories, 705 MB), written with random numbers to a temporary folder;
* ``store``: 16 frames from the shipped Burgers dataset, 1,024 trajectories.

Beside the data module (from disk, and held in memory: the two ratios given), each from the same files:

* ``whole item`` (smoke): what the public pretraining code for this set does for every item, rewritten: open the file,
  read the whole trajectory of the three fields as float32, build coordinate arrays t, x, y of its shape, stack, cut;
* ``The Well``: the dataset class of the package the_well, if it is installed, on the same numbers in its own layout
  (float32: half the bytes);
* ``h5py``: the file held open, one slice per field and item into one array, no coordinates, no batches: what a loader
  by hand would read.

All are timed in turn, in short runs, many times over, and the best of each is taken. Where other programs take turns
with this one on its processors even the best is a matter of luck; so the processor's time is measured too, of all
threads, in which a run that waits for its turn costs nothing. Ratios are given of both, wall clock first. Everything is
in the page cache of the system: disks are left out of the comparison.
"""

import argparse
import itertools
import logging
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.store import Store
from pdessl.data.windows import Crop

FRAMES = 16


def write_smoke(path, trajectories=32, frames=56, points=128):
    """A training file in PDEArena's layout; values are single precision, stored as double."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        for name in ("u", "vx", "vy"):
            values = group.create_dataset(name, (trajectories, frames, points, points), dtype=float)
            for k in range(trajectories):
                values[k] = rng.standard_normal((frames, points, points), dtype=np.float32)
        group["t"] = np.tile(np.linspace(18.0, 102.0, frames), (trajectories, 1))
        group["dt"] = np.full(trajectories, 1.5)
        for axis in ("x", "y"):
            group[axis] = np.tile(np.linspace(0.0, 32.0, points), (trajectories, 1))
            group[f"d{axis}"] = np.full(trajectories, 32.0 / (points - 1))
        group["buo_y"] = np.full(trajectories, 0.3)


def write_well(folder, smoke):
    """The same numbers in The Well's layout: a scalar and a vector field."""
    path = folder / "well" / "data" / "train" / "smoke.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(smoke) as source, h5py.File(path, "w") as file:
        group = source["train"]
        trajectories, frames, points, _ = group["u"].shape
        file.attrs.update(
            dataset_name="smoke", grid_type="cartesian", n_spatial_dims=2, n_trajectories=trajectories, buoyancy=0.3
        )
        file.attrs["simulation_parameters"] = ["buoyancy"]
        places = file.create_group("dimensions")
        places.attrs["spatial_dims"] = ["x", "y"]
        for name, nodes in (("time", np.arange(frames)), ("x", np.arange(points)), ("y", np.arange(points))):
            places[name] = nodes.astype("f4")
            places[name].attrs.update(sample_varying=False, time_varying=False)
        conditions = file.create_group("boundary_conditions")
        for axis in ("x", "y"):
            side = conditions.create_group(f"{axis}_wall")
            side.attrs.update(bc_type="WALL", sample_varying=False, time_varying=False)
            side.attrs["associated_dims"], side.attrs["associated_fields"] = [axis], []
            side["mask"] = np.arange(points) % (points - 1) == 0
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["buoyancy"]
        scalars["buoyancy"] = np.float32(0.3)
        scalars["buoyancy"].attrs.update(sample_varying=False, time_varying=False)
        fields = {0: {"smoke": group["u"][()]}, 1: {"velocity": np.stack([group["vx"], group["vy"]], axis=-1)}, 2: {}}
        for order, held in fields.items():
            tensors = file.create_group(f"t{order}_fields")
            tensors.attrs["field_names"] = list(held)
            for name, values in held.items():
                tensors[name] = values.astype("f4")
                tensors[name].attrs.update(dim_varying=[True, True], sample_varying=True, time_varying=True)
    return folder / "well"


def write_store(folder, trajectories=1024):
    from pdessl.data import generate

    sizes = {"unlabelled": trajectories, "labelled": 16, "validation": 16, "test": 16}
    return generate("burgers", folder, size=sizes, progress=False)


def loaded(path, items, batch_size, **settings):
    """Return a run over whole epochs of the data module's training loader; it returns how many items it loaded."""
    module = PDEDataModule(path, batch_size=batch_size, crop=Crop(frames=FRAMES), **settings)
    loader = module.train_dataloader()
    epoch = itertools.count()

    def run():
        done = 0
        while done < items:
            loader.sampler.set_epoch(next(epoch))
            for batch in loader:
                done += len(batch)
        return done

    return run


def whole_items(path, items):
    """Return a run that reads whole trajectories and tiles coordinates, item by item, batched."""
    rng = np.random.default_rng(1)
    with h5py.File(path) as held:
        trajectories, frames = held["train/u"].shape[:2]

    def item(number, first):
        with h5py.File(path) as file:
            group = file["train"]
            u, vx, vy = (torch.tensor(group[name][number]).float() for name in ("u", "vx", "vy"))
            frames, points, _ = u.shape
            t = np.tile(np.asarray(group["t"][number])[:, None, None], (1, points, points))
            x = np.tile(np.asarray(group["x"][number])[None, None, :], (frames, points, 1))
            y = np.tile(np.asarray(group["y"][number])[None, :, None], (frames, 1, points))
        coordinates = [torch.from_numpy(a).float() for a in (x, y, t)]
        return torch.stack([*coordinates, u, vx, vy])[:, first : first + FRAMES]

    def run():
        for _ in range(items // 8):
            torch.stack([item(rng.integers(trajectories), rng.integers(frames - FRAMES + 1)) for _ in range(8)])
        return items // 8 * 8

    return run


def raw_items(path, names, items):
    """Return a run of plain h5py on an open file: a slice per field, nothing else."""
    rng = np.random.default_rng(2)
    file = h5py.File(path)
    fields = [file[name] for name in names]
    trajectories, frames, *space = fields[0].shape
    out = np.empty((len(fields), FRAMES, *space), np.float32)

    def run():
        for _ in range(items):
            number, first = rng.integers(trajectories), rng.integers(frames - FRAMES + 1)
            for place, field in zip(out, fields, strict=True):
                place[...] = field[number, first : first + FRAMES]
        return items

    return run


def well_items(base, items):
    """Return a run of The Well's dataset class behind torch's loader in this process; None: not installed."""
    try:
        from the_well.data import WellDataset
    except ImportError:
        return None
    dataset = WellDataset(
        path=str(base),
        well_split_name="train",
        n_steps_input=FRAMES - 1,
        n_steps_output=1,
    )
    loader = torch.utils.data.DataLoader(dataset, 8, shuffle=True, drop_last=True)

    def run():
        done = 0
        for batch in loader:
            done += len(batch["input_fields"])
            if done >= items:
                return done
        return done

    return run


def verifying(store):
    """Print what it costs to compare every shard with its checksum when it is first opened, beside an epoch from disk.

    The median of pairs taken in turn: one epoch of windows in the order of the data module, from a store just opened.
    """
    from pdessl.data.shards import VERIFIED

    extra, epochs = [], []
    for _ in range(15):
        VERIFIED.clear()
        start = time.perf_counter()
        opened = Store(store.path)
        for entry in opened.shards("unlabelled"):
            opened._shard("unlabelled", entry)
        checked = time.perf_counter() - start
        start = time.perf_counter()
        plain = Store(store.path, verify=False)
        for entry in plain.shards("unlabelled"):
            plain._shard("unlabelled", entry)
        extra.append(checked - (time.perf_counter() - start))
        run = loaded(store.path, 1024, 64, memory=0)
        start = time.perf_counter()
        run()
        epochs.append(time.perf_counter() - start)
    cost, epoch = float(np.median(extra)), float(np.median(epochs))
    size = sum(entry["bytes"] for entry in store.shards("unlabelled"))
    print(f"checksums when first opened: {size / 1e6:.0f} MB in {cost * 1e3:.1f} ms, {size / cost / 1e9:.1f} GB/s;")
    print(
        f"  {cost / epoch:.1%} of one epoch of windows from disk ({epoch * 1e3:.0f} ms), {cost / epoch / 10:.1%} of ten"
    )


def compare(title, ours, others, repeats):
    """Time all in turn, many times over, and print the best of each."""
    runs = {**ours, **{name: run for name, run in others.items() if run is not None}}
    wall, processor = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0.0)
    for _ in range(repeats):
        for name, run in runs.items():
            start, spent = time.perf_counter(), time.process_time()
            items = run()
            processor[name] = max(processor[name], items / (time.process_time() - spent))
            wall[name] = max(wall[name], items / (time.perf_counter() - start))
    print(title)
    for name in runs:
        ratios = (f"{wall[mine] / wall[name]:.2f}x ({processor[mine] / processor[name]:.2f}x)" for mine in ours)
        print(f"  {name:<20} {wall[name]:>8.0f} items/s", "" if name in ours else f"  {', '.join(ratios)}")
    for name in others.keys() - runs.keys():
        print(f"  {name:<20} not installed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--trajectories", type=int, default=32, help="of smoke, a multiple of 8")
    parser.add_argument("--points", type=int, default=128, help="of each axis of smoke")
    parser.add_argument("--stored", type=int, default=1024, help="Burgers runs, at least 64")
    parser.add_argument("--folder", type=Path, default=None, help="folder for the files")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        smoke = folder / "smoke" / "NavierStokes2D_train_1_0.30000_32.h5"
        smoke.parent.mkdir()
        write_smoke(smoke, arguments.trajectories, points=arguments.points)
        settings = {"mapping": "pdearena_smoke_conditioned", "splits": {"labelled": 0, "validation": 0, "test": 0}}
        compare(
            f"smoke: windows of 16 x {arguments.points} x {arguments.points} x 3, float64 on disk",
            {
                "pdessl, from disk": loaded(smoke.parent, 32, 8, memory=0, **settings),
                "pdessl, in memory": loaded(smoke.parent, 32, 8, **settings),
            },
            {
                "whole item": whole_items(smoke, 8),
                "The Well": well_items(write_well(folder, smoke), 8),
                "h5py": raw_items(smoke, ["train/vx", "train/vy", "train/u"], 32),
            },
            arguments.repeats,
        )
        store = write_store(folder / "store", arguments.stored)
        items = 2 * arguments.stored
        verifying(store)
        shard = store.path / store.shards("unlabelled")[0]["file"]
        compare(
            "store: windows of 16 frames, float32 on disk",
            {
                "pdessl, from disk": loaded(store.path, items, 64, memory=0),
                "pdessl, in memory": loaded(store.path, items, 64),
            },
            {"h5py": raw_items(shard, ["u"], items)},
            arguments.repeats,
        )


if __name__ == "__main__":
    main()
