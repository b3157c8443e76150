"""Equations typed in, against what the literature says of their point symmetries."""

import pytest

from pdessl.equations import Equation
from pdessl.errors import EquationError
from pdessl.symmetry import find_symmetries
from pdessl.symmetry.boundary import boundary_class

# Equations, parameters, degree; symmetries and equivalence transformations; names that must be among them.
KNOWN = {
    # Olver (1993): example 2.41 (heat: six and the superpositions), 2.42 (Burgers), 2.44 (KdV).
    "heat": ("u_t = u_xx", "", 3, (10, 0), {"galilean_boost", "projective", "scaling", "superposition_xx"}),
    # Cylindrical heat equation, Bluman, Cole (1969): time, scaling, projective, amplitude; here with 1 and r**2 + 4*t.
    "heat_radial": ("r*u_t = (r*u_r)_r", "", 3, (6, 0), {"scaling", "superposition_rr", "u_scaling"}),
    "heat_2d": ("u_t = k*(u_xx + u_yy)", "k", 3, (19, 1), {"rotation", "projective", "galilean_boost_y"}),
    "mkdv": ("u_t + u**2*u_x + u_xxx", "", 2, (3, 0), {"scaling"}),
    # By u -> u - a/(2b) in a moving frame Gardner's equation is the modified KdV equation, and has its scaling.
    "gardner": ("u_t + a*u*u_x + b*u**2*u_x + u_xxx", "a b", 2, (3, 2), {"scaling", "a_scaling", "b_scaling"}),
    "fisher": ("u_t = d*u_xx + r*u*(1 - u)", "d r", 2, (2, 2), {"d_scaling", "r_scaling"}),
    "kolmogorov_petrovsky": ("u_t = d*u_xx + u - u**3", "d", 2, (2, 1), {"d_scaling"}),
    # Ovsiannikov (1959): u_t = (u^n u_x)_x has four for n other than -4/3.
    "porous_medium_1": ("u_t = u*u_xx + u_x**2", "", 2, (4, 0), {"scaling", "scaling_2"}),
    "porous_medium_3": ("u_t = u**3*u_xx + 3*u**2*u_x**2", "", 2, (4, 0), {"scaling", "scaling_2"}),
    # Nishitani, Tajiri (1982): translations and one scaling, about u = -1/(2a) where u_xx is present.
    "boussinesq": ("u_tt = u_xx + 2*a*u_x**2 + 2*a*u*u_xx + b*u_xxxx", "a b", 2, (3, 2), {"scaling"}),
    "kawahara": ("u_t + u*u_x + a*u_xxx - b*u_xxxxx", "a b", 2, (3, 2), {"galilean_boost"}),
    "benjamin_bona_mahony": ("u_t + u_x + u*u_x - u_xxt", "", 2, (3, 0), {"scaling"}),
    "harry_dym": ("u_t = u**3*u_xxx", "", 2, (5, 0), {"scaling", "scaling_2", "projective_x"}),
    "camassa_holm": ("u_t - u_xxt + 3*u*u_x - 2*u_x*u_xx - u*u_xxx", "", 2, (3, 0), {"scaling"}),
    "hunter_saxton": ("u_tx + u*u_xx + 1/2*u_x**2", "", 2, (7, 0), {"acceleration", "projective", "scaling_2"}),
    # The conformal group of 2+1 dimensions (10), amplitude, and the superpositions of degree 2 (9).
    "wave_2d": ("u_tt = c**2*(u_xx + u_yy)", "c", 2, (20, 1), {"lorentz_boost_x", "rotation", "conformal"}),
    "hirota_satsuma": (["u_t = 1/2*u_xxx + 3*u*u_x - 6*v*v_x", "v_t = -v_xxx - 3*u*v_x"], "", 2, (3, 0), {"scaling"}),
    "zakharov_kuznetsov": ("u_t + u*u_x + u_xxx + u_xyy", "", 2, (5, 0), {"galilean_boost_x", "scaling"}),
    # David, Kamran, Levi, Winternitz (1985): three functions of time.
    "kadomtsev_petviashvili": ("u_tx + u_x**2 + u*u_xx + u_xxxx + 3*u_yy", "", 2, (9, 0), {"quasi_rotation"}),
}  # fmt: skip


