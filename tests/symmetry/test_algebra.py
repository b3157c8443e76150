"""What describes an algebra: boundary classes, discrete symmetries, identifiable combinations, hidden fields."""

import json
from pathlib import Path

import pytest

import pdessl
from pdessl import catalog
from pdessl.equations import Equation
from pdessl.errors import SymmetryError
from pdessl.symmetry import find_symmetries, verify
from pdessl.symmetry.boundary import boundary_class, boundary_conditions
from pdessl.symmetry.discrete import discrete_symmetries
from pdessl.symmetry.prolongation import PDESystem


def classes(name, boundary=None):
    return {g.name: boundary_class(g, boundary).kind for g in pdessl.symmetries(name)}


def test_burgers_on_a_periodic_box():
    assert classes("burgers", "periodic") == {
        "time_translation": "exact",
        "space_translation": "exact",
        "galilean_boost": "exact",
        "scaling": "rescales",
        "projective": "window",
        "viscosity_scaling": "rescales",
    }
    assert boundary_class(pdessl.symmetries("burgers")["scaling"]).weights == {"x": 1}


@pytest.mark.parametrize(
    ("name", "generator", "kind"),
    [
        ("heat", "galilean_boost", "window"),
        ("heat", "amplitude_scaling", "exact"),
        ("heat", "superposition_constant", "exact"),
        ("heat", "superposition_linear", "window"),
        ("kdv", "galilean_boost", "exact"),
        ("kdv", "scaling", "rescales"),
        ("advection_diffusion", "moving_frame", "exact"),
        ("advection_diffusion", "scaling", "rescales"),
        ("advection_diffusion_2d", "rotation", "rotates"),
        ("navier_stokes_2d", "rotation", "rotates"),
        ("navier_stokes_2d", "galilean_boost_x", "exact"),
        ("navier_stokes_2d_velocity", "acceleration_y", "exact"),
        ("navier_stokes_2d_velocity", "rotating_frame", "window"),
        ("navier_stokes_2d_streamfunction", "rotating_frame", "window"),
        ("boussinesq", "buoyancy_scaling", "exact"),
    ],
)
def test_periodic_boxes(name, generator, kind):
    assert classes(name, "periodic")[generator] == kind


def test_potentials_may_lose_their_periodicity():
    found = boundary_class(pdessl.symmetries("navier_stokes_2d")["acceleration_x"], "periodic")
    assert (found.kind, found.aperiodic) == ("exact", ("p",)) and "p loses periodicity" in found.text()
    found = boundary_class(pdessl.symmetries("navier_stokes_2d_streamfunction")["galilean_boost_x"], "periodic")
    assert (found.kind, found.aperiodic) == ("exact", ("f",))
    found = boundary_class(pdessl.symmetries("boussinesq")["scalar_shift"], "periodic")
    assert (found.kind, found.aperiodic) == ("exact", ("p",))


def test_boussinesq_between_walls():
    """What survives no-slip walls with zero scalar flux: time, gauges, scalar shift, and the scalings (box resized)."""
    found = classes("boussinesq")
    survive = {n: k for n, k in found.items() if k != "window"}
    assert survive == {
        "time_translation": "exact",
        "pressure_shift": "exact",
        "pressure_ramp": "exact",
        "pressure_parabola": "exact",
        "scaling": "rescales",
        "scalar_shift": "exact",
        "buoyancy_scaling": "exact",
        "viscosity_scaling": "rescales",
    }
    dirichlet = {"x": {"u": "noslip", "v": "noslip", "s": "dirichlet"}, "y": "periodic"}
    assert classes("boussinesq", dirichlet)["scalar_shift"] == "window"
    assert classes("boussinesq", dirichlet)["space_translation_y"] == "exact"
    assert classes("boussinesq", dirichlet)["space_translation_x"] == "window"


