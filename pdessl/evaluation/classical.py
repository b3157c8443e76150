"""Classical estimates of an equation's coefficients: least squares of its own terms, with nothing learnt."""

# B batch, T time, X space, d number of space axes, K unknowns

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.equations import Equation, load_equation
from pdessl.equations.expression import Derivative, Expression, Power, Product, Variable, walk
from pdessl.equations.residual import residual
from pdessl.errors import DataError, ShapeError, did_you_mean
from pdessl.evaluation.equation_terms import Monomial, letters_of, unknown_terms
from pdessl.operators.test_functions import bump, spacing
from pdessl.trajectory import Trajectories

__all__ = ["WeakTerms", "least_squares", "weak_form", "weak_terms", "without_noise"]

ENDS = 3  # frames whose time derivative is one-sided
# A coefficient so large that its term balances the others is no estimate: the term is the rounding of a derivative of a
# field that is constant, one that was not measured and filled in.
LARGEST = 1e12


def least_squares(equation: str | Equation, trajectories: Trajectories, unknown: str | Sequence[str]) -> Tensor:
    """Coefficients of an equation from its terms at every grid point.

        min over p of  Σ (A p + b)²,        A_k = ∂F/∂p_k and b = F at p = 0, F the equation's left minus right side

    For Burgers this is ν = Σ u_xx (u_t + u u_x) / Σ u_xx². Derivatives are those of
    :func:`pdessl.equations.residual.residual`: spectral along periodic axes, on seven nodes along time and the others;
    the three frames (and nodes of axes that are not periodic) at each end are not used. On clean data that resolve the
    solution in space and time this is nearly exact. Noise enters A amplified by the largest wavenumber to the power of
    the order of the derivative, and biases the estimate towards 0.

    Args:
        equation: name in the catalog or an equation, linear in the unknowns. All its fields must be observed: take a
            formulation without pressure (``boussinesq_velocity``) where there is none.
        trajectories: the runs, T >= 9; parameters that are not unknown are taken from them.
        unknown: name of the parameter (``viscosity``), or several that are found together.

    Returns:
        (B,), or (B, K) for several, float64. It may have the wrong sign where noise dominates.

    Raises:
        EquationError: no such parameter, or the equation is not linear in it.
        ShapeError: a field that is not observed, or too few frames or nodes.
        DataError: a parameter that is neither known nor unknown.
    """
    single, names, equation = isinstance(unknown, str), _listed(unknown), load_equation(equation)
    runs, letters = _double(trajectories), letters_of(equation, names)
    trees = tuple(tree for tree, _ in unknown_terms(equation, letters))
    held = dataclasses.replace(equation, trees=trees)
    inner = [slice(ENDS, -ENDS)] + [slice(None) if b == "periodic" else slice(ENDS, -ENDS) for b in runs.boundary]
    if any(n < 2 * ENDS + 3 for n, cut in zip(runs.fields.shape[2:], inner, strict=True) if cut != slice(None)):
        raise ShapeError(f"fields {tuple(runs.fields.shape)}: expected at least {2 * ENDS + 3} frames and nodes.")

    def at(values: dict[str, float]) -> Tensor:
        ones = torch.ones(len(runs), dtype=torch.float64, device=runs.device)
        parts = residual(held, runs.replace(parameters={**runs.parameters, **{n: v * ones for n, v in values.items()}}))
        return torch.stack([part[(slice(None), *inner)].flatten(1) for part in parts], dim=1).flatten(1)

    zero = dict.fromkeys(names, 0.0)
    rest = at(zero)
    # The equation is linear in the unknowns: two evaluations give the factor of each.
    factors = torch.stack([at({**zero, name: 1.0}) - rest for name in names], dim=2)
    gram, right = torch.einsum("bnk,bnl->bkl", factors, factors), -torch.einsum("bnk,bn->bk", factors, rest)
    found = _solve(gram, right, rest.square().sum(dim=1))
    return found[:, 0] if single else found


