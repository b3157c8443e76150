"""Files in the layouts of public data sets are read bit for bit, with true coordinates and parameters."""

import pickle

import h5py
import layouts
import numpy as np
import pytest
import torch

from pdessl import catalog
from pdessl.data import inspect
from pdessl.data.formats import DatasetMapping, detect, load_mapping, mapping_names, open_source
from pdessl.equations import load_equation
from pdessl.errors import CatalogError, DataError, FormatError
from pdessl.trajectory import Trajectories


def smoke(folder):
    return layouts.smoke_folder(folder / "a_test_of_train_files")


def smoke_plain(folder):
    held = layouts.pdearena_smoke(folder / "d" / "NavierStokes2D_train_1_0.50000_100.h5", "train", 0.5, step=6.0)
    return {"train": held}


def ks(folder):
    return {
        "train": layouts.lpsda(folder / "d" / "KS_train_2048.h5", "train", full=False)[0],
        "test": layouts.lpsda(folder / "d" / "KS_test.h5", "test", name="pde_9-16", frames=9, full=False)[0],
    }


def ks_viscosity(folder):
    return {"validation": layouts.lpsda(folder / "d" / "KS_valid_v.h5", "valid", full=False, viscosity=True)[0]}


def lpsda_kdv(folder):
    return {"train": layouts.lpsda(folder / "d" / "KdV_train_4_easy.h5", "train")[0]}


def lpsda_ks(folder):
    return {"test": layouts.lpsda(folder / "d" / "KS_test.h5", "test")[0]}


def advection(folder):
    held = layouts.pdebench_1d(folder / "d" / "1D_Advection_Sols_beta0.4.hdf5", {"beta": 0.4})
    return {"test": held[:1], "train": held[1:]}


def burgers(folder):
    a = layouts.pdebench_1d(folder / "d" / "1D_Burgers_Sols_Nu0.001.hdf5", {"Nu": 0.001})
    b = layouts.pdebench_1d(folder / "d" / "1D_Burgers_Sols_Nu4.hdf5", {})
    return {"test": np.concatenate([a[:1], b[:1]]), "train": np.concatenate([a[1:], b[1:]])}


def reaction(folder):
    held = layouts.pdebench_1d(folder / "d" / "ReacDiff_Nu0.5_Rho2.0.hdf5", {"Nu": 0.5, "rho": 2.0})
    return {"test": held[:1], "train": held[1:]}


def compressible(dimensions):
    def make(folder):
        name = f"{dimensions}D_CFD_Rand_M0.1_Eta1.e-8_Zeta0.01_periodic_{128}_Train.hdf5"
        held = layouts.pdebench_compressible(folder / "d" / name, dimensions, {"eta": 1e-8, "zeta": 0.01})
        return {"test": held[:1], "train": held[1:]}

    return make


def incompressible(folder):
    return {"all": layouts.pdebench_incompressible(folder / "d" / "ns_incom_inhom_2d_512-0.h5")}


def seeds(name, **options):
    def make(folder):
        held = layouts.pdebench_seeds(folder / "d" / name, **options)
        return {"train": held[:9], "test": held[9:]}

    return make


def mae(folder):
    held = layouts.mae_1d(folder / "d" / "Advection_train_256.h5", "train", a=1.5)
    return {"train": held[..., :-1]}


def mae_walls(folder):
    held = layouts.mae_1d(folder / "d" / "HeatDirichlet_train_3.h5", "train", repeated=False, nu=0.4)
    return {"train": held}


def mae_2d(indexing):
    def make(folder):
        return {"train": layouts.mae_2d(folder / "d" / "Heat_Adv_Burgers_train_3072.h5", "train", indexing)}

    return make


def well(folder):
    base = folder / "d" / "data"
    return {
        "train": np.concatenate(
            [
                layouts.the_well(base / "train" / "toy_0.hdf5"),
                layouts.the_well(base / "train" / "toy_1.hdf5", viscosity=0.4),
            ]
        ),
        "validation": layouts.the_well(base / "valid" / "toy_2.hdf5", sample_varying_time=True),
        "test": layouts.the_well(base / "test" / "toy_3.hdf5"),
    }


