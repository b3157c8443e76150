"""Exact prolongation accepts the textbook's generators and refuses wrong ones, with the residual in print."""

import random
from fractions import Fraction

import pytest
import sympy
import yaml

import pdessl
from pdessl import catalog
from pdessl.equations import Equation, load_equation
from pdessl.errors import CatalogError, EquationError, SymmetryError
from pdessl.symmetry import verify
from pdessl.symmetry.prolongation import PDESystem, follows


@pytest.mark.parametrize("name", catalog.names("symmetries"))
def test_every_declared_generator_is_admitted(name):
    algebra = pdessl.symmetries(name)  # raises where one is not
    assert len(algebra) >= 3
    assert len(set(algebra.names)) == len(algebra)


def test_burgers_generators():
    algebra = pdessl.symmetries("burgers")
    kinds = {g.name: g.kind for g in algebra}
    assert kinds == {
        "time_translation": "SYM",
        "space_translation": "SYM",
        "galilean_boost": "SYM",
        "scaling": "SYM",
        "projective": "SYM",
        "viscosity_scaling": "EQV",
    }
    assert algebra["viscosity_scaling"].moves == {"viscosity": "2*nu"}
    assert algebra["scaling"].moves == {}
    t, x, u = sympy.symbols("t x u")
    assert algebra["projective"].expressions() == {"t": t**2, "x": t * x, "u": x - t * u, "nu": 0}
    assert [g.name for g in algebra.equivalences] == ["viscosity_scaling"]
    assert algebra["scaling"] == algebra["scaling"] and algebra["scaling"] != algebra["projective"]
    with pytest.raises(CatalogError, match="Did you mean 'galilean_boost'"):
        algebra["galilean_bost"]


@pytest.mark.parametrize("component", ["u", "-2*u", "0", "-u + 1/1000000000*u**2"])
def test_a_wrong_coefficient_prints_the_residual(component):
    with pytest.raises(
        SymmetryError, match=r"not a symmetry of burgers.*\n    equation 1 \(u_t \+ u\*u_x = nu\*u_xx\): .*u"
    ) as caught:
        verify("burgers", {"t": "2*t", "x": "x", "u": component})
    assert "2*t" in str(caught.value)


def test_the_residual_is_the_right_polynomial():
    # By hand: v = d_x*0 + t d_x - d_u gives pr v(Delta) = phi*u_x - (D_t xi)*u_x = (-1 - 1)*u_x.
    with pytest.raises(SymmetryError, match=r"nu\*u_xx\): -2\*u_x\n"):
        verify("burgers", {"x": "t", "u": -1})


def test_a_wrong_file_is_refused_with_its_name(tmp_path):
    content = catalog.read("symmetries", "burgers")
    content["generators"]["scaling"]["field"] = {"t": "2*t", "x": "x", "u": "u"}
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SymmetryError, match=r"broken.yaml: generators.scaling: .*\n.*: 2\*u\*u_x"):
        pdessl.symmetries(path)


def test_a_declared_kind_is_an_assertion(tmp_path):
    content = catalog.read("symmetries", "burgers")
    content["generators"]["viscosity_scaling"]["kind"] = "SYM"
    path = tmp_path / "kind.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SymmetryError, match="declared kind SYM, but it is EQV: it moves viscosity"):
        pdessl.symmetries(path)


def test_a_missing_parameter_motion_is_named():
    with pytest.raises(SymmetryError, match=r"add to the components: nu: 2\*nu\."):
        verify("burgers", {"x": "x", "u": "u"})


