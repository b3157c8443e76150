"""Broken and hostile files: a clear error, no crash, no memory taken for what is not there."""

import faulthandler
import json
import multiprocessing
import os
import resource
import sys
import warnings

import h5py
import layouts
import numpy as np
import pytest
import xarray as xr

from pdessl.data.formats import open_source
from pdessl.data.formats.isolation import isolated
from pdessl.errors import DataError, FormatError, PdesslError

PLAIN = {
    "dimensions": ["trajectory", "time", "x"],
    "fields": {"u": {}},
    "time": {"step": 1},
    "space": {"x": {"step": 1}},
}


def smoke_file(tmp_path, **options):
    path = tmp_path / "NavierStokes2D_train_198010_0.39216_3.h5"
    layouts.pdearena_smoke(path, "train", 0.39216, **options)
    return path


# ---------------------------------------------------------------------- broken


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, 0.3, 0.9])
def test_truncated_files(tmp_path, keep):
    path = smoke_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(FormatError, match="truncated|damaged"):
        open_source(path, "pdearena_smoke_conditioned").load("train")


def test_a_file_that_is_cut_or_replaced_after_opening_is_noticed(tmp_path):
    path = smoke_file(tmp_path)
    source = open_source(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="has changed since it was opened|has become shorter"):
        source.load("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of git-lfs.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not data: the download failed"),
        (b"\x00" * 4096, "truncated or not a netCDF-4/HDF5 file"),
        (b"CDF\x01" + b"\x00" * 60, "netCDF-3 file"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "data.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        open_source(path)


def test_swapped_axes_are_noticed_by_the_divergence(tmp_path):
    path = smoke_file(tmp_path, swapped=True)
    with pytest.raises(
        FormatError, match=r"axes look swapped: the divergence of \(u, v\) is .* dimensions: \[trajectory, time, y, x\]"
    ):
        open_source(path)
    base = {"format": "pdearena_smoke_conditioned", "divergence_free": []}
    assert open_source(path, base).splits["train"] == 3


def test_axes_in_the_other_order_are_read_with_the_mapping_that_the_message_names(tmp_path):
    path = tmp_path / "NavierStokes2D_train_1_0.3_3.h5"
    fields = layouts.pdearena_smoke(path, "train", 0.3)
    with h5py.File(path, "r+") as file:
        for name in ("u", "vx", "vy"):
            file["train"][name][...] = file["train"][name][()].swapaxes(-1, -2)
    with pytest.raises(FormatError, match="axes look swapped"):
        open_source(path)
    mapping = {"format": "pdearena_smoke_conditioned", "dimensions": ["trajectory", "time", "y", "x"]}
    assert np.array_equal(open_source(path, mapping).load("train").fields, fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: (g.__delitem__("vy"),), "has no array 'train/vy'"),
        (lambda g: replace(g, "vx", np.zeros((3, 5, 8, 9))), "has 9 entries along y, 'vx' has 9|entries along"),
        (lambda g: replace(g, "u", np.zeros((2, 5, 8, 8))), "has 2 entries along trajectory, 'vx' has 3"),
        (lambda g: replace(g, "u", np.zeros((3, 5, 8, 8), dtype="i4")), "holds int32, expected floating-point"),
        (lambda g: replace(g, "u", np.zeros((3, 5, 8, 8), dtype="c16")), "holds complex128, expected floating-point"),
        (lambda g: replace(g, "u", np.array(["smoke"], dtype=h5py.string_dtype())), "dimensions|floating-point"),
        (lambda g: replace(g, "dt", np.full(3, -1.5)), "'dt' holds numbers that are not positive"),
        (lambda g: replace(g, "dt", np.full(4, 1.5)), r"'dt' has shape \(4,\), expected one number or one per"),
        (lambda g: replace(g, "buo_y", np.full((3, 2), 1.5)), r"expected one number or one per trajectory"),
        (lambda g: replace(g, "x", np.zeros((3, 8, 2))), r"'train/x' has shape \(3, 8, 2\)"),
        (lambda g: replace(g, "x", np.full((3, 8), np.nan)), "not finite"),
    ],
)
def test_arrays_that_are_wrong(tmp_path, change, message):
    path = smoke_file(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file["train"])
    with pytest.raises((FormatError, DataError), match=message):
        open_source(path, "pdearena_smoke_conditioned").load("train")


