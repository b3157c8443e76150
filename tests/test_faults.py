"""Kills, full disks and damaged files: what was there stays, what is whole is used, and nothing ends in a traceback."""

import ast
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pdessl
from pdessl import cli, files
from pdessl.errors import CheckpointError, StoreError
from pdessl.experiments.pretraining import pretrain
from pdessl.tasks import WholeCheckpoints, checkpointing
from pdessl.tasks.checkpointing import VERSIONS, previous, whole_checkpoint

IGNORE = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
SMALL = [
    "data.batch_size=16",
    "model.encoder.init_args.width=4",
    "model.projector.init_args={in_features: 32, hidden: [16], out_features: 8}",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


# ------------------------------------------------------------------------------------------ files


def test_a_file_is_the_old_or_the_new_one_at_every_step_of_writing_it(tmp_path):
    """Whatever fails in between, also what the system does after the new file has its name."""
    target, calls = tmp_path / "a.json", ("fsync", "replace", "link")
    files.write_text(target, "old")
    for name in calls:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            if name == "link":  # a file system without second names: the former file is renamed
                with files.replacing(target, keep=tmp_path / "b.json") as temporary:
                    temporary.write_text("new")
            else:
                with pytest.raises(StoreError, match=r"cannot write .*a\.json: No space left"):
                    files.write_text(target, "new")
        assert target.read_text() == ("new" if name == "link" else "old")
    assert (tmp_path / "b.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {n: f".a.json.{files.host()}.{n}.tmp" for n in (ended.pid, os.getppid())}
    for name in (*names.values(), f".a.json.{files.host()}x.{ended.pid}.tmp"):
        (tmp_path / name).write_text("half")
    files.write_json(tmp_path / "a.json", [1])
    held = {p.name for p in tmp_path.iterdir()}
    assert held == {"a.json", names[os.getppid()], f".a.json.{files.host()}x.{ended.pid}.tmp"}


def test_no_other_part_of_the_package_renames_files():
    """There is one way to write a file; a second one would have to be made safe a second time."""
    package = Path(pdessl.__file__).parent
    words = ("os.replace(", "os.rename(", "shutil.move(", ".rename(", "temporary.replace(")
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for dataset in ("ds.rename(", "part.rename(", "found.rename(trajectory="):  # names of xarray, not files
            text = text.replace(dataset, "")
        assert path.name == "files.py" or not [w for w in words if w in text], path


def test_no_other_part_of_the_package_writes_files():
    """What opens a place for writing, or hands one to a library that writes, has it from ``files.replacing``."""
    package = Path(pdessl.__file__).parent
    writers = {"write_text", "write_bytes", "to_netcdf", "to_csv", "to_zarr", "to_json", "savefig", "savez",
               "savez_compressed", "savetxt", "save", "save_file", "tofile"}  # fmt: skip
    memory = {"packed", "out", "handle", "image"}  # io.BytesIO, and what was opened on a temporary
    # Classes of ours with a method save:
    own = {"model", "detector", "model.model", "result.model", "SurrogateModel.of", "self", "surrogate"}
    found, seen = [], 0
    for path in sorted(package.rglob("*.py")):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = {n.id for a in (*node.args, node.func) for n in ast.walk(a) if isinstance(n, ast.Name)}
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            holder = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            opens = name in ("open", "File") and any(isinstance(m, str) and set(m) & set("wax+") and len(m) < 4
                                                     for m in modes)  # fmt: skip
            ours = holder in ("", "files") and name.startswith("write_")
            if not opens and (name not in writers or ours):
                continue
            seen += 1
            saves = name == "save" and (not holder or any(holder.startswith(o) for o in own | {"_model("}))
            if not any("temporary" in w for w in words) and not words & memory and not saves:
                found.append(f"{path.relative_to(package)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert seen > 10 and not found, found


HOLDER = """
import sys
from pdessl import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@IGNORE
def test_every_verb_that_writes_a_folder_is_refused_while_another_process_writes_there(small_store, tmp_path, capsys):
    """Before anything is trained; and the folder is as it was."""
    out = tmp_path / "run"
    verbs = [
        ["pretrain", "--config", "burgers_vicreg", "--data", small_store, "--out", out],
        ["regress", "--encoder", tmp_path / "encoder", "--data", small_store, "--out", out],
        ["timestep", "--encoder", tmp_path / "encoder", "--data", small_store, "--out", out],
        ["study", "objectives_burgers", "--out", out, "--set", f"base.data.path={small_store}"],
        ["discover", small_store, "--out", out],
        ["generate", "burgers_small", "--out", out],
        ["convert", small_store, "--out", out],
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        for words in verbs:
            assert cli.main([str(w) for w in words]) == 2, words
            said = capsys.readouterr().err
            assert f"another process writes to {out}: process {process.pid} on" in said and said.count("\n") == 1
            assert [p.name for p in out.iterdir()] == [files.LOCK]
    finally:
        process.communicate("")


def test_a_lock_that_names_nobody_is_taken_over_only_if_it_stays_so(tmp_path, monkeypatch):
    """A process was killed between making it and writing its name."""
    monkeypatch.setattr(files, "_WAIT", 0.05)
    monkeypatch.setattr(files, "_NAMELESS", 0.2)
    lock = tmp_path / files.LOCK
    lock.touch()
    with files.locked(tmp_path):
        assert lock.read_text().split()[0] == str(os.getpid())
    assert not lock.exists()
    # One whose owner writes its name meanwhile is its.
    lock.touch()
    monkeypatch.setattr(files.time, "sleep", lambda seconds: lock.write_text(f"{os.getppid()}\n{files.host()}\n"))
    with (
        pytest.raises(StoreError, match=f"another process writes to .*: process {os.getppid()} on"),
        files.locked(tmp_path),
    ):
        pass
    assert lock.exists()


def test_what_a_process_killed_while_it_took_a_lock_over_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {n: tmp_path / f"{files.LOCK}.break.{n}.abc" for n in (ended.pid, os.getppid())}
    for path in names.values():
        path.touch()
    with files.locked(tmp_path):
        assert not names[ended.pid].exists() and names[os.getppid()].exists()


def test_a_lock_that_was_taken_over_meanwhile_is_not_held(tmp_path, monkeypatch):
    class Slow(files.SoftFileLock):
        def acquire(self, *arguments, **settings):
            found = super().acquire(*arguments, **settings)
            (tmp_path / files.LOCK).unlink()  # by one that took it for abandoned
            (tmp_path / files.LOCK).write_text(f"{os.getppid()}\nelsewhere\n")
            return found

    monkeypatch.setattr(files, "SoftFileLock", Slow)
    with pytest.raises(StoreError, match=f"process {os.getppid()} on elsewhere"), files.locked(tmp_path):
        pass
    assert (tmp_path / files.LOCK).exists()


def test_a_verb_may_call_another_and_only_the_first_of_several_ranks_locks(tmp_path, monkeypatch):
    @files.writes_to("out")
    def inner(out):
        return (out / files.LOCK).exists()

    @files.writes_to("out")
    def outer(*, out=None):
        return inner(out)

    assert outer(out=tmp_path / "a") and not (tmp_path / "a").exists()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not outer(out=tmp_path / "a")


# ------------------------------------------------------------------------------------ checkpoints


def states(folder, write):
    """Every state of a folder, as names and contents, that a kill at some call while writing could leave behind."""
    found, last = [], None

    def look(frame, event, argument):
        nonlocal last
        with os.scandir(folder) as entries:
            held = sorted((e.name, (i := e.stat()).st_ino, i.st_size, i.st_mtime_ns) for e in entries)
        if held != last:
            last = held
            found.append({name: (folder / name).read_bytes() for name, *_ in held})

    sys.setprofile(look)
    try:
        write()
    finally:
        sys.setprofile(None)
    look(None, None, None)
    return found


def content(step):
    return {"step": step, "weights": torch.full((10_000,), float(step))}


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_at_any_moment_of_writing_leaves_a_whole_checkpoint(tmp_path, monkeypatch, links):
    """Moving a file between two file systems is copying it, and here any move is; renaming is all that is asked for."""
    monkeypatch.setattr(shutil, "move", lambda a, b, *rest: (shutil.copyfile(a, b), os.unlink(a)))
    if not links:
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    (folder := tmp_path / "run").mkdir()
    path, writer = folder / "last.ckpt", WholeCheckpoints()
    for step in range(2):
        writer.save_checkpoint(content(step), path)
    found = states(folder, lambda: writer.save_checkpoint(content(2), path))
    steps = []
    for number, state in enumerate(found):
        (left := tmp_path / str(number)).mkdir()
        for name, held in state.items():
            (left / name).write_bytes(held)
        read = writer.load_checkpoint(left / "last.ckpt", weights_only=True)
        assert (read["weights"] == read["step"]).all()
        steps.append(read["step"])
    assert steps == sorted(steps) and set(steps) == {1, 2} and len(steps) >= 5

    # The comparison can fail: a writer that opens the file itself passes through a broken one.
    def broken(state):
        (tmp_path / "other.ckpt").write_bytes(state["last.ckpt"])
        return checkpointing._fault(tmp_path / "other.ckpt") is not None

    assert any(map(broken, states(folder, lambda: torch.save(content(3), path))))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_checkpoint_before_is_read_where_the_last_is_damaged(tmp_path, caplog):
    path = tmp_path / "last.ckpt"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        whole_checkpoint(path)
    for step in range(3):
        WholeCheckpoints().save_checkpoint(content(step), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "last.previous.ckpt"]
    whole = path.read_bytes()
    damages = [lambda p: p.write_bytes(whole[:-100]), lambda p: p.write_bytes(b""), lambda p: p.unlink(), flipped]
    for damage in damages:
        path.write_bytes(whole)
        assert WholeCheckpoints().load_checkpoint(path, weights_only=True)["step"] == 2
        damage(path)
        with caplog.at_level(logging.WARNING):
            assert WholeCheckpoints().load_checkpoint(path, weights_only=True)["step"] == 1
        assert "going on from the checkpoint before it" in caplog.messages[-1]
    previous(path).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"damaged .*and so is .*Start the run again without --ckpt_path"):
        whole_checkpoint(path)


@IGNORE
def test_a_pretraining_killed_before_its_encoder_was_saved_saves_the_same_one(small_store, tmp_path, capsys):
    """Nothing is left to train then, and no run is seen again; what the encoder knows of its runs comes along."""
    words = ["pretrain", "--config", "burgers_vicreg", "--data", str(small_store), "--set", *SMALL]
    assert cli.main([*words, "trainer.max_epochs=1", "--out", str(tmp_path / "run")]) == 0
    place, last = tmp_path / "run/encoder", tmp_path / "run/last.ckpt"
    held = json.loads((place / "recipe.json").read_text())
    assert held["trained_on"]["equation"] == "burgers" and set(held["trained_on"]["steps"]) == {"time", "x"}
    shutil.rmtree(place)
    again = [*words, "trainer.max_epochs=1", "--out", str(tmp_path / "run"), "--ckpt_path", str(last)]
    assert cli.main(again) == 0
    found = json.loads((place / "recipe.json").read_text())
    assert {k: v for k, v in found.items() if k != "provenance"} == {k: v for k, v in held.items() if k != "provenance"}
    capsys.readouterr()
    for damage in ({"axes": ["t"]}, {"steps": torch.full((2, 2), -1.0)}, {"equation": 3}, {"steps": None}):
        state = torch.load(last, weights_only=True)
        state["pdessl_trained_on"] |= damage
        torch.save(state, tmp_path / "damaged.ckpt")
        assert cli.main([*again[:-1], str(tmp_path / "damaged.ckpt")]) == 2
        assert "pdessl_trained_on is damaged" in capsys.readouterr().err


@IGNORE
def test_a_pretraining_goes_on_from_the_checkpoint_before_a_damaged_one_bitwise(small_store, tmp_path, caplog, capsys):
    words = ["pretrain", "--config", "burgers_vicreg", "--data", str(small_store), "--set", *SMALL]
    assert cli.main([*words, "trainer.max_epochs=2", "--out", str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part/encoder")
    last = tmp_path / "part/last.ckpt"
    flipped(last)
    with caplog.at_level(logging.WARNING):
        resumed = [*words, "trainer.max_epochs=2", "--out", str(tmp_path / "part"), "--ckpt_path", str(last)]
        assert cli.main(resumed) == 0
    assert any("going on from the checkpoint before it" in m for m in caplog.messages)
    one, other = (pdessl.load(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole/history.json").read_text() == (tmp_path / "part/history.json").read_text()
    capsys.readouterr()

    # Of another version, without a version, of another network: one line each, and no training.
    held = torch.load(last, weights_only=True)
    assert held[VERSIONS]["torch"] == str(torch.__version__)
    torch.save(held | {VERSIONS: held[VERSIONS] | {"pdessl": "0.0.1"}}, last)
    assert cli.main(resumed) == 2
    said = capsys.readouterr().err
    assert "pdessl 0.0.1 (now" in said and "--set any_version=true" in said and said.count("\n") == 1
    assert cli.main([*resumed, "--set", "any_version=true"]) == 0
    torch.save({k: v for k, v in held.items() if k != "pytorch-lightning_version"}, last)
    assert cli.main(resumed) == 2
    assert "it has no 'pytorch-lightning_version'" in capsys.readouterr().err
    torch.save(held, last)
    wider = ["model.encoder.init_args.width=8", "model.projector.init_args.in_features=64"]
    assert cli.main([*resumed, "--set", *wider]) == 2
    assert "belongs to another network than the recipe describes" in capsys.readouterr().err


@IGNORE
def test_a_disk_that_fills_up_while_the_checkpoint_is_written(small_store, tmp_path, monkeypatch):
    flush, written = os.fsync, []

    def full(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else ""
        written.append(Path(name).name)
        if sum(".last.ckpt." in n for n in written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    if sys.platform != "linux":
        pytest.skip("asks /proc for the name of a file")
    monkeypatch.setattr(os, "fsync", full)
    words = [f"data.path={small_store}", *SMALL, "trainer.max_epochs=3"]
    with pytest.raises(StoreError, match=r"cannot write .*last\.ckpt: No space left on device.*--ckpt_path"):
        pretrain("burgers_vicreg", words, tmp_path / "run")
    monkeypatch.undo()
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["epoch"] == 0
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
