"""Objectives: what a representation is trained to do, and the monitors that show when it collapses.

An objective is called ``objective(views)`` and returns :class:`Terms`: a total to descend, and named terms,
unweighted, for logging. Of a view it may ask what it wants (:class:`View`), and that is made then: the
``representation`` (features, trunk, tokens), the projector's ``embedding``, the teacher's (``taught``), ``tokens`` and
their ``places``, the standardised ``fields``, the group ``element`` drawn and the ``shift`` of log-parameter it made;
and of all views (:class:`Views`) the element ``between`` two. Nothing has to be declared. Each also has its formula on
tensors, ``objective.terms(...)``:

======================  ================================================================================
VICReg, BarlowTwins,    ``terms(z, z')``: embeddings (B, D) of two views; the mean over pairs of more
WMSE, SimSiam, SimCLR
LeJEPA, MMCR            ``terms(z, z', ...)``, any number of views
BYOL                    ``terms(z, z', t, t')``: t by an ExponentialMovingAverage
VICRegL                 ``terms(z, z', tokens, tokens', positions, positions')``
SIE                     ``terms(z, z', g)``: coordinates of the element that carries view 1 to view 2
CrossForecast           ``terms(features, fields', start)``
CrossResidual           ``terms(features, tokens')``
CodeDistillation        ``terms(z, codes)``: codes of a law, with which the views were drawn
ParameterEquivariance   ``terms(h, h', shift, shift')``
======================  ================================================================================

:class:`WeightedSum` adds several. TemporalJEPA and MaskedJEPA have no views: they are called with latents (B, N, D),
``(prediction, target[, context])``.

Your own objective need not inherit from anything. A function or module of two embeddings that returns a scalar, or a
named tuple with ``loss`` first, will do (:class:`OfPairs` takes its mean over pairs of views); one with a single
argument is given the views. :class:`EmbeddedViews` are views made of embeddings alone, for a training loop of one's
own.

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
from pdessl.objectives.codes import CodeDistillation, CodeDistillationTerms
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
from pdessl.objectives.regularisation import make_regulariser
from pdessl.objectives.residual import CrossResidual, CrossResidualTerms
from pdessl.objectives.sie import SIE, GroupAction, composition_error
from pdessl.objectives.sigreg import LeJEPA, LeJEPATerms, SIGReg, SIGRegTerms, sigreg_term
from pdessl.objectives.simclr import SimCLR, SimCLRTerms
from pdessl.objectives.temporal_jepa import TemporalJEPA
from pdessl.objectives.terms import Terms
from pdessl.objectives.variance_covariance import (
    VarianceCovariance,
    VarianceCovarianceTerms,
    covariance_term,
    equilibrium_std,
    variance_term,
)
from pdessl.objectives.vicreg import VICReg, VICRegTerms, invariance_term
from pdessl.objectives.vicregl import VICRegL
from pdessl.objectives.views import (
    EmbeddedViews,
    OfPairs,
    View,
    Views,
    aimed_std,
    as_objective,
    name_of,
    over_pairs,
)
from pdessl.objectives.w_mse import WMSE, WMSETerms, whiten
from pdessl.objectives.weighted_sum import WeightedSum

__all__ = [
    "BYOL",
    "MMCR",
    "SIE",
    "WMSE",
    "BarlowTwins",
    "BarlowTwinsTerms",
    "BlockMasks",
    "Calibration",
    "CodeDistillation",
    "CodeDistillationTerms",
    "CollapseSummary",
    "CrossForecast",
    "CrossForecastTerms",
    "CrossResidual",
    "CrossResidualTerms",
    "Diagnosis",
    "EmbeddedViews",
    "ExponentialMovingAverage",
    "GroupAction",
    "LeJEPA",
    "LeJEPATerms",
    "LiDAR",
    "MMCRTerms",
    "MaskedJEPA",
    "Masks",
    "OfPairs",
    "ParameterEquivariance",
    "ParameterEquivarianceTerms",
    "SIGReg",
    "SIGRegTerms",
    "SimCLR",
    "SimCLRTerms",
    "SimSiam",
    "TemporalJEPA",
    "Terms",
    "VICReg",
    "VICRegL",
    "VICRegTerms",
    "VarianceCovariance",
    "VarianceCovarianceTerms",
    "View",
    "Views",
    "WMSETerms",
    "WeightedSum",
    "aimed_std",
    "alignment",
    "alpha_req",
    "as_objective",
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
    "name_of",
    "nearest_neighbour_prediction",
    "normalised_std",
    "over_pairs",
    "per_dimension_std",
    "rank_me",
    "sigreg_term",
    "uniformity",
    "variance_term",
    "whiten",
]
