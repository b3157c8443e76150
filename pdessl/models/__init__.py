"""Networks: encoders, projectors, heads and time-steppers, and how they are saved and loaded. Torch only."""

from pdessl.models.adaptation import LowRank, merge_adapters, train_only
from pdessl.models.attention import AttentiveHead
from pdessl.models.checkpoint import load, pretrained, save_pretrained
from pdessl.models.completion import complete_networks, open_networks
from pdessl.models.convnext import ConvNeXtEncoder
from pdessl.models.convolutional import ConvEncoder
from pdessl.models.embedding import embed, view_seed
from pdessl.models.encoder import Encoder
from pdessl.models.energies import EnergyEncoder
from pdessl.models.field_state import FieldState
from pdessl.models.fno import FNO
from pdessl.models.heads import Head, Projector, SplitProjector
from pdessl.models.latent_variable import LatentVariable
from pdessl.models.normalisation import Normalisation
from pdessl.models.policy import Critic, Policy
from pdessl.models.pooled import Blocks, PooledEncoder, pooled
from pdessl.models.representation import Representation, RepresentationNetwork, TokenNetwork
from pdessl.models.ridge import RidgeReadout, fit_ridge
from pdessl.models.scale import bounded, from_scale, to_scale
from pdessl.models.spacing import spacing_arguments
from pdessl.models.stepper import DilatedNetwork, TimeStepper
from pdessl.models.surrogate import Surrogate
from pdessl.models.transformer import SpaceTimeTransformer, TokenPredictor, next_window, token_positions
from pdessl.models.unet import UNet
from pdessl.models.world import (
    ActionPredictor,
    CausalActionPredictor,
    GridActionPredictor,
    InverseDynamics,
    StateEncoder,
    StateReadout,
    follow,
    roll_out,
)

__all__ = [
    "FNO",
    "ActionPredictor",
    "AttentiveHead",
    "Blocks",
    "CausalActionPredictor",
    "ConvEncoder",
    "ConvNeXtEncoder",
    "Critic",
    "DilatedNetwork",
    "Encoder",
    "EnergyEncoder",
    "FieldState",
    "GridActionPredictor",
    "Head",
    "InverseDynamics",
    "LatentVariable",
    "LowRank",
    "Normalisation",
    "Policy",
    "PooledEncoder",
    "Projector",
    "Representation",
    "RepresentationNetwork",
    "RidgeReadout",
    "SpaceTimeTransformer",
    "SplitProjector",
    "StateEncoder",
    "StateReadout",
    "Surrogate",
    "TimeStepper",
    "TokenNetwork",
    "TokenPredictor",
    "UNet",
    "bounded",
    "complete_networks",
    "embed",
    "fit_ridge",
    "follow",
    "from_scale",
    "load",
    "merge_adapters",
    "next_window",
    "open_networks",
    "pooled",
    "pretrained",
    "roll_out",
    "save_pretrained",
    "spacing_arguments",
    "to_scale",
    "token_positions",
    "train_only",
    "view_seed",
]