def pdeinvbench_kdv(folder):
    base, one = folder / "d", layouts.pdeinvbench_1d
    return {
        "train": np.concatenate([one(base / "train" / f"delta={d}_ic={i}.h5") for d, i in (("1.5", 0), ("1.5", 1))]),
        "middle": one(base / "out_of_distribution" / "delta=2.9_ic=42.h5"),
        "extreme": one(base / "out_of_distribution_extreme" / "delta=0.8_ic=7.h5"),
    }


def pdeinvbench_plane(train, extreme, **options):
    def make(folder):
        base = folder / "d"
        return {
            "train": layouts.pdeinvbench_2d(base / "train" / train, **options),
            "extreme": layouts.pdeinvbench_2d(base / "out_of_distribution_extreme" / extreme, **options),
        }

    return make


CASES = {
    "pdeinvbench_files_kdv": pdeinvbench_kdv,
    "pdeinvbench_files_navier_stokes": pdeinvbench_plane("83.0.h5", "8000.0.h5"),
    "pdeinvbench_files_kolmogorov": pdeinvbench_plane("nu=0.001.h5", "nu=1e-05.h5"),
    "pdeinvbench_files_reaction": pdeinvbench_plane(
        "Du=0.1_Dv=0.2_k=0.05.h5", "Du=0.5_Dv=0.01_k=0.1.h5", channels=2, low=-1.0, length=2.0, centres=True
    ),
    "pdearena_smoke_conditioned": smoke,
    "pdearena_smoke": smoke_plain,
    "pdearena_ks": ks,
    "pdearena_ks_viscosity": ks_viscosity,
    "lpsda_kdv": lpsda_kdv,
    "lpsda_ks": lpsda_ks,
    "pdebench_advection": advection,
    "pdebench_burgers": burgers,
    "pdebench_reaction_diffusion": reaction,
    "pdebench_compressible_1d": compressible(1),
    "pdebench_compressible_2d": compressible(2),
    "pdebench_compressible_3d": compressible(3),
    "pdebench_incompressible": incompressible,
    "pdebench_diffusion_reaction": seeds("2D_diff-react_NA_NA.h5"),
    "pdebench_shallow_water": seeds("2D_rdb_NA_NA.h5", components=1, entry="dam_radius"),
    "pdebench_diffusion_sorption": seeds("1D_diff-sorp_NA_NA.h5", components=1, dimensions=1),
    "mae_pdes_1d": mae,
    "mae_pdes_heat_walls": mae_walls,
    "mae_pdes_2d": mae_2d("ij"),
    "mae_pdes_2d (y first)": mae_2d("xy"),
    "the_well": well,
}


@pytest.fixture(params=CASES, ids=str)
def case(request, tmp_path):
    """(name of the format, source, {split: fields as written})."""
    written = CASES[request.param](tmp_path)
    folder = next(p for p in tmp_path.iterdir() if p.is_dir())
    return request.param.split(" ")[0], open_source(folder), written


def test_values_are_bitwise_those_written(case):
    name, source, written = case
    assert source.format == name
    assert dict(source.splits) == {split: len(v) for split, v in written.items()}
    for split, values in written.items():
        data = source.load(split)
        assert data.fields.numpy().dtype == values.dtype and np.array_equal(data.fields.numpy(), values)
        assert source.shape(split) == values.shape[1:]
        assert data.index.tolist() == list(range(len(values)))
        data.check_finite()


def test_pieces_are_pieces_of_the_whole(case):
    _, source, written = case
    split, values = next(iter(written.items()))
    rows = [len(values) - 1, 0, 0]
    cut = slice(1, values.shape[-1] - 1, 2)
    fields = list(source.field_names[::-1])
    data = source.load(
        split, rows, frames=slice(1, None, 2), space=[slice(None)] * (values.ndim - 4) + [cut], fields=fields
    )
    expected = values[rows][:, ::-1, 1::2][..., cut]
    assert np.array_equal(data.fields.numpy(), expected)
    assert data.boundary[-1] == "window" and data.field_names == tuple(fields)
    whole = source.load(split)
    assert torch.equal(data.space[-1], whole.space[-1][rows][:, cut]) and torch.equal(data.time, whole.time[rows, 1::2])
    for name, found in data.parameters.items():
        assert torch.equal(found, whole.parameters[name][rows])


