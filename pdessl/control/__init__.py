"""Controlled PDEs: environments, costs and guardrails, planners."""

from pdessl.control.controlled import ControlledPDE
from pdessl.control.critic import Terminal, discounted_means, learn_critic
from pdessl.control.describing import describe_environment, laminar_controllability, linearise_laminar
from pdessl.control.description import EnvironmentFile
from pdessl.control.ensemble import Ensemble, usable_horizon
from pdessl.control.environment import Environment
from pdessl.control.episodes import Episodes, LinearFeedback, Random, Situation, VectorEnvironment, Zero, run_episodes
from pdessl.control.guardrails import AmplitudeLimit, DissipationLimit, EnergyLimit, Margins, RegionLimit, calibrate
from pdessl.control.hierarchy import Levels, SlowOracle, TwoLevels
from pdessl.control.lagrangian import AugmentedLagrangian
from pdessl.control.linear import (
    Feedback,
    Linearisation,
    controllability,
    jacobians,
    linearise,
    lqr,
    riccati,
)
from pdessl.control.loading import (
    environment_file,
    interval_environment,
    load_environment,
    make_environment,
    read_environment,
)
from pdessl.control.many_futures import Drawn, ManyFutures, Undetermined, draw_futures, open_ended
from pdessl.control.plane import PlaneEnvironment
from pdessl.control.plane_description import PlaneFile
from pdessl.control.planners import CEM, MPPI, Gradient, Newton, Plan
from pdessl.control.policy import Distilled, distil
from pdessl.control.receding import Imagined, Linearised, Oracle, RecedingHorizon, rehearse
from pdessl.control.recording import BEHAVIOURS, read_runs, record_runs, write_runs
from pdessl.control.reinforcement import Reinforced, train_agent

__all__ = [
    "BEHAVIOURS",
    "CEM",
    "MPPI",
    "AmplitudeLimit",
    "AugmentedLagrangian",
    "ControlledPDE",
    "DissipationLimit",
    "EnergyLimit",
    "Distilled",
    "Drawn",
    "Ensemble",
    "Environment",
    "EnvironmentFile",
    "Episodes",
    "Feedback",
    "Gradient",
    "Imagined",
    "Levels",
    "LinearFeedback",
    "Linearisation",
    "Linearised",
    "ManyFutures",
    "Margins",
    "Newton",
    "Oracle",
    "Plan",
    "PlaneEnvironment",
    "PlaneFile",
    "Random",
    "RecedingHorizon",
    "RegionLimit",
    "Reinforced",
    "Situation",
    "SlowOracle",
    "Terminal",
    "TwoLevels",
    "Undetermined",
    "VectorEnvironment",
    "Zero",
    "calibrate",
    "controllability",
    "describe_environment",
    "discounted_means",
    "distil",
    "draw_futures",
    "environment_file",
    "interval_environment",
    "jacobians",
    "laminar_controllability",
    "learn_critic",
    "linearise",
    "linearise_laminar",
    "load_environment",
    "lqr",
    "make_environment",
    "open_ended",
    "read_environment",
    "read_runs",
    "record_runs",
    "rehearse",
    "riccati",
    "run_episodes",
    "train_agent",
    "usable_horizon",
    "write_runs",
]