def replace(group, name, values):
    del group[name]
    group.create_dataset(name, data=values)


@pytest.mark.parametrize("other", [(4, 6, 7, 1), (1, 8, 6, 1), (4, 8, 6, 2)])
def test_a_group_of_another_shape_is_refused_and_never_repeated_to_fit(tmp_path, other):
    path = tmp_path / "2D_rdb_NA_NA.h5"
    layouts.pdebench_seeds(path, n=3, components=1, entry="dam_radius")
    with h5py.File(path, "r+") as file:
        replace(file["0001"], "data", np.zeros(other, "f4"))
    source = open_source(path)
    held = {split: range(size) for split, size in source.splits.items()}
    with pytest.raises(FormatError, match=r"array '0001/data' has shape .* '0000/data' has \(4, 6, 8, 1\)"):
        [source.load(split, rows) for split, rows in held.items()]


def test_a_group_of_another_kind_of_numbers_is_refused(tmp_path):
    path = tmp_path / "2D_rdb_NA_NA.h5"
    layouts.pdebench_seeds(path, n=2, components=1, entry="dam_radius")
    with h5py.File(path, "r+") as file:
        replace(file["0001"], "data", np.ones((4, 6, 8, 1), "c8"))
    with pytest.raises(FormatError, match="'0001/data' has .* holds complex64, '0000/data' has .* and float32"):
        source = open_source(path)
        [source.load(split) for split in source.splits]


def test_empty_dimensions_and_empty_files(tmp_path):
    layouts.write(tmp_path / "a.h5", {"u": np.zeros((0, 3, 4))})
    with pytest.raises(FormatError, match="dimension 'trajectory' has no entries"):
        open_source(tmp_path / "a.h5", PLAIN)
    layouts.write(tmp_path / "b.h5", {})
    with pytest.raises(FormatError, match="holds no arrays"):
        open_source(tmp_path / "b.h5")


# ---------------------------------------------------------------------- links


def test_links_out_of_the_file_are_refused(tmp_path):
    layouts.write(tmp_path / "other.h5", {"u": layouts.numbers(2, 3, 4)})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/u")
        file["soft"] = h5py.SoftLink("/u")
        file["loop"] = h5py.SoftLink("/loop")
    for name in ("u", "soft"):
        with pytest.raises(FormatError, match="external link to .*other.h5.*not followed"):
            open_source(tmp_path / "a.h5", {**PLAIN, "fields": {"u": name}})
    with pytest.raises(FormatError, match=r"layout is not one of those known.*'u' is a link to another file"):
        open_source(tmp_path / "a.h5")
    with pytest.raises(FormatError, match="has no array 'loop'"):
        open_source(tmp_path / "a.h5", {**PLAIN, "fields": {"u": "loop"}})
    with h5py.File(tmp_path / "inner.h5", "w") as file:
        file["data/u"] = layouts.numbers(2, 3, 4)
        file["u"] = h5py.SoftLink("/data/u")
        held = file["u"][()]
    assert np.array_equal(open_source(tmp_path / "inner.h5", PLAIN).load("all").fields[:, 0], held)
    with pytest.raises(FormatError, match="external link"):
        (tmp_path / "a.h5").rename(tmp_path / "a.nc")
        open_source(tmp_path / "a.nc")


def test_arrays_whose_values_lie_in_other_files_are_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"\x01" * 192)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("u", (2, 3, 4), "f8", external=[(str(tmp_path / "secret.bin"), 0, 192)])
    layouts.write(tmp_path / "plain.h5", {"u": layouts.numbers(2, 3, 4)})
    virtual = h5py.VirtualLayout((2, 3, 4), "f8")
    virtual[...] = h5py.VirtualSource(str(tmp_path / "plain.h5"), "u", (2, 3, 4))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("u", virtual)
    for name in ("external.h5", "virtual.h5"):
        with pytest.raises(FormatError, match="keeps its values in other files"):
            open_source(tmp_path / name, PLAIN)


