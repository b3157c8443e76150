"""Discovery: the dimensions of the literature, a certificate, and an independent oracle in plain sympy."""

import itertools
import random
from fractions import Fraction

import pytest
import sympy

from pdessl.augmentation.reflections import reflections_of
from pdessl.cli import main
from pdessl.equations import Equation, load_equation, parse_expression
from pdessl.errors import EquationError, SymmetryError
from pdessl.symmetry import find_symmetries, symmetries
from pdessl.symmetry.discovery import Certificate, find_fields, generic_dimensions, parameter_point, residues
from pdessl.symmetry.nullspace import PRIME, Span, nullspace, rank_modulo
from pdessl.symmetry.prolongation import PDESystem
from pdessl.testing import assert_symmetry

# Dimensions (symmetries, equivalences) at the default degree, from the literature on each system.
DIMENSIONS = {
    "advection_diffusion": (10, 2),
    "advection_diffusion_2d": (14, 3),
    "boussinesq": (12, 2),
    "boussinesq_diffusion": (12, 2),
    "boussinesq_vector": (12, 3),
    "boussinesq_velocity": (9, 2),
    "burgers": (5, 1),
    "burgers_2d": (8, 1),
    "fisher_kpp": (2, 2),
    "fitzhugh_nagumo": (4, 1),
    "gray_scott": (4, 1),
    "heat": (10, 1),
    "kdv": (4, 0),
    "kdv_burgers": (3, 2),
    "kdv_burgers_kuramoto": (3, 3),
    "kdv_coefficients": (4, 2),
    "kolmogorov_flow": (6, 2),
    "kolmogorov_flow_any_force": (7, 2),
    "kuramoto_sivashinsky": (3, 0),
    "kuramoto_sivashinsky_coefficients": (3, 3),
    "navier_stokes_2d": (12, 1),
    "navier_stokes_2d_pressure_gradient": (10, 1),
    "navier_stokes_2d_streamfunction": (13, 1),
    "navier_stokes_2d_velocity": (10, 1),
    "navier_stokes_2d_vorticity": (10, 1),
    "navier_stokes_3d": (17, 1),
    "potential_burgers": (6, 1),
    "potential_burgers_coefficients": (6, 2),
    "schroedinger": (5, 1),
    "shallow_water_2d": (9, 1),
}


def span_of(fields, space, point):
    span = Span()
    for f in fields:
        span.add(residues(f, space, point))
    return span


@pytest.mark.parametrize("name", sorted(DIMENSIONS))
def test_discovery_declaration_and_table_agree(name):
    algebra = find_symmetries(name)
    found = (algebra.certificate.symmetries, algebra.certificate.equivalences)
    declared = symmetries(name)
    assert found == DIMENSIONS[name]
    assert (len(declared.symmetries), len(declared.equivalences)) == DIMENSIONS[name]
    assert algebra.certificate.complete and not algebra.unnamed
    # The same space, not only the same number: each spans the other.
    system = PDESystem(algebra.equation)
    fields, *_ = find_fields(
        algebra.equation, algebra.certificate.degree, algebra.certificate.parameter_degree, system=system
    )
    point = parameter_point(algebra.equation)
    both = [
        fields,
        [{c: system.space.from_tree(t) for c, t in g.trees.items()} for g in declared],
    ]
    for one, other in (both, both[::-1]):
        span = span_of(one, system.space, point)
        assert len(span) == sum(found)
        assert all(not span.reduced(residues(f, system.space, point)) for f in other)


def test_every_shipped_equation_is_in_the_table():
    from pdessl import catalog

    assert set(catalog.names("symmetries")) == set(DIMENSIONS)


@pytest.mark.parametrize("name", sorted(DIMENSIONS))
def test_what_is_discovered_is_admitted(name):
    """Independent of the linear solve: every discovered field is prolonged as a whole and must reduce to zero."""
    equation = load_equation(name)
    fields, system, _, _ = find_fields(equation, equation.ansatz["degree"], equation.ansatz["parameter_degree"])
    for f in fields:
        assert not any(system.prolong(f)), {c: system.space.text(p) for c, p in f.items()}


