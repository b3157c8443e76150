"""The store on disk: what it holds, how it is read, and what happens when it is damaged."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

import pdessl.data
from pdessl import cli, files
from pdessl.data import load_recipe, simulate
from pdessl.data.shards import _netcdf4, entry_of, write_shard
from pdessl.errors import CatalogError, DataError, FormatError, StoreError
from pdessl.files import fast_checksum, replacing


def test_a_shard_is_a_netcdf_file_that_explains_itself(small_store):
    with xr.open_dataset(small_store.path / "test-00000.nc", engine="h5netcdf") as dataset:
        assert dict(dataset.sizes) == {"trajectory": 8, "time": 24, "x": 32}
        assert dataset.u.dims == ("trajectory", "time", "x") and dataset.u.dtype == np.float32
        assert dataset.u.attrs["units"] == "length/time" and dataset.x.attrs["units"] == "length"
        assert dataset.viscosity.attrs["units"] == "length^2/time" and dataset.viscosity.dims == ("trajectory",)
        np.testing.assert_allclose(dataset.x, np.arange(32) * 2 * np.pi / 32)
        np.testing.assert_allclose(dataset.time, np.linspace(0, 2, 24))
        recipe = json.loads(dataset.attrs["recipe"])
        assert recipe["parameters"]["viscosity"]["low"] == 0.05
        assert dataset.attrs["recipe_hash"] == load_recipe("burgers_small").hash
        assert dataset.attrs["seed"] == 0 and dataset.attrs["split"] == "test"
        assert json.loads(dataset.attrs["versions"])["torch"] == torch.__version__


def test_unlabelled_shards_hold_no_parameters(small_store):
    with xr.open_dataset(small_store.path / "unlabelled-00000.nc", engine="h5netcdf") as dataset:
        assert set(dataset.data_vars) == {"u", "length_x"}
    assert small_store.load("unlabelled").parameters == {}


def test_load_returns_the_trajectories_that_were_asked_for(small_store):
    everything = small_store.load("unlabelled")
    assert everything.fields.shape == (48, 1, 24, 32) and everything.fields.dtype == torch.float32
    assert everything.boundary == ("periodic",) and everything.equation == "burgers"
    torch.testing.assert_close(everything.index, torch.arange(48))
    wanted = [40, 3, 3, 17, -1]
    some = small_store.load("unlabelled", wanted)
    assert torch.equal(some.fields, everything.fields[wanted])
    assert some.index.tolist() == [40, 3, 3, 17, 47]
    assert torch.equal(small_store.load("unlabelled", slice(14, 20)).fields, everything.fields[14:20])


PIECES = [
    {"frames": slice(3, 19)},
    {"frames": slice(1, None, 4), "space": (slice(8, 24),)},
    {"space": (slice(0, None, 2),), "fields": ["u"]},
    {"frames": slice(-2, None)},
]


@pytest.mark.parametrize("piece", PIECES, ids=str)
@pytest.mark.parametrize("indices", [None, 7, [40, 3, 3, 17], slice(10, 30)], ids=str)
def test_a_piece_is_bitwise_the_slice_of_the_whole(small_store, piece, indices):
    whole = small_store.load("unlabelled", indices)
    part = small_store.load("unlabelled", indices, **piece)
    cut = whole.window(piece.get("frames", slice(None)), *piece.get("space", ()))
    assert torch.equal(part.fields, cut.fields) and torch.equal(part.time, cut.time)
    assert torch.equal(part.space[0], cut.space[0]) and torch.equal(part.index, whole.index)
    whole_period = piece.get("space", (slice(None),))[0].start in (None, 0)
    assert part.boundary == (("periodic",) if whole_period else ("window",))
    assert torch.equal(part.lengths, whole.lengths if whole_period else cut.lengths)


def test_a_store_is_a_source(small_store):
    assert small_store.format == "store" and small_store.field_names == ("u",) and small_store.axis_names == ("x",)
    assert small_store.parameters == ("viscosity",) and small_store.shape("test") == (1, 24, 32)
    assert small_store.mapped("unlabelled") and len(small_store) == 80
    values = small_store.parameter_values("labelled")["viscosity"]
    assert np.array_equal(values, small_store.load("labelled").parameters["viscosity"].numpy())
    assert small_store.parameter_values("unlabelled") == {}
    groups = np.concatenate([small_store.groups(split) for split in small_store.splits])
    assert len(np.unique(groups)) == 80  # every trajectory was drawn by itself
    assert small_store.units["viscosity"] == "length^2/time" and small_store.warnings == ()


def test_trajectories_that_share_a_parameter_are_a_group(tmp_path):
    sizes = {"unlabelled": 8, "labelled": 5, "validation": 4, "test": 4}
    shared = {"parameters.viscosity.per": 4}
    store = pdessl.data.generate("burgers_small", tmp_path / "s", size=sizes, overrides=shared, progress=False)
    assert store.groups("unlabelled").tolist() == [0] * 4 + [1] * 4
    assert store.groups("labelled").tolist() == [2] * 4 + [3] and store.groups("test").tolist() == [5] * 4
    values = store.parameter_values("labelled")["viscosity"]
    assert len(set(values[:4])) == 1 and values[4] != values[0]


def test_a_store_travels_between_processes(small_store):
    import pickle

    whole = small_store.load("test")
    copy = pickle.loads(pickle.dumps(small_store))
    assert torch.equal(copy.load("test", frames=slice(0, 3)).fields, whole.fields[:, :, :3])


def test_what_is_stored_is_what_is_simulated_in_any_batch(small_store):
    stored = small_store.load("labelled")
    alone = simulate("burgers_small", "labelled", [5])
    torch.testing.assert_close(alone.fields[0], stored.fields[5], rtol=0, atol=1e-6)
    torch.testing.assert_close(alone.parameters["viscosity"][0], stored.parameters["viscosity"][5])


def test_trajectories_do_not_depend_on_shard_size_or_on_the_size_of_the_split(small_store, tmp_path):
    other = pdessl.data.generate(
        "burgers_small",
        tmp_path / "s",
        size={"unlabelled": 11, "labelled": 0},
        overrides={"shard_size": 5},
        progress=False,
    )
    torch.testing.assert_close(
        other.load("unlabelled").fields, small_store.load("unlabelled", range(11)).fields, rtol=0, atol=1e-6
    )
    assert [s["count"] for s in other.shards("unlabelled")] == [5, 5, 1]


def test_noise_has_the_level_of_the_recipe_and_leaves_the_physics_alone():
    noisy = simulate("burgers_small", "test", range(8)).fields
    clean = simulate(load_recipe("burgers_small", overrides={"observation.noise": 0.0}), "test", range(8)).fields
    level = load_recipe("burgers_small").observation["noise"]
    noise = noisy - clean
    assert abs(noise.std().item() / level - 1) < 0.03 and abs(noise.mean().item()) < 4 * level / noise.numel() ** 0.5
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert abs(neighbours.item()) < 0.05


def test_to_xarray_of_all_splits(small_store):
    whole = small_store.to_xarray()
    assert whole.sizes["trajectory"] == len(small_store) and whole.viscosity.attrs["units"] == "length^2/time"
    unlabelled = whole.split.values == "unlabelled"
    assert (
        np.array_equal(np.isnan(whole.viscosity.values), unlabelled)
        and unlabelled.sum() == small_store.splits["unlabelled"]
    )
    values = whole.viscosity.values[whole.split.values == "test"]
    assert np.array_equal(values, small_store.parameter_values("test")["viscosity"])
    assert "frames; x" in repr(small_store.load("test")) and len(repr(small_store.load("test"))) < 120


def test_to_xarray(small_store):
    dataset = small_store.to_xarray("labelled")
    assert dataset.viscosity.attrs["units"] == "length^2/time" and dataset.sizes["trajectory"] == 16
    assert np.array_equal(dataset.u.values, small_store.load("labelled").fields[:, 0].numpy())


def test_asking_for_what_is_not_there(small_store, tmp_path):
    with pytest.raises(CatalogError, match="no split 'lablled'. Did you mean 'labelled'"):
        small_store.load("lablled")
    with pytest.raises(IndexError, match="8 trajectories, no number 8"):
        small_store.load("test", [8])
    with pytest.raises(DataError, match="no trajectories"):
        small_store.load("test", [])
    with pytest.raises(CatalogError, match="no field 'v'. Fields: u"):
        small_store.load("test", fields=["v"])
    with pytest.raises(DataError, match="leaves nothing of the 24 nodes along time"):
        small_store.load("test", frames=slice(30, 40))
    with pytest.raises(DataError, match="2 space slices for the axes x"):
        small_store.load("test", space=(slice(3), slice(3)))
    with pytest.raises(StoreError, match="pdessl generate DATASET --out"):
        pdessl.data.open(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        pdessl.data.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(StoreError, match="not the manifest of a pdessl store"):
        pdessl.data.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 20000])
def test_a_truncated_shard_is_refused_and_resume_repairs_it(copied_store, small_store, keep):
    shard = copied_store.path / "test-00000.nc"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:keep])
    with pytest.raises(FormatError, match=r"damaged: .* --resume"):
        copied_store.load("test")
    with pytest.raises(FormatError, match="truncated or not a netCDF-4/HDF5 file"):
        pdessl.data.inspect(shard)
    assert copied_store.verify() == ["test-00000.nc"]
    repaired = pdessl.data.generate("burgers_small", copied_store.path, resume=True, progress=False)
    assert repaired.verify() == [] and shard.read_bytes() == whole


def test_flipped_bytes_are_found_by_checksum(copied_store):
    shard = copied_store.path / "unlabelled-00001.nc"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    assert copied_store.verify() == ["unlabelled-00001.nc"]
    assert pdessl.data.generate("burgers_small", copied_store.path, resume=True, progress=False).verify() == []


def rewrite(store, name, change):
    """Change a shard behind the manifest's back, as another program would."""
    path = store.path / name
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        changed = change(dataset.load())
    path.unlink()
    changed.to_netcdf(path, engine="h5netcdf")
    manifest = json.loads((store.path / "manifest.json").read_text())
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            if shard["file"] == name:
                shard |= entry_of(path, shard["start"], shard["count"])
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    return pdessl.data.open(store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign(u=d.u.where(d.time != d.time[3])), "'u' is not finite"),
        (lambda d: d.drop_vars("x"), "coordinate 'x' is missing"),
        (lambda d: d.drop_vars("u"), "no variable 'u'"),
        (lambda d: d.drop_vars("viscosity"), "no parameter 'viscosity'"),
        (lambda d: d.assign(u=d.u.mean("x")), "no variable|dimensions"),
        (lambda d: d.isel(time=slice(None, None, -1)), "strictly increasing"),
    ],
)
def test_bad_content_is_refused_with_the_file_named(copied_store, change, message):
    store = rewrite(copied_store, "test-00000.nc", change)
    with pytest.raises(DataError, match=message) as caught:
        store.load("test")
    assert "test-00000.nc" in str(caught.value)


