"""Bare data to law to algebra: the terms are the true ones and no other, and so are the symmetries."""

import math

import pytest
import torch

from pdessl.data import load_recipe, simulate
from pdessl.equations import Equation
from pdessl.errors import DataError, ShapeError
from pdessl.operators import Term, discover, load_law, save_law
from pdessl.symmetry import find_symmetries as symmetry_algebra
from pdessl.trajectory import Trajectories

from .test_latent import heat_waves, runs_of


def terms_of(law):
    """Return per left side the set of terms of its law."""
    kept = law.fitted.kept.any(dim=0)
    return {
        target.text(law.names, law.axis_names): {
            t.text(law.names, law.axis_names) for t, keep in zip(law.terms, row.tolist(), strict=True) if keep
        }
        for target, row in zip(law.targets, kept, strict=True)
    }


def same_algebra(law, *texts, dependent=("u",), parameters=("z",)):
    """The algebra of the law has the dimension of that of the true equation, derived by the same program."""
    independent = ("t", *law.axis_names)
    truth = Equation.parse(texts, independent=independent, dependent=dependent, parameters=parameters)
    found = law.equation()
    expected = symmetry_algebra(truth, **{k: v for k, v in found.ansatz.items() if k == "degree"})
    assert len(symmetry_algebra(found).generators) == len(expected.generators)


@pytest.mark.parametrize(
    ("dataset", "half_width", "terms", "truth", "letters"),
    [
        ("kdv", (6, 6), {"u_xxx", "(u^2)_x"}, "u_t + u*u_x = z*u_xxx", "z"),
        ("kuramoto_sivashinsky", (9, 9), {"u_xx", "u_xxxx", "(u^2)_x"}, "u_t + u*u_x + u_xx = z*u_xxxx", "z"),
        ("kdv_burgers", (13, 9), {"u_xx", "u_xxx", "(u^2)_x"}, "u_t + u*u_x = a*u_xx + b*u_xxx", "a b"),
        ("heat", (13, 6), {"u_xx"}, "u_t = z*u_xx", "z"),
        ("advection_diffusion", (13, 6), {"u_x", "u_xx"}, "u_t = a*u_x + b*u_xx", "a b"),
    ],
)
def test_noisy_runs_on_a_line_lead_to_the_true_law_and_its_algebra(dataset, half_width, terms, truth, letters):
    law = discover(simulate(dataset, "unlabelled", range(64)), half_width=half_width, resamples=0)
    assert terms_of(law) == {"u_t": terms} and law.rank == len(letters.split())
    same_algebra(law, truth, parameters=letters.split())


def fisher(count=24, frames=40, points=64):
    """Runs of u_t = D u_xx + r u (1 - u) on a period of 20, by Runge-Kutta on a spectral grid."""
    generator = torch.Generator().manual_seed(0)
    d, r = (low + 0.6 * torch.rand(count, 1, generator=generator, dtype=torch.float64) for low in (0.1, 0.5))
    wave = 2 * math.pi * torch.fft.rfftfreq(points, d=20 / points, dtype=torch.float64)
    x = torch.arange(points, dtype=torch.float64) * 20 / points
    u = 0.3 + sum(
        0.08 * torch.sin(2 * math.pi * k * x / 20 + 6 * torch.rand(count, 1, generator=generator)) for k in (1, 2, 3)
    )

    def rate(u):
        return torch.fft.irfft(torch.fft.rfft(u) * -(wave**2), n=points) * d + r * u * (1 - u)

    found, step = [u], 3.0 / (frames - 1) / 10
    for _ in range(frames - 1):
        for _ in range(10):
            a = rate(u)
            b = rate(u + step / 2 * a)
            c = rate(u + step / 2 * b)
            u = u + step / 6 * (a + 2 * b + 2 * c + rate(u + step * c))
        found.append(u)
    return runs_of(torch.stack(found, dim=1)[:, None], duration=3.0, length=20.0), d[:, 0], r[:, 0]


