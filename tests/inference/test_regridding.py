"""Runs on other grids come back to the grid of training: exactly where the fields allow, else refused."""

import copy
import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch

import pdessl
from pdessl import SimulationEncoder, Trajectories
from pdessl.data import load_recipe, simulate
from pdessl.errors import CheckpointError, FormatError
from pdessl.inference import Views, fit_parameter_model, regridding
from pdessl.inference.regridding import ROUGHEST, regridded, roughness
from pdessl.models import save_pretrained

DURATION, LENGTH = 2.0, 3.0


def waves(frames=21, points=32, boundary="periodic", runs=3, length=LENGTH, start=0.0):
    """Runs that any grid of fourteen nodes holds: three Fourier modes, or a cubic along an axis that has no period."""
    stream = np.random.default_rng(0)
    time = start + np.linspace(0, DURATION, frames)
    amplitude = stream.normal(size=(runs, 3))
    if boundary == "periodic":
        x = 0.1 + length * np.arange(points) / points
        shape = [np.cos(2 * math.pi * (k + 1) * x / length + k) for k in range(3)]
    else:
        x = 0.1 + (
            length * (np.arange(points) + 0.5) / points if boundary == "wall" else np.linspace(0, length, points)
        )
        shape = [(x - 1) ** (k + 1) for k in range(3)]
    past = time - start
    growth = np.stack([1 + past, 1 - 0.3 * past**2, 1 + 0.1 * past**3])
    fields = np.einsum("rk,kt,kx->rtx", amplitude, growth, np.stack(shape))[:, None]
    return Trajectories(
        fields=torch.from_numpy(fields),
        time=torch.from_numpy(np.tile(time, (runs, 1))),
        space=(torch.from_numpy(np.tile(x, (runs, 1))),),
        lengths=torch.full((runs, 1), length, dtype=torch.float64),
        boundary=(boundary,),
        parameters={"amplitude": torch.from_numpy(amplitude[:, 0])},
    )


def steps_of(runs):
    return {
        "time": (float(runs.time_step[0]),) * 2,
        "x": (float(runs.grid_spacing[0, 0]),) * 2,
    }


def brought(runs, like):
    (part,) = regridded(runs, steps_of(like))
    return part.runs, part.done


