"""Kill the verbs that write at random moments, run them again, and compare with a run that nobody killed.

    python benchmarks/kills.py --kills 200

Every verb runs at tiny size in a process of its own, is killed (SIGKILL) after a random share of the time that it
takes, and is run again: ``generate`` and ``convert`` with ``--resume``, ``pretrain`` from ``last.ckpt`` where there is
one, a study in the same folder, ``regress`` and ``timestep`` from the start. That is repeated until one attempt comes
to its end. What it left must then be bitwise what an undisturbed run leaves, but for times of day and seconds. Data are
made in pieces and networks trained for several epochs, so that much of the time something has been written already.

Processes are forked from one that has imported everything: a second a run, instead of ten.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml

MODULES = (
    "pdessl.cli", "pdessl.experiments.pretraining", "pdessl.experiments.study", "pdessl.experiments.regress",
    "pdessl.experiments.timestep", "pdessl.experiments.quickstart", "pdessl.data.generation", "pdessl.data.conversion",
    "pdessl.evaluation.report", "lightning.pytorch.cli", "jsonargparse", "h5netcdf", "xarray",
)  # fmt: skip
ENCODER = {"class_path": "pdessl.models.ConvEncoder", "init_args": {"width": 4, "blocks": [1], "periodic": [True]}}
VIEWS = {"algebra": "burgers", "strengths": {"space_translation": 0.5, "galilean_boost": 0.2}, "window": [16, 32]}
MODEL = {
    "encoder": ENCODER,
    "projector": {"class_path": "pdessl.models.Projector", "init_args": {"in_features": 8, "hidden": [8]}},
    "objective": {"class_path": "pdessl.objectives.VICReg"},
    "augmentation": {"class_path": "pdessl.augmentation.LieAugmentation", "init_args": VIEWS},
}
TRAINER = {"max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False}
STUDY = {
    "target": "viscosity", "labels": [8], "seeds": 1, "draws": 1, "methods": ["frozen", "mean"], "classical": None,
    "supervised": None,
}  # fmt: skip
CLOSED = ["frozen", "mean", "physics"]
TIMES = {"seconds", "commands", "provenance", "created", "made_at", "finished", "started"}


def words_of(verb: str, made: Path, out: Path) -> list[str]:
    """Return the command line of a verb that writes to ``out``."""
    store, encoder = made / "store", made / "encoder"
    resume = ["--resume"] if (out / "manifest.json").exists() else []
    if verb == "generate":
        size = "unlabelled=16,labelled=8,validation=4,test=4"
        return ["generate", "burgers_small", "--out", str(out), "--size", size, "--set", "shard_size=4", *resume]
    if verb == "convert":
        return ["convert", str(made / "files"), "--out", str(out), *resume]
    if verb == "pretrain":
        last = [["--ckpt_path", str(out / "last.ckpt")]] if any(out.glob("last*.ckpt")) else [[]]
        return ["pretrain", "--config", str(made / "pretrain.yaml"), "--data", str(store), "--out", str(out), *last[0]]
    if verb == "study":
        return ["study", str(made / "study.yaml"), "--out", str(out)]
    data = ["--encoder", str(encoder), "--data", str(store), "--out", str(out), "--config", str(made / f"{verb}.yaml")]
    return [verb, *data]


def prepare(made: Path) -> None:
    """Make what the verbs work on."""
    store = made / "store"
    size = "unlabelled=32,labelled=16,validation=8,test=8"
    run(["generate", "burgers_small", "--out", str(store), "--size", size])
    import pdessl.data

    (made / "files").mkdir()
    source = pdessl.data.open(store)
    for split in ("labelled", "validation", "test"):
        source.load(split).to_xarray().to_netcdf(made / "files" / f"{split}.nc", engine="h5netcdf")
    pretraining = {"model": MODEL, "data": {"batch_size": 16}, "trainer": TRAINER}
    base = {**pretraining, "data": {"path": str(store), "batch_size": 16}}
    write(made / "pretrain.yaml", pretraining)
    write(made / "study.yaml", {"study": STUDY, "base": base, "variants": {"a": {}, "b": {"model": {"seed": 1}}}})
    write(
        made / "regress.yaml",
        {"regression": {"target": "viscosity", "labels": [8, 0], "seeds": 2, "methods": CLOSED, "classical": None}},
    )
    write(
        made / "timestep.yaml",
        {"workers": 1, "timestepping": {"context": 8, "steps": 30, "width": 4, "blocks": 1, "seeds": 1}},
    )
    run(["pretrain", "--config", str(made / "pretrain.yaml"), "--data", str(store), "--out", str(made / "encoder")])


def write(path: Path, content: Any) -> None:
    """Write a recipe."""
    path.write_text(yaml.safe_dump(content))


def run(words: list[str], killed_after: float | None = None) -> tuple[int, float]:
    """Run a command in a forked process; return its exit code (-9: killed) and the seconds it took."""
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            log = os.open(os.environ["KILLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            warnings.simplefilter("ignore")
            code = importlib.import_module("pdessl.cli").main(words)
        except BaseException as error:  # noqa: BLE001 - a traceback is what nobody may see
            print(f"TRACEBACK {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            code = 99
        finally:
            os._exit(code)
    if killed_after is not None:
        time.sleep(killed_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - started


def digest(folder: Path) -> dict[str, str]:
    """Return what is in a folder: file -> hash of its content, times left out."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".html" or name.endswith("previous.ckpt"):  # times in the page; the state before the last
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(without_times(json.loads(content)), sort_keys=True).encode()
        if path.suffix == ".md":
            content = b"\n".join(line.rpartition(b"|")[0].rpartition(b"|")[0] for line in content.splitlines())
        if path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            content = b"".join(v.numpy().tobytes() for v in state["state_dict"].values())
            content += json.dumps([state["epoch"], state["global_step"]]).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def without_times(content: Any) -> Any:
    """Return plain data without what differs between two runs of the same computation."""
    if isinstance(content, dict):
        return {k: without_times(v) for k, v in content.items() if k not in TIMES and not k.startswith("seconds of")}
    return [without_times(v) for v in content] if isinstance(content, list) else content


