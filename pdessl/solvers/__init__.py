"""Batched simulators in torch, on any device, float64 inside, and families of random initial fields."""

from pdessl.solvers.burgers import Burgers
from pdessl.solvers.forcing import Actuators, SineForcing, TimeVarying
from pdessl.solvers.heat import AdvectionDiffusion, Heat
from pdessl.solvers.initial_conditions import (
    FAMILIES,
    GaussianRandomField,
    InitialCondition,
    SineSeries,
    fourier_series,
    random_stream,
)
from pdessl.solvers.kdv import KdV, KdVBurgers
from pdessl.solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from pdessl.solvers.periodic import PeriodicSimulator
from pdessl.solvers.pseudo_spectral import ETDRK4
from pdessl.solvers.simulator import Simulator, Solution

__all__ = [
    "ETDRK4",
    "FAMILIES",
    "SIMULATORS",
    "Actuators",
    "AdvectionDiffusion",
    "Burgers",
    "GaussianRandomField",
    "Heat",
    "InitialCondition",
    "KdV",
    "KdVBurgers",
    "KuramotoSivashinsky",
    "PeriodicSimulator",
    "Simulator",
    "SineForcing",
    "SineSeries",
    "Solution",
    "TimeVarying",
    "fourier_series",
    "random_stream",
]

#: Simulators by the name a dataset file uses.
SIMULATORS: dict[str, type[Simulator]] = {
    "burgers": Burgers,
    "kdv": KdV,
    "kdv_burgers": KdVBurgers,
    "kuramoto_sivashinsky": KuramotoSivashinsky,
    "heat": Heat,
    "advection_diffusion": AdvectionDiffusion,
}
