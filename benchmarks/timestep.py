"""Forward and backward of the stepping networks, beside neuraloperator's FNO of the same width where it is installed.

python benchmarks/timestep.py                          4 x 3 x 128 x 128 and 16 x 1 x 256, as results/timestepping.md
python benchmarks/timestep.py --repeats 1 --tiny       to see that it runs
python benchmarks/timestep.py --out results/rows/timestep_speed.json    the rows of its table
"""

import argparse
import importlib.util
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from pdessl.files import write_json
from pdessl.models import FNO, DilatedNetwork, Surrogate, UNet


def networks(channels, width, modes, axes, condition):
    shared = {"channels": channels, "width": width, "condition": condition, "periodic": (True,) * axes}
    yield "U-Net", UNet(**shared)
    yield "FNO", FNO(modes=modes, **shared)
    yield "dilated", DilatedNetwork(blocks=4, **shared)


def theirs(channels, width, modes, axes):
    if importlib.util.find_spec("neuralop") is None:
        return None
    from neuralop.models import FNO as Neural

    # Its modes count both signs along the axes that have them: 2M of ours.
    return Neural(n_modes=(2 * modes,) * axes, in_channels=channels, out_channels=channels, hidden_channels=width)


def seconds(step, repeats):
    step()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return min(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--tiny", action="store_true", help="small grids")
    parser.add_argument("--out", type=Path, help="JSON file of the rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {options.threads} thread(s)")
    cases = [(4, 3, (128, 128)), (16, 1, (256,))]
    if options.tiny:
        cases = [(2, 3, (16, 16)), (2, 1, (32,))]
    rows = []
    for batch, channels, grid in cases:
        modes = min(16, min(grid) // 2)
        size = f"{batch} x {channels} x {' x '.join(map(str, grid))}"
        frames = torch.randn(batch, channels, 1, *grid)
        for name, network in networks(channels, options.width, modes, len(grid), 4):
            condition = torch.randn(batch, 4)

            def step(network=network, condition=condition, frames=frames):
                network(frames, condition).square().mean().backward()

            rolled = Surrogate(network)
            taken = seconds(step, options.repeats)
            rollout = seconds(lambda: rolled.rollout(frames, 10, condition), options.repeats)  # noqa: B023
            rows.append({"frames": size, "network": name, "training_step_s": taken, "rollout_step_s": rollout / 10})
            print(f"{size:18s} {name:15s} {taken:8.4f} s forward + backward, {rollout / 10:8.4f} s a step of a rollout")
        other = theirs(channels, options.width, modes, len(grid))
        if other is None:
            print(f"{size:18s} neuraloperator is not installed: pip install neuraloperator")
            continue
        taken = seconds(lambda: other(frames[:, :, 0]).square().mean().backward(), options.repeats)  # noqa: B023
        rows.append(
            {"frames": size, "network": f"neuraloperator {version('neuraloperator')}", "training_step_s": taken}
        )
        ours = next(r for r in rows if (r["frames"], r["network"]) == (size, "FNO"))
        ours["times_as_fast"] = taken / ours["training_step_s"]
        print(f"{size:18s} {name:15s} {taken:8.4f} s forward + backward, {ours['times_as_fast']:.2f} x our FNO")
    if options.out is not None:
        machine = {"processor": platform.processor() or platform.machine(), "threads": options.threads}
        settings = {"width": options.width, "repeats": options.repeats}
        write_json(
            options.out, {"rows": rows, "machine": machine, "versions": {"torch": torch.__version__}, **settings}
        )


if __name__ == "__main__":
    main()
