"""Seconds to discover the symmetries of every shipped equation, beside a plain-sympy baseline in the same run.

    python benchmarks/discovery.py [--repeats 3] [--no-baseline] [names ...]

The baseline writes the same ansatz with symbols, expands the invariance condition, and takes the rank of the
determining equations; it covers evolution systems u_t = F. It has numbers in place of the parameters, so it does less:
it finds no equivalence transformations. Both count the symmetries at fixed parameters, and the counts must agree.
"""

from __future__ import annotations

import argparse
import itertools
import time

import sympy

from pdessl import catalog
from pdessl.equations import Equation, load_equation
from pdessl.equations.expression import Derivative, Number, Variable, evaluate
from pdessl.symmetry import find_symmetries, symmetries

BASELINE = ("heat", "burgers", "kdv", "kuramoto_sivashinsky", "potential_burgers", "burgers_2d", "gray_scott")
PRIMES = (1009, 2003, 3001, 4001)


def plain_sympy(equation: Equation, degree: int) -> int:
    """Number of symmetries of an evolution system by symbols, ``expand`` and a rational matrix."""
    t, *space = sympy.symbols(equation.independent)
    variables = (t, *space)
    jets: dict[tuple[str, tuple[int, ...]], sympy.Symbol] = {}

    def jet(name: str, index: tuple[int, ...]) -> sympy.Symbol:
        return jets.setdefault((name, index), sympy.Symbol(f"{name}_{'_'.join(map(str, index))}"))

    zero = (0,) * len(space)
    values = dict(zip(equation.parameters, PRIMES, strict=False))

    def leaf(node: Number | Variable | Derivative) -> sympy.Expr:
        if isinstance(node, Number):
            return sympy.Rational(node.value.numerator, node.value.denominator)
        if isinstance(node, Variable):
            return sympy.Integer(values[node.name]) if node.name in values else sympy.Symbol(node.name)
        if node.by == ("t",):
            return sympy.Symbol(f"{node.field}_t")
        return jet(node.field, tuple(node.by.count(a) for a in equation.space))

    rates = {}
    for f, tree in zip(equation.dependent, equation.trees, strict=True):
        rates[f] = sympy.expand(sympy.solve(evaluate(tree, leaf), sympy.Symbol(f"{f}_t"))[0])

    def d_x(e: sympy.Expr, axis: int) -> sympy.Expr:
        out = sympy.diff(e, space[axis])
        for (name, index), symbol in list(jets.items()):
            if e.has(symbol):
                up = tuple(n + (k == axis) for k, n in enumerate(index))
                out += sympy.diff(e, symbol) * jet(name, up)
        return out

    def d_index(e: sympy.Expr, index: tuple[int, ...]) -> sympy.Expr:
        for axis, times in enumerate(index):
            for _ in range(times):
                e = sympy.expand(d_x(e, axis))
        return e

    monomials = [
        sympy.prod(v**n for v, n in zip(variables, powers, strict=True))
        for powers in itertools.product(range(degree + 1), repeat=len(variables))
        if sum(powers) <= degree
    ]
    low = [m for m in monomials if m.is_number or sympy.Poly(m, *variables).total_degree() < degree]
    unknowns: list[sympy.Symbol] = []

    def combination(terms: list[sympy.Expr]) -> sympy.Expr:
        new = [sympy.Symbol(f"c{len(unknowns) + k}") for k in range(len(terms))]
        unknowns.extend(new)
        return sum(c * m for c, m in zip(new, terms, strict=True))

    fields = [jet(f, zero) for f in equation.dependent]
    xi = [combination(monomials) for _ in variables]
    characteristic = {}
    for f in equation.dependent:
        phi = combination([*monomials, *(m * u for u in fields for m in low)])
        slopes = [jet(f, tuple(int(k == axis) for k in range(len(space)))) for axis in range(len(space))]
        moved = sum(x * s for x, s in zip(xi[1:], slopes, strict=True))
        characteristic[f] = sympy.expand(phi - xi[0] * rates[f] - moved)
    rows = []
    for f in equation.dependent:
        q = characteristic[f]
        residual = sympy.diff(q, t)
        for (name, index), symbol in list(jets.items()):
            if q.has(symbol):
                residual += sympy.diff(q, symbol) * d_index(rates[name], index)
            if rates[f].has(symbol):
                residual -= sympy.diff(rates[f], symbol) * d_index(characteristic[name], index)
        generators = [*variables, *jets.values()]
        rows.extend(sympy.Poly(sympy.expand(residual), *generators).coeffs())
    matrix, _ = sympy.linear_eq_to_matrix(rows, unknowns)
    from sympy.polys.matrices import DomainMatrix

    return len(unknowns) - DomainMatrix.from_Matrix(matrix).to_field().rank()


def best_of(repeats: int, call) -> tuple[float, object]:
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="equations; all shipped ones by default")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many runs is printed")
    parser.add_argument("--no-baseline", action="store_true")
    options = parser.parse_args()
    print(f"{'equation':38} {'verify [s]':>10} {'discover [s]':>12} {'SYM+EQV':>8} {'sympy [s]':>10} {'ratio':>6}")
    for name in options.names or catalog.names("symmetries"):
        equation = load_equation(name)
        verify, _ = best_of(options.repeats, lambda name=name: symmetries(name))
        seconds, algebra = best_of(options.repeats, lambda equation=equation: find_symmetries(equation))
        certificate = algebra.certificate
        dimension = f"{certificate.symmetries}+{certificate.equivalences}"
        line = f"{name:38} {verify:10.4f} {seconds:12.4f} {dimension:>8}"
        if name in BASELINE and not options.no_baseline:
            slow, count = best_of(1, lambda e=equation, d=certificate.degree: plain_sympy(e, d))
            line += f" {slow:10.2f} {slow / seconds:5.0f}x"
            if count != certificate.symmetries:
                raise SystemExit(f"{name}: the baseline counts {count} symmetries, discovery {certificate.symmetries}.")
        print(line, flush=True)


if __name__ == "__main__":
    main()
