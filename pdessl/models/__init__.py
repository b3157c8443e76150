"""Networks: encoders, projectors, heads and time-steppers, and how they are saved and loaded. Torch only."""

from pdessl.models.checkpoint import load, pretrained, save_pretrained
from pdessl.models.convolutional import ConvEncoder
from pdessl.models.embedding import embed, view_seed
from pdessl.models.heads import Head, Projector
from pdessl.models.normalisation import Normalised
from pdessl.models.ridge import RidgeReadout, fit_ridge
from pdessl.models.stepper import TimeStepper

__all__ = [
    "ConvEncoder",
    "Head",
    "Normalised",
    "Projector",
    "RidgeReadout",
    "TimeStepper",
    "embed",
    "fit_ridge",
    "load",
    "pretrained",
    "save_pretrained",
    "view_seed",
]
