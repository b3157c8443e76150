"""Flows on batches: the coefficients of a slice-affine flow, compiled from its closed form to torch."""

# B batch, T time frames, d number of space axes, m number of fields

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from pdessl.augmentation.slice_affine import SliceAffine
from pdessl.errors import SymmetryError
from pdessl.symmetry.flow import EPSILON, Flow, names_of

__all__ = ["MapShape", "coefficients", "compile_expression", "map_shape"]


@dataclass(frozen=True)
class MapShape:
    """Which coefficients of a slice-affine flow are not trivial, per space axis where they are tuples.

    Args:
        scales: S_ii is not 1.
        varies: row i of S differs between time slices.
        shifts: r_i is not 0.
        slides: some r differs between time slices.
        mixes: S has entries off the diagonal.
        rigid: S is orthogonal, so that lengths are kept.
        tilts: b1 or b2 grows along axis i.
        linear: M is not the identity.
        added: b0 is not 0.
    """

    scales: tuple[bool, ...]
    varies: tuple[bool, ...]
    shifts: tuple[bool, ...]
    slides: bool
    mixes: bool
    rigid: bool
    tilts: tuple[bool, ...]
    linear: bool
    added: bool


def coefficients(
    flow: Flow,
    strength: Tensor,
    time: Tensor,
    parameters: Mapping[str, Tensor] | None = None,
    fields: Sequence[str] | None = None,
    axes: Sequence[str] | None = None,
) -> SliceAffine:
    """Return the coefficients of the flow on given time slices.

    Args:
        flow: of class :class:`pdessl.symmetry.Flow`.
        strength: ε, shape (B,).
        time: times of the slices, shape (B, T).
        parameters: values by letter, each (B,). Only those that t', x' or u' contain are needed.
        fields: channels of the data, in order; default all dependent variables.
        axes: space axes of the data, in order; default all.

    Returns:
        float64 coefficients on the device of ``time``.

    Raises:
        SymmetryError: the flow is not slice-affine, a needed parameter is absent, or an observed field would need
            the values of one that is not in ``fields``.
    """
    fields = flow.dependent if fields is None else tuple(fields)
    axes = flow.independent[1:] if axes is None else tuple(axes)
    return _compiled(flow, fields, axes)(strength, time, parameters or {})


def map_shape(flow: Flow, fields: Sequence[str], axes: Sequence[str]) -> MapShape:
    """Return which coefficients of a flow are not trivial, for channels and axes in the given order."""
    return _compiled(flow, tuple(fields), tuple(axes)).shape


@functools.lru_cache(maxsize=4096)
def _compiled(flow: Flow, fields: tuple[str, ...], axes: tuple[str, ...]) -> _Coefficients:
    return _Coefficients(flow, fields, axes)


