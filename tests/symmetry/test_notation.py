"""Closed flows and vector fields as text."""

import math
import random
import re

import pytest
import sympy

import pdessl
from pdessl import catalog
from pdessl.symmetry.notation import images, show, tidy, vector_field

FUNCTIONS = {n: getattr(math, n) for n in ("exp", "log", "sqrt", "sin", "cos")}


def value(text, point):
    """Evaluate what people read, by a reader of its own: juxtaposition multiplies, ^ is a power."""
    tokens = re.findall(r"[A-Za-zε_]\w*|\d+|[-+/^()]", text)
    place = 0

    def peek():
        return tokens[place] if place < len(tokens) else ""

    def take():
        nonlocal place
        place += 1
        return tokens[place - 1]

    def total():
        sign = -1 if peek() == "-" and take() else 1
        result = sign * product()
        while peek() in ("+", "-") and peek():
            result += product() if take() == "+" else -product()
        return result

    def product():
        result = power()
        while peek() and peek() not in "+-)":
            result = result / power() if peek() == "/" and take() else result * power()
        return result

    def power():
        base = atom()
        if peek() == "^":
            take()
            return base ** atom()
        return base

    def atom():
        token = take()
        if token == "(":
            result = total()
            assert take() == ")"
            return result
        if token in FUNCTIONS:
            assert take() == "("
            result = FUNCTIONS[token](total())
            assert take() == ")"
            return result
        return float(token) if token.isdigit() else point[token.replace("ε", "epsilon")]

    result = total()
    assert place == len(tokens)
    return result


@pytest.mark.parametrize("name", catalog.names("symmetries"))
def test_what_is_written_is_the_flow(name):
    stream = random.Random(name)
    algebra = pdessl.symmetries(name)
    equation = algebra.equation
    for generator in algebra:
        point = {c: stream.uniform(0.3, 1.0) for c in equation.coordinates} | {"epsilon": stream.uniform(0.02, 0.1)}
        texts = images(generator.flow.maps, (*equation.space, *equation.dependent))
        moved = {c for c, e in generator.flow.maps.items() if e != sympy.Symbol(c)}
        assert set(texts) == moved
        for coordinate, text in texts.items():
            exact = float(generator.flow.maps[coordinate].subs({sympy.Symbol(n): v for n, v in point.items()}))
            assert value(text, point) == pytest.approx(exact, rel=1e-9, abs=1e-12), (generator.name, coordinate, text)


def test_own_coordinate_first_and_one_exponential():
    heat = pdessl.symmetries("heat")
    assert images(heat["projective"].flow.maps, ("x", "u")) == {
        "t": "t/(1 - 4 nu ε t)",
        "x": "x/(1 - 4 nu ε t)",
        "u": "u exp(-ε x^2/(1 - 4 nu ε t)) sqrt(1 - 4 nu ε t)",
    }
    burgers = pdessl.symmetries("burgers")
    assert images(burgers["galilean_boost"].flow.maps, ("x", "u")) == {"x": "x + ε t", "u": "u + ε"}
    assert vector_field(burgers["projective"]) == "t^2 ∂t + t x ∂x + (x - t u) ∂u"
    assert vector_field(burgers["viscosity_scaling"]) == "x ∂x + u ∂u + 2 nu ∂nu"


def test_signs_and_fractions():
    x, e = sympy.symbols("x epsilon")
    assert show(x - e * x**2 / 2, own="x") == "x - ε x^2/2"
    assert show((e - 1) ** 2) == "(1 - ε)^2"
    assert show(-x / (e - 1)) == "x/(1 - ε)"
    assert show(1 / sympy.sqrt(1 + x)) == "1/sqrt(1 + x)"
    assert show(tidy(sympy.exp(e) * sympy.exp(-3 * e) * x, ["x"])) == "x exp(-2 ε)"


def test_powers_and_roots_of_one_base_merge():
    """As in the projective flow of the Kadomtsev-Petviashvili equation, where a square meets a cube root."""
    t, u, e = sympy.symbols("t u epsilon")
    image = u * (9 * e * t - 1) ** 2 / (1 - 9 * e * t) ** sympy.Rational(2, 3)
    assert images({"u": image}, ("u",)) == {"u": "u (1 - 9 ε t)^(4/3)"}
    cube = u * (9 * e * t - 1) ** 3 * sympy.sqrt(1 - 9 * e * t)
    point = {t: 0.7, u: 1.3, e: 0.05}
    assert float(tidy(cube, ("u",)).subs(point)) == pytest.approx(float(cube.subs(point)))
