"""The simulator as a way to infer: a flag of regress and predict that needs neither encoder, nor model, nor label."""

import csv

import numpy as np
import pytest
import xarray as xr

import pdessl
from pdessl.cli import main
from pdessl.data import load_recipe
from pdessl.errors import DataError
from pdessl.experiments.estimates import Classical
from pdessl.experiments.regress import with_simulator
from pdessl.experiments.regression import Regression
from pdessl.experiments.supervision import Supervision
from pdessl.inference.shooting import shoot
from pdessl.inference.simulated import fit_simulator

NAME = "viscosity"


@pytest.fixture(scope="module")
def runs():
    recipe = load_recipe(
        "burgers", overrides={"observation.frames": 12, "observation.end": 2.0, "observation.points": 64}
    )
    return pdessl.simulate(recipe, "test", range(2))


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "runs.nc"
    runs.to_xarray().to_netcdf(path, engine="h5netcdf")
    return path


def test_the_fit_of_a_file_is_that_of_its_runs_and_reads_no_label(runs, file, tmp_path):
    fitted = fit_simulator([file], NAME, "burgers", level=0.9)
    alone = shoot("burgers", runs.replace(parameters={}), NAME)
    np.testing.assert_allclose(fitted.table[NAME], alone.value[:, 0], rtol=1e-6)
    half = (fitted.table[f"{NAME}_high"] - fitted.table[f"{NAME}_low"]) / 2
    np.testing.assert_allclose(half, 1.6448536 * alone.error[:, 0], rtol=1e-6)
    wrong = runs.to_xarray()
    wrong[NAME] = wrong[NAME] * 100
    wrong.to_netcdf(tmp_path / "wrong.nc", engine="h5netcdf")
    xr.testing.assert_equal(
        fit_simulator([tmp_path / "wrong.nc"], NAME, "burgers").table.drop_vars("file"), fitted.table.drop_vars("file")
    )


def test_predict_fits_the_simulator_and_writes_a_table(runs, file, tmp_path, capsys):
    words = ["predict", "--inference", "simulator", "--target", NAME, str(file), "--out", str(tmp_path / "a.csv")]
    assert main([*words, "--equation", "burgers", "--level", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, intervals at level 0.5" in printed and "of the fit alone" in printed
    with (tmp_path / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    truth = runs.parameters[NAME].double().numpy()
    assert np.abs(np.array([float(r[NAME]) for r in rows]) / truth - 1).max() < 0.1
    assert set(rows[0]) == {"file", "run", NAME, f"{NAME}_low", f"{NAME}_high", "misfit", "frames"}


def test_mistakes_are_told(file, capsys):
    for words, said in (
        (["--inference", "simulator"], "target"),
        (["--inference", "simulator", "--target", NAME, "--model", "m"], "--model is for --inference model"),
        (["--target", NAME, "--model", "m"], "--target is for --inference simulator"),
        (["--inference", "simulator", "--target", "viscosty", "--equation", "burgers"], "no parameter 'viscosty'"),
        (["--inference", "simulator", "--target", NAME, "--level", "2"], "share between 0 and 1"),
    ):
        assert main(["predict", str(file), *words]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(DataError, match="expected one of readout, simulator, energy"):
        pdessl.regress(None, file, NAME, inference="simulators")


def test_regress_has_a_row_of_the_simulator_and_needs_no_encoder(tmp_path):
    recipe = load_recipe("burgers_small", overrides={"observation.points": 64, "observation.noise": 0.005})
    size = {"unlabelled": 16, "labelled": 16, "validation": 4, "test": 4}
    store = pdessl.generate(recipe, tmp_path / "store", size, progress=False)
    with pytest.raises(DataError, match="regress got no encoder"):
        pdessl.regress(None, store.path, NAME, labels=(12,), announce=lambda line: None)
    settings = Regression(methods=("frozen", "physics"), seeds=1)
    found = pdessl.regress(
        None, store.path, NAME, labels=(12,), settings=settings, inference="simulator", announce=lambda line: None,
        out=tmp_path / "out",
    )  # fmt: skip
    rows = {r["method"]: r for r in found.rows}
    assert set(rows) == {"physics", "least_squares", "weak_form", "shooting"}
    truth = store.load("test").parameters[NAME].double()
    ours = shoot("burgers", store.load("test").replace(parameters={}), NAME).value[:, 0]
    assert rows["shooting"]["labels"] is None
    assert rows["shooting"]["relative_error"]["mean"] == pytest.approx(
        float(100 * ((ours - truth) / truth).abs().mean())
    )
    assert found.model is not None and (tmp_path / "out" / "report.html").is_file()


def test_settings_keep_what_they_say():
    given = Regression(classical=Classical(noise_level=0.1), scratch=Supervision())
    with_encoder, without = with_simulator(given, True), with_simulator(given, False)
    assert with_encoder.classical == Classical(noise_level=0.1, shooting=True) == without.classical
    assert with_encoder.scratch == given.scratch and without.scratch is None
    assert with_encoder.methods == given.methods and set(without.methods) == {"law", "physics"}
