"""Speed of the doubly periodic simulators: python benchmarks/simulators_2d.py [--batch 16] [--peer-python PATH]

Milliseconds of processor time per step and trajectory: every row steps the same trajectories in one batch and one at a
time. Rows of Navier-Stokes are set beside exponax 0.2.0 with the same grid, step and order (4), alternately in one run,
at batch 1 and at the batch, one thread each; the ratio is that of the better ones. exponax runs in another process: of
this Python, or of that of another environment (``--peer-python``), for jax and torch do not always fit into one.
Processor time, for a wall clock favours the shorter of two runs on a machine that is busy with other work.
"""

import argparse
import math
import os
import subprocess
import sys
import time

GRIDS = (64, 128)
STEP = 1e-3
STEPS = 40


def best_of(function, repeats):
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


# ------------------------------------------------------------------------------------------- the peer


def serve(points, batch, steps):
    """Run exponax whenever a line comes in, and print the seconds of processor time it took."""
    import exponax
    import jax

    jax.config.update("jax_enable_x64", True)
    stepper = exponax.stepper.NavierStokesVorticity(2, 2 * math.pi, points, STEP, diffusivity=1e-3, order=4)
    run = jax.jit(jax.vmap(exponax.repeat(stepper, steps)))
    fields = jax.random.normal(jax.random.PRNGKey(0), (batch, 1, points, points))
    run(fields).block_until_ready()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(best_of(lambda: run(fields).block_until_ready(), 1), flush=True)


class Peer:
    def __init__(self, python, points, batch, steps):
        environment = os.environ | {
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [python, __file__, "--serve", str(points), str(batch), str(steps)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.works = self.process.stdout.readline().strip() == "ready"
        self.batch, self.steps = batch, steps

    def __call__(self):
        """Milliseconds per step and trajectory."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) * 1e3 / self.steps / self.batch

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


# --------------------------------------------------------------------------------------------- ours


def cases():
    from pdessl.solvers import FAMILIES

    flow, blobs = FAMILIES["random_flow_2d"](), FAMILIES["smoke_blobs"]()
    drops, patches = FAMILIES["water_drops"](), FAMILIES["reaction_patches"]()
    pair = FAMILIES["random_field_2d"](components=2)
    rates = {"feed_rate": 0.035, "kill_rate": 0.06}
    return {
        "navier_stokes_2d": ({"viscosity": 1e-3}, flow),
        "boussinesq": ({"viscosity": 1e-3, "buoyancy": 0.5, "scalar_diffusivity": 1e-3}, blobs),
        "shallow_water_2d": ({"gravity": 1.0}, drops),
        "burgers_2d": ({"viscosity": 0.1}, pair),
        "gray_scott": (rates, patches),
    }


def ours(name, parameters, family, points, batch, steps, precision):
    """Return a function that measures milliseconds per step and trajectory, without what a run costs besides steps."""
    import torch

    from pdessl.solvers import SIMULATORS, random_stream

    draws = torch.stack([family.draw(random_stream(0, "benchmark", k, "physics")) for k in range(batch)])
    fields = family.fields(draws, (points, points), torch.full((batch, 2), 2 * math.pi, dtype=torch.float64))

    def run(steps):
        made = SIMULATORS[name](
            **parameters,
            domain_length=2 * math.pi,
            points=points,
            substeps=steps,
            check_resolution=False,
            precision=precision,
        )
        with torch.no_grad():
            made.solve(fields, torch.tensor([steps * STEP], dtype=torch.float64))

    def measure():
        short, long = best_of(lambda: run(4), 1), best_of(lambda: run(4 + steps), 1)
        return (long - short) * 1e3 / steps / batch

    run(2)
    return measure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--grids", type=int, nargs="+", default=list(GRIDS))
    parser.add_argument("--steps", type=int, default=STEPS, help="of the timed part")
    parser.add_argument("--names", nargs="*", default=None, help="simulators, default all")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has exponax")
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    import torch

    torch.set_num_threads(1)
    steps = arguments.steps
    heads = ("simulator", "grid", f"float64 x{arguments.batch}", "alone", "float32")
    print("{:<18} {:>5} {:>12} {:>7} {:>8}  exponax".format(*heads))
    for name, (parameters, family) in cases().items():
        if arguments.names and name not in arguments.names:
            continue
        for points in arguments.grids:
            rows = {
                "batch": ours(name, parameters, family, points, arguments.batch, steps, torch.float64),
                "alone": ours(name, parameters, family, points, 1, steps, torch.float64),
                "single": ours(name, parameters, family, points, arguments.batch, steps, torch.float32),
            }
            peers = []
            if name == "navier_stokes_2d":
                peers = [Peer(arguments.peer_python, points, b, steps) for b in (1, arguments.batch)]
                rows |= {f"peer {p.batch}": p for p in peers if p.works}
            found = {key: [] for key in rows}
            for _ in range(arguments.repeats):  # alternately: what else the machine does falls on all alike
                for key, measure in rows.items():
                    found[key].append(measure())
            least = {key: min(values) for key, values in found.items()}
            for peer in peers:
                peer.close()
            theirs = [v for k, v in least.items() if k.startswith("peer")]
            beside = "" if name != "navier_stokes_2d" else "not importable"
            if theirs:
                mine = min(least["batch"], least["alone"])
                sizes = ", ".join(f"{least[f'peer {p.batch}']:.2f} (batch {p.batch})" for p in peers if p.works)
                beside = f"{sizes}: {min(theirs) / mine:.2f} times as long"
            numbers = (least["batch"], least["alone"], least["single"])
            print("{:<18} {:>5} {:>9.3f} ms {:>7.3f} {:>8.3f}".format(name, points, *numbers), f" {beside}", flush=True)


if __name__ == "__main__":
    main()
