"""Draws the pictures of the simulators on periodic rectangles: python docs/simulators/two_dimensions.py [name ...]

Each shows frames of one or two runs. Minutes in all on one processor.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pdessl import Trajectories
from pdessl.solvers import (
    AdvectionDiffusion2D,
    Boussinesq2D,
    Burgers2D,
    GrayScott,
    InitialCondition,
    NavierStokes2D,
    RandomField2D,
    RandomFlow2D,
    ReactionPatches,
    ShallowWater2D,
    Simulator,
    SmokeBlobs,
    VortexPair,
    WaterDrops,
    random_stream,
)

HERE = Path(__file__).parent


def start(family: InitialCondition, points: int, length: float, seed: int = 0) -> Tensor:
    """One state of a family, shape (1, C, X, Y)."""
    draws = family.draw(random_stream(seed, "figure", 0, "physics"))[None]
    sides = torch.full((1, 2), float(length), dtype=torch.float64)
    return family.fields(draws, (points, points), sides)


def run(simulator: Simulator, initial: Tensor, times: Sequence[float]) -> Trajectories:
    """The run from a state."""
    with torch.no_grad():
        return simulator(initial, torch.tensor(times, dtype=torch.float64))


def draw(name: str, rows: Sequence[tuple[str, Trajectories, int, str, bool]]) -> None:
    """One row of frames per run: (title, trajectories, channel, colour map, whether the colours are centred on 0)."""
    columns = max(row[1].fields.shape[2] for row in rows)
    figure = Figure(figsize=(2.1 * columns, 2.35 * len(rows)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, runs, channel, colours, centred) in zip(axes, rows, strict=True):
        values = runs.fields[0, channel]
        for frame, place in enumerate(line):
            picture = values[frame].T
            if centred:
                top = float(picture.abs().max()) or 1.0
                limits = {"vmin": -top, "vmax": top}
            else:
                limits = {"vmin": float(values.min()), "vmax": float(values.max())}
            place.imshow(picture, origin="lower", cmap=colours, **limits)
            place.set_xticks([])
            place.set_yticks([])
            place.set_title(f"t = {float(runs.time[0, frame]):g}", fontsize=8)
        line[0].set_ylabel(title, fontsize=8)
    figure.savefig(HERE / f"{name}.png", dpi=90, pil_kwargs={"optimize": True})


def navier_stokes() -> None:
    """Vortices that merge and the filaments between them."""
    points, length = 192, 2 * math.pi
    decaying = NavierStokes2D(2e-3, points=points, outputs=("w",), check_resolution=False, precision=torch.float32)
    turbulence = start(RandomFlow2D(rms=1.0, peak=6.0, highest=24), points, length)
    pair = start(VortexPair(separation=0.17, radius=0.07, vorticity=12.0), points, length)
    draw(
        "navier_stokes_2d",
        [
            ("decaying turbulence,\nvorticity", run(decaying, turbulence, (0, 1, 3, 6, 12)), 0, "RdBu_r", True),
            ("two like vortices merge,\nvorticity", run(decaying, pair, (0, 2, 4, 7, 12)), 0, "RdBu_r", True),
        ],
    )


def kolmogorov_flow() -> None:
    """Bands that a force drives become unstable and turbulent."""
    points, length = 128, 2 * math.pi
    begin = start(RandomFlow2D(rms=0.02, peak=3.0, highest=8), points, length)
    made = NavierStokes2D(
        8e-3,
        0.1,
        1.0,
        points=points,
        force_wave_number=4,
        outputs=("w", "u"),
        time_step=0.02,
        check_resolution=False,
        precision=torch.float32,
    )
    runs = run(made, begin, (1, 4, 7, 10, 25))
    draw("kolmogorov_flow", [("vorticity", runs, 0, "RdBu_r", True), ("velocity u", runs, 1, "PuOr_r", True)])


def boussinesq() -> None:
    """Smoke that rises."""
    points, length = 160, 2 * math.pi
    begin = start(SmokeBlobs(number=4, radius=(0.06, 0.1)), points, length, seed=3)
    made = Boussinesq2D(
        4e-3, 0.5, 4e-3, points=points, outputs=("s", "w"), check_resolution=False, precision=torch.float32
    )
    runs = run(made, begin, (0, 3, 6, 9, 14))
    draw("boussinesq", [("smoke", runs, 0, "magma", False), ("vorticity", runs, 1, "RdBu_r", True)])


def gray_scott() -> None:
    """Two patterns from the same patches."""
    points, length = 144, 1.2
    begin = start(ReactionPatches(number=5, radius=(0.05, 0.08), amount=(1.0, 1.5)), points, length)
    rows = []
    for title, feed, kill in (("spots divide", 0.03, 0.062), ("a maze", 0.035, 0.06)):
        made = GrayScott(
            feed,
            kill,
            domain_length=length,
            points=points,
            outputs=("v",),
            check_resolution=False,
            precision=torch.float32,
        )
        runs = run(made, begin, (0, 300, 1000, 2000, 4000))
        rows.append((f"{title}\nF = {feed}, k = {kill}", runs, 0, "viridis", False))
    draw("gray_scott", rows)


def shallow_water() -> None:
    """Rings that cross."""
    points, length = 128, 10.0
    begin = start(WaterDrops(number=2, radius=(0.04, 0.05), height=(0.05, 0.1)), points, length)
    runs = run(ShallowWater2D(1.0, length, points), begin, (0, 1, 2.5, 4.5, 8))
    runs = runs.replace(fields=runs.fields - torch.tensor([0.0, 0.0, 1.0])[:, None, None, None])
    draw("shallow_water_2d", [("depth - 1", runs, 2, "RdBu_r", True)])


def transport() -> None:
    """Sheets of the Burgers equation, and a scalar that is carried along."""
    points, fine, length = 128, 192, 2 * math.pi
    sheets = start(RandomField2D(rms=0.8, peak=2.0, highest=4, components=2), fine, length)
    scalar = start(RandomField2D(rms=1.0, peak=4.0, highest=10), points, length)
    times = (0, 0.5, 1, 2, 4)
    burgers = run(Burgers2D(0.08, points=fine), sheets, times)
    carried = run(AdvectionDiffusion2D(1.0, 0.5, 0.02, points=points), scalar, times)
    draw(
        "transport_2d",
        [("Burgers, velocity u", burgers, 0, "PuOr_r", True), ("advection-diffusion", carried, 0, "RdBu_r", True)],
    )


PICTURES = {f.__name__: f for f in (navier_stokes, kolmogorov_flow, boussinesq, gray_scott, shallow_water, transport)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
        print(name)