REFUSED = [
    ("burgers", {"x": "t", "u": "-1"}),  # a boost with the wrong sign
    ("burgers", {"x": "t"}),  # a boost that forgets the velocity
    ("kdv", {"x": "t"}),
    ("kuramoto_sivashinsky", {"x": "t"}),
    ("kuramoto_sivashinsky", {"t": "3*t", "x": "x", "u": "-2*u"}),  # the scaling of KdV on KS
    ("burgers", {"t": "3*t", "x": "x", "u": "-2*u"}),
    ("navier_stokes_2d_velocity", {"y": "t**2", "v": "1"}),  # y + g t^2 without v + 2 g t
    ("navier_stokes_2d_pressure_gradient", {"x": "t**2", "u": "2*t", "q": "-1"}),  # gradient moved by g, not 2 g
    ("navier_stokes_2d_pressure_gradient", {"y": "t", "v": "2*t", "r": "-1"}),
    ("navier_stokes_2d_pressure_gradient", {"x": "y", "y": "-x", "u": "v", "v": "-u"}),  # gradient not rotated
    (
        "navier_stokes_2d_pressure_gradient",
        {"t": "2*t", "x": "x", "y": "y", "u": "-u", "v": "-v", "q": "-2*q", "r": "-2*r"},
    ),
    ("boussinesq", {"x": "y", "y": "-x", "u": "v", "v": "-u"}),  # rotation under scalar buoyancy
    ("boussinesq", {"t": "2*t", "x": "x", "y": "y", "u": "-u", "v": "-v", "p": "-2*p"}),  # buoyancy not scaled
    ("boussinesq", {"y": "t**2", "v": "2*t"}),
    ("boussinesq", {"s": "y", "p": "1/2*b*y**2"}),
    ("boussinesq_velocity", {"x": "t*y", "y": "-t*x", "u": "y + t*v", "v": "-x - t*u"}),
    ("navier_stokes_2d", {"x": "t*y", "y": "-t*x", "u": "y + t*v", "v": "-x - t*u"}),  # not in (u, v, p)
    # The groups of the potential form, tried on Burgers itself:
    ("burgers", {"u": "1"}),
    ("burgers", {"t": "2*t", "x": "x"}),
    ("burgers", {"x": "2*t", "u": "-x"}),
]


@pytest.mark.parametrize(("name", "components"), REFUSED)
def test_refused(name, components):
    with pytest.raises(SymmetryError, match="is not a symmetry of"):
        verify(name, components)


ACCEPTED = [
    ("navier_stokes_2d_velocity", {"y": "t**2", "v": "2*t"}),
    ("navier_stokes_2d_pressure_gradient", {"x": "t**2", "u": "2*t", "q": "-2"}),
    ("boussinesq", {"t": "2*t", "x": "x", "y": "y", "u": "-u", "v": "-v", "p": "-2*p", "s": "-3*s"}),
    ("boussinesq", {"t": "2*t", "x": "x", "y": "y", "u": "-u", "v": "-v", "p": "-2*p", "b": "-3*b"}),
    ("boussinesq_vector", {"x": "y", "y": "-x", "u": "v", "v": "-u", "a": "b", "b": "-a"}),
    ("potential_burgers_coefficients", {"x": "2*a*t", "u": "-x"}),
    ("kuramoto_sivashinsky_coefficients", {"t": "4*t", "x": "x", "u": "-3*u", "b": "-2*b"}),
]


@pytest.mark.parametrize(("name", "components"), ACCEPTED)
def test_the_repaired_versions_are_accepted(name, components):
    assert verify(name, components).components == components


def test_infinite_families_are_verified_for_every_function():
    f = {"f": (("t",), ())}
    verify("navier_stokes_2d", {"x": "f", "u": "f_t", "p": "-x*f_tt"}, functions=f)
    with pytest.raises(SymmetryError):
        verify("navier_stokes_2d", {"x": "f", "u": "f_t", "p": "x*f_tt"}, functions=f)
    with pytest.raises(SymmetryError):  # a scalar shift that depends on time
        verify("boussinesq", {"s": "f", "p": "b*y*f"}, functions=f)
    with pytest.raises(SymmetryError):  # a frame that rotates at variable rate
        frame = {"x": "a*y", "y": "-a*x", "f": "1/2*a_t*(x**2 + y**2)", "w": "-2*a_t"}
        verify("navier_stokes_2d_streamfunction", frame, functions={"a": (("t",), ())})
    a = {"a": (("t", "x"), ("a_t - nu*a_xx",))}
    verify("heat", {"u": "a"}, functions=a)
    with pytest.raises(SymmetryError):
        verify("heat", {"u": "a"}, functions={"a": (("t", "x"), ("a_t - 2*nu*a_xx",))})


