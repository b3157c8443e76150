"""Latent operators: planted laws come back, codes are properties of runs, what is missing is said."""

import dataclasses
import json
import math
import re
import subprocess
import sys

import pytest
import torch

import pdessl
from pdessl.data import simulate
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.operators import Projection, Term, default_library, discover, load_law, save_law, weak_grams, weak_products
from pdessl.operators.fit import Normal, encode, fit, gauged
from pdessl.operators.resolution import nodes_in_a_wave
from pdessl.operators.test_functions import bump
from pdessl.operators.weak import noise_level
from pdessl.symmetry import find_symmetries as symmetry_algebra
from pdessl.trajectory import Trajectories


def runs_of(fields, duration=2.0, length=2 * math.pi, boundary="periodic", parameters=None):
    count, frames, points = len(fields), fields.shape[2], fields.shape[3]
    x = torch.arange(points, dtype=torch.float64) * length / points
    return Trajectories(
        fields=fields,
        time=torch.linspace(0, duration, frames, dtype=torch.float64).expand(count, -1),
        space=(x.expand(count, -1),),
        lengths=torch.full((count, 1), length, dtype=torch.float64),
        parameters=parameters or {},
        boundary=(boundary,),
    )


def heat_waves(count=24, frames=40, points=48, seed=0, drift=False):
    """Exact solutions of u_t = c u_x + ν u_xx, c and ν different in every run."""
    generator = torch.Generator().manual_seed(seed)
    viscosity = 0.05 + 0.3 * torch.rand(count, generator=generator, dtype=torch.float64)
    speed = torch.randn(count, generator=generator, dtype=torch.float64) if drift else torch.zeros(count).double()
    t = torch.linspace(0, 2, frames, dtype=torch.float64)[None, :, None]
    x = (torch.arange(points, dtype=torch.float64) * 2 * math.pi / points)[None, None]
    u = 0
    for k in (1, 2, 3):
        a, phase = torch.randn(2, count, 1, 1, generator=generator, dtype=torch.float64)
        decay = torch.exp(-viscosity[:, None, None] * k**2 * t)
        u = u + a * decay * torch.sin(k * (x + speed[:, None, None] * t) + 3 * phase)
    return runs_of(u[:, None], parameters={"viscosity": viscosity, "speed": speed})


@pytest.fixture(scope="module")
def burgers():
    return simulate("burgers", "unlabelled", range(96)), simulate("burgers", "test", range(24))


@pytest.fixture(scope="module")
def burgers_law(burgers):
    return discover(burgers[0], half_width=(9, 13), resamples=10)


@pytest.mark.parametrize("order", range(5))
def test_test_functions_integrate_monomials_by_parts_exactly(order):
    j = torch.arange(-7, 8, dtype=torch.float64)
    for degree in range(order + 1):
        expected = math.factorial(order) if degree == order else 0.0
        assert float(bump(7, 8, order) @ j**degree) == pytest.approx(expected, abs=1e-8)


def test_weak_products_are_the_integrals_of_the_derivatives():
    # Walls, so that a polynomial is a field: u = x² t gives u_t = x², u_xx = 2t, (u²)_x = 4x³t².
    t = torch.linspace(0, 1, 20, dtype=torch.float64)
    x = torch.arange(20, dtype=torch.float64) * 0.1
    runs = runs_of((x**2 * t[:, None])[None, None], 1.0, 1.9, "wall").replace(space=(x[None],))
    found = weak_products(runs, Projection((Term((1,), (2,)), Term((2,), (1,))), (4, 4)))
    inner_t, inner_x = t[4:-4, None], x[4:-4]
    assert torch.allclose(found[0, 0], (2 * inner_t).expand(-1, 12), rtol=1e-9)
    phi = bump(4, 8, 0)

    def averaged(values):  # on whole windows, in both axes
        return torch.einsum("tp,xq,pq->tx", *[torch.stack([phi.new_zeros(20).index_copy(0, i + torch.arange(9), phi)
                            for i in range(12)])] * 2, values)  # fmt: skip

    assert torch.allclose(found[0, 2], averaged((x**2).expand(20, -1)), rtol=1e-9)
    assert torch.allclose(found[0, 1], averaged(4 * x**3 * t[:, None] ** 2), rtol=5e-3)
    assert inner_x.shape == (12,)


