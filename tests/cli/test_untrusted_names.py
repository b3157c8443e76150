"""Names of runs by strangers: no formula reaches a spreadsheet, no escape sequence a terminal."""

import ast
import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pdessl.cli
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


def test_names_of_fields_units_and_parameters_are_printed_harmlessly(tmp_path, capsys):
    steer = "\x1b]0;title\x07\x1b[2J"
    stream = np.random.default_rng(0)
    shape = ("trajectory", "time", "x")
    held = {f"u{steer}": (shape, stream.normal(size=(4, 5, 16)), {"units": steer})}
    held[f"nu{steer}"] = ("trajectory", np.arange(1.0, 5.0), {"units": steer})
    coordinates = {"time": np.arange(5.0), "x": ("x", np.arange(16.0), {"units": steer})}
    data = tmp_path / f"a{steer}.nc"
    xr.Dataset(held, coordinates).to_netcdf(data, engine="h5netcdf")
    out = tmp_path / "store"
    for words in (["inspect", data], ["convert", data, "--out", out], ["inspect", out, "--verify"],
                  ["inspect", data, "--json"]):  # fmt: skip
        assert main([str(w) for w in words]) == 0, words
        found = capsys.readouterr()
        assert not {"\x1b", "\x07"} & set(found.out + found.err), words
    assert "\x1b" not in str(pdessl.inspect(data)) and "\\x1b[2J" in str(pdessl.inspect(data))


def test_verbs_print_only_what_was_made_visible():
    """``print`` is left for settings and JSON, which write such characters out themselves and are read by programs."""
    for path in Path(pdessl.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                printed = ast.unparse(node.args[0])
                assert printed.startswith(("dump_yaml(", "json.dumps(", "parser.format_all(")), f"{path}: {printed}"


def test_warnings_print_no_escape_sequences(capsys, monkeypatch):
    monkeypatch.setattr(pdessl.cli, "_run", lambda words: print(warnings.formatwarning("\x1b[2J", UserWarning, "f", 1)))
    before = warnings.formatwarning
    main(["list"])
    assert "\x1b" not in capsys.readouterr().out and warnings.formatwarning is before


def test_errors_print_no_escape_sequences(capsys):
    assert main(["\x1b[2Jgenerat"]) == 2
    printed = capsys.readouterr().err
    assert "\x1b" not in printed and "no verb '\\x1b[2Jgenerat'" in printed