def test_textbook_form():
    algebra = find_symmetries(Equation.parse("u_t + u*u_x - nu*u_xx", parameters=["nu"]))
    assert {g.name: dict(g.components) for g in algebra} == {
        "time_translation": {"t": "1"},
        "space_translation": {"x": "1"},
        "galilean_boost": {"x": "t", "u": "1"},
        "scaling": {"t": "2*t", "x": "x", "u": "-u"},
        "projective": {"t": "t**2", "x": "t*x", "u": "-t*u + x"},
        "nu_scaling": {"x": "x", "u": "u", "nu": "2*nu"},
    }
    assert all(not g.named and g.strength_max == 0 for g in algebra)


def test_an_equation_typed_in():
    algebra = find_symmetries(Equation.parse("u_t + a*u*u_x + d*u_xxx", parameters=["a", "d"]), degree=2)
    assert [g.kind for g in algebra] == ["SYM"] * 4 + ["EQV"] * 2
    assert {"t": "3*t", "x": "x", "u": "-2*u"} in [dict(g.components) for g in algebra]
    assert "Complete within the ansatz" in algebra.certificate.text()
    assert "degree <= 2" in algebra.certificate.text()


def test_the_parameter_degree_is_raised_until_the_count_is_generic():
    equation = Equation.parse("u_t + c*u_x - nu*u_xx", parameters=["c", "nu"])
    low = find_symmetries(equation, degree=3, parameter_degree=1)
    assert not low.certificate.complete and "Not complete" in low.certificate.text()
    full = find_symmetries(equation, degree=3)
    assert full.certificate.complete and full.certificate.parameter_degree == 3
    assert (full.certificate.symmetries, full.certificate.equivalences) == (10, 2)


@pytest.mark.parametrize(("degree", "count"), [(1, 9), (2, 12), (3, 15)])
def test_infinite_families_grow_with_the_degree(degree, count):
    """Two frames and one gauge per degree; further members are recognised as such."""
    algebra = find_symmetries("navier_stokes_2d", degree=degree)
    assert (algebra.certificate.symmetries, algebra.certificate.equivalences) == (count, 1)
    families = [g.family for g in algebra.unnamed]
    assert families == (["moving_frame_x", "moving_frame_y", "pressure_gauge"] if degree == 3 else [])


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_finite_algebras_do_not_grow(degree):
    assert find_symmetries("kdv", degree=degree).certificate.symmetries == 4


@pytest.mark.parametrize("name", ["kdv", "burgers", "burgers_2d", "schroedinger", "shallow_water_2d"])
def test_the_projectable_ansatz_loses_nothing(name):
    """The general ansatz (any polynomial in all variables) finds the same dimension."""
    general = find_symmetries(name, projectable=False).certificate
    assert (general.symmetries, general.equivalences) == DIMENSIONS[name]


def test_curve_shortening_has_a_rotation_that_only_the_general_ansatz_finds_and_the_certificate_says_which_it_was(
    capsys,
):
    text = "u_t*(1 + u_x**2) = u_xx"
    projectable, general = (find_symmetries(Equation.parse(text), projectable=p).certificate for p in (True, False))
    assert (projectable.symmetries, general.symmetries) == (4, 5) and projectable.complete and general.complete
    assert "projectable" in projectable.text() and "--general" in projectable.text()
    assert "general: fields may enter" in general.text()
    assert main(["symmetries", "--equation", text, "--general"]) == 0
    assert "5 symmetries" in " ".join(capsys.readouterr().out.split())


def test_a_stationary_equation_has_the_conformal_algebra_of_the_plane_up_to_degree_two():
    for independent in (None, ("x", "y")):
        assert find_symmetries(Equation.parse("u_xx + u_yy = 0", independent=independent)).certificate.symmetries == 12


