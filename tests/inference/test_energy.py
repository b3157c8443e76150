"""Codes of least forecast error: of a law and a conditioned surrogate, in the table, saved, at the command line."""

import csv
import json
import math
from dataclasses import replace

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.data import generate
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.inference import EnergyEncoder, load
from pdessl.inference.conditions import Condition
from pdessl.inference.energy import surrogate_codes
from pdessl.inference.law_codes import codes_of_files
from pdessl.models import Surrogate
from pdessl.operators import save_law
from pdessl.operators.energy import minimise
from pdessl.operators.following import prediction_errors, shortened
from pdessl.operators.simple import simplified
from pdessl.solvers import Burgers

FRAMES = slice(0, 12)  # searches take time in proportion


@pytest.fixture(scope="module")
def runs():
    found = pdessl.simulate("burgers_small", "unlabelled", range(32))
    law = pdessl.discover(found.without_parameters(), resamples=0)
    # With coefficients that are simple numbers written so: the law is then Burgers' equation.
    return found, replace(law, fitted=simplified(law.fitted, law.tolerance))


def test_it_is_nearer_to_the_truth_than_least_squares_on_short_noisy_runs(runs):
    law, test = runs[1], pdessl.simulate("burgers_small", "test", range(8)).window(slice(0, 10))
    assert str(law) == "u_t = z u_xx -0.5 (u^2)_x"
    short, truth = test.without_parameters(), test.parameters["viscosity"].double()
    found = EnergyEncoder(law).infer(short)
    guess = shortened(law, 10).encode(short)[0]
    assert bool((found.energy <= found.start).all()) and bool((found.energy < found.start).any())
    assert float((found.codes[:, 0] / truth - 1).abs().mean()) < float((guess[:, 0] / truth - 1).abs().mean())
    assert bool((found.deviation > 0).all() and found.deviation.isfinite().all())


def test_the_truth_stays_on_noiseless_runs(runs):
    truth, t = torch.tensor([0.2, 0.4], dtype=torch.float64), torch.linspace(0, 1.0, 12, dtype=torch.float64)
    x = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    solver = Burgers(truth, points=32, check_resolution=False, dtype=torch.float64)
    clean = solver((0.5 * torch.sin(x) + 0.2 * torch.cos(2 * x)).expand(2, 1, -1), t).without_parameters()
    found = EnergyEncoder(runs[1], rounds=2).infer(clean)
    assert torch.allclose(found.codes[:, 0], truth, rtol=2e-3)

    def errors(codes):
        return prediction_errors(runs[1], clean, codes, 2)

    stayed = minimise(errors, truth[:, None], runs[1].spread, rounds=2)
    assert torch.allclose(stayed.codes[:, 0], truth, rtol=1e-3)


def test_a_law_without_codes_and_wrong_numbers_are_refused(runs):
    with pytest.raises(DataError, match="width 0"):
        EnergyEncoder(runs[1], width=0.0)
    with pytest.raises(CheckpointError, match="Linear is no law"):
        codes_of_files(torch.nn.Linear(1, 1), ["x.nc"])
    with pytest.raises(DataError, match="level 2"):
        codes_of_files(runs[1], ["x.nc"], 2.0)


class Decay(torch.nn.Module):
    """The next frame is the last times 1 - c: linear in the condition."""

    def forward(self, z, condition):
        return z[:, :, -1] * (1 - condition[:, :, None])


def test_of_a_surrogate_that_is_linear_in_its_condition_it_is_least_squares(runs):
    class Model:
        surrogate = Surrogate(Decay(), channels=1, past=1, bundle=1, condition=1, predicts="frame")

    Model.surrogate.anchor = torch.nn.Parameter(torch.zeros(1))  # a parameter, for device and dtype
    part = runs[0][:3].window(FRAMES).without_parameters()
    u = part.fields[:, 0].double()
    before, change = u[:, :-1].flatten(1), (u[:, :-1] - u[:, 1:]).flatten(1)
    exact = (before * change).sum(dim=1) / before.square().sum(dim=1)
    start = torch.full((3, 1), 0.5, dtype=torch.float64)
    found = surrogate_codes(Model, part, start, 1e3)
    assert torch.allclose(found.codes[:, 0], exact, rtol=1e-3, atol=1e-4)
    again = surrogate_codes(Model, part, found.codes, 1e3)
    assert torch.allclose(again.codes, found.codes, rtol=1e-3, atol=1e-5)
    with pytest.raises(ShapeError, match=r"expected \(3, 1\) and 2 frames"):
        surrogate_codes(Model, part, start[:2], 1.0)
    Model.surrogate = None
    with pytest.raises(CheckpointError, match="no condition"):
        surrogate_codes(Model, part, start, 1.0)
    assert Condition("none").of(part) is None


def test_a_model_on_it_is_saved_and_predicts_the_same(runs, tmp_path):
    labelled = pdessl.simulate("burgers_small", "labelled", range(10)).window(FRAMES)
    model = pdessl.fit_parameter_model(EnergyEncoder(runs[1], width=2.0, rounds=1, refine=1), labelled)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.encoder.width == 2.0 and isinstance(again.encoder, EnergyEncoder)
    test = pdessl.simulate("burgers_small", "test", range(2)).window(FRAMES)
    before, after = (m.predict(test.without_parameters(), 0.8) for m in (model, again))
    assert before.viscosity.values == pytest.approx(after.viscosity.values)
    assert abs(before.viscosity.values / test.parameters["viscosity"].numpy() - 1).max() < 0.1


def test_the_command_line_has_the_row_and_codes_of_files(runs, tmp_path, capsys):
    save_law(runs[1], tmp_path / "law")
    size = {"unlabelled": 2, "labelled": 10, "validation": 1, "test": 4}
    generate(
        "burgers_small", tmp_path / "data", size=size, overrides={"observation.frames": 10, "observation.end": 0.8}
    )
    words = ["--encoder", str(tmp_path / "law"), "--data", str(tmp_path / "data"), "--target", "viscosity"]
    words += ["--labels", "10", "--seeds", "1", "--config", "regression/default", "--out", str(tmp_path / "out")]
    few = ["methods=[law,mean]", "intervals=null", "robustness=null", "classical=null"]
    assert cli.main(["regress", "--inference", "energy", *words, "--set", *(f"regression.{w}" for w in few)]) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["regression"]["rows"]
    error = {row["method"]: row["relative_error"]["mean"] for row in rows}
    assert error["energy"] < 0.5 * error["mean"] and {"law", "energy", "mean"} <= set(error)
    place = tmp_path / "new.nc"
    pdessl.simulate("burgers_small", "test", range(2)).window(FRAMES).without_parameters().to_xarray().to_netcdf(place)
    capsys.readouterr()
    words = ["predict", "--inference", "energy", "--model", str(tmp_path / "law"), str(place)]
    assert cli.main([*words, "--out", str(tmp_path / "codes.csv")]) == 0
    assert "intervals are of the curvature alone" in capsys.readouterr().out
    with (tmp_path / "codes.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == 2 and all(float(r["z_low"]) < float(r["z"]) < float(r["z_high"]) for r in table)
    assert all(0.3 < float(r["misfit"]) < 3 for r in table)
