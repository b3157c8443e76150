"""The scale on which a parameter is regressed: its logarithm, or the parameter itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.errors import DataError, SchemaError, did_you_mean

__all__ = ["SCALES", "bounded", "from_scale", "to_scale"]

SCALES = ("log", "linear")


def to_scale(values: Tensor, scale: str, name: str = "the parameter") -> Tensor:
    """Return values of a parameter on its scale, float64.

    Args:
        values: in the parameter's own unit, any shape.
        scale: ``log`` or ``linear``.
        name: for messages.

    Raises:
        SchemaError: another scale.
        DataError: a value that is not finite, or not positive where the logarithm is asked for.
    """
    values = values.detach().double()
    if _checked(scale) == "linear":
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"parameter '{name}' has values that are not finite. Remove these runs.")
        return values
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise DataError(
            f"parameter '{name}' must be positive and finite to be regressed on the log scale; its smallest value is "
            f"{float(values.min()):g}. Set its scale to linear."
        )
    return values.log()


def from_scale(values: Tensor, scale: str) -> Tensor:
    """Return values in the parameter's own unit; the inverse of :func:`to_scale`."""
    return values.exp() if _checked(scale) == "log" else values


def bounded(predictions: Tensor, known: Tensor, room: float = 0.5) -> Tensor:
    """Return predictions moved into the range of the labels, widened on each side by a share of its width.

    A linear readout of many features that was fitted on few labels extrapolates to values that nobody would report; one
    such run would decide a mean error. Labels are all that is used, so that every method that has them can be bounded
    alike.

    Args:
        predictions: on the scale of the regression, (m,) or (m, P).
        known: the labels the method was given, on the same scale, (n,) or (n, P).
        room: share of the labels' range that is added on each side, >= 0.
    """
    low, high = known.min(dim=0).values, known.max(dim=0).values
    margin = room * (high - low)
    return torch.minimum(torch.maximum(predictions, low - margin), high + margin)


def _checked(scale: str, scales: Sequence[str] = SCALES) -> str:
    if scale not in scales:
        raise SchemaError(f"no scale '{scale}'.{did_you_mean(scale, scales)} Scales: {', '.join(scales)}.")
    return scale