def test_a_file_is_checked_for_every_function_and_for_every_member(tmp_path):
    content = catalog.read("symmetries", "navier_stokes_2d")
    frame = content["generators"]["moving_frame_x"]
    frame |= {"field": {"x": "f", "u": "f_t", "p": "x*f_tt"}, "members": {"galilean_boost_x": "t"}}
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    # The member is a symmetry (f_tt = 0), the family is not.
    with pytest.raises(SymmetryError, match=r"generators.moving_frame_x: .*\n.*f_tt"):
        pdessl.symmetries(path)
    content = catalog.read("symmetries", "heat")
    content["generators"]["superposition"]["members"] = {"superposition_quadratic": "x**2"}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    # The family is one, but x**2 does not solve the heat equation.
    with pytest.raises(SymmetryError, match=r"member 'superposition_quadratic': .*\n.*: -2\*nu\n"):
        pdessl.symmetries(path)


def test_coordinates_in_the_equation_break_translations():
    equation = Equation.parse("u_t + x*u_x = t*u_xx")
    with pytest.raises(SymmetryError, match=r"t\*u_xx\): u_x\n"):
        verify(equation, {"x": 1})
    with pytest.raises(SymmetryError, match=r": -u_xx\n"):
        verify(equation, {"t": 1})
    verify(Equation.parse("u_t + x*u_x = 0"), {"x": "x"})
    verify(Equation.parse("u_t = t*u_xx"), {"t": "t", "x": "x"})


def test_components_of_parameters_and_unknown_coordinates():
    with pytest.raises(SymmetryError, match="may contain parameters only"):
        verify("burgers", {"nu": "x"})
    with pytest.raises(SymmetryError, match="no variable 'v'"):
        verify("burgers", {"v": "1"})
    with pytest.raises(EquationError, match="only point symmetries"):
        verify("burgers", {"u": "u_x"})


# --------------------------------------------------- the prolongation against an independent one, written in sympy


def textbook_prolongation(text, components, parameters):
    """pr v(Delta) = D_t(Q), .. inserted as a Frechet derivative, for one equation u_t = F in (t, x): the flow of the
    characteristic Q = phi - tau u_t - xi u_x must preserve solutions, so D_F[Q] + motions vanishes with u_t = F."""
    t, x = sympy.symbols("t x")
    jets = sympy.symbols("u:12")  # u_0 = u, u_k = d^k u / dx^k
    symbols = {"t": t, "x": x, "u": jets[0], **{p: sympy.Symbol(p) for p in parameters}}
    f = text(jets, symbols)
    tau, xi, phi = (components(symbols).get(c, sympy.Integer(0)) for c in "txu")

    def d_x(e):
        return sympy.diff(e, x) + sum(sympy.diff(e, jets[k]) * jets[k + 1] for k in range(11))

    def d_t(e, powers):
        return sympy.diff(e, t) + sum(sympy.diff(e, jets[k]) * powers[k] for k in range(11))

    powers = [f]
    for _ in range(11):
        powers.append(d_x(powers[-1]))
    q = phi - tau * f - xi * jets[1]
    spatial = [q]
    for _ in range(6):
        spatial.append(d_x(spatial[-1]))
    linearised = sum(sympy.diff(f, jets[k]) * spatial[k] for k in range(6))
    motions = sum(components(symbols).get(p, 0) * sympy.diff(f, symbols[p]) for p in parameters)
    return sympy.expand(d_t(q, powers) - linearised - motions)


def test_agrees_with_the_characteristic_form_on_random_fields():
    draw = random.Random(3)
    system = PDESystem(load_equation("burgers"))
    from pdessl.equations import parse_expression

    agreements = 0
    names = system.equation.names
    for _ in range(12):
        terms = {c: [] for c in ("t", "x", "u", "nu")}
        monomials = {"t": ["1", "t", "t**2"], "x": ["1", "x", "t", "t*x"], "u": ["1", "u", "x", "t*u"], "nu": ["nu"]}
        for c, choices in monomials.items():
            terms[c] = [(draw.choice([-2, -1, 0, 0, 1, 2]), m) for m in choices]
        texts = {c: " + ".join(f"({k})*{m}" for k, m in v) for c, v in terms.items()}
        ours = system.prolong({c: system.space.from_tree(parse_expression(s, names)) for c, s in texts.items()})[0]

        def components(s, texts=texts):
            return {c: sympy.parse_expr(v, local_dict=s) for c, v in texts.items()}

        theirs = textbook_prolongation(lambda u, s: s["nu"] * u[2] - u[0] * u[1], components, ["nu"])
        mine = sympy.expand(sympy.parse_expr(system.space.text(ours), local_dict={
            "t": sympy.Symbol("t"), "x": sympy.Symbol("x"), "nu": sympy.Symbol("nu"),
            "u": sympy.Symbol("u0"), "u_x": sympy.Symbol("u1"), "u_xx": sympy.Symbol("u2"), "u_xxx": sympy.Symbol("u3"),
        }))  # fmt: skip
        assert sympy.expand(mine - theirs) == 0
        agreements += mine != 0
    assert agreements > 7  # most random fields are not symmetries, so zero = zero was not all that was compared


