"""The finite check: valid maps pass, every known wrong one is refused."""

import numpy as np
import pytest
import sympy

import pdessl
from pdessl.catalog import names
from pdessl.errors import SymmetryError
from pdessl.symmetry.taylor import TaylorSeries
from pdessl.testing import assert_symmetry, finite_residual

QUICK = ["burgers", "heat", "kdv", "kuramoto_sivashinsky_coefficients", "potential_burgers", "advection_diffusion"]


@pytest.mark.parametrize("name", QUICK)
def test_every_closed_flow_is_a_symmetry(name):
    for generator in pdessl.symmetries(name).generators:
        assert_symmetry(generator, strengths=(0.05, -0.2), trials=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names("symmetries")) - set(QUICK)))
def test_every_closed_flow_of_the_catalog_is_a_symmetry(name):
    for generator in pdessl.symmetries(name).generators:
        assert_symmetry(generator, strengths=(0.05,), trials=1)


E, U, X, T = sympy.Symbol("epsilon"), sympy.Symbol("u"), sympy.Symbol("x"), sympy.Symbol("t")
VALID = {
    "boost": ("burgers", {"x": "x + epsilon*t", "u": "u + epsilon"}),
    "reflection": ("burgers", {"x": "-x", "u": "-u"}),
    "kdv_scaling": ("kdv", {"t": T * sympy.exp(3 * E), "x": X * sympy.exp(E), "u": U * sympy.exp(-2 * E)}),
    "quadratic_boost": (
        "navier_stokes_2d_pressure_gradient",
        {"x": "x + epsilon*t**2", "u": "u + 2*epsilon*t", "q": "q - 2*epsilon"},
    ),
}
WRONG = {
    "boost without the velocity": ("burgers", {"x": "x + epsilon*t"}),
    "boost on a wrong power": ("burgers", {"x": "x + epsilon*t**2", "u": "u + epsilon"}),
    "KdV scaling on KS": (
        "kuramoto_sivashinsky",
        {"t": T * sympy.exp(3 * E), "x": X * sympy.exp(E), "u": U * sympy.exp(-2 * E)},
    ),
    "viscosity not moved": ("burgers", {"x": X * sympy.exp(E), "u": U * sympy.exp(E)}),
    "quadratic boost without 2t": ("navier_stokes_2d_velocity", {"y": "y + epsilon*t**2", "v": "v + epsilon"}),
    "pressure gradient by g for 2g": (
        "navier_stokes_2d_pressure_gradient",
        {"x": "x + epsilon*t**2", "u": "u + 2*epsilon*t", "q": "q - epsilon"},
    ),
    "rotation under scalar buoyancy": (
        "boussinesq",
        {
            "x": "4/5*x + 3/5*y", "y": "-3/5*x + 4/5*y", "u": "4/5*u + 3/5*v", "v": "-3/5*u + 4/5*v",
        },
    ),
    "Lorentz boost of Burgers": ("burgers", {"t": "t + epsilon*x", "x": "x + epsilon*t"}),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_valid_hand_written_maps_pass(name):
    equation, images = VALID[name]
    assert_symmetry(images, equation)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_hand_written_maps_are_refused(name):
    equation, images = WRONG[name]
    with pytest.raises(SymmetryError, match="not a symmetry: at epsilon"):
        assert_symmetry(images, equation)
    assert max(finite_residual(images, equation, 0.3).values()) > 1e-4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("boost without the velocity", "moves x as 'galilean_boost' does, which moves u by 1"),
        ("quadratic boost without 2t", r"moves y as 'acceleration_y' does, which moves v by 2\*t"),
        ("pressure gradient by g for 2g", "moves x, u as 'acceleration_x' does, which moves q by -2"),
        ("viscosity not moved", r"moves x, u as 'viscosity_scaling' does, which moves nu by 2\*nu"),
        ("KdV scaling on KS", "No generator of kuramoto_sivashinsky moves a coordinate like that: time_translation"),
        ("rotation under scalar buoyancy", "check its signs"),  # at one angle: there is no first order
    ],
)
def test_a_refusal_names_the_generator_that_was_meant(name, reason):
    equation, images = WRONG[name]
    with pytest.raises(SymmetryError, match=reason):
        assert_symmetry(images, equation)