def test_symbolic_links_out_of_the_folder_are_refused(tmp_path):
    layouts.write(tmp_path / "outside" / "b.h5", {"u": layouts.numbers(2, 3, 4)})
    layouts.write(tmp_path / "data" / "a.h5", {"u": layouts.numbers(2, 3, 4)})
    (tmp_path / "data" / "inner.h5").symlink_to(tmp_path / "data" / "a.h5")
    assert len(open_source(tmp_path / "data", PLAIN)) == 4
    (tmp_path / "data" / "b.h5").symlink_to(tmp_path / "outside" / "b.h5")
    with pytest.raises(FormatError, match="symbolic link out of the folder.*give the path it leads to"):
        open_source(tmp_path / "data", PLAIN)


def test_zarr_that_asks_for_pickled_objects_is_refused(tmp_path):
    pytest.importorskip("zarr")
    for name, text in (
        (".zarray", {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "filters": [{"id": "pickle"}]}),
        (".zarray", {"zarr_format": 2, "shape": [1], "dtype": "<f8", "compressor": {"id": "pickle"}}),
    ):
        store = tmp_path / "a.zarr"
        (store / "u").mkdir(parents=True, exist_ok=True)
        (store / ".zgroup").write_text('{"zarr_format": 2}')
        (store / "u" / name).write_text(json.dumps(text))
        with pytest.raises(FormatError, match="pickled objects, which could run any program"):
            open_source(store)
    (store / "u" / ".zarray").write_text("{")
    with pytest.raises(FormatError, match="is damaged"):
        open_source(store)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_with_chunks_of_no_entries_is_refused(tmp_path, version):
    pytest.importorskip("zarr")
    store, name = tmp_path / "a.zarr", {2: ".zarray", 3: "zarr.json"}[version]
    held = xr.Dataset({"u": (("time", "x"), np.ones((4, 6)))}, {"time": np.arange(4.0), "x": np.arange(6.0)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held.to_zarr(store, zarr_format=version, consolidated=False)
    path = store / "u" / name
    content = json.loads(path.read_text())
    (content if version == 2 else content["chunk_grid"]["configuration"])[
        "chunks" if version == 2 else "chunk_shape"
    ] = [0, 6]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="chunks of no entries"):
        open_source(store)


# ---------------------------------------------------------------------- bombs


def bomb(path, chunks=None, compressed=False):
    with h5py.File(path, "w") as file:
        if compressed:
            array = file.create_dataset("u", (4096, 512, 1024), "f8", chunks=(1, 512, 1024), compression="gzip")
            array[0] = 0.0
        else:
            file.create_dataset("u", (1 << 20, 1 << 20, 1 << 20), "f4", chunks=chunks or (1, 1, 1024))


@pytest.mark.parametrize("kind", ["unwritten", "compressed", "chunks"])
def test_bombs_are_refused_before_memory_is_taken(tmp_path, kind):
    path = tmp_path / "a.h5"
    bomb(path, (1, 1 << 14, 1 << 15) if kind == "chunks" else None, kind == "compressed")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((FormatError, DataError), match=r"declares .* stores|of memory"):
        open_source(path, PLAIN).load("all")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_what_does_not_fit_into_memory_says_so(tmp_path, monkeypatch):
    from pdessl.data import memory

    layouts.write(tmp_path / "a.h5", {"u": np.ones((2, 64, 1 << 17))})
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    source = open_source(tmp_path / "a.h5", PLAIN)
    with pytest.raises(DataError, match=r"needs 128 MiB of memory, 1 MiB are available. Read fewer.*pdessl convert"):
        source.load("all")
    assert source.load("all", [0], frames=slice(0, 2)).fields.shape == (1, 1, 2, 1 << 17)


def test_large_chunks_are_refused(tmp_path, monkeypatch):
    import pdessl.data.formats.hdf5 as hdf5

    monkeypatch.setattr(hdf5, "MAX_CHUNK", 1 << 10)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", data=layouts.numbers(2, 16, 16), chunks=(1, 16, 16))
    with pytest.raises(FormatError, match=r"chunks of \(1, 16, 16\) entries.*h5repack -l u:CHUNK"):
        open_source(tmp_path / "a.h5", PLAIN)


# ---------------------------------------------------------------------- mutations


def crash(path):
    faulthandler.disable()
    os.kill(os.getpid(), 11)


def refuse(path):
    raise FormatError(f"{path} is odd. Write it again.")


def sleep(path):
    import time

    time.sleep(60)


def spin(path):
    while True:
        pass


def test_a_library_that_crashes_or_hangs_is_an_error_like_others():
    assert isolated(os.path.basename, "/a/b.h5", label="b") == "b.h5"
    with pytest.raises(FormatError, match="b.h5 is odd"):
        isolated(refuse, "b.h5", label="b.h5")
    with pytest.raises(FormatError, match=r"b.h5: the HDF5 library crashed on it \(exit code -11\)"):
        isolated(crash, "b.h5", label="b.h5")
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*ZeroDivisionError"):
        isolated(divmod, 1, 0, label="b.h5")
    with pytest.raises(FormatError, match="reading did not end within 0.2 s"):
        isolated(sleep, "b.h5", label="b.h5", limit=0.2)
    if sys.platform == "linux":
        with pytest.raises(FormatError, match="reading did not end within (1 s of computing|8 s)"):
            isolated(spin, "b.h5", label="b.h5", limit=8)


def test_opening_damaged_files_does_not_end_the_session(tmp_path, monkeypatch):
    import pdessl
    from pdessl.data.formats import detection

    path = smoke_file(tmp_path)
    for reading, message in (
        (lambda *_: crash(path), r"the HDF5 library crashed on it \(exit code -11\); the file is damaged"),
        (lambda *_: refuse(path), "is odd. Write it again"),
        (lambda *_: np.empty(1 << 40), "asks for more memory than there is"),
    ):
        monkeypatch.setattr(detection, "open_source", reading)
        with pytest.raises(FormatError, match=message):
            pdessl.open(path)
    monkeypatch.setattr(detection, "open_source", lambda *_: sleep(path))
    monkeypatch.setattr(detection, "LIMIT", -3.8)
    with pytest.raises(FormatError, match="reading did not end within 0.2 s; the file is damaged"):
        pdessl.open(path)


def test_files_are_opened_apart_and_read_as_if_opened_here(tmp_path, small_store, monkeypatch):
    import pdessl
    from pdessl.data.formats import detection, hdf5

    made = {
        "smoke": lambda p: layouts.smoke_folder(p),
        "own.h5": lambda p: layouts.write(p, {"u": layouts.numbers(2, 3, 4)}, chunks=(1, 3, 4), compression="gzip"),
        "own.nc": lambda p: xr.Dataset({"u": (("run", "time"), np.ones((2, 3)))}).to_netcdf(p, engine="h5netcdf"),
    }
    mappings = {"own.h5": PLAIN, "own.nc": {"fields": {"u": {}}, "time": {"step": 1.0}, "space": {}}}
    for name, make in made.items():
        make(tmp_path / name)
        hdf5.close_all()
        apart = pdessl.open(tmp_path / name, mappings.get(name))
        assert not hdf5._handles
        here = pdessl.open(tmp_path / name, mappings.get(name), isolate=False)
        for split in here.splits:
            one, other = apart.load(split), here.load(split)
            assert np.array_equal(one.fields, other.fields) and np.array_equal(one.time, other.time)
    # our own stores are not looked at, nor is anything where no process can be started
    monkeypatch.setattr(detection, "isolated", None)
    assert len(pdessl.open(small_store.path)) == len(small_store)
    monkeypatch.setattr(detection, "cheap", lambda: False)
    assert len(pdessl.open(tmp_path / "own.h5", PLAIN)) == 2


def opens(path, answers):
    import pdessl

    answers.send(dict(pdessl.open(path).splits))


def test_a_worker_that_may_have_no_children_opens_files_itself(tmp_path):
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    worker = context.Process(target=opens, args=(smoke_file(tmp_path), send), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        worker.start()
    send.close()
    assert receive.recv() == {"train": 3}
    worker.join()


def mutated(whole, seed):
    """A file with a few bytes changed, most of them in the part that describes it, or cut."""
    stream = np.random.default_rng(seed)
    content = bytearray(whole)
    header = min(len(content), 4096)
    for _ in range(int(stream.integers(1, 8))):
        place = int(stream.integers(0, header if stream.random() < 0.7 else len(content)))
        content[place] = int(stream.integers(0, 256))
    if stream.random() < 0.2:
        del content[int(stream.integers(1, len(content))) :]
    return bytes(content)


def read_mutated(path, target, mapping, seeds, answers):
    """Read mutations of a file one after another and report each; a crash is seen as the end of reports."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    whole = path.read_bytes()
    for seed in seeds:
        target.write_bytes(mutated(whole, seed))
        answers.send((seed, "started"))
        try:
            source = open_source(target, mapping)
            for split in source.splits:
                source.load(split)
            answers.send((seed, "read"))
        except PdesslError as error:
            answers.send((seed, "refused" if len(str(error)) > 20 else f"silent: {error}"))
        except BaseException as error:  # noqa: BLE001 (the test is about which error it is)
            answers.send((seed, f"unexpected {type(error).__name__}: {error}"))
    answers.send((None, "done"))


def outcomes_of(path, target, mapping, seeds, limit=20):
    """Return {seed: outcome}; a process that dies is started again behind the file that killed it."""
    outcomes, context = {}, multiprocessing.get_context("fork")
    while seeds:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=read_mutated, args=(path, target, mapping, seeds, send), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        send.close()
        current, outcome = seeds[0], "hung"
        try:
            while receive.poll(limit):
                found, outcome = receive.recv()
                if found is None:
                    break
                current, outcomes[found] = found, outcome
                outcome = "hung"
        except EOFError:
            outcome = "crashed"
        process.kill()
        process.join()
        if outcome == "done":
            return outcomes
        outcomes[current] = outcome
        seeds = [s for s in seeds if s > current]
    return outcomes


MUTATIONS = {
    "lpsda_kdv": lambda folder: layouts.lpsda(folder / "KdV_train_4.h5", "train", n=2, frames=3, points=8),
    "pdearena_smoke_conditioned": lambda folder: layouts.pdearena_smoke(
        folder / "NavierStokes2D_train_1_0.3_3.h5", "train", 0.3, n=2, frames=3, points=4
    ),
    "the_well": lambda folder: layouts.the_well(folder / "well.hdf5", n=2, frames=3, points=(4, 4)),
    "pdebench_incompressible": lambda folder: layouts.pdebench_incompressible(folder / "ns.h5", frames=3, points=4),
    "netcdf": lambda folder: xr.Dataset(
        {"u": (("run", "time", "x"), np.ones((2, 3, 4)))}, coords={"time": np.arange(3.0), "x": np.arange(4.0)}
    ).to_netcdf(folder / "own.nc", engine="h5netcdf"),
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_files_with_changed_bytes_are_read_or_refused(tmp_path, kind):
    MUTATIONS[kind](tmp_path)
    path = next(tmp_path.iterdir())
    (tmp_path / "mutated").mkdir()
    target = tmp_path / "mutated" / path.name
    mapping = None if kind == "netcdf" else kind
    outcomes = outcomes_of(path, target, mapping, list(range(40)))
    assert len(outcomes) == 40
    strange = {s: o for s, o in outcomes.items() if o not in ("read", "refused", "crashed", "hung")}
    assert not strange, strange
    # The HDF5 library itself does not survive every file; in a process of its own that is an error like others.
    lost = [s for s, o in outcomes.items() if o in ("crashed", "hung")]
    assert len(lost) <= 3
    for seed in lost:
        target.write_bytes(mutated(path.read_bytes(), seed))
        with pytest.raises(FormatError, match="the HDF5 library crashed on it|did not end"):
            isolated(_load_all, target, mapping, label=str(target), limit=20)


def _load_all(path, mapping):
    source = open_source(path, mapping)
    for split in source.splits:
        source.load(split)


def test_bombs_in_netcdf_and_zarr(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        array = file.create_dataset("u", (1 << 12, 1 << 12, 1 << 12), "f4", chunks=(1, 1, 1024))
        for axis, name in enumerate(("run", "time", "x")):
            scale = file.create_dataset(name, data=np.arange(1 << 12, dtype="f8"))
            scale.make_scale(name)
            array.dims[axis].attach_scale(scale)
    with pytest.raises(FormatError, match="declares .* stores 0 bytes"):
        open_source(tmp_path / "a.nc")
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array(
        "u", shape=(1 << 16, 1 << 16, 1 << 16), chunks=(1, 1, 1024), dtype="f4", dimension_names=["run", "time", "x"]
    )
    with pytest.raises(DataError, match="of memory"):
        open_source(tmp_path / "a.zarr", {"time": {"step": 1.0}, "space": {"x": {"step": 1.0}}}).load("all")
