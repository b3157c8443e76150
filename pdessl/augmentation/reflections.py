"""Reflections and exchanges of axes on gridded data, where they are exact."""

# B batch, C channels, T time frames, P nodes of the view, d space axes

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdessl.augmentation.placement import constant
from pdessl.augmentation.plan import Plan
from pdessl.errors import SymmetryError, did_you_mean
from pdessl.symmetry.discrete import DiscreteSymmetry, discrete_symmetries

__all__ = ["choose_reflections", "exchange_nodes", "reflect", "reflections_of", "signed_permutations"]


def reflections_of(algebra: Any) -> dict[str, DiscreteSymmetry]:
    """Discrete symmetries that keep the parameters, by name: ``x,u``, or ``x<->y,u<->v,w``; no mirrors about 0."""
    return {
        ",".join([*(f"{a}<->{b}" for a, b in found.swaps), *found.flips]): found
        for found in discrete_symmetries(algebra.equation)
        if not found.parameters and not found.fixed
    }


def choose_reflections(algebra: Any, wanted: bool | str | Sequence[str]) -> dict[str, DiscreteSymmetry]:
    """Return all of :func:`reflections_of`, none, or those named (spaces in a name do not count).

    Raises:
        SymmetryError: a name of none of them, or all are wanted and there are none.
    """
    if wanted is False:
        return {}
    found = reflections_of(algebra)
    if wanted is True:
        if not found:
            name = algebra.equation.name
            raise SymmetryError(f"{name} has no reflection that keeps its parameters; set reflections=False.")
        return found
    names = ["".join(name.split()) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    for name in names:
        if name not in found:
            raise SymmetryError(
                f"{algebra.equation.name} has no reflection '{name}' that keeps its parameters."
                f"{did_you_mean(name, found)} Reflections: {'; '.join(found) or 'none'}."
            )
    return {name: found[name] for name in names}


def reflect(values: Tensor, reflection: DiscreteSymmetry, fields: Sequence[str], axes: Sequence[str]) -> Tensor:
    """Mirror arrays (B, C, T, *P) about their middle (and exchange axes), with the signs and places of the fields."""
    for a, b in reflection.swaps:
        if a in axes:
            values = values.transpose(3 + axes.index(a), 3 + axes.index(b))
    flipped = [3 + i for i, name in enumerate(axes) if name in reflection.flips]
    values = values.flip(flipped) if flipped else values
    image = {a: b for a, b in reflection.swaps} | {b: a for a, b in reflection.swaps}
    channels = [values[:, fields.index(image.get(name, name))] for name in fields]
    return torch.stack([-v if n in reflection.flips else v for n, v in zip(fields, channels, strict=True)], dim=1)


def signed_permutations(
    names: Sequence[str],
    reflections: Sequence[DiscreteSymmetry],
    flags: Tensor | None,
    batch: int,
    device: torch.device,
) -> Tensor:
    """Matrices (B, n, n) of the product of the reflections that were drawn, the first one acting first."""
    n = len(names)
    one = constant(tuple(float(i == j) for i in range(n) for j in range(n)), device).reshape(n, n)
    product = one.expand(batch, n, n)
    for k, reflection in enumerate(reflections):
        assert flags is not None  # noqa: S101  (drawn wherever there are reflections)
        image = {a: b for a, b in reflection.swaps} | {b: a for a, b in reflection.swaps}
        signs = [-1.0 if name in reflection.flips else 1.0 for name in names]
        sources = [image.get(name, name) for name in names]
        entries = (s * (source == other) for s, source in zip(signs, sources, strict=True) for other in names)
        matrix = constant(tuple(entries), device).reshape(n, n)
        product = torch.where(flags[:, k].reshape(-1, 1, 1), matrix @ product, product)
    return product


def exchange_nodes(
    space: list[Tensor],
    lengths: list[Tensor],
    centre: Tensor,
    reflections: Sequence[DiscreteSymmetry],
    drawn: Sequence[Tensor],
    plan: Plan,
) -> None:
    """Where axes were exchanged, so are their nodes relative to the centre, and their lengths; in place."""
    for reflection, flag in zip(reflections, drawn, strict=True):
        for a, b in reflection.swaps:
            if a not in plan.axes:
                continue
            i, j = plan.axes.index(a), plan.axes.index(b)
            apart = (centre[:, j] - centre[:, i])[:, None]
            space[i], space[j] = (
                torch.where(flag[:, None], space[j] - apart, space[i]),
                torch.where(flag[:, None], space[i] + apart, space[j]),
            )
            lengths[i], lengths[j] = (
                torch.where(flag, lengths[j], lengths[i]),
                torch.where(flag, lengths[i], lengths[j]),
            )
