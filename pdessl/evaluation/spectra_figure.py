"""Which waves a rollout holds, beside those of the truth, at several times."""

# T times, K bands of waves

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pdessl.errors import ShapeError
from pdessl.evaluation.plots import METHOD_COLOURS

__all__ = ["spectra_figure"]

_LEAST = 1e-12  # of the largest energy: round-off of single precision


def spectra_figure(time: ArrayLike, truth: ArrayLike, predictions: Mapping[str, ArrayLike]) -> Figure:
    """Return a panel per time: the energy of the waves of each length, of the truth and of every method.

    Args:
        time: (T,).
        truth: (T, K), see :func:`pdessl.evaluation.rollouts.spectra`.
        predictions: method -> (T, K).

    Raises:
        ShapeError: shapes that do not belong together.
    """
    t, u = np.asarray(time, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    found = {method: np.asarray(values, dtype=np.float64) for method, values in predictions.items()}
    wrong = [v.shape for v in found.values() if v.shape != u.shape]
    if u.ndim != 2 or len(t) != len(u) or wrong:
        raise ShapeError(
            f"spectra_figure got {len(t)} times, a truth {u.shape} and predictions {', '.join(map(str, wrong)) or '-'};"
            " expected one shape (T, K)."
        )
    style: Any = {"font.size": 9.5, "axes.linewidth": 0.8, "legend.frameon": False, "svg.hashsalt": "pdessl"}
    with rc_context(style):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(1, len(t), sharey=True, squeeze=False)[0]
        waves, least = np.arange(1, u.shape[1]), _LEAST * (float(u[:, 1:].max(initial=0.0)) or 1.0)
        for i, axes in enumerate(grid):
            axes.plot(waves, u[i, 1:].clip(least), color="black", lw=2.2, label="truth")
            for j, (method, values) in enumerate(found.items()):
                shown = np.nan_to_num(values[i, 1:], posinf=np.nan).clip(least)
                axes.plot(waves, shown, color=METHOD_COLOURS[j % 8], lw=1.3, label=method)
            axes.set(xscale="log", yscale="log", title=f"t = {t[i]:.3g}", xlabel="wave number")
        grid[0].set_ylabel("energy")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    return figure
