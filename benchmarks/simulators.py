"""Speed of the one-dimensional simulators, as ratios measured in one run.

    python benchmarks/simulators.py [ks burgers kdv] [--threads 2] [--size quick] [--lpsda FOLDER]
    python benchmarks/simulators.py ks --device cuda          # seconds of 10,000 trajectories at the paper's grid

The peer is exponax (pip install 'pdessl[bench]'); without it only our own figures are printed. Both run on the same
processors, in float64, with the same scheme (ETDRK4, 2/3 dealiasing) on the same grid. Each is timed at the best of
several batch sizes, alternating with the other, and the fastest of the repeats counts (compilation does not).

For the Kuramoto-Sivashinsky equation there is also the method of the public LPSDA generator, over the whole of its
T = 100 (20 s): scipy's implicit Radau with dense finite-difference Jacobians on an undealiased spectral right-hand
side, rtol = atol = 1e-9. With --lpsda and a checkout of github.com/brandstetter-johannes/LPSDA that generator itself
makes a trajectory of KS and one of KdV with the settings of its README. Both are compared in seconds of processor time.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from pdessl.solvers import Burgers, KdV, KuramotoSivashinsky, SineSeries, random_stream

Run = Callable[[], object]
SIZES = ("whole", "quick", "tiny")


def of_size(size: str, *values):
    """The value for this size, one each for SIZES."""
    return values[SIZES.index(size)]


def fields(points: int, batch: int, first: int = 0, device: str = "cpu") -> Tensor:
    """LPSDA's initial fields: ten sines, amplitudes within 1/2, wave numbers 1 and 2."""
    family = SineSeries(terms=10, amplitude=0.5, wave_numbers=(1, 2))
    draws = torch.stack([family.draw(random_stream(0, "benchmark", first + k, "physics")) for k in range(batch)])
    return family.fields(draws.to(device), (points,), torch.ones(batch, 1, device=device))


def exponax():
    """The peer, in double precision; None where it is not installed."""
    try:
        import exponax
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    return exponax


def peer_run(stepper, initial: Tensor, frames: int, substeps: int) -> Run:
    """A compiled rollout of a batch that stores every frame."""
    import jax

    module = exponax()
    rollout = module.rollout(module.RepeatedStepper(stepper, substeps), frames - 1, include_init=True)
    run = jax.jit(jax.vmap(rollout))
    values = jax.numpy.asarray(initial.numpy())
    run(values).block_until_ready()
    return lambda: run(values).block_until_ready()


@dataclass(frozen=True, order=True)
class Cost:
    """What a trajectory costs: wall time and processor time (all threads) in seconds, at a batch size."""

    wall: float
    cpu: float
    batch: int

    def __str__(self) -> str:
        return f"{1e3 * self.wall:8.2f} ms a trajectory (batch {self.batch}; {1e3 * self.cpu:.2f} ms of processor time)"


