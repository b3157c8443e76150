"""Linear probes of a representation: ridge on log-parameter, in closed form."""

# n rows, D feature width

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import DataError
from pdessl.evaluation.metrics import nmse, r2, relative_error
from pdessl.models.ridge import PENALTIES, RidgeReadout, fit_ridge

__all__ = ["PENALTIES", "LinearProbe", "ProbeScores", "RidgeReadout", "fit_ridge", "linear_probe"]


class ProbeScores(NamedTuple):
    """Scores of a probe: relative error in per cent in the parameter's unit; NMSE and R² on the log scale."""

    relative_error: float
    nmse: float
    r2: float


class LinearProbe(NamedTuple):
    """A ridge readout of log-parameter."""

    readout: RidgeReadout

    def predict(self, features: Tensor) -> Tensor:
        """Return the parameter (n,) in its own unit for features (n, D)."""
        return self.readout.predict(features)[:, 0].exp()

    def score(self, features: Tensor, values: Tensor) -> ProbeScores:
        """Return the scores on features (n, D) with true parameters (n,)."""
        values = _positive(values)
        log_prediction = self.readout.predict(features)[:, 0]
        return ProbeScores(
            relative_error=float(relative_error(log_prediction.exp(), values)),
            nmse=float(nmse(log_prediction, values.log())),
            r2=float(r2(log_prediction, values.log())),
        )


def linear_probe(features: Tensor, values: Tensor, penalties: tuple[float, ...] = PENALTIES) -> LinearProbe:
    """Fit log-parameter by ridge regression on standardised features; penalty by leave-one-out error.

    No validation labels are used: the few labels there are choose the penalty as well.

    Args:
        features: shape (n, D), n >= 3, of the labelled trajectories.
        values: true parameters, shape (n,), > 0.
        penalties: grid of κ, see :func:`fit_ridge`.

    Raises:
        DataError: a parameter that is not positive and finite.
        ShapeError: rows that do not match.
    """
    return LinearProbe(fit_ridge(features, _positive(values).log(), penalties))


def _positive(values: Tensor) -> Tensor:
    values = values.detach().double()
    if not (torch.isfinite(values) & (values > 0)).all():
        raise DataError("a probe on the log scale needs parameters that are positive and finite.")
    return values
