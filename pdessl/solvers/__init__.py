"""Batched simulators in torch, on any device, float64 inside, and families of random initial fields."""

from pdessl.solvers.advection_diffusion_2d import AdvectionDiffusion2D
from pdessl.solvers.boussinesq import Boussinesq2D
from pdessl.solvers.bump import Bump
from pdessl.solvers.bumps_2d import ReactionPatches, SmokeBlobs, VortexPair, Vortices, WaterDrops
from pdessl.solvers.burgers import Burgers
from pdessl.solvers.burgers_2d import Burgers2D
from pdessl.solvers.closed_box import ClosedBoxSmoke
from pdessl.solvers.fans import RandomFan
from pdessl.solvers.fitzhugh_nagumo import FitzHughNagumo
from pdessl.solvers.forcing import Actuators, ForcingFamily, RandomForcing, SineForcing, TimeVarying
from pdessl.solvers.gray_scott import GrayScott
from pdessl.solvers.harmonics import Harmonics
from pdessl.solvers.heat import AdvectionDiffusion, Heat
from pdessl.solvers.incompressible_2d import velocity_of_vorticity
from pdessl.solvers.initial_conditions import (
    FAMILIES,
    GaussianRandomField,
    InitialCondition,
    SineSeries,
    fourier_series,
    random_stream,
)
from pdessl.solvers.kdv import KdV, KdVBurgers
from pdessl.solvers.kdv_burgers_kuramoto import KdVBurgersKuramoto
from pdessl.solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from pdessl.solvers.navier_stokes import NavierStokes2D
from pdessl.solvers.periodic import PeriodicSimulator
from pdessl.solvers.pseudo_spectral import ETDRK4
from pdessl.solvers.random_fields_2d import RandomField2D, RandomFlow2D
from pdessl.solvers.series_2d import TaylorGreen
from pdessl.solvers.shallow_water import ShallowWater2D
from pdessl.solvers.simulator import Simulator, Solution
from pdessl.solvers.smoke_noise import SmokeNoise
from pdessl.solvers.smoke_puffs import SmokePuffs

__all__ = [
    "ETDRK4",
    "FAMILIES",
    "FORCINGS",
    "SIMULATORS",
    "Actuators",
    "AdvectionDiffusion",
    "AdvectionDiffusion2D",
    "Boussinesq2D",
    "Bump",
    "Burgers",
    "Burgers2D",
    "ClosedBoxSmoke",
    "FitzHughNagumo",
    "ForcingFamily",
    "GaussianRandomField",
    "GrayScott",
    "Harmonics",
    "Heat",
    "InitialCondition",
    "KdV",
    "KdVBurgers",
    "KdVBurgersKuramoto",
    "KuramotoSivashinsky",
    "NavierStokes2D",
    "PeriodicSimulator",
    "RandomField2D",
    "RandomFlow2D",
    "RandomFan",
    "RandomForcing",
    "ReactionPatches",
    "ShallowWater2D",
    "Simulator",
    "SineForcing",
    "SineSeries",
    "SmokeBlobs",
    "SmokeNoise",
    "Solution",
    "TaylorGreen",
    "TimeVarying",
    "VortexPair",
    "Vortices",
    "WaterDrops",
    "fourier_series",
    "random_stream",
    "velocity_of_vorticity",
]

#: Source terms by the name a dataset file uses.
FORCINGS: dict[str, type[ForcingFamily]] = {"sine": SineForcing, "random": RandomForcing, "random_fan": RandomFan}

FAMILIES |= {
    "bump": Bump,
    "random_field_2d": RandomField2D,
    "random_flow_2d": RandomFlow2D,
    "vortices": Vortices,
    "vortex_pair": VortexPair,
    "taylor_green": TaylorGreen,
    "smoke_blobs": SmokeBlobs,
    "smoke_noise": SmokeNoise,
    "smoke_puffs": SmokePuffs,
    "water_drops": WaterDrops,
    "reaction_patches": ReactionPatches,
}

#: Simulators by the name a dataset file uses.
SIMULATORS: dict[str, type[Simulator]] = {
    "burgers": Burgers,
    "kdv": KdV,
    "kdv_burgers": KdVBurgers,
    "kdv_burgers_kuramoto": KdVBurgersKuramoto,
    "kuramoto_sivashinsky": KuramotoSivashinsky,
    "heat": Heat,
    "advection_diffusion": AdvectionDiffusion,
    "navier_stokes_2d": NavierStokes2D,
    "boussinesq": Boussinesq2D,
    "gray_scott": GrayScott,
    "fitzhugh_nagumo": FitzHughNagumo,
    "shallow_water_2d": ShallowWater2D,
    "burgers_2d": Burgers2D,
    "advection_diffusion_2d": AdvectionDiffusion2D,
    "closed_box_smoke": ClosedBoxSmoke,
}