class _Coefficients:
    """The Jacobians of a slice-affine flow, compiled to torch closures by walking the expression trees."""

    def __init__(self, flow: Flow, fields: tuple[str, ...], axes: tuple[str, ...]) -> None:
        if flow.obstruction is not None:
            raise SymmetryError(
                f"this flow is outside the slice-affine class: {flow.obstruction}. It can be printed and checked, but "
                "not applied to gridded batches."
            )
        if sorted(axes) != sorted(flow.independent[1:]):
            raise SymmetryError(f"the data have axes {axes}, the flow acts on {flow.independent[1:]}; give all axes.")
        unknown = [n for n in fields if n not in flow.dependent]
        if unknown:
            raise SymmetryError(f"the equation has no field '{unknown[0]}'; it has {', '.join(flow.dependent)}.")
        hidden = {sympy.Symbol(n) for n in flow.dependent if n not in fields}
        for name in fields:
            if flow.maps[name].free_symbols & hidden:
                absent = names_of(flow.maps[name].free_symbols & hidden)
                raise SymmetryError(
                    f"{name}' = {flow.maps[name]} needs {absent}, which the data do not hold. Add the field to the "
                    "data, or leave this generator out."
                )
        self.flow, self.fields, self.axes = flow, fields, axes
        x = [sympy.Symbol(n) for n in axes]
        u = [sympy.Symbol(n) for n in fields]
        x0, u0 = dict.fromkeys(x, 0), dict.fromkeys(u, 0)
        space, images = [flow.maps[n] for n in axes], [flow.maps[n] for n in fields]
        added = [e.subs(u0) for e in images]
        multipliers = {n: sympy.cancel(flow.maps[n] / sympy.Symbol(n)) for n in flow.moved_parameters}
        multipliers = {n: e for n, e in multipliers.items() if e.free_symbols <= {EPSILON}}
        groups: dict[str, tuple[tuple[int, ...], list[sympy.Expr]]] = {
            "time": ((), [flow.maps[flow.independent[0]]]),
            "s": ((len(x), len(x)), [sympy.diff(e, z) for e in space for z in x]),
            "r": ((len(x),), [e.subs(x0) for e in space]),
            "m": ((len(u), len(u)), [sympy.diff(e, z) for e in images for z in u]),
            "b0": ((len(u),), [e.subs(x0) for e in added]),
            "b1": ((len(u), len(x)), [sympy.diff(e, z).subs(x0) for e in added for z in x]),
            "b2": ((len(u), len(x), len(x)), [sympy.diff(e, z, w) / 2 for e in added for z in x for w in x]),
        }
        for name in flow.moved_parameters:
            groups[f"value {name}"] = ((), [flow.maps[name]])
        for name, expression in multipliers.items():
            groups[f"log {name}"] = ((), [sympy.expand_log(sympy.log(expression), force=True)])
        if all(e == 0 for e in groups["b2"][1]):
            del groups["b2"]
        self.groups = {
            k: (shape, [compile_expression(sympy.simplify(e)) for e in es]) for k, (shape, es) in groups.items()
        }
        self.shape = _shape({k: es for k, (_, es) in groups.items()}, len(x), len(u), sympy.Symbol(flow.independent[0]))
        self.log_moved = frozenset(multipliers)

    def __call__(self, strength: Tensor, time: Tensor, parameters: Mapping[str, Tensor]) -> SliceAffine:
        absent = sorted(self.flow.needed_parameters - set(parameters))
        if absent:
            raise SymmetryError(
                f"the flow {self.flow.text()} contains the parameter '{absent[0]}', whose values the batch does not "
                "hold. Give labelled data, or leave this generator out."
            )
        time = time.to(torch.float64)
        values: dict[str, Any] = {n: p.to(torch.float64)[:, None] for n, p in parameters.items()}
        values |= {"epsilon": strength.to(torch.float64)[:, None], self.flow.independent[0]: time}
        one = time.new_ones((1, 1))
        evaluated = {}
        for key, (shape, functions) in self.groups.items():
            if key.startswith("value ") and key[6:] not in parameters:
                continue
            entries = [f(values) for f in functions]
            entries = torch.broadcast_tensors(*[e if isinstance(e, Tensor) else one * e for e in entries])
            evaluated[key] = torch.stack(entries, dim=-1).reshape(*entries[0].shape, *shape) if shape else entries[0]
        batch = strength.shape[0]
        moved = {n: p.to(torch.float64) for n, p in parameters.items()}
        moved |= {k[6:]: v[:, 0].expand(batch) for k, v in evaluated.items() if k.startswith("value ")}
        return SliceAffine(
            time=time,
            new_time=evaluated["time"].expand_as(time),
            s=evaluated["s"],
            r=evaluated["r"],
            m=evaluated["m"],
            b0=evaluated["b0"],
            b1=evaluated["b1"],
            b2=evaluated.get("b2"),
            parameters=moved,
            log_parameter_shift={k[4:]: v[:, 0].expand(batch) for k, v in evaluated.items() if k.startswith("log ")},
        )


def _shape(groups: Mapping[str, list[sympy.Expr]], d: int, m: int, time: sympy.Symbol) -> MapShape:
    s, r = sympy.Matrix(d, d, groups["s"]), groups["r"]
    b1, b2 = groups["b1"], groups.get("b2", [sympy.Integer(0)] * (m * d * d))
    return MapShape(
        scales=tuple(s[i, i] != 1 for i in range(d)),
        varies=tuple(s[i, :].has(time) for i in range(d)),
        shifts=tuple(e != 0 for e in r),
        slides=any(e.has(time) for e in r),
        mixes=not s.is_diagonal(),
        rigid=(s * s.T).applyfunc(sympy.simplify) == sympy.eye(d),
        tilts=tuple(
            any(b1[k * d + i] != 0 or any(b2[(k * d + i) * d + j] != 0 for j in range(d)) for k in range(m))
            for i in range(d)
        ),
        linear=sympy.Matrix(m, m, groups["m"]) != sympy.eye(m),
        added=any(e != 0 for e in groups["b0"]),
    )


# ------------------------------------------------------------------------------------------------ expressions to torch


def compile_expression(expression: sympy.Expr) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function of {name: Tensor | float}, built as closures over the tree; no source text is ever executed."""
    if expression.is_Symbol:
        name = expression.name
        return lambda values: values[name]
    if expression.is_number:
        number = float(expression)
        return lambda values: number
    arguments = [compile_expression(a) for a in expression.args]
    if isinstance(expression, sympy.Add):
        return lambda values: functools.reduce(lambda a, b: a + b, [f(values) for f in arguments])
    if isinstance(expression, sympy.Mul):
        return lambda values: functools.reduce(lambda a, b: a * b, [f(values) for f in arguments])
    if isinstance(expression, sympy.Pow):
        base, exponent = arguments
        if expression.exp.is_Integer:
            power = int(expression.exp)
            return lambda values: base(values) ** power
        return lambda values: base(values) ** exponent(values)
    function = _FUNCTIONS.get(type(expression))
    if function is None:
        raise SymmetryError(f"no torch function for '{expression.func}' in {expression}.")
    return lambda values: function(torch.as_tensor(arguments[0](values), dtype=torch.float64))


_FUNCTIONS: dict[type, Callable[[Tensor], Tensor]] = {
    sympy.exp: torch.exp,
    sympy.log: torch.log,
    sympy.sin: torch.sin,
    sympy.cos: torch.cos,
    sympy.tan: torch.tan,
    sympy.sinh: torch.sinh,
    sympy.cosh: torch.cosh,
    sympy.tanh: torch.tanh,
    sympy.Abs: torch.abs,
}
