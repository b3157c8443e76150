"""Equations typed in, and equation files with everything that can be wrong in them."""

import re

import pytest
import yaml

from pdessl import catalog
from pdessl.equations import Equation, load_equation
from pdessl.errors import CatalogError, EquationError, SchemaError
from pdessl.symmetry import find_symmetries


def test_parse_guesses_the_variables():
    equation = Equation.parse("u_t + a*u*u_x + d*u_xxx", parameters=["a", "d"])
    assert (equation.independent, equation.dependent, equation.parameters) == (("t", "x"), ("u",), ("a", "d"))
    assert equation.parameter_names == {"a": "a", "d": "d"}
    assert equation.parameters == Equation.parse("u_t + a*u*u_x + d*u_xxx", parameters="a, d").parameters


def test_parse_names_a_forgotten_parameter():
    with pytest.raises(EquationError, match="unknown name 'nu'.*must be declared as a parameter"):
        Equation.parse("u_t = nu*u_xx")


def test_parse_needs_a_derivative():
    with pytest.raises(EquationError, match="no derivative"):
        Equation.parse("u + 1")
    with pytest.raises(EquationError, match="no equation"):
        Equation.parse([])


@pytest.mark.parametrize("given", [None, 3, [], ["u_t", 1], b"u_t = u_xx", {"u_t": 0}])
def test_an_equation_is_text(given):
    with pytest.raises(EquationError, match="no equation given.*write text such as"):
        Equation.parse(given)


@pytest.mark.parametrize("text", ["u_t = u_t", "(u_t + u)**2 = u_t**2 + 2*u*u_t + u**2"])
def test_an_identity_is_no_equation(text):
    with pytest.raises(EquationError, match="0 = 0 when multiplied out"):
        find_symmetries(Equation.parse(["v_t = v_xx", text]))


def test_burgers_file():
    equation = load_equation("burgers")
    assert equation.texts == ("u_t + u*u_x = nu*u_xx",)
    assert equation.parameter_names == {"nu": "viscosity"}
    assert equation.parameter_units == {"nu": "length^2/time"} and equation.positive == {"nu"}
    assert equation.observed == ("u",) and equation.hidden == () and equation.space == ("x",)
    assert equation.vectors == {"velocity": {"x": "u"}}
    assert equation.boundary == {"x": {"": "periodic"}}
    assert [d.name for d in equation.declarations] == [
        "time_translation",
        "space_translation",
        "galilean_boost",
        "scaling",
        "projective",
        "viscosity_scaling",
    ]


def test_walls_are_spelled_out_per_component():
    equation = load_equation("boussinesq")
    assert equation.boundary["x"] == {"u": "noslip", "v": "noslip", "s": "zero_gradient"}
    assert equation.hidden == ("p",)


@pytest.mark.parametrize("name", catalog.names("symmetries"))
def test_every_file_is_named_like_its_equation(name):
    equation = load_equation(name)
    assert equation.name == name and equation.title and equation.references and equation.declarations
    names = list(equation.parameter_names.values())
    assert len(set(names)) == len(names)


