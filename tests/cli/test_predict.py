import csv
import json

import numpy as np
import pytest
import torch
import xarray as xr
from command_line import at_command_line

import pdessl
from pdessl.cli import main
from pdessl.data import load_recipe, simulate
from pdessl.experiments.untrained import calibrated
from pdessl.inference import fit_parameter_model
from pdessl.models import ConvEncoder, Encoder, save_pretrained

UNITS = {"u": "length/time", "viscosity": "length^2/time", "time": "time", "x": "length"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of Burgers' viscosity on the features of a random network, and the model that was saved."""
    runs = simulate(load_recipe("burgers_small"), "labelled", range(40))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(ConvEncoder(width=6, blocks=(1, 1)), [0.0], [0.6])
    model = fit_parameter_model(calibrated(encoder, [runs]), runs, units=UNITS)
    return model.save(tmp_path_factory.mktemp("model") / "viscosity"), model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Five new runs in one file, three in another: the second with thicker viscosity than any run of training."""
    folder = tmp_path_factory.mktemp("runs")
    thick = load_recipe("burgers_small", overrides={"parameters.viscosity.low": 2.0, "parameters.viscosity.high": 3.0})
    for name, recipe, count in (("new", load_recipe("burgers_small"), 5), ("thick", thick, 3)):
        data = simulate(recipe, "test", range(count)).to_xarray()
        data["u"].attrs["units"] = "length/time"
        data.to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    return folder / "new.nc", folder / "thick.nc"


def expected(model, files, **options):
    return [model.predict(xr.load_dataset(f, engine="h5netcdf"), **options) for f in files]


def test_the_command_as_users_type_it(tmp_path, saved, files):
    done = at_command_line(["predict", "--model", saved[0], files[0], "--out", "viscosity.csv"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 runs, intervals at level 0.9; viscosity in length^2/time" in done.stdout
    assert "0 of 5 runs are unlike those of training" in done.stdout
    with (tmp_path / "viscosity.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        "file",
        "run",
        "viscosity",
        "viscosity_low",
        "viscosity_high",
        "novelty",
        "in_distribution",
    ]
    assert [row["run"] for row in rows] == list("01234")


@pytest.mark.parametrize("ending", ["csv", "nc", "json"])
def test_results_come_back_from_the_file_to_the_last_digit(tmp_path, capsys, saved, files, ending):
    folder, model = saved
    out = tmp_path / f"viscosity.{ending}"
    arguments = ["predict", "--model", folder, *files, "--out", out, "--level", "0.8"]
    assert main(list(map(str, arguments))) == 0
    first, second = expected(model, files, level=0.8)
    for name in ("viscosity", "viscosity_low", "viscosity_high", "novelty", "in_distribution"):
        values = np.concatenate([first[name], second[name]]).tolist()
        if ending == "csv":
            with out.open() as handle:
                read = [row[name] for row in csv.DictReader(handle)]
            read = [text == "True" if name == "in_distribution" else float(text) for text in read]
        elif ending == "json":
            read = [run[name] for run in json.loads(out.read_text())["runs"]]
        else:
            with xr.open_dataset(out, engine="h5netcdf") as dataset:
                read = dataset[name].values.tolist()
                assert dataset.file.values.tolist() == [str(files[0])] * 5 + [str(files[1])] * 3
                assert dataset.attrs["level"] == 0.8
                assert dataset.viscosity.attrs["units"] == "length^2/time"
        assert read == values
    shown = capsys.readouterr().out
    why = "(novelty above 1, or a value outside the labels); their intervals promise nothing"
    assert f"3 of 8 runs are unlike those of training {why}" in shown
    assert shown.count("  novel\n") == 3
    assert f"written to {out}" in shown


def test_a_store_is_predicted_split_by_split(tmp_path, capsys, saved):
    folder, model = saved
    store = pdessl.generate(
        "burgers_small",
        tmp_path / "data",
        size={"unlabelled": 4, "labelled": 4, "validation": 3, "test": 2},
        progress=False,
    )
    assert main(["predict", "--model", str(folder), str(tmp_path / "data"), "--out", str(tmp_path / "v.json")]) == 0
    runs = json.loads((tmp_path / "v.json").read_text())["runs"]
    assert [run["split"] for run in runs] == ["unlabelled"] * 4 + ["labelled"] * 4 + ["validation"] * 3 + ["test"] * 2
    assert np.allclose([r["viscosity"] for r in runs[-2:]], model.predict(store.load("test")).viscosity)
    capsys.readouterr()
    assert main(["predict", "--model", str(folder), str(tmp_path / "data"), "--split", "test"]) == 0
    assert "2 runs, intervals" in capsys.readouterr().out
    assert main(["predict", "--model", str(folder), str(tmp_path / "data"), "--split", "tset"]) == 2
    assert "no split 'tset'. Did you mean 'test'?" in capsys.readouterr().err


def test_a_mapping_reads_other_layouts(tmp_path, capsys, saved, files):
    """The same runs as bare HDF5 with other names and no coordinates: the mapping says what they are."""
    import h5py

    folder, model = saved
    data = xr.load_dataset(files[0], engine="h5netcdf")
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["velocity"] = data.u.values
    (tmp_path / "lab.yaml").write_text(
        "format: hdf5\nequation: burgers\nfields: {u: {dataset: velocity, unit: length/time}}\n"
        "dimensions: [trajectory, time, x]\nboundary: {x: periodic}\n"
        f"time: {{step: {2 / 23!r}, unit: time}}\nspace: {{x: {{length: {2 * np.pi!r}, unit: length}}}}\n"
    )
    arguments = ["predict", "--model", folder, tmp_path / "lab.h5", "--mapping", tmp_path / "lab.yaml"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "v.json")]) == 0, capsys.readouterr().err
    runs = json.loads((tmp_path / "v.json").read_text())["runs"]
    assert np.allclose([r["viscosity"] for r in runs], model.predict(data).viscosity, rtol=1e-5)


def test_warnings_are_told_once_with_the_file(tmp_path, capsys, saved, files):
    data = xr.load_dataset(files[0], engine="h5netcdf").isel(x=slice(None, None, 2))
    data["u"][1, 3] = np.nan
    data.to_netcdf(tmp_path / "coarse.nc", engine="h5netcdf")
    arguments = ["predict", "--model", str(saved[0]), str(tmp_path / "coarse.nc")]
    assert main([*arguments, "--missing", "interpolate"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"warning: {tmp_path / 'coarse.nc'}: ") for line in told)
    assert sum("x interpolated from steps" in line for line in told) == 1
    assert sum("1 of 5 runs lacked values and were interpolated" in line for line in told) == 1
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"DataError: {tmp_path / 'coarse.nc'}: 1 runs hold NaN")


def test_infinite_intervals_are_null_in_json(tmp_path, capsys, saved, files):
    out = tmp_path / "v.json"
    assert main(["predict", "--model", str(saved[0]), str(files[0]), "--level", "0.99", "--out", str(out)]) == 0
    assert "too few for level 0.99: the intervals are infinite" in capsys.readouterr().err
    runs = json.loads(out.read_text())["runs"]
    assert all(run["viscosity_high"] is None and run["viscosity"] > 0 for run in runs)


def test_mistakes_end_in_one_line_and_write_nothing(tmp_path, capsys, saved, files):
    folder = str(saved[0])
    save_pretrained(tmp_path / "encoder", ConvEncoder(width=4, blocks=(1,)))
    renamed = xr.load_dataset(files[0], engine="h5netcdf").rename(u="velocity")
    renamed.to_netcdf(tmp_path / "renamed.nc", engine="h5netcdf")
    (tmp_path / "broken.nc").write_bytes(files[0].read_bytes()[:1000])
    for arguments, message in (
        ([str(files[0]), "--model", str(tmp_path / "encoder")], "holds a network (ConvEncoder), not a model of parame"),
        ([str(files[0]), "--model", str(tmp_path / "none")], "neither a model of parameters"),
        ([str(tmp_path / "none.nc"), "--model", folder], "no file"),
        ([str(tmp_path / "broken.nc"), "--model", folder], "broken.nc"),
        ([str(tmp_path / "renamed.nc"), "--model", folder], "ds.rename({'velocity': 'u'})"),
        ([str(files[0]), "--model", folder, "--level", "90"], "lies between 0 and 1, e.g. 0.9"),
        ([str(files[0]), "--model", folder, "--missing", "skip"], "invalid choice: 'skip'"),
    ):
        assert main(["predict", *arguments, "--out", str(tmp_path / "v.csv")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["predict", str(files[0]), "--model", folder, "--out", str(tmp_path / "v.xlsx")]) == 2
    assert "write results to a file ending in .csv, .nc, .json" in capsys.readouterr().err
    assert not list(tmp_path.glob("*v.*"))
