"""An equation's least squares from few frames: the trapezoidal rule between each frame and the next."""

# B runs, T frames, X space, K unknowns

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.equations import Equation, load_equation
from pdessl.equations.residual import residual
from pdessl.errors import ShapeError
from pdessl.evaluation.equation_terms import letters_of, unknown_terms
from pdessl.trajectory import Trajectories

__all__ = ["FrameTerms", "frame_terms"]

_STENCIL = 7  # frames that a time derivative of :func:`residual` needs
_HELD = 2**22  # numbers of fields that are differentiated at once


@dataclass(frozen=True, eq=False)
class FrameTerms:
    """The squared residual of every run as a quadratic in the unknowns, q(p) = pᵀ G p - 2 rᵀ p + c.

    Args:
        gram: G, (B, K, K), float64.
        right: r, (B, K).
        rest: c, the squared residual with all unknowns 0, (B,).
    """

    gram: Tensor
    right: Tensor
    rest: Tensor

    def solve(self) -> Tensor:
        """Return the unknowns that minimise it, (B, K); of the smallest size where several do."""
        scale = self.gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(self.gram.dtype).tiny).sqrt()
        scaled = self.gram / scale[:, :, None] / scale[:, None, :]
        return (torch.linalg.pinv(scaled, hermitian=True) @ (self.right / scale)[:, :, None])[:, :, 0] / scale

    def share(self, values: Tensor) -> Tensor:
        """Return q(p) / c for unknowns (B, K), (B,): what is left of the residual; differentiable in them."""
        quadratic = torch.einsum("bk,bkl,bl->b", values, self.gram, values)
        found = quadratic - 2 * (self.right * values).sum(dim=1) + self.rest
        return found / self.rest.clamp_min(torch.finfo(self.rest.dtype).tiny)


def frame_terms(equation: str | Equation, trajectories: Trajectories, unknown: str | Sequence[str]) -> FrameTerms:
    """Write the equation between successive frames by the trapezoidal rule, and square it.

        M (u' - u)/Δt + [N_p(u) + N_p(u')]/2 = 0,        M u_t + N_p(u) = 0 the equation, u' the next frame after u

    Two frames are enough. Derivatives in space are those of :func:`pdessl.equations.residual.residual`. Of a
    wave of frequency ω the coefficient is found too large, by the factor 2 tan(ω Δt/2)/(ω Δt) = 1 + (ω Δt)²/12 + ...:
    frames that are far apart bias the estimate however clean they are.

    Args:
        equation: name in the catalog or an equation, linear in the unknowns, of first order in time, with constant
            coefficients in front of the time derivative; all its fields must be observed.
        trajectories: runs, T >= 2; parameters that are not unknown are taken from them.
        unknown: names of parameters, K of them.

    Raises:
        EquationError: no such parameter, or the equation is not linear in it.
        ShapeError: a single frame, or a field that is not observed.
        DataError: a parameter that is neither known nor unknown.
    """
    names = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    equation = load_equation(equation)
    if trajectories.fields.shape[2] < 2:
        raise ShapeError(f"fields {tuple(trajectories.fields.shape)}: expected 2 frames or more.")
    trees = tuple(tree for tree, _ in unknown_terms(equation, letters_of(equation, names)))
    held = dataclasses.replace(equation, trees=trees)
    size = 2 * (trajectories.fields.shape[2] - 1) * _STENCIL * trajectories.fields[0, :, 0].numel()
    rows = max(1, _HELD // size)
    parts = [_squared(held, trajectories[slice(i, i + rows)], names) for i in range(0, len(trajectories), rows)]
    return FrameTerms(*(torch.cat([getattr(part, name) for part in parts]) for name in ("gram", "right", "rest")))


def _squared(equation: Equation, runs: Trajectories, names: Sequence[str]) -> FrameTerms:
    b, pairs = len(runs), runs.fields.shape[2] - 1
    lines = _lines(runs)

    def at(values: dict[str, float]) -> Tensor:
        ones = torch.ones(len(lines), dtype=torch.float64, device=runs.device)
        given = {**lines.parameters, **{n: v * ones for n, v in values.items()}}
        found = torch.stack([part[:, _STENCIL // 2] for part in residual(equation, lines.replace(parameters=given))], 1)
        return found.reshape(2, b * pairs, -1).mean(dim=0).reshape(b, -1)

    zero = dict.fromkeys(names, 0.0)
    rest = at(zero)
    # The equation is linear in the unknowns: two evaluations give the factor of each.
    factors = torch.stack([at({**zero, name: 1.0}) - rest for name in names], dim=2)
    gram, right = torch.einsum("bnk,bnl->bkl", factors, factors), -torch.einsum("bnk,bn->bk", factors, rest)
    return FrameTerms(gram, right, rest.square().sum(dim=1))


def _lines(runs: Trajectories) -> Trajectories:
    """Return runs that pass through the first, then the second frame of each pair at the speed from one to the other.

    They are straight lines in time, which finite differences differentiate exactly; the frame is in the middle.
    """
    fields, time = runs.fields.double(), runs.time.double()
    pairs, shape = fields.shape[2] - 1, fields.shape
    steps = time.diff(dim=1)
    speed = fields.diff(dim=2) / steps.reshape(len(runs), 1, pairs, *[1] * (len(shape) - 3))
    ticks = torch.arange(_STENCIL, dtype=torch.float64, device=runs.device) - _STENCIL // 2
    found, clocks = [], []
    for first in (0, 1):
        base = fields[:, :, first : first + pairs]
        offset = steps[:, :, None] * ticks  # (B, pairs, stencil)
        moved = base[:, :, :, None] + speed[:, :, :, None] * offset.reshape(
            len(runs), 1, pairs, _STENCIL, *[1] * (len(shape) - 3)
        )
        found.append(moved.transpose(1, 2).flatten(0, 1))
        clocks.append((time[:, first : first + pairs, None] + offset).flatten(0, 1))
    every = torch.arange(len(runs), device=runs.device).repeat_interleave(pairs).repeat(2)
    return Trajectories(
        fields=torch.cat(found),
        time=torch.cat(clocks),
        space=tuple(s[every] for s in runs.space),
        lengths=runs.lengths[every],
        parameters={n: v[every] for n, v in runs.parameters.items()},
        field_names=runs.field_names,
        axis_names=runs.axis_names,
        boundary=runs.boundary,
        equation=runs.equation,
    )
