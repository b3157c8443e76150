"""Laws with functions and kernels that nobody chose: codes of runs in closed form, and by networks."""

import math

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.data import generate
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.inference import fit_parameter_model
from pdessl.models import save_pretrained
from pdessl.objectives import CrossResidual
from pdessl.operators import AmortisedOperator, LearnedOperator, fit_learned, minimising_codes
from pdessl.operators.products import waves
from pdessl.trajectory import Trajectories

from .test_latent import heat_waves


@pytest.fixture(scope="module")
def learned():
    return fit_learned(heat_waves(count=32).without_parameters())


def test_the_number_that_differs_between_runs_is_found_without_a_library(learned, tmp_path):
    assert learned.encoder.feature_dim == 1 and learned.reliability > 0.999 and learned.unexplained < 1e-3
    assert sorted(learned.tried) == [1, 2, 3] and "one number a run" in str(learned)
    new = heat_waves(count=12, seed=7)
    model = fit_parameter_model(learned.encoder, heat_waves(count=12, seed=3), targets="viscosity", level=0.8)
    found = torch.from_numpy(model.predict(new)["viscosity"].values)
    assert ((found - new.parameters["viscosity"]).abs() / new.parameters["viscosity"]).max() < 0.02
    save_pretrained(tmp_path / "law", learned.encoder)
    again = pdessl.load(tmp_path / "law")
    assert torch.equal(again(new.fields), learned.encoder(new.fields)) and "steps" in again.trained_on
    moved = new.replace(fields=new.fields.roll(6, dims=3))
    assert torch.allclose(learned.encoder(moved.fields), learned.encoder(new.fields), rtol=1e-8)


def test_the_closed_form_is_the_minimum_that_the_network_finds(learned):
    runs = heat_waves(count=5, seed=4)
    tokens = learned.encoder(runs).tokens
    expected = [torch.linalg.lstsq(t[:, 1:], t[:, :1]).solution[:, 0] for t in tokens]
    assert torch.allclose(minimising_codes(tokens), torch.stack(expected), rtol=1e-4)
    assert torch.allclose(learned.encoder(runs).features, minimising_codes(tokens))
    # What is left is what the fit says is left, in the mean over runs like those.
    left = (tokens[..., 0] - (tokens[..., 1:] @ minimising_codes(tokens)[..., None])[..., 0]).square().mean(dim=1)
    assert left.max() < 1e-2


def test_what_cannot_be_learned_is_refused():
    runs = heat_waves(count=20)
    with pytest.raises(ShapeError, match="runs over x, y, z; a learned library is of one or two axes"):
        fit_learned(
            runs.replace(
                fields=torch.randn(20, 1, 14, 14, 14, 14),
                space=(runs.space[0][:, :14],) * 3,
                lengths=runs.lengths.expand(-1, 3),
                boundary=("periodic",) * 3,
                time=runs.time[:, :14],
                axis_names=("x", "y", "z"),
            )
        )
    with pytest.raises(DataError, match="8 runs; a law with a learned library needs 16"):
        fit_learned(runs[:8])
    with pytest.raises(ShapeError, match="expected 13 or more of each"):
        fit_learned(runs.window(slice(0, 10), slice(None)))
    with pytest.raises(ShapeError, match="got 12 frames of .64,. nodes; expected 19 frames or more"):
        LearnedOperator()(torch.randn(2, 1, 12, 64))
    with pytest.raises(ShapeError, match="this law is one of 1 space axes"):
        AmortisedOperator()(torch.randn(2, 1, 20, 8, 8))
    with pytest.raises(ShapeError, match="a law of a curl got spacing none"):
        LearnedOperator(left=[[0, 1]], periodic=[False, True])(torch.randn(2, 2, 20, 12, 12))
    with pytest.raises(ValueError, match="expected one or two axes, and of each frames and the nodes"):
        LearnedOperator(half_width=[4, 4, 4], periodic=[True])
    for left in ([[0, 0]], [[0, 1], [1, 0]], [[2]], []):
        with pytest.raises(ValueError, match="at most one pair"):
            AmortisedOperator(2, left=left, periodic=[False, False])
    with pytest.raises(ValueError, match="expected amortised or minimised"):
        AmortisedOperator(inference="guessed")


def test_the_objective_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    z, tokens = torch.randn(5, 2, generator=generator).double(), torch.randn(5, 7, 3, generator=generator).double()
    total = 0.0
    for i in range(5):
        share = sum((tokens[i, n, 0] - z[i] @ tokens[i, n, 1:]) ** 2 for n in range(7)) / 7
        total = total + torch.log(1 + 4 * share) / 4
    terms = CrossResidual(sharpness=4).terms(z, tokens)
    assert torch.allclose(terms.loss, total / 5, rtol=1e-12)
    assert terms.unexplained >= CrossResidual().terms(minimising_codes(tokens), tokens).unexplained
    with pytest.raises(ShapeError, match=r"expected \(B, R\) and \(B, N, 1 \+ R\)"):
        CrossResidual().terms(z, tokens[..., :2])
    with pytest.raises(SchemaError, match="sharpness 0"):
        CrossResidual(sharpness=0)


