"""Files and texts by strangers, altered at random: each is read, or refused in one line of ours, in bounded time.

    python benchmarks/fuzz.py --files 3000 --strings 50000 --layouts 1300

Files: what pdessl reads back or is given (manifests and shards of stores, saved networks, models of parameters, laws,
reports, checkpoints, recipes of every kind, equations, kept results of a study). Half are altered as data (a value
replaced by a hostile one, left out, repeated, or put under another name), half as bytes (cut, flipped, inserted).
Layouts: files of other programs, see ``fuzz_layouts.py``.
Texts: equations, expressions and ``--set`` words made of what such texts are made of. Anything that is not an error of
pdessl, lasts longer than the limit or needs more than the memory allowed is printed with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz_layouts import LayoutKind, foreign, in_a_process

import pdessl
from pdessl import catalog
from pdessl.data import open as open_data
from pdessl.data.manifest import MANIFEST
from pdessl.data.recipe import load_recipe
from pdessl.equations import Equation, load_equation
from pdessl.errors import PdesslError
from pdessl.evaluation.report import read_report, write_report
from pdessl.experiments.pretraining import pretraining_recipe
from pdessl.experiments.provenance import versions
from pdessl.experiments.quickstart import read_settings
from pdessl.experiments.study import study
from pdessl.experiments.study_jobs import Job, Study, _kept
from pdessl.models import ConvEncoder, SpaceTimeTransformer, save_pretrained
from pdessl.objectives import VICReg
from pdessl.operators.saving import save_law
from pdessl.schema import override, read_words
from pdessl.tasks import Pretraining, WholeCheckpoints
from pdessl.tasks.checkpointing import check_checkpoint

HOSTILE = [
    None, True, False, -1, 0, 1, 2**31, 10**9, 10**18, 10**400, 1e308, -1e308, 5e-324, float("inf"), float("nan"), "",
    "x", "../../etc/passwd", "\x1b[2J", "=1+1", "9" * 5000, "os.system", [], {}, [[]], [None] * 3, {"a": {}},
    [0] * 1000, "nan", {"class_path": "os.system"}, "\ud800", "é" * 100, ["x", 1], 0.5, "1e9",
]  # fmt: skip
PIECES = [
    "u", "v", "w", "x", "y", "t", "u_t", "u_x", "u_xx", "u_xxx", "u_xxxxxxxxxxxx", "nu", "mu", "eps", "epsilon",
    "lambda", "=", "+", "-", "*", "/", "**", "^", "(", ")", "[", "]", "{", "}", ",", ";", ":", ".", "0", "1",
    "2", "1/2", ".5", "1e9", "1e400", "-1", "sin", "cos", "exp", "log", "sqrt", "d/dx", "∂", "∇", "Δ", "u²",
    "ν", "é", "import", "__import__", "lambda:", "eval", "os.system", "\x00", "\x1b", "\n", "\t", "#", "'", '"',
    "\\", "%", "$", "!", "&", "@", "~", "null", "true", "yes", "no", ".nan", ".inf", "!!python/object:", "&a",
    "*a", "<<", "-", "?", "|", ">", "2**9**9", "u**u", "(((((((((", "u_", "_", "__", "a.b.c", "a=b",
    "data.path", "model",
]  # fmt: skip


class Late(BaseException):
    """The limit has passed."""


def altered(content: Any, draw: random.Random) -> Any:
    """Return nested data with one place altered."""
    content = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
            places.append((inner, key))
            walk(inner[key])

    walk(content)
    if not places or draw.random() < 0.02:
        return draw.choice(HOSTILE)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        inner, key = draw.choice(places)
        if isinstance(inner, dict) and key in inner:
            kind = draw.random()
            if kind < 0.2:
                del inner[key]
            elif kind < 0.3:
                inner[draw.choice(("x", "", "class_path", "é"))] = inner.pop(key)
            else:
                inner[key] = draw.choice(HOSTILE)
        elif isinstance(inner, list) and key < len(inner):
            inner[key : key + 1] = draw.choice(([], [draw.choice(HOSTILE)], [inner[key]] * draw.choice((2, 50))))
    return content


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return bytes that were cut, flipped, or added to."""
    place, kind = draw.randrange(len(content) + 1), draw.random()
    if kind < 0.3:
        return content[:place]
    if kind < 0.6 and content:
        place = min(place, len(content) - 1)
        return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    return content[:place] + draw.randbytes(draw.choice((1, 4, 100))) + content[place:]