def test_equations_that_contradict_each_other_are_told_what_is_left():
    with pytest.raises(EquationError, match=r"equation 2, 'u_t-u\*u_x', contradicts .*leave -2\*u\*u_x = 0 of it"):
        find_symmetries(Equation.parse(["u_t+u*u_x", "u_t-u*u_x"]))


def test_the_general_ansatz_finds_what_is_not_projectable():
    """Shallow water in one dimension has t' depending on u; Ovsiannikov's hodograph symmetries."""
    equation = Equation.parse(["u_t + u*u_x + g*h_x", "h_t + u*h_x + h*u_x"], parameters=["g"])
    projectable = find_symmetries(equation).certificate
    general = find_symmetries(equation, projectable=False).certificate
    assert (projectable.symmetries, projectable.equivalences) == (5, 1)
    assert general.symmetries > 5


def test_unnamed_generators_of_a_file_are_reported(tmp_path):
    import yaml

    from pdessl import catalog

    content = catalog.read("symmetries", "burgers")
    del content["generators"]["projective"], content["generators"]["galilean_boost"]
    path = tmp_path / "burgers.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    algebra = find_symmetries(path)
    assert sorted(g.name for g in algebra.unnamed) == ["galilean_boost", "projective"]
    texts = [g["declaration"] for g in algebra.describe()["generators"] if not g["named"]]
    content["generators"] |= yaml.safe_load("\n".join(texts))  # what is printed can be pasted
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert not find_symmetries(path).unnamed and len(symmetries(path)) == 6


def test_reasonable_limits():
    with pytest.raises(SymmetryError, match="from 1 to 8"):
        find_symmetries("burgers", degree=0)
    with pytest.raises(SymmetryError, match="at most 20000"):
        find_fields(load_equation("navier_stokes_3d"), 8, 4)


def test_certificate_text_names_both_counts():
    text = Certificate(2, 1, True, 4, 1, 6, 5, 10, 10).text()
    assert "5 found" in text and "6 exist" in text


# --------------------------------------------------------------- the oracle, in plain sympy


def oracle_dimension(text, degree, parameters=(), order=4):
    """Number of symmetries of u_t = F with projectable polynomial coefficients, by symbols, expand and a matrix rank.

    Independent of the engine: evolutionary characteristic, symbolic coefficients, no jet packing, no completion.
    Parameters are put to distinct primes, which is a generic point.
    """
    t, x = sympy.symbols("t x")
    jets = sympy.symbols(f"u:{3 * order}")
    values = {p: sympy.Integer(prime) for p, prime in zip(parameters, (7, 11, 13), strict=False)}
    f = text(jets, values)

    def d_x(e):
        return sympy.diff(e, x) + sum(sympy.diff(e, jets[k]) * jets[k + 1] for k in range(len(jets) - 1))

    monomials = [t**i * x**j for i, j in itertools.product(range(degree + 1), repeat=2) if i + j <= degree]
    with_u = [*monomials, *(m * jets[0] for m in monomials if sympy.Poly(m, t, x).total_degree() < degree)]
    unknowns = sympy.symbols(f"c:{2 * len(monomials) + len(with_u)}")
    n = len(monomials)
    tau = sum(c * m for c, m in zip(unknowns[:n], monomials, strict=True))
    xi = sum(c * m for c, m in zip(unknowns[n : 2 * n], monomials, strict=True))
    phi = sum(c * m for c, m in zip(unknowns[2 * n :], with_u, strict=True))
    q = sympy.expand(phi - tau * f - xi * jets[1])
    rates, spatial = [f], [q]
    for _ in range(order):
        rates.append(sympy.expand(d_x(rates[-1])))
        spatial.append(sympy.expand(d_x(spatial[-1])))
    d_t = sympy.diff(q, t) + sum(sympy.diff(q, jets[k]) * rates[k] for k in range(order + 1))
    residual = sympy.expand(d_t - sum(sympy.diff(f, jets[k]) * spatial[k] for k in range(order + 1)))
    rows = sympy.Poly(residual, t, x, *jets).coeffs()
    matrix = sympy.Matrix([[sympy.diff(r, c) for c in unknowns] for r in rows])
    return len(unknowns) - matrix.rank()