def test_growth_and_diffusion_are_two_numbers():
    runs, diffusivity, rate = fisher()
    law = discover(runs, half_width=(6, 6), resamples=0)
    assert terms_of(law) == {"u_t": {"u", "u^2", "u_xx"}} and law.rank == 2 and not law.projection.centred
    same_algebra(law, "u_t = d*u_xx + r*u*(1 - u)", parameters=("d", "r"))
    codes = law.encode(runs)[0]
    for truth in (diffusivity, rate):
        assert any(torch.allclose(codes[:, j].abs(), truth, rtol=0.02) for j in (0, 1))


@pytest.fixture(scope="module")
def flow():
    return simulate("navier_stokes_2d_small", "unlabelled", range(10))


def test_a_flow_whose_pressure_is_not_measured_obeys_the_law_of_its_vorticity(flow, tmp_path):
    law = discover(flow, half_width=(4, 4, 4), resamples=2)
    assert law.candidates[0].form == "curl of u, v" and law.rank == 1
    assert terms_of(law) == {"w_t": {"(u^2)_xy", "(v^2)_xy", "(u v)_xx", "(u v)_yy", "w_xx", "w_yy"}}
    truth = ("w_t + u*w_x + v*w_y = z*(w_xx + w_yy)", "w = v_x - u_y", "u_x + v_y = 0")
    same_algebra(law, *truth, dependent=("u", "v", "w"))
    viscosity = flow.parameters["viscosity"].double()
    assert torch.allclose(law.encode(flow)[0][:, 0], viscosity, rtol=0.02)
    plain = [c for c in law.candidates if c.form == "rates"]
    assert min(c.unexplained for c in plain) > 20 * law.unexplained
    save_law(law, tmp_path, dict.fromkeys("xy", "periodic"))
    again = load_law(tmp_path)
    assert torch.equal(again.encode(flow)[0], law.encode(flow)[0]) and str(again) == str(law)
    loaded = symmetry_algebra(str(tmp_path / "equation.yaml"))
    assert len(loaded.generators) == len(symmetry_algebra("navier_stokes_2d_vorticity").generators)


@pytest.mark.slow
def test_a_velocity_without_divergence_can_be_declared(flow):
    law = discover(flow[slice(0, 6)], half_width=(4, 4, 4), resamples=0, divergence_free=True, rank=1)
    assert {c.form for c in law.candidates} == {"curl of u, v"}
    denied = discover(flow[slice(0, 6)], half_width=(4, 4, 4), resamples=0, divergence_free=False, rank=1)
    assert denied.candidates[0].form == "rates" and any("not measured" in line for line in denied.warnings())
    with pytest.raises(ShapeError, match="velocity without divergence"):
        discover(heat_waves(), half_width=(6, 6), divergence_free=True)


@pytest.mark.slow
def test_reactions_of_two_substances_are_written_down_with_their_two_rates():
    stretch = {"observation.frames": 30, "observation.start": 200.0, "observation.end": 258.0}
    runs = simulate(load_recipe("gray_scott", overrides=stretch), "unlabelled", range(16))
    law = discover(runs, half_width=(4, 4, 4), centred=False, resamples=0)
    assert terms_of(law) == {"u_t": {"1", "u", "u_xx", "u_yy", "u v^2"}, "v_t": {"v", "v_xx", "v_yy", "u v^2"}}
    truth = ("u_t = (u_xx + u_yy)/50000 - u*v**2 + f*(1 - u)", "v_t = (v_xx + v_yy)/100000 + u*v**2 - g*v")
    same_algebra(law, *truth, dependent=("u", "v"), parameters=("f", "g"))
    codes, feed = law.encode(runs)[0], runs.parameters["feed_rate"]
    assert any(torch.allclose(codes[:, j].abs(), feed, rtol=0.01) for j in (0, 1))


