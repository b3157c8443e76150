"""Animations of rollouts as GIF files, drawn pixel by pixel: no video program is needed."""

# T frames, X and Y nodes

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from pdessl.errors import ShapeError
from pdessl.files import replacing

__all__ = ["control_gif", "rollout_gif"]

_MOST = 60  # frames
_SIZE, _MARGIN, _TOP = 200, 10, 18  # pixels: of a panel, around it, and above it for its title
_INK, _LINE, _AXIS = (29, 39, 51), (0, 114, 178), (200, 205, 212)


def rollout_gif(
    path: str | os.PathLike[str], truth: ArrayLike, rollout: ArrayLike, time: ArrayLike, title: str = "rollout"
) -> Path:
    """Write truth, rollout and their difference over time as an animation, side by side.

    Args:
        path: file to write.
        truth: one field of one run, (T, X), drawn as a curve, or (T, X, Y), as a picture.
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
    images = []
    for i in range(0, len(u), -(-len(u) // _MOST)):
        picture = Image.new("RGB", (3 * _SIZE + 4 * _MARGIN, _SIZE + _TOP + 2 * _MARGIN), "white")
        draw = ImageDraw.Draw(picture)
        names = (f"truth, t = {t[i]:.3g}", title, "difference")
        for n, (field, name) in enumerate(zip((u[i], p[i], p[i] - u[i]), names, strict=True)):
            left = _MARGIN + n * (_SIZE + _MARGIN)
            draw.text((left, _MARGIN - 4), name, fill=_INK)
            corner = (left, _MARGIN + _TOP)
            if u.ndim == 2:
                _curve(draw, corner, field / limit)
            else:
                picture.paste(_picture(field / limit), corner)
        images.append(picture)
    with replacing(path) as temporary:
        images[0].save(temporary, format="GIF", save_all=True, append_images=images[1:], duration=120, loop=0)
    return Path(path)


def control_gif(
    path: str | os.PathLike[str], without: ArrayLike, steered: ArrayLike, time: ArrayLike, title: str = "steered"
) -> Path:
    """Write one episode without control beside the same one with control as an animation.

    Args:
        path: file to write.
        without: field without control, (T, X), drawn as a curve, or (T, X, Y), as a picture.
        steered: with it, of the same shape.
        time: (T,).
        title: of the second panel.

    Returns:
        The path.

    Raises:
        ShapeError: shapes that differ, or more than two axes of space.
    """
    u, p, t = (np.asarray(v, dtype=np.float64) for v in (without, steered, time))
    if u.shape != p.shape or u.ndim not in (2, 3) or len(t) != len(u):
        raise ShapeError(
            f"control_gif got {u.shape}, {p.shape} and {len(t)} times; expected one shape, (T, X) or (T, X, Y), and T "
            "times."
        )
    limit, images = float(np.abs(u).max()) or 1.0, []
    for i in range(0, len(u), -(-len(u) // _MOST)):
        picture = Image.new("RGB", (2 * _SIZE + 3 * _MARGIN, _SIZE + _TOP + 2 * _MARGIN), "white")
        draw = ImageDraw.Draw(picture)
        for n, (values, name) in enumerate(((u[i], f"no control, t = {t[i]:.3g}"), (p[i], title))):
            left = _MARGIN + n * (_SIZE + _MARGIN)
            draw.text((left, _MARGIN - 4), name, fill=_INK)
            corner = (left, _MARGIN + _TOP)
            if u.ndim == 2:
                _curve(draw, corner, values / limit)
            else:
                picture.paste(_picture(values / limit), corner)
        images.append(picture)
    with replacing(path) as temporary:
        images[0].save(temporary, format="GIF", save_all=True, append_images=images[1:], duration=120, loop=0)
    return Path(path)


def _curve(draw: ImageDraw.ImageDraw, corner: tuple[int, int], values: NDArray[Any]) -> None:
    left, top = corner
    x = left + np.linspace(0, _SIZE - 1, len(values))
    y = top + (1 - np.clip(np.nan_to_num(values, nan=2.0), -1.1, 1.1) / 1.1) * (_SIZE - 1) / 2
    draw.rectangle((left, top, left + _SIZE - 1, top + _SIZE - 1), outline=_AXIS)
    draw.line((left, top + _SIZE // 2, left + _SIZE - 1, top + _SIZE // 2), fill=_AXIS)
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_LINE, width=2)


def _picture(values: NDArray[Any]) -> Image.Image:
    shades = (np.clip(np.nan_to_num(values), -1, 1) + 1) / 2
    pixels = (colormaps["RdBu_r"](shades.T[::-1])[..., :3] * 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((_SIZE, _SIZE), Image.Resampling.NEAREST)
