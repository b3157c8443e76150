"""Generation survives being killed, interrupted, and a disk that fills up: nothing is lost and nothing doubled."""

import errno
import os
import resource
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys

import pytest

import pdessl.data
from pdessl import cli
from pdessl.data.manifest import MANIFEST, write_manifest
from pdessl.errors import StoreError
from pdessl.files import LOCK

SHARDS = {"shard_size": 4}
# A process for each attempt. "calls": it is killed at a random function call of its main thread, which writes: moments
# that do not depend on how busy the machine is. "clock": its parent kills it at a random time, be it early, in the
# middle of a system call, or too late; after the third time it is left to finish.
KILLED = """
import os, random, signal, sys, time
import pdessl.data

def attempt(out, calls=None, seconds=None):
    child = os.fork()
    if not child:
        count = 0
        def count_calls(frame, event, argument):
            nonlocal count
            count += 1
            if count == calls:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(count_calls)
        pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=False, workers=1)
        sys.setprofile(None)
        with open("calls", "w") as file:
            file.write(str(count))
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

# What is slow once (loading libraries) is done before anything is counted.
pdessl.data.generate("burgers_small", "warm", size=dict(unlabelled=4, labelled=4, validation=4, test=4))
started = time.monotonic()
attempt("whole")
seconds, calls = time.monotonic() - started, int(open("calls").read())
for moments, seed in ((sys.argv[1], int(seed)) for seed in sys.argv[2:]):
    draw, complete, number = random.Random(seed), False, 0
    while not complete:
        if moments == "calls":
            attempt(f"store{seed}", calls=int(calls * draw.uniform(0.2, 0.7)))
        else:
            attempt(f"store{seed}", seconds=seconds * draw.random() if number < 3 else None)
        number += 1
        if os.path.exists(f"store{seed}/manifest.json"):
            store = pdessl.data.open(f"store{seed}")
            shards = [s for split in store.manifest["splits"].values() for s in split["shards"]]
            complete = store.complete
            print(seed, len(shards), len(store.verify()), int(complete))
"""
# The command line in a process that is killed before its third shard.
KILLED_AT_THE_THIRD = """
import os, signal, sys
from pdessl import cli
from pdessl.data import generation

make, made = generation.make_shard, []

def make_or_die(*given):
    if len(made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(make(*given))
    return made[-1]

generation.make_shard = make_or_die
cli.main(sys.argv[1:])
"""


def files(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store"
    return pdessl.data.generate("burgers_small", path, overrides=SHARDS, progress=False)


@pytest.mark.parametrize(("moments", "seeds"), [("calls", 2), ("clock", 1)])
def test_killed_at_random_moments_and_resumed_is_bitwise_the_same_store(uninterrupted, tmp_path, moments, seeds):
    words = [sys.executable, "-c", KILLED, moments, *map(str, range(seeds))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    states = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    for seed in range(seeds):
        counts = [shards for store, shards, damaged, complete in states if store == seed]
        # Nothing that was there is lost. (A kill may come before the first shard, or after the last.)
        assert counts == sorted(counts) and counts[-1] == 20
        store = pdessl.data.open(tmp_path / f"store{seed}")
        assert store.complete and files(store.path) == files(uninterrupted.path)
        indices = [store.load(split).index.tolist() for split in store.splits]
        assert indices == [list(range(n)) for n in store.splits.values()]
    # Every state that a kill left behind is a valid store, and some kills came in the middle.
    assert all(damaged == 0 for _, _, damaged, _ in states)
    if moments == "calls":
        assert sum(0 < shards < 20 and not complete for _, shards, _, complete in states) >= 3


def test_the_command_line_killed_in_the_middle_says_how_to_go_on(uninterrupted, tmp_path, capsys):
    out = tmp_path / "store"
    command = ["generate", "burgers_small", "--out", str(out), "--set", "shard_size=4"]
    process = subprocess.run([sys.executable, "-c", KILLED_AT_THE_THIRD, *command], stdout=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL
    there = pdessl.data.open(out)
    assert not there.complete and len(list(out.glob("*.nc"))) == 2
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


def test_the_lock_of_a_process_killed_after_the_last_shard_is_taken_away(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted.path, tmp_path / "store")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = tmp_path / "store" / LOCK
    for owner, left in ((ended.pid, False), (os.getppid(), True)):  # dead, and one that lives
        lock.write_text(f"{owner}\n{socket.gethostname()}\n")
        pdessl.data.generate("burgers_small", tmp_path / "store", resume=True, overrides={"shard_size": 4})
        assert lock.exists() is left


@pytest.mark.parametrize("writes", [2, 3, 6, 11])
def test_a_disk_that_fills_up_leaves_a_valid_store(uninterrupted, tmp_path, monkeypatch, writes):
    """Fails while a shard, or the manifest after it, is being written."""
    out, flush, left = tmp_path / "store", os.fsync, [writes]

    def full(descriptor):
        left[0] -= not stat.S_ISDIR(os.fstat(descriptor).st_mode)  # the folder is flushed too
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


def test_a_file_size_limit_of_the_system_is_an_error_and_no_crash(tmp_path, capsys):
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
    assert cli.main(["inspect", str(out)]) == 0
    assert "no trajectories yet" in (said := capsys.readouterr().out) and "resolved" not in said
    assert pdessl.data.generate("burgers_small", out, overrides=SHARDS, progress=False, resume=True).verify() == []
