"""The residual of an equation on gridded trajectories."""

# B batch, C channels (field components), T time frames, X space, d number of space axes

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from pdessl.equations.expression import Derivative, Expression, Number, Variable, evaluate, walk
from pdessl.errors import DataError, ShapeError, did_you_mean
from pdessl.trajectory import Trajectories

__all__ = ["difference_weights", "residual"]

STENCIL = 7  # nodes of a finite-difference stencil; first derivatives are then of order 6


class System(Protocol):
    """What of an :class:`pdessl.Equation` its residual needs."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def space(self) -> tuple[str, ...]:
        """Names of the space axes."""

    @property
    def dependent(self) -> tuple[str, ...]:
        """Names of the fields."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Letters of the parameters."""

    @property
    def parameter_names(self) -> Mapping[str, str]:
        """Letter -> the name users see."""

    @property
    def trees(self) -> tuple[Expression, ...]:
        """The equations, each an expression that vanishes on solutions."""


def residual(equation: System, trajectories: Trajectories) -> tuple[Tensor, ...]:
    """Evaluate the left side minus the right side of every equation at every node.

    Derivatives along periodic axes are spectral (the Nyquist mode is dropped in odd derivatives); along time and other
    axes they are finite differences on seven nodes of any spacing, one-sided at the ends.

    Args:
        equation: the equation.
        trajectories: fields (B, C, T, *X) with at least 7 frames, all fields of the equation among ``field_names``, and
            all parameters of the equation by the names users see. Give float64 fields: the third derivative of float32
            data is noise.

    Returns:
        one tensor per equation, shape (B, T, *X), dtype of the fields.

    Raises:
        ShapeError: space axes or fields that do not fit the equation, or too few nodes for a stencil.
        DataError: a parameter of the equation is not known for these trajectories.
    """
    if trajectories.axis_names != equation.space:
        raise ShapeError(
            f"{equation.name} lives on the axes {', '.join(equation.space)}; "
            f"the trajectories have {', '.join(trajectories.axis_names)}."
        )
    used = {node.field for tree in equation.trees for node in walk(tree) if isinstance(node, Derivative)}
    for field in equation.dependent:
        if field in used and field not in trajectories.field_names:
            raise ShapeError(
                f"{equation.name} needs the field '{field}'; the trajectories have "
                f"{', '.join(trajectories.field_names)}. "
                "Use a formulation of the equation without it."
            )
    values: dict[str, Tensor] = {}
    shape = (-1, *[1] * (trajectories.fields.ndim - 2))
    for letter in equation.parameters:
        name = equation.parameter_names[letter]
        if name not in trajectories.parameters:
            there = ", ".join(trajectories.parameters) or "none"
            raise DataError(
                f"{equation.name} needs the parameter '{name}'.{did_you_mean(name, trajectories.parameters)} "
                f"Known: {there}."
            )
        values[letter] = trajectories.parameters[name].to(trajectories.fields.dtype).reshape(shape)
    values["t"] = trajectories.time.to(trajectories.fields.dtype).reshape(
        *trajectories.time.shape, *[1] * len(equation.space)
    )
    for i, (letter, nodes) in enumerate(zip(equation.space, trajectories.space, strict=True)):
        place = [1] * (len(equation.space) + 1)
        place[i + 1] = nodes.shape[1]
        values[letter] = nodes.to(trajectories.fields.dtype).reshape(nodes.shape[0], *place)
    known: dict[Derivative, Tensor] = {}

    def leaf(node: Number | Variable | Derivative) -> Tensor | float:
        if isinstance(node, Number):
            return float(node.value)
        if isinstance(node, Variable):
            return values[node.name]
        if node not in known:
            channel = trajectories.field_names.index(node.field)
            known[node] = _derivative(trajectories, trajectories.fields[:, channel], node.by, equation)
        return known[node]

    full = trajectories.fields[:, 0].shape
    return tuple(torch.as_tensor(evaluate(tree, leaf)).expand(full) for tree in equation.trees)


def _derivative(trajectories: Trajectories, field: Tensor, by: tuple[str, ...], equation: System) -> Tensor:
    """Differentiate a field (B, T, *X) once per letter of ``by``."""
    for letter in dict.fromkeys(by):
        order = by.count(letter)
        if letter == "t":
            field = _finite_difference(field, trajectories.time, 1, order, "t")
            continue
        i = equation.space.index(letter)
        if trajectories.boundary[i] == "periodic":
            field = _spectral(field, trajectories.lengths[:, i], i + 2, order)
        else:
            field = _finite_difference(field, trajectories.space[i], i + 2, order, letter)
    return field


def _spectral(field: Tensor, length: Tensor, dim: int, order: int) -> Tensor:
    """Fourier derivative along one axis of a field (B, T, *X); length (B,)."""
    n = field.shape[dim]
    modes = torch.arange(n // 2 + 1, dtype=field.dtype, device=field.device)
    if n % 2 == 0 and order % 2 == 1:
        modes = modes.clone()
        modes[-1] = 0
    wave = 2 * math.pi * modes[None] / length.to(field.dtype)[:, None]  # (B, N/2 + 1)
    shape = [1] * field.ndim
    shape[0], shape[dim] = wave.shape
    factor = (1j**order) * wave**order
    return torch.fft.irfft(torch.fft.rfft(field, dim=dim) * factor.reshape(shape), n=n, dim=dim)


def _finite_difference(field: Tensor, nodes: Tensor, dim: int, order: int, letter: str) -> Tensor:
    """Finite differences along one axis of a field (B, T, *X) at nodes (B, N)."""
    n = nodes.shape[1]
    if n < STENCIL or order >= STENCIL:
        raise ShapeError(f"the derivative of order {order} along {letter} needs at least {STENCIL} nodes, found {n}.")
    first = (torch.arange(n, device=field.device) - STENCIL // 2).clamp(0, n - STENCIL)
    stencil = first[:, None] + torch.arange(STENCIL, device=field.device)  # (N, S)
    weights = difference_weights(nodes[:, stencil], nodes, order).to(field.dtype)  # (B, N, S)
    moved = field.movedim(dim, -1)
    shape = (field.shape[0], *[1] * (moved.ndim - 2), n, STENCIL)
    return (moved[..., stencil] * weights.reshape(shape)).sum(-1).movedim(-1, dim)


def difference_weights(nodes: Tensor, at: Tensor, order: int) -> Tensor:
    """Weights w of the finite-difference formula sum_j w_j u(nodes_j) for the derivative of u at a point.

    Exact for polynomials of degree < S.

    Args:
        nodes: distinct nodes, shape (..., S), float64.
        at: where the derivative is wanted, shape (...), float64.
        order: order of the derivative, 0 <= order < S.

    Returns:
        weights, shape (..., S).
    """
    offset = nodes - at[..., None]
    scale = offset.abs().amax(-1, keepdim=True)
    powers = torch.arange(nodes.shape[-1], device=nodes.device)
    matrix = (offset / scale)[..., None, :] ** powers[:, None]  # (..., S, S): row k holds offset**k
    right = torch.zeros_like(nodes)
    right[..., order] = math.factorial(order)
    return torch.linalg.solve(matrix, right[..., None])[..., 0] / scale**order
