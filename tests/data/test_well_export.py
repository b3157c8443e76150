"""Exports in The Well's layout: complete by its rules, and read back as they were."""

import h5py
import layouts
import numpy as np
import pytest
import yaml

import pdessl.data
from pdessl import cli
from pdessl.data.formats import open_source
from pdessl.data.formats.well_export import export_well
from pdessl.errors import StoreError


def check_format(path):
    """The rules of the format, version 1.2: attributes, flags, and the shape that the flags say."""
    with h5py.File(path, "r") as file:
        root = file.attrs
        assert isinstance(root["dataset_name"], str) and isinstance(root["grid_type"], str)
        assert isinstance(root["n_spatial_dims"], np.integer) and isinstance(root["n_trajectories"], np.integer)
        axes = list(file["dimensions"].attrs["spatial_dims"])
        assert len(axes) == root["n_spatial_dims"] and all(isinstance(a, str) for a in axes)
        frames = file["dimensions/time"].shape[-1]
        for name in root["simulation_parameters"]:
            assert name in root and name in file["scalars"]

        def flags(item):
            found = [item.attrs[flag] for flag in ("sample_varying", "time_varying")]
            assert all(isinstance(f, np.bool_) for f in found), item.name
            return found

        def expected(item, *more):
            sample, time = flags(item)
            return (root["n_trajectories"],) * bool(sample) + (frames,) * bool(time) + more

        assert file["dimensions/time"].shape == expected(file["dimensions/time"])
        for axis in axes:
            nodes = file["dimensions"][axis]
            assert nodes.shape[:-1] == expected(nodes) and nodes.dtype == "<f4"
        for name in file["scalars"].attrs["field_names"]:
            assert file["scalars"][name].shape == expected(file["scalars"][name])
        for rank in range(3):
            group = file[f"t{rank}_fields"]
            assert set(group.attrs["field_names"]) == set(group)
            for name in group:
                varies = group[name].attrs["dim_varying"]
                assert len(varies) == len(axes)
                sizes = [file["dimensions"][a].shape[-1] for a, v in zip(axes, varies, strict=True) if v]
                assert group[name].shape == expected(group[name], *sizes, *[len(axes)] * rank)
                assert group[name].dtype == "<f4"
        for name, group in file["boundary_conditions"].items():
            flags(group)
            (axis,) = group.attrs["associated_dims"]
            assert axis in name and group.attrs["bc_type"].lower() in name and group.attrs["bc_type"].isupper()
            assert group["mask"].shape == (file["dimensions"][axis].shape[-1],) and group["mask"][()].any()
            assert len(group.attrs["associated_fields"]) == 0


def test_the_checker_finds_what_is_wrong(tmp_path):
    layouts.the_well(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["boundary_conditions/x_periodic"].attrs["bc_type"] = "PERIODIC"
        del file["t0_fields/a"].attrs["time_varying"]
    with pytest.raises(KeyError):
        check_format(tmp_path / "a.hdf5")


def test_smoke_is_exported_by_the_rules_and_read_back(tmp_path):
    layouts.smoke_folder(tmp_path / "smoke")
    source = open_source(tmp_path / "smoke")
    files = export_well(source, tmp_path / "well", "smoke")
    assert sorted(p.parent.name for p in files) == ["test", "train", "valid"]
    for path in files:
        check_format(path)
    again = open_source(tmp_path / "well")
    assert again.field_names == ("s", "velocity_x", "velocity_y") and again.boundary == ("wall", "wall")
    assert dict(again.splits) == dict(source.splits)
    for split in source.splits:
        a, b = source.load(split), again.load(split)
        assert np.array_equal(b.fields[:, 0], a.fields[:, 2])
        # From the lower faces to the centres; the far walls, where the velocity vanishes, are not stored.
        for channel, axis in ((0, 2), (1, 3)):
            faces = np.moveaxis(a.fields[:, channel].numpy(), axis, -1)
            beyond = np.concatenate([faces[..., 1:], 0 * faces[..., :1]], axis=-1)
            assert np.array_equal(np.moveaxis(b.fields[:, 1 + channel].numpy(), axis, -1), (faces + beyond) / 2)
        np.testing.assert_allclose(b.time, a.time, rtol=1e-6)
        np.testing.assert_allclose(b.parameters["buoyancy"], a.parameters["buoyancy"], rtol=1e-6)
    values = again.load("train").fields[:, [1, 2, 0]].double().numpy()
    statistics = yaml.safe_load((tmp_path / "well" / "stats.yaml").read_text())
    np.testing.assert_allclose(statistics["mean"]["velocity"], values[:, :2].mean((0, 2, 3, 4)), atol=1e-12)
    np.testing.assert_allclose(statistics["std_delta"]["s"], np.diff(values[:, 2], axis=1).std(), rtol=1e-10)
    assert set(statistics) == {"mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"}
    found = pdessl.data.inspect(tmp_path / "well")
    assert not any("stats.yaml lacks" in w for w in found.warnings)


def test_tensors_and_coordinates_per_trajectory_survive(tmp_path):
    layouts.the_well(tmp_path / "w" / "data" / "train" / "a.hdf5", order=("b", "a"))
    source = open_source(tmp_path / "w")
    export_well(source, tmp_path / "again")
    again = open_source(tmp_path / "again")
    assert again.field_names == source.field_names
    assert np.array_equal(again.load("train").fields, source.load("train").fields)
    layouts.lpsda(tmp_path / "k" / "KdV_train_4.h5", "train")
    kdv = open_source(tmp_path / "k")
    (path,) = export_well(kdv, tmp_path / "kdv")
    check_format(path)
    a, b = kdv.load("train"), open_source(tmp_path / "kdv").load("train")
    np.testing.assert_allclose(b.space[0], a.space[0], rtol=1e-6)
    np.testing.assert_allclose(b.time, a.time, rtol=1e-6)
    assert np.array_equal(b.fields, a.fields.float()) and b.boundary == ("periodic",)


def test_the_command_exports_a_store(small_store, tmp_path, capsys):
    assert cli.main(["convert", str(small_store.path), "--format", "well", "--out", str(tmp_path / "w")]) == 0
    assert "4 files in The Well's layout" in capsys.readouterr().out
    for path in (tmp_path / "w").rglob("*.hdf5"):
        check_format(path)
    again = open_source(tmp_path / "w" / "data" / "test").load("test")
    test = small_store.load("test")
    assert np.array_equal(again.fields, test.fields) and again.field_names == ("velocity_x",)
    np.testing.assert_allclose(again.parameters["viscosity"], test.parameters["viscosity"], rtol=1e-6)
    with pytest.raises(StoreError, match="is not empty"):
        export_well(small_store, tmp_path / "w")
