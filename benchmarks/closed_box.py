"""Speed of the closed box.

    python benchmarks/closed_box.py [--phiflow]
    python benchmarks/closed_box.py --device cuda             # seconds of 1,664 trajectories of 128 x 128 x 56

On a processor: CPU seconds per trajectory of PDEArena's set-up (128 x 128 cells, 64 steps of 1.5), one thread, best of
the repeats, taken in turns; the divergence that is left; with --phiflow (extra ``validation``) the same steps by ΦFlow,
of which the public generator is made. On a graphics card (or with --trajectories): seconds for many trajectories of 56
frames in the memory of the device, drawing and initial fields included.

Every scheme takes the same 64 steps, so that costs compare; they are longer than the
second-order scheme accepts unasked.
"""

import argparse
import os
import platform
import time

import torch
from closed_box_phiflow import LENGTH, STEP, VISCOSITY, initial_smoke, phiflow_frames

from pdessl.solvers import ClosedBoxSmoke, SmokeNoise, random_stream

STEPS, POINTS, KEPT = 64, 128, 56
CASES = [("semi_lagrangian", torch.float64), ("semi_lagrangian", torch.float32), ("maccormack", torch.float32)]


def times(kept):
    """The last frames of so many steps; PDEArena keeps 56 of 64."""
    return STEP * torch.arange(STEPS - KEPT + 1, STEPS - KEPT + kept + 1, dtype=torch.float64)


def fields(first, batch, points, device):
    family = SmokeNoise()
    draws = torch.stack([family.draw(random_stream(0, "benchmark", first + k, "physics")) for k in range(batch)])
    lengths = torch.full((batch, 2), LENGTH, dtype=torch.float64, device=device)
    return family.fields(draws.to(device), (points, points), lengths)


def build(scheme, precision, batch, points, device):
    buoyancy = torch.linspace(0.2, 0.5, batch, dtype=torch.float64, device=device)
    settings = {"scheme": scheme, "precision": precision, "dtype": precision, "velocity": "faces", "time_step": STEP}
    # The first-order scheme is meant for long steps; the other refuses them, as they cost it accuracy.
    settings["check_resolution"] = scheme == "semi_lagrangian"
    return ClosedBoxSmoke(VISCOSITY, buoyancy, LENGTH, points, **settings)


def divergence(frames):
    """Root mean square divergence of stored face velocities (B, 3, T, X, Y)."""
    u = torch.nn.functional.pad(frames[:, 0].double(), (0, 0, 0, 1)).diff(dim=-2)
    v = torch.nn.functional.pad(frames[:, 1].double(), (0, 1)).diff(dim=-1)
    return float(((u + v) * (frames.shape[-1] / LENGTH)).square().mean().sqrt())


def on_processor(arguments):
    torch.set_num_threads(1)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} processors, torch {torch.__version__}, 1 thread")
    points, kept = arguments.points, times(arguments.frames)
    state = fields(0, arguments.batch, points, "cpu")
    seconds, left = {}, {}
    for _ in range(arguments.repeats):
        for case in CASES:
            simulator = build(*case, arguments.batch, points, "cpu")
            start = time.process_time()
            found = simulator.solve(state, kept).trajectories.fields
            took = (time.process_time() - start) / arguments.batch
            seconds[case] = min(seconds.get(case, took), took)
            left[case] = divergence(found)
    reference = None
    if arguments.phiflow:
        _, reference = phiflow_frames(initial_smoke(points)[0, 2], STEPS - KEPT + arguments.frames)
        print(f"ΦFlow, float64: {reference:.1f} CPU-s per trajectory")
    print(f"{'scheme':<16} {'precision':<9} {'CPU-s per trajectory':>21} {'divergence, rms':>16}  ratio")
    for (scheme, precision), value in seconds.items():
        ratio = (
            f"ΦFlow / this: {reference / value:.0f}" if reference else f"of 0.7 CPU-s: {0.7 / value:.1f} times faster"
        )
        name = str(precision).removeprefix("torch.")
        print(f"{scheme:<16} {name:<9} {value:>21.3f} {left[scheme, precision]:>16.1e}  {ratio}")


def on_card(arguments):
    device = torch.device(arguments.device)
    on_a_card = device.type == "cuda"
    synchronise = torch.cuda.synchronize if on_a_card else (lambda: None)
    name = torch.cuda.get_device_name(device) if on_a_card else platform.processor() or platform.machine()
    print(f"{name}, torch {torch.__version__}, batches of {arguments.batch}")
    points, kept = arguments.points, times(arguments.frames)
    for scheme, precision in CASES:
        simulator = build(scheme, precision, arguments.batch, points, device)
        simulator.solve(fields(0, arguments.batch, points, device), kept[:2])
        synchronise()
        start = time.perf_counter()
        for first in range(0, arguments.trajectories, arguments.batch):
            frames = simulator.solve(fields(first, arguments.batch, points, device), kept).trajectories.fields
        synchronise()
        took = time.perf_counter() - start
        kind = str(precision).removeprefix("torch.")
        size = f"{arguments.trajectories} smoke trajectories, {points} x {points} x {len(kept)}"
        print(f"{size}, {scheme}, {kind}: {took:.1f} s, divergence {divergence(frames):.1e} rms", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="default 4 on a processor, 64 on a card")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trajectories", type=int, help="in whole batches; default 1664 on a card")
    parser.add_argument("--phiflow", action="store_true")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--frames", type=int, default=KEPT)
    arguments = parser.parse_args()
    on_a_card = torch.device(arguments.device).type == "cuda"
    arguments.batch = arguments.batch or (64 if on_a_card else 4)
    many = on_a_card or arguments.trajectories
    arguments.trajectories = -(-(arguments.trajectories or 1664) // arguments.batch) * arguments.batch
    with torch.no_grad():
        (on_card if many else on_processor)(arguments)


if __name__ == "__main__":
    main()
