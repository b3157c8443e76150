"""`pdessl symmetries`: of the catalog, typed in, as data, as a picture."""

import json

import pytest

import pdessl
from pdessl import catalog, cli


def run(capsys, *arguments):
    assert cli.main(["symmetries", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    assert cli.main(["symmetries", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") <= 4
    return printed


def paragraph(printed, name):
    lines = printed.splitlines()
    start = lines.index(f"  {name}")
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("    ")), len(lines))
    return "\n".join(lines[start:end])


def test_burgers_reads_as_in_a_book(capsys):
    printed = run(capsys, "burgers")
    boost = paragraph(printed, "galilean_boost")
    assert "v = t ∂x + ∂u" in boost and "x' = x + ε t, u' = u + ε" in boost and "exact on the box" in boost
    projective = paragraph(printed, "projective")
    assert "t' = t/(1 - ε t), x' = x/(1 - ε t), u' = u (1 - ε t) + ε x" in projective
    assert "interior windows only" in projective
    scaling = paragraph(printed, "viscosity_scaling")
    assert "moves viscosity: nu' = nu exp(2 ε)" in scaling and "rescales the box: L_x -> exp(ε) L_x" in scaling
    assert "Discrete (exact on the grid, about the middle of the box)\n  -(x, u)\n" in printed
    assert "5 symmetries and 1 equivalence transformation" in " ".join(printed.split())


def test_an_equation_typed_in_is_discovered_and_ready_to_keep(capsys, tmp_path):
    arguments = ["--equation", "u_t + a*u*u_x + d*u_xxx", "--parameters", "a", "d", "--degree", "2"]
    printed = run(capsys, *arguments)
    assert "v = a t ∂x + ∂u" in paragraph(printed, "galilean_boost")
    assert "v = 3 t ∂t + x ∂x - 2 u ∂u" in paragraph(printed, "scaling")
    assert "moves d: d' = d exp(3 ε)" in printed
    assert "given parameters, domain size and amplitudes: d/(a*u*domain_size**2)" in printed
    assert "4 symmetries and 2 equivalence transformations" in " ".join(printed.split())
    # what it offers to paste makes an equation file that verifies
    lines = printed[printed.index("generators:") :].split("\n\n")[0]
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nindependent: {t: time, x: space}\ndependent: {u: {rank: 0, components: u}}\n"
        "parameters: {a: {}, d: {}}\nequations: [u_t + a*u*u_x + d*u_xxx]\n" + lines + "\n"
    )
    algebra = pdessl.symmetries(path)
    assert (len(algebra.symmetries), len(algebra.equivalences)) == (4, 2)


def test_a_system_typed_in(capsys):
    wave = ["--equation", "u_t + u*u_x + g*h_x", "--equation", "h_t + u*h_x + h*u_x", "--parameters", "g"]
    assert "v = x ∂x + u ∂u + 2 h ∂h" in run(capsys, *wave)


def test_json_is_the_description(capsys):
    found = json.loads(run(capsys, "boussinesq", "--json", "--observed", "u,v", "--boundary", "x=periodic,y=noslip"))
    walls = {"u": "noslip", "v": "noslip", "s": "zero_gradient"}
    assert found["boundary"] == {"x": {"": "periodic"}, "y": walls}
    by_name = {g["name"]: g for g in found["generators"]}
    assert by_name["scaling"]["hidden"] == ["p", "s"] and "buoyancy" in by_name["scaling"]["warning"]
    assert by_name["space_translation_y"]["boundary"]["class"] == "window"
    assert by_name["space_translation_x"]["boundary"]["class"] == "exact"
    assert by_name["buoyancy_scaling"]["flow"] == {"s": "s*exp(-epsilon)", "b": "b*exp(epsilon)"}
    assert found["certificate"]["complete"]


def test_a_flow_outside_the_class_is_said_to_be(capsys):
    printed = run(capsys, "heat")
    assert "not applied to batches: u' multiplies a field by a function of space" in printed
    assert "superposition: {u: a} for every a(t, x) with a_t - nu*a_xx = 0" in printed


@pytest.mark.parametrize("name", catalog.names("symmetries"))
def test_every_equation_prints_a_complete_algebra(name, capsys):
    printed = run(capsys, name)
    assert "Complete" in printed and "not declared" not in printed and "no closed flow" not in printed


def test_picture_of_a_dataset_of_the_catalog(capsys, tmp_path):
    path = tmp_path / "burgers.png"
    printed = run(capsys, "burgers", "--plot", str(path))
    assert str(path) in printed and path.read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in tmp_path.iterdir()] == ["burgers.png"]


def test_an_equation_is_drawn_with_runs_of_another_form_of_it():
    """The velocity of a flow with pressure is simulated without it; a flow with buoyancy is another flow."""
    from pdessl.experiments.orbits import _same_flow

    flow = "navier_stokes_2d_velocity"
    forms = ["navier_stokes_2d", "navier_stokes_2d_pressure_gradient", "navier_stokes_2d_vorticity", flow]
    others = ["burgers_2d", "boussinesq", "navier_stokes_2d_streamfunction", "navier_stokes_3d", "kolmogorov_flow"]
    assert [n for n in forms + others if _same_flow(pdessl.load_equation(n), flow)] == forms
    assert _same_flow(pdessl.load_equation("boussinesq_velocity"), "boussinesq")


def test_mistakes_are_told_in_a_line(capsys, tmp_path):
    assert "Did you mean 'burgers'?" in refused(capsys, "burger")
    assert "give either a name" in refused(capsys)
    assert "give either a name" in refused(capsys, "burgers", "--equation", "u_t")
    assert "--parameters belongs to --equation" in refused(capsys, "burgers", "--parameters", "nu")
    assert "x=periodic,y=noslip" in refused(capsys, "burgers", "--boundary", "x=periodic,window")
    assert "no space axis 'z'" in refused(capsys, "burgers", "--boundary", "z=periodic")
    assert "unknown boundary condition 'periodical'" in refused(capsys, "burgers", "--boundary", "periodical")
    assert "no field 'w'" in refused(capsys, "burgers", "--observed", "w")
    assert "no dataset of the catalog" in refused(capsys, "schroedinger", "--plot", str(tmp_path / "a.png"))
    assert "cannot draw into" in refused(capsys, "burgers", "--plot", str(tmp_path / "a.xyz"))
    assert not list(tmp_path.iterdir())
    assert "u_t + q*u_x" in refused(capsys, "--equation", "u_t + q*u_x")


def test_a_wrong_generator_is_refused_with_its_residual(tmp_path, capsys):
    text = catalog.find("symmetries", "burgers").read_text()
    path = tmp_path / "burgers.yaml"
    path.write_text(text.replace("{x: t, u: 1}", "{x: t, u: 2}"))
    assert cli.main(["symmetries", str(path)]) == 2
    printed = capsys.readouterr().err
    assert "galilean_boost" in printed and "u_x" in printed