def test_a_source_survives_pickling(case):
    _, source, written = case
    again = pickle.loads(pickle.dumps(source))
    for split, values in written.items():
        assert np.array_equal(again.load(split, [0]).fields.numpy(), values[:1])


def test_round_trip_through_xarray(case):
    _, source, written = case
    for split in written:
        data, dataset = source.load(split), source.to_xarray(split)
        assert dataset.attrs["format"] == source.format
        again = Trajectories.from_xarray(dataset)
        for name in ("fields", "time", "lengths", "index"):
            assert torch.equal(getattr(again, name), getattr(data, name)), name
        assert all(torch.equal(a, b) for a, b in zip(again.space, data.space, strict=True))
        assert set(again.parameters) == set(data.parameters)
        assert (again.field_names, again.boundary, again.equation) == (data.field_names, data.boundary, data.equation)


def test_every_shipped_mapping_is_tested_and_names_fields_of_its_equation():
    tested = {name.split(" ")[0] for name in CASES} | {"lpsda_burgers"}
    assert tested == set(mapping_names())
    for name in mapping_names():
        mapping = load_mapping(name)
        assert mapping["title"] and mapping["known"] and mapping["faults"]
        if mapping.get("equation"):
            equation = load_equation(mapping["equation"])
            assert set(mapping.fields) <= set(equation.dependent)
            assert set(equation.observed) <= set(mapping.fields)
            assert set(mapping.parameters) == set(equation.parameter_names.values())


# ---------------------------------------------------------------------- what each layout hides


def test_pdeinvbench_has_its_parameters_in_the_names_of_its_files(tmp_path):
    expected = {
        "pdeinvbench_files_kdv": {"dispersion": ([1.5**2] * 2, [0.8**2]), "steepening": ([1.0] * 2, [1.0])},
        "pdeinvbench_files_navier_stokes": {"viscosity": ([0.8 / 83] * 2, [1e-4] * 2)},
        "pdeinvbench_files_kolmogorov": {"viscosity": ([1e-3] * 2, [1e-5] * 2), "drag": ([0.1] * 2, [0.1] * 2)},
        "pdeinvbench_files_reaction": {
            "activator_diffusivity": ([0.1] * 2, [0.5] * 2),
            "inhibitor_diffusivity": ([0.2] * 2, [0.01] * 2),
            "threshold": ([0.05] * 2, [0.1] * 2),
        },
    }
    for name, parameters in expected.items():
        CASES[name](tmp_path / name)
        source = open_source(tmp_path / name / "d")
        assert source.format == name and set(source.parameters) == set(parameters)
        for parameter, (train, extreme) in parameters.items():
            for split, values in (("train", train), ("extreme", extreme)):
                np.testing.assert_allclose(source.parameter_values(split)[parameter], values, rtol=1e-12)
        length = {"pdeinvbench_files_kdv": 128.0, "pdeinvbench_files_reaction": 2.0}.get(name, 1.0)
        np.testing.assert_allclose(source.load("train").lengths.numpy(), length, rtol=1e-6)
    bad = tmp_path / "bad" / "delta=-1.0_ic=2.h5"
    layouts.pdeinvbench_1d(bad)
    with pytest.raises(FormatError, match="cannot be raised to 2; expected numbers > 0"):
        open_source(bad)