@pytest.mark.parametrize("verify", [True, False])
def test_a_shard_in_the_place_of_another_is_refused(copied_store, verify):
    """Labelled runs must not stand for test runs; sizes are equal, and whoever swaps may swap the manifest's too."""
    one, other = (copied_store.path / n for n in ("labelled-00000.nc", "test-00000.nc"))
    whole = other.read_bytes()
    other.write_bytes(one.read_bytes())
    manifest = json.loads((copied_store.path / "manifest.json").read_text())
    entry = manifest["splits"]["test"]["shards"][0]
    entry |= {**entry_of(one, 0, entry["count"]), "file": other.name}
    (copied_store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"of split 'labelled' from trajectory 0.*expected 'test'.*--resume"):
        pdessl.data.open(copied_store.path, verify=verify).load("test", 0)
    assert pdessl.data.open(copied_store.path).verify() == ["test-00000.nc"]
    other.write_bytes(whole)


def test_changed_values_are_found_when_a_shard_is_first_opened_and_it_is_read_once(copied_store, monkeypatch):
    from pdessl.data import shards

    read = []
    monkeypatch.setattr(shards, "fast_checksum", lambda path: read.append(path.name) or fast_checksum(path))
    for _ in range(2):
        pdessl.data.open(copied_store.path).load("test")
    again = pickle.loads(pickle.dumps(pdessl.data.open(copied_store.path)))  # as a process that loads has it
    again.load("test")
    assert read.count("test-00000.nc") == 1 and len(read) == len(set(read))
    shard = copied_store.path / "test-00000.nc"
    with h5py.File(shard, "r+") as file:
        file["viscosity"][0] += 1e-3
    assert shard.stat().st_size == copied_store.manifest["splits"]["test"]["shards"][0]["bytes"]
    with pytest.raises(FormatError, match="checksum differs from the manifest's.*--resume"):
        pdessl.data.open(copied_store.path).load("test")
    assert read.count("test-00000.nc") == 2
    assert len(pdessl.data.open(copied_store.path, verify=False).load("test")) == 8
    assert read.count("test-00000.nc") == 2


