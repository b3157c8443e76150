"""Every refusal of files that prints a line to type: that line repairs the files that were refused."""

import ast
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

import pdessl
from pdessl.data.formats import from_xarray, open_source
from pdessl.errors import DataError, FormatError

T, X, Y = 0.1 * np.arange(6), 2 * np.pi * np.arange(8) / 8, np.pi * np.arange(5)
U = np.exp(-T)[:, None] * np.sin(X[None] - T[:, None])
V = U[:, :, None] * (1 + Y)  # (T, X, Y)

CASES = {}
"""What a refusal says -> a function of a folder: is refused, repairs as told, returns the data and what is right."""

ELSEWHERE = (
    # Applied in tests/data/test_silent_numbers.py (times, grids, parameters), test_formats_hostile.py and
    # test_untrusted_files.py (chunks that h5repack makes smaller).
    "Bring it into order first",
    "Resample first",
    "lies on another grid",
    "1 GiB each",
)


def case(says):
    def keep(function):
        CASES[says] = function
        return function

    return keep


@contextmanager
def refused(says):
    """Expect a refusal; its text, and the lines of a mapping that it prints, by key."""
    told = SimpleNamespace()
    with pytest.raises((FormatError, DataError), match=re.escape(says)) as error:
        yield told
    told.text = str(error.value)
    lines = re.findall(r"  ((\w+): (?:\{(?:[^{}]|\{[^{}]*\})*\}|\[.*?\]|\w+))", told.text)
    told.lines = {key: yaml.safe_load(line)[key] for line, key in lines}


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def plain(**changes):
    content = {
        "format": "mine",
        "dimensions": ["time", "x"],
        "fields": {"u": {}},
        "time": {"step": 0.1},
        "space": {"x": {"length": 2 * np.pi}},
    }
    return content | changes


def netcdf(folder, **runs):
    folder.mkdir(exist_ok=True)
    for name, data in runs.items():
        data.to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    return folder


def run(values=U, time=T, **attributes):
    return xr.Dataset({"u": (("time", "x"), values)}, {"time": time, "x": X}, attributes)


LABELLED = {"format": "netcdf", "layout": "labelled"}


@case("has an extra dimension")
def level(folder):
    path = hdf5(folder / "a.h5", u=np.stack([2 * U, U]))
    with refused("has an extra dimension") as told:
        open_source(path, plain(dimensions=["level", "time", "x"]))
    as_runs = open_source(path, plain(dimensions=["level", "time", "x"], trajectory=told.lines["trajectory"]))
    np.testing.assert_array_equal(as_runs.load("all").fields[:, 0], [2 * U, U])
    return open_source(path, plain(dimensions=["level", "time", "x"], select=told.lines["select"])), 2 * U


@case("the mapping names")
def further_axis(folder):
    path = hdf5(folder / "a.h5", u=np.stack([2 * U, U]))
    with refused("has 3 dimensions (2, 6, 8), the mapping names 2") as told:
        open_source(path, plain())
    return open_source(path, plain(dimensions=["level", "time", "x"], select=told.lines["select"])), 2 * U


@case("is asked for, its axes are")
def component(folder):
    path = hdf5(folder / "a.h5", u=np.stack([U, 2 * U], axis=-1))
    fields = {"u": {"dataset": "u", "component": 1}}
    with refused("Name the axis of the components:  dimensions: [..., component]"):
        open_source(path, plain(dimensions=["time", "x", "which"], select={"which": 0}, fields=fields))
    return open_source(path, plain(dimensions=["time", "x", "component"], fields=fields)), 2 * U


@case("no field has the dimension")
def unnamed(folder):
    path = hdf5(folder / "a.h5", u=U[None])
    wrong = {"u": {"dataset": "u", "dimensions": ["trajectory", "trajectories", "x"]}}
    with refused("no field has the dimension 'time'") as told:
        open_source(path, plain(fields=wrong, select={"trajectories": 0}))
    return open_source(path, plain(fields={"u": {"dataset": "u", "dimensions": told.lines["dimensions"]}})), U


