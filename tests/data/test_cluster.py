"""Generation on a Dask cluster: the shards of one machine, also when a worker dies."""

import os
import signal
import sys

import pytest

import pdessl.data
from pdessl import cli
from pdessl.data.manifest import MANIFEST
from pdessl.errors import DataError, DependencyError, StoreError

distributed = pytest.importorskip("distributed")

SHARDS = {"shard_size": 4}
SIZE = {"unlabelled": 12, "labelled": 8, "validation": 4, "test": 4}


def files(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "store"
    return pdessl.data.generate("burgers_small", path, SIZE, overrides=SHARDS, progress=False)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


def test_a_worker_killed_on_the_way_changes_nothing(alone, cluster, tmp_path):
    killed, done = [], []

    def kill_one(state):
        done.append(state.done)
        if not killed:
            with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
                killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)
            # As if it had been killed while it wrote: by chance it is.
            (tmp_path / "s" / f".unlabelled-00002.nc.{killed[0]}.tmp").write_bytes(b"half a shard")

    store = pdessl.data.generate(
        "burgers_small",
        tmp_path / "s",
        SIZE,
        overrides=SHARDS,
        progress=kill_one,
        scheduler=cluster.scheduler_address,
    )
    assert len(killed) == 2 and len(done) == 7 and done[-1] == 28
    assert store.complete and store.verify() == []
    assert files(store.path) == files(alone.path)


def test_workers_that_do_not_see_the_folder_send_their_shards(alone, cluster, tmp_path, monkeypatch):
    """The marker by which a worker recognises the folder lies elsewhere: bytes come over the network."""
    import contextlib

    from pdessl.data import cluster as module

    @contextlib.contextmanager
    def nowhere(folder):
        yield folder / "not_there.tmp"

    monkeypatch.setattr(module, "_marked", nowhere)
    address = cluster.scheduler_address
    store = pdessl.data.generate(
        "burgers_small", tmp_path / "s", SIZE, overrides=SHARDS, progress=False, scheduler=address
    )
    assert files(store.path) == files(alone.path)


def test_an_unfinished_store_is_continued_on_a_cluster_by_the_command_line(alone, cluster, tmp_path):
    import shutil

    from pdessl.data.manifest import read_manifest, write_manifest

    out = shutil.copytree(alone.path, tmp_path / "s")
    manifest = read_manifest(out)
    gone = manifest["splits"]["unlabelled"]["shards"].pop(1)
    manifest["complete"] = False
    write_manifest(out, manifest)
    (out / gone["file"]).write_bytes(b"half a shard")
    kept = (out / "test-00000.nc").stat().st_mtime_ns
    sizes = ",".join(f"{split}={size}" for split, size in SIZE.items())
    words = ["generate", "burgers_small", "--out", str(out), "--size", sizes, "--set", "shard_size=4", "--resume"]
    assert cli.main([*words, "--scheduler", cluster.scheduler_address]) == 0
    assert files(out) == files(alone.path) and (out / "test-00000.nc").stat().st_mtime_ns == kept


def test_an_error_of_the_user_comes_back_as_such(cluster, tmp_path):
    with pytest.raises(DataError, match="no device 'cuda:99' here"):
        pdessl.data.generate(
            "burgers_small",
            tmp_path / "s",
            SIZE,
            progress=False,
            device="cuda:99",
            scheduler=cluster.scheduler_address,
        )
    store = pdessl.data.open(tmp_path / "s")
    assert not store.complete and os.listdir(store.path) == [MANIFEST]


BROKEN = """
from pdessl.solvers import Burgers

class Broken(Burgers):
    def solve(self, *arguments):
        raise RuntimeError("a bad memory module")
"""


def test_a_shard_that_fails_on_every_worker_is_an_error_in_the_end(cluster, tmp_path, monkeypatch):
    (tmp_path / "broken_simulator.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.upload_file(str(tmp_path / "broken_simulator.py"))
    with pytest.raises(StoreError, match="failed 4 times on the cluster: RuntimeError: a bad memory module.*--resume"):
        pdessl.data.generate(
            "burgers_small",
            tmp_path / "s",
            SIZE,
            progress=False,
            overrides={"solver.simulator": "broken_simulator.Broken"},
            scheduler=cluster.scheduler_address,
        )


def test_other_versions_on_a_worker_are_refused(cluster, tmp_path, monkeypatch):
    from pdessl.data import cluster as module

    real = module.versions
    monkeypatch.setattr(module, "versions", lambda: real() | {"torch": "0.1"})
    with pytest.raises(StoreError, match=r"a worker of the cluster has torch .* \(here 0.1\).*same versions"):
        pdessl.data.generate("burgers_small", tmp_path / "s", SIZE, progress=False, scheduler=cluster.scheduler_address)


def test_no_scheduler_there(tmp_path, monkeypatch):
    from pdessl.data import cluster as module

    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(StoreError, match="no Dask scheduler at 'tcp://127.0.0.1:9'.*'dask scheduler'"):
        pdessl.data.generate("burgers_small", tmp_path / "s", SIZE, progress=False, scheduler="tcp://127.0.0.1:9")


def test_without_the_package_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"pip install 'pdessl\[dask\]'"):
        pdessl.data.generate("burgers_small", tmp_path / "s", SIZE, progress=False, scheduler="tcp://127.0.0.1:9")