def test_inspect_verify_names_what_is_wrong(copied_store, capsys):
    assert cli.main(["inspect", str(copied_store.path), "--verify"]) == 0
    assert "shards are as the manifest says" in capsys.readouterr().out
    with (copied_store.path / "test-00000.nc").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"abc")
    assert cli.main(["inspect", str(copied_store.path), "--verify"]) == 2
    said = capsys.readouterr().err
    assert "1 of " in said and "test-00000.nc" in said and "--resume" in said


def test_two_processes_cannot_write_one_store(tmp_path, small_store):
    """The second is refused while the first lives, also by its own recipe; a lock of a process that is gone is not."""
    out = tmp_path / "s"
    refused = []

    def second(state):
        if not refused:
            for settings in ({"seed": 5}, {}):
                with pytest.raises(
                    StoreError, match=rf"another process writes to .*: process {os.getpid()} on .*delete"
                ):
                    pdessl.data.generate("burgers_small", out, overrides=settings, resume=True, progress=False)
                refused.append(settings)

    store = pdessl.data.generate("burgers_small", out, progress=second)
    assert len(refused) == 2 and same_files(store.path, small_store.path)
    held = subprocess.run([sys.executable, "-c", LOCKED, str(out)], capture_output=True, text=True)
    assert held.returncode == -signal.SIGKILL and (out / files.LOCK).exists()
    (out / "test-00000.nc").unlink()
    pdessl.data.generate("burgers_small", out, resume=True, progress=False)
    assert same_files(store.path, small_store.path)


