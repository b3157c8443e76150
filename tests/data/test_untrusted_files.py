"""Files by strangers choose nothing that is read outside them: external storage, virtual arrays, links."""

import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray as xr

import pdessl.data
from pdessl.cli import main
from pdessl.data.arrays import FileArray
from pdessl.data.formats.labelled import LabelledFile
from pdessl.data.shards import entry_of, open_shard
from pdessl.errors import FormatError

SECRET = b"\x01\x02" * 96


def external(group, name, folder, shape=(2, 3, 4)):
    source = folder / "secret.bin"
    source.write_bytes(SECRET)
    if name in group:
        del group[name]
    return group.create_dataset(name, shape, "u1", external=[(str(source), 0, h5py.h5f.UNLIMITED)])


def virtual(group, name, folder, shape=(2, 3, 4)):
    with h5py.File(folder / "other.h5", "w") as other:
        other["u"] = np.ones(shape, "f4")
    if name in group:
        del group[name]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "u", shape)
    return group.create_virtual_dataset(name, layout)


def link(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["u"] = np.ones((2, 3, 4), "f4")
    group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/u")


@pytest.mark.parametrize("make", [external, virtual, link])
@pytest.mark.parametrize("place", ["/", "a", "a/b/c/d/e"])
def test_labelled_files_that_read_elsewhere_are_refused_however_small_and_deep(tmp_path, make, place):
    path = tmp_path / "runs.nc"
    with h5py.File(path, "w") as file:
        make(file if place == "/" else file.create_group(place), "u", tmp_path)
        file["reached"] = h5py.SoftLink(f"/{place}/u")
    with pytest.raises(
        FormatError, match=r"(in other files|links to other files).*copy the data into one file:  python -c"
    ):
        LabelledFile(path)
    with pytest.raises(FormatError, match="other files"):
        pdessl.data.open(path, isolate=False)


def test_a_group_that_holds_itself_ends_the_search(tmp_path):
    with h5py.File(tmp_path / "loop.nc", "w") as file:
        file["a/b"] = np.ones(3)
        file["a/again"] = file["a"]
        external(file["a"], "z", tmp_path)
    with pytest.raises(FormatError, match="array 'a/z' keeps its values in other files"):
        LabelledFile(tmp_path / "loop.nc")


def test_mapped_files_and_single_arrays(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external(file, "u", tmp_path)
    mapping = {"dimensions": ["trajectory", "time", "x"], "fields": {"u": {}}, "time": {"step": 1}}
    with pytest.raises(FormatError, match="keeps its values in other files"):
        pdessl.data.open(tmp_path / "a.h5", {**mapping, "space": {"x": {"step": 1}}, "integers": "convert"}, False)
    with pytest.raises(FormatError, match="keeps its values in other files"):
        FileArray(tmp_path / "a.h5", "u")


def follow(message, old, new):
    command = re.search(r'python -c "(.*)"', message).group(1).replace("'OLD'", repr(str(old)))
    subprocess.run([sys.executable, "-c", command.replace("'NEW'", repr(str(new)))], check=True, timeout=60)


def test_the_repair_of_an_array_works(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external(file, "u", tmp_path)
    with pytest.raises(FormatError) as caught:
        FileArray(tmp_path / "a.h5", "u")
    follow(str(caught.value), tmp_path / "a.h5", tmp_path / "b.h5")
    assert FileArray(tmp_path / "b.h5", "u")[:].tobytes() == SECRET[:24]


def test_the_repair_never_holds_a_name_that_a_shell_or_python_would_run(tmp_path):
    name = "u'];__import__('os').system('id');['$(id)"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external(file, name, tmp_path)
    with pytest.raises(FormatError) as caught:
        FileArray(tmp_path / "a.h5", name)
    assert "import" not in str(caught.value).split("python -c")[1].replace("import h5py", "")


@pytest.mark.parametrize("make", [external, virtual])
def test_the_repair_of_a_netcdf_file_works(tmp_path, make):
    path = tmp_path / "a.nc"
    coordinates = {"trajectory": range(2), "time": [0.0, 0.5, 1.0], "x": [0.0, 1.0, 2.0, 3.0]}
    xr.Dataset(coords=coordinates).to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "r+") as file:
        made = make(file, "u", tmp_path)
        for axis, name in enumerate(coordinates):
            made.dims[axis].attach_scale(file[name])
        held = made[()]
    with pytest.raises(FormatError) as caught:
        LabelledFile(path)
    follow(str(caught.value), path, tmp_path / "b.nc")
    assert np.array_equal(LabelledFile(tmp_path / "b.nc").read("u"), held)


def falsified(store, change):
    """Change a shard as somebody would who also writes the manifest."""
    path = store.path / "test-00000.nc"
    with h5py.File(path, "r+") as file:
        change(file)
    manifest = json.loads((store.path / "manifest.json").read_text())
    entry = next(e for e in manifest["splits"]["test"]["shards"] if e["file"] == path.name)
    entry |= entry_of(path, entry["start"], entry["count"])
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    return pdessl.data.open(store.path), path


def soft(group, name, folder):
    group["kept"] = group[name]
    del group[name]
    group[name] = h5py.SoftLink("/kept")


@pytest.mark.parametrize("make", [external, virtual, link, soft])
@pytest.mark.parametrize("name", ["u", "viscosity", "length_x"])
def test_shards_that_read_elsewhere_are_refused(tmp_path, copied_store, make, name):
    def change(file):
        if make in (external, virtual):
            make(file, name, tmp_path, file[name].shape if name in file else (2, 3, 4))
            return
        if make is link and name in file:
            del file[name]
        make(file, name, tmp_path)

    if name == "viscosity":
        with h5py.File(copied_store.path / "test-00000.nc") as file:
            assert name in file
    store, path = falsified(copied_store, change)
    expected = "(in other files|links to other files|is a soft link).*pdessl writes no such file. Delete it"
    with pytest.raises(FormatError, match=expected):
        store.load("test")
    with pytest.raises(FormatError, match=expected):
        open_shard(path)


def test_following_the_advice_restores_a_falsified_shard(tmp_path, copied_store, capsys):
    expected = copied_store.load("test").fields
    store, path = falsified(copied_store, lambda file: external(file, "u", tmp_path, file["u"].shape))
    with pytest.raises(FormatError, match=r"Delete it.*generate it again: pdessl generate .* --resume"):
        store.load("test")
    path.unlink()
    assert main([*store.command.split()[1:], "--resume"]) == 0
    assert bool((pdessl.data.open(store.path).load("test").fields == expected).all())
