"""Speed of LieAugmentation, as ratios in one run.

    python benchmarks/augmentation.py [--threads 2] [--repeats 7] [--batch 64]
    python benchmarks/augmentation.py --device cuda --batch 256        # prints views per second
    python benchmarks/augmentation.py --points 32 --batch 2 --sizes 2 --lines 2 --repeats 1     # only whether it runs

Baseline: the procedure that earlier work applies to one Navier-Stokes view, written again here from its description: a
Trotter product (second order, two steps) of nine one-parameter maps acts on coordinates and velocities at every node of
all 56 frames of five 128 x 128 arrays (t, x, y, u, v), and a window of 16 frames is cut out afterwards.

The other references do one thing each, on the frames of the view alone, already cut out: a fresh copy of the bytes that
mode ``coords`` writes; rfft2 and irfft2; one bicubic grid_sample, rotated, stretched and shifted by a given grid, once
with one grid for all frames of a trajectory (frames as channels) and once with a grid for every frame (frames as batch,
what a rotating frame needs). A view includes everything: the draws, the composition of the flows, cutting out frames.
Both of a pair are timed in turn, and the least of the times of each counts. Only ratios mean anything; the times depend
on the machine, and on whether fresh memory is at hand. With --threads 1 processor time is taken, which means something
on a busy machine too.
"""

import argparse
import math
import time

import torch

import pdessl
from pdessl.augmentation.lie import LieAugmentation
from pdessl.trajectory import Trajectories

FRAMES, VIEW, N = 56, 16, 128


def trajectories(batch, frames=FRAMES, n=N, seed=0):
    """White noise on a periodic square: speed does not depend on the values."""
    g = torch.Generator().manual_seed(seed)
    x = torch.arange(n, dtype=torch.float64).expand(batch, n) * 2 * torch.pi / n
    return Trajectories(
        fields=torch.randn(batch, 2, frames, n, n, generator=g),
        time=torch.linspace(0, 2, frames, dtype=torch.float64).expand(batch, frames).contiguous(),
        space=(x, x),
        lengths=torch.full((batch, 2), 2 * torch.pi, dtype=torch.float64),
        field_names=("u", "v"),
        axis_names=("x", "y"),
        boundary=("periodic", "periodic"),
        equation="navier_stokes_2d_velocity",
    )


def trotter_view(t, x, y, u, v, strengths, steps=2):
    """Nine maps in turn, forwards with half strengths and backwards again, per step; every array is rewritten."""

    def act(kind, e, t, x, y, u, v):
        if kind == 0:
            return t + e, x, y, u, v
        if kind == 1:
            return t, x + e, y, u, v
        if kind == 2:
            return t, x, y + e, u, v
        if kind == 3:
            s = torch.exp(e)
            return t * s**2, x * s, y * s, u / s, v / s
        if kind == 4:
            c, s = torch.cos(e), torch.sin(e)
            return t, c * x + s * y, c * y - s * x, c * u + s * v, c * v - s * u
        if kind == 5:
            return t, x + e * t, y, u + e, v
        if kind == 6:
            return t, x, y + e * t, u, v + e
        if kind == 7:
            return t, x + e * t**2, y, u + 2 * e * t, v
        return t, x, y + e * t**2, u, v + 2 * e * t

    for _ in range(steps):
        for kind in (*range(9), *reversed(range(9))):
            t, x, y, u, v = act(kind, strengths[kind] / (2 * steps), t, x, y, u, v)
    return torch.stack([t, x, y, u, v])[:, :VIEW].clone()


def alternate(functions, repeats, device):
    """Least time of each function, seconds; they are called in turn, after one warm-up."""
    best = [math.inf] * len(functions)
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for repeat in range(repeats + 1):
        for i, function in enumerate(functions):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            result = function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken = clock() - start
            del result
            if repeat:
                best[i] = min(best[i], taken)
    return best


def sampling_grid(batch, frames, n, device):
    """Rotation by 0.2, a stretch by 1.1 and a shift, for grid_sample: (B or B T, N, N, 2)."""
    c, s = 1.1 * math.cos(0.2), 1.1 * math.sin(0.2)
    matrix = torch.tensor([[c, s, 0.13], [-s, c, -0.07]], device=device)
    return torch.nn.functional.affine_grid(
        matrix.expand(batch * frames, 2, 3), [batch * frames, 1, n, n], align_corners=False
    )


def conv_step(channels, batch, frames, points, device):
    """One training step of a small convolutional network."""
    layers, width = [], channels
    for out in (32, 64, 128, 128):
        layers += [torch.nn.Conv2d(width, out, 3, stride=2, padding=1), torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(out, out, 3, padding=1), torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
        width = out
    net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 128))
    net = net.to(device)
    optimiser = torch.optim.AdamW(net.parameters())
    data = torch.randn(batch, channels, frames, points, device=device)

    def step():
        optimiser.zero_grad()
        net(data).square().mean().backward()
        optimiser.step()

    return step