LOCKED = """
import os, signal, sys
from pdessl import files
with files.locked(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_shard_of_another_recipe_is_found_at_the_end(tmp_path, monkeypatch):
    """As another process with another recipe would put it there, if a lock were of no use."""
    from pdessl.data import production

    write = production.write_shard

    def other(path, trajectories, recipe, split, start):
        write(
            path, trajectories, load_recipe(recipe, overrides={"seed": 5}) if split == "test" else recipe, split, start
        )

    monkeypatch.setattr(production, "write_shard", other)
    with pytest.raises(FormatError, match="test-00000.nc is another shard than the manifest says"):
        pdessl.data.generate("burgers_small", tmp_path / "s", progress=False)
    assert not pdessl.data.open(tmp_path / "s").complete


def test_what_another_version_began_is_continued_only_when_told(copied_store, capsys):
    manifest = json.loads((copied_store.path / "manifest.json").read_text())
    manifest["versions"]["torch"] = "0.1"
    (copied_store.path / "manifest.json").write_text(json.dumps(manifest))
    pdessl.data.generate("burgers_small", copied_store.path, resume=True, progress=False)  # nothing is to be made
    (copied_store.path / "test-00000.nc").unlink()
    words = ["generate", "burgers_small", "--out", str(copied_store.path), "--resume"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "torch 0.1 (now" in said and "--any-version" in said and said.count("\n") == 1
    assert cli.main([*words, "--any-version"]) == 0
    store = pdessl.data.open(copied_store.path)
    assert store.complete and store.manifest["continued_with"] == [files.versions()]


def test_another_recipe_is_refused(copied_store):
    before = (copied_store.path / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=r"made by another recipe.*observation.noise 0.02 -> 0.5"):
        pdessl.data.generate("burgers_small", copied_store.path, resume=True, overrides={"observation.noise": 0.5})
    with pytest.raises(StoreError, match="a complete store of this dataset"):
        pdessl.data.generate("burgers_small", copied_store.path)
    assert (copied_store.path / "manifest.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty .it holds thesis.tex."):
        pdessl.data.generate("burgers_small", tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        pdessl.data.generate("burgers_small", tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


FULL_DISK = """
import resource, signal, sys
import pdessl.data
from pdessl.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
try:
    pdessl.data.generate("burgers_small", sys.argv[1], progress=False)
except StoreError as error:
    print(error)
    sys.exit(7)
