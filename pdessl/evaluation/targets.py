"""Targets that a shift-invariant representation can carry, made of recorded initial coefficients."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from pdessl.errors import DataError, did_you_mean
from pdessl.trajectory import Trajectories

__all__ = ["power_spectrum_targets", "with_target"]


def power_spectrum_targets(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the power spectrum of the initial field from its recorded coefficients.

        P_l = (a_l² + b_l²)/2,        u(0, x) = Σ_l a_l cos(2π l x/L) + b_l sin(2π l x/L)

    P_l is the share of wave number l in the mean of u². A translation turns (a_l, b_l) and leaves P_l: a representation
    that is invariant to translations cannot carry the coefficients themselves, but can carry these.

    Args:
        parameters: of runs whose dataset has ``record: true``: ``initial_cosine_l`` and ``initial_sine_l``, (B,) each.

    Returns:
        ``initial_power_l`` for every l, (B,) each; add them to the runs' parameters to regress them.

    Raises:
        DataError: no recorded coefficients, or a cosine without its sine.
    """
    found = {}
    for name, cosine in parameters.items():
        match = re.fullmatch(r"initial_cosine_(\d+)", name)
        if match is None:
            continue
        sine = parameters.get(f"initial_sine_{match[1]}")
        if sine is None:
            raise DataError(f"the runs have '{name}' but no 'initial_sine_{match[1]}': its power is not known.")
        found[f"initial_power_{match[1]}"] = (cosine.square() + sine.square()) / 2
    if not found:
        raise DataError(
            "the runs have no recorded initial coefficients (initial_cosine_l, initial_sine_l); they have: "
            f"{', '.join(parameters) or 'none'}. Generate them with  initial_condition.record: true."
        )
    return found


def with_target(runs: Trajectories, name: str) -> Trajectories:
    """Return runs that have a target among their parameters: a power of the initial field is made of its coefficients.

    Runs without labels, and targets that are no such power, are left as they are.

    Raises:
        DataError: the power of a wave number whose coefficients were not recorded.
    """
    if re.fullmatch(r"initial_power_\d+", name) is None or name in runs.parameters or not runs.parameters:
        return runs
    found = power_spectrum_targets(runs.parameters)
    if name not in found:
        raise DataError(f"no '{name}'.{did_you_mean(name, found)} Recorded: {', '.join(found)}.")
    return runs.replace(parameters={**runs.parameters, name: found[name]})