class Kind:
    """A kind of file: a folder that holds a good one, the file in it that is altered, and how it is read."""

    def __init__(self, name: str, folder: Path, file: str, read: Callable[[Path], Any]) -> None:
        self.name, self.folder, self.file, self.read = name, folder, file, read
        self.good = (folder / file).read_bytes()
        loads = {".json": json.loads, ".yaml": yaml.safe_load}.get((folder / file).suffix)
        self.data = loads(self.good) if loads else torch.load(folder / file) if file.endswith(".ckpt") else None

    def put(self, draw: random.Random) -> None:
        """Write an altered file in place of the good one."""
        path = self.folder / self.file
        if self.data is None or draw.random() < 0.5:
            path.write_bytes(damaged(self.good, draw))
        elif path.suffix == ".json":
            path.write_bytes(json.dumps(altered(self.data, draw)).encode(errors="surrogatepass"))
        elif path.suffix == ".yaml":
            path.write_bytes(yaml.safe_dump(altered(self.data, draw), allow_unicode=False).encode(errors="replace"))
        else:
            torch.save(altered(self.data, draw), path)


def kinds(folder: Path) -> list[Kind]:
    """Make a good one of everything that is read."""
    store = pdessl.data.generate(
        "burgers_small",
        folder / "store",
        {"unlabelled": 16, "labelled": 12, "validation": 4, "test": 4},
        progress=False,
    )
    encoder = save_pretrained(folder / "encoder", ConvEncoder(in_channels=1, width=4, blocks=(1,), periodic=(True,)))
    save_pretrained(folder / "tokens", SpaceTimeTransformer(1, (4, 8), width=16, depth=1, heads=2))
    runs = store.load("labelled")
    network = pdessl.load(encoder)
    pdessl.fit_parameter_model(network, runs).save(folder / "model")
    save_law(pdessl.discover(store.load("unlabelled")), folder / "law")
    write_report(
        folder / "report", {"title": "t", "versions": {}, "machine": {}, "commands": ["x"], "seconds": {"a": 1.0}}, {}
    )
    small = ConvEncoder(1, width=4, blocks=(1,), periodic=(True,))
    task = Pretraining(small, torch.nn.Linear(8, 4), VICReg(), torch.nn.Identity())
    state = {
        "epoch": 0, "global_step": 1, "pytorch-lightning_version": "2.6.0", "state_dict": task.state_dict(),
        "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "pdessl_task": "Pretraining",
    }  # fmt: skip
    (folder / "run").mkdir()
    WholeCheckpoints().save_checkpoint(state, folder / "run/last.ckpt")
    recipes = folder / "recipes"
    recipes.mkdir()
    for name, kind in (
        ("pretrain/burgers_jepa", "configs"), ("quickstart", "configs"), ("studies/objectives_burgers", "configs"),
        ("regression/burgers", "configs"), ("burgers", "datasets"), ("smoke_buoyancy", "datasets"),
        ("kdv", "symmetries"), ("navier_stokes_velocity", "symmetries"),
    ):  # fmt: skip
        if name.rpartition("/")[2] in {n.rpartition("/")[2] for n in catalog.names(kind)}:
            content = catalog.read(kind, name)
            (recipes / f"{name.replace('/', '_')}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    job = Job("a", 0, {}, Study("viscosity"), str(folder / "job"), "data")
    error = {"mean": 1.0, "standard_error": None, "values": [1.0]}
    row = {"method": "frozen", "title": "t", "group": "pretrained", "labels": 8, "relative_error": error}
    kept = {"rows": [row], "notes": [], "monitors": {"monitor/features_rank_me": 1.0}, "seconds": 1.0}
    (folder / "job").mkdir()
    (folder / "job/result.json").write_text(
        json.dumps({"hash": job.hash, "data": "data", "versions": versions(), "result": kept})
    )

    def recipe(name: str, read: Callable[[Path], Any]) -> list[Kind]:
        file = f"{name}.yaml"
        return [Kind(name, recipes, file, lambda f: read(f / file))] if (recipes / file).exists() else []

    def whole_store(path: Path) -> Any:
        held = open_data(path)
        return [held.load(split) for split in held.splits]

    found = [
        Kind("manifest", store.path, MANIFEST, whole_store),
        Kind("shard", store.path, "test-00000.nc", whole_store),
        Kind("saved network", encoder, "recipe.json", pdessl.load),
        Kind("saved transformer", folder / "tokens", "recipe.json", pdessl.load),
        Kind("weights", encoder, "model.safetensors", pdessl.load),
        Kind("model of a parameter", folder / "model", "parameter_model.json", lambda p: pdessl.load(p).card()),
        Kind("its numbers", folder / "model", "parameter_model.safetensors", pdessl.load),
        Kind("law", folder / "law", "law.json", pdessl.load),
        Kind("equation of a law", folder / "law", "equation.yaml", lambda p: load_equation(p / "equation.yaml")),
        Kind("report", folder / "report", "report.json", lambda p: write_report(p / "again", *read_report(p))),
        Kind("checkpoint", folder / "run", "last.ckpt", lambda p: check_checkpoint(p / "last.ckpt", task)),
        Kind("kept result of a study", folder / "job", "result.json", lambda p: _kept(job)),
        *recipe("pretrain_burgers_jepa", lambda f: pretraining_recipe(f)),
        *recipe("quickstart", lambda f: read_settings(f)),
        *recipe("regression_burgers", lambda f: read_settings(f)),
        *recipe("studies_objectives_burgers", lambda f: study(f, folder / "out", ["base.data.path=nowhere"])),
        *recipe("burgers", lambda f: load_recipe(f)),
        *recipe("smoke_buoyancy", lambda f: load_recipe(f)),
        *recipe("kdv", lambda f: load_equation(f)),
        *recipe("navier_stokes_velocity", lambda f: load_equation(f)),
    ]
    return found


def texts(draw: random.Random) -> Callable[[], Any]:
    """Return how a random text is read."""
    text = "".join(draw.choice(PIECES) + draw.choice(("", "", " ")) for _ in range(draw.randrange(1, 30)))
    kind = draw.random()
    if kind < 0.5:
        return lambda: Equation.parse(f"u_t = {text}" if kind < 0.3 else text)
    if kind < 0.7:
        return lambda: Equation.parse([f"u_t + {text} = 0", f"v_t = {text[::-1]}"])
    return lambda: override(
        {"data": {"path": "a"}, "model": {}}, read_words([text if "=" in text else f"model.x={text}"])
    )


def answer(read: Callable[[], Any], seconds: float) -> tuple[str, str, float]:
    """Return whether something was read, refused by us, or failed; what was said, and how long it took."""
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read()
        return "read", "", time.monotonic() - started
    except PdesslError as error:
        found = "refused" if str(error).strip() else "without a word"
        return found, str(error), time.monotonic() - started
    except Late:
        return "LATE", f"longer than {seconds} s", seconds
    except BaseException as error:  # noqa: BLE001 - a traceback is what nobody may see
        return f"RAW {type(error).__name__}", " ".join(str(error).split())[:200], time.monotonic() - started
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def trial(kind: Kind | LayoutKind, wanted: int, options: argparse.Namespace) -> int:
    """Alter and read a kind of file so many times, print what came of it, and return how often it failed."""
    counts, slowest, failures = Counter[str](), 0.0, 0
    for k in range(wanted):
        kind.put(random.Random(f"{options.seed} {kind.name} {k}"))
        started = time.monotonic()

        def read() -> tuple[str, str]:
            return answer(lambda: kind.read(kind.folder), options.seconds)[:2]

        what, said = in_a_process(read, 2 * options.seconds) if isinstance(kind, LayoutKind) else read()
        counts[what], slowest = counts[what] + 1, max(slowest, time.monotonic() - started)
        if what not in ("read", "refused"):
            print(f"  {kind.name}, seed {options.seed}, number {k}: {what}: {said}", flush=True)
            failures += 1
    print(f"{kind.name:30} {dict(counts)}, slowest {slowest:.2f} s", flush=True)
    return failures


def late(*_: Any) -> None:
    """End what lasts too long."""
    raise Late


def main() -> None:
    """Alter, read, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--strings", type=int, default=50_000)
    parser.add_argument("--layouts", type=int, default=1300, help="files of other programs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="limit for one")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB beyond what is used after the start")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    failures = 0
    with tempfile.TemporaryDirectory() as made:
        every = kinds(Path(made))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + int(options.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number, kind in enumerate(every):
            wanted = options.files * (number + 1) // len(every) - options.files * number // len(every)
            failures += trial(kind, wanted, options)
            (kind.folder / kind.file).write_bytes(kind.good)
        layouts = foreign(Path(made) / "layouts")
        for number, layout in enumerate(layouts):
            wanted = options.layouts * (number + 1) // len(layouts) - options.layouts * number // len(layouts)
            failures += trial(layout, wanted, options)
            layout.clean()
    counts, slowest = Counter(), 0.0
    for k in range(options.strings):
        what, said, seconds = answer(texts(random.Random(f"{options.seed} text {k}")), options.seconds)
        counts[what], slowest = counts[what] + 1, max(slowest, seconds)
        if what not in ("read", "refused"):
            print(f"  text, seed {options.seed}, number {k}: {what}: {said}", flush=True)
            failures += 1
    print(f"{'texts':30} {dict(counts)}, slowest {slowest:.2f} s")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20
    tried = f"{options.files} files, {options.layouts} files of other programs and {options.strings} texts"
    print(f"{tried}: {failures} failures, {peak:.1f} GiB at most")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
