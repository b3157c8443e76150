"""The path from somebody else's files to a CSV, on two cores: seconds, bytes of advice, and errors of the saved model.

    python benchmarks/own_files.py make turbulence runs/ [--runs 60 --labelled 20 --points 64 --frames 32]
    python benchmarks/own_files.py make reaction runs/ [--points 128 --frames 48]
    python benchmarks/own_files.py path turbulence FOLDER [--set trainer.max_epochs=10]
    python benchmarks/own_files.py time reaction FOLDER

``make`` writes one netCDF file per run, with numpy and xarray alone: what a solver that has never heard of pdessl
leaves behind. Vorticity of decaying two-dimensional turbulence on a periodic square, viscosity over a decade as an
attribute of the labelled files; or a bistable (Nagumo) reaction-diffusion front between no-flux walls,
u_t = D u_xx + r u (1 - u)(u - 1/4), reaction rate r over a decade as a scalar variable. Some runs end early. The true
values of all runs are in ``truth.csv`` beside the folder. ``path`` makes the files and gives the four commands of
docs/own_files.md. ``time`` makes them and prints what ``inspect`` and ``convert`` of them take, in processor seconds
(imports and the process that looks at the files included) and on the clock.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

TARGETS = {"turbulence": "viscosity", "reaction": "reaction_rate"}


def spread(low: float, high: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values over a decade (or what the ends say), evenly in the logarithm, in random order."""
    return rng.permutation(np.exp(np.linspace(np.log(low), np.log(high), count)))


def turbulence_fields(
    viscosity: np.ndarray, points: int, frames: int, interval: float, rng: np.random.Generator, step: float = 0.01
) -> np.ndarray:
    """Vorticity (n, T, X, Y) of w_t + u w_x + v w_y = nu (w_xx + w_yy) on [0, 2 pi)²: Fourier, 2/3 rule, RK4."""
    k = np.fft.fftfreq(points, 1 / points)
    kx, ky = k[:, None], np.fft.rfftfreq(points, 1 / points)[None, :]
    square = kx**2 + ky**2
    inverse = np.where(square > 0, 1 / np.maximum(square, 1), 0)
    kept = (np.abs(kx) < points / 3) & (ky < points / 3)
    shape = np.sqrt(square) * np.exp(-square / 2 / min(4, points / 8) ** 2) * kept
    w = np.fft.rfft2(rng.standard_normal((len(viscosity), points, points))) * shape
    speed = np.sqrt(
        sum(np.square(np.fft.irfft2(1j * q * inverse * w, s=(points, points))).mean((1, 2)) for q in (kx, ky))
    )
    w *= (rng.uniform(0.7, 1.3, len(viscosity)) / speed)[:, None, None]

    def rate(w: np.ndarray) -> np.ndarray:
        u, v, wx, wy = np.fft.irfft2(
            np.stack([1j * ky * inverse * w, -1j * kx * inverse * w, 1j * kx * w, 1j * ky * w]), s=(points, points)
        )
        return -np.fft.rfft2(u * wx + v * wy) * kept

    half = np.exp(-viscosity[:, None, None] * square * step / 2)
    whole = half**2
    stored = [np.fft.irfft2(w, s=(points, points))]
    for _ in range(frames - 1):
        for _ in range(round(interval / step)):
            a = rate(w)
            b = rate(half * (w + step / 2 * a))
            c = rate(half * w + step / 2 * b)
            d = rate(whole * w + step * half * c)
            w = whole * (w + step / 6 * a) + step / 3 * half * (b + c) + step / 6 * d
        stored.append(np.fft.irfft2(w, s=(points, points)))
    return np.stack(stored, axis=1)


def reaction_fields(
    reaction: np.ndarray, points: int, frames: int, interval: float, rng: np.random.Generator, diffusion: float = 0.1
) -> np.ndarray:
    """u (n, T, X) of u_t = D u_xx + r u (1 - u)(u - 1/4) at the centres of [0, 10], no flux at the ends; RK4."""
    width = 10.0 / points
    x = (np.arange(points) + 0.5) * width
    u = np.full((len(reaction), points), 0.5)
    for mode in range(1, 9):
        u += 0.6 / mode * rng.standard_normal((len(reaction), 1)) * np.cos(np.pi * mode * x / 10.0)
    u = np.clip(u, -0.2, 1.2)
    steps = max(1, int(np.ceil(interval / (0.3 * width**2 / diffusion))))
    dt, r = interval / steps, reaction[:, None]

    def rate(u: np.ndarray) -> np.ndarray:
        padded = np.pad(u, ((0, 0), (1, 1)), mode="edge")
        second = (padded[:, 2:] - 2 * u + padded[:, :-2]) / width**2
        return diffusion * second + r * u * (1 - u) * (u - 0.25)

    def advance(u: np.ndarray) -> np.ndarray:
        a = rate(u)
        b = rate(u + dt / 2 * a)
        c = rate(u + dt / 2 * b)
        return u + dt / 6 * (a + 2 * b + 2 * c + rate(u + dt * c))

    for _ in range(steps):  # what is clipped has corners, which no grid resolves
        u = advance(u)
    stored = [u]
    for _ in range(frames - 1):
        for _ in range(steps):
            u = advance(u)
        stored.append(u)
    return np.stack(stored, axis=1)