@pytest.mark.parametrize(
    ("name", "right", "parameters", "degree", "expected"),
    [
        ("burgers", lambda u, p: p["nu"] * u[2] - u[0] * u[1], ["nu"], 2, 5),
        ("kdv", lambda u, p: -u[0] * u[1] - u[3], [], 2, 4),
        ("kuramoto_sivashinsky", lambda u, p: -u[0] * u[1] - u[2] - u[4], [], 2, 3),
        ("heat", lambda u, p: p["nu"] * u[2], ["nu"], 3, 10),
    ],
)
def test_plain_sympy_gives_the_same_dimension(name, right, parameters, degree, expected):
    assert oracle_dimension(right, degree, parameters) == expected
    assert find_symmetries(name, degree=degree).certificate.symmetries == expected


# --------------------------------------------------------------- linear algebra


def test_nullspace_against_sympy():
    draw = random.Random(11)
    for _ in range(40):
        columns = draw.randrange(1, 9)
        rows = [
            {k: draw.randrange(-4, 5) for k in range(columns) if draw.random() < 0.5}
            for _ in range(draw.randrange(0, 8))
        ]
        dense = sympy.Matrix(len(rows), columns, lambda i, j, rows=rows: rows[i].get(j, 0))
        basis = nullspace(rows, columns)
        rank = dense.rank() if rows else 0
        assert len(basis) == columns - rank == columns - rank_modulo(r for r in rows if any(r.values()))
        for vector in basis:
            assert all(sum(row.get(k, 0) * v for k, v in vector.items()) == 0 for row in rows)
            assert all(isinstance(v, int) for v in vector.values())


def test_nullspace_leaves_high_columns_free():
    assert nullspace([{0: Fraction(1, 2), 2: Fraction(-1, 3)}], 3) == [{1: 1}, {0: 2, 2: 3}]


def test_span_modulo_a_prime():
    span = Span()
    assert span.add({"a": 2, "b": 3}) and span.add({"b": 5, "c": 1})
    assert not span.add({"a": 4, "b": 11, "c": 1})
    assert span.add({"c": 1}) and len(span) == 3
    assert span.reduced({"a": 7, "b": 8, "c": 9}) == {}
    assert not span.add({"a": PRIME})


def test_generic_dimensions_bound_the_count():
    equation = load_equation("burgers")
    assert generic_dimensions(equation, 2) == (6, 5)
    names = equation.names
    assert parse_expression("nu", names)  # the parameter is still a name afterwards


# --------------------------------------------------------------- systems nobody would write


def random_systems(count):
    draw = random.Random(4)
    jets = ["u", "v", "u_t", "u_x", "u_xx", "v_t", "v_x", "v_xx", "u_tx", "v_xy", "u_y", "u_yy", "v_y", "u_tt", "u_xxx"]

    def term():
        factor = draw.choice(["", "2*", "-3*", "nu*", "x*", "1/2*", "a*"])
        return factor + "*".join(
            draw.choice(jets) + draw.choice([""] * 6 + ["**2", "**3"]) for _ in range(draw.randrange(1, 4))
        )

    for _ in range(count):
        leads = [draw.choice(["u_t", "v_t", "u_x", "v_xx", "u_tt"]) for _ in range(draw.randrange(1, 4))]
        yield [" + ".join([lead, *(term() for _ in range(draw.randrange(1, 3)))]) for lead in leads]


