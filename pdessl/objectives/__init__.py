"""Objectives: what a representation is trained to do, and the monitors that show when it collapses.

Each objective is a ``torch.nn.Module`` called with embeddings of two views; it returns named terms, of which ``loss``
is the weighted sum and the others are unweighted. Batch size, width, device and precision come from the tensors.
Statistics run over the rows of all processes and are computed in float32 (float64 stays), also under autocast.
"""

from pdessl.objectives.equivariance import ParameterEquivariance, ParameterEquivarianceTerms
from pdessl.objectives.forecast import CrossForecast, CrossForecastTerms
from pdessl.objectives.monitors import CollapseSummary, collapse_summary, per_dimension_std, rank_me
from pdessl.objectives.vicreg import (
    VICReg,
    VICRegTerms,
    covariance_term,
    equilibrium_std,
    invariance_term,
    variance_term,
)

__all__ = [
    "CollapseSummary",
    "CrossForecast",
    "CrossForecastTerms",
    "ParameterEquivariance",
    "ParameterEquivarianceTerms",
    "VICReg",
    "VICRegTerms",
    "collapse_summary",
    "covariance_term",
    "equilibrium_std",
    "invariance_term",
    "per_dimension_std",
    "rank_me",
    "variance_term",
]
