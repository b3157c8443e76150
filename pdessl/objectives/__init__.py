"""Objectives: what a representation is trained to do, and the monitors that show when it collapses.

Each objective is a ``torch.nn.Module``. It returns a named tuple: ``loss`` first, then its terms, unweighted
(``terms._asdict()`` for logging). A joint-embedding objective is called ``objective(z, z')`` with embeddings (B, D) of
two views; those that need more say so in a class attribute and take it after these two:

======================  ================================================================================
VICReg, BarlowTwins,    ``(z, z')``
WMSE, SimSiam, SimCLR
LeJEPA, MMCR            ``(z, z', ...)``, any number of views
(``multi_view``)
BYOL (``teacher``)      ``(z, z', t, t')``: the same views embedded by an ExponentialMovingAverage
VICRegL (``tokens``)    ``(z, z', tokens, tokens', positions, positions')``
SIE (``element``)       ``(z, z', g)``: coordinates of the element that carries view 1 to view 2
TemporalJEPA,           ``(prediction, target[, context])``: latents (B, N, D)
MaskedJEPA
(``predictive``)
======================  ================================================================================

:func:`view_terms` takes the first row to more than two views, as the mean over pairs.

Your own objective need not inherit from anything: a module that is called as one of these rows and returns a named
tuple with ``loss`` first, or a scalar. ``CrossForecast`` and ``ParameterEquivariance`` are added to one of these.

The anti-collapse terms VarianceCovariance (``vc``) and SIGReg (``sigreg``) can be exchanged, by name or object,
wherever a ``regulariser`` is taken; any callable on embeddings will do. First line of each docstring: what it is; class
attribute ``choose_when``: when to choose it; ``target_std``: the spread that embeddings are meant to have, where the
objective has one.

Batch size, width, device and precision come from the tensors. Statistics run over the rows of all processes (loss and
gradient of several processes are those of one that holds the joined batch) and are computed in float32 (float64 stays),
also under autocast. Gradient accumulation does not enlarge the batch that they see. Networks with batch norm, a
predictor passed here included, need SyncBatchNorm for the same to hold of theirs.
"""

from pdessl.objectives.barlow_twins import BarlowTwins, BarlowTwinsTerms
from pdessl.objectives.diagnosis import Diagnosis, collapse_diagnosis
from pdessl.objectives.distillation import BYOL, SimSiam
from pdessl.objectives.ema import ExponentialMovingAverage, momentum
from pdessl.objectives.equivariance import (
    Calibration,
    ParameterEquivariance,
    ParameterEquivarianceTerms,
    calibrate,
)
from pdessl.objectives.forecast import CrossForecast, CrossForecastTerms
from pdessl.objectives.masked_jepa import MaskedJEPA
from pdessl.objectives.masks import BlockMasks, Masks
from pdessl.objectives.mmcr import MMCR, MMCRTerms
from pdessl.objectives.monitors import (
    CollapseSummary,
    LiDAR,
    alignment,
    alpha_req,
    collapse_summary,
    lidar,
    normalised_std,
    per_dimension_std,
    rank_me,
    uniformity,
)
from pdessl.objectives.neighbours import nearest_neighbour_prediction
from pdessl.objectives.pairs import view_terms
from pdessl.objectives.regularisation import make_regulariser
from pdessl.objectives.sie import SIE, GroupAction, composition_error
from pdessl.objectives.sigreg import LeJEPA, LeJEPATerms, SIGReg, SIGRegTerms, sigreg_term
from pdessl.objectives.simclr import SimCLR, SimCLRTerms
from pdessl.objectives.temporal_jepa import TemporalJEPA
from pdessl.objectives.variance_covariance import (
    VarianceCovariance,
    VarianceCovarianceTerms,
    covariance_term,
    equilibrium_std,
    variance_term,
)
from pdessl.objectives.vicreg import VICReg, VICRegTerms, invariance_term
from pdessl.objectives.vicregl import VICRegL
from pdessl.objectives.w_mse import WMSE, WMSETerms, whiten

__all__ = [
    "BYOL",
    "MMCR",
    "SIE",
    "WMSE",
    "BarlowTwins",
    "BarlowTwinsTerms",
    "BlockMasks",
    "Calibration",
    "CollapseSummary",
    "CrossForecast",
    "CrossForecastTerms",
    "Diagnosis",
    "ExponentialMovingAverage",
    "GroupAction",
    "LeJEPA",
    "LeJEPATerms",
    "LiDAR",
    "MMCRTerms",
    "MaskedJEPA",
    "Masks",
    "ParameterEquivariance",
    "ParameterEquivarianceTerms",
    "SIGReg",
    "SIGRegTerms",
    "SimCLR",
    "SimCLRTerms",
    "SimSiam",
    "TemporalJEPA",
    "VICReg",
    "VICRegL",
    "VICRegTerms",
    "VarianceCovariance",
    "VarianceCovarianceTerms",
    "WMSETerms",
    "alignment",
    "alpha_req",
    "calibrate",
    "collapse_diagnosis",
    "collapse_summary",
    "composition_error",
    "covariance_term",
    "equilibrium_std",
    "invariance_term",
    "lidar",
    "make_regulariser",
    "momentum",
    "nearest_neighbour_prediction",
    "normalised_std",
    "per_dimension_std",
    "rank_me",
    "sigreg_term",
    "uniformity",
    "variance_term",
    "view_terms",
    "whiten",
]