def waves(count=24, damped=False):
    """Exact solutions of u_tt = c² u_xx, or with friction u_tt = c² u_xx - 2 g u_t, c different in every run."""
    generator = torch.Generator().manual_seed(4)
    speed = 0.5 + torch.rand(count, 1, 1, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 3, 40, dtype=torch.float64)[:, None]
    x = torch.arange(48, dtype=torch.float64) * 2 * math.pi / 48
    g, u = 0.2 if damped else 0.0, 0
    for k in (1, 2, 3):
        a, b, phase = torch.randn(3, count, 1, 1, generator=generator, dtype=torch.float64)
        frequency = (speed**2 * k**2 - g**2).sqrt()
        u = u + torch.exp(-g * t) * (a * torch.cos(frequency * t) + b * torch.sin(frequency * t)) * torch.cos(
            k * x + phase
        )
    return runs_of(u[:, None], duration=3.0), speed[:, 0, 0]


@pytest.mark.parametrize(("damped", "terms"), [(False, {"u_xx"}), (True, {"u_xx", "u_t"})])
def test_laws_of_second_order_are_those_of_waves(damped, terms):
    runs, speed = waves(damped=damped)
    law = discover(runs, half_width=(6, 6), time_order=2, noise_removed=False, resamples=0)
    assert terms_of(law) == {"u_tt": terms} and law.rank == 1
    assert torch.allclose(law.encode(runs)[0][:, 0], speed**2, rtol=1e-2)
    text = "u_tt = z*u_xx - 2/5*u_t" if damped else "u_tt = z*u_xx"
    same_algebra(law, text)


def test_recorded_parameters_are_known_factors_of_terms():
    runs = heat_waves(drift=True)
    law = discover(runs, half_width=(6, 6), known=("speed",), noise_removed=False, resamples=0)
    assert terms_of(law) == {"u_t": {"speed u_x", "u_xx"}} and law.rank == 1 and "speed" in law.equation().parameters
    assert torch.allclose(law.encode(runs)[0][:, 0], runs.parameters["viscosity"], rtol=5e-3)
    same_algebra(law, "u_t = q*u_x + z*u_xx", parameters=("z", "q"))
    with pytest.raises(DataError, match="known factor 'speed'"):
        law.encode(runs.without_parameters())


@pytest.mark.parametrize("nodes", [slice(3, 40), slice(0, 31)])
def test_pieces_cut_out_of_runs_obey_the_same_law(nodes):
    whole = discover(heat_waves(), half_width=(6, 6), noise_removed=False, resamples=0)
    runs = heat_waves(seed=8)
    piece = runs.window(slice(2, 39), nodes)
    assert piece.boundary == ("window",)
    law = discover(heat_waves().window(slice(2, 39), nodes), half_width=(6, 6), noise_removed=False, resamples=0)
    assert terms_of(law) == terms_of(whole)
    assert torch.allclose(law.encode(piece)[0], whole.encode(runs)[0], rtol=1e-2)
    assert torch.allclose(whole.encode(piece)[0], whole.encode(runs)[0], rtol=1e-2)


@pytest.mark.slow
def test_flows_cut_out_of_the_plane_obey_the_same_law(flow):
    piece = flow.window(slice(0, 19), slice(3, 50), slice(0, 45))
    law = discover(piece, half_width=(4, 4, 4), resamples=0, divergence_free=True)
    assert terms_of(law) == {"w_t": {"(u^2)_xy", "(v^2)_xy", "(u v)_xx", "(u v)_yy", "w_xx", "w_yy"}}
    assert torch.allclose(law.encode(piece)[0][:, 0], flow.parameters["viscosity"].double(), rtol=0.02)


