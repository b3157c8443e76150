"""Splits by run, file, group, value and share, in memory and in a converted store."""

import shlex

import numpy as np
import pytest
import xarray as xr

from pdessl import cli
from pdessl.data import convert
from pdessl.data import open as open_data
from pdessl.data.datamodule import PDEDataModule
from pdessl.data.lengths import parts_of
from pdessl.data.resplitting import resplit
from pdessl.data.splits import ROLES
from pdessl.errors import DataError

RUNS, T, X = 10, 6, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten runs u = run + t/10 + x, speed 0.1 (run + 1) in the even ones; the last run has four frames."""
    made = tmp_path_factory.mktemp("runs")
    for run in range(RUNS):
        t, x = 0.1 * np.arange(4 if run == 9 else T), np.arange(X) / X
        # Waves of different lengths: independent runs, no pieces of one.
        u = run + np.cos(2 * np.pi * (1 + run % 3) * (x[None] - t[:, None]))
        attributes = {} if run % 2 else {"speed": 0.1 * (run + 1)}
        xr.Dataset({"u": (("time", "x"), u)}, {"time": t, "x": x}, attributes).to_netcdf(made / f"run_{run}.nc")
    return made


def runs_of(source, split):
    """The numbers of the runs of a split, from their values."""
    return [round(float(f.mean())) for f in source.load(split).fields]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("3", [3]),
        ("0:2", [0, 1]),
        ("7:", [7, 8]),
        ("run_4.nc", [4]),
        ("run_[123].nc", [1, 2, 3]),
        ("speed>0.4", [4, 6, 8]),
        ("speed<=0.31", [0, 2]),
        ("speed==0.3", [2]),
        ("known", [0, 2, 4, 6, 8]),
    ],
)
def test_a_rule_names_runs(folder, rule, expected):
    source = resplit(open_data(folder), {"test": rule})
    assert runs_of(source, "test") == expected
    others = {run for split in source.splits if not split.startswith("test") for run in runs_of(source, split)}
    assert others | set(expected) | ({9} if rule == "7:" else set()) == set(range(RUNS))
    assert sum(source.splits.values()) == RUNS


def test_shares_take_whole_groups_and_the_rest_has_a_name(folder):
    source = resplit(open_data(folder), {"test": 0.2, "labelled": "known"})
    assert {name: sum(source.splits[n] for n in parts_of(name, source.splits)) for name in ROLES} == {
        "unlabelled": 3, "labelled": 5, "validation": 0, "test": 2
    }  # fmt: skip
    again = resplit(open_data(folder), {"test": 0.2, "labelled": "known"})
    assert all(runs_of(again, name) == runs_of(source, name) for name in source.splits)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"test": "0:3", "validation": "2"}, "a run is both in test and in validation"),
        ({"test": "sped>1"}, "no parameter 'sped'. Did you mean 'speed'"),
        ({"test": "speed>fast"}, "'fast' is no number"),
        ({"test": "run_99.nc"}, "names no run of .*expected a share"),
        ({"test": 0.5, "validation": 0.5}, "leave nothing to train on"),
    ],
)
def test_rules_that_cannot_be_meant(folder, rules, message):
    with pytest.raises(DataError, match=message):
        resplit(open_data(folder), rules)


def test_a_converted_store_has_the_splits_the_labels_and_every_frame(folder, tmp_path, capsys):
    assert (
        cli.main(["convert", str(folder), "--out", str(tmp_path / "store"), "--split", "labelled=known,test=run_1.nc"])
        == 0
    )
    store = open_data(tmp_path / "store")
    assert dict(store.splits) == {"labelled": 5, "test": 1, "unlabelled": 3, "unlabelled_4frames": 1}
    assert runs_of(store, "unlabelled") == [3, 5, 7] and store.shape("unlabelled_4frames")[1] == 4
    np.testing.assert_allclose(store.parameter_values("labelled")["speed"], [0.1, 0.3, 0.5, 0.7, 0.9])
    with xr.open_dataset(folder / "run_5.nc") as held:
        np.testing.assert_array_equal(store.load("unlabelled", [1]).fields[0, 0], held.u.values)
    module = PDEDataModule(tmp_path / "store", batch_size=2, crop={"frames": 4})
    assert len(module.unlabelled) == 4 and len(module.labelled) == 5
    whole = convert(folder, tmp_path / "whole")
    assert np.isnan(whole.parameter_values("all")["speed"]).sum() == 4
    assert cli.main(["inspect", str(tmp_path / "whole")]) == 0
    assert "nan" not in capsys.readouterr().out
    assert cli.main(["convert", str(folder), "--out", str(tmp_path / "b"), "--split", "test"]) == 2
    assert "expected NAME=RUNS" in capsys.readouterr().err


def test_divide_counts_files_where_a_file_is_a_run(folder):
    source = open_data(folder, {"format": "netcdf", "layout": "labelled", "divide": {"test": 0.3, "train": 0.7}})
    sizes = {name: len(runs_of(source, name)) for name in source.splits}
    assert sum(n for name, n in sizes.items() if name.startswith("test")) == 3 and sum(sizes.values()) == RUNS
    assert runs_of(source, "test") != [0, 1, 2]  # files are often sorted by a parameter


def test_more_labels_than_a_converted_store_has_are_had_as_the_message_says(folder, tmp_path, capsys):
    assert cli.main(["convert", str(folder), "--out", str(tmp_path / "a"), "--split", "labelled=0.2,test=0.2"]) == 0
    module = PDEDataModule(tmp_path / "a")
    module.setup()
    with pytest.raises(
        DataError, match="4 labels asked for, the store has 2.*larger share: pdessl convert FILES"
    ) as error:
        module.labelled_subset(4)
    words = shlex.split(str(error.value).split("share: pdessl ")[1])
    words = [{"FILES": str(folder), "ANOTHER_FOLDER": str(tmp_path / "b")}.get(w, w) for w in words]
    assert cli.main(words) == 0
    repaired = PDEDataModule(tmp_path / "b")
    repaired.setup()
    assert sum(n for s, n in repaired.store.splits.items() if s.startswith("labelled")) == 4
    assert sum(n for s, n in repaired.store.splits.items() if s.startswith("test")) == 2
