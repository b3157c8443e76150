"""Controlled PDEs: environments, costs and guardrails, planners."""

from pdessl.control.description import EnvironmentFile, read_environment
from pdessl.control.environment import Environment, load_environment
from pdessl.control.episodes import Episodes, LinearFeedback, Random, Situation, VectorEnvironment, Zero, run_episodes
from pdessl.control.guardrails import AmplitudeLimit, EnergyLimit, Margins, RegionLimit, calibrate
from pdessl.control.linear import (
    Feedback,
    Linearisation,
    controllability,
    describe_environment,
    linearise,
    lqr,
    riccati,
)
from pdessl.control.planners import CEM, MPPI, Gradient, Newton, Plan
from pdessl.control.policy import Distilled, distil
from pdessl.control.receding import Imagined, Oracle, RecedingHorizon, rehearse
from pdessl.control.recording import BEHAVIOURS, read_runs, record_runs, write_runs

__all__ = [
    "BEHAVIOURS",
    "CEM",
    "MPPI",
    "AmplitudeLimit",
    "EnergyLimit",
    "Distilled",
    "Environment",
    "EnvironmentFile",
    "Episodes",
    "Feedback",
    "Gradient",
    "Imagined",
    "LinearFeedback",
    "Linearisation",
    "Margins",
    "Newton",
    "Oracle",
    "Plan",
    "Random",
    "RecedingHorizon",
    "RegionLimit",
    "Situation",
    "VectorEnvironment",
    "Zero",
    "calibrate",
    "controllability",
    "describe_environment",
    "distil",
    "linearise",
    "load_environment",
    "lqr",
    "read_environment",
    "read_runs",
    "record_runs",
    "rehearse",
    "riccati",
    "run_episodes",
    "write_runs",
]