def test_a_generator_that_was_meant_may_be_scaled():
    with pytest.raises(SymmetryError, match="moves x as -3 times 'galilean_boost' does, which moves u by -3 times 1"):
        assert_symmetry({"x": "x - 3*epsilon*t", "u": "u + 3*epsilon"}, "burgers")
    with pytest.raises(SymmetryError, match="check its signs"):  # nothing is declared
        assert_symmetry({"x": "x + epsilon*t"}, pdessl.Equation.parse("u_t + u*u_x"))


def test_functions_are_accepted():
    def projective(epsilon, t, x, u, nu):
        d = 1 - epsilon * t
        return {"t": t / d, "x": x / d, "u": d * u + epsilon * x}

    def scaling(epsilon, t, x, u, nu):
        return {"t": t * np.exp(2 * float(epsilon)), "x": x * np.exp(float(epsilon)), "u": u * np.exp(-float(epsilon))}

    def floored(epsilon, t, x, u, nu):
        return {"t": t // (1 - epsilon * t)}

    assert_symmetry(projective, "burgers")
    assert_symmetry(scaling, "burgers", tolerance=1e-14)
    with pytest.raises(SymmetryError, match="'/' was probably meant"):
        assert_symmetry(floored, "burgers")
    with pytest.raises(SymmetryError, match="Call it as"):
        assert_symmetry(lambda epsilon, w: {}, "burgers")
    # Only the coordinates that a function names are given to it.
    assert_symmetry(lambda epsilon, t, x, u: {"x": x + epsilon * t, "u": u + epsilon}, "burgers")
    with pytest.raises(SymmetryError, match="not a symmetry"):
        assert_symmetry(lambda epsilon, t, x: {"x": x + epsilon * t}, "burgers")


def test_hopeless_maps_are_explained():
    with pytest.raises(SymmetryError, match="say which equation"):
        assert_symmetry({"x": "x"})
    with pytest.raises(SymmetryError, match="'v', which burgers does not have"):
        assert_symmetry({"v": "u"}, "burgers")
    with pytest.raises(SymmetryError, match=r"image of 'x': 'exp\(...\)' reads(.|\n)*pass a sympy expression"):
        assert_symmetry({"x": "x*exp(epsilon)"}, "burgers")
    with pytest.raises(SymmetryError, match="not invertible"):
        assert_symmetry({"x": "t"}, "burgers")
    with pytest.raises(SymmetryError, match="parameter 'nu' varies"):
        assert_symmetry({"nu": "nu*x"}, "burgers")
    with pytest.raises(SymmetryError, match="write epsilon"):
        assert_symmetry({"x": X + sympy.Symbol("g")}, "burgers")


def test_series_arithmetic_against_sympy():
    x, y = sympy.symbols("x y")
    expression = sympy.exp(x * y) * sympy.cos(x - y) / (2 + x) + sympy.log(3 + y) ** 2 + sympy.sqrt(1 + x)
    a = TaylorSeries({(0, 0): 0, (1, 0): 1}, 2, 4)
    b = TaylorSeries({(0, 0): 0, (0, 1): 1}, 2, 4)
    found = (a * b).exp() * (a - b).cos() / (2 + a) + (3 + b).log() ** 2 + (1 + a).sqrt()
    for i in range(5):
        for j in range(5 - i):
            exact = expression
            for variable, count in ((x, i), (y, j)):
                exact = sympy.diff(exact, variable, count)
            exact = exact.subs({x: 0, y: 0}) / sympy.factorial(i) / sympy.factorial(j)
            assert abs(float(found.coefficients.get((i, j), 0)) - float(exact)) < 1e-13
