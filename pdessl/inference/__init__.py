"""From a trained encoder to answers: parameters of new runs, their intervals and novelty, and features."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pdessl.inference.encoding import RunEncoder, features
from pdessl.inference.energy import EnergyEncoder
from pdessl.inference.fitting import fit_parameter_model
from pdessl.inference.format import InputFormat
from pdessl.inference.loading import load
from pdessl.inference.measured import Measured, MeasuredParameter
from pdessl.inference.model import ParameterModel
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.readouts import HeadReadout
from pdessl.inference.runs import Runs
from pdessl.inference.saving import save
from pdessl.inference.surrogates import SurrogateModel
from pdessl.inference.target import Target
from pdessl.inference.time_windows import TimeChoice, choose_time
from pdessl.inference.views import Views

if TYPE_CHECKING:
    from pdessl.inference.encoder import SimulationEncoder
    from pdessl.inference.law_transformer import LawTransformer

__all__ = [
    "EnergyEncoder",
    "HeadReadout",
    "InputFormat",
    "LawTransformer",
    "Measured",
    "MeasuredParameter",
    "ParameterModel",
    "PhysicsEncoder",
    "RunEncoder",
    "Runs",
    "SimulationEncoder",
    "SurrogateModel",
    "Target",
    "TimeChoice",
    "Views",
    "choose_time",
    "features",
    "fit_parameter_model",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    # Importing scikit-learn takes a second, and predicting does not need it.
    if name == "SimulationEncoder":
        return importlib.import_module("pdessl.inference.encoder").SimulationEncoder
    if name == "LawTransformer":
        return importlib.import_module("pdessl.inference.law_transformer").LawTransformer
    raise AttributeError(f"module 'pdessl.inference' has no attribute '{name}'")
