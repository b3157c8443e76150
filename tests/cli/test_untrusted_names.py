"""Names of runs by strangers: no formula reaches a spreadsheet, no escape sequence a terminal."""

import csv

import pytest
import torch
import xarray as xr

from pdessl.cli import main
from pdessl.data import load_recipe, simulate
from pdessl.experiments.untrained import calibrated
from pdessl.inference import fit_parameter_model
from pdessl.models import ConvEncoder, Encoder
from pdessl.written import cell, visible

NAMES = ['=HYPERLINK("http://a")', "+1+1", "-2+3", "@SUM(A1)", "\x1b]0;title\x07run", "-3.5", "plain", "a\r\nb", "\t=1"]
SAFE = ['\'=HYPERLINK("http://a")', "'+1+1", "'-2+3", "'@SUM(A1)", "\\x1b]0;title\\x07run", "-3.5", "plain"]
SAFE += ["a\\r\\nb", "\\t=1"]


@pytest.mark.parametrize(("name", "safe"), [*zip(NAMES, SAFE, strict=True), (" =1", "' =1"), ("a\u202eb", "a\\u202eb")])
def test_cells(name, safe):
    assert cell(name) == safe


def test_letters_of_any_language_stay():
    assert visible("Wirbelstraße 渦 ν=3") == "Wirbelstraße 渦 ν=3" and visible("a\nb", keep="\n") == "a\nb"


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    """A saved model, and a file whose runs have hostile names."""
    folder = tmp_path_factory.mktemp("names")
    runs = simulate(load_recipe("burgers_small"), "labelled", range(40))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(ConvEncoder(width=6, blocks=(1, 1)), [0.0], [0.6])
    model = fit_parameter_model(calibrated(encoder, [runs]), runs).save(folder / "model")
    data = simulate(load_recipe("burgers_small"), "test", range(8)).to_xarray()
    data = xr.concat([data, data.isel(trajectory=[0])], "trajectory", data_vars="minimal", coords="minimal")
    data.assign_coords(trajectory=NAMES).to_netcdf(folder / "runs.nc", engine="h5netcdf")
    return model, folder / "runs.nc"


def test_predict_writes_and_prints_them_harmlessly(tmp_path, capsys, prediction):
    model, runs = prediction
    assert main(["predict", "--model", str(model), str(runs), "--out", str(tmp_path / "a.csv")]) == 0
    with (tmp_path / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["run"] for row in rows] == SAFE
    assert all(float(row["viscosity"]) > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed and "\\x1b]0;title\\x07run" in printed


def test_errors_print_no_escape_sequences(capsys):
    assert main(["\x1b[2Jgenerat"]) == 2
    printed = capsys.readouterr().err
    assert "\x1b" not in printed and "no verb '\\x1b[2Jgenerat'" in printed
