"""Batched simulators in torch, on any device, float64 inside, and families of random initial fields."""

from pdessl.solvers.burgers import Burgers
from pdessl.solvers.initial_conditions import FAMILIES, GaussianRandomField, InitialCondition, SineSeries, random_stream
from pdessl.solvers.pseudo_spectral import ETDRK4
from pdessl.solvers.simulator import PeriodicSimulator, Simulator, Solution

__all__ = [
    "ETDRK4",
    "FAMILIES",
    "SIMULATORS",
    "Burgers",
    "GaussianRandomField",
    "InitialCondition",
    "PeriodicSimulator",
    "Simulator",
    "SineSeries",
    "Solution",
    "random_stream",
]

#: Simulators by the name of the equation they solve, as a dataset file uses it.
SIMULATORS: dict[str, type[Simulator]] = {cls.equation: cls for cls in (Burgers,)}
