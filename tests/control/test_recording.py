"""Runs to learn from: they replay to rounding, depend on their seed alone, and survive a file."""

import numpy as np
import pytest
import torch
import xarray as xr

from pdessl.control import load_environment, read_runs, record_runs, write_runs
from pdessl.errors import DataError, FormatError

SHORT = {"burn_in": 5.0, "control.steps": 20}


@pytest.fixture(scope="module")
def env():
    return load_environment("ks_control_5", SHORT | {"sensors.positions": [1.0, 7.0], "sensors.noise": 0.1})


@pytest.fixture(scope="module")
def runs(env):
    return record_runs(env, range(6))


def test_replaying_the_amplitudes_gives_the_fields_again(env, runs):
    actions = torch.from_numpy(runs["actions"].values).transpose(1, 2).contiguous()
    states = env.rollout(env.start(range(6)), actions)
    np.testing.assert_allclose(env.field(states).numpy(), runs["u"].values, rtol=1e-6, atol=1e-6)  # of float32
    np.testing.assert_allclose(env.cost(states[:, 1:], actions).numpy(), runs["cost"].values, rtol=1e-11)
    noise = runs["observation"].values - env.observe(states).numpy()
    assert 0.08 < noise.std() < 0.12


def test_a_run_depends_on_its_seed_alone(env, runs):
    alone = record_runs(env, [4])
    expected = runs.isel(run=[4])
    xr.testing.assert_allclose(alone, expected, rtol=1e-6, atol=1e-6)  # u in float32
    np.testing.assert_allclose(alone["cost"], expected["cost"], rtol=1e-11)
    assert alone.attrs == expected.attrs and alone["seed"].identical(expected["seed"])


def test_behaviours_are_what_they_are_called(env, runs):
    kinds = runs["behaviour"].attrs["flag_meanings"].split()
    assert [kinds[k] for k in runs["behaviour"].values] == ["zero", "smooth", "feedback"] * 2
    actions = runs["actions"].values
    assert not actions[[0, 3]].any() and np.abs(actions).max() <= 1.0
    assert (actions[[1, 2, 4, 5]].std(axis=-1) > 0.01).all()
    smooth = record_runs(
        load_environment("ks_control_5", SHORT | {"burn_in": 0.0, "control.steps": 200}), range(8), ["smooth"]
    )
    signal = smooth["actions"].values
    assert (np.diff(signal, axis=-1) ** 2).mean() < (signal**2).mean()  # twice as large were it white


def test_feedback_takes_energy_out():
    """Where nothing else happens: a still, diffusing tracer decays faster with it than without."""
    changes = {"parameters.advection_velocity": 0.0, "actuators.bound": 5.0}
    env = load_environment("advection_diffusion_control", changes)
    free, held = (record_runs(env, range(6), [kind])["cost"].values[:, :20].mean() for kind in ("zero", "feedback"))
    assert held < 0.9 * free + 0.1 * 25.0 / 9  # the price of its amplitudes included
    energy = [record_runs(env, range(6), [kind])["u"].values[:, 8] for kind in ("zero", "feedback")]
    assert (energy[1] ** 2).mean() < (energy[0] ** 2).mean()


def test_a_file_keeps_everything(env, runs, tmp_path):
    write_runs(runs, tmp_path / "runs.nc")
    back = read_runs(tmp_path / "runs.nc", env)
    xr.testing.assert_equal(back, runs)
    assert back.attrs == runs.attrs and back["actions"].attrs == runs["actions"].attrs
    with pytest.raises(FormatError, match="with other settings than 'ks_control_4' has"):
        read_runs(tmp_path / "runs.nc", load_environment("ks_control_4", SHORT))
    with pytest.raises(FormatError, match="'actions' is missing"):
        write_runs(runs.drop_vars("actions"), tmp_path / "other.nc")
    with pytest.raises(FormatError, match="expected one more"):
        write_runs(runs.isel(time=slice(4)), tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("text")
    with pytest.raises(FormatError, match="no runs with actuators can be read"):
        read_runs(tmp_path / "text.nc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.nc", "text.nc"]


def test_wrong_words_are_told(env):
    with pytest.raises(DataError, match="Did you mean 'smooth'"):
        record_runs(env, [0], ["smoth"])
    with pytest.raises(DataError, match="at least one each"):
        record_runs(env, [])
