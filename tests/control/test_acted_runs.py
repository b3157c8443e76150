"""Runs with actions through store, files and data module: every window replays in the solver as it was recorded."""

import pytest
import torch
import xarray as xr

import pdessl
from pdessl import Trajectories, cli
from pdessl.control import load_environment
from pdessl.data import PDEDataModule
from pdessl.data.resplitting import resplit
from pdessl.errors import DataError, ShapeError, SymmetryError
from pdessl.experiments.controlled_runs import ControlledRuns, environment_of

QUICK = {"burn_in": 5.0, "control.steps": 8}
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.fixture(scope="module")
def recorded():
    return ControlledRuns(load_environment("ks_control_4", QUICK), {"unlabelled": 6, "validation": 2})


@pytest.fixture(scope="module")
def store(recorded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("acted") / "data"
    return pdessl.generate("ks_control_4", folder, size={"unlabelled": 6, "validation": 2}, overrides=QUICK)


def replays(env, runs):
    """The solver, from the first frame under the actions, gives the last frame."""
    last = env.rollout(env.state(runs.fields[:, 0, 0]), runs.actions.transpose(1, 2))[:, -1]
    return torch.allclose(env.field(last), runs.fields[:, 0, -1].double(), rtol=1e-4, atol=1e-5)


def test_inspect_says_where_the_actuators_are(store, capsys):
    assert cli.main(["inspect", str(store.path)]) == 0
    assert "actuators      4 at 0, 5.5, 11, 16.5, amplitudes within ±1 u/time" in capsys.readouterr().out
    assert pdessl.inspect(store.path)["actuators"]["positions"] == [[0.0], [5.5], [11.0], [16.5]]


def test_a_store_holds_what_was_recorded_and_a_file_gives_back_every_bit(recorded, store, tmp_path):
    for split in ("unlabelled", "validation"):
        made, held = recorded.load(split), store.load(split)  # recorded twice, in batches of another size
        torch.testing.assert_close(made.fields, held.fields, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(made.actions, held.actions, rtol=0, atol=1e-11)
        assert held.actions.shape == (len(held), 4, 8) and held.actuators == ((0.0,), (5.5,), (11.0,), (16.5,))
    dataset = store.to_xarray("unlabelled")
    assert dataset["actions"].attrs["units"] == "u/time"
    dataset.to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    back = Trajectories.from_xarray(xr.open_dataset(tmp_path / "runs.nc", engine="h5netcdf", decode_timedelta=False))
    assert torch.equal(back.actions, store.load("unlabelled").actions)
    assert back.actuators == store.actuators
    env = environment_of(store)
    assert env.file == load_environment("ks_control_4", QUICK).file
    assert replays(env, back)


@pytest.mark.parametrize("memory", [None, 0])
def test_windows_carry_the_amplitudes_between_their_frames(store, memory):
    module = PDEDataModule(store.path, batch_size=6, crop={"frames": 4}, memory=memory)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch.actions.shape == (6, 4, 3) and replays(environment_of(store), batch)
    assert replays(environment_of(store), batch.window(slice(1, 3)))
    whole = PDEDataModule(store.path, batch_size=6, memory=memory).unlabelled
    assert torch.equal(whole.actions, store.load("unlabelled").actions)


def test_a_part_of_the_runs_keeps_its_actions(store):
    some = resplit(store, {"validation": "6:8"}).load("train", [5, 0])
    assert torch.equal(some.actions, store.load("unlabelled", [5, 0]).actions)
    runs = store.load("unlabelled")
    assert torch.equal(Trajectories.concatenate([runs[:2], runs[2:]]).actions, runs.actions)
    assert torch.equal(store.load("unlabelled", [1], frames=slice(2, 6)).actions, runs.actions[1:2, :, 2:5])


def test_an_interrupted_generation_is_continued_and_other_settings_are_told(store, tmp_path):
    folder = tmp_path / "data"
    again = pdessl.generate("ks_control_4", folder, size={"unlabelled": 6, "validation": 2}, overrides=QUICK)
    victim = next(folder.glob("unlabelled*.nc"))
    before = victim.read_bytes()
    victim.write_bytes(before[: len(before) // 2])
    pdessl.generate("ks_control_4", folder, {"unlabelled": 6, "validation": 2}, resume=True, overrides=QUICK)
    assert victim.read_bytes() == before and again.command.startswith("pdessl generate ks_control_4")
    with pytest.raises(DataError, match="Leave it out"):
        pdessl.generate("ks_control_4", tmp_path / "x", workers=3)
    with pytest.raises(DataError, match="unlabelled, validation"):
        pdessl.generate("ks_control_4", tmp_path / "x", size={"test": 3})


def test_the_command_generates_and_prints(tmp_path, capsys):
    words = ["--size", "2", "--set", "burn_in=1.0", "control.steps=3"]
    assert cli.main(["generate", "ks_control_4", "--out", str(tmp_path / "d"), *words]) == 0
    assert "2 unlabelled, 1 validation runs of 3 control periods" in capsys.readouterr().out
    assert pdessl.open(tmp_path / "d").shape("unlabelled") == (1, 4, 64)
    assert cli.main(["generate", "ks_control_4", "--print_config"]) == 0
    assert "actuators" in capsys.readouterr().out


def test_what_does_not_fit_is_told(store):
    runs = store.load("unlabelled")
    with pytest.raises(ShapeError, match="between two frames"):
        runs.replace(actions=runs.actions[:, :, 1:])
    with pytest.raises(ShapeError, match="expected 4 positions"):
        runs.replace(actuators=runs.actuators[1:])
    with pytest.raises(ShapeError, match="drop the actions"):
        runs.window(slice(0, 8, 2))
    with pytest.raises(DataError, match="Load all frames"):
        store.load("unlabelled", frames=slice(0, 8, 2))
    with pytest.raises(DataError, match="Leave stride out"):
        PDEDataModule(store.path, stride=2).unlabelled  # noqa: B018  (the property reads)
    with pytest.raises(ShapeError, match="only some have actions"):
        Trajectories.concatenate([runs.replace(actuators=()), runs.replace(actions=None, actuators=())])
    bad = runs.actions.clone()
    bad[0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        runs.replace(actions=bad).check_finite()
    with pytest.raises(SymmetryError, match="ActuatedSymmetries"):
        pdessl.LieAugmentation("kuramoto_sivashinsky_coefficients")(runs)