def algebra_of(name):
    texts, parameters, degree, _, _ = KNOWN[name]
    return find_symmetries(Equation.parse(texts, parameters=parameters.split()), degree=degree)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_dimensions_and_names_of_the_literature(name):
    algebra = algebra_of(name)
    assert (len(algebra.symmetries), len(algebra.equivalences)) == KNOWN[name][3]
    assert algebra.certificate.complete
    assert set(algebra.names) >= KNOWN[name][4]
    assert len(set(algebra.names)) == len(algebra)
    assert algebra.names[0] == "time_translation"


def test_motions_of_parameters_that_combine_to_a_symmetry():
    """Gardner: a and b can be moved in three ways, of which one combination, quadratic in them, moves neither."""
    texts, parameters, degree, *_ = KNOWN["gardner"]
    equation = Equation.parse(texts, parameters=parameters.split())
    low = find_symmetries(equation, degree=degree, parameter_degree=1).certificate
    assert (low.symmetries, low.equivalences, low.generic, low.generic_symmetries) == (2, 3, 5, 3)
    assert not low.complete and "3 of them keeping the parameters" in low.text()
    full = find_symmetries(equation, degree=degree)
    assert full.certificate.parameter_degree == 2
    assert dict(full["scaling"].components) == {"t": "6*b*t", "x": "2*b*x - a**2*t", "u": "-2*b*u - a"}
    assert full.identifiable(["x"]) == []  # the scaling changes lengths and neither a nor b
    assert full.identifiable(["x", "u"]) == ["b*u**2*domain_size**2"]


def test_scalings_about_another_value_rescale_the_box():
    algebra = algebra_of("boussinesq")
    where = boundary_class(algebra["scaling"])
    assert where.kind == "rescales" and where.text() == "rescales the box: L_x -> exp(a ε) L_x"
    assert algebra.identifiable(["x"]) == []
    assert algebra.identifiable(["x", "u"]) == ["b/(a*u*domain_size**2)"]
    assert boundary_class(algebra_of("benjamin_bona_mahony")["scaling"]).kind == "exact"


def test_a_shear_of_the_box_is_no_rotation():
    algebra = algebra_of("kadomtsev_petviashvili")
    where = boundary_class(algebra["quasi_rotation"])
    assert where.kind == "shears" and "shears the box" in where.text()
    assert boundary_class(algebra["quasi_rotation"], {"x": "periodic", "y": "noslip"}).kind == "window"
    assert boundary_class(algebra_of("heat_2d")["rotation"]).kind == "rotates"


def test_what_lies_beyond_the_ansatz_is_told():
    """Heat has its projective symmetry at degree 3; KdV has no more at any."""
    heat = find_symmetries(Equation.parse("u_t = u_xx"))
    text = " ".join(heat.text().split())
    assert "projective" not in heat.names
    assert "Degree 3 holds 2 more, members of infinite families or generators of that degree" in text
    assert "superposition: the equations are linear" in text
    kdv = " ".join(find_symmetries("kdv").text().split())
    assert "Degree 3 holds no more." in kdv and "superposition" not in kdv
    assert heat.describe()["certificate"]["next_degree"] == 10
    highest = find_symmetries(Equation.parse("u_t + u*u_x + u_xxx"), degree=8)
    assert highest.describe()["certificate"]["next_degree"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u_tt = u_xx + sin(u)", "reads as a function call; the coefficients must be polynomial"),
        ("u_t = (u**2*u_x) _x", r"derivative of a bracket is written without a space"),
        ("u_t + u**(1/2)*u_x", "exponent must be a whole number"),
        ("u_t = u_xx / u", "division by something that is not a number.*Multiply the equation by it"),
    ],
)
def test_what_is_outside_the_class_is_refused(text, message):
    with pytest.raises(EquationError, match=message):
        Equation.parse(text)