def pushed(count=48):
    """Heat waves under a random force of the two longest waves, of its own in every run and slow in time."""
    runs = heat_waves(count=count, points=64, frames=60)
    generator = torch.Generator().manual_seed(9)
    t, x = runs.time[0][:, None], runs.space[0][0]
    nu = runs.parameters["viscosity"][:, None, None]
    more = 0
    for k in (1, 2):
        a, phase, rate = torch.randn(3, count, 1, 1, generator=generator, dtype=torch.float64)
        rate = 1 + rate.abs()
        # the answer of wave k to the force a sin(rate t) that starts at rest
        decay = nu * k**2
        answer = (decay * torch.sin(rate * t) - rate * torch.cos(rate * t) + rate * torch.exp(-decay * t)) / (
            decay**2 + rate**2
        )
        more = more + 6 * a * answer * torch.cos(k * x + 3 * phase)
    short = sum(
        0.5 * torch.exp(-nu * k**2 * t) * torch.cos(k * x + 6 * torch.rand(count, 1, 1, generator=generator).double())
        for k in (4, 5)
    )
    return runs.replace(fields=runs.fields + (more + short)[:, None])


def test_an_unknown_slow_force_is_filtered_out_where_that_makes_codes_reliable():
    runs = pushed()
    # Above the force few waves are left, on which u and u_xxxx say the same as u_xx: a small library.
    library = (Term((1,), (1,)), Term((1,), (2,)), Term((2,), (1,)))
    law = discover(runs, half_width=(9, 6), terms=library, noise_removed=False, resamples=0)
    assert law.projection.high_pass == 3 and terms_of(law)["u_t"] == {"u_xx"}
    assert torch.allclose(law.encode(runs)[0][:, 0], runs.parameters["viscosity"], rtol=0.05)
    blind = discover(runs, half_width=(9, 6), terms=library, noise_removed=False, resamples=0, high_pass=0, rank=1)
    assert blind.reliability < law.reliability and blind.warnings()
    with pytest.raises(ShapeError, match="no axis is periodic"):
        discover(runs.window(slice(None), slice(0, 60)), half_width=(9, 6), high_pass=3)


def test_one_field_that_reacts_to_third_order_is_found_without_being_told():
    """Nagumo's u_t = D u_xx + r u (1 - u)(u - a): the library that is tried first lacks u^3, and says so."""
    generator = torch.Generator().manual_seed(0)
    n, points, length, step, every, frames = 24, 48, 20.0, 0.01, 8, 24
    rate = torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.8
    x = length * torch.arange(points, dtype=torch.float64) / points
    k = 2 * math.pi * torch.fft.rfftfreq(points, d=length / points, dtype=torch.float64)
    waves = torch.randn(n, 4, 2, generator=generator, dtype=torch.float64) / 4
    angle = 2 * math.pi * torch.arange(1, 5, dtype=torch.float64)[:, None] * x / length
    u = (
        0.5
        + torch.einsum("bk,kx->bx", waves[..., 0], angle.cos())
        + torch.einsum("bk,kx->bx", waves[..., 1], angle.sin())
    )
    kept = []
    for index in range(every * frames):
        if index % every == 0:
            kept.append(u)

        def slope(v):
            return rate * v * (1 - v) * (v - 0.3) + 0.2 * torch.fft.irfft(-(k**2) * torch.fft.rfft(v), n=points)

        a = slope(u)
        b = slope(u + step / 2 * a)
        c = slope(u + step / 2 * b)
        u = u + step / 6 * (a + 2 * b + 2 * c + slope(u + step * c))
    runs = Trajectories(
        fields=torch.stack(kept, dim=1)[:, None],
        time=(step * every * torch.arange(frames, dtype=torch.float64)).expand(n, -1),
        space=(x.expand(n, -1),),
        lengths=torch.full((n, 1), length, dtype=torch.float64),
        boundary=("periodic",),
        axis_names=("x",),
        field_names=("u",),
    )
    law = discover(runs)
    assert law.rank == 1 and law.unexplained < 0.01
    assert "u^3" in str(law)
    code = law.encode(runs)[0][:, 0]
    assert torch.corrcoef(torch.stack([code, rate[:, 0]]))[0, 1].abs() > 0.999
