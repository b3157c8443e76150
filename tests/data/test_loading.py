"""Loading: read ahead, in worker processes, from data larger than the memory that is allowed."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import pdessl.data
from pdessl.data.arrays import MAX_OPEN, open_files
from pdessl.data.loading import TrajectoryLoader, read_ahead
from pdessl.data.sampling import IndexBatches
from pdessl.data.selection import Selection
from pdessl.data.windows import Crop, Windows
from pdessl.errors import DataError, FormatError


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """A store of 26 shards of one trajectory each: more files than are held open."""
    sizes = {"unlabelled": 26, "labelled": 0, "validation": 0, "test": 0}
    folder = tmp_path_factory.mktemp("stores") / "many"
    return pdessl.data.generate("burgers_small", folder, size=sizes, overrides={"shard_size": 1}, progress=False)


def loader(store, **settings):
    windows = Windows([Selection.whole(store, ["unlabelled"])], Crop(frames=7, points=12), labels=False)
    sampler = IndexBatches(len(windows), 4, seed=3, window_axes=windows.window_axes)
    return TrajectoryLoader(windows, sampler, **settings)


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.fields, b.fields) and torch.equal(a.time, b.time) and torch.equal(a.index, b.index)


WAYS = {
    "ahead": {"ahead": 3},
    "fork": {"num_workers": 2, "start_method": "fork"},
    "spawn": {"num_workers": 1, "start_method": "spawn"},
}


# Starting a process by fork while other threads live is deprecated from Python 3.12 on; torch's loader does it.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_threads_and_processes_give_the_same_batches(many_shards, how):
    alone = loader(many_shards, ahead=0)
    expected = list(alone)  # this process has files open when the others start
    assert open_files() <= 2 * MAX_OPEN
    other = loader(many_shards, **how)
    same(list(other), expected)
    alone.sampler.set_epoch(1)
    other.sampler.set_epoch(1)
    same(list(other), list(alone))


def test_what_is_read_ahead_is_not_counted_as_seen(many_shards):
    made = loader(many_shards, ahead=4)
    batches = iter(made)
    used = [next(batches) for _ in range(3)]
    state = made.state_dict()
    assert state == {"seen": 3}
    del batches
    resumed = loader(many_shards, ahead=4)
    resumed.load_state_dict(state)
    same([*used, *resumed], list(loader(many_shards, ahead=0)))
    assert resumed.state_dict() == {"seen": 0}  # the epoch is done


def test_a_thread_reads_ahead_while_the_caller_works():
    taken = []

    def numbers():
        for k in range(6):
            taken.append(k)
            yield k

    ahead = read_ahead(numbers(), 3)
    assert next(ahead) == 0
    for _ in range(200):
        if len(taken) == 3:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert taken == [0, 1, 2]  # three in advance, the one in use included, and no more
    assert list(ahead) == [1, 2, 3, 4, 5]


def test_the_thread_ends_with_the_loop_and_errors_come_where_they_belong(many_shards):
    before = threading.active_count()
    for batch in loader(many_shards, ahead=2):
        assert len(batch) == 4
        break
    del batch
    assert threading.active_count() == before

    def broken():
        yield 1
        raise FormatError("the second is damaged")

    seen = []
    with pytest.raises(FormatError, match="the second is damaged"):
        for k in read_ahead(broken(), 4):
            seen.append(k)
    assert seen == [1] and threading.active_count() == before


def test_a_damaged_file_is_reported_from_a_worker(many_shards, tmp_path):
    import shutil

    store = pdessl.data.open(shutil.copytree(many_shards.path, tmp_path / "copy"))
    made = loader(store, num_workers=1, start_method="fork")
    shard = store.path / "unlabelled-00007.nc"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"unlabelled-00007\.nc is damaged"):
        list(made)


def test_bad_arguments(many_shards):
    with pytest.raises(DataError, match="num_workers and ahead must be at least 0, found -1 and 2"):
        loader(many_shards, num_workers=-1)


# The limit is on the memory the process may write to (RLIMIT_DATA: heap, private mappings, thread stacks). Mappings of
# the files it reads do not count: their pages belong to the system's cache, which takes them back when they are needed.
LARGER = """
import resource, sys
import numpy as np
import pdessl.data
from pdessl.data.datamodule import Crop, PDEDataModule

def written():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))

module = PDEDataModule(sys.argv[1], batch_size=16, crop=Crop(frames=16), splits={"test": 0, "labelled": 0},
                       group_by="trajectory", mapping="pdearena_smoke_conditioned")
module.setup()
before = written()
limit = before + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(int(sys.argv[2]) + 2**20, np.uint8)
    sys.exit("the limit does not limit")
except MemoryError:
    pass
seen, total = 0, 0.0
for epoch in range(2):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    for batch in loader:
        seen += len(batch)
        total += float(batch.fields.mean())
print(seen, np.isfinite(total), module.statistics["s"].std)
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    """302 MB in PDEArena's layout; the values of a trajectory are its number."""
    import h5py

    path = tmp_path_factory.mktemp("large") / "NavierStokes2D_train_1_0.30000_48.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        for name in ("u", "vx", "vy"):
            values = group.create_dataset(name, (48, 64, 64, 64), "f8")
            for k in range(48):
                values[k] = np.full((64, 64, 64), k, "f8")
        group["t"] = np.tile(np.linspace(18.0, 102.0, 64), (48, 1))
        group["dt"] = np.full(48, 1.5)
        for axis in "xy":
            group[axis] = np.tile(np.linspace(0.0, 32.0, 64), (48, 1))
            group[f"d{axis}"] = np.full(48, 32 / 63)
        group["buo_y"] = np.full(48, 0.3)
    yield path
    path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="limits on data are as described on Linux")
def test_a_file_several_times_larger_than_the_memory_allowed_is_trained_on(large_file):
    assert large_file.stat().st_size > 300e6
    allowed = 96 << 20
    run = subprocess.run(
        [sys.executable, "-c", LARGER, str(large_file.parent), str(allowed)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    seen, finite, std = run.stdout.split()
    assert int(seen) == 2 * 43 and finite == "True" and float(std) == pytest.approx(np.arange(48).std(), rel=0.2)
    assert "memory-mapped" in run.stderr