def weak_form(
    equation: str | Equation,
    trajectories: Trajectories,
    unknown: str | Sequence[str],
    half_width: Sequence[int] | None = None,
    power: int | None = None,
    noise_level: float = 0.0,
) -> Tensor:
    """Coefficients of an equation from its weak form, which differentiates as little of the data as can be.

        min over p of  Σ over centres  (∫∫ φ F)²,    φ = (1 - (t/a)²)^q Π_i (1 - (x_i/b_i)²)^q around every grid point

    For Burgers: ν ∫∫ φ_xx u = - ∫∫ (φ_t u + φ_x u²/2). Integrating by parts moves derivatives onto the test functions,
    so noise is averaged instead of amplified: all of them in a term linear in the fields, and the one of u^n u_x; in
    other products (u v_xx) the factors are differentiated first. White noise still adds a known variance to the factors
    of the unknowns, which biases them towards 0; with ``noise_level`` given, that of the linear terms is subtracted
    exactly in expectation.

    Args:
        equation: as in :func:`least_squares`.
        trajectories: runs with equal time steps.
        unknown: as in :func:`least_squares`.
        half_width: frames, and grid points along each axis, on each side of the centre, >= 1; default 6, less where the
            grid is small. Wide: less noise, fewer independent equations, and small scales are averaged away.
        power: q, above the highest order that is moved; default two more than that and at least 4.
        noise_level: standard deviation of white noise on the fields, in their unit, >= 0.

    Returns:
        (B,), or (B, K) for several, float64.

    Raises:
        EquationError, ShapeError, DataError: as :func:`least_squares`; windows larger than the data; unequal steps.
        ValueError: half widths below 1, a power that is too low, or a negative noise level.

    Source: Messenger and Bortz (2021), Weak SINDy for partial differential equations, arXiv:2007.02848.
    """
    single, names = isinstance(unknown, str), _listed(unknown)
    held = weak_terms(equation, trajectories, names, half_width, power, noise_level)
    gram, right, added = (part.sum(dim=1) for part in (held.gram, held.right, held.noise))
    found = _solve(without_noise(gram, added), right, held.rest.sum(dim=1))
    return found[:, 0] if single else found


@dataclasses.dataclass(frozen=True, eq=False)
class WeakTerms:
    """The squared weak residual at every position in time as a quadratic in the unknowns, pᵀ G p - 2 rᵀ p + c.

    Args:
        gram: G, (B, T', K, K), float64.
        right: r, (B, T', K).
        rest: c, (B, T').
        noise: what white noise adds to G in expectation, likewise; 0 unless its size was given.
        reach: frames on each side of the middle that a position has seen; the first middle is this frame.
    """

    gram: Tensor
    right: Tensor
    rest: Tensor
    noise: Tensor
    reach: int

    def plus(self, other: WeakTerms) -> WeakTerms:
        """Return the squared residual of two equations together."""
        return WeakTerms(
            self.gram + other.gram,
            self.right + other.right,
            self.rest + other.rest,
            self.noise + other.noise,
            self.reach,
        )


def weak_terms(
    equation: str | Equation,
    trajectories: Trajectories,
    unknown: Sequence[str],
    half_width: Sequence[int] | None = None,
    power: int | None = None,
    noise_level: float = 0.0,
) -> WeakTerms:
    """Write the weak form of an equation at every position of the test function in time, squared over space.

    Arguments and errors are those of :func:`weak_form`, whose estimate is the minimum of the sum over positions.
    """
    equation = load_equation(equation)
    runs, letters = _double(trajectories), letters_of(equation, unknown)
    projection = _Projection(equation, runs, half_width, power, noise_level)
    size = len(letters)
    held: WeakTerms | None = None
    for _, terms in unknown_terms(equation, letters):
        parts: list[Tensor | None] = [None] * (size + 1)
        for k, term in terms:
            value, before = projection(term, letters), parts[k]
            parts[k] = value if before is None else before + value
        rest = parts[-1] if parts[-1] is not None else torch.zeros_like(next(p for p in parts if p is not None))
        columns = [torch.zeros_like(rest) if p is None else p for p in parts[:-1]]
        factors = torch.stack([c.flatten(2) for c in columns], dim=3)  # (B, T', n, K)
        flat = rest.flatten(2)
        gram = torch.einsum("btnk,btnl->btkl", factors, factors)
        noise = torch.zeros_like(gram)
        if noise_level:
            noise = noise + factors.shape[2] * projection.noise(terms, letters)[:, None]
        found = WeakTerms(
            gram, -torch.einsum("btnk,btn->btk", factors, flat), flat.square().sum(dim=2), noise, projection.half[0]
        )
        held = found if held is None else held.plus(found)
    assert held is not None  # noqa: S101  (unknown_terms refuses an equation without unknowns)
    return held