def test_random_systems_are_solved_or_refused():
    """Most have no isolated highest derivative, or contradict themselves: that is said, within bounds of time."""
    solved = refused = 0
    for texts in random_systems(150):
        try:
            equation = Equation.parse(texts, parameters=["nu", "a"])
            fields, system, _, _ = find_fields(equation, 1, 1)
        except (EquationError, SymmetryError) as error:
            assert len(str(error)) < 4000
            refused += 1
            continue
        solved += 1
        assert all(not any(system.prolong(f)) for f in fields)
    assert solved > 25 and refused > 25


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["u_x + v_x*u_tx + u_tt*u_y"], "cannot be solved for a leading derivative.*highest: u_tt"),
        (["v_xx - 3*u_xx*u_x", "u_x + nu*u_y*u_t*v_x"], "does not end.*highest derivative"),
    ],
)
def test_rewriting_that_does_not_end_is_refused(texts, message):
    with pytest.raises(EquationError, match=message):
        find_symmetries(Equation.parse(texts, parameters=["nu"]))


def test_an_equation_is_divided_by_letters_where_nothing_stands_alone():
    radial = Equation.parse("r*u_t = (r*u_r)_r")
    system = PDESystem(radial)
    space = system.space
    assert system.reciprocals.letters == ("r",)
    u_t, u_tr = (system.reduce(space.variable(space.jet(0, index))) for index in ((1, 0), (1, 1)))
    w, jets = system.reciprocals.of(0 if radial.independent[0] == "r" else 1), [(0, k) for k in (1, 2, 3)]
    w, u_r, u_rr, u_rrr = space.units[w], *(space.units[space.jet(0, index)] for index in jets)
    assert u_t == {u_rr: 1, u_r + w: 1} and u_tr == {u_rrr: 1, u_rr + w: 1, u_r + 2 * w: -1}
    algebra = find_symmetries(radial)
    assert "dividing by r: what follows holds where r != 0" in algebra.text()
    # The mirror is about r = 0, where the axis is, and no view about the middle of a box.
    assert {d["text"]: d["boundary"]["class"] for d in algebra.describe()["discrete"]}["-(r) about r = 0"] == "window"
    assert set(reflections_of(algebra)) == {"u"}
    for generator in algebra:
        assert_symmetry(generator)
    # By a parameter: the same algebra as of the equation divided by hand, with one more scaling.
    divided = find_symmetries(Equation.parse("rho*u_t + rho*u*u_x = mu*u_xx", parameters="rho mu"))
    assert (len(divided.symmetries), len(divided.equivalences)) == (5, 2) and divided.certificate.complete
    assert PDESystem(load_equation("burgers")).reciprocals.letters == ()


def test_a_new_equation_is_a_new_file(tmp_path, monkeypatch):
    folder = tmp_path / "symmetries"
    folder.mkdir()
    (folder / "telegraph.yaml").write_text(
        "name: telegraph\nindependent: {t: time, x: space}\ndependent: {signal: {rank: 0, components: u}}\n"
        "parameters: {r: {name: damping}, c: {name: stiffness}}\nequations: [u_tt + r*u_t = c*u_xx]\n"
        "generators:\n  time_translation: {field: {t: 1}}\n  space_translation: {field: {x: 1}}\n"
    )
    monkeypatch.setenv("PDESSL_PATH", str(tmp_path))
    assert symmetries("telegraph").names == ("time_translation", "space_translation")
    found = find_symmetries("telegraph")
    assert found.certificate.complete and found["u_scaling"].components == {"u": "u"}
    assert found["stiffness_scaling"].moves == {"stiffness": "2*c"}


@pytest.mark.parametrize("independent", [None, ("x", "y")])
def test_the_plane_laplace_equation_has_no_symmetries_in_a_time_it_does_not_have(independent):
    """Two translations, rotation, scaling, two conformal maps, u, and the harmonic polynomials 1, x, y, xy, x² - y²."""
    algebra = find_symmetries(Equation.parse("u_xx + u_yy = 0", independent=independent))
    assert len(algebra.generators) == 12 and algebra.certificate.complete
    assert {"rotation", "scaling", "conformal", "u_scaling", "superposition_xy"} <= set(algebra.names)
    assert "has no time t" in algebra["rotation"].flow.obstruction and "rotation" in algebra.text()