def assert_same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found.fields, wanted.fields, rtol=0, atol=tolerance)
    for name in ("time", "lengths"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.space[0], wanted.space[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("boundary", ["periodic", "wall", "window"])
@pytest.mark.parametrize("points", [14, 16, 20, 33, 64, 97])
@pytest.mark.parametrize("frames", [11, 21, 61])
def test_what_both_grids_hold_comes_over_exactly(boundary, points, frames):
    wanted = waves(boundary=boundary, points=33 if boundary == "window" else 32)
    found, done = brought(waves(frames, points, boundary), wanted)
    if boundary == "window":  # the last node may lie beyond what the run holds
        wanted = wanted.window(slice(None), slice(found.fields.shape[3]))
    assert_same(found, wanted, 1e-10)
    assert set(done) == {n for n, same in (("time", frames == 21), ("x", points == wanted.fields.shape[3])) if not same}


def test_runs_on_the_grid_of_training_are_left_alone():
    runs = waves()
    found, done = brought(runs, runs)
    assert found is runs and done == {}
    nearly = runs.replace(time=runs.time * 1.0005)
    assert brought(nearly, runs)[0] is nearly


def test_coming_back_from_a_finer_grid_is_the_identity_for_anything(monkeypatch):
    """Interpolation keeps the values at the nodes it came from, the highest wave of the grid included."""
    monkeypatch.setattr(regridding, "ROUGHEST", math.inf)
    for points in (10, 11):
        runs = waves(points=points)
        noise = torch.from_numpy(np.random.default_rng(1).normal(size=runs.fields.shape))
        rough = runs.replace(fields=noise)
        for factor in (2, 3):
            fine, _ = brought(rough, waves(points=factor * points))
            torch.testing.assert_close(fine.fields[..., ::factor], noise, rtol=0, atol=1e-12)
            back, _ = brought(fine, runs)
            torch.testing.assert_close(back.fields, noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "window"])
def test_coarsening_is_a_low_pass(boundary):
    """A wave that the coarser grid cannot hold is taken out; sampling alone would turn it into a slow one."""
    fine, coarse = waves(points=128, boundary=boundary), waves(points=32, boundary=boundary)
    x = fine.space[0][:, None, None]
    wave = torch.cos(2 * math.pi * 50 * (x - 0.1) / LENGTH)  # aliases to wave 14 of 32 nodes
    found, _ = brought(fine.replace(fields=fine.fields + wave), coarse)
    clean, _ = brought(fine, coarse)
    inner = slice(3, -3)
    left = (found.fields - clean.fields)[..., inner].abs().max()
    sampled = wave[..., ::4].abs().max()
    assert left < 0.12 * sampled
    if boundary == "periodic":
        assert left < 1e-12


def test_uneven_frames_are_made_even():
    even = waves()
    stream = np.random.default_rng(2)
    moved = even.time[0] + 0.03 * torch.from_numpy(stream.uniform(-1, 1, 21))
    moved[0], moved[-1] = even.time[0, 0], even.time[0, -1]
    past = moved.numpy()
    growth = np.stack([1 + past, 1 - 0.3 * past**2, 1 + 0.1 * past**3])
    source = waves()
    x = source.space[0][0].numpy()
    shape = np.stack([np.cos(2 * math.pi * (k + 1) * x / LENGTH + k) for k in range(3)])
    amplitude = np.random.default_rng(0).normal(size=(3, 3))
    fields = torch.from_numpy(np.einsum("rk,kt,kx->rtx", amplitude, growth, shape)[:, None])
    found, done = brought(source.replace(fields=fields, time=moved.expand(3, -1)), even)
    assert_same(found, even, 1e-9)
    assert done["time"].startswith("made even")


def test_another_length_keeps_its_period_and_a_start_is_kept():
    long = waves(points=48, length=4.4, start=7.0)
    found, _ = brought(long, waves(points=32))
    assert found.fields.shape == (3, 1, 21, 47)  # 4.4 / 3 * 32 = 46.9
    assert torch.equal(found.lengths, long.lengths)
    assert_same(found, waves(points=47, length=4.4, start=7.0))


def test_runs_of_different_grids_are_grouped_by_what_they_become():
    runs = waves(points=40)
    lengths = torch.tensor([[3.0], [3.3], [3.0]], dtype=torch.float64)
    x = lengths * torch.arange(40) / 40
    parts = list(regridded(runs.replace(lengths=lengths, space=(x,)), steps_of(waves(points=32))))
    assert sorted((p.places.tolist(), p.runs.fields.shape[3]) for p in parts) == [([0, 2], 32), ([1], 35)]
    for part in parts:
        assert torch.equal(part.runs.parameters["amplitude"], runs.parameters["amplitude"][part.places])


def test_roughness_is_that_of_waves_and_noise():
    n = 48
    for nodes in (2, 4, 8):
        phase = 2 * math.pi * torch.arange(n, dtype=torch.float64) / nodes
        runs = waves(points=n)
        single = runs.replace(fields=torch.cos(phase).expand(runs.fields.shape))
        share = roughness(single)[:, 1]
        torch.testing.assert_close(share, torch.full_like(share, math.sin(math.pi / nodes) ** 4))
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 200, 200)))
    big = waves(200, 200).replace(fields=noise)
    assert (roughness(big) - 3 / 8).abs().max() < 0.02


def test_a_grid_too_coarse_for_its_fields_is_refused_by_name():
    runs = waves(points=16)
    rough = runs.fields.clone()
    rough[1] += 3 * (-1.0) ** torch.arange(16)
    with pytest.raises(
        FormatError,
        match=r"run 1: x has steps of 0.1875, 2 times those of training \(0.09375\), and fields that vary too fast to "
        r"be interpolated: their roughness is 0\..*, at most 0.25 .* is accepted. Give data on a finer grid",
    ):
        list(regridded(runs.replace(fields=rough), steps_of(waves(points=32))))
    # The same field on a finer grid than that of training is no obstacle: nothing has to be made up.
    assert len(list(regridded(runs.replace(fields=rough), steps_of(waves(points=8))))) == 1
    assert ROUGHEST == 0.25


# ------------------------------------------------------------------------------------ the whole path


@pytest.fixture(scope="module")
def grids():
    """The same 64 runs of Burgers' equation as three instruments see them."""
    return {
        n: simulate(load_recipe("burgers_small", overrides={"observation.points": n}), "test", range(64))
        for n in (16, 32, 64)
    }