def test_smoke_has_true_times_and_cell_centres_and_groups_by_file(tmp_path):
    folder = tmp_path / "test_train_valid"
    layouts.smoke_folder(folder)
    source = open_source(folder)
    data = source.load("train")
    np.testing.assert_allclose(data.time[0], 13.5 + 1.5 * np.arange(5))
    for nodes in data.space:
        np.testing.assert_allclose(nodes[0], 4 * (np.arange(8) + 0.5))
    assert data.boundary == ("wall", "wall") and (data.lengths == 32).all() and data.equation == "boussinesq"
    assert source.staggered == {"u": "x", "v": "y"}
    assert data.parameters["buoyancy"].tolist() == [0.21] * 3 + [0.39216] * 3
    groups = [source.groups(split) for split in source.splits]
    assert groups[0].tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 2])
    assert len(np.unique(np.concatenate(groups))) == 4
    assert source.to_xarray("test").u.attrs["staggered"] == "lower x faces of the cells"
    assert any("splitting within a file leaks" in w for w in source.warnings)


def test_smoke_velocities_centred(tmp_path):
    layouts.smoke_folder(tmp_path / "d")
    stored = open_source(tmp_path / "d").load("test").fields.numpy()
    source = open_source(tmp_path / "d", {"format": "pdearena_smoke_conditioned", "staggering": "centred"})
    data = source.load("test").fields.numpy()
    assert source.staggered == {}
    wall = np.pad(stored, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)))
    assert np.array_equal(data[:, 0], ((wall[:, 0, :, 1:] + wall[:, 0, :, :-1]) / 2)[..., :-1])
    assert np.array_equal(data[:, 1], ((wall[:, 1, ..., 1:] + wall[:, 1, ..., :-1]) / 2)[..., :-1, :])
    assert np.array_equal(data[:, 2], stored[:, 2])
    piece = source.load("test", [1], space=(slice(5, 8), slice(0, 8, 3)))
    assert np.array_equal(piece.fields.numpy(), data[1:2, ..., 5:8, ::3])
    with pytest.raises(DataError, match="boundary: {x: wall}  or periodic; or read the values as stored"):
        open_source(
            tmp_path / "d",
            {"format": "pdearena_smoke_conditioned", "staggering": "centred", "boundary": {"x": "window"}},
        ).load("test")


def test_ks_has_its_own_steps_per_trajectory(tmp_path):
    _, arrays = layouts.lpsda(tmp_path / "KS_train_2048.h5", "train", full=False, viscosity=True)
    source = open_source(tmp_path)
    data = source.load("train")
    np.testing.assert_array_equal(data.time, arrays["dt"][:, None] * np.arange(6))
    np.testing.assert_array_equal(data.space[0], arrays["dx"][:, None] * np.arange(16))
    np.testing.assert_allclose(data.lengths[:, 0], 16 * arrays["dx"], rtol=1e-14)
    assert np.array_equal(data.parameters["hyperviscosity"], arrays["v"])
    assert (data.parameters["steepening"] == 1).all() and data.equation == "kuramoto_sivashinsky_coefficients"


def test_lpsda_coordinates_are_those_stored_and_failed_rows_are_left_out(tmp_path):
    u, arrays = layouts.lpsda(tmp_path / "KdV_train_512.h5", "train", failed=[1])
    source = open_source(tmp_path / "KdV_train_512.h5")
    data = source.load("train")
    keep = [0, 2, 3]
    assert dict(source.splits) == {"train": 3} and np.array_equal(data.fields, u[keep])
    assert np.array_equal(data.time, arrays["t"][keep]) and np.array_equal(data.space[0], arrays["x"][keep])
    np.testing.assert_allclose(data.lengths[:, 0], 16 * arrays["dx"][keep], rtol=1e-13)
    assert any("1 of 4 trajectories of split train are zero throughout" in w for w in source.warnings)
    assert source.dropped == {"zero throughout: their solver failed": 1}


def test_a_zero_first_frame_alone_is_no_failure(tmp_path):
    field = layouts.numbers(3, 6, 16)
    field[1, 0] = 0.0
    layouts.lpsda(tmp_path / "KdV_train_3.h5", "train", n=3, field=field)
    assert open_source(tmp_path).splits["train"] == 3


