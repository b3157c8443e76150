"""Speed of LieAugmentation, as ratios in one run: python benchmarks/augmentation.py [--threads 2] [--repeats 5]

Baseline: the procedure that earlier work applies to one Navier-Stokes view, written again here from its description: a
Trotter product (second order, two steps) of nine one-parameter maps acts on coordinates and velocities at every node of
all 56 frames of five 128 x 128 arrays (t, x, y, u, v), and a window of 16 frames is cut out afterwards.
Only ratios mean anything; the times depend on the machine.
"""

import argparse
import statistics
import time

import torch

import pdessl
from pdessl.symmetry.augmentation import LieAugmentation
from pdessl.trajectory import Trajectories

FRAMES, VIEW, N = 56, 16, 128


def trajectories(batch, frames=FRAMES, n=N, seed=0):
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


def clock(function, repeats):
    """Median of the times after one warm-up, seconds."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def conv_step(channels, batch, frames, points):
    """One training step of a small convolutional network."""
    layers, width = [], channels
    for out in (32, 64, 128, 128):
        layers += [torch.nn.Conv2d(width, out, 3, stride=2, padding=1), torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(out, out, 3, padding=1), torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
        width = out
    net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 128))
    optimiser = torch.optim.AdamW(net.parameters())
    data = torch.randn(batch, channels, frames, points)

    def step():
        optimiser.zero_grad()
        net(data).square().mean().backward()
        optimiser.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    b, repeats = options.batch, options.repeats
    data = trajectories(b)
    algebra = pdessl.symmetries("navier_stokes_2d_velocity")
    g = torch.Generator().manual_seed(0)

    mesh = torch.meshgrid(torch.linspace(0, 2, FRAMES), *[torch.linspace(0, 6.28, N)] * 2, indexing="ij")
    strengths = 0.05 * torch.randn(9, generator=g)
    trotter = clock(lambda: trotter_view(*[m.clone() for m in mesh], *data.fields[0], strengths), repeats)

    def view(**arguments):
        window = (VIEW, arguments.pop("points", N), arguments.pop("points_y", N))
        augment = LieAugmentation(algebra, window=window, **arguments)
        return clock(lambda: augment(data, g), repeats) / b

    whole = data.fields[:, :, :VIEW].contiguous()
    rows = whole.reshape(b, -1, N, N)
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3).expand(b, 2, 3), [b, 1, N, N], align_corners=False)

    def sampled(mode):
        return torch.nn.functional.grid_sample(rows, grid, mode=mode, padding_mode="border", align_corners=False)

    bicubic = clock(lambda: sampled("bicubic"), repeats) / b
    fourier = clock(lambda: torch.fft.irfft2(torch.fft.rfft2(whole)), repeats) / b
    copy = clock(lambda: torch.cat([whole, whole, whole[:, :1]], dim=1), repeats) / b
    shifts = {n: 0.2 for n in algebra.names if n.startswith(("space_translation", "galilean_boost"))}
    rigid = {**shifts, "rotation": 0.1}
    lines = [
        ("Trotter baseline, one view", trotter, None, ""),
        ("coords", view(mode="coords"), trotter, "of the baseline (aim: at most 0.1)"),
        ("coords", view(mode="coords"), copy, "of a copy of the bytes written (aim: at most 2)"),
        ("grid, shifts and boosts (Fourier)", view(strengths=shifts), fourier, "of an FFT round trip (aim: 1.5)"),
        ("grid, rotation too (cubic)", view(strengths=rigid, spline_order=3), bicubic, "of bicubic sampling (aim: 2)"),
        ("grid, everything (cubic)", view(spline_order=3), bicubic, "of bicubic grid_sample (aim: 2)"),
        ("grid, everything (quintic)", view(), bicubic, "of bicubic grid_sample"),
        ("grid, everything, 64 x 64 window", view(points=64, points_y=64), trotter, "of the baseline"),
    ]
    for name, seconds, reference, text in lines:
        ratio = "" if reference is None else f"{seconds / reference:8.2f} {text}"
        print(f"{name:36} {1e3 * seconds:9.2f} ms a view {ratio}")

    burgers = pdessl.symmetries("burgers")
    for batch in (64, 256):
        x = torch.arange(64, dtype=torch.float64).expand(batch, 64) * 2 * torch.pi / 64
        line = Trajectories(
            fields=torch.randn(batch, 1, 64, 64, generator=g),
            time=torch.linspace(0, 2, 64, dtype=torch.float64).expand(batch, 64).contiguous(),
            space=(x,),
            lengths=torch.full((batch, 1), 2 * torch.pi, dtype=torch.float64),
        )
        step = clock(conv_step(1, batch, 64, 64), repeats)
        for name, arguments in {
            "shifts and boosts": {"strengths": {"space_translation": 0.5, "galilean_boost": 0.3}},
            "every symmetry": {},
            "every symmetry, 48 x 48": {"window": (48, 48)},
        }.items():
            augment = LieAugmentation(burgers, **arguments)
            seconds = clock(lambda augment=augment, line=line: augment(line, g), repeats)
            share = f"{1e3 * seconds:7.2f} ms, {seconds / step:6.3f} of a conv net's step"
            print(f"Burgers ({batch}, 1, 64, 64), {name:26} {share}")


if __name__ == "__main__":
    main()