def test_amortised_codes_are_learned_and_minimised_ones_leave_less(tmp_path):
    torch.manual_seed(0)
    runs = heat_waves(count=32)
    x = runs.fields.float() / runs.fields.std().float()
    network = AmortisedOperator(filters=12, half_width=(4, 9))
    optimiser, objective, losses = torch.optim.Adam(network.parameters(), 1e-2), CrossResidual(), []
    for _ in range(40):
        early, late = network.represent(x[:, :, :20]), network.represent(x[:, :, 20:])
        loss = objective.terms(early.features, late.tokens).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    save_pretrained(tmp_path / "n", network.eval())
    with torch.no_grad():
        said = network.represent(x)
        assert torch.equal(pdessl.load(tmp_path / "n")(x), said.features)
        network.inference = "minimised"
        best = network.represent(x)
    first, second = (CrossResidual().terms(r.features, r.tokens).unexplained for r in (said, best))
    assert second <= first


def plane(fields, boundary, viscosity, names):
    """Runs over a square of side 2π, to t = 1.5."""
    count, _, frames, points, _ = fields.shape
    side = 2 * math.pi
    x = torch.arange(points, dtype=torch.float64) * side / points
    return Trajectories(
        fields=fields,
        time=torch.linspace(0, 1.5, frames, dtype=torch.float64).expand(count, -1),
        space=(x.expand(count, -1),) * 2,
        lengths=torch.full((count, 2), side, dtype=torch.float64),
        parameters={"viscosity": viscosity},
        boundary=boundary,
        field_names=names,
        axis_names=("x", "y"),
    )


def cooling(count=20, seed=0):
    """Exact solutions of u_t = ν Δu; the second axis is not used as a periodic one."""
    generator = torch.Generator().manual_seed(seed)
    viscosity = 0.05 + 0.3 * torch.rand(count, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 1.5, 20, dtype=torch.float64)[:, None, None]
    x = (torch.arange(20, dtype=torch.float64) * 2 * math.pi / 20)[:, None]
    u = 0
    for k, m in ((1, 0), (0, 1), (1, 1), (2, 1)):
        a, p, q = torch.randn(3, count, 1, 1, 1, generator=generator, dtype=torch.float64)
        decay = torch.exp(-viscosity[:, None, None, None] * (k * k + m * m) * t)
        u = u + a * decay * torch.sin(k * x + 3 * p) * torch.sin(m * x.T + 3 * q)
    return plane(u[:, None], ("periodic", "wall"), viscosity, ("u",))


def whirling(count=24, seed=0):
    """Exact flows without divergence: cells that decay, and a wind that changes by a pressure nobody measured."""
    generator = torch.Generator().manual_seed(seed)
    viscosity = 0.1 + 0.4 * torch.rand(count, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 1.5, 20, dtype=torch.float64)[:, None, None]
    x = (torch.arange(20, dtype=torch.float64) * 2 * math.pi / 20)[:, None]
    a, p, q, b, c, d, e = torch.randn(7, count, 1, 1, 1, generator=generator, dtype=torch.float64)
    size = (1 + a.abs()) * torch.exp(-2 * viscosity[:, None, None, None] * t)
    at_x, at_y = x + b * torch.cos(4 * t + 3 * d) / 4 + 3 * p, x.T + c * torch.cos(4 * t + 3 * e) / 4 + 3 * q
    u = size * torch.sin(at_x) * torch.cos(at_y) + b * torch.sin(4 * t + 3 * d)
    v = -size * torch.cos(at_x) * torch.sin(at_y) + c * torch.sin(4 * t + 3 * e)
    return plane(torch.stack([u, v], dim=1), ("periodic", "periodic"), viscosity, ("u", "v"))


def test_in_the_plane_a_law_is_found_beside_a_wall():
    law = fit_learned(cooling().without_parameters(), functions=2)
    assert law.reliability > 0.999 and law.unexplained < 1e-4 and "free kernels of 9 x 9 nodes" in str(law)
    new = cooling(count=12, seed=5)
    model = fit_parameter_model(law.encoder, cooling(count=12, seed=3), targets="viscosity", level=0.8)
    found = torch.from_numpy(model.predict(new)["viscosity"].values)
    assert ((found - new.parameters["viscosity"]).abs() / new.parameters["viscosity"]).max() < 0.02
    # Only along the axis that wraps round does a shift by the stride change nothing.
    moved = [law.encoder(new.fields.roll(4, dims=axis)) for axis in (3, 4)]
    near = [torch.allclose(m, law.encoder(new.fields), rtol=1e-8) for m in moved]
    assert near == [True, False]


