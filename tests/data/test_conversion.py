"""Data of any layout in a store: bit for bit, bounded in memory, continued after an interruption."""

import layouts
import numpy as np
import pytest
import torch

import pdessl
import pdessl.data
from pdessl import cli
from pdessl.data.conversion import convert
from pdessl.data.formats import open_source
from pdessl.errors import DataError, StoreError


@pytest.fixture
def smoke(tmp_path):
    layouts.smoke_folder(tmp_path / "smoke")
    return tmp_path / "smoke"


@pytest.mark.parametrize("make", ["smoke", "well", "lpsda"])
def test_a_store_holds_what_the_source_gives(tmp_path, make):
    if make == "smoke":
        layouts.smoke_folder(tmp_path / "d")
    elif make == "well":
        layouts.the_well(tmp_path / "d" / "data" / "train" / "a.hdf5")
        layouts.the_well(tmp_path / "d" / "data" / "test" / "b.hdf5", viscosity=0.7)
    else:
        layouts.lpsda(tmp_path / "d" / "KdV_train_4.h5", "train", failed=[2])
    source, store = open_source(tmp_path / "d"), convert(tmp_path / "d", tmp_path / "store", progress=False)
    assert dict(store.splits) == dict(source.splits) and store.complete and store.verify() == []
    for split in source.splits:
        a, b = source.load(split), store.load(split)
        assert a.fields.dtype == b.fields.dtype
        for name in ("fields", "time", "lengths", "index"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert all(torch.equal(x, y) for x, y in zip(a.space, b.space, strict=True))
        assert set(a.parameters) == set(b.parameters)
        assert all(torch.equal(v, b.parameters[n]) for n, v in a.parameters.items())
        assert (a.field_names, a.axis_names, a.boundary, a.equation) == (
            b.field_names,
            b.axis_names,
            b.boundary,
            b.equation,
        )
        assert np.array_equal(source.groups(split), store.groups(split))
    assert store.staggered == source.staggered and set(source.warnings) <= set(store.warnings)
    assert store.units == source.units


def test_inspect_says_where_a_converted_store_comes_from(smoke, tmp_path):
    convert(smoke, tmp_path / "store", progress=False)
    found = pdessl.data.inspect(tmp_path / "store")
    text = str(found)
    assert "converted from NavierStokes2D_test_198210_0.33000.h5 and 3 more files (pdearena_smoke_conditioned)" in text
    assert "solver" not in text.split("warning")[0] and "splitting within a file leaks" in text
    assert found["fields"]["s"]["maximum"] == max(
        float(open_source(smoke).load(s).fields[:, 2].max()) for s in ("train", "validation", "test")
    )


def test_shards_are_small_and_an_interrupted_conversion_is_continued(smoke, tmp_path, monkeypatch):
    import pdessl.data.conversion as conversion

    monkeypatch.setattr(conversion, "SHARD_BYTES", 2 * 3 * 5 * 8 * 8 * 4)
    whole = convert(smoke, tmp_path / "whole", progress=False)
    assert [s["count"] for s in whole.shards("train")] == [2, 2, 2]
    seen = []

    def stop(state):
        seen.append(state)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(smoke, tmp_path / "again", progress=stop)
    assert not pdessl.data.Store(tmp_path / "again").complete
    with pytest.raises(StoreError, match="Continue or repair it with --resume"):
        convert(smoke, tmp_path / "again", progress=False)
    first = (tmp_path / "again" / "train-00000.nc").stat().st_mtime_ns
    (tmp_path / "again" / "train-00001.nc").write_bytes(b"damaged")
    done = convert(smoke, tmp_path / "again", resume=True, progress=False)
    assert (tmp_path / "again" / "train-00000.nc").stat().st_mtime_ns == first
    assert done.complete and done.verify() == []
    assert torch.equal(done.load("train").fields, whole.load("train").fields)


def test_other_files_are_not_mixed_into_a_store(smoke, tmp_path):
    convert(smoke, tmp_path / "store", progress=False)
    layouts.pdearena_smoke(smoke / "NavierStokes2D_train_9_0.25000_3.h5", "train", 0.25)
    with pytest.raises(StoreError, match="made of other files or in another way"):
        convert(smoke, tmp_path / "store", resume=True, progress=False)
    with pytest.raises(StoreError, match="is not empty"):
        convert(smoke, smoke, progress=False)


def test_values_that_are_not_finite_are_refused_by_number(tmp_path):
    u = layouts.numbers(3, 4, 5)
    u[1, 2, 3] = np.nan
    layouts.write(tmp_path / "a.h5", {"u": u})
    mapping = {
        "dimensions": ["trajectory", "time", "x"],
        "fields": {"u": {}},
        "time": {"step": 1},
        "space": {"x": {"step": 1}},
    }
    with pytest.raises(DataError, match="not finite in trajectory 1"):
        convert(tmp_path / "a.h5", tmp_path / "store", mapping, progress=False)
    store = convert(tmp_path / "a.h5", tmp_path / "dropped", {**mapping, "missing": "drop"}, progress=False)
    assert np.array_equal(store.load("all").fields[:, 0], u[[0, 2]])


def test_the_command_converts_with_a_mapping_and_inspects(tmp_path, capsys):
    for i in range(2):
        layouts.write(
            tmp_path / f"run_{i}.h5",
            {"velocity": layouts.numbers(4, 6), "t": 0.5 * np.arange(4)},
            attributes={"nu": 0.1 * (i + 1)},
        )
    (tmp_path / "my.yaml").write_text(
        "equation: burgers\ndimensions: [time, x]\nfields: {u: velocity}\ntime: t\n"
        "space: {x: {length: 1.0}}\nboundary: {x: periodic}\nparameters: {nu: {attribute: nu}}\n"
    )
    files = [str(tmp_path / f"run_{i}.h5") for i in range(2)]
    assert cli.main(["convert", *files, "--mapping", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "store")]) == 0
    assert "2 all" in capsys.readouterr().out
    store = pdessl.open(tmp_path / "store")
    assert store.parameter_values("all")["viscosity"].tolist() == [0.1, 0.2] and store.groups("all").tolist() == [0, 1]
    assert cli.main(["inspect", str(tmp_path / "store")]) == 0
    assert "converted from run_0.h5 and 1 more files (my)" in capsys.readouterr().out
    assert cli.main(["inspect", files[0], "--mapping", str(tmp_path / "my.yaml"), "--json"]) == 0
    assert '"format": "my"' in capsys.readouterr().out