"""


def test_no_room_left(small_store, tmp_path):
    """The kernel refuses to let any file grow beyond 30 kB: the same errors as a disk that fills up."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "s")], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 7, run.stderr[-2000:]
    assert "cannot write" in run.stdout and "--resume" in run.stdout
    assert os.listdir(tmp_path / "s") == ["manifest.json"]
    resumed = pdessl.data.generate("burgers_small", tmp_path / "s", resume=True, progress=False)
    assert same_files(resumed.path, small_store.path)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder nobody can write on Linux")
def test_read_only_folder():
    with pytest.raises(StoreError, match="cannot write /proc/"):
        pdessl.data.generate("burgers_small", "/proc/pdessl_store", progress=False)


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted(error):
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(StoreError, match="No space left"):
        interrupted(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(KeyboardInterrupt):
        interrupted(KeyboardInterrupt())
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def same_files(one, other):
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)


def test_two_runs_are_bitwise_equal(small_store, tmp_path):
    again = pdessl.data.generate("burgers_small", tmp_path / "again", progress=False, workers=1)
    assert same_files(again.path, small_store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("splits"), "has no entry 'splits'"),
        (
            lambda m: m["splits"]["test"]["shards"][0].update(file="../secret.nc"),
            "'../secret.nc' is not the name of a file",
        ),
        (lambda m: m["splits"]["test"]["shards"][0].pop("sha256"), "has no entry 'sha256'"),
        (lambda m: m["recipe"].update(seed=3), "recipe and the recipe's hash differ"),
        (lambda m: m["recipe"]["splits"].update(test={"size": "all"}), "expected an integer"),
        (lambda m: m.update(format_version=99), "format version 99"),
    ],
)
def test_damaged_manifests_are_refused(copied_store, change, message):
    path = copied_store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=message):
        pdessl.data.open(copied_store.path)


def test_opening_a_store_imports_nothing_it_names(copied_store, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = json.loads(json.dumps(copied_store.manifest["recipe"]))
    content["solver"]["simulator"] = "trap.Simulator"
    manifest = copied_store.manifest | {"recipe": content}
    manifest["recipe_hash"] = pdessl.data.DatasetRecipe("burgers_small", content).hash
    (copied_store.path / "manifest.json").write_text(json.dumps(manifest))
    store = pdessl.data.open(copied_store.path)
    assert store.equation == "burgers"
    with pytest.raises(FormatError, match="another shard than the manifest says"):
        store.load("test")
    assert "trap" not in sys.modules


def test_the_bytes_of_a_shard_do_not_depend_on_what_a_profiler_holds(tmp_path):
    """A thread that looks at the frames of others, as in every Dask worker, keeps their objects alive for a while."""
    recipe = load_recipe("burgers_small")
    runs, ended, interval = simulate(recipe, "unlabelled", range(4)), threading.Event(), sys.getswitchinterval()

    def look():
        while not ended.is_set():
            held = []
            for frame in sys._current_frames().values():
                while frame is not None:
                    held.append(frame)
                    frame = frame.f_back
            ended.wait(1e-3)

    looking = threading.Thread(target=look)
    sys.setswitchinterval(1e-5)
    looking.start()
    try:
        found = set()
        for _ in range(25):
            write_shard(tmp_path / "a.nc", runs, recipe, "unlabelled", 0)
            found.add((tmp_path / "a.nc").read_bytes())
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        looking.join()
    assert len(found) == 1


def test_dimensions_without_variable_and_coordinates_beside_them_survive(tmp_path):
    u, nodes = np.arange(6, dtype="f4").reshape(2, 3), np.arange(6.0).reshape(2, 3)
    data = {"u": (("run", "x"), u), "k": (("run",), np.array([1, 2])), "total": ((), np.array(5))}
    coordinates = {"run": (("run",), np.array([3, 4])), "nodes": (("run", "x"), nodes)}
    said = {"u": {"units": "m"}, "absent": {"units": "s"}}
    (tmp_path / "a.nc").write_bytes(_netcdf4(data, coordinates, said, {"title": "ein Titel", "number": 7}).getvalue())
    expected = xr.Dataset(data, coordinates, {"title": "ein Titel", "number": 7})
    expected["u"].attrs["units"] = "m"
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        xr.testing.assert_identical(found.load(), expected)