def test_the_curl_is_chosen_where_a_pressure_is_not_measured():
    runs = whirling()
    law = fit_learned(runs.without_parameters(), codes=2, functions=6)
    assert law.sides == ("(v_x - u_y)_t",) and law.unexplained < 0.01
    network = law.encoder.module
    assert network.uses_spacing and network.products.left == ((0, 1),)
    # What training sees in a batch without divergence is what the fit knows of the units.
    known = float(network.products.ratio)
    network.products.ratio.zero_()
    network.train()(law.encoder.standardise(runs.fields), torch.cat([runs.time_step[:, None], runs.grid_spacing], 1))
    assert float(network.products.ratio) == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("left", [[[0]], [[0, 1]], [[1], [0, 1]]])
def test_tokens_are_what_kernels_make_of_the_library(left):
    torch.manual_seed(0)
    network = LearnedOperator(2, 2, 2, half_width=[3, 4, 3], left=left, periodic=[True, False]).eval()
    network.scale.fill_(1.0)
    x, spacing = torch.randn(3, 2, 9, 10, 12, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64) + 0.5
    library = network.library(x, spacing)
    target = library[:, -len(left) :]
    kernels = network.kernels.flatten(1).unflatten(0, (3, len(left)))
    explained = torch.einsum("rek,bktxy->bretxy", kernels, library[:, : -len(left)])
    rest = torch.cat([target[:, None] - explained[:, :1], explained[:, 1:]], dim=1)
    size = target.flatten(2).square().mean(dim=2).sqrt()
    expected = (rest.flatten(3) / size[:, None, :, None]).flatten(2).mT
    assert torch.allclose(network.represent(x, spacing).tokens, expected, rtol=1e-9, atol=1e-9)
    assert len(waves(4)) * len(waves(3)) * 4 == kernels.shape[2]


@pytest.mark.parametrize("kind", [LearnedOperator, AmortisedOperator])
def test_a_gradient_that_is_not_measured_does_not_move_the_left_side(kind):
    torch.manual_seed(0)
    network = kind(2, half_width=[3, 3, 3], left=[[0, 1]], periodic=[False, False])
    t, x, y = (torch.arange(n, dtype=torch.float64).reshape(s) for n, s in ((9, (9, 1, 1)), (10, (10, 1)), (11, (11,))))
    fields, spacing = torch.randn(2, 2, 9, 10, 11, dtype=torch.float64), torch.tensor([[0.1, 0.5, 0.5]] * 2)
    pressure = torch.stack([y * t + 0 * x, x * t + 0 * y])  # the gradient of x y t
    plain = network.products.rates(fields, spacing)
    assert torch.allclose(network.products.rates(fields + pressure, spacing), plain, atol=1e-8)
    turning = torch.stack([pressure[0], -pressure[1]])
    assert not torch.allclose(network.products.rates(fields + turning, spacing), plain, atol=1e-2)


def test_amortised_codes_of_several_fields_in_the_plane():
    torch.manual_seed(0)
    runs = whirling(count=16)
    x, spacing = runs.fields.float(), torch.cat([runs.time_step[:, None], runs.grid_spacing], dim=1)
    network = AmortisedOperator(2, filters=8, half_width=[3, 4, 4], left=[[0, 1], [0]], periodic=[True, True])
    optimiser, objective, losses = torch.optim.Adam(network.parameters(), 1e-2), CrossResidual(), []
    for _ in range(25):
        early, late = (network.represent(part, spacing) for part in (x[:, :, :10], x[:, :, 10:]))
        loss = objective.terms(early.features, late.tokens).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        said = network.eval().represent(x, spacing)
        network.inference = "minimised"
        best = network.represent(x, spacing)
    assert said.tokens.shape == (16, 2 * 7 * 10 * 10, 2)
    first, second = (objective.terms(r.features, r.tokens).unexplained for r in (said, best))
    assert second <= first


def test_the_command_writes_an_encoder(tmp_path, capsys):
    data = generate("heat", tmp_path / "data", size={"unlabelled": 24, "labelled": 4, "validation": 2, "test": 4})
    assert cli.main(["discover", str(data.path), "--learned", "--rank", "1", "--out", str(tmp_path / "law")]) == 0
    assert "free kernels" in capsys.readouterr().out
    assert pdessl.load(tmp_path / "law").feature_dim == 1