def test_a_flow_normal_to_a_wall_or_through_no_slip_is_refused():
    channel = {"x": "periodic", "y": "noslip"}
    found = classes("navier_stokes_2d", channel)
    assert found["space_translation_x"] == "exact"
    assert found["space_translation_y"] == found["galilean_boost_x"] == found["rotation"] == "window"
    assert found["scaling"] == "rescales"


def test_a_zero_gradient_wall_feels_a_shear():
    """y' = y + eps x keeps u_t = u_yy, but turns u_x = 0 into u_x = eps u_y."""
    equation = Equation.parse("u_t = u_yy", independent=("t", "x", "y"))
    shear, shift = verify(equation, {"y": "x"}), verify(equation, {"y": 1})
    walls = {"x": "zero_gradient", "y": "periodic"}
    assert boundary_class(shear, walls).kind == "window"
    assert boundary_class(shift, walls).kind == "exact"


def test_windows_and_errors():
    assert set(classes("burgers", "window").values()) == {"window"}
    equation = pdessl.load_equation("burgers")
    with pytest.raises(SymmetryError, match="Did you mean 'periodic'"):
        boundary_conditions(equation, "periodical")
    with pytest.raises(SymmetryError, match="no space axis 'y'"):
        boundary_conditions(equation, {"y": "periodic"})
    assert boundary_conditions(equation, "wall") == {"x": {"u": "noslip"}}


# ------------------------------------------------------------------ discrete symmetries


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heat", ["-(x)", "-(u)"]),
        ("burgers", ["-(x, u)"]),
        ("kuramoto_sivashinsky", ["-(x, u)"]),
        ("kdv", []),
        ("kdv_coefficients", ["-(u, a) EQV", "-(x, u, d) EQV"]),
        ("navier_stokes_2d", ["-(x, u)", "-(y, v)", "x <-> y, u <-> v"]),
        ("navier_stokes_2d_vorticity", ["-(x, w, u)", "-(y, w, v)", "x <-> y, u <-> v, -(w)"]),
        ("boussinesq", ["-(x, u)", "-(y, v, s)", "-(s, b) EQV"]),
        ("advection_diffusion", ["-(u)", "-(x, c) EQV"]),
        (
            "navier_stokes_3d",
            ["-(x, u)", "-(y, v)", "-(z, w)", "x <-> y, u <-> v", "x <-> z, u <-> w", "y <-> z, v <-> w"],
        ),
    ],
)
def test_discrete_symmetries(name, expected):
    found = discrete_symmetries(pdessl.load_equation(name))
    assert [s.text() + (" EQV" if s.kind == "EQV" else "") for s in found] == expected


def test_discrete_symmetries_by_substitution():
    """The parity rule against brute force: substitute every combination of signs and reduce."""
    from itertools import product

    from pdessl.symmetry.discrete import _image

    for name in ("burgers", "kdv_coefficients", "navier_stokes_2d_vorticity", "boussinesq_velocity"):
        equation = pdessl.load_equation(name)
        system = PDESystem(equation)
        movable = [c for c in equation.coordinates if c != "t"]
        brute = set()
        for signs in product((False, True), repeat=len(movable)):
            flips = [c for c, s in zip(movable, signs, strict=True) if s]
            if all(not system.reduce(_image(p, (), flips, system.space)) for p in system.polynomials):
                brute.add(frozenset(flips))
        group = {frozenset()}
        for s in discrete_symmetries(equation, system):
            if not s.swaps:
                group |= {frozenset(s.flips) ^ g for g in group}
        assert group == brute, name