@pytest.fixture(scope="module")
def sure(encoder, labelled):
    runs = simulate(load_recipe("burgers_small"), "validation", range(64))
    return fit_parameter_model(encoder, labelled, runs)


def scored(model, runs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.predict(runs)
    truth = runs.parameters["viscosity"].numpy()
    inside = (found.viscosity_low.values <= truth) & (truth <= found.viscosity_high.values)
    return float(np.abs(found.viscosity / truth - 1).mean()), float(inside.mean())


@pytest.mark.parametrize("points", [16, 64])
def test_prediction_and_coverage_hold_at_half_and_double_the_points(sure, grids, points):
    """Brought to the grid of training, runs are predicted as on it; read as they are, intervals hold almost none."""
    error, share = scored(sure, grids[32])
    other_error, other_share = scored(sure, grids[points])
    blind = dataclasses.replace(sure, format=dataclasses.replace(sure.format, steps={}))
    blind_error, blind_share = scored(blind, grids[points])
    print(f"{error:.3f} {share:.2f}; {other_error:.3f} {other_share:.2f}; {blind_error:.3f} {blind_share:.2f}")
    assert other_error < 1.3 * error and abs(other_share - share) < 0.1
    assert blind_error > 2 * error and blind_share < 0.6


def test_a_saved_model_keeps_the_grid(tmp_path, sure, grids):
    sure.save(tmp_path)
    again = pdessl.load(tmp_path)
    assert again.format.steps == sure.format.steps
    with pytest.warns(UserWarning, match="64 of 64 runs were brought to the grid of training: x interpolated"):
        found = again.predict(grids[16])
    with pytest.warns(UserWarning, match="brought"):
        assert found.identical(sure.predict(grids[16]))


def test_features_of_other_grids_are_those_of_the_grid_of_fit(encoder, grids):
    fitted = SimulationEncoder(encoder).fit(grids[32])
    wanted = fitted.transform(grids[32])
    with pytest.warns(UserWarning, match="x low-passed and sampled from steps of 0.09817 to 0.1963"):
        found = fitted.transform(grids[64])
    assert found.trajectory.identical(wanted.trajectory)
    spread = float(wanted.std("trajectory").mean())
    assert float(np.abs(found - wanted).mean()) < 0.25 * spread


def test_an_encoder_knows_the_grid_it_was_trained_on(tmp_path, encoder, grids):
    """Labelled runs on another grid than that of pretraining are brought to it, those of ``fit`` and new ones alike."""
    known = copy.deepcopy(encoder)
    known.trained_on = {"equation": "burgers", "steps": regridding.steps_of(grids[32])}
    save_pretrained(tmp_path, known)
    loaded = pdessl.load(tmp_path)
    assert regridding.trained_steps(loaded, grids[64]) == regridding.steps_of(grids[32])
    other = grids[64].replace(equation="heat")  # lengths and times of another problem
    assert regridding.trained_steps(loaded, other) == regridding.steps_of(grids[64])
    with pytest.warns(UserWarning, match="64 of 64 runs were brought to the grid of training: x low-passed"):
        model = fit_parameter_model(loaded, grids[64])
    assert model.format.ranges["nodes along x"] == (32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(grids[32])
    with pytest.warns(UserWarning, match="brought"):
        features = SimulationEncoder(str(tmp_path)).fit(grids[16]).transform(grids[64])
    with pytest.warns(UserWarning, match="brought"):
        assert np.allclose(features, SimulationEncoder(loaded).fit(grids[32]).transform(grids[64]), atol=1e-9)


def test_steps_that_are_no_numbers_are_refused(tmp_path, encoder):
    save_pretrained(tmp_path, encoder)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    for steps in ({"x": [1.0]}, {"x": ["a", 1.0]}, [1.0], {"x": [-1.0, 1.0]}):
        (tmp_path / "recipe.json").write_text(json.dumps(recipe | {"trained_on": {"steps": steps}}))
        with pytest.raises(CheckpointError, match="trained_on.steps must hold two numbers per axis"):
            pdessl.load(tmp_path)


def test_runs_too_short_at_the_step_of_training_are_refused(encoder, labelled, grids):
    model = fit_parameter_model(encoder, labelled, views=Views(window=(16, 32), count=1))
    twice = grids[32].replace(time=grids[32].time / 2)
    with pytest.raises(FormatError, match="12 entries along 'time', low-passed and sampled .*; the model needs 16"):
        model.predict(twice)