def best(candidates: dict[str, dict[int, Run]], repeats: int) -> dict[str, Cost]:
    """The cost of each contender at its best batch, the fastest of the repeats; they take turns."""
    found: dict[str, list[Cost]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, runs in candidates.items():
            for batch, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                found[name].append(Cost(wall / batch, cpu / batch, batch))
    return {name: Cost(min(costs).wall, min(c.cpu for c in costs), min(costs).batch) for name, costs in found.items()}


def compare(title: str, ours: dict[int, Run], theirs: dict[int, Run] | None, repeats: int) -> Cost:
    """Print both figures and their ratio; return ours."""
    print(f"\n{title}")
    result = best({"pdessl": ours} | ({"exponax": theirs} if theirs else {}), repeats)
    for name, cost in result.items():
        print(f"  {name:<8} {cost}")
    if theirs:
        mine, peer = result["pdessl"], result["exponax"]
        ratios = f"{peer.wall / mine.wall:.2f} times as fast as exponax ({peer.cpu / mine.cpu:.2f} per processor)"
        print(f"  pdessl is {ratios}")
    else:
        print("  exponax is not installed: pip install 'pdessl[bench]'")
    return result["pdessl"]


def kuramoto_sivashinsky(size: str, repeats: int, lpsda: str | None) -> None:
    """LPSDA's settings: 256 points, L = 64, T = 100, 500 frames, 4 steps of 0.05 each."""
    frames, points, length = of_size(size, 501, 51, 3), 256, 64.0
    times = torch.arange(frames, dtype=torch.float64) * 0.2
    simulator = KuramotoSivashinsky(domain_length=length, points=points, substeps=4)
    ours = {
        b: partial(simulator, fields(points, b), times) for b in of_size(size, (128, 256, 512), (128, 256, 512), (2,))
    }
    theirs, module = None, exponax()
    if module:
        stepper = module.stepper.KuramotoSivashinskyConservative(1, length, points, 0.05, order=4)
        theirs = {
            b: peer_run(stepper, fields(points, b), frames, 4)
            for b in of_size(size, (16, 32, 128), (16, 32, 128), (2,))
        }
        check = np.asarray(peer_run(stepper, fields(points, 2), 26, 4)())
        mine = simulator(fields(points, 2), times[:26]).fields[:, 0].numpy()
        print(f"\nlargest difference of the two at t = 5: {np.abs(check[:, -1, 0] - mine[:, -1]).max():.1e}")
    title = f"Kuramoto-Sivashinsky, {points} points, {frames - 1} frames of 4 steps, float64"
    cost = compare(title, ours, theirs, repeats)
    # The first tenth is smooth, and several times cheaper for an adaptive method than the chaos that follows.
    duration = of_size(size, 100.0, 10.0, 0.2)
    per_unit = cost.cpu / float(times[-1])
    slow = radau(fields(points, 1)[0, 0].numpy(), length, duration)
    print(
        f"  LPSDA's method, t <= {duration:g}: {slow:.2f} s of processor time a trajectory, "
        f"{slow / (per_unit * duration):,.0f} times ours"
    )
    if lpsda:
        slow = public_generator(lpsda, "--experiment", "KS", "--L", "64", "--nt", "500")
        ratio = f"{slow / (per_unit * 100):,.0f} times ours"
        print(f"  LPSDA's generator: {slow:.1f} s of processor time a trajectory, {ratio}")


def radau(field: np.ndarray, length: float, duration: float) -> float:
    """Processor seconds of one trajectory by scipy's Radau on u_t = -u u_x - u_xx - u_xxxx, without dealiasing."""
    k = 2 * np.pi * np.fft.rfftfreq(field.size, length / field.size)

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        v = np.fft.rfft(u)
        slope, curved = np.fft.irfft(1j * k * v, n=u.size), np.fft.irfft((k**2 - k**4) * v, n=u.size)
        return curved - u * slope

    start = time.process_time()
    frames = np.linspace(0, duration, round(duration / 0.2) + 1)
    solution = solve_ivp(rate, (0, duration), field, method="Radau", t_eval=frames, rtol=1e-9, atol=1e-9)
    if not solution.success:
        raise RuntimeError(solution.message)
    return time.process_time() - start


def public_generator(checkout: str, *settings: str) -> float:
    """Processor seconds of one trajectory by the script of the LPSDA repository, without those of its start."""
    script = os.path.join(os.path.abspath(checkout), "generate", "generate_data.py")
    environment = os.environ | {"PYTHONPATH": os.path.abspath(checkout), "OMP_NUM_THREADS": "1"}
    one = ["--train_samples", "1", "--valid_samples", "0", "--test_samples", "0"]
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for words in (["--help"], [*settings, *one]):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, script, *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return spent[1] - spent[0]


def burgers(size: str, repeats: int, lpsda: str | None) -> None:
    """1,024 points on [0, 1], t <= 2, 200 frames of 10 steps, viscosity 0.01."""
    frames, points = of_size(size, 201, 21, 3), 1024
    times = torch.arange(frames, dtype=torch.float64) * 0.01
    simulator = Burgers(0.01, 1.0, points, substeps=10, check_resolution=False)
    ours = {
        b: partial(simulator, fields(points, b), times)
        for b in of_size(size, (16, 32, 64, 128), (16, 32, 64, 128), (2,))
    }
    theirs, module = None, exponax()
    if module:
        stepper = module.stepper.Burgers(1, 1.0, points, 1e-3, diffusivity=0.01, conservative=True, order=4)
        theirs = {
            b: peer_run(stepper, fields(points, b), frames, 10) for b in of_size(size, (8, 32, 64), (8, 32, 64), (2,))
        }
    compare(f"Burgers, {points} points, {frames - 1} frames of 10 steps, float64", ours, theirs, repeats)


def two_solitons(x: np.ndarray, t: float, slow: float, fast: float, centre: float) -> np.ndarray:
    """u = 12 ∂²/∂x² log F of u_t + u u_x + u_xxx = 0; speeds c = 4κ², together at t = 0."""
    kappa = np.sqrt(np.array([slow, fast])) / 2
    share = ((kappa[0] - kappa[1]) / (kappa[0] + kappa[1])) ** 2
    one, two = (2 * q * (x - centre - 4 * q**2 * t) for q in kappa)
    terms = [(0.0, 0 * x), (2 * kappa[0], one), (2 * kappa[1], two), (2 * kappa.sum(), one + two + np.log(share))]
    largest = np.max([e for _, e in terms], axis=0)
    f, f1, f2 = (sum(r**n * np.exp(e - largest) for r, e in terms) for n in range(3))
    return 12 * (f2 / f - (f1 / f) ** 2)


def kdv(size: str, repeats: int, lpsda: str | None) -> None:
    """Two solitons (speeds 0.5 and 1.5) that cross, t from -10 to 10, L = 64, 256 points, 20 frames: time and error."""
    length, points, duration, frames, batch = 64.0, 256, 20.0, 21, of_size(size, 32, 32, 2)
    x = np.arange(points) * length / points
    start, end = (two_solitons(x, t, 0.5, 1.5, length / 2) for t in (-duration / 2, duration / 2))
    initial = torch.from_numpy(start)[None, None].expand(batch, 1, -1).contiguous()
    times = torch.linspace(0, duration, frames, dtype=torch.float64)
    print(f"\nKdV, two solitons, {points} points, t = {duration:g}, float64: error (of the height), ms a trajectory")

    def report(name: str, steps: int, run: Callable[[], np.ndarray]) -> tuple[float, float]:
        error = np.abs(run() - end).max() / end.max()
        seconds = best({name: {batch: run}}, repeats)[name].wall
        print(f"  {name:<8} step {duration / steps / (frames - 1):.5f}  error {error:.1e}  {1e3 * seconds:8.2f} ms")
        return error, seconds

    mine = []
    for substeps in of_size(size, (20, 40, 80), (20, 40, 80), (20, 40)):
        simulator = KdV(domain_length=length, points=points, substeps=substeps, dtype=torch.float64)
        run = lambda s=simulator: s(initial, times).fields[0, 0, -1].numpy()  # noqa: E731
        mine.append(report("pdessl", substeps, run))
    if lpsda:
        slow = public_generator(lpsda, "--experiment", "KdV", "--L", "128")
        every = torch.linspace(0, 100, 250, dtype=torch.float64)
        cost = best({"": {128: partial(KdV(domain_length=128.0, points=256), fields(256, 128), every)}}, repeats)[""]
        print(
            f"  LPSDA's generator (L = 128, T = 100, 250 frames): {slow:.1f} s of processor time a trajectory, ours "
            f"{1e3 * cost.cpu:.1f} ms: {slow / cost.cpu:,.0f} times ours"
        )
    module = exponax()
    if not module:
        print("  exponax is not installed: pip install 'pdessl[bench]'")
        return
    theirs = []
    for substeps in of_size(size, (40, 80, 160, 320), (40, 80), (40, 80)):
        stepper = module.stepper.KortewegDeVries(
            1, length, points, duration / (frames - 1) / substeps, convection_scale=1.0, dispersivity=1.0,
            hyper_diffusivity=0.0, conservative=True, single_channel=True, order=4,
        )  # fmt: skip
        run = peer_run(stepper, initial, frames, substeps)
        theirs.append(report("exponax", substeps, lambda run=run: np.asarray(run()[0, -1, 0])))
    error, seconds = theirs[-1]
    fair = min((s for e, s in mine if e <= error), default=math.inf)
    print(f"  at exponax's smallest error, {error:.0e}, or below: pdessl is {seconds / fair:.0f} times as fast")
    order = math.log2(theirs[-2][0] / error)
    print(f"  exponax's error falls with order {order:.1f} of the step; pdessl's reaches {mine[-1][0]:.0e}")


def on_device(device: str, count: int, batch: int = 2048) -> None:
    """Seconds of KS trajectories at the grid of the reference paper: 256 frames, 128 nodes kept of 256, t <= 100.

    Drawing, initial fields and the copy of the frames to the processor count; reading libraries does not.
    """
    times = torch.linspace(49, 100, 256, dtype=torch.float64, device=device)
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    for precision in (torch.float64, torch.float32):
        simulator = KuramotoSivashinsky(domain_length=64.0, points=256, time_step=0.05, precision=precision)
        simulator.solve(fields(256, 8, device=device), times[:2] - 48, observed=128)
        synchronise()
        start = time.perf_counter()
        for first in range(0, count, batch):
            initial = fields(256, min(batch, count - first), first, device)
            frames = simulator.solve(initial, times, observed=128).trajectories.fields.cpu()
            if not bool(frames.isfinite().all()):
                raise RuntimeError("trajectories are not finite")
        seconds = time.perf_counter() - start
        kind = str(precision).removeprefix("torch.")
        print(f"\n{count} KS trajectories, t <= 100, 256x128 kept, {kind}, on {name}: {seconds:.1f} s")


def processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


CASES = {"ks": kuramoto_sivashinsky, "burgers": burgers, "kdv": kdv}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, fix the processors, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all unless given")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="anything but cpu: seconds of KS on that device, no peers")
    parser.add_argument("--trajectories", type=int, help="on --device, also a cpu; default 10,000")
    parser.add_argument(
        "--size", choices=SIZES, default="whole", help="quick: a tenth of the frames; tiny: only whether it runs"
    )
    parser.add_argument("--lpsda", metavar="FOLDER", help="checkout of the LPSDA repository, whose generator is run")
    given = parser.parse_args(arguments)
    if unknown := [c for c in given.cases if c not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; known: {', '.join(CASES)}")
    if hasattr(os, "sched_setaffinity"):  # jax takes every processor it sees: let both see the same ones
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    torch.set_num_threads(given.threads)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {given.threads} thread(s){load}; torch {torch.__version__}")
    if given.device != "cpu" or given.trajectories:
        on_device(given.device, given.trajectories or 10_000)
        return
    for name in given.cases or CASES:
        CASES[name](given.size, given.repeats, given.lpsda)


if __name__ == "__main__":
    main()