@case("the axes look swapped")
def swapped(folder):
    n = 32
    x = 2 * np.pi * np.arange(n) / n
    a, b = np.meshgrid(x, x, indexing="ij")
    u, v = np.cos(a) * np.sin(2 * b), -0.5 * np.sin(a) * np.cos(2 * b)  # no divergence with a as x and b as y
    stored = {"u": u.T[None, None], "v": v.T[None, None]}
    path = hdf5(folder / "a.h5", **stored)
    content = plain(
        dimensions=["trajectory", "time", "x", "y"],
        fields={"u": {}, "v": {}},
        space={"x": {"length": 2 * np.pi}, "y": {"length": 2 * np.pi}},
        boundary={"x": "periodic", "y": "periodic"},
        divergence_free=["u", "v"],
    )
    with refused("the axes look swapped") as told:
        open_source(path, content)
    kept = open_source(path, content | {"divergence_free": told.lines["divergence_free"]})
    np.testing.assert_array_equal(kept.load("all").fields[0, 0], stored["u"][0])
    return open_source(path, content | {"dimensions": told.lines["dimensions"]}), u[None]


@case("holds no data files")
def other_suffix(folder):
    hdf5(folder / "run.dat", u=U)
    with refused("holds no data files") as told:
        open_source(folder, plain())
    assert told.lines["files"] == ["*.h5"]  # an example, of which the ending is to be replaced
    return open_source(folder, plain(files=["*.dat"])), U


@case("has no array '")
def another_name(folder):
    path = hdf5(folder / "a.h5", velocity=U)
    with refused("has no array 'u'") as told:
        open_source(path, plain())
    return open_source(path, plain(fields=told.lines["fields"])), U


@case("its layout is not one of those known")
def unknown(folder):
    path = hdf5(folder / "a.h5", u=U)
    with refused("--mapping my.yaml"):
        open_source(path)
    (folder / "my.yaml").write_text(yaml.safe_dump(plain()), encoding="utf-8")
    return open_source(path, folder / "my.yaml"), U


@case("Name the time dimension: time=")
def other_time(folder):
    data = run().rename(time="epoch")
    with refused("none named 'time'") as told:
        open_source(data, {**LABELLED, "fields": {"u": {}}})
    assert "time: {dataset: ...}" in told.text
    assert np.array_equal(from_xarray(data, fields=["u"], time="epoch").fields[0, 0], U)
    return open_source(data, {**LABELLED, "fields": {"u": {}}, "time": {"dataset": "epoch"}}), U


@case("To convert integers, say so in the mapping")
def integers(folder):
    counted = np.arange(48).reshape(6, 8)
    with refused("expected floating-point numbers") as told:
        open_source(run(counted), LABELLED)
    stored = hdf5(folder / "a.h5", u=counted)
    with refused("To convert integers") as again:
        open_source(stored, plain())
    from_hdf5 = open_source(stored, plain(integers=again.lines["integers"])).load("all").fields[0, 0]
    np.testing.assert_array_equal(from_hdf5, counted)
    return open_source(run(counted), LABELLED | told.lines), counted


@case("has no variable '")
def no_variable(folder):
    with refused("has no variable 'w'") as told:
        open_source(run(), {**LABELLED, "fields": {"w": {}}})
    return open_source(run(), {**LABELLED, **told.lines} if "fields" in told.lines else mapped_in(told, "w")), U


def mapped_in(told, name):
    """The entry that a message prints for a name, where no two spaces set it off."""
    return {**LABELLED, "fields": yaml.safe_load(re.search(rf"fields: (\{{{name}: \w+\}})", told.text)[1])}


@case("have no names in the file")
def no_names(folder):
    path = folder / "a.nc"
    run().to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "a") as file:
        values = file["u"][()]
        for name in ("u", "time", "x"):
            del file[name]
        file["u"] = values
    with refused("have no names in the file") as told:
        open_source(path, {**LABELLED, "fields": {"u": {}}})
    order = [d for d in told.lines["dimensions"] if d != "trajectory"]
    return open_source(path, plain(dimensions=order)), U


@case("Name the axes: space=")
def no_axis(folder):
    with refused("no axis 'z'") as told:
        open_source(run(), {**LABELLED, "space": {"z": {}}})
    assert np.array_equal(from_xarray(run(), space=["x"]).fields[0, 0], U)
    return open_source(run(), LABELLED | told.lines), U