def test_an_exchange_by_substitution():
    """The signs of an exchange against brute force, where some are needed and where none helps."""
    from itertools import product

    from pdessl.symmetry.discrete import _image

    vorticity = pdessl.load_equation("navier_stokes_2d_streamfunction")
    stretched = Equation.parse(["u_t = 2*v_xx + v_yy - u_y", "v_t = u_xx + u_yy + v_x"])
    opposed = Equation.parse("u_tt = u_xx - u_yy + a*u**2", parameters=["a"])
    for equation, swaps in ((vorticity, [("x", "y")]), (stretched, [("x", "y")]), (opposed, [("x", "y")])):
        system = PDESystem(equation)
        movable = [c for c in equation.coordinates if c != "t"]
        brute = [
            f
            for n in product((False, True), repeat=len(movable))
            for f in [[c for c, s in zip(movable, n, strict=True) if s]]
            if all(not system.reduce(_image(p, swaps, f, system.space)) for p in system.polynomials)
        ]
        found = [s for s in discrete_symmetries(equation, system) if list(s.swaps) == swaps]
        assert bool(found) == bool(brute)
        if found:
            assert list(found[0].flips) in brute and len(found[0].flips) == min(map(len, brute))


def test_many_parameters_are_no_burden():
    """Signs come from linear algebra: 2^34 combinations would never be gone through."""
    letters = [f"k{chr(97 + i)}" for i in range(26)]
    source = " + ".join(f"{k}*u**{i % 5 + 1}*v**{i // 5}" for i, k in enumerate(letters))
    for along_y, expected in ((1, ["x <-> y"]), (2, [])):
        texts = [f"u_t = u_xx + {along_y}*u_yy + {source}", "v_t = v_xx + v_yy + u"]
        found = discrete_symmetries(Equation.parse(texts, parameters=letters))
        assert [s.text() for s in found if s.swaps] == expected
        odd = tuple(k for i, k in enumerate(letters) if (i % 5 + i // 5) % 2)
        assert [s.flips for s in found if not s.swaps] == [("x",), ("y",), ("u", "v", *odd)]


@pytest.mark.parametrize(
    ("boundary", "mirror", "exchange"),
    [
        ("periodic", "exact", "square"),
        ("noslip", "exact", "square"),
        ("window", "window", "window"),
        ({"x": "periodic", "y": "noslip"}, "exact", "window"),
        ({"x": {"u": "noslip", "v": "dirichlet"}, "y": {"u": "dirichlet", "v": "noslip"}}, "exact", "square"),
        ({"x": {"u": "noslip"}, "y": {"u": "noslip"}}, "exact", "window"),
    ],
)
def test_discrete_symmetries_of_a_box(boundary, mirror, exchange):
    described = pdessl.symmetries("navier_stokes_2d_velocity").describe(boundary)["discrete"]
    found = {s["text"]: s["boundary"]["class"] for s in described}
    assert found == {"-(x, u)": mirror, "-(y, v)": mirror, "x <-> y, u <-> v": exchange}


def test_a_typed_system_finds_its_exchange():
    equation = Equation.parse(["u_t + u*u_x + v*u_y", "v_t + u*v_x + v*v_y"])
    assert "x <-> y, u <-> v" in [s.text() for s in discrete_symmetries(equation)]
    assert discrete_symmetries(equation)[-1].maps == {"x": "y", "u": "v", "y": "x", "v": "u"}


# ------------------------------------------------------------------ identifiable combinations


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("burgers", [], []),
        ("burgers", ["x"], []),
        ("burgers", ["x", "u"], ["viscosity/(velocity*domain_size)"]),
        ("boussinesq_diffusion", [], ["scalar_diffusivity/viscosity"]),  # the inverse Prandtl number
        (
            "boussinesq_diffusion",
            ["x", "u", "s"],
            [
                "viscosity/(velocity*domain_size)",
                "scalar_diffusivity/(velocity*domain_size)",
                "buoyancy*scalar*domain_size/velocity**2",  # the inverse squared Froude number
            ],
        ),
        ("boussinesq", ["x", "s"], ["buoyancy*scalar*domain_size**3/viscosity**2"]),
        ("gray_scott", [], ["activator_diffusivity/substrate_diffusivity", "feed_rate", "kill_rate"]),
        ("shallow_water_2d", ["u", "h"], ["gravity*depth/velocity**2"]),
        ("advection_diffusion", ["x"], []),
    ],
)
def test_identifiable_combinations(name, given, expected):
    assert pdessl.symmetries(name).identifiable(given) == expected


