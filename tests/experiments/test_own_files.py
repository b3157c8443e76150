"""From files that plain xarray wrote to a CSV: the path of docs/own_files.md, and each of its promises."""

import csv
import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import pdessl
from pdessl import cli
from pdessl.data import PDEDataModule
from pdessl.data import open as open_data
from pdessl.data.labels import read_labels, with_labels
from pdessl.errors import DataError
from pdessl.evaluation.energy_balance import energy_balance
from pdessl.evaluation.tables import findings, regression_row
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.cross_validation import cross_validate, labelled_runs
from pdessl.experiments.default_recipe import chosen_recipe
from pdessl.experiments.estimates import balance_itself
from pdessl.experiments.inputs import read_labelled, to_be_left_out
from pdessl.experiments.regression import Regression
from pdessl.experiments.training import ProgressLines, stopped_early
from pdessl.models import ConvEncoder
from pdessl.trajectory import Trajectories

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


def script():
    spec = importlib.util.spec_from_file_location("own_files", ROOT / "benchmarks" / "own_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = script()


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """16 runs of decaying turbulence, 8 of them labelled, 2 shorter than the others."""
    folder = tmp_path_factory.mktemp("flow")
    truth = OWN.make("turbulence", folder / "runs", runs=16, labelled=8, points=16, frames=9, short=2)
    return folder, truth


@pytest.fixture(scope="module")
def reaction(tmp_path_factory):
    """14 runs of a reaction-diffusion equation, all labelled, none shorter."""
    folder = tmp_path_factory.mktemp("reaction")
    truth = OWN.make("reaction", folder / "runs", runs=14, labelled=14, points=32, frames=12, short=0)
    return folder, truth


def test_the_page_as_it_is_printed(flow, monkeypatch, capsys):
    folder, truth = flow
    page = (ROOT / "docs" / "own_files.md").read_text(encoding="utf-8")
    lines = re.search(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1].splitlines()
    assert [shlex.split(line)[1:] for line in lines] == OWN.commands("turbulence")
    monkeypatch.chdir(folder)
    said = {}
    for line in lines:
        _, verb, *words = shlex.split(line)
        assert cli.main([verb, *words]) == 0, capsys.readouterr().err
        said[verb] = capsys.readouterr().out
    assert "in 8 runs, 8 are without a label" in said["inspect"]
    assert "no equation is named" in said["pretrain"] and (folder / "work/encoder/recipe.yaml").is_file()
    assert "predicts runs left out best" in said["regress"]
    with (folder / "viscosity.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [Path(row["file"]).name for row in rows] == sorted(truth)
    found = OWN.errors(folder, "turbulence", truth)
    assert found["runs"] == 8 and found["error in percent"] < 10  # the energy balance, on 16 nodes
    assert re.search(
        r"expected error of viscosity: \S+ % \(on 8 runs, each left out of a fit\); best floor", said["predict"]
    )
    # The recipe that was written is one like any other.
    assert cli.main(["pretrain", "--config", "work/encoder/recipe.yaml", "--preset", "quick", "--print_config"]) == 0


def test_files_without_the_attribute_are_unlabelled_and_all_of_them_are_pretrained_on(flow):
    folder, truth = flow
    source = open_data(folder / "runs")
    assert len(source) == 16 and source.parameters == ("viscosity",) and not source.constants
    module = PDEDataModule(folder / "runs")
    module.setup()
    assert sum(map(len, module.selections("unlabelled", short=True))) == 8
    runs = labelled_runs(module, "viscosity")
    assert len(runs) == 8 and np.isfinite(runs.common.parameters["viscosity"]).all()
    assert set(runs.common.parameters["viscosity"].tolist()) <= set(truth.values())
    assert to_be_left_out(module, "viscosity")


def test_a_short_run_shortens_no_other(tmp_path):
    OWN.make("reaction", tmp_path / "runs", runs=6, labelled=3, points=16, frames=12, short=2, seed=3)
    source = open_data(tmp_path / "runs")
    lengths = {source.shape(split)[1] for split in source.splits}
    assert source.shape("all")[1] == 12 == max(lengths) and len(lengths) > 1 and source.splits["all"] == 4
    whole = PDEDataModule(tmp_path / "runs", crop={"frames": 8}, batch_size=2)
    assert len(whole.unlabelled) + len(whole.labelled) == 6
    cut = PDEDataModule(tmp_path / "runs", crop={"frames": 12}, batch_size=2)
    assert len(cut.unlabelled) + len(cut.labelled) == 4


def test_a_short_run_costs_its_set_no_floor(tmp_path):
    frames = 7  # of 12: other bins of a spectrum in time, fewer windows
    rng, x, t = np.random.default_rng(0), np.arange(8) / 8, 0.1 * np.arange(12)
    for run, nu in enumerate(np.geomspace(0.1, 1.0, 8)):
        waves = rng.normal(size=(4, 1, 1, 1)) * np.cos(2 * np.pi * (x[:, None] + np.arange(4)[:, None, None, None] * x))
        u = (waves * np.exp(-nu * np.arange(1, 5)[:, None, None, None] * t[:, None, None])).sum(axis=0)
        data = xr.Dataset({"u": (("time", "x", "y"), u)}, {"time": t, "x": x, "y": x}, {"nu": nu})
        data = data.isel(time=slice(0, frames if run == 3 else None))
        data.to_netcdf(tmp_path / f"run_{run}.nc", engine="h5netcdf")
    module = read_labelled(tmp_path, "nu")
    found = cross_validate(None, module, Regression("nu", methods=("physics", "mean")))
    assert {"physics", "mean"} <= {row["method"] for row in found.rows}, found.notes
    assert not any("hand-made" in line for line in found.notes)
    model = next(model for (method, _, _), model in found.models.items() if method == "physics")
    again, runs = pdessl.load(model.save(tmp_path / "model")), open_data(tmp_path / "run_0.nc").load("all")
    for length in (frames, 12):
        assert 0.05 < again.predict(runs.window(slice(0, length)))["nu"].item() < 2


def test_frames_that_were_never_written_end_a_run_among_complete_ones(tmp_path):
    OWN.make("reaction", tmp_path / "runs", runs=5, labelled=2, points=16, frames=12, short=0)
    path = tmp_path / "runs" / "run_002.nc"
    with xr.open_dataset(path, engine="h5netcdf") as data:
        held = data.load()
    held["u"][9:] = np.nan
    path.unlink()
    held.to_netcdf(path, engine="h5netcdf")
    source = open_data(tmp_path / "runs")
    assert source.splits == {"all": 4, "all_9frames": 1}
    assert torch.isfinite(source.load("all_9frames").fields).all()
    assert any("run_002.nc after 9 of 12 frames" in line and "missing: drop" in line for line in source.warnings)
    dropped = open_data(tmp_path / "runs", {"format": "netcdf", "layout": "labelled", "missing": "drop"})
    assert dict(dropped.splits) == {"all": 4}
    held["u"][4, 3] = np.nan  # a hole is no end
    path.unlink()
    held.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(DataError, match="missing: drop"):
        open_data(tmp_path / "runs").load("all_9frames")


@pytest.mark.parametrize("kind", ["csv", "frame", "series", "array", "mapping"])
def test_labels_from_a_table(flow, tmp_path, kind):
    folder, truth = flow
    chosen = dict(list(truth.items())[:4])
    frame = pd.DataFrame({"file": list(chosen), "value": [1e3 * v for v in chosen.values()], "unit": "mm^2/s"})
    tables = {
        "csv": tmp_path / "labels.csv",
        "frame": frame,
        "series": pd.Series(chosen),
        "array": xr.DataArray(list(chosen.values()), {"file": list(chosen)}, "file", attrs={"units": "m^2/s"}),
        "mapping": chosen,
    }
    frame.to_csv(tmp_path / "labels.csv", index=False)
    data = tmp_path / "runs"
    data.mkdir()
    for name in list(truth)[:6]:
        with xr.open_dataset(folder / "runs" / name, engine="h5netcdf") as held:
            held.drop_attrs().to_netcdf(data / name, engine="h5netcdf")
    module = read_labelled(data, "viscosity", tables[kind])
    found = labelled_runs(module, "viscosity").common.parameters["viscosity"].numpy()
    factor = 1e3 if kind in ("csv", "frame") else 1.0
    np.testing.assert_allclose(np.sort(found), np.sort([factor * v for v in chosen.values()]))
    assert module.store.units.get("viscosity", "") == {"csv": "mm^2/s", "frame": "mm^2/s", "array": "m^2/s"}.get(
        kind, ""
    )


def test_tables_that_cannot_be_meant(flow):
    folder, _ = flow
    with pytest.raises(DataError, match="expected 'file' .* and 'viscosity'"):
        read_labels(pd.DataFrame({"file": ["a"], "speed": [1.0]}), "viscosity")
    with pytest.raises(DataError, match="a has two values"):
        read_labels(pd.DataFrame({"file": ["a", "a"], "value": [1.0, 2.0]}), "viscosity")
    with pytest.raises(DataError, match="'m' .*'s', and no factor|in 's', others are in 'm'"):
        read_labels(pd.DataFrame({"file": ["a", "b"], "value": [1.0, 2.0], "unit": ["m", "s"]}), "viscosity")
    with pytest.raises(DataError, match=r"1 of 1 runs of the table are not among the files.*named like 'run_000.nc'"):
        read_labelled(folder / "runs", "viscosity", {"run_999.nc": 1.0})
    with pytest.raises(DataError, match=r"no run of .* has a parameter 'speed'.*--labels labels.csv"):
        module = read_labelled(folder / "runs", "speed")
        labelled_runs(module, "speed")


def test_labelled_runs_are_left_out_in_turn_and_the_best_method_is_saved(reaction, tmp_path):
    folder, truth = reaction
    settings = Regression(target="reaction_rate", methods=("physics", "balance", "mean"))
    result = pdessl.regress(None, folder / "runs", settings=settings, out=tmp_path / "out", announce=lambda line: None)
    rows = {row["method"]: row["relative_error"]["mean"] for row in result.rows}
    assert result.best() == min({m: e for m, e in rows.items() if m != "mean"}, key=rows.get)
    assert rows[result.best()] < rows["mean"]
    saved = pdessl.load(tmp_path / "out")
    assert saved.record["elsewhere"]["as in training"]["error"]["reaction_rate"] == pytest.approx(rows[result.best()])
    assert not any(
        result.best() == row["method"] and f"{row['title']}, %" in saved.record["floors"] for row in result.rows
    )
    # What is predicted for a run does not know its label: another label of it changes nothing.
    module = read_labelled(folder / "runs", "reaction_rate")
    again = cross_validate(None, module, settings)
    first = again.left_out["balance"].parameters["reaction_rate"]
    changed = {name: (7.0 if name == "run_003.nc" else value) for name, value in truth.items()}
    other = cross_validate(None, read_labelled(folder / "runs", "reaction_rate", changed), settings)
    second = other.left_out["balance"].parameters["reaction_rate"]
    place = int(np.flatnonzero(second.truth == 7.0)[0])
    assert second.prediction[place] == pytest.approx(first.prediction[place]) and first.truth[place] != 7.0


def test_the_energy_balance_of_a_decaying_wave_is_its_viscosity():
    t, nu = torch.linspace(0, 1, 9, dtype=torch.float64), torch.tensor([0.02, 0.5], dtype=torch.float64)
    for kind, nodes in (
        ("periodic", 2 * torch.pi * torch.arange(32) / 32),
        ("wall", (torch.arange(32) + 0.5) * torch.pi / 32),
    ):
        x = nodes.double()
        u = 3 + torch.exp(-4 * nu[:, None, None] * t[:, None]) * torch.cos(2 * x)
        runs = Trajectories(
            fields=u[:, None], time=t.expand(2, -1), space=(x.expand(2, -1),), field_names=("u",), axis_names=("x",),
            lengths=torch.full((2, 1), 2 * torch.pi if kind == "periodic" else torch.pi, dtype=torch.float64),
            boundary=(kind,), parameters={},
        )  # fmt: skip
        found = energy_balance(runs)
        torch.testing.assert_close(found, nu[:, None], rtol=2e-3 if kind == "periodic" else 2e-2, atol=0)
        # In other units of time and of the field it is what it is.
        slow = runs.replace(time=10 * runs.time, fields=7 * runs.fields)
        torch.testing.assert_close(energy_balance(slow), found / 10)


@pytest.mark.parametrize(
    ("equation", "boundary", "views"),
    [(None, None, "RandomWindows"), ("navier_stokes_2d_vorticity", "periodic,periodic", "LieAugmentation")],
)
def test_a_recipe_is_made_for_what_the_files_say(flow, tmp_path, equation, boundary, views):
    folder, truth = flow
    said = {k: v for k, v in (("equation", equation), ("boundary", boundary)) if v}
    for name in list(truth)[:9]:
        with xr.open_dataset(folder / "runs" / name, engine="h5netcdf") as held:
            named = held.rename(vorticity="w") if equation else held
            named.drop_attrs().assign_attrs(said).to_netcdf(tmp_path / name, engine="h5netcdf")
    content, lines = chosen_recipe(tmp_path)
    assert content["model"]["augmentation"]["class_path"].endswith(views), lines
    assert content["data"]["splits"] == {"validation": 0.0, "test": 0.0}
    run = pdessl.pretrain(
        tmp_path,
        config=content,
        out=tmp_path / "out",
        overrides={"trainer.max_epochs": 1, "trainer.accelerator": "cpu"},
    )
    assert len(run.curves["train/loss"]) == 1


def test_nothing_is_called_significant_from_one_draw_or_few_runs():
    def row(method, group, values):
        return regression_row(method, method, group, 16, values, [0.0 for _ in values])

    one = findings([row("frozen", "pretrained", [1.0]), row("physics", "floor", [9.0])], 100)
    assert "one draw each" in one[0] and "standard errors" not in one[0]
    few = findings([row("frozen", "pretrained", [1.0, 1.1]), row("physics", "floor", [9.0, 9.1])], 19)
    assert "19 test runs are too few" in few[0]
    enough = findings([row("frozen", "pretrained", [1.0, 1.1]), row("physics", "floor", [9.0, 9.1])], 20)
    assert "lower, by more than two standard errors" in enough[0]


def test_a_training_that_ended_too_early_is_told():
    falling = [10 * 0.95**k for k in range(40)]
    assert "still falling" in stopped_early(falling, 400) and "max_epochs=160" in stopped_early(falling, 400)
    assert stopped_early([10 * 0.7**k for k in range(40)], 400) == ""
    settled = [1 + 0.3 * (-1) ** k + 9 * 0.5**k for k in range(40)]  # noise is no fall
    assert stopped_early(settled, 400) == ""
    assert "far too early: 20 steps" in stopped_early([1.0] * 20, 20)


def test_progress_is_told_in_lines_with_the_time_left(monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 30.0, 32.0])
    monkeypatch.setattr("pdessl.experiments.training.time.monotonic", lambda: next(clock))
    said = []
    lines = ProgressLines(every=20, announce=said.append)
    for epoch in range(5):
        trainer = SimpleNamespace(
            current_epoch=epoch, max_epochs=5, is_global_zero=True, callback_metrics={"train/loss": 0.5}
        )
        lines.on_train_epoch_end(trainer, None)
    assert said == [
        "epoch 2 of 5, loss 0.5, 6 s left",
        "epoch 4 of 5, loss 0.5, 10 s left",
        "epoch 5 of 5, loss 0.5, 0 s left",
    ]


def test_labels_with_a_standard_error_count_by_it(reaction, tmp_path):
    """Three labels off by a factor of thirty: said to be uncertain, they hardly move the fit; unsaid, they spoil it."""
    folder, truth = reaction
    data = tmp_path / "runs"
    data.mkdir()
    for name in truth:
        with xr.open_dataset(folder / "runs" / name, engine="h5netcdf") as held:
            held.drop_vars("reaction_rate").to_netcdf(data / name, engine="h5netcdf")
    wrong = list(truth)[:3]
    frame = pd.DataFrame({"file": list(truth), "value": [v * (30 if n in wrong else 1) for n, v in truth.items()]})
    stated = frame.assign(standard_error=[60 * v if n in wrong else np.nan for n, v in truth.items()])

    def error(table):
        module = read_labelled(data, "reaction_rate", table)
        runs = labelled_runs(module, "reaction_rate")
        result = cross_validate(None, module, Regression("reaction_rate", methods=("physics", "mean"), scale="log"))
        good = np.isin(result.truth.float().numpy(), np.array(list(truth.values()), dtype=np.float32))
        found = result.predictions["physics"].numpy() / result.truth.numpy() - 1
        return runs.errors, result.notes, float(np.abs(found[good]).mean())

    errors, notes, told = error(stated)
    assert sorted(np.flatnonzero(errors > 0)) == [0, 1, 2] and np.isnan(errors[3:]).all()
    assert any("3 labels have a standard error" in note for note in notes)
    unknown, _, silent = error(frame)
    assert unknown is None and told < 0.6 * silent
    with pytest.raises(DataError, match="standard error of a is -1; expected a number >= 0"):
        read_labels(pd.DataFrame({"file": ["a"], "value": [1.0], "standard_error": [-1.0]}), "viscosity")


def test_errors_of_labels_count_where_test_runs_are_set_aside(reaction, tmp_path):
    folder, truth = reaction
    names, data = list(truth), tmp_path / "runs"
    wrong = names[:2]
    for k, name in enumerate(names):
        split = data / ("test" if k >= len(names) - 4 else "train")
        split.mkdir(parents=True, exist_ok=True)
        with xr.open_dataset(folder / "runs" / name, engine="h5netcdf") as held:
            held.drop_vars("reaction_rate").to_netcdf(split / name, engine="h5netcdf")
    frame = pd.DataFrame({"file": names, "value": [v * (30 if n in wrong else 1) for n, v in truth.items()]})
    stated = frame.assign(standard_error=[60 * v if n in wrong else np.nan for n, v in truth.items()])
    count = len(names) - 4
    roles = {"unlabelled": "train", "labelled": "train", "validation": 0.0}
    settings = Regression("reaction_rate", labels=(count,), seeds=1, methods=("physics", "mean"), scale="log")

    def error(table):
        module = PDEDataModule(
            data, mapping=with_labels(data, None, table, "reaction_rate"), splits=roles, batch_size=4
        )
        errors = module.label_errors("reaction_rate", count, seed=0)
        runs = module.labelled_subset(count, seed=0)
        result = compare_methods(ConvEncoder(1, width=4, blocks=(1,)), module, settings)
        relative = result.predictions["physics"].numpy() / result.truth.numpy() - 1
        return errors, runs.parameters["reaction_rate"], result.notes, float(np.abs(relative).mean())

    errors, values, notes, told = error(stated)
    suspect = values.numpy() > 3 * max(truth.values())
    assert suspect.sum() == 2 and np.array_equal(errors > 0, suspect)  # drawn in the order of the runs
    assert any("count by 1/(s² + σ²)" in note for note in notes)
    nothing, _, _, silent = error(frame)
    assert nothing is None and told < 0.8 * silent


def test_the_energy_balance_is_a_row_that_needs_no_label(flow, reaction):
    folder, truth = flow
    module = read_labelled(folder / "runs", "viscosity")
    result = cross_validate(None, module, Regression("viscosity", methods=("mean", "balance")))
    row = next(r for r in result.rows if r["method"] == "decay")
    assert row["group"] == "classical" and row["labels"] is None and row["relative_error"]["mean"] < 15  # on 16 nodes
    assert result.best() != "decay" and len(result.predictions["decay"]) == 8
    runs = labelled_runs(module, "viscosity").common
    assert balance_itself("navier_stokes_2d_vorticity", "viscosity", "", runs) is not None
    assert balance_itself(None, "nu", "cm^2/s", runs) is not None and balance_itself(None, "nu", "m/s", runs) is None
    assert balance_itself("no_such_equation", "reaction_rate", "", runs) is None
    other = cross_validate(
        None,
        read_labelled(reaction[0] / "runs", "reaction_rate"),
        Regression("reaction_rate", methods=("mean", "balance")),
    )
    assert "decay" not in {r["method"] for r in other.rows}


def test_seconds_of_inspecting_and_converting_are_measured(tmp_path, monkeypatch, capsys):
    def here(words, cwd, **how):
        monkeypatch.chdir(cwd)
        assert cli.main(words[3:]) == 0

    monkeypatch.setattr(OWN.subprocess, "run", here)
    found = OWN.times("reaction", tmp_path, runs=3, labelled=2, points=16, frames=6, short=0)
    assert set(found) == {"inspect", "convert"} and all(f["wall"] >= 0 <= f["processor"] for f in found.values())
    assert (tmp_path / "store" / "manifest.json").is_file()
    assert '"convert": {"processor"' in capsys.readouterr().out
