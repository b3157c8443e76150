"""Slice-affine maps: transformations that carry time slices to time slices and are affine on each.

    t' = T(t)    x' = S(t) x + r(t)    u' = M(t) u + b0(t) + b1(t) x + xᵀ b2(t) x    μ' = g(μ)

Closed under composition and inverse, and both are exact. Coefficients are held as numbers on given time slices, so
nothing symbolic is composed.
"""

# B batch, T time frames (or 1 where a coefficient does not depend on time), d space axes, m fields, K points

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["SliceAffine", "compose", "inverse_matrix"]


@dataclass(frozen=True, eq=False)
class SliceAffine:
    """Coefficients of a slice-affine map on given time slices, float64.

    Args:
        time: t, shape (B, T).
        new_time: T(t), shape (B, T).
        s: S, shape (B, T | 1, d, d).
        r: shape (B, T | 1, d).
        m: M, shape (B, T | 1, m, m).
        b0: shape (B, T | 1, m).
        b1: shape (B, T | 1, m, d).
        b2: shape (B, T | 1, m, d, d), symmetric in the last two, or None for zero.
        parameters: μ' by letter, each (B,); only the known ones.
        log_parameter_shift: log μ' - log μ by letter, each (B,); known even where μ is not, if μ is multiplied.
    """

    time: Tensor
    new_time: Tensor
    s: Tensor
    r: Tensor
    m: Tensor
    b0: Tensor
    b1: Tensor
    b2: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    log_parameter_shift: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def identity(time: Tensor, axes: int, fields: int, parameters: Mapping[str, Tensor] | None = None) -> SliceAffine:
        """Return the identity on given slices (B, T)."""
        time = time.to(torch.float64)
        zeros = functools.partial(torch.zeros, dtype=torch.float64, device=time.device)
        eye = functools.partial(torch.eye, dtype=torch.float64, device=time.device)
        batch = time.shape[0]
        return SliceAffine(
            time=time,
            new_time=time,
            s=eye(axes).expand(batch, 1, axes, axes),
            r=zeros((batch, 1, axes)),
            m=eye(fields).expand(batch, 1, fields, fields),
            b0=zeros((batch, 1, fields)),
            b1=zeros((batch, 1, fields, axes)),
            parameters={n: p.to(torch.float64) for n, p in (parameters or {}).items()},
        )

    def inverse(self) -> SliceAffine:
        """Return the inverse map, on the slices t' = T(t).

        The parameters of the inverse are the old values, recovered through ``log_parameter_shift`` where μ is
        multiplied; a parameter moved in another way is left out.
        """
        si, mi = inverse_matrix(self.s), inverse_matrix(self.m)
        constant, slope, curvature = self.added_at_images()
        old = {
            n: p * torch.exp(-self.log_parameter_shift[n]) if n in self.log_parameter_shift else p
            for n, p in self.parameters.items()
        }
        return SliceAffine(
            time=self.new_time,
            new_time=self.time,
            s=si,
            r=-_apply(si, self.r),
            m=mi,
            b0=-_apply(mi, constant),
            b1=-_matmul(mi, slope),
            b2=None if curvature is None else -_mix(mi, curvature),
            parameters=old,
            log_parameter_shift={n: -v for n, v in self.log_parameter_shift.items()},
        )

    def added_at_images(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return b0 + b1 x + xᵀ b2 x at x = S⁻¹(x' - r) as a polynomial in x': its constant, slope and curvature."""
        si = inverse_matrix(self.s)
        ri = -_apply(si, self.r)
        constant, slope = self.b0 + _apply(self.b1, ri), _matmul(self.b1, si)
        if self.b2 is None:
            return constant, slope, None
        slope = slope + 2 * _matmul(torch.einsum("bti,btmij->btmj", *_same_time(ri, self.b2)), si)
        return constant + _quadratic(self.b2, ri), slope, _congruence(self.b2, si)

    def apply(self, space: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Transform points: positions (B, T, K, d) and values there (B, T, K, m) -> their images, same shapes."""
        d, m = self.s.shape[-1], self.m.shape[-1]
        if space.shape[:3] != fields.shape[:3] or space.shape[3] != d or fields.shape[3] != m:
            raise ShapeError(
                f"points {tuple(space.shape)} and values {tuple(fields.shape)} must be (B, T, K, {d}) and "
                f"(B, T, K, {m}) with the same B, T, K."
            )
        moved = torch.einsum("btij,btkj->btki", *_same_time(self.s, space)) + self.r[:, :, None]
        values = torch.einsum("btij,btkj->btki", *_same_time(self.m, fields)) + self.b0[:, :, None]
        values = values + torch.einsum("btij,btkj->btki", *_same_time(self.b1, space))
        if self.b2 is not None:
            values = values + torch.einsum("btmij,btki,btkj->btkm", *_same_time(self.b2, space, space))
        return moved, values

    def __getitem__(self, rows: Tensor | slice) -> SliceAffine:
        """Select trajectories."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                changes[entry.name] = value.expand(len(self.time), *value.shape[1:])[rows]
            elif value is not None:
                changes[entry.name] = {n: v[rows] for n, v in value.items()}
        return dataclasses.replace(self, **changes)


def compose(first: SliceAffine, second: SliceAffine) -> SliceAffine:
    """Return ``second`` after ``first``.

    Args:
        first: any map.
        second: a map whose coefficients were taken at ``first.new_time`` and ``first.parameters``.

    Raises:
        ShapeError: the slices of the second map are not the images of those of the first.
    """
    if second.time.shape != first.new_time.shape:
        raise ShapeError(
            f"the first map ends on slices {tuple(first.new_time.shape)}, the second starts on "
            f"{tuple(second.time.shape)}; take the coefficients of the second at first.new_time."
        )
    slope = second.b1
    b0 = _apply(second.m, first.b0) + second.b0 + _apply(second.b1, first.r)
    b2 = None if first.b2 is None else _mix(second.m, first.b2)
    if second.b2 is not None:
        b0 = b0 + _quadratic(second.b2, first.r)
        slope = slope + 2 * torch.einsum("bti,btmij->btmj", *_same_time(first.r, second.b2))
        curved = _congruence(second.b2, first.s)
        b2 = curved if b2 is None else b2 + curved
    shifts = dict(first.log_parameter_shift)
    for name, shift in second.log_parameter_shift.items():
        shifts[name] = shifts[name] + shift if name in shifts else shift
    return SliceAffine(
        time=first.time,
        new_time=second.new_time,
        s=_matmul(second.s, first.s),
        r=_apply(second.s, first.r) + second.r,
        m=_matmul(second.m, first.m),
        b0=b0,
        b1=_matmul(second.m, first.b1) + _matmul(slope, first.s),
        b2=b2,
        parameters={**first.parameters, **second.parameters},
        log_parameter_shift=shifts,
    )


def inverse_matrix(matrix: Tensor) -> Tensor:
    """Return the inverse of every matrix (..., n, n); 1x1 and 2x2 ones in closed form, which is far faster."""
    if matrix.shape[-1] == 1:
        return 1 / matrix
    if matrix.shape[-1] == 2:
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        adjugate = torch.stack([d, -b, -c, a], dim=-1).reshape(matrix.shape)
        return adjugate / (a * d - b * c)[..., None, None]
    return torch.linalg.inv_ex(matrix)[0]  # without the check, which would wait for the device


def _same_time(*tensors: Tensor) -> list[Tensor]:
    """Expand batch and time so that einsum sees equal sizes."""
    shape = torch.broadcast_shapes(*[t.shape[:2] for t in tensors])
    return [t.expand(*shape, *t.shape[2:]) for t in tensors]


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    # Scalar blocks (one axis, one field) are the common case; a batched 1x1 product is slower than the plain one.
    return a * b if a.shape[-2:] == (1, 1) and b.shape[-2:] == (1, 1) else a @ b


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return matrix[..., 0] * vector if matrix.shape[-2:] == (1, 1) else (matrix @ vector[..., None])[..., 0]


def _quadratic(b2: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("btmij,bti,btj->btm", *_same_time(b2, x, x))


def _congruence(b2: Tensor, s: Tensor) -> Tensor:
    """Sᵀ b2 S for every field."""
    return torch.einsum("btki,btmkl,btlj->btmij", *_same_time(s, b2, s))


def _mix(m: Tensor, b2: Tensor) -> Tensor:
    return torch.einsum("btmn,btnij->btmij", *_same_time(m, b2))
