"""Tailoring: at the truth it stays, elsewhere it moves towards it, a run alone as among others."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from pdessl.cli import main
from pdessl.data import load_recipe, simulate
from pdessl.equations import load_equation
from pdessl.errors import CheckpointError, DataError, EquationError
from pdessl.evaluation.classical import weak_form
from pdessl.evaluation.frame_terms import frame_terms
from pdessl.inference import HeadReadout, PhysicsEncoder, Views, fit_parameter_model
from pdessl.inference.tailoring import Tailoring, predict_tailored, residual_terms
from pdessl.models import Head

STRONG = Tailoring(steps=40, learning_rate=1e-2, anchor=0.0)


class Known(nn.Module):
    """Says of each run a value from a list, plus one weight."""

    in_channels, feature_dim = 1, 1

    def __init__(self, runs, values):
        super().__init__()
        self.register_buffer("first", runs.fields[:, 0, 0].clone())
        self.register_buffer("values", values.float())
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, fields):
        place = torch.cdist(fields[:, 0, 0], self.first).argmin(dim=1)
        return self.values[place, None] + self.shift


def said(runs, factor):
    """A model that predicts, of these runs, what their weak form says times a factor."""
    found = factor * weak_form("burgers", runs.replace(parameters={}), "viscosity")
    return fit_parameter_model(Known(runs, found.log()), runs.replace(parameters={"viscosity": found}))


def test_at_the_truth_it_stays_and_elsewhere_it_moves_towards_it(labelled):
    runs = labelled[:6]
    truth = weak_form("burgers", runs.replace(parameters={}), "viscosity").numpy()
    stays = predict_tailored(said(runs, 1.0), runs, settings=STRONG, level=0.5)
    np.testing.assert_allclose(stays.viscosity, truth, rtol=2e-3)
    moved = predict_tailored(said(runs, 1.4), runs, settings=STRONG, level=0.5)
    np.testing.assert_allclose(moved.viscosity_untailored, 1.4 * truth, rtol=1e-3)
    assert (np.abs(moved.viscosity / truth - 1) < 0.1).all()
    assert (moved.residual < moved.residual_untailored).all() and (moved.residual >= stays.residual - 1e-6).all()


def test_an_anchor_holds_and_the_model_is_left_as_it_was(model, held_out):
    runs = held_out[:2]
    before = model.predict(runs)
    free = predict_tailored(model, runs, settings=Tailoring(steps=8, learning_rate=1e-3, anchor=0.0))
    held = predict_tailored(model, runs, settings=Tailoring(steps=8, learning_rate=1e-3, anchor=1e4))
    after = model.predict(runs)
    np.testing.assert_array_equal(after.viscosity, before.viscosity)
    np.testing.assert_allclose(free.viscosity_untailored, before.viscosity, rtol=1e-5)
    np.testing.assert_array_equal(free.viscosity_low, before.viscosity_low)
    far, near = (np.abs(f.viscosity - before.viscosity) for f in (free, held))
    assert (far > 1e-4).all() and near.mean() < 0.5 * far.mean()


def test_steps_that_lead_away_are_told(model, held_out):
    with pytest.warns(UserWarning, match=r"no finite number, in 2 of 2 runs, first run 0: .*Lower learning_rate"):
        predict_tailored(model, held_out[:2], settings=Tailoring(steps=3, learning_rate=1e3, anchor=0.0))


def test_a_run_is_told_the_same_alone_as_among_others(encoder, labelled, held_out):
    views = Views(strengths={"galilean_boost": 0.2}, window=(16, 32), count=2)
    model = fit_parameter_model(encoder, labelled, views=views)
    few = Tailoring(steps=2)
    together = predict_tailored(model, held_out[:2], settings=few)
    alone = predict_tailored(model, held_out[1:2].to_xarray().isel(trajectory=0), settings=few)
    assert alone.viscosity.ndim == 0
    np.testing.assert_allclose(alone.viscosity, together.viscosity[1], rtol=1e-4)
    np.testing.assert_allclose(together.viscosity_untailored, model.predict(held_out[:2]).viscosity, rtol=1e-5)


def test_a_trained_head_is_followed_too(encoder, labelled, held_out):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(encoder.feature_dim, 1)
    readout = HeadReadout(head.eval(), 0, [-2.0], [0.3])
    model = fit_parameter_model(encoder, labelled[:24], labelled[24:], readout=readout)
    found = predict_tailored(model, held_out[:1], settings=Tailoring(steps=20, learning_rate=1e-3, anchor=0.0))
    assert (found.residual < found.residual_untailored).all()


def test_few_frames_have_the_residual_between_frames(held_out):
    equation, pair = load_equation("burgers"), held_out[:4].window(slice(0, 3)).replace(parameters={})
    found, expected = residual_terms(equation, pair, ["viscosity"]), frame_terms(equation, pair, "viscosity")
    torch.testing.assert_close(found.gram, expected.gram)
    whole = residual_terms(equation, held_out[:4].replace(parameters={}), ["viscosity"]).solve()[:, 0]
    torch.testing.assert_close(whole, weak_form("burgers", held_out[:4].replace(parameters={}), "viscosity"))


def test_what_cannot_be_tailored_says_what_to_do(model, labelled, held_out):
    runs = held_out[:1]
    hand_made = fit_parameter_model(PhysicsEncoder.of(labelled), labelled)
    with pytest.raises(CheckpointError, match="no weights to tailor.*--inference simulator"):
        predict_tailored(hand_made, runs)
    near = fit_parameter_model(model.encoder, labelled, readout="neighbours")
    with pytest.raises(CheckpointError, match="no slope to follow.*readout='ridge'"):
        predict_tailored(near, runs)
    nameless = dataclasses.replace(model, format=dataclasses.replace(model.format, equation=None))
    with pytest.raises(DataError, match="Give it:  --equation NAME"):
        predict_tailored(nameless, runs)
    with pytest.raises(DataError, match="neither predicts nor knows.*--equation FILE.yaml"):
        predict_tailored(model, runs, "kdv_burgers_kuramoto")
    with pytest.raises(EquationError, match="has no parameter 'viscosity'"):
        predict_tailored(model, runs, "kdv")


def test_the_verb_tailors_to_an_equation_file(model, tmp_path, capsys):
    thick = load_recipe("burgers_small", overrides={"parameters.viscosity.low": 0.6, "parameters.viscosity.high": 1.0})
    runs = simulate(thick, "test", range(3))
    runs.to_xarray().to_netcdf(tmp_path / "thick.nc", engine="h5netcdf")
    folder = model.save(tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nindependent: {t: time, x: space}\ndependent: {u: {rank: 0}}\n"
        "parameters: {nu: {name: viscosity, positive: true}}\n"
        "equations: ['u_t + u*u_x = nu*u_xx']\n"
    )
    words = ["predict", "--model", str(folder), "--inference", "tailored", str(tmp_path / "thick.nc")]
    rest = ["--equation", str(tmp_path / "mine.yaml"), "--tailoring", "steps=30", "learning_rate=1e-3"]
    assert main([*words, *rest, "--out", str(tmp_path / "v.json")]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "viscosity_untailored" in told and "intervals are the model's, of what it says untailored" in told
    rows = json.loads((tmp_path / "v.json").read_text())["runs"]
    truth = runs.parameters["viscosity"].tolist()
    for row, value in zip(rows, truth, strict=True):
        assert abs(row["viscosity"] / value - 1) < 0.5 * abs(row["viscosity_untailored"] / value - 1)
    assert main([*words, "--tailoring", "step=3"]) == 2
    assert "Did you mean 'steps'" in capsys.readouterr().err
    assert main([*words[:3], str(tmp_path / "thick.nc"), "--tailoring", "steps=3"]) == 2
    assert "--tailoring is for --inference tailored" in capsys.readouterr().err
