"""Packed polynomials against sympy, and the guard against exponents that do not fit."""

import random

import pytest
import sympy

from pdessl.equations import Names, parse_expression
from pdessl.errors import SymmetryError
from pdessl.symmetry.polynomial import JetSpace, subindices

NAMES = Names(("t", "x"), ("u", "v"), ("nu",))


@pytest.fixture
def space():
    return JetSpace(("t", "x"), ("u", "v"), ("nu",))


def random_text(draw):
    factors = ["t", "x", "nu", "u", "v", "u_x", "v_tx", "u_xx", "2", "3/4"]
    terms = []
    for _ in range(draw.randrange(1, 5)):
        terms.append("*".join(f"{draw.choice(factors)}**{draw.randrange(1, 3)}" for _ in range(draw.randrange(1, 4))))
    return " - ".join(terms)


def test_products_and_partial_derivatives(space):
    draw = random.Random(1)
    for _ in range(30):
        a, b = random_text(draw), random_text(draw)
        p, q = (space.from_tree(parse_expression(s, NAMES)) for s in (a, b))
        product = sympy.parse_expr(space.text(space.multiply(p, q)))
        assert sympy.expand(product - sympy.parse_expr(a) * sympy.parse_expr(b)) == 0
        for name in ("t", "nu", "u"):
            ours = sympy.parse_expr(space.text(space.partial(p, space.number(name))))
            assert sympy.expand(ours - sympy.diff(sympy.parse_expr(a), sympy.Symbol(name))) == 0


def test_total_derivative(space):
    p = space.from_tree(parse_expression("nu*x**2*u*u_x + v_t**2", NAMES))
    derivative = space.text(space.total(p, 1))
    expected = "2*nu*x*u*u_x + nu*x**2*u_x**2 + nu*x**2*u*u_xx + 2*v_t*v_tx"
    assert sympy.expand(sympy.parse_expr(derivative) - sympy.parse_expr(expected)) == 0
    assert space.total(space.total(p, 0), 1) == space.total(space.total(p, 1), 0)


def test_text_reads_like_a_textbook(space):
    for text in ("-x**2*u - 2*nu*t*u", "2*nu*u_xx", "x - t*u", "1/3*u*u_x - nu*u_xx", "0", "-1"):
        p = space.from_tree(parse_expression(text, NAMES))
        assert space.from_tree(parse_expression(space.text(p), NAMES)) == p
    assert space.text(space.from_tree(parse_expression("t*nu*2 + x**2", NAMES))) == "x**2 + 2*nu*t"
    long = space.from_tree(parse_expression("(1 + t + x + u + v)**4", NAMES))
    assert space.text(long, 2).endswith("... (70 terms)")


def test_overflow_raises_and_never_wraps(space):
    x = space.from_tree(parse_expression("x", NAMES))
    full = space.power(x, 31)
    assert space.text(full) == "x**31"
    with pytest.raises(SymmetryError, match="exponent exceeds 31"):
        space.multiply(full, x)
    with pytest.raises(SymmetryError, match="exponent exceeds 31"):
        space.multiply(space.power(x, 20), space.power(x, 20))


def test_total_derivative_checks_the_guard(space):
    raised = space.multiply(space.power(space.variable(space.jet(0, (0, 1))), 31), space.variable(space.jet(0, (0, 0))))
    with pytest.raises(SymmetryError, match="exponent exceeds 31"):  # D_x(u * u_x**31) holds u_x**32
        space.total(raised, 1)


def test_subindices():
    assert dict(subindices((2, 1))) == {(1, 0): 2, (2, 0): 1, (0, 1): 1, (1, 1): 2, (2, 1): 1}


def test_substitution_of_numbers(space):
    p = space.from_tree(parse_expression("nu**2*u_x + nu*x - 6*u_x + 1", NAMES))
    values = {space.number("nu"): 3}
    assert space.text(space.substitute(p, values)) == "3*u_x + 3*x + 1"
