"""Networks: encoders, projectors, heads and time-steppers, and how they are saved and loaded. Torch only."""

from pdessl.models.checkpoint import load, pretrained, save_pretrained
from pdessl.models.convnext import ConvNeXtEncoder
from pdessl.models.convolutional import ConvEncoder
from pdessl.models.embedding import embed, view_seed
from pdessl.models.heads import Head, Projector
from pdessl.models.normalisation import Normalised
from pdessl.models.ridge import RidgeReadout, fit_ridge
from pdessl.models.stepper import TimeStepper
from pdessl.models.transformer import SpaceTimeTransformer, TokenPredictor, token_positions

__all__ = [
    "ConvEncoder",
    "ConvNeXtEncoder",
    "Head",
    "Normalised",
    "Projector",
    "RidgeReadout",
    "SpaceTimeTransformer",
    "TimeStepper",
    "TokenPredictor",
    "embed",
    "fit_ridge",
    "load",
    "pretrained",
    "save_pretrained",
    "token_positions",
    "view_seed",
]