def without_noise(gram: Tensor, noise: Tensor) -> Tensor:
    """Take noise out of normal equations (..., K, K).

    Never below a tenth of what was measured: beyond that the data hold no information and 1/0 would be returned.
    """
    left = gram - noise
    kept = torch.maximum(left.diagonal(dim1=-2, dim2=-1), 0.1 * gram.diagonal(dim1=-2, dim2=-1))
    return left + torch.diag_embed(kept - left.diagonal(dim1=-2, dim2=-1))


class _Projection:
    """Integrals of terms against the test function around every grid point."""

    def __init__(
        self, equation: Equation, runs: Trajectories, half: Sequence[int] | None, power: int | None, noise_level: float
    ) -> None:
        sizes = tuple(runs.fields.shape[2:])
        if runs.axis_names != equation.space:
            raise ShapeError(
                f"{equation.name} lives on the axes {', '.join(equation.space)}; the trajectories have "
                f"{', '.join(runs.axis_names)}."
            )
        self.equation, self.runs, self.noise_level = equation, runs, noise_level
        self.half = tuple(min(6, (n - 1) // 4) for n in sizes) if half is None else tuple(half)
        orders = [n.by for tree in equation.trees for n in _derivatives(tree)]
        highest = max((by.count(letter) for by in orders for letter in by), default=1)
        self.power = max(4, highest + 2) if power is None else power
        if half is None and min(sizes) < 5:
            raise ShapeError(
                f"the weak form needs 5 frames and 5 nodes along every axis, fields have {tuple(sizes)}. Give longer "
                "runs, or use least squares of the equation's terms node by node."
            )
        if len(self.half) != len(sizes) or min(self.half) < 1 or self.power <= highest or noise_level < 0:
            raise ValueError(
                f"half_width {self.half} must be {len(sizes)} numbers >= 1, power {self.power} above the highest order "
                f"{highest}, and noise_level {noise_level} >= 0."
            )
        if any(2 * h + 1 > n for h, n in zip(self.half, sizes, strict=True)):
            raise ShapeError(f"windows of half width {self.half} do not fit fields {tuple(runs.fields.shape)}.")
        self.periodic = (False, *(b == "periodic" for b in runs.boundary))
        self.spacing = spacing(runs)  # (B, 1 + d)

    def _split(self, term: Monomial, letters: Sequence[str]) -> tuple[list[Derivative], tuple[str, ...], float]:
        """Return what is multiplied at the grid points, the derivatives moved to φ, and a factor."""
        factors = [node for node, count in term.factors.items() for _ in range(count)]
        moving = [node for node in factors if node.by]
        plain = [node for node in factors if not node.by]
        depends = set(term.variables) & set(self.equation.independent)
        if len(moving) == 1 and not depends and all(node.field == moving[0].field for node in plain):
            bare = Derivative(moving[0].field)
            if not plain or len(moving[0].by) == 1:
                return [bare, *plain], moving[0].by, 1.0 / (len(plain) + 1)
        return factors, (), 1.0

    def __call__(self, term: Monomial, letters: Sequence[str]) -> Tensor:
        """Return the integral of a term without its unknown, (B, positions in T, *X)."""
        nodes, moved, factor = self._split(term, letters)
        values = self._evaluate(nodes, term)
        for axis, letter in enumerate(("t", *self.equation.space)):
            order = moved.count(letter)
            values = self._along(values, axis, order)
            if order:
                values = values / self.spacing[:, axis].pow(order).reshape(-1, *[1] * (values.ndim - 1))
        return factor * float(term.coefficient) * values * self._known(term, letters)

    def _known(self, term: Monomial, letters: Sequence[str]) -> Tensor:
        known = torch.ones(len(self.runs), dtype=torch.float64, device=self.runs.device)
        for letter, count in term.variables.items():
            if letter in letters or letter in self.equation.independent:
                continue
            name = self.equation.parameter_names[letter]
            if name not in self.runs.parameters:
                held = ", ".join(self.runs.parameters) or "none"
                raise DataError(
                    f"{self.equation.name} needs the parameter '{name}'.{did_you_mean(name, self.runs.parameters)} "
                    f"Known: {held}. Name it as unknown too, to estimate both."
                )
            known = known * self.runs.parameters[name].double() ** count
        return known.reshape(-1, *[1] * (self.runs.fields.ndim - 2))

    def _evaluate(self, nodes: list[Derivative], term: Monomial) -> Tensor:
        independents = [Power(Variable(n), c) for n, c in term.variables.items() if n in self.equation.independent]
        tree = Product((*nodes, *independents)) if len(nodes) + len(independents) > 1 else nodes[0]
        held = dataclasses.replace(self.equation, trees=(tree,), parameters=())
        return residual(held, self.runs)[0]

    def _weights(self, axis: int, order: int) -> Tensor:
        """Return (-1)^m φ^(m) in grid units: on the whole period of a periodic axis, else on the window."""
        half, size = self.half[axis], self.runs.fields.shape[2 + axis]
        weights = bump(half, self.power, 0 if self.periodic[axis] else order).to(self.runs.device)
        if not self.periodic[axis]:
            return weights
        whole = torch.zeros(size, dtype=torch.float64, device=weights.device)
        whole[torch.arange(-half, half + 1, device=weights.device)] = weights
        # The derivative of φ on its grid by FFT makes integration by parts exact for resolved fields and any width.
        wave = 2 * torch.pi * torch.fft.rfftfreq(size, dtype=torch.float64, device=weights.device)
        spectrum = torch.fft.rfft(whole) * (1j * wave) ** order
        if size % 2 == 0 and order % 2 == 1:
            spectrum[-1] = 0
        return torch.fft.irfft(spectrum, n=size)

    def _along(self, values: Tensor, axis: int, order: int) -> Tensor:
        weights, dim = self._weights(axis, order), 1 + axis
        if self.periodic[axis]:
            product = torch.fft.rfft(values.movedim(dim, -1)) * torch.fft.rfft(weights)
            return torch.fft.irfft(product, n=values.shape[dim]).movedim(-1, dim)
        return values.unfold(dim, len(weights), 1) @ weights

    def noise(self, terms: Sequence[tuple[int, Monomial]], letters: Sequence[str]) -> Tensor:
        """Return the (B, K, K) second moments that white noise adds per position, through linear terms only."""
        linear = [(k, term) for k, term in terms if k >= 0 and sum(term.factors.values()) == 1]
        moments = torch.zeros(len(self.runs), len(letters), len(letters), dtype=torch.float64, device=self.runs.device)
        for k, first in linear:
            for j, second in linear:
                (one,), (other,) = first.factors, second.factors
                if one.field != other.field:
                    continue
                product = self.noise_level**2 * (self._known(first, letters) * self._known(second, letters)).flatten()
                product = product * float(first.coefficient * second.coefficient)
                for axis, letter in enumerate(("t", *self.equation.space)):
                    a, b = one.by.count(letter), other.by.count(letter)
                    overlap = (self._weights(axis, a) * self._weights(axis, b)).sum()
                    product = product * overlap / self.spacing[:, axis].pow(a + b)
                moments[:, k, j] += product
        return moments


def _derivatives(tree: Expression) -> list[Derivative]:
    return [node for node in walk(tree) if isinstance(node, Derivative)]


def _listed(unknown: str | Sequence[str]) -> tuple[str, ...]:
    return (unknown,) if isinstance(unknown, str) else tuple(unknown)


def _double(trajectories: Trajectories) -> Trajectories:
    return trajectories.replace(fields=trajectories.fields.double())


def _solve(gram: Tensor, right: Tensor, rest: Tensor) -> Tensor:
    """Solve K equations per run; a run without information gives 0 instead of an error.

    Args:
        gram: products of the factors, (B, K, K).
        right: products of the factors with the other terms, (B, K).
        rest: sum of squares of the other terms, (B,).
    """
    seen = gram.diagonal(dim1=1, dim2=2) * LARGEST**2 > rest[:, None]
    gram, right = gram * seen[:, :, None] * seen[:, None, :], right * seen
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    scaled = gram / scale[:, :, None] / scale[:, None, :]
    return (torch.linalg.pinv(scaled, hermitian=True) @ (right / scale)[:, :, None])[:, :, 0] / scale