@case("has a further dimension")
def further(folder):
    data = xr.Dataset({"u": (("expver", "time", "x"), np.stack([U, 2 * U]))}, {"time": T, "x": X, "expver": [1, 5]})
    with refused("has a further dimension 'expver'") as told:
        open_source(data, LABELLED)
    as_runs = open_source(data, LABELLED | {"trajectory": told.lines["trajectory"]})
    np.testing.assert_array_equal(as_runs.load("all").fields[:, 0], [U, 2 * U])
    as_space = open_source(data, LABELLED | {"space": told.lines["space"]}).load("all")
    assert as_space.axis_names == ("expver", "x")
    return open_source(data, LABELLED | {"select": told.lines["select"]}), U


@case("has no group named after a split")
def group(folder):
    path = hdf5(folder / "a.h5", **{"first/u": U})
    with refused("Name the group in the mapping:  group: NAME"):
        open_source(path, plain(group="{split}"))
    return open_source(path, plain(group="first")), U


@case("choose what they share in a mapping")
def shared(folder):
    files = netcdf(folder / "fields", a=run(), b=run(U[:, ::-1]).assign(v=(("time", "x"), U)))
    with refused("has other fields (u, v) than") as told:
        open_source(files)
    found = open_source(files, LABELLED | told.lines)
    other = netcdf(folder / "boundary", a=run(boundary="periodic"), b=run(U[:, ::-1], boundary="window"))
    with refused("has other boundaries (window) than") as told:
        open_source(other)
    assert open_source(other, LABELLED | told.lines).boundary == ("periodic",)
    types = netcdf(folder / "types", a=run(), b=run(U[:, ::-1].astype(np.float32)))
    with refused("has other value types (float32) than") as told:
        open_source(types)
    assert open_source(types, LABELLED | told.lines).load("all").fields.numpy().dtype == np.float32
    return found, np.stack([U, U[:, ::-1]])


@case("to fit the fields")
def wrong_length(folder):
    path = hdf5(folder / "a.h5", u=U, t=T[:4])
    with refused("expected (6,) or (1, 6)") as told:
        open_source(path, plain(time={"dataset": "t"}))
    assert "{step: 0.1}" in told.text
    return open_source(path, plain(time={"step": 0.1})), U


@case("the coordinate is missing")
def no_coordinate(folder):
    data = run().drop_vars(["time", "x"])
    with refused("time: the coordinate is missing") as told:
        open_source(data, LABELLED)
    time = told.lines["time"]
    with refused("x: the coordinate is missing") as told:
        open_source(data, LABELLED | {"time": time})
    spaces = [yaml.safe_load(s) for s in re.findall(r"  space: (\{.*?\}\})", told.text)]
    step, length = (open_source(data, LABELLED | {"time": time, "space": s}) for s in spaces)
    assert float(length.load("all").lengths) == pytest.approx(1.0)
    assert np.array_equal(from_xarray(data, dt=0.1, dx=0.1).time[0], step.load("all").time[0])
    return step, U


@case("leave such trajectories out with  missing: drop")
def missing(folder):
    data = xr.Dataset({"u": (("run", "time", "x"), np.stack([np.full_like(U, np.nan), U]))}, {"time": T, "x": X})
    with refused("is not finite in trajectory 0") as told:
        open_source(data, LABELLED).load("all")
    return open_source(data, LABELLED | told.lines), U


@case("they are pieces of one simulation, and a split through it leaks")
def pieces(folder):
    times, wave = 0.1 * np.arange(16), lambda t: np.sin(X[None] - t[:, None])
    for name, cut in (("train", slice(0, 8)), ("test", slice(8, 16))):
        netcdf(folder / name, part=run(wave(times[cut]), times[cut]))
    with refused("they are pieces of one simulation") as told:
        open_source(folder)
    found = open_source(folder, LABELLED | told.lines)
    assert found.splits == {"train": 1, "test": 1}
    np.testing.assert_allclose(found.load("test").fields[0, 0], wave(times[8:]))
    return found, wave(times[:8])


