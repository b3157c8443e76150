"""Smoke in a closed box against ΦFlow, frame by frame: python benchmarks/closed_box_phiflow.py [--points 128]

Both start from the same smoke and take PDEArena's 64 steps of 1.5 in float64. Writes the measured differences to
results/closed_box_validation.md and the picture docs/simulators/closed_box_phiflow.png. Needs the extra ``validation``.
"""

import argparse
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pdessl.solvers import ClosedBoxSmoke, SmokeNoise, random_stream

ROOT = Path(__file__).resolve().parent.parent
LENGTH, STEP, VISCOSITY, BUOYANCY = 32.0, 1.5, 0.01, 0.4


def initial_smoke(points, trajectory=0):
    """The state (1, 3, X, X) of one trajectory at rest."""
    family = SmokeNoise()
    draws = family.draw(random_stream(0, "validation", trajectory, "physics"))[None]
    return family.fields(draws, (points, points), torch.full((1, 2), LENGTH, dtype=torch.float64))


def phiflow_frames(smoke, steps):
    """Frames (3, steps, X, X) of u and v on lower faces and s, and the seconds ΦFlow took, from smoke (X, X)."""
    from phi import flow

    points = smoke.shape[-1]
    flow.math.set_global_precision(64)  # in float32, version 3.4 fails on this set-up
    bounds = flow.Box(x=LENGTH, y=LENGTH)
    values = flow.math.tensor(np.asarray(smoke), flow.math.spatial("x,y"))
    density = flow.CenteredGrid(values, flow.extrapolation.BOUNDARY, bounds=bounds)
    velocity = flow.StaggeredGrid(0, flow.extrapolation.ZERO, x=points, y=points, bounds=bounds)
    solve = flow.Solve("auto", 1e-12, 1e-12, max_iterations=10_000)
    frames = np.zeros((3, steps, points, points))
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(steps):
            density = flow.advect.semi_lagrangian(density, velocity, STEP)
            force = (density * (0, BUOYANCY)).at(velocity)
            velocity = flow.advect.semi_lagrangian(velocity, velocity, STEP) + STEP * force
            velocity = flow.diffuse.explicit(velocity, VISCOSITY, STEP)
            velocity, _ = flow.fluid.make_incompressible(velocity, solve=solve)
            # ΦFlow keeps the faces between cells only; the lower walls stay zero.
            frames[0, n, 1:] = velocity.vector["x"].values.numpy("x,y")
            frames[1, n, :, 1:] = velocity.vector["y"].values.numpy("x,y")
            frames[2, n] = density.values.numpy("x,y")
    return frames, time.process_time() - start


def our_frames(state, steps):
    """The same frames, and the seconds they took."""
    simulator = ClosedBoxSmoke(
        VISCOSITY, BUOYANCY, LENGTH, state.shape[-1], velocity="faces", time_step=STEP, dtype=torch.float64
    )
    start = time.process_time()
    fields = simulator.solve(state, STEP * torch.arange(1, steps + 1, dtype=torch.float64)).trajectories.fields[0]
    return fields.numpy(), time.process_time() - start


def differences(ours, theirs):
    """Root mean square difference over root mean square, shape (3, steps)."""
    scale = np.sqrt((theirs**2).mean(axis=(2, 3)))
    return np.sqrt(((ours - theirs) ** 2).mean(axis=(2, 3))) / scale


def draw(ours, theirs, path):
    shown = [8, 23, 43, 63]
    figure = Figure(figsize=(9.5, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(shown))
    for column, frame in enumerate(shown):
        for row, (frames, name) in enumerate(((theirs, "ΦFlow"), (ours, "pdessl"))):
            axis = axes[row, column]
            picture = axis.imshow(frames[2, frame].T, origin="lower", cmap="magma", vmin=0, vmax=2)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"t = {STEP * (frame + 1):g}")
            if column == 0:
                axis.set_ylabel(f"smoke, {name}")
    figure.colorbar(picture, ax=axes, shrink=0.7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT, help="folder that results/ and docs/ are written under")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import phi

    state = initial_smoke(arguments.points)
    theirs, their_seconds = phiflow_frames(state[0, 2], arguments.steps)
    ours, our_seconds = our_frames(state, arguments.steps)
    found = differences(ours, theirs)
    lines = [
        "# Smoke in a closed box against ΦFlow",
        "",
        f"ΦFlow {phi.__version__} (numpy) and `ClosedBoxSmoke`, both float64, from the same smoke (trajectory 0 of "
        f"`SmokeNoise`) on {arguments.points} x {arguments.points} cells: viscosity {VISCOSITY}, buoyancy {BUOYANCY}, "
        f"box {LENGTH:g}, {arguments.steps} steps of {STEP}. Root mean square difference over root mean square:",
        "",
        "| step | t | u | v | s |",
        "|---|---|---|---|---|",
    ]
    for frame in sorted({0, 1, 3, 7, 8, 15, 31, 47, arguments.steps - 1}):
        if frame < arguments.steps:
            row = [f"{difference:.1e}" for difference in found[:, frame]]
            lines.append(f"| {frame + 1} | {STEP * (frame + 1):g} | {' | '.join(row)} |")
    lines += [
        "",
        f"CPU seconds for this trajectory alone, one thread: ΦFlow {their_seconds:.1f}, pdessl {our_seconds:.2f}.",
        "",
        f"Measured by `python benchmarks/closed_box_phiflow.py --points {arguments.points} --steps {arguments.steps}` "
        f"on {platform.machine()}, torch {torch.__version__}, numpy {np.__version__}.",
        "",
        "![frames](../docs/simulators/closed_box_phiflow.png)",
        "",
    ]
    (arguments.out / "results").mkdir(parents=True, exist_ok=True)
    (arguments.out / "results" / "closed_box_validation.md").write_text("\n".join(lines))
    if arguments.steps >= 64:
        draw(ours, theirs, arguments.out / "docs" / "simulators" / "closed_box_phiflow.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
