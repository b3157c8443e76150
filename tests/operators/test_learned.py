"""Laws with functions and kernels that nobody chose: codes of runs in closed form, and by networks."""

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
    with pytest.raises(ShapeError, match="of one periodic axis"):
        fit_learned(runs.replace(boundary=("wall",)))
    with pytest.raises(DataError, match="8 runs; a law with a learned library needs 16"):
        fit_learned(runs[:8])
    with pytest.raises(ShapeError, match="expected 13 or more of each"):
        fit_learned(runs.window(slice(0, 10), slice(None)))
    with pytest.raises(ShapeError, match="got 12 frames; expected 19 or more"):
        LearnedOperator()(torch.randn(2, 1, 12, 64))
    with pytest.raises(ShapeError, match="one periodic axis"):
        AmortisedOperator()(torch.randn(2, 1, 20, 8, 8))
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
    expected = torch.nn.functional.conv2d(
        torch.cat([x, x[..., :8]], dim=3), network.filters.reshape(12, 1, 5, 9)
    ).square().mean(dim=(2, 3)).log()  # fmt: skip
    assert torch.allclose(network.energies(x), expected, atol=1e-3)
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


def test_the_command_writes_an_encoder(tmp_path, capsys):
    data = generate("heat", tmp_path / "data", size={"unlabelled": 24, "labelled": 4, "validation": 2, "test": 4})
    assert cli.main(["discover", str(data.path), "--learned", "--rank", "1", "--out", str(tmp_path / "law")]) == 0
    assert "free kernels" in capsys.readouterr().out
    assert pdessl.load(tmp_path / "law").feature_dim == 1