def make(
    kind: str,
    folder: str | Path,
    runs: int = 60,
    labelled: int = 20,
    points: int | None = None,
    frames: int | None = None,
    short: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Write one netCDF file per run, and ``truth.csv`` beside the folder; return {file name: true value}.

    Args:
        kind: ``turbulence`` or ``reaction``.
        folder: made if missing.
        runs, labelled: number of files, and of those that state the parameter.
        points, frames: of a run; default 64² and 32, 128 and 48.
        short: so many runs lack up to a third of their last frames.
        seed: of everything.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    flow = kind == "turbulence"
    points, frames = points or (64 if flow else 128), frames or (32 if flow else 48)
    values = spread(2e-3, 2e-2, runs, rng) if flow else spread(0.3, 3.0, runs, rng)
    interval = 0.1
    fields = (turbulence_fields if flow else reaction_fields)(values, points, frames, interval, rng)
    stated = set(rng.permutation(runs)[:labelled].tolist())
    cut = dict.fromkeys(rng.permutation(runs)[:short].tolist())
    for run in cut:
        cut[run] = int(rng.integers(2 * frames // 3, frames))
    truth = {}
    for run, value in enumerate(values.tolist()):
        kept = cut.get(run) or frames
        axes = ("x", "y") if flow else ("x",)
        length, offset = (2 * np.pi, 0.0) if flow else (10.0, 0.5)
        nodes = (np.arange(points) + offset) * length / points
        data = xr.Dataset(
            {"vorticity" if flow else "u": (("time", *axes), fields[run, :kept].astype(np.float32))},
            {"time": interval * np.arange(kept), **dict.fromkeys(axes, 0)} | {a: (a, nodes) for a in axes},
            {"solver": "somebody else's, version 3"},
        )
        if run in stated and flow:
            data.attrs["viscosity"] = value
        elif run in stated:
            data["reaction_rate"] = value
        name = f"run_{run:03d}.nc"
        data.to_netcdf(folder / name, engine="h5netcdf")
        truth[name] = value
    with (folder.parent / "truth.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("file", TARGETS[kind]), *truth.items()])
    return truth


def commands(kind: str, runs: str = "runs/", work: str = "work") -> list[list[str]]:
    """The four commands of docs/own_files.md."""
    target = TARGETS[kind]
    return [
        ["inspect", runs],
        ["pretrain", "--data", runs, "--out", f"{work}/encoder"],
        ["regress", "--encoder", f"{work}/encoder", "--data", runs, "--target", target, "--out", f"{work}/{target}"],
        ["predict", "--model", f"{work}/{target}", runs, "--out", f"{target}.csv"],
    ]


def errors(folder: Path, kind: str, truth: dict[str, float]) -> dict[str, float]:
    """Mean relative error in percent, and share of runs in their interval, over the runs without a label.

    The share also of the runs for which intervals promise it: those that ``predict`` calls like those of training.
    """
    target, rows = TARGETS[kind], []
    with (folder / f"{target}.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            with xr.open_dataset(folder / row["file"], engine="h5netcdf") as data:
                known = target in data.attrs or target in data
            value = truth[Path(row["file"]).name]
            found, low, high = (float(row[f"{target}{end}"]) for end in ("", "_low", "_high"))
            if not known:
                rows.append((abs(found / value - 1), low <= value <= high, row["in_distribution"] == "True"))
    each = np.array(rows, dtype=float)
    alike = each[:, 2] > 0  # intervals promise nothing of a run whose value lies outside the labels
    return {
        "runs": len(each),
        "error in percent": 100 * each[:, 0].mean(),
        "in their interval": each[:, 1].mean(),
        "like those of training": int(alike.sum()),
        "of these in their interval": each[alike, 1].mean() if alike.any() else float("nan"),
    }


def path(kind: str, folder: Path, extra: list[str], **sizes: int | None) -> dict[str, float]:
    """Make the files, give the four commands, print seconds of each; return errors."""
    truth = make(kind, folder / "runs", **sizes)
    total = 0.0
    for words in commands(kind):
        words += extra if words[0] == "pretrain" else []
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pdessl", *words], cwd=folder, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
        total += seconds
        print(f"$ pdessl {' '.join(words)}\n{done.stdout}{done.stderr}\n[{words[0]}: {seconds:.1f} s]\n", flush=True)
        if done.returncode:
            raise SystemExit(f"{words[0]} was refused")
    found = {**errors(folder, kind, truth), "seconds": total}
    print(json.dumps(found))
    return found


def times(kind: str, folder: Path, **sizes: int | None) -> dict[str, dict[str, float]]:
    """Make the files, inspect and convert them, print and return the seconds of each."""
    make(kind, folder / "runs", **sizes)
    found = {}
    for words in (["inspect", "runs/"], ["convert", "runs/", "--out", "store"]):
        before, started = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "pdessl", *words], cwd=folder, capture_output=True, check=True)
        wall, after = time.perf_counter() - started, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        found[words[0]] = {"processor": round(used, 2), "wall": round(wall, 2)}
    print(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "path", "time"))
    parser.add_argument("kind", choices=tuple(TARGETS))
    parser.add_argument("folder", type=Path)
    for name, default in (
        ("runs", 60),
        ("labelled", 20),
        ("points", None),
        ("frames", None),
        ("short", 3),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--set", nargs="+", default=[], help="changes of the recipe of pretraining")
    options = parser.parse_args()
    sizes = {n: getattr(options, n) for n in ("runs", "labelled", "points", "frames", "short", "seed")}
    if options.what == "make":
        print(f"{len(make(options.kind, options.folder, **sizes))} files in {options.folder}")
    elif options.what == "time":
        times(options.kind, options.folder, **sizes)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        path(options.kind, options.folder, ["--set", *options.set] if options.set else [], **sizes)


if __name__ == "__main__":
    main()
