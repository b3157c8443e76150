"""Training tasks as LightningModules: pretraining without labels, parameter regression, time stepping.

Batches are :class:`pdessl.Trajectories`, in the user's units, with augmentation on the device they are on. Tasks know
neither datasets nor simulators.
"""

from pdessl.tasks.callbacks import AverageWeights, CollapseAlarm, SaveEncoder
from pdessl.tasks.checkpointing import WholeCheckpoints
from pdessl.tasks.latent_prediction import MaskedPrediction, TemporalPrediction
from pdessl.tasks.pretraining import LocalViews, Pretraining
from pdessl.tasks.regression import ParameterRegression
from pdessl.tasks.representation import RepresentationTask
from pdessl.tasks.time_stepping import TimeStepping
from pdessl.tasks.watching import Monitors, Probes
from pdessl.tasks.world_model import WorldModel

__all__ = [
    "AverageWeights",
    "CollapseAlarm",
    "LocalViews",
    "MaskedPrediction",
    "Monitors",
    "ParameterRegression",
    "Pretraining",
    "Probes",
    "RepresentationTask",
    "SaveEncoder",
    "TemporalPrediction",
    "TimeStepping",
    "WholeCheckpoints",
    "WorldModel",
]
