"""Animations of rollouts as GIF files; no video program is needed."""

# T frames, X and Y nodes

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pdessl.errors import ShapeError
from pdessl.files import replacing

__all__ = ["rollout_gif"]

_MOST = 60


def rollout_gif(
    path: str | os.PathLike[str], truth: ArrayLike, rollout: ArrayLike, time: ArrayLike, title: str = "rollout"
) -> Path:
    """Write truth, rollout and their difference over time as an animation.

    Args:
        path: file to write.
        truth: one field of one run, (T, X) or (T, X, Y).
        rollout: of the same shape.
        time: (T,).
        title: of the rollout.

    Returns:
        The path.

    Raises:
        ShapeError: shapes that differ, or more than two axes of space.
    """
    u, p, t = (np.asarray(v, dtype=np.float64) for v in (truth, rollout, time))
    if u.shape != p.shape or u.ndim not in (2, 3) or len(t) != len(u):
        raise ShapeError(
            f"rollout_gif got truth {u.shape}, rollout {p.shape} and {len(t)} times; expected one shape, (T, X) or "
            "(T, X, Y), and T times."
        )
    limit = float(np.abs(u).max()) or 1.0
    kept = range(0, len(u), -(-len(u) // _MOST))
    with matplotlib.rc_context({"font.size": 8}):
        frames = [_frame(u[i], p[i], f"t = {t[i]:.3g}", title, limit) for i in kept]
    images = [Image.fromarray(f) for f in frames]
    with replacing(path) as temporary:
        images[0].save(temporary, format="GIF", save_all=True, append_images=images[1:], duration=120, loop=0)
    return Path(path)


def _frame(u: NDArray[Any], p: NDArray[Any], when: str, title: str, limit: float) -> NDArray[np.uint8]:
    figure = Figure(figsize=(7.2, 2.4), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for place, field, name in zip(axes, (u, p, p - u), (f"truth, {when}", title, "difference"), strict=True):
        if u.ndim == 1:
            place.plot(field, linewidth=1.2)
            place.set_ylim(-1.1 * limit, 1.1 * limit)
        else:
            place.imshow(field.T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        place.set_title(name)
        place.set_xticks([])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
