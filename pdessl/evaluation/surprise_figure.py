"""A run and what is surprising in it, one above the other on the same axis of time."""

# T frames, X nodes, T' scored positions in time

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pdessl.errors import ShapeError

__all__ = ["surprise_figure"]

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#9aa5b1"


def surprise_figure(
    field: ArrayLike,
    time: ArrayLike,
    nodes: ArrayLike,
    known: ArrayLike,
    statistic: ArrayLike,
    alarm_time: float,
    title: str = "",
    names: tuple[str, str, str] = ("u", "x", "time"),
) -> Figure:
    """Return a space-time picture of a field above the statistic that raises the alarm.

    Args:
        field: (T, X); of a field in the plane, a line through it.
        time: (T,).
        nodes: (X,).
        known: times at which the statistic is known, (T',).
        statistic: over its threshold, (T',): above 1 is an alarm.
        alarm_time: NaN: none.
        title: of the figure.
        names: of the field, the axis and time.

    Raises:
        ShapeError: shapes that do not belong together.
    """
    u, t, x, k, s = (np.asarray(v, dtype=np.float64) for v in (field, time, nodes, known, statistic))
    if u.shape != (len(t), len(x)) or k.shape != s.shape:
        raise ShapeError(
            f"surprise_figure got a field {u.shape} for {len(t)} times and {len(x)} nodes, and {k.shape} times for "
            f"{s.shape} statistics."
        )
    style: Any = {"font.size": 9.5, "axes.linewidth": 0.8}
    with rc_context(style):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        limit = float(np.abs(u).max()) or 1.0
        picture = above.pcolormesh(
            t, x, u.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
        )
        figure.colorbar(picture, ax=above, label=names[0], pad=0.01)
        above.set_ylabel(names[1])
        above.set_title(title, loc="left")
        shown = np.isfinite(s)
        below.plot(k[shown], s[shown], color=_BLUE, lw=1.6)
        below.axhline(1.0, color=_GREY, lw=0.9, ls="--")
        below.text(t[0], 1.0, " alarm above", color="#52606d", va="bottom", fontsize=8.5)
        if np.isfinite(alarm_time):
            for axes in (above, below):
                axes.axvline(alarm_time, color=_RED, lw=1.4)
        below.set_ylim(0.0, max(1.3, 1.05 * float(s[shown].max(initial=0.0))))
        below.set_xlabel(names[2])
        below.set_ylabel("statistic / threshold")
    return figure
