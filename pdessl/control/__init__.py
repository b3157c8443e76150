"""Controlled PDEs: environments, costs and guardrails, planners."""

from pdessl.control.description import EnvironmentFile, read_environment
from pdessl.control.environment import Environment, load_environment

__all__ = ["Environment", "EnvironmentFile", "load_environment", "read_environment"]
