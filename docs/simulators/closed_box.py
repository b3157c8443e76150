"""Draws smoke.png, smoke that rises in a closed box, by both schemes: python docs/simulators/closed_box.py"""

from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pdessl.solvers import ClosedBoxSmoke, SmokeNoise, random_stream

LENGTH, POINTS = 32.0, 128
TIMES = torch.tensor([7.5, 13.5, 21.0, 30.0, 48.0], dtype=torch.float64)
SCHEMES = {
    "semi_lagrangian": ("the public scheme\n(steps of 1.5)", 1.5),
    "maccormack": ("second order\n(steps of 0.25)", 0.25),
}


def main() -> None:
    """Simulate and draw."""
    family = SmokeNoise()
    draws = family.draw(random_stream(0, "picture", 4, "physics"))[None]
    state = family.fields(draws, (POINTS, POINTS), torch.full((1, 2), LENGTH, dtype=torch.float64))
    figure = Figure(figsize=(10, 4.3), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(SCHEMES), len(TIMES))
    for row, (scheme, (label, step)) in enumerate(SCHEMES.items()):
        simulator = ClosedBoxSmoke(0.01, 0.35, LENGTH, POINTS, scheme=scheme, time_step=step)
        smoke = simulator.solve(state, TIMES).trajectories.fields[0, 2]
        for column, time in enumerate(TIMES.tolist()):
            axis = axes[row, column]
            picture = axis.imshow(smoke[column].T, origin="lower", cmap="magma", vmin=0, vmax=2)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"t = {time:g}")
            if column == 0:
                axis.set_ylabel(label)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="smoke")
    figure.savefig(Path(__file__).with_name("smoke.png"), dpi=95)


if __name__ == "__main__":
    main()
