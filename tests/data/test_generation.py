"""Generation survives being killed, interrupted, and trajectories that blow up."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import pdessl.data
from pdessl import catalog
from pdessl.data import load_recipe
from pdessl.errors import CatalogError, DataError, ResolutionError, StoreError
from pdessl.solvers import Burgers

GENERATE = """
import sys
import pdessl.data
from pdessl import catalog
pdessl.data.generate("burgers_small", sys.argv[1], resume=True, overrides={"shard_size": 4}, progress=False)
"""


def files(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "store"
    return pdessl.data.generate("burgers_small", path, overrides={"shard_size": 4}, progress=False)


@pytest.mark.parametrize("shards", [1, 7, 13])
def test_killed_at_any_moment_and_resumed_is_bitwise_the_same_store(uninterrupted, tmp_path, shards):
    out = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", GENERATE, str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.nc"))) < shards and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = pdessl.data.open(out)
    assert not there.complete
    with pytest.raises(StoreError, match="interrupted.*--resume"):
        there.load("test")
    assert any("--resume" in text for text in pdessl.data.inspect(out).warnings)
    with pytest.raises(StoreError, match="unfinished store"):
        pdessl.data.generate("burgers_small", out, overrides={"shard_size": 4})
    resumed = pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=False)
    assert resumed.complete and resumed.verify() == []
    assert files(out) == files(uninterrupted.path)
    indices = [resumed.load(split).index.tolist() for split in resumed.splits]
    assert indices == [list(range(n)) for n in resumed.splits.values()]


def test_leftovers_of_a_kill_in_the_middle_of_a_write(uninterrupted, tmp_path):
    """A temporary file, and a shard that was renamed before the manifest knew of it."""
    import shutil

    out = shutil.copytree(uninterrupted.path, tmp_path / "store")
    (out / ".test-00000.nc.999.tmp").write_bytes(b"half")
    manifest = pdessl.data.open(out).manifest
    manifest["splits"]["test"]["shards"].pop()
    manifest["complete"] = False
    from pdessl.data.store import write_manifest

    write_manifest(out, manifest)
    pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=False)
    assert files(out) == files(uninterrupted.path)


def test_ctrl_c_leaves_a_store_that_continues(uninterrupted, tmp_path):
    def interrupt(state):
        if state.done >= 40:
            raise KeyboardInterrupt

    out = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        pdessl.data.generate("burgers_small", out, overrides={"shard_size": 4}, progress=interrupt)
    store = pdessl.data.open(out)
    assert not store.complete and not list(out.glob(".*"))
    calls = []
    pdessl.data.generate("burgers_small", out, resume=True, overrides={"shard_size": 4}, progress=calls.append)
    assert calls[0].done == 44 and calls[-1].done == calls[-1].total == 80
    assert files(out) == files(uninterrupted.path)


def test_resume_of_a_complete_store_does_nothing(uninterrupted):
    before = {name: os.stat(uninterrupted.path / name).st_mtime_ns for name in os.listdir(uninterrupted.path)}
    pdessl.data.generate("burgers_small", uninterrupted.path, resume=True, overrides={"shard_size": 4})
    assert before == {name: os.stat(uninterrupted.path / name).st_mtime_ns for name in os.listdir(uninterrupted.path)}


class Fragile(Burgers):
    """Blows up for every initial field whose first value is positive."""

    def solve(self, initial, times, observed=None, sampling="points"):
        solution = super().solve(initial, times, observed, sampling)
        solution.trajectories.fields[initial[:, 0, 0] > 0] = float("inf")
        return solution


class Broken(Burgers):
    """Never finite."""

    def solve(self, initial, times, observed=None, sampling="points"):
        solution = super().solve(initial, times, observed, sampling)
        solution.trajectories.fields[:] = float("nan")
        return solution


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "fragile_simulators", sys.modules[__name__])


def test_non_finite_trajectories_are_drawn_again_counted_and_reported(importable, uninterrupted, tmp_path):
    overrides = {"solver.simulator": "fragile_simulators.Fragile", "observation.noise": 0.0, "shard_size": 4}
    store = pdessl.data.generate("burgers_small", tmp_path / "s", overrides=overrides, progress=False)
    test = store.load("test").check_finite()
    assert bool((test.fields[:, 0, 0, 0] <= 0).all())
    assert test.index.tolist() == list(range(8))
    # About every second draw is rejected: 80 accepted among Geometric(1/2) attempts.
    assert 40 < store.rejected_draws < 140
    assert f"{store.rejected_draws} draws were not finite" in str(pdessl.data.inspect(store.path))
    kept = [k for k, field in enumerate(uninterrupted.load("test").fields) if simulated_first(k) <= 0]
    assert kept, "some first draws are kept, and equal those of the sound simulator"
    clean = pdessl.data.simulate(load_recipe("burgers_small", overrides={"observation.noise": 0.0}), "test", kept)
    torch.testing.assert_close(test[kept].fields, clean.fields, rtol=0, atol=1e-6)


def simulated_first(k):
    recipe = load_recipe("burgers_small", overrides={"observation.noise": 0.0})
    return float(pdessl.data.simulate(recipe, "test", [k]).fields[0, 0, 0, 0])


def test_a_solver_that_never_works_is_an_error_not_an_endless_loop(importable, tmp_path):
    with pytest.raises(DataError, match="not finite in 20 draws.*solver.courant"):
        pdessl.data.generate(
            "burgers_small", tmp_path / "s", overrides={"solver.simulator": "fragile_simulators.Broken"}, progress=False
        )
    assert os.listdir(tmp_path / "s") == ["manifest.json"]


def test_under_resolved_settings_are_refused_before_anything_is_written(tmp_path):
    overrides = {
        "solver.points": 64,
        "parameters.viscosity": {"distribution": "log_uniform", "low": 0.005, "high": 0.1},
    }
    with pytest.raises(ResolutionError, match=r"64 points do not resolve .*viscosity.*'auto' or at least \d+"):
        pdessl.data.generate("burgers_small", tmp_path / "s", overrides=overrides)
    assert not (tmp_path / "s").exists()


def test_unknown_name_writes_nothing(tmp_path):
    with pytest.raises(CatalogError, match="Did you mean"):
        pdessl.data.generate("burgrs", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_per_trajectory_domain_lengths(tmp_path):
    overrides = {"domain.length": {"distribution": "uniform", "low": 4.0, "high": 8.0}}
    store = pdessl.data.generate(
        "burgers_small", tmp_path / "s", size={"unlabelled": 0, "labelled": 0}, overrides=overrides, progress=False
    )
    data = store.load("test")
    assert len(set(data.lengths[:, 0].tolist())) == 8 and data.lengths.min() >= 4 and data.lengths.max() <= 8
    torch.testing.assert_close(data.grid_spacing * 32, data.lengths)
    assert "spacing 0." in str(pdessl.data.inspect(store.path))


def test_a_bar_is_shown_when_asked_and_nothing_otherwise(tmp_path, capfd):
    sizes = {"unlabelled": 4, "labelled": 0, "validation": 0, "test": 0}
    pdessl.data.generate("burgers_small", tmp_path / "quiet", size=sizes)
    assert capfd.readouterr() == ("", "")
    pdessl.data.generate("burgers_small", tmp_path / "bar", size=sizes, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "unlabelled" in err and "4/4" in err


def test_default_time_stepping_error_is_far_below_the_noise():
    """The default dataset's own settings against a grid twice as fine with an eighth of the step."""
    recipe = load_recipe("burgers", overrides={"observation.noise": 0.0})
    fine = load_recipe("burgers", overrides={"observation.noise": 0.0, "solver.points": 2048, "solver.courant": 1.0})
    error = (
        pdessl.data.simulate(recipe, "test", range(6)).fields - pdessl.data.simulate(fine, "test", range(6)).fields
    ).abs()
    level = load_recipe("burgers").observation["noise"]
    assert error.max() < 0.25 * level and error.square().mean().sqrt() < 0.01 * level, (
        error.max(),
        error.square().mean().sqrt(),
    )


@pytest.mark.parametrize("name", catalog.names("datasets"))
def test_every_shipped_dataset_generates_resolved_and_finite_data(name, tmp_path):
    sizes = dict.fromkeys(load_recipe(name).splits, 2)
    store = pdessl.data.generate(name, tmp_path / "s", size=sizes, progress=False)
    found = pdessl.data.inspect(store.path)
    assert found.warnings == [] and found["rejected_draws"] == 0
    labels = store.load("test").parameters
    assert set(labels) == set(load_recipe(name).parameters)
    noise = load_recipe(name).observation["noise"]
    assert 0.02 < noise / found["fields"]["u"]["rms"] < 0.15


def test_every_dataset_names_an_equation_of_the_catalog_with_its_parameters():
    for name in catalog.names("datasets"):
        recipe = load_recipe(name)
        declared = catalog.read("symmetries", recipe.equation).get("parameters", {})
        assert {entry["name"] for entry in declared.values()} == set(recipe.parameters), name