def test_lpsda_heat_becomes_the_standard_burgers_equation(tmp_path):
    psi, slope, x, times = layouts.lpsda_heat(tmp_path / "Heat_train_2.h5")
    source = open_source(tmp_path)
    data = source.load("train")
    exact = -2 * 0.01 * slope / psi
    np.testing.assert_allclose(data.fields[:, 0], exact, atol=1e-15)
    assert (data.parameters["viscosity"] == 0.01).all() and data.equation == "burgers"
    # LPSDA's own field: w = -(D psi)/psi/(2 nu)/100 with D = -L d/dx; the standard field is -a w, a = 4 nu^2 100/L.
    length = 2 * np.pi
    w = -(-length * slope) / psi / (2 * 0.01) / 100
    np.testing.assert_allclose(data.fields[:, 0], -(4 * 0.01**2 * 100 / length) * w, atol=1e-15)
    # The residual of u_t + u u_x = nu u_xx in spectral derivatives, with u_t by Cole-Hopf from psi_t = nu psi_xx.
    k = 1j * np.fft.rfftfreq(64, 1 / 64)
    u = data.fields[:, 0].numpy()
    u_x, u_xx = (np.fft.irfft(k**m * np.fft.rfft(u), n=64) for m in (1, 2))
    psi_t = 0.01 * np.fft.irfft(k**2 * np.fft.rfft(psi), n=64)
    psi_tx = np.fft.irfft(k * np.fft.rfft(psi_t), n=64)
    u_t = -0.02 * (psi_tx / psi - slope * psi_t / psi**2)
    assert np.abs(u_t + u * u_x - 0.01 * u_xx).max() < 1e-9 * np.abs(u_t).max() + 1e-12
    piece = source.load("train", [1], frames=slice(2, 3), space=(slice(3, 9),))
    assert np.array_equal(piece.fields[0, 0, 0], u[1, 2, 3:9])


def test_a_potential_that_is_not_positive_is_refused(tmp_path):
    layouts.lpsda(tmp_path / "Heat_train_4.h5", "train")
    with pytest.raises(DataError, match="not positive"):
        open_source(tmp_path).load("train")


def test_pdebench_viscosity_is_divided_by_pi_and_the_last_time_left_out(tmp_path):
    for nu, attributes in ((0.001, {"Nu": 0.001}), (0.1, {}), (4, {"Nu": 4.0})):
        layouts.pdebench_1d(tmp_path / f"1D_Burgers_Sols_Nu{nu}.hdf5", attributes)
    source = open_source(tmp_path)
    found = np.unique(source.parameter_values("train")["viscosity"])
    np.testing.assert_allclose(found, np.array([0.001, 0.1, 4.0]) / np.pi, rtol=1e-15)
    data = source.load("train", [0])
    assert data.time.shape == (1, 5) and data.boundary == ("periodic",)
    np.testing.assert_allclose(data.lengths, 1.0, rtol=1e-6)
    # the same initial fields are used in every file, so a number in the file is a group
    assert source.groups("test").tolist() == [0, 0, 0]
    assert source.groups("train").tolist() == list(range(1, 10)) * 3