def test_identifiable_combinations_are_invariant_under_every_scaling():
    """Check the products by the weights themselves, read off the declared components."""
    import sympy

    for name in ("boussinesq_diffusion", "kdv_coefficients", "kuramoto_sivashinsky_coefficients", "fisher_kpp"):
        algebra = pdessl.symmetries(name)
        equation = algebra.equation
        f = equation.dependent[0]
        vectors = {parts[next(iter(parts))]: n for n, parts in equation.vectors.items()}
        label = {**equation.parameter_names, equation.space[0]: "domain_size", f: vectors.get(f, f)}
        texts = algebra.identifiable([equation.space[0], f])
        assert texts
        for text in texts:
            product = sympy.parse_expr(text)
            for g in algebra:
                e = g.expressions()
                symbols = {c: sympy.Symbol(c) for c in label}
                weights = {c: sympy.simplify(e[c] / symbols[c]) for c in label}
                if not all(w.is_number for w in weights.values()):
                    continue  # not a scaling
                rate = sum(
                    sympy.diff(product, sympy.Symbol(n)) * sympy.Symbol(n) * weights[c] for c, n in label.items()
                )
                assert sympy.simplify(rate) == 0, (name, text, g.name)


# ------------------------------------------------------------------ hidden fields


def test_a_hidden_scalar_makes_the_scaling_look_like_buoyancy():
    algebra = pdessl.symmetries("boussinesq")
    assert algebra.confounded() == {}
    found = algebra.confounded(["u", "v"])
    assert set(found) == {"scaling"}
    assert "hidden field s" in found["scaling"] and "buoyancy" in found["scaling"]


def test_a_hidden_pressure_is_harmless():
    assert pdessl.symmetries("navier_stokes_2d").confounded(["u", "v"]) == {}


# ------------------------------------------------------------------ the description


@pytest.mark.parametrize("name", catalog.names("symmetries"))
def test_describe_is_plain_data(name):
    algebra = pdessl.symmetries(name)
    description = algebra.describe()
    assert json.loads(json.dumps(description)) == description
    assert [g["name"] for g in description["generators"]] == list(algebra.names)
    for g in description["generators"]:
        assert g["kind"] == ("EQV" if g["moves"] else "SYM")
        assert g["boundary"]["class"] in ("exact", "rescales", "rotates", "shears", "window")


def test_every_key_of_the_description_is_documented():
    page = Path(__file__).parents[2] / "docs" / "equations.md"
    described = find_symmetries("burgers").describe()
    for key in (*described, *described["generators"][0], *described["generators"][0]["boundary"]):
        assert f"`{key}`" in page.read_text(encoding="utf-8"), key


def test_describe_carries_the_certificate_and_the_hidden_condition():
    description = find_symmetries("navier_stokes_2d").describe(boundary="periodic")
    assert description["certificate"]["complete"] and description["certificate"]["symmetries"] == 12
    assert description["integrability_conditions"] == ["2*u_y*v_x + 2*v_y**2 + p_xx + p_yy = 0"]
    assert description["equation"]["parameters"] == {"nu": {"name": "viscosity", "unit": "length^2/time"}}
    assert {f["name"] for f in description["families"]} == {"moving_frame_x", "moving_frame_y", "pressure_gauge"}
    by_name = {g["name"]: g for g in description["generators"]}
    assert by_name["acceleration_x"]["hidden"] == ["p"] and by_name["rotation"]["hidden"] == []
    with pytest.raises(SymmetryError, match="no field 'w'"):
        pdessl.symmetries("navier_stokes_2d").describe(observed=["w"])


def test_generators_read_and_compare():
    algebra = pdessl.symmetries("burgers")
    assert repr(algebra["galilean_boost"]) == "SymmetryGenerator(galilean_boost: {x: t, u: 1})"
    assert len(algebra) == 6 and "scaling" in algebra and "rotation" not in algebra
    again = pdessl.symmetries("burgers")
    assert again["projective"] == algebra["projective"] and hash(again["projective"]) == hash(algebra["projective"])
