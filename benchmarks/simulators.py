"""Speed of the simulators, as ratios measured in one run: python benchmarks/simulators.py [--batch 128] [--repeats 3]

Each row simulates the same trajectories in one batch and one at a time, and, where the row says so, by a peer:
``radau`` is scipy's implicit solver on the same pseudo-spectral right-hand side (how the public KdV and KS generators
work), ``exponax`` is used when it is installed (its single precision is switched off). Best of the repeats, one thread.
"""

import argparse
import math
import time

import numpy as np
import torch
from scipy.integrate import solve_ivp

from pdessl.solvers import SIMULATORS, SineSeries, random_stream

# name, parameters, domain length, points, output times
CASES = [
    ("burgers", {"viscosity": 0.03}, 2 * math.pi, 256, (0.0, 4.0, 64)),
    ("kdv", {"steepening": 1.0, "dispersion": 1.0}, 128.0, 256, (0.0, 100.0, 501)),
    ("kdv_burgers", {"viscosity": 0.03, "dispersion": 0.003}, 2 * math.pi, 256, (0.0, 4.0, 64)),
    ("kuramoto_sivashinsky", {}, 64.0, 256, (0.0, 100.0, 501)),
    ("heat", {"diffusivity": 0.05}, 2 * math.pi, 256, (0.0, 4.0, 64)),
]


def best(function, repeats):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def initial_fields(points, batch):
    family = SineSeries()
    modes = torch.stack([family.draw(random_stream(0, "benchmark", k, "physics")) for k in range(batch)])
    return family.fields(modes, (points,), torch.ones(batch, 1))


def radau(name, parameters, length, field, end):
    """One trajectory by scipy's Radau at the tolerances of the public generators (rtol 1e-6, atol 1e-6)."""
    points = field.shape[-1]
    made = SIMULATORS[name](**parameters, domain_length=length, points=points, check_resolution=False)
    k = torch.from_numpy(2 * np.pi * np.fft.rfftfreq(points, length / points))[None]
    columns = {n: v.reshape(1, 1) for n, v in made.parameters.items()}
    symbol = made.linear(k, columns)[0].numpy()
    keep = np.arange(k.shape[-1]) <= (points - 1) // 3

    def rate(_, u):
        v = np.fft.rfft(u) * keep
        flux = made.flux(torch.from_numpy(np.fft.irfft(v, n=points))[None], columns)[0].numpy()
        return np.fft.irfft(symbol * v - 1j * k[0].numpy() * np.fft.rfft(flux) * keep, n=points)

    solve_ivp(rate, (0, end), field.numpy(), method="Radau", rtol=1e-6, atol=1e-6)


def exponax_kuramoto_sivashinsky(fields, length, step, steps):
    """Seconds for a batch in exponax, compilation not counted; None where it is not installed."""
    try:
        import exponax
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    stepper = exponax.stepper.KuramotoSivashinskyConservative(1, length, fields.shape[-1], step, order=4)
    run = jax.jit(jax.vmap(exponax.rollout(stepper, steps)))
    values = jax.numpy.asarray(fields.numpy())
    run(values).block_until_ready()
    return best(lambda: run(values).block_until_ready(), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="also run scipy's Radau and exponax (minutes)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = f"{'simulator':<22} {'grid':>5} {'frames':>6} {'batched ms':>11} {'single ms':>10} {'ratio':>6}"
    print(f"{head}  peers (times slower)")
    for name, parameters, length, points, (start, end, frames) in CASES:
        fields = initial_fields(points, arguments.batch)
        times = torch.linspace(start, end, frames, dtype=torch.float64)
        made = SIMULATORS[name](**parameters, domain_length=length, points=points)
        alone = SIMULATORS[name](**parameters, domain_length=length, points=points)
        batched = best(lambda m=made, f=fields, t=times: m(f, t), arguments.repeats) / arguments.batch
        single = best(lambda m=alone, f=fields, t=times: m(f[:1], t), arguments.repeats)
        peers = []
        if arguments.peers and name in ("kdv", "kuramoto_sivashinsky"):
            short = end / 20
            # A twentieth of the duration, where the field is still smooth: a lower bound.
            slow = best(lambda n=name, p=parameters, s=length, f=fields, e=short: radau(n, p, s, f[0, 0], e), 1) * 20
            peers.append(f"radau {slow / batched:.0f}")
        if arguments.peers and name == "kuramoto_sivashinsky":
            interval = float(times[1])
            same = SIMULATORS[name](**parameters, domain_length=length, points=points, substeps=1)
            ours = best(lambda m=same, f=fields, t=times: m(f, t), arguments.repeats)
            theirs = exponax_kuramoto_sivashinsky(fields, length, interval, frames - 1)
            peers.append("exponax not installed" if theirs is None else f"exponax {theirs / ours:.2f} (same step)")
        row = (
            f"{name:<22} {points:>5} {frames:>6} {batched * 1e3:>11.2f} {single * 1e3:>10.1f} {single / batched:>6.1f}"
        )
        print(f"{row}  {', '.join(peers)}")


if __name__ == "__main__":
    main()