def main() -> None:
    """Run the loop and print a line for every verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills, over all verbs")
    parser.add_argument(
        "--verbs", nargs="+", default=["generate", "convert", "pretrain", "regress", "timestep", "study"]
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(module)
    stream, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        os.environ["KILLS_LOG"] = str(made / "log")
        prepare(made)
        total = 0
        for number, verb in enumerate(options.verbs):
            wanted = options.kills * (number + 1) // len(options.verbs) - options.kills * number // len(options.verbs)
            whole = made / f"{verb}_whole"
            code, seconds = run(words_of(verb, made, whole))
            if code:
                sys.exit(f"{verb} fails undisturbed ({code}): {(made / 'log').read_text()[-2000:]}")
            expected, kills, runs, out = digest(whole), 0, 0, made / verb
            while kills < wanted:
                shutil.rmtree(out, ignore_errors=True)
                runs += 1
                code = -9
                while code == -9:
                    late = stream.random() * seconds * 1.05 if kills < wanted else None
                    code, _ = run(words_of(verb, made, out), late)
                    kills += code == -9
                found = digest(out) if out.exists() else {}
                different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
                if code or different:
                    wrong += 1
                    said = (made / "log").read_text().strip().splitlines()[-1:]
                    print(f"{verb}: WRONG after {kills} kills: exit {code}, {different[:5]} {said}", flush=True)
            total += kills
            print(f"{verb:9} {seconds:5.1f} s undisturbed, {kills:3} kills in {runs:3} runs, {wrong} wrong", flush=True)
        print(f"{total} kills, {wrong} results that differ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
