"""Networks: encoders, projectors, heads and time-steppers, and how they are saved and loaded. Torch only."""

from pdessl.models.adaptation import LowRank, merge_adapters, train_only
from pdessl.models.attention import AttentiveHead
from pdessl.models.checkpoint import load, pretrained, save_pretrained
from pdessl.models.convnext import ConvNeXtEncoder
from pdessl.models.convolutional import ConvEncoder
from pdessl.models.embedding import embed, view_seed
from pdessl.models.heads import Head, Projector, SplitProjector
from pdessl.models.normalisation import Normalised
from pdessl.models.ridge import RidgeReadout, fit_ridge
from pdessl.models.scale import bounded, from_scale, to_scale
from pdessl.models.spacing import spacing_arguments
from pdessl.models.stepper import TimeStepper
from pdessl.models.transformer import SpaceTimeTransformer, TokenPredictor, token_positions

__all__ = [
    "AttentiveHead",
    "ConvEncoder",
    "ConvNeXtEncoder",
    "Head",
    "LowRank",
    "Normalised",
    "Projector",
    "RidgeReadout",
    "SpaceTimeTransformer",
    "SplitProjector",
    "TimeStepper",
    "TokenPredictor",
    "bounded",
    "embed",
    "fit_ridge",
    "from_scale",
    "load",
    "merge_adapters",
    "pretrained",
    "save_pretrained",
    "spacing_arguments",
    "to_scale",
    "token_positions",
    "train_only",
    "view_seed",
]