def test_unknown_equation_suggests_the_nearest():
    with pytest.raises(CatalogError, match="Did you mean 'burgers'"):
        load_equation("burger")


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        content = catalog.read("symmetries", "burgers")
        for key, value in changes.items():
            at, *rest = key.split("__")
            if rest:
                content[at] = {**content[at], rest[0]: value}
            elif value is None:
                content.pop(at)
            else:
                content[at] = value
        path = tmp_path / "case.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equations": None}, "equations: this key is required"),
        ({"equation": ["u_t"]}, "unknown key 'equation'. Did you mean 'equations'"),
        ({"equations": ["u_t + w"]}, r"equations\[0\]: unknown name 'w'"),
        ({"equations": []}, "equations: expected at least one text"),
        ({"independent": {"t": "space", "x": "space"}}, "independent.t: expected 't: time'"),
        ({"independent": {"t": "time", "xi": "space"}}, "one component per space axis|single letter"),
        ({"independent": ["t", "x"]}, "independent: expected a mapping, found"),
        ({"dependent": {"velocity": {"rank": 2, "components": "u"}}}, "dependent.velocity.rank: .*from 0 to 1"),
        ({"dependent": {}}, "at least one field"),
        ({"parameters": {"u": {}}}, "'u' is declared twice"),
        ({"parameters": {"nu": {"units": "m"}}}, "parameters.nu: unknown key 'units'. Did you mean 'unit'"),
        ({"parameters": {"nu": {"positive": "maybe"}}}, "positive: expected true or false"),
        ({"observed": ["w"]}, "observed: no field 'w'"),
        ({"boundary": {"z": "periodic"}}, "boundary.z: no space axis"),
        ({"boundary": {"x": "periodical"}}, "Did you mean 'periodic'"),
        ({"ansatz": {"degree": 99}}, "ansatz.degree: expected an integer from 1 to 6"),
        ({"generators__shift": {"field": {"v": 1}}}, "the equation has no variable 'v'"),
        ({"generators__shift": {"field": {"x": "u_x"}}}, "only point symmetries"),
        ({"generators__shift": {"field": {"x": "1+"}}}, r"generators.shift.field.x: expected a number"),
        ({"generators__shift": {"field": {}}}, "no component"),
        ({"generators__shift": {}}, "'field' is required"),
        ({"generators__Shift": {"field": {"x": 1}}}, "lower-case"),
        ({"generators__shift": {"field": {"x": 1}, "strength": -1}}, "expected a number >= 0"),
        ({"generators__shift": {"field": {"x": 1}, "strength": {"max": 1, "unit": "meter"}}}, "unknown unit 'meter'"),
        ({"generators__shift": {"field": {"x": 1}, "kind": "symmetry"}}, "expected SYM or EQV"),
        ({"generators__shift": {"field": {"x": "f"}, "functions": {"f": ["t"]}}}, "needs 'members'"),
        (
            {"generators__shift": {"field": {"x": "f"}, "functions": {"f": ["u"]}, "members": {"m": "t"}}},
            "not an independent",
        ),
        (
            {"generators__shift": {"field": {"x": "f"}, "functions": {"f": ["t"]}, "members": {"m": "u"}}},
            "contains the field u",
        ),
        (
            {"generators__shift": {"field": {"x": "f"}, "functions": {"f": ["t"]}, "members": {"scaling": "t"}}},
            "used twice",
        ),
    ],
)
def test_a_broken_file_names_file_and_key(write, changes, message):
    with pytest.raises(SchemaError, match=message) as caught:
        load_equation(write(**changes))
    assert "case.yaml" in str(caught.value)


def test_numbers_and_bare_letters_of_yaml_are_text(tmp_path):
    path = tmp_path / "line.yaml"
    path.write_text(
        "name: line\nindependent: {t: time, y: space, n: space}\ndependent: {u: {rank: 0, components: u}}\n"
        "equations: [u_t + 0.5*u_y + u_n]\ngenerators:\n  shift: {field: {y: 1, n: 0.5, t: -1}}\n"
    )
    equation = load_equation(path)
    assert equation.independent == ("t", "y", "n")
    assert equation.declarations[0].components == {"y": "1", "n": "0.5", "t": "-1"}


def test_repr_is_readable():
    assert re.fullmatch(r"Equation\(burgers: u_t \+ u\*u_x = nu\*u_xx\)", repr(load_equation("burgers")))


@pytest.mark.parametrize(
    "text",
    [
        "diff(u,t) = u_xx",
        "u_t = Derivative(u, x, 2)",
        "diff(u) = u_xx",
        "∂u/∂t = u_xx",
        "u_t = ∇²u",
        "u_t = D(u, x)",
        "u.diff(t) = u_xx",
    ],
)
def test_other_spellings_of_derivatives_are_answered_with_the_one_that_is_read(text):
    with pytest.raises(EquationError, match=r"is not read; write derivatives with '_': u_t for .*u_xx for"):
        Equation.parse(text)


def test_a_bracket_after_a_parameter_is_a_product_that_lacks_its_sign():
    with pytest.raises(EquationError, match=r"For a product write 'd\*\(...\)'"):
        Equation.parse("u_t = d(u_xx + u)", parameters="d")


def test_a_stationary_equation_has_no_time():
    assert Equation.parse("u_xx + u_yy = 0").independent == ("x", "y")
    assert Equation.parse("u_xx = t").independent == ("t", "x")
    assert Equation.parse("u*u_x = nu*u_xx", parameters="nu").space == ("x",)
    assert Equation.parse("u_xx = t", parameters="t").independent == ("x",)


def test_a_parameter_named_epsilon_gets_another_letter_and_keeps_its_name():
    equation = Equation.parse("u_t = epsilon*u_xx", parameters="epsilon")
    assert equation.parameters == ("eps",) and equation.parameter_names == {"eps": "epsilon"}
    algebra = find_symmetries(equation)
    assert all(g.flow for g in algebra.generators if g.name in ("time_translation", "scaling", "galilean_boost"))
    assert Equation.parse("u_t = epsilon*u_xx + eps*u", parameters="epsilon eps").parameters == ("eps0", "eps")
    with pytest.raises(EquationError, match="'epsilon' is the strength of a symmetry's flow.*Call it eps"):
        Equation.parse("epsilon_t = epsilon_xx")
