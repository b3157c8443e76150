"""Closed-form flows: group laws, textbook forms, refusals."""

import pytest
import sympy
import torch

import pdessl
from pdessl.augmentation.coefficients import coefficients, compile_expression
from pdessl.augmentation.slice_affine import SliceAffine, compose
from pdessl.augmentation.strengths import _natural_unit
from pdessl.errors import SymmetryError
from pdessl.symmetry.exponential import exponentiate
from pdessl.symmetry.flow import EPSILON

S = sympy.Symbol
T, X, Y, U, V, NU, EPS = S("t"), S("x"), S("y"), S("u"), S("v"), S("nu"), EPSILON


def flow(components, independent=("t", "x"), dependent=("u",), parameters=("nu",)):
    return exponentiate(components, independent, dependent, parameters)


D = 1 - EPS * T
CASES = {
    "boost": ({"x": T, "u": 1}, {"x": X + EPS * T, "u": U + EPS}),
    "scaling": (
        {"t": 2 * T, "x": X, "u": -U},
        {"t": T * sympy.exp(2 * EPS), "x": X * sympy.exp(EPS), "u": U * sympy.exp(-EPS)},
    ),
    "projective": ({"t": T**2, "x": T * X, "u": X - T * U}, {"t": T / D, "x": X / D, "u": D * U + EPS * X}),
    "viscosity": (
        {"x": X, "u": U, "nu": 2 * NU},
        {"x": X * sympy.exp(EPS), "u": U * sympy.exp(EPS), "nu": NU * sympy.exp(2 * EPS)},
    ),
    "heat_galilei": (
        {"x": 2 * NU * T, "u": -X * U},
        {"x": X + 2 * NU * EPS * T, "u": U * sympy.exp(-EPS * X - NU * EPS**2 * T)},
    ),
    "advection_scaling": (
        {"t": 2 * T, "x": X + NU * T},
        {"t": T * sympy.exp(2 * EPS), "x": sympy.exp(EPS) * (X - NU * T) + NU * sympy.exp(2 * EPS) * T},
    ),
    "potential_projective": (
        {"t": 2 * T**2, "x": 2 * T * X, "u": X**2 + 2 * NU * T},
        {
            "t": T / (1 - 2 * EPS * T),
            "x": X / (1 - 2 * EPS * T),
            "u": U - NU * sympy.log(1 - 2 * EPS * T) + EPS * X**2 / (1 - 2 * EPS * T),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flow_has_the_textbook_form(name):
    components, expected = CASES[name]
    maps = flow(components).maps
    for coordinate, image in expected.items():
        assert sympy.simplify(maps[coordinate] - image) == 0, (coordinate, maps[coordinate])


def test_rotating_frame_has_the_textbook_form():
    found = flow({"x": T * Y, "y": -T * X, "u": Y + T * V, "v": -X - T * U}, ("t", "x", "y"), ("u", "v")).maps
    cosine, sine = sympy.cos(EPS * T), sympy.sin(EPS * T)
    expected = {
        "x": cosine * X + sine * Y,
        "y": -sine * X + cosine * Y,
        "u": cosine * (U + EPS * Y) + sine * (V - EPS * X),
        "v": -sine * (U + EPS * Y) + cosine * (V - EPS * X),
    }
    for coordinate, image in expected.items():
        assert sympy.expand(found[coordinate] - image) == 0


@pytest.mark.parametrize("name", CASES)
def test_group_law_of_the_maps(name):
    maps = flow(CASES[name][0]).maps
    a, b = sympy.Rational(1, 7), sympy.Rational(-2, 9)
    point = {"t": 0.3, "x": 1.1, "u": -0.7, "nu": 0.4}

    def at(strength, values):
        return {n: float(e.subs(EPS, strength).subs(values).evalf(30)) for n, e in maps.items()}

    assert at(0, point) == pytest.approx(point, abs=1e-15)
    assert at(b, at(a, point)) == pytest.approx(at(a + b, point), abs=1e-12)
    assert at(-a, at(a, point)) == pytest.approx(point, abs=1e-12)


def test_text_names_what_moves():
    assert set(flow({"x": T, "u": 1}).text()) == {"x", "u"}
    assert "epsilon" in flow({"x": T, "u": 1}).text()["x"]


@pytest.mark.parametrize(
    ("components", "reason"),
    [
        ({"u": U**3}, "neither affine nor Riccati"),
        ({"x": U * X, "u": X}, "not linear"),
        ({"x": S("z")}, "z"),
        ({"z": 1}, "no coordinate"),
    ],
)
def test_flows_outside_the_class_are_refused(components, reason):
    with pytest.raises(SymmetryError, match=reason):
        flow(components)


def test_flows_that_are_not_slice_affine_are_closed_but_not_applied():
    galilei = flow(CASES["heat_galilei"][0])
    assert "multiplies a field by a function of space" in galilei.obstruction
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(SymmetryError, match="outside the slice-affine class"):
        coefficients(galilei, one, one[:, None], {"nu": one})
    hodograph = flow({"x": U}, parameters=())
    assert "x' = " in hodograph.obstruction


def test_a_needed_parameter_must_be_known():
    one = torch.ones(1, dtype=torch.float64)
    boost = flow({"x": NU * T, "u": 1})
    with pytest.raises(SymmetryError, match="'nu'"):
        coefficients(boost, one, one[:, None])
    assert coefficients(boost, one, one[:, None], {"nu": 3 * one}).r.item() == pytest.approx(3.0)


def test_parameter_motion_is_reported_without_the_parameter():
    strength = torch.tensor([0.1, -0.2], dtype=torch.float64)
    time = torch.zeros(2, 3, dtype=torch.float64)
    found = coefficients(flow(CASES["viscosity"][0]), strength, time)
    assert torch.allclose(found.log_parameter_shift["nu"], 2 * strength)
    assert "nu" not in found.parameters


def test_expressions_become_torch_exactly():
    x = torch.linspace(0.1, 2, 7, dtype=torch.float64)
    expression = sympy.exp(-X / 3) * sympy.cos(2 * X) / (1 + X**2) + sympy.sqrt(X) - sympy.log(X)
    expected = torch.exp(-x / 3) * torch.cos(2 * x) / (1 + x**2) + x.sqrt() - x.log()
    assert torch.allclose(compile_expression(expression)({"x": x}), expected, rtol=1e-15)
    with pytest.raises(SymmetryError, match="no torch function"):
        compile_expression(sympy.gamma(X))


@pytest.mark.parametrize("equation", ["burgers", "burgers_2d", "navier_stokes_2d", "potential_burgers"])
def test_composition_equals_sequential_pointwise_evaluation(equation):
    """Compose every flow of the equation and compare with the closed forms applied one after the other."""
    algebra = pdessl.symmetries(equation)
    eq = algebra.equation
    flows = [g.flow for g in algebra.generators if g.flow.obstruction is None]
    torch.manual_seed(0)
    b, frames, k, d, m = 2, 3, 4, len(eq.independent) - 1, len(eq.dependent)
    unit = {"dtype": torch.float64}
    time, x = torch.rand(b, frames, **unit), torch.randn(b, frames, k, d, **unit)
    u = torch.randn(b, frames, k, m, **unit)
    parameters = {p: torch.rand(b, **unit) + 0.1 for p in eq.parameters}
    strengths = [0.2 * torch.randn(b, **unit) for _ in flows]
    values = {eq.independent[0]: time[..., None].expand(b, frames, k)}
    values |= {n: x[..., i] for i, n in enumerate(eq.independent[1:])}
    values |= {n: u[..., i] for i, n in enumerate(eq.dependent)}
    values |= {n: p[:, None, None] for n, p in parameters.items()}
    composed = SliceAffine.identity(time, d, m, parameters)
    for one, strength in zip(flows, strengths, strict=True):
        state = values | {"epsilon": strength[:, None, None]}
        values = {n: compile_expression(e)(state) for n, e in one.maps.items()}
        composed = compose(composed, coefficients(one, strength, composed.new_time, composed.parameters))
    space, fields = composed.apply(x, u)
    scale = max(float(v.abs().max()) for v in values.values())
    for i, n in enumerate(eq.independent[1:]):
        assert (space[..., i] - values[n]).abs().max() < 1e-12 * scale
    for i, n in enumerate(eq.dependent):
        assert (fields[..., i] - values[n]).abs().max() < 1e-12 * scale
    assert (composed.new_time[..., None] - values[eq.independent[0]]).abs().max() < 1e-12 * scale
    for n in eq.parameters:
        assert torch.allclose(composed.parameters[n], values[n].reshape(b), rtol=1e-13)
    back = composed.inverse()
    again = back.apply(space, fields)
    assert (again[0] - x).abs().max() < 1e-11 * scale
    assert (again[1] - u).abs().max() < 1e-10 * scale
    assert torch.allclose(back.new_time, time)


@pytest.mark.parametrize("text", ["t", "__import__('pathlib').Path('evaluated').touch()", b"t", ["t"]])
def test_a_component_given_as_text_is_not_evaluated(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SymmetryError, match=r"component 'x' is .*text is not evaluated.*pdessl.symmetry.verify\("):
        flow({"x": text})
    with pytest.raises(SymmetryError, match="component 'x' is .*text is not evaluated"):
        _natural_unit({"x": text}, flow({"x": T}), pdessl.symmetries("burgers").equation)
    assert not list(tmp_path.iterdir())
    assert pdessl.symmetry.verify("burgers", {"x": "t", "u": "1"})  # the advice that is printed


def test_a_component_may_be_a_number():
    assert flow({"x": 2, "u": 0.5}).maps["x"] == X + 2 * EPS