def references(data, device):
    """What views are compared with, on the frames of a view, by name."""
    b, n, sample = len(data), data.fields.shape[-1], torch.nn.functional.grid_sample
    whole = data.fields[:, :, :VIEW].contiguous()
    channels, frames = whole.reshape(b, -1, n, n), whole.transpose(1, 2).reshape(-1, 2, n, n)
    one, each = sampling_grid(b, 1, n, device), sampling_grid(b, VIEW, n, device)
    return {
        "a fresh copy of its bytes": lambda: torch.cat([whole, whole, whole[:, :1]], dim=1),
        "rfft2 + irfft2": lambda: torch.fft.irfft2(torch.fft.rfft2(whole)),
        "bicubic grid_sample, one grid": lambda: sample(
            channels, one, mode="bicubic", padding_mode="border", align_corners=False
        ),
        "bicubic grid_sample, a grid a frame": lambda: sample(
            frames, each, mode="bicubic", padding_mode="border", align_corners=False
        ),
    }


def planar(options, device):
    """Views of 16 x 128 x 128 of (u, v): every mode beside its reference."""
    n = options.points
    data = trajectories(options.batch, n=n).to(device)
    algebra = pdessl.symmetries("navier_stokes_2d_velocity")
    g = torch.Generator(device).manual_seed(0)
    known = references(data, device)
    mesh = torch.meshgrid(
        torch.linspace(0, 2, FRAMES, device=device), *[torch.linspace(0, 6.28, n, device=device)] * 2, indexing="ij"
    )
    drawn = 0.05 * torch.randn(9, generator=g, device=device)
    # One view at a time, as that procedure is applied; times of the others are divided by the batch.
    baseline = "the Trotter procedure"
    known[baseline] = lambda: trotter_view(*[m.clone() for m in mesh], *data.fields[0], drawn)

    def maker(window=n, **arguments):
        augment = LieAugmentation(algebra, window=(VIEW, window, window), **arguments)
        return lambda: augment(data, g)

    names = [name for name in algebra.names if name not in ("rotating_frame", "viscosity_scaling")]
    shifts = {name: 0.2 for name in names if name.startswith(("space_translation", "galilean_boost"))}
    constant = {name: algebra[name].strength_max for name in names}
    copy, fourier, one, each = [name for name in known if name != baseline]
    rows = [
        ("coords, every symmetry", maker(mode="coords"), baseline, 0.1),
        ("coords, every symmetry", maker(mode="coords"), copy, 2),
        ("grid, shifts and boosts", maker(strengths=shifts), fourier, 1.5),
        ("grid, all but the rotating frame", maker(strengths=constant), one, 2),
        ("grid, every symmetry", maker(), each, 2),
        ("grid, every symmetry, quintic", maker(spline_order=5), each, None),
        (f"grid, every symmetry, {n // 2} x {n // 2}", maker(window=n // 2), baseline, None),
    ]
    for name, view, reference, aim in rows:
        views = {view: options.batch, known[reference]: 1 if reference == baseline else options.batch}
        ours, theirs = (
            t / count for t, count in zip(alternate(list(views), options.repeats, device), views.values(), strict=True)
        )
        rate = f"{1 / ours:9.0f} views/s" if device.type == "cuda" else ""
        print(
            f"{name:34}{1e3 * ours:8.3f} ms a view {rate} {ours / theirs:7.3f} of {reference} ({1e3 * theirs:.3f} ms)"
            + (f", aim: {aim}" if aim is not None else "")
        )

    print("cost against batch size, ms a view:")
    for batch in options.sizes:
        part = trajectories(batch, frames=VIEW, n=n).to(device)
        named = {"shifts and boosts": {"strengths": shifts}, "every symmetry": {}, "coords": {"mode": "coords"}}
        augments = [LieAugmentation(algebra, **arguments) for arguments in named.values()]
        times = alternate([lambda a=a, part=part: a(part, g) for a in augments], options.repeats, device)
        print(
            f"  batch {batch:3}  " + "  ".join(f"{k} {1e3 * t / batch:.3f}" for k, t in zip(named, times, strict=True))
        )


def linear(options, device):
    """Views of Burgers trajectories beside a training step of a small network on them."""
    burgers = pdessl.symmetries("burgers")
    g = torch.Generator(device).manual_seed(0)
    for batch in options.lines:
        x = torch.arange(64, dtype=torch.float64).expand(batch, 64) * 2 * torch.pi / 64
        line = Trajectories(
            fields=torch.randn(batch, 1, 64, 64),
            time=torch.linspace(0, 2, 64, dtype=torch.float64).expand(batch, 64).contiguous(),
            space=(x,),
            lengths=torch.full((batch, 1), 2 * torch.pi, dtype=torch.float64),
        ).to(device)
        named = {
            "shifts and boosts": {"strengths": {"space_translation": 0.5, "galilean_boost": 0.3}},
            "every symmetry": {},
            "every symmetry, 48 x 48": {"window": (48, 48)},
        }
        augments = [LieAugmentation(burgers, **arguments) for arguments in named.values()]
        makers = [lambda a=a, line=line: a(line, g) for a in augments]
        step, *times = alternate([conv_step(1, batch, 64, 64, device), *makers], options.repeats, device)
        for name, seconds in zip(named, times, strict=True):
            share = f"{1e3 * seconds:7.2f} ms, {seconds / step:6.3f} of a conv net's step"
            print(f"Burgers ({batch}, 1, 64, 64), {name:26} {share}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--points", type=int, default=N, help="of each axis in two dimensions")
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 16, 64], help="batches whose cost is compared")
    parser.add_argument("--lines", type=int, nargs="+", default=[64, 256], help="batches in one dimension")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    planar(options, device)
    linear(options, device)


if __name__ == "__main__":
    main()
