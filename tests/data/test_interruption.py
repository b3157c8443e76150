"""Generation survives being killed, interrupted, and a disk that fills up: nothing is lost and nothing doubled."""

import errno
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

import pdessl.data
from pdessl import cli
from pdessl.data.manifest import MANIFEST, write_manifest
from pdessl.errors import StoreError

SHARDS = {"shard_size": 4}
# A process for each attempt, killed by its parent after a random part of the time a whole generation takes here.
KILLED = """
import os, random, signal, sys, time
import pdessl.data

def generate(out):
    child = os.fork()
    if not child:
        pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=False, workers=1)
        os._exit(0)
    return child

# What is slow once (loading libraries) is done before the clock starts.
pdessl.data.generate("burgers_small", "warm", size=dict(unlabelled=4, labelled=4, validation=4, test=4))
started = time.monotonic()
os.waitpid(generate("whole"), 0)
whole = time.monotonic() - started
for seed in map(int, sys.argv[1:]):
    moments, complete = random.Random(seed), False
    while not complete:
        child = generate(f"store{seed}")
        time.sleep(whole * moments.uniform(0.1, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if os.path.exists(f"store{seed}/manifest.json"):
            store = pdessl.data.open(f"store{seed}")
            shards = [s for split in store.manifest["splits"].values() for s in split["shards"]]
            complete = store.complete
            print(seed, len(shards), len(store.verify()), int(complete))
"""


def files(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store"
    return pdessl.data.generate("burgers_small", path, overrides=SHARDS, progress=False)


def test_killed_again_and_again_at_random_moments_and_resumed_is_bitwise_the_same_store(uninterrupted, tmp_path):
    words = [sys.executable, "-c", KILLED, "0", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    states = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    for seed in range(2):
        counts = [shards for store, shards, damaged, complete in states if store == seed]
        # Nothing that was there is lost. (A kill may come before the first shard, or after the last.)
        assert counts == sorted(counts) and counts[-1] == 20
        store = pdessl.data.open(tmp_path / f"store{seed}")
        assert store.complete and files(store.path) == files(uninterrupted.path)
        indices = [store.load(split).index.tolist() for split in store.splits]
        assert indices == [list(range(n)) for n in store.splits.values()]
    # Every state that a kill left behind is a valid store, and some kills came in the middle.
    assert all(damaged == 0 for _, _, damaged, _ in states)
    assert any(0 < shards < 20 and not complete for _, shards, _, complete in states)


def test_the_command_line_killed_in_the_middle_says_how_to_go_on(uninterrupted, tmp_path, capsys):
    out = tmp_path / "store"
    command = ["generate", "burgers_small", "--out", str(out), "--set", "shard_size=4"]
    process = subprocess.Popen([sys.executable, "-m", "pdessl.cli", *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.nc"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = pdessl.data.open(out)
    assert not there.complete
    with pytest.raises(StoreError, match="--resume"):
        there.load("test")
    said = next(text for text in pdessl.data.inspect(out).warnings if "Continue: pdessl " in text)
    assert cli.main(command) == 2
    assert "unfinished store" in capsys.readouterr().err
    assert cli.main(["generate", "burgers_small", "--out", str(out), "--resume"]) == 2
    assert "shard_size=4 --resume" in capsys.readouterr().err
    assert cli.main(shlex.split(said.partition("Continue: pdessl ")[2])) == 0
    assert files(out) == files(uninterrupted.path)


def test_leftovers_of_a_kill_in_the_middle_of_a_write(uninterrupted, tmp_path):
    """A temporary file, and a shard that was renamed before the manifest knew of it."""
    out = shutil.copytree(uninterrupted.path, tmp_path / "store")
    (out / ".test-00000.nc.999.tmp").write_bytes(b"half")
    manifest = pdessl.data.open(out).manifest
    manifest["splits"]["test"]["shards"].pop()
    manifest["complete"] = False
    write_manifest(out, manifest)
    pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=False)
    assert files(out) == files(uninterrupted.path)


def test_ctrl_c_leaves_a_store_that_continues(uninterrupted, tmp_path):
    def interrupt(state):
        if state.done >= 40:
            raise KeyboardInterrupt

    out = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        pdessl.data.generate("burgers_small", out, overrides={"shard_size": 4}, progress=interrupt)
    store = pdessl.data.open(out)
    assert not store.complete and not list(out.glob(".*"))
    calls = []
    pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=calls.append)
    assert calls[0].done == 44 and calls[-1].done == calls[-1].total == 80
    assert files(out) == files(uninterrupted.path)


def test_resume_of_a_complete_store_does_nothing(uninterrupted):
    before = {name: os.stat(uninterrupted.path / name).st_mtime_ns for name in os.listdir(uninterrupted.path)}
    pdessl.data.generate("burgers_small", uninterrupted.path, resume=True, overrides={"shard_size": 4})
    assert before == {name: os.stat(uninterrupted.path / name).st_mtime_ns for name in os.listdir(uninterrupted.path)}


@pytest.mark.parametrize("writes", [2, 3, 6, 11])
def test_a_disk_that_fills_up_leaves_a_valid_store(uninterrupted, tmp_path, monkeypatch, writes):
    """Fails while a shard, or the manifest after it, is being written."""
    out, flush, left = tmp_path / "store", os.fsync, [writes]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device.*continue with --resume"):
        pdessl.data.generate("burgers_small", out, overrides=SHARDS, progress=False)
    monkeypatch.undo()
    store = pdessl.data.open(out)
    held = [shard["file"] for split in store.manifest["splits"].values() for shard in split["shards"]]
    assert not store.complete and store.verify() == [] and not list(out.glob(".*"))
    assert len(held) == (writes - 1) // 2
    pdessl.data.generate("burgers_small", out, overrides=SHARDS, progress=False, resume=True)
    assert files(out) == files(uninterrupted.path)


def test_a_file_size_limit_of_the_system_is_an_error_and_no_crash(tmp_path):
    """The limit stops the first shard; the process lives on and the store says what is missing."""
    out = tmp_path / "store"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot write .*too large.*--resume"):
            pdessl.data.generate("burgers_small", out, overrides=SHARDS, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(out) == [MANIFEST] and not pdessl.data.open(out).complete
    assert pdessl.data.generate("burgers_small", out, overrides=SHARDS, progress=False, resume=True).verify() == []