# --------------------------------------------------- leading derivatives and completion


def test_completion_finds_the_pressure_equation():
    system = PDESystem(load_equation("navier_stokes_2d"))
    texts = [system.space.text(c) for c in system.conditions]
    assert len(texts) == 1 and "p_xx" in texts[0] and "p_yy" in texts[0] and "u_y*v_x" in texts[0]
    leads = {system.space.jet_text(system.space.jet(*lead)) for lead in system.rules}
    assert leads == {"u_t", "v_t", "u_x", "p_xx"} or leads == {"u_t", "v_t", "u_x", "p_yy"}


def test_reduction_is_consistent():
    """Reducing is linear, idempotent, and leaves no derivative of a lead."""
    system = PDESystem(load_equation("navier_stokes_2d"))
    space = system.space
    p = space.power(space.variable(space.jet(0, (1, 1, 0))), 2)  # u_tx**2
    once = system.reduce(p)
    assert once and system.reduce(once) == once
    for i, residual in enumerate(system.polynomials):
        assert system.reduce(residual) == {}
        assert system.reduce(space.total(residual, i % 3)) == {}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("rho*u_t + u_x", {"parameters": ["rho"]}, None),
        ("u*u_t + u*u_x", {}, "cannot be solved for a leading derivative.*Divide the equation"),
        ("u_t**2 + u_x**2", {}, "cannot be solved"),
        (["u_t = v_x", "v_t*u = 0"], {}, "equation 2, 'v_t\\*u = 0', cannot be solved"),
        (["u_x = 1", "u_x = 2"], {}, "no derivative"),
    ],
)
def test_leading_derivatives(text, options, message):
    equation = Equation.parse(text, **options)
    if message is None:  # u_x stands alone although u_t does not
        assert len(PDESystem(equation).rules) == 1
    else:
        with pytest.raises(EquationError, match=message):
            PDESystem(equation)


def test_completion_that_does_not_end_is_refused():
    with pytest.raises(
        EquationError, match="does not end|cannot be solved|no solutions|contradicts the equations before it"
    ):
        PDESystem(Equation.parse(["u_t = u_xx", "u_xy = u_t**2 + u*v_x", "v_tx = u_yy", "v_xy = u*v + u_t"]))


def test_coefficients_stay_exact():
    equation = Equation.parse("u_t + 1/3*u*u_x - 0.1*u_xx")
    verify(equation, {"x": "1/3*t", "u": "1"})
    with pytest.raises(SymmetryError):
        verify(equation, {"x": "0.333333333333333333333*t", "u": "1"})
    assert Fraction("0.1") == Fraction(1, 10)


@pytest.mark.parametrize(
    ("equation", "source", "expected"),
    [
        ("navier_stokes_2d_velocity", "navier_stokes_2d", True),  # the curl rids the flow of its pressure
        ("navier_stokes_2d_velocity", "navier_stokes_2d_pressure_gradient", True),
        ("navier_stokes_2d_velocity", "navier_stokes_2d_vorticity", True),
        ("boussinesq_velocity", "boussinesq", True),
        ("navier_stokes_2d", "navier_stokes_2d_velocity", False),  # which says nothing of a pressure
        ("navier_stokes_2d_velocity", "burgers_2d", False),
        ("burgers_2d", "navier_stokes_2d", False),
        ("navier_stokes_2d_velocity", "boussinesq", False),
        ("boussinesq_velocity", "boussinesq_diffusion", False),
        ("heat", "advection_diffusion", False),
        ("heat", "heat", True),
        ("burgers", "burgers_2d", False),
    ],
)
def test_what_follows_from_what(equation, source, expected):
    assert follows(pdessl.load_equation(equation), pdessl.load_equation(source)) is expected