def test_the_spread_of_noise_is_removed_without_bias():
    generator = torch.Generator().manual_seed(3)
    noise = 0.1 * torch.randn(64, 1, 40, 64, generator=generator, dtype=torch.float64)
    runs = runs_of(noise)
    assert torch.allclose(noise_level(runs), torch.tensor(0.1, dtype=torch.float64), rtol=0.1)
    terms = (Term((1,), (1,)), Term((1,), (2,)), Term((1,), (3,)))
    grams = weak_grams(runs, Projection(terms, (6, 6)), level=torch.full((64, 1), 0.1))
    measured = grams.halves.mean(dim=(0, 1)).diagonal()
    expected = grams.noise.mean(dim=0).diagonal()
    assert torch.allclose(measured, expected, rtol=0.1)


def test_grams_do_not_depend_on_the_partition(burgers):
    runs, _ = burgers
    terms = default_library(1, 1)
    whole = weak_grams(runs[slice(0, 40)], Projection(terms, (6, 6)))
    parts = [weak_grams(runs[slice(i, i + 8)], Projection(terms, (6, 6))) for i in range(0, 40, 8)]
    joined = torch.cat([p.halves for p in parts])
    assert torch.allclose(joined, whole.halves, rtol=1e-12, atol=0)


def planted(rank, count=60, terms=6, seed=1):
    """Synthetic Grams whose runs obey a law of that rank exactly, with the law and the codes."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(count, terms, 200, generator=generator, dtype=torch.float64)
    constant = torch.randn(terms, generator=generator, dtype=torch.float64)
    varying = torch.randn(rank, terms, generator=generator, dtype=torch.float64)
    codes = torch.randn(count, rank, generator=generator, dtype=torch.float64)
    target = torch.einsum("bk,bkp->bp", constant + codes @ varying, w)
    rows = torch.cat([w, target[:, None]], dim=1)
    gram = torch.einsum("bkp,blp->bkl", rows, rows)
    return Normal(*_normal(gram, terms)), constant + codes @ varying


def _normal(gram, terms):
    size = gram[:, terms, terms]
    return gram[:, None, :terms, :terms] / size[:, None, None, None], gram[:, None, :terms, terms] / size[:, None, None]


@pytest.mark.parametrize("rank", [1, 2])
def test_planted_laws_come_back(rank):
    normal, truth = planted(rank)
    law = fit(normal, rank, rounds=400)
    for found in (law, gauged(law, normal)):
        coefficients = found.law(encode(found, normal))[:, 0]
        assert (coefficients - truth).abs().max() < 2e-2 * truth.abs().max()
        assert float(normal.loss(found.law(encode(found, normal))).max()) < 1e-4
    assert float(normal.loss(fit(normal, rank - 1).law(encode(fit(normal, rank - 1), normal))).mean()) > 0.05


def test_the_law_of_exact_solutions_is_found_with_its_numbers():
    law = discover(heat_waves(), half_width=(6, 6), noise_removed=False)
    assert law.rank == 1 and str(law) == "u_t = z u_xx"
    codes, _ = law.encode(heat_waves(seed=7))
    assert torch.allclose(codes[:, 0], heat_waves(seed=7).parameters["viscosity"], rtol=2e-3)


def test_two_numbers_a_run_are_noticed():
    law = discover(heat_waves(drift=True), half_width=(6, 6), noise_removed=False)
    assert law.rank == 2
    codes, _ = law.encode(heat_waves(drift=True))
    names = str(law)
    column = 0 if "z1 u_xx" in names else 1
    assert torch.allclose(codes[:, column], heat_waves(drift=True).parameters["viscosity"], rtol=5e-3)
    assert torch.allclose(codes[:, 1 - column], heat_waves(drift=True).parameters["speed"], rtol=5e-3, atol=5e-3)


def test_runs_of_one_law_have_no_number():
    runs = heat_waves(count=1).fields
    generator = torch.Generator().manual_seed(2)
    factors = torch.randn(12, 1, 1, 1, generator=generator, dtype=torch.float64)
    law = discover(runs_of(factors * runs.expand(12, -1, -1, -1)), half_width=(6, 6), noise_removed=False)
    assert law.rank == 0 and "z" not in str(law) and law.encode(heat_waves(count=5))[0].shape == (5, 0)


@pytest.mark.slow
def test_three_numbers_are_found_in_the_plane():
    law = discover(simulate("advection_diffusion_2d", "unlabelled", range(24)), half_width=(6, 6, 6), resamples=2)
    kept = law.fitted.kept[:, 0].any(dim=0)
    names = {t.text(law.field_names, law.axis_names) for t, keep in zip(law.terms, kept, strict=True) if keep}
    assert law.rank == 3 and names == {"u_x", "u_y", "u_xx", "u_yy"}
    assert len(symmetry_algebra(law.equation()).generators) > 3


def test_burgers_is_written_down_from_noisy_runs(burgers, burgers_law):
    law = burgers_law
    kept = {t.text(("u",), ("x",)) for k, t in enumerate(law.terms) if law.fitted.kept[:, 0, k].any()}
    assert law.rank == 1 and {"u_xx", "(u^2)_x"} <= kept
    place = [t.text(("u",), ("x",)) for t in law.terms].index("(u^2)_x")
    assert float(law.fitted.constant[0, place]) == pytest.approx(-0.5, abs=0.01)
    assert law.reliability > 0.98 and law.unexplained < 0.01 and not law.warnings()
    test = burgers[1]
    codes, errors = law.encode(test)
    truth = test.parameters["viscosity"].double()
    slope = (codes[:, 0] / truth).median()
    assert float(((codes[:, 0] / slope - truth).abs() / truth).mean()) < 0.03
    assert errors.shape == codes.shape and bool((errors > 0).all())


def test_codes_do_not_change_under_symmetries(burgers, burgers_law):
    test = burgers[1]
    codes, _ = burgers_law.encode(test)
    shifted = test.replace(fields=test.fields.roll(11, dims=3))
    assert torch.allclose(burgers_law.encode(shifted)[0], codes, rtol=1e-6)
    mirrored = test.replace(fields=-test.fields.flip(3).roll(1, dims=3))
    assert torch.allclose(burgers_law.encode(mirrored)[0], codes, rtol=1e-6)


def test_labels_are_not_read(burgers, burgers_law):
    runs = burgers[0]
    wrong = runs.replace(parameters={"viscosity": torch.rand(len(runs), dtype=torch.float64)})
    again = discover(wrong, half_width=(9, 13), resamples=10)
    assert torch.equal(again.fitted.constant, burgers_law.fitted.constant)
    assert torch.equal(again.errors, burgers_law.errors)


def test_a_missing_term_is_told(burgers):
    library = tuple(t for t in default_library(1, 1) if t != Term((2,), (1,)) and t != Term((3,), (1,)))
    law = discover(burgers[0], half_width=(9, 13), terms=library, rank=1, resamples=0)
    assert law.unexplained > 0.2
    assert any("unexplained" in line and "lacks a term" in line for line in law.warnings())


def test_nodes_in_a_wave_are_those_of_the_wave():
    x = torch.arange(48, dtype=torch.float64) * 2 * math.pi / 48
    t = torch.linspace(0, 2, 41, dtype=torch.float64)[:, None]
    fields = torch.stack([torch.sin(k * x + 2 * math.pi * t * m / 2) for k, m in ((2, 1), (6, 4), (16, 2))])[:, None]
    found = nodes_in_a_wave(runs_of(fields))
    assert torch.allclose(found[:, 1], torch.tensor([24.0, 8.0, 3.0]).double(), rtol=0.02)
    assert torch.allclose(found[:, 0], torch.tensor([40.0, 10.0, 20.0]).double(), rtol=0.05)
    noise = torch.randn(8, 1, 40, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = fields[:1].expand(8, -1, -1, -1)[:, :, :40] + 0.1 * noise
    assert float(nodes_in_a_wave(runs_of(noisy))[:, 1].min()) > 12  # noise is no wave


def test_a_grid_that_does_not_resolve_the_runs_is_told(burgers, burgers_law, tmp_path):
    assert burgers_law.warnings() == [] and min(burgers_law.waves) > 6
    coarse, test = (r.replace(fields=r.fields[..., ::4], space=(r.space[0][:, ::4],)) for r in burgers)
    law = discover(coarse, half_width=(13, 4), rank=1, resamples=0)
    assert law.unexplained < 0.05 and law.reliability > 0.9  # nothing else tells it
    assert any(re.match(r"unresolved along x: .* nodes or fewer.*Give more nodes", line) for line in law.warnings())
    save_law(law, tmp_path)
    assert load_law(tmp_path).warnings() == law.warnings()


def test_a_field_that_is_not_measured_is_told():
    # A wave that is fed by another, of which nothing is known: u_t = -u + s, s drawn anew for every run.
    generator = torch.Generator().manual_seed(0)
    x = (torch.arange(48, dtype=torch.float64) * 2 * math.pi / 48)[None, None]
    t = torch.linspace(0, 4, 40, dtype=torch.float64)[None, :, None]
    a, b, p, q, w = torch.rand(5, 24, 1, 1, generator=generator, dtype=torch.float64)
    hidden = torch.sin(2 * x + 6 * p + (1 + 2 * w) * t) + torch.sin(3 * x + 6 * q - 2 * w * t)
    rate = torch.cumsum(hidden, dim=1) * (4 / 39)
    fields = (a + 0.5) * torch.sin(x + 6 * b) * torch.exp(-t) + rate
    law = discover(runs_of(fields[:, None], duration=4.0), half_width=(6, 9), rank=1, high_pass=0, resamples=0)
    said = [line for line in law.warnings() if line.startswith(f"unexplained {law.unexplained:.0%}:")]
    assert len(said) == 1 and "a field that drives these is not measured" in said[0]


def test_a_number_too_many_is_told(burgers):
    law = discover(burgers[0], half_width=(9, 13), rank=2, resamples=0)
    assert any("rank 2" in line and "Ask for a smaller rank" in line for line in law.warnings())


def test_runs_with_nothing_in_common_have_no_reliable_code():
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(60, 1, 40, 48, generator=generator, dtype=torch.float64)
    law = discover(runs_of(fields), rank=1, half_width=(6, 6), noise_removed=False, resamples=0)
    assert abs(law.reliability) < 0.4 and law.warnings()


def test_the_law_is_an_equation_whose_symmetries_follow(burgers_law, tmp_path):
    algebra = symmetry_algebra(burgers_law.equation())
    known = symmetry_algebra("burgers")
    assert len(algebra.generators) == len(known.generators)
    assert any("z" in g.moves for g in algebra.generators)
    save_law(burgers_law, tmp_path, {"x": "periodic"})
    loaded = pdessl.load_equation(tmp_path / "equation.yaml")
    assert loaded.parameters == ("z",)
    assert len(symmetry_algebra(loaded).generators) == len(known.generators)


def test_laws_are_read_back_bit_for_bit(burgers, burgers_law, tmp_path):
    save_law(burgers_law, tmp_path)
    for again in (load_law(tmp_path), pdessl.load(tmp_path)):
        assert again.candidates == burgers_law.candidates
        assert torch.equal(again.errors, burgers_law.errors)
        assert torch.equal(again.encode(burgers[1])[0], burgers_law.encode(burgers[1])[0])
    content = json.loads((tmp_path / "law.json").read_text())
    del content["projection"]
    (tmp_path / "law.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="pdessl discover DATA"):
        pdessl.load(tmp_path)


def test_runs_the_law_does_not_describe_are_seen(burgers, burgers_law):
    test = burgers[1]
    assert float(burgers_law.residual(test).median()) < 0.02
    backwards = test.replace(fields=test.fields.flip(2))
    assert float(burgers_law.residual(backwards).median()) > 0.05


def test_bad_input_is_told_with_the_repair(burgers):
    runs = heat_waves()
    with pytest.raises(DataError, match="needs 4 or more.*weak_form"):
        discover(runs[slice(0, 3)])
    with pytest.raises(ShapeError, match="expected 13 or more"):
        discover(runs.replace(fields=runs.fields[:, :, :8], time=runs.time[:, :8]))
    fields = runs.fields.clone()
    fields[3, 0, 2, 5] = math.nan
    with pytest.raises(DataError, match="trajectory 3"):
        discover(runs.replace(fields=fields), half_width=(6, 6))
    fields = runs.fields.clone()
    fields[5] = 2.0
    with pytest.raises(DataError, match="run 5 is constant"):
        discover(runs.replace(fields=fields))
    time = runs.time.clone()
    time[:, 10:] += 0.3
    with pytest.raises(DataError, match="Interpolate them"):
        discover(runs.replace(time=time))
    with pytest.raises(DataError, match="Choose or rename fields"):
        discover(runs, half_width=(6, 6), resamples=0).encode(runs.replace(field_names=("v",)))


@pytest.mark.slow
def test_the_command_prints_the_law_and_writes_it(tmp_path):
    from pdessl.data import generate

    store = generate("burgers", tmp_path / "data", size={"unlabelled": 64, "labelled": 8, "validation": 8, "test": 8})
    words = [sys.executable, "-m", "pdessl.cli", "discover", str(store.path), "--out", str(tmp_path / "law")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "z u_xx" in done.stdout and "symmetries of this law: " in done.stdout and "(moves z)" in done.stdout
    assert pdessl.load(tmp_path / "law").rank == 1


def test_codes_and_errors_do_not_depend_on_the_runs_beside(burgers, burgers_law):
    codes, errors = burgers_law.encode(burgers[1])
    for i in (0, 5, 17):
        one, its = burgers_law.encode(burgers[1][[i]])
        assert torch.allclose(one, codes[[i]], rtol=1e-9) and torch.allclose(its, errors[[i]], rtol=1e-6)


@pytest.mark.parametrize(("value", "text"), [(1.234e-7, "0.0000001234"), (2.5e6, "2500000"), (-3e-5, "-0.00003")])
def test_small_and_large_coefficients_are_written_as_equations_read_them(burgers_law, value, text):
    fitted = dataclasses.replace(burgers_law.fitted, constant=burgers_law.fitted.constant.clone())
    fitted.constant[0, 0] = value
    equation = dataclasses.replace(burgers_law, fitted=fitted).equation()
    assert f"({text})*(u)" in equation.texts[0]


def test_the_letter_of_a_code_is_no_name_of_the_data(burgers_law):
    law = dataclasses.replace(burgers_law, axis_names=("z",))
    assert law.letters == ("c",) and law.equation().parameters == ("c",)
    assert Term((0,), (1,)).expanded(("u",), ("x",)) == "0"


def test_a_law_of_two_terms_has_at_most_two_codes():
    runs = pdessl.simulate("burgers_small", "labelled", range(12))
    terms = (Term((1,), (2,)), Term((2,), (1,)))
    assert pdessl.discover(runs, rank=0, terms=terms, resamples=0).rank == 0
    with pytest.raises(DataError, match="rank 3: a law of 2 terms has at most as many numbers"):
        pdessl.discover(runs, rank=3, terms=terms, resamples=0)