@case("what lies beyond the last cell")
def faces(folder):
    path = hdf5(folder / "a.h5", u=V)
    content = plain(
        dimensions=["time", "x", "y"],
        fields={"u": {"dataset": "u", "staggered": "y"}},
        space={"x": {"length": 1.0}, "y": {"length": 1.0}},
        staggering="centred",
    )
    with refused("what lies beyond the last cell") as told:
        open_source(path, content).load("all")
    walls = open_source(path, content | {"boundary": told.lines["boundary"]}).load("all").fields[0, 0]
    np.testing.assert_allclose(walls[..., :-1], (V[..., :-1] + V[..., 1:]) / 2)
    np.testing.assert_allclose(walls[..., -1], V[..., -1] / 2)
    return open_source(path, content | {"staggering": told.lines["staggering"]}), V


@case("so it is not in The Well's layout")
def no_well(folder):
    path = hdf5(folder / "a.h5", u=U)
    with h5py.File(path, "a") as file:
        file.create_group("dimensions")
    with refused("is not in The Well's layout") as told:
        open_source(path, {"format": "the_well"})
    order = [d for d in told.lines["dimensions"] if d != "trajectory"]
    return open_source(path, plain(dimensions=order)), U


@case("if they are to be read as the fill value")
def unwritten(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("u", (6, 8), "f8", chunks=(1, 8))[:5] = U[:5]
    source = open_source(folder / "a.h5", plain())
    told = yaml.safe_load(re.search(r"  (unwritten: \w+)", source.warnings[0])[1])
    with refused("is not finite"):
        source.load("all")
    return open_source(folder / "a.h5", plain(**told)), np.where(np.arange(6)[:, None] < 5, U, 0)


@case("expected an xarray.Dataset, found")
def no_dataset(folder):
    values = np.stack([U, 2 * U])
    with refused("expected an xarray.Dataset, found ndarray") as told:
        from_xarray(values)
    code = told.text.split("  ")[-1]
    made = eval(code, {"__builtins__": {}}, {"xr": xr, "values": values, "t": T, "x": X})  # noqa: S307  (our own text)
    return open_source(made, LABELLED), values


@case("Leave such trajectories out with  indices=")
def no_heat(folder):
    heat = np.stack([2 + np.cos(X)[None] * np.exp(-0.1 * T)[:, None], np.cos(X)[None] + 0 * T[:, None]])
    path = hdf5(folder / "a.h5", psi=heat)
    fields = {"u": {"dataset": "psi", "transform": "cole_hopf", "arguments": {"viscosity": 0.1}}}
    source = open_source(path, plain(dimensions=["trajectory", "time", "x"], fields=fields, boundary={"x": "periodic"}))
    with refused("not positive (trajectory 1 of those read)"):
        source.load("all")
    right = 0.2 * np.sin(X) * np.exp(-0.1 * T)[:, None] / heat[0]  # -2 nu psi_x / psi
    np.testing.assert_allclose(source.load("all", indices=[0]).fields[0, 0], right, atol=1e-9)
    return open_source(hdf5(folder / "b.h5", u=U), plain()), U


@pytest.mark.parametrize("says", CASES)
def test_the_line_that_a_refusal_prints_repairs_what_was_refused(says, tmp_path):
    source, right = CASES[says](tmp_path)
    right = np.asarray(right)
    found = np.concatenate([source.load(split).fields.numpy() for split in list(source.splits)[:1]])
    found = found[:, 0]
    np.testing.assert_allclose(found, right if right.ndim == found.ndim else right[None], rtol=1e-6, atol=1e-7)


def text_of(node):
    """The text of a string in the code, {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return text_of(node.left) + text_of(node.right) if isinstance(node, ast.BinOp) else "{}"


def refusals():
    """The texts of all refusals of the readers that print something to type after two spaces."""
    for path in sorted((Path(pdessl.__file__).parent / "data" / "formats").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("FormatError", "DataError")
            if raised and node.args and "  " in (text := text_of(node.args[0])):
                yield f"{path.name}:{node.lineno}", text


def test_every_refusal_with_a_line_to_type_is_repaired_by_it_in_a_test():
    known = (*CASES, *ELSEWHERE)
    assert [(place, text) for place, text in refusals() if not any(says in text for says in known)] == []
    assert len(list(refusals())) > 20
