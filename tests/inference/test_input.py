import warnings

import numpy as np
import pytest
import torch
import xarray as xr

import pdessl
from pdessl import Trajectories
from pdessl.data import load_recipe, simulate
from pdessl.errors import DataError, FormatError
from pdessl.inference import Views, fit_parameter_model
from pdessl.models import ConvEncoder
from pdessl.units import conversion

from .conftest import UNITS


@pytest.fixture
def dataset(held_out):
    """Six runs as a file would hold them: units, a label for each run, attributes of the experiment."""
    data = held_out[:6].without_parameters().to_xarray()
    for name, unit in UNITS.items():
        if name in data.variables:
            data[name].attrs["units"] = unit
    data = data.assign_coords(camera=("trajectory", list("abcdef")), lab="Delft")
    return data.assign_attrs(experiment="tank 3")


def told(model, data, **options):
    """The predictions, and all warnings as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.predict(data, **options)
    assert all(w.category is UserWarning and w.filename == __file__ for w in caught)
    return found, "\n".join(str(w.message) for w in caught)


def same(a, b):
    """Equal up to the rounding of products of larger and smaller batches."""
    return all(np.allclose(a[n].values, b[n].values, rtol=1e-5, atol=0) for n in b.data_vars)


def test_coordinates_and_attributes_are_carried_through(model, dataset):
    found = model.predict(dataset)
    assert found.attrs["experiment"] == "tank 3"
    assert found.camera.values.tolist() == list("abcdef")
    assert found.lab == "Delft"
    assert found.trajectory.identical(dataset.trajectory)
    assert dict(found.sizes) == {"trajectory": 6}


def test_runs_may_be_called_otherwise_come_alone_or_in_another_order_of_axes(model, dataset):
    expected = model.predict(dataset)
    renamed = model.predict(dataset.rename(trajectory="sample"))
    assert dict(renamed.sizes) == {"sample": 6}
    assert same(renamed, expected)
    assert same(model.predict(dataset.transpose("x", "time", "trajectory")), expected)
    alone = model.predict(dataset.isel(trajectory=2))
    assert alone.viscosity.ndim == 0
    assert alone.camera == "c"
    assert float(alone.viscosity) == pytest.approx(float(expected.viscosity[2]), rel=1e-6)
    bare = dataset.isel(trajectory=2).drop_vars(["trajectory", "camera", "length_x"])
    assert float(model.predict(bare).viscosity) == pytest.approx(float(expected.viscosity[2]), rel=1e-6)


def test_a_label_kept_as_a_coordinate_does_not_pass_for_a_prediction(model, dataset):
    labelled = dataset.assign_coords(viscosity=("trajectory", np.full(6, 7.0)), novelty=("trajectory", np.zeros(6)))
    assert same(model.predict(labelled), model.predict(dataset))
    assert "viscosity" in model.predict(labelled).data_vars
    assert model.features(labelled).viscosity.values.tolist() == [7.0] * 6


def test_two_dimensions_and_several_fields():
    """Two fields on a plane, the amplitude of the first to be found: the whole path, and data that lack an axis."""
    rng = np.random.default_rng(0)

    def runs(count):
        amplitude = np.exp(rng.uniform(-1, 1, count))
        fields = rng.normal(size=(count, 2, 4, 8, 6)) * np.stack([amplitude, np.ones(count)], 1)[..., None, None, None]
        axes = [np.tile(np.arange(n, dtype=float), (count, 1)) for n in (4, 8, 6)]
        return Trajectories(
            fields=torch.from_numpy(fields).float(),
            time=torch.from_numpy(axes[0]),
            space=(torch.from_numpy(axes[1]), torch.from_numpy(axes[2])),
            lengths=torch.tensor([[8.0, 6.0]]).double().expand(count, 2),
            parameters={"amplitude": torch.from_numpy(amplitude)},
            field_names=("u", "p"),
            axis_names=("x", "y"),
            boundary=("periodic", "periodic"),
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ConvEncoder(in_channels=2, width=8, blocks=(1,), periodic=(True, True), stem_kernel=3).eval()
    model = fit_parameter_model(encoder, runs(40))
    test = runs(50)
    data = test.to_xarray()
    found = model.predict(data.transpose("y", "trajectory", "x", "time"))
    assert np.corrcoef(found.amplitude, test.parameters["amplitude"])[0, 1] > 0.8
    with pytest.raises(FormatError, match="the data have no variable 'p'"):
        model.predict(data.drop_vars("p"))
    with pytest.raises(FormatError, match="'y' is missing: the model was trained on 2 space dimension"):
        model.predict(data.isel(y=0))
    with pytest.raises(FormatError, match=r"field 'p' has dimensions .*; expected .* in any order, as 'u' has"):
        model.predict(data.assign(p=data.p.isel(y=0)))


def test_further_variables_are_not_read(model, dataset):
    class Trap:
        """An array that fails when it is read."""

        shape, dtype, ndim = (6, 24, 32), np.dtype("f4"), 3

        def __array__(self, *args, **kwargs):
            raise AssertionError("a variable the model does not take was read")

        def __array_function__(self, *args, **kwargs):
            raise AssertionError("a variable the model does not take was read")

    with_more = dataset.assign(pressure=(("trajectory", "time", "x"), np.full((6, 24, 32), np.nan)))
    with_more["trap"] = xr.Variable(("trajectory", "time", "x"), Trap())
    assert same(model.predict(with_more), model.predict(dataset))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.rename(u="velocity"),
            r"the data have no variable 'u'.*They hold 'velocity' \('trajectory', 'time', 'x'\).*the model takes u. If "
            r"it has another name there: ds.rename\(\{'velocity': 'u'\}\)",
        ),
        (lambda d: d.rename(x="z"), r"Rename them: ds.rename\(\{'z': 'x'\}\)"),
        (lambda d: d.rename(time="t"), r"Rename them: ds.rename\(\{'t': 'time'\}\)"),
        (
            lambda d: d.expand_dims(y=3),
            r"'y' is one too many. If it counts runs: ds.rename\(\{'y': 'trajectory'\}\); if it is an axis of space, "
            r"choose a slice: ds.isel\(y=0\)",
        ),
        (lambda d: d.isel(x=0), "'x' is missing: the model was trained on 1 space dimension"),
        (lambda d: d.isel(time=0), "'time' is missing"),
        (lambda d: d.drop_vars("time"), r"no coordinate 'time', so that their scale is unknown. Give it: ds.assign_co"),
        (lambda d: d.drop_vars("x"), r"no coordinate 'x'"),
        (lambda d: d.isel(trajectory=slice(0)), "the data hold no runs"),
        (
            lambda d: d.assign(u=d.u.assign_attrs(units="m/s")),
            r"'u' is in 'm/s' in the data; the model was trained on 'length/time'. Convert the values, or, where both "
            r"mean the same, write ds\['u'\].attrs\['units'\] = 'length/time'",
        ),
        (lambda d: d.assign_coords(x=d.x.assign_attrs(units="cm")), "'x' is in 'cm' in the data; the model was train"),
        (lambda d: d.assign(u=d.u.astype(complex)), "field 'u' has dtype complex128; expected real numbers"),
        (
            lambda d: d.assign_coords(time=d.time.astype("timedelta64[s]")),
            r"'time' holds dates or durations, the model was trained on times in 'time'. Open the file with .*decode_t",
        ),
        (lambda d: d.assign_coords(time=d.time.values[::-1]), "must be finite and strictly increasing"),
    ],
)
def test_input_outside_the_format_is_refused_with_a_repair(model, dataset, change, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy: casting times
        changed = change(dataset)
    with pytest.raises((FormatError, DataError), match=message):
        model.predict(changed)


def test_things_that_are_no_dataset_are_refused(model, dataset):
    with pytest.raises(FormatError, match=r"got DataArray; .*Make it one: array.to_dataset\(name='u'\)"):
        model.predict(dataset.u)
    with pytest.raises(FormatError, match="got str; expected an xarray.Dataset"):
        model.predict("new_runs.nc")
    with pytest.raises(DataError, match="missing='skip'.*Choose: refuse, drop, interpolate"):
        model.predict(dataset, missing="skip")


def test_the_repairs_repair(model, dataset):
    """What the messages advise, done literally, gives the predictions of the data that were right from the start."""
    expected = model.predict(dataset)
    assert same(model.predict(dataset.rename(u="velocity").rename({"velocity": "u"})), expected)
    assert same(model.predict(dataset.rename(time="t").rename({"t": "time"})), expected)
    assert same(model.predict(dataset.expand_dims(y=3).isel(y=0)), expected)
    written = dataset.copy(deep=True)
    written["u"].attrs["units"] = "length / time"
    assert same(model.predict(written), expected)


@pytest.mark.parametrize(
    ("found", "wanted", "factor"),
    [
        ("m^2/s", "m**2 / s", 1),
        ("m²/s", "m2 s-1", 1),
        ("cm/s", "m/s", 1e-2),
        ("mm^2/ms", "m^2/s", 1e-3),
        ("km/h", "m s⁻¹", 1 / 3.6),
        ("min", "s", 60),
        ("kPa", "kg m-1 s-2", 1e3),
        ("length / time", "length time-1", 1),
        ("1/s", "Hz", 1),
        ("m/s", "length/time", None),
        ("m", "s", None),
        ("degC", "K", None),
        ("1", "", None),
        ("10^3 m", "m", None),
        ("ks^999", "s", None),
    ],
)
def test_units_of_one_kind_are_converted_and_others_told_apart(found, wanted, factor):
    assert conversion(found, wanted) == (None if factor is None else pytest.approx(factor, rel=1e-12))
    back = conversion(wanted, found)
    assert back == (None if factor is None else pytest.approx(1 / factor, rel=1e-12))


def test_a_file_in_other_units_is_read_as_what_it_says(tmp_path, encoder, labelled, dataset):
    """Time in ms, x in cm and velocities in cm/s: the same runs, and the same viscosity in m²/s."""
    model = fit_parameter_model(encoder, labelled, units={"u": "m/s", "viscosity": "m^2/s", "time": "s", "x": "m"})
    plain = dataset.copy(deep=True)
    for name, unit in (("u", "m/s"), ("time", "s"), ("x", "m")):
        plain[name].attrs["units"] = unit
    expected = model.predict(plain)
    other = plain.assign(u=(100 * plain.u).assign_attrs(units="cm/s"))
    other = other.assign_coords(time=(1000 * plain.time).assign_attrs(units="ms"))
    other = other.assign_coords(x=(100 * plain.x).assign_attrs(units="cm"), length_x=100 * plain.length_x)
    found, words = told(model, other)
    assert same(found, expected)
    for line in ("u was converted from cm/s to m/s", "time was converted from ms to s", "x was converted from cm to m"):
        assert words.count(line) == 1
    with pytest.raises(FormatError, match="'time' is in 'cm' in the data; the model was trained on 's'"):
        model.predict(other.assign_coords(time=other.time.assign_attrs(units="cm")))
    # From a file, opened as anybody would: xarray makes durations of times in ms, and of no other unit.
    other.to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of xarray: what it decodes by default will change
        opened = xr.load_dataset(tmp_path / "runs.nc", engine="h5netcdf")
    assert same(told(model, opened)[0], expected)


def test_durations_are_seconds_where_the_model_has_seconds(encoder, labelled, dataset):
    model = fit_parameter_model(encoder, labelled, units=UNITS | {"time": "s"})
    milliseconds = (dataset.time.values * 1000).round().astype("timedelta64[ms]")
    in_seconds = dataset.assign_coords(time=dataset.time.values)
    found = model.predict(dataset.assign_coords(time=milliseconds))
    assert same(found, model.predict(in_seconds))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"observation.points": 16}, "4 of 4 runs were brought to the grid of training: x interpolated from"),
        ({"observation.points": 64}, "training: x low-passed and sampled from steps of 0.09817 to 0.1963"),
        ({"observation.end": 1.0}, "training: time low-passed and sampled from steps of 0.04348 to 0.08696"),
        ({"observation.frames": 12}, "training: time interpolated from steps of 0.1818 to 0.08696"),
        ({"observation.frames": 12, "observation.end": 22 / 23}, "frames outside the range of training"),
        ({"domain.length": 9.0}, "length of x outside the range of training"),
    ],
)
def test_other_grids_times_and_domains_are_accepted_with_a_warning(encoder, labelled, overrides, message):
    views = Views(strengths={"galilean_boost": 0.3}, window=(8, 32), count=2)
    runs = simulate(load_recipe("burgers_small", overrides=overrides), "test", range(4))
    for model in (fit_parameter_model(encoder, labelled, views=v) for v in (None, views)):
        found, words = told(model, runs)
        assert message in words
        assert np.isfinite(found.viscosity).all()


def test_runs_like_those_of_training_give_no_warning(model, held_out):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(held_out)


def test_another_boundary_or_equation_is_accepted_with_a_warning(model, dataset):
    with pytest.warns(UserWarning, match="the data have boundary window; training had periodic"):
        model.predict(dataset.assign_attrs(boundary="window"))
    with pytest.warns(UserWarning, match="said to solve 'heat'; training had 'burgers'"):
        model.predict(dataset.assign_attrs(equation="heat"))


def test_shorter_runs_are_taken_down_to_the_window(encoder, labelled, dataset):
    model = fit_parameter_model(encoder, labelled, views=Views(window=(16, 32), count=2))
    with pytest.warns(UserWarning, match="frames outside the range"):
        model.predict(dataset.isel(time=slice(16)))
    with pytest.raises(FormatError, match="15 entries along 'time'; the model needs 16 or more"):
        model.predict(dataset.isel(time=slice(15)))
    narrow = fit_parameter_model(encoder, labelled, views=Views(window=(16, 20), count=2))
    with pytest.raises(FormatError, match="19 entries along 'x'; the model needs 20 or more"):
        narrow.predict(dataset.isel(x=slice(19)))


def test_an_encoder_of_stacked_frames_takes_that_many(labelled, dataset):
    model = fit_parameter_model(ConvEncoder(width=4, blocks=(1,), stacked_frames=24).eval(), labelled)
    with pytest.raises(FormatError, match="15 entries along 'time'; the model needs 24"):
        model.predict(dataset.isel(time=slice(15)))
    longer = xr.concat([dataset, dataset.isel(time=[-1]).assign_coords(time=[48 / 23])], "time", data_vars="minimal")
    with pytest.raises(FormatError, match=r"25 frames; the encoder takes 24. Cut them: ds.isel\(time=slice\(24\)\)"):
        model.predict(longer)


# --------------------------------------------------------------------------------------- missing values


@pytest.fixture
def gappy(dataset):
    data = dataset.copy(deep=True)
    data["u"][1, 5] = np.nan  # one frame
    data["u"][3, :4] = np.nan  # the first four
    data["u"][3, 20, 7] = np.inf  # one value
    return data


def test_missing_values_are_refused_by_name(model, gappy):
    with pytest.raises(
        DataError, match=r"2 runs hold NaN or infinite values, first run 1 \(trajectory 1\), in 1 of its 24 frames"
    ):
        model.predict(gappy)


def test_dropping_keeps_the_longest_complete_stretch(model, gappy, dataset):
    found, words = told(model, gappy, missing="drop")
    assert "2 of 6 runs lacked values and were shortened to their longest complete stretch" in words
    cut, _ = told(model, dataset.isel(trajectory=[3], time=slice(4, 20)))
    tail, _ = told(model, dataset.isel(trajectory=[1], time=slice(6, None)))
    assert same(found.isel(trajectory=[3]), cut)
    assert same(found.isel(trajectory=[1]), tail)
    untouched = [0, 2, 4, 5]
    expected = model.predict(dataset.isel(trajectory=untouched))
    assert same(found.isel(trajectory=untouched), expected)


def test_interpolation_restores_what_is_linear_in_time(encoder, labelled, dataset, gappy):
    """Fields linear in time lose nothing by gaps, whatever frames lack; ends that lack values are cut off."""
    model = fit_parameter_model(encoder, labelled)
    linear = dataset.assign(u=dataset.u.isel(time=0) * (1 + dataset.time)).transpose("trajectory", "time", "x")
    holes = linear.copy(deep=True)
    holes["u"][2, [3, 4, 11]] = np.nan
    holes["u"][4, 7, 3] = np.nan
    found, words = told(model, holes, missing="interpolate")
    assert words == "2 of 6 runs lacked values and were interpolated in time."
    assert np.allclose(found.viscosity, model.predict(linear).viscosity, rtol=1e-4)
    assert "1 of 6 runs have frames outside the range" in told(model, gappy, missing="interpolate")[1]


def test_too_few_frames_are_refused_with_the_number(encoder, labelled, gappy):
    model = fit_parameter_model(encoder, labelled, views=Views(window=(20, 32), count=1))
    with pytest.raises(DataError, match=r"run 1 \(trajectory 1\) has 18 complete frames in a row; the model needs 20"):
        model.predict(gappy, missing="drop")
    empty = gappy.copy(deep=True)
    empty["u"][0] = np.nan
    for missing in ("drop", "interpolate"):
        with pytest.raises(DataError, match="run 0 .* has 0 complete frames in a row"):
            model.predict(empty, missing=missing)
    sparse = gappy.copy(deep=True)
    sparse["u"][0, 1:23] = np.nan
    with pytest.raises(DataError, match="at least half of the frames .* to interpolate"):
        model.predict(sparse, missing="interpolate")


def test_labels_of_runs_with_irregular_numbers_stay_with_their_runs(model, gappy, dataset):
    order = [4, 1, 0, 5, 3, 2]
    found, _ = told(model, gappy.isel(trajectory=order), missing="drop", batch=4)
    expected, _ = told(model, gappy, missing="drop")
    assert found.camera.values.tolist() == [list("abcdef")[i] for i in order]
    assert np.allclose(found.viscosity, expected.viscosity[order], rtol=1e-6)


def test_values_beyond_the_reach_of_the_encoder_are_refused(model, dataset):
    with pytest.raises(DataError, match="features that are not finite for run 0: .*Check its units"):
        model.predict(dataset.assign(u=(dataset.u * 1e30).astype("f4") * np.float32(1e8)))


def test_double_precision_and_integers_are_read(model, dataset):
    expected = model.predict(dataset)
    assert same(model.predict(dataset.assign(u=dataset.u.astype("f8"))), expected)
    whole = (dataset.u * 1000).round()
    counted = model.predict(dataset.assign(u=whole.astype("i4")))
    assert same(counted, model.predict(dataset.assign(u=whole)))


def test_constants_of_training_serve_the_symmetries_that_need_them(tmp_path):
    """A boost of KdV needs the coefficient of its steepening, which is one number for all runs and no label."""
    recipe = load_recipe("kdv", overrides={"observation.points": 32, "observation.frames": 12, "observation.end": 3.0})
    labelled, test = simulate(recipe, "labelled", range(12)), simulate(recipe, "test", range(3))
    views = Views(strengths={"galilean_boost": 0.1}, window=(8, 32), count=2)
    encoder = ConvEncoder(width=4, blocks=(1,)).eval()
    model = fit_parameter_model(encoder, labelled, targets="dispersion", views=views)
    assert model.format.constants == {"steepening": 1.0}
    expected = model.predict(test)
    assert same(model.predict(test.without_parameters()), expected)
    model.save(tmp_path)
    assert pdessl.load(tmp_path).predict(test).identical(expected)
    assert "* constants: steepening 1" in model.card()
    doubled = test.replace(parameters={"steepening": 2 * test.parameters["steepening"]})
    found, words = told(model, doubled)
    assert words == "the data have steepening 2; all runs of training had 1."
    features = pdessl.SimulationEncoder(encoder, 2, views.strengths, views.window).fit(labelled).transform(test)
    assert np.isfinite(features).all()
