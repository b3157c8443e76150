import tracemalloc
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import pdessl
from pdessl import SimulationEncoder
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.inference import Runs
from pdessl.models import ConvEncoder, save_pretrained

from .conftest import UNITS


@pytest.fixture
def dataset(held_out):
    data = held_out.to_xarray()
    data["u"].attrs["units"] = UNITS["u"]
    return data.assign_coords(tank=("trajectory", np.arange(len(held_out)) % 3)).assign_attrs(experiment="tank 3")


class Sums(nn.Module):
    """A network that is cheap on anything."""

    def forward(self, fields):
        return torch.stack([fields.mean(dim=(1, 2, 3)), fields.square().mean(dim=(1, 2, 3))], dim=1)


def test_scikit_learn_accepts_it(tmp_path):
    """All of scikit-learn's checks of a transformer; none is excused.

    They feed tables (n, X), which are read as one channel at one time on a line of X nodes. The one check that skips
    itself (array API) asks for an environment variable. Given as a module instead of a folder, the encoder would fail
    one check alone: a module and its copy pickle to different bytes, and the check compares those of parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ConvEncoder(width=4, blocks=(1,), stem_kernel=3, stem_stride=1).eval()
    save_pretrained(tmp_path, encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(SimulationEncoder(str(tmp_path)), on_skip=None)
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert sum(r["status"] == "passed" for r in results) > 40


def test_features_carry_coordinates_and_attributes(encoder, dataset, held_out):
    features = SimulationEncoder(encoder).fit(dataset).transform(dataset)
    assert isinstance(features, xr.DataArray)
    assert features.dims == ("trajectory", "feature")
    assert features.shape == (64, encoder.feature_dim)
    assert features.trajectory.identical(dataset.trajectory)
    assert features.tank.identical(dataset.tank)
    assert features.attrs["experiment"] == "tank 3"
    with torch.no_grad():
        expected = encoder(held_out.fields).double().numpy()
    assert np.allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_arrays_give_arrays_with_the_same_numbers(encoder, dataset, held_out):
    array = held_out.fields.numpy()
    found = SimulationEncoder(encoder).fit_transform(array)
    assert type(found) is np.ndarray
    assert np.allclose(found, SimulationEncoder(encoder).fit_transform(dataset), rtol=1e-5, atol=1e-6)
    assert np.allclose(found, SimulationEncoder(encoder, batch=7).fit_transform(held_out.fields), rtol=1e-5, atol=1e-6)
    assert np.allclose(found, SimulationEncoder(encoder).fit_transform(held_out), rtol=1e-5, atol=1e-6)


def test_a_pipeline_regresses_the_viscosity(tmp_path, encoder, dataset, labelled):
    save_pretrained(tmp_path / "runs" / "x" / "encoder", encoder)
    training = labelled.to_xarray()
    pipeline = make_pipeline(
        SimulationEncoder(str(tmp_path / "runs" / "x")), StandardScaler(), RidgeCV(np.logspace(-2, 3, 11))
    )
    pipeline.fit(training, np.log(training.viscosity))
    assert pipeline.score(dataset, np.log(dataset.viscosity)) > 0.7
    scores = cross_val_score(pipeline, labelled.fields.numpy(), labelled.parameters["viscosity"].log().numpy(), cv=3)
    assert scores.min() > 0.3


def test_labels_are_not_read(encoder, dataset):
    fitted = SimulationEncoder(encoder).fit(dataset)
    permuted = dataset.assign(viscosity=dataset.viscosity[::-1].variable)
    assert fitted.transform(permuted).identical(fitted.transform(dataset))
    assert fitted.transform(dataset.drop_vars("viscosity")).equals(fitted.transform(dataset))


def test_views_are_averaged_and_do_not_depend_on_the_batch(encoder, dataset):
    settings = {"strengths": {"galilean_boost": 0.3}, "window": (16, 32), "views": 3}
    found = SimulationEncoder(encoder, **settings).fit_transform(dataset)
    assert found.identical(SimulationEncoder(encoder, batch=5, **settings).fit_transform(dataset))
    assert not np.allclose(found, SimulationEncoder(encoder, seed=1, **settings).fit_transform(dataset))
    one = SimulationEncoder(encoder, **(settings | {"views": 1}))
    spread = one.fit_transform(dataset) - one.set_params(seed=1).fit_transform(dataset)
    many = SimulationEncoder(encoder, **(settings | {"views": 16}))
    averaged = many.fit_transform(dataset) - many.set_params(seed=1).fit_transform(dataset)
    assert np.abs(averaged).mean() < 0.5 * np.abs(spread).mean()


@pytest.mark.parametrize("chunk", [3, 64])
def test_a_dataset_larger_than_memory_is_streamed(chunk):
    """200 MB of chunks that are made when asked for: each is made once, and a few of them are held at a time."""
    dask_array = pytest.importorskip("dask.array")
    import dask

    runs, frames, nodes = 400, 8, 8192
    made = []

    def block(block_info=None):
        (start, stop), *_ = block_info[None]["array-location"]
        made.append((start, stop))
        return np.broadcast_to(np.arange(start, stop, dtype=float)[:, None, None], (stop - start, frames, nodes)) + 0.0

    sizes = dask_array.core.normalize_chunks((chunk, frames, nodes), (runs, frames, nodes))
    lazy = dask_array.map_blocks(block, chunks=sizes, dtype=float, meta=np.empty((0, 0, 0)))
    dataset = xr.Dataset(
        {"u": (("sample", "time", "x"), lazy)}, coords={"time": np.arange(frames), "x": np.arange(nodes)}
    )
    estimator = SimulationEncoder(Sums(), batch=16).fit(dataset)
    made.clear()
    with dask.config.set(scheduler="synchronous"):
        tracemalloc.start()
        features = estimator.transform(dataset)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert np.allclose(features[:, 0], np.arange(runs))
    assert sorted(made) == [(i, min(i + chunk, runs)) for i in range(0, runs, chunk)]
    piece = max(16, chunk) * frames * nodes * 8
    assert peak < 4 * piece < runs * frames * nodes * 8


def test_files_are_read_piece_by_piece(tmp_path, encoder, dataset):
    dataset.to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "runs.nc", engine="h5netcdf") as opened:
        found = SimulationEncoder(encoder, batch=10).fit(opened).transform(opened)
        assert not opened.u._in_memory
    assert np.allclose(found, SimulationEncoder(encoder).fit_transform(dataset), rtol=1e-5, atol=1e-6)


def test_data_unlike_those_of_fit_are_refused(encoder, dataset, held_out):
    fitted = SimulationEncoder(encoder).fit(dataset)
    with pytest.raises(FormatError, match="no variable 'u'"):
        fitted.transform(dataset.rename(u="v"))
    with pytest.raises(FormatError, match="'u' is in 'm/s' in the data"):
        fitted.transform(dataset.assign(u=dataset.u.assign_attrs(units="m/s")))
    with pytest.raises(DataError, match="hold NaN or infinite values"):
        fitted.transform(dataset.where(dataset.time != dataset.time[3]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted.transform(dataset.isel(x=slice(None, None, 2)))
    assert any("x interpolated from steps of 0.3927 to 0.1963" in str(w.message) for w in caught)
    arrays = SimulationEncoder(encoder).fit(held_out.fields.numpy())
    with pytest.raises(ValueError, match=r"got runs of shape \(1, 12, 32\); expected \(1, 24, 32\), as in fit"):
        arrays.transform(held_out.fields[:, :, :12].numpy())
    with pytest.raises(ValueError, match=r"expected runs \(n, C, T, \*X\), or a table"):
        SimulationEncoder(encoder).fit(np.zeros((3, 4, 5)))


def test_what_is_no_encoder_is_refused(tmp_path, dataset):
    with pytest.raises(CheckpointError, match="neither a model of parameters .* nor a network"):
        SimulationEncoder(tmp_path / "nothing").fit(dataset)


def test_the_encoder_of_a_model_of_parameters_is_found(tmp_path, model, dataset):
    model.save(tmp_path / "viscosity")
    found = SimulationEncoder(tmp_path / "viscosity").fit_transform(dataset)
    assert found.identical(SimulationEncoder(model.encoder).fit_transform(dataset))


def test_fitting_leaves_the_module_that_was_given_alone(encoder, dataset):
    before = {n: v.clone() for n, v in encoder.state_dict().items()}
    copy = clone(SimulationEncoder(encoder))
    copy.fit(dataset).transform(dataset)
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())
    assert copy.encoder_ is not encoder
    assert pdessl.SimulationEncoder is SimulationEncoder


@pytest.mark.parametrize("kind", ["dataset", "trajectories", "store", "list"])
def test_model_selection_works_with_everything_it_accepts(tmp_path, encoder, labelled, kind):
    data = {
        "dataset": lambda: Runs(labelled.to_xarray()),
        "trajectories": lambda: Runs(labelled),
        "store": lambda: Runs(written(labelled, tmp_path / "runs.nc")),
        "list": lambda: labelled,  # scikit-learn cuts it into a list of single runs
    }[kind]()
    truth = labelled.parameters["viscosity"].log().numpy()
    if kind != "list":
        np.testing.assert_allclose(np.log(data.labels("viscosity")), truth, rtol=1e-6)
    save_pretrained(tmp_path / "encoder", encoder)
    line = make_pipeline(SimulationEncoder(tmp_path / "encoder", batch=1), StandardScaler(), Ridge())
    search = GridSearchCV(line, {"ridge__alpha": [0.1, 10.0]}, cv=3, n_jobs=2 if kind == "dataset" else None)
    found = search.fit(data, truth)
    plain = GridSearchCV(line, {"ridge__alpha": [0.1, 10.0]}, cv=3).fit(labelled.fields.numpy(), truth)
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-3)
    assert len(found.predict(data[:2])) == 2


def written(runs, path):
    runs.to_xarray().to_netcdf(path, engine="h5netcdf")
    return path


def test_names_clones_and_pandas(encoder, labelled):
    pandas = SimulationEncoder(encoder).set_output(transform="pandas")
    names = None
    for data in (labelled.to_xarray(), labelled, labelled.fields.numpy(), Runs(labelled)):
        table = clone(pandas).fit_transform(data)
        names = list(table.columns) if names is None else names
        assert list(table.columns) == names and table.shape == (len(labelled), len(names))
    assert names[0] == "simulationencoder0"
    assert list(clone(pandas).fit(labelled).get_feature_names_out()) == names
    changed = clone(pandas).set_params(views=3, seed=7)
    assert changed.get_params()["views"] == 3 and clone(changed).get_params()["seed"] == 7


def test_runs_that_are_none_are_refused(labelled):
    with pytest.raises(DataError, match=r"none that counts runs.*ds.expand_dims\('trajectory'\)"):
        Runs(labelled.to_xarray().isel(trajectory=0))
    with pytest.raises(DataError, match="no parameter 'speed'"):
        Runs(labelled).labels("speed")


def test_paths_files_and_arrays_with_names_are_what_they_hold(tmp_path, encoder, labelled):
    runs = labelled[:6].without_parameters()
    whole = SimulationEncoder(encoder).fit(runs)
    expected = np.asarray(whole.transform(runs))
    factor = {0: (1.0, "m/s"), 1: (100.0, "cm/s")}
    for number in range(len(runs)):
        data = runs[[number]].to_xarray().isel(trajectory=0, drop=True)
        scale, unit = factor[number % 2]
        data["u"] = (scale * data.u).assign_attrs(units=unit)
        data.to_netcdf(tmp_path / f"run{number}.nc", engine="h5netcdf")
    files = [str(tmp_path / f"run{number}.nc") for number in range(len(runs))]
    for data in (str(tmp_path), tmp_path, files, Runs(files), pdessl.open(tmp_path)):
        found = np.asarray(SimulationEncoder(encoder).fit(data).transform(data))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    order = [4, 0, 4, 1]  # as cross-validation cuts it, or a bootstrap
    found = SimulationEncoder(encoder).fit(files).transform([files[k] for k in order])
    np.testing.assert_allclose(np.asarray(found), expected[order], rtol=1e-3, atol=1e-4)
    named = runs.to_xarray()["u"]
    np.testing.assert_allclose(np.asarray(SimulationEncoder(encoder).fit(named).transform(named)).shape, expected.shape)
    runs.to_xarray().to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="all.nc holds 6 runs; of a list of files each is one"):
        whole.transform([*files, str(tmp_path / "all.nc")])
