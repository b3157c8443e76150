"""Coefficients of a law as a physicist would write them: simple numbers, and equal ones equal."""

# E targets, K terms, R codes

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pdessl.operators.fit import Fitted, Normals, encode, loss

__all__ = ["chosen_tolerance", "simplified"]

_SIMPLE = (1.0, 0.5, 2.0, 0.25, 1.5, 3.0, 4.0, 6.0)
_RATIOS = (1.0, 0.5, 2.0)  # of one coefficient to another: those of the product rule
_TOLERANCES = (0.05, 0.03, 0.015, 0.005)


def simplified(fitted: Fitted, tolerance: float) -> Fitted:
    """Return the law with coefficients that are nearly simple, or nearly equal but for a sign, made so.

    Symmetries need this: a Laplacian whose two coefficients differ by round-off or noise has no rotations. Slopes of
    codes, and coefficients without a code, are taken for 1/4, 1/2, 1, 3/2, 2, 3, 4 or 6 within the tolerance; the
    latter also for one another, and for half and twice one another.

    Args:
        fitted: the law, whose codes are coefficients.
        tolerance: relative; 0 changes nothing.
    """
    if not tolerance:
        return fitted
    varying = fitted.varying.clone()
    for place in varying.nonzero().tolist():
        value = float(varying[tuple(place)])
        near = min(_SIMPLE, key=lambda s: abs(abs(value) / s - 1))
        if abs(abs(value) / near - 1) <= tolerance:
            varying[tuple(place)] = near if value > 0 else -near
    constant, groups = fitted.constant.clone(), _groups(fitted.constant, tolerance)
    for members in groups:
        middle = sum(abs(float(fitted.constant[c, k])) / ratio for c, k, ratio in members) / len(members)
        near = min(_SIMPLE, key=lambda s: abs(middle / s - 1))
        value = near if abs(middle / near - 1) <= tolerance else middle
        for c, k, ratio in members:
            constant[c, k] = torch.sign(fitted.constant[c, k]) * value * ratio
    return dataclasses.replace(fitted, constant=constant, varying=varying)


def _groups(constant: Tensor, tolerance: float) -> list[list[tuple[int, int, float]]]:
    """Return coefficients (target, term, ratio to the first of its group) that are taken for one number."""
    groups: list[list[tuple[int, int, float]]] = []
    places = sorted((tuple(p) for p in constant.nonzero().tolist()), key=lambda p: -abs(float(constant[p])))
    for c, k in places:
        value = abs(float(constant[c, k]))
        found = None
        for members in groups:
            first = abs(float(constant[members[0][0], members[0][1]]))
            for ratio in _RATIOS:
                if abs(value / (first * ratio) - 1) <= tolerance:
                    found = members, ratio
        if found is None:
            groups.append([(c, k, 1.0)])
        else:
            found[0].append((c, k, found[1]))
    return groups


def chosen_tolerance(fitted: Fitted, normal: Normals) -> float:
    """Return the largest tolerance at which the simplified law explains the runs as well, or 0.

    As well: the unexplained share grows by at most a tenth of itself and 1e-3.

    Args:
        fitted: the law.
        normal: of the runs it was fitted on.
    """
    base = float(loss(fitted, encode(fitted, normal), normal).mean())
    for tolerance in _TOLERANCES:
        tried = simplified(fitted, tolerance)
        if float(loss(tried, encode(tried, normal), normal).mean()) <= 1.1 * base + 1e-3:
            return tolerance
    return 0.0