def test_an_attribute_that_contradicts_the_name_is_reported(tmp_path):
    layouts.pdebench_1d(tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5", {"Nu": 0.2})
    source = open_source(tmp_path)
    assert any("attribute Nu is 0.2, the file's name says 0.1" in w for w in source.warnings)


def test_a_missing_parameter_says_how_to_give_it(tmp_path):
    layouts.pdebench_1d(tmp_path / "1D_Burgers.hdf5", {})
    with pytest.raises(FormatError, match=r"no attribute 'Nu' and no 'Nu' in the file's name. Give it in the mapping"):
        open_source(tmp_path)


def test_compressible_parameters_from_names_and_open_boundaries(tmp_path):
    name = "1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5"
    layouts.pdebench_compressible(tmp_path / name, 1, {})
    source = open_source(tmp_path / name)
    assert source.boundary == ("window",)
    assert source.parameter_values("train")["shear_viscosity"][0] == 1e-8
    name = "2D_CFD_Turb_M1.0_Eta0.01_Zeta0.02_periodic_512_Train.hdf5"
    layouts.pdebench_compressible(tmp_path / name, 2, {})
    source = open_source(tmp_path / name)
    values = {n: v[0] for n, v in source.parameter_values("train").items()}
    assert values == {"shear_viscosity": 0.01, "bulk_viscosity": 0.02, "mach_number": 1.0}
    assert source.boundary == ("periodic", "periodic")


def test_the_repeated_end_of_a_periodic_axis_is_measured(tmp_path):
    layouts.mae_1d(tmp_path / "Advection_train_3.h5", "train", a=1.0)
    data = open_source(tmp_path / "Advection_train_3.h5").load("train")
    assert data.fields.shape[-1] == 8 and (data.lengths == 16).all()
    layouts.mae_1d(tmp_path / "KS_train_3.h5", "train", repeated=False, v=1.0)
    data = open_source(tmp_path / "KS_train_3.h5").load("train")
    assert data.fields.shape[-1] == 9
    np.testing.assert_allclose(data.lengths, 18.0)
    layouts.mae_1d(tmp_path / "WaveNeu_train_3.h5", "train", c=1.0)
    assert open_source(tmp_path / "WaveNeu_train_3.h5").boundary == ("window",)


def test_heat_between_walls_has_true_times_and_nodes(tmp_path):
    layouts.mae_1d(tmp_path / "HeatNeumann_train_3.h5", "train", repeated=False, frames=5, points=8, nu=0.4)
    source = open_source(tmp_path / "HeatNeumann_train_3.h5")
    data = source.load("train")
    assert source.format == "mae_pdes_heat_walls" and data.boundary == ("window",) and data.fields.shape[-1] == 8
    np.testing.assert_allclose(data.time[0], 0.008 + 2 / 5 * np.arange(5), rtol=1e-6)
    np.testing.assert_allclose(data.space[0][0], 16 / 8 * np.arange(8))
    assert any("the diffusivity is 1/nu" in w for w in source.warnings)


def test_runs_in_groups_have_their_own_parameters_and_their_axes_in_order(tmp_path):
    written = layouts.pdebench_seeds(tmp_path / "2D_rdb_NA_NA.h5", components=1, entry="dam_radius")
    source = open_source(tmp_path / "2D_rdb_NA_NA.h5")
    np.testing.assert_allclose(source.parameter_values("train")["dam_radius"], 0.3 + np.arange(9) / 100)
    assert np.array_equal(source.load("test").fields[:, 0], written[9:, 0])
    other = tmp_path / "other" / "2D_rdb_NA_NA.h5"
    layouts.pdebench_seeds(other, components=1, entry="dam_radius")
    with h5py.File(other, "r+") as file:
        file["0003"].attrs["config"] = "sim: {}"
    assert open_source(other).parameters == ()
    wanted = {"format": "pdebench_shallow_water", "parameters": {"r": {"attribute": "config", "entry": "dam_radius"}}}
    with pytest.raises(FormatError, match="no attribute 'config' and no line 'dam_radius: NUMBER' in it"):
        open_source(other, wanted)
    layouts.pdebench_incompressible(tmp_path / "ns" / "ns_incom_inhom_2d_512-0.h5", viscosity=2e-3)
    assert open_source(tmp_path / "ns").parameter_values("all")["viscosity"].tolist() == [2e-3, 2e-3]
    # diffusion and reaction: y before x in the file, walls half a step beyond the outer nodes
    layouts.pdebench_seeds(tmp_path / "2D_diff-react_NA_NA.h5")
    data = open_source(tmp_path / "2D_diff-react_NA_NA.h5").load("train")
    assert data.fields.shape == (9, 2, 4, 6, 8) and data.boundary == ("wall", "wall")
    np.testing.assert_allclose(data.lengths, 2.0, rtol=1e-6)


def test_mesh_grids_of_either_order_give_axes_x_y(tmp_path):
    for indexing in ("ij", "xy"):
        layouts.mae_2d(tmp_path / f"{indexing}_train_2.h5", "train", indexing)
        data = open_source(tmp_path / f"{indexing}_train_2.h5").load("train")
        assert data.axis_names == ("x", "y") and data.fields.shape[-2:] == (5, 6)
        np.testing.assert_allclose(data.space[0][0], np.linspace(-1, 0.6, 5), atol=1e-7)
        np.testing.assert_allclose(data.space[1][0], np.linspace(-1, 0.8, 6), atol=1e-7)
    with h5py.File(tmp_path / "ij_train_2.h5", "r+") as file:
        file["train/x"][0, 2, 3] = 9.0
    with pytest.raises(FormatError, match="not the mesh grid"):
        open_source(tmp_path / "ij_train_2.h5")


def test_the_well_has_channels_in_the_order_of_its_attributes(tmp_path):
    well(tmp_path)
    source = open_source(tmp_path / "d")
    names = ("b", "a", "static", "ribbed", "velocity_x", "velocity_y", "D_xx", "D_xy", "D_yx", "D_yy")
    assert source.field_names == names and source.boundary == ("periodic", "wall")
    assert source.parameter_values("train")["viscosity"].tolist() == [0.3] * 3 + [0.4] * 3
    assert source.groups("train").tolist() == [1, 1, 1, 2, 2, 2] or len(set(source.groups("train").tolist())) == 2
    layouts.the_well(tmp_path / "empty.hdf5", mask=False)
    empty = open_source(tmp_path / "empty.hdf5")
    assert empty.boundary == ("window", "window")
    assert any("empty mask, so axis x reads as open" in w for w in empty.warnings)
    said = open_source(tmp_path / "empty.hdf5", {"format": "the_well", "boundary": {"x": "periodic"}})
    assert said.boundary == ("periodic", "window")


def test_files_of_the_well_with_different_numbers_of_frames(tmp_path):
    base = tmp_path / "data" / "train"
    long, short = layouts.the_well(base / "a.hdf5"), layouts.the_well(base / "b.hdf5", frames=3)
    source = open_source(tmp_path)
    assert np.array_equal(source.load("train").fields, long)
    assert np.array_equal(source.load("train_3frames").fields, short)
    assert any("runs differ in length: 3 of 5 frames, 3 of 3" in w for w in inspect(tmp_path).warnings)


def test_the_well_attributes_that_contradict_the_array_are_refused(tmp_path):
    layouts.the_well(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["t0_fields/a"].attrs["time_varying"] = False
    with pytest.raises(FormatError, match="Repair the attributes sample_varying, time_varying"):
        open_source(tmp_path / "a.hdf5")


def test_splits_by_folder_and_by_name_never_by_the_path(tmp_path):
    base = tmp_path / "train" / "test"
    for folder, name in (("runs", "run_val_3.h5"), ("test", "run_1.h5"), ("runs", "contest_4.h5")):
        layouts.write(base / folder / name, {"u": layouts.numbers(2, 3, 4)})
    mapping = {
        "fields": {"u": {}},
        "dimensions": ["trajectory", "time", "x"],
        "time": {"step": 0.1},
        "space": {"x": {"length": 1.0}},
    }
    source = open_source(base / "runs", mapping)
    assert dict(source.splits) == {"validation": 2, "all": 2}
    assert dict(open_source(tmp_path / "train" / "test", mapping).splits) == {"validation": 2, "test": 2, "all": 2}


def test_names_and_detection(tmp_path):
    assert detect(tmp_path / "nothing") is None
    layouts.write(tmp_path / "own.h5", {"velocity": layouts.numbers(2, 3, 4)})
    assert detect(tmp_path / "own.h5") is None
    with pytest.raises(FormatError, match=r"It holds 'velocity' \(2, 3, 4\). Describe it"):
        open_source(tmp_path / "own.h5")
    with pytest.raises(CatalogError, match="no mapping named 'pdearena_smok'. Did you mean 'pdearena_smoke'"):
        open_source(tmp_path / "own.h5", "pdearena_smok")
    layouts.smoke_folder(tmp_path / "d")
    assert isinstance(load_mapping("pdearena_smoke"), DatasetMapping)
    assert open_source(tmp_path / "d", "pdearena_smoke_conditioned").splits == detect(tmp_path / "d").splits
    assert "pdearena_smoke" in catalog.names("datasets")
