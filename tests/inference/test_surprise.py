"""Surprise: alarms at the promised rate in sound runs, and where the law changes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import pdessl
from pdessl.cli import main
from pdessl.data import Switch, simulate
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.experiments.surprise import calibrated, plot_surprise, surprise_of_files
from pdessl.inference.conditions import Condition
from pdessl.inference.frame_scores import LawScores, PlainScores, StepScores, scores_of
from pdessl.inference.surprise import SurpriseDetector
from pdessl.inference.surrogates import SurrogateModel
from pdessl.models import DilatedNetwork, Surrogate
from pdessl.operators import discover, save_law
from pdessl.trajectory import Trajectories


def series(values):
    """Runs whose single node holds these values, (B, T)."""
    count, frames = values.shape
    return Trajectories(
        fields=values[:, None, :, None],
        time=torch.arange(frames, dtype=torch.float64).expand(count, -1),
        space=(torch.zeros(count, 1, dtype=torch.float64),),
        lengths=torch.ones(count, 1, dtype=torch.float64),
    )


def itself(runs):
    return runs.fields[:, 0, :, 0]


def correlated(count, generator, frames=24):
    """Positive series with a level of their own and a memory: nothing about them is independent but the runs."""
    level = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    steps = torch.randn(count, frames, generator=generator, dtype=torch.float64)
    return torch.exp(level + 0.3 * steps.cumsum(dim=1))


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_sound_runs_raise_alarms_at_the_promised_rate(rate):
    """Exchangeable runs: the rate over calibrations is the share of ranks above the quantile, within binomial error."""
    generator = torch.Generator().manual_seed(1)
    alarms, calibrations, runs = 0, 60, 50
    for seed in range(calibrations):
        detector = SurpriseDetector.fit(itself, series(correlated(120, generator)), seed=seed)
        alarms += int(detector.detect(series(correlated(runs, generator)), rate).alarm.sum())
    exact = math.floor(61 * rate) / 61
    # Over calibrations the rate of one scatters as a Beta distribution does.
    scatter = math.sqrt(rate * (1 - rate) * (1 / 62 + 1 / runs) / calibrations)
    assert exact <= rate and abs(alarms / (calibrations * runs) - exact) < 4 * scatter


def test_p_values_are_uniform_in_sound_runs_and_small_where_something_is_wrong():
    generator = torch.Generator().manual_seed(2)
    detector = SurpriseDetector.fit(itself, series(correlated(400, generator)))
    sound = detector.detect(series(correlated(400, generator))).p_value.values
    for level in (0.1, 0.5, 0.9):
        assert abs((sound <= level).mean() - level) < 0.06
    wrong = correlated(50, generator)
    wrong[:, 12:] *= 100
    found = detector.detect(series(wrong))
    assert float(found.p_value[:, 13:].median()) < 0.02 < float(found.p_value[:, :12].median())
    assert float(found.alarm.mean()) > 0.9 and float(found.alarm_time.min()) >= 12


@pytest.fixture(scope="module")
def kuramoto():
    """A law of Kuramoto-Sivashinsky runs, and sound runs it was not found in."""
    law = discover(simulate("kuramoto_sivashinsky", "unlabelled", range(48)), half_width=(13, 9), resamples=0)
    return law, simulate("kuramoto_sivashinsky", "validation", range(48)).without_parameters()


def test_a_hyperviscosity_that_changes_on_the_way_raises_the_alarm_and_symmetries_do_not(kuramoto):
    law, sound = kuramoto
    detector = SurpriseDetector.fit(law, sound)
    switch = Switch("hyperviscosity", 1.3, 32)
    changed = simulate("kuramoto_sivashinsky", "test", range(8), switch=switch)
    found = detector.detect(changed)
    assert bool(found.alarm.all())
    assert bool((found.alarm_time > changed.time[:, 32].numpy()).all())
    untouched = simulate("kuramoto_sivashinsky", "test", range(8)).without_parameters()
    plain = detector.detect(untouched)
    # A shift and the reflection u(x) -> -u(-x) are symmetries of the law: they surprise no more than the run does.
    moved = untouched.replace(fields=-untouched.fields.flip(3).roll(17, dims=3))
    again = detector.detect(moved)
    assert np.allclose(again.statistic, plain.statistic, atol=0.05) and float(plain.alarm.mean()) < 0.4


@pytest.mark.parametrize("refined", [1, 2])
def test_where_a_sensor_fails_is_seen(kuramoto, refined):
    law, sound = kuramoto
    law = replace(law, projection=replace(law.projection, refined=refined))
    runs = simulate("kuramoto_sivashinsky", "test", range(2)).without_parameters()
    fields = runs.fields.clone()
    fields[:, :, 40:, 50] = 3.0
    found = SurpriseDetector.fit(law, sound).detect(runs.replace(fields=fields), places=True)
    assert bool(found.alarm.all()) and found.places.dims == ("trajectory", "frame", "x")
    last = found.places.isel(frame=-1)
    assert last.shape == (2, fields.shape[3])
    assert (np.abs(last.argmax("x").values - 50) <= 4).all()


def test_a_detector_comes_back_bitwise(kuramoto, tmp_path):
    law, sound = kuramoto
    detector = SurpriseDetector.fit(law, sound)
    runs = simulate("kuramoto_sivashinsky", "test", range(3)).without_parameters()
    loaded = pdessl.load(detector.save(tmp_path / "detector"))
    assert isinstance(loaded, SurpriseDetector) and loaded.detect(runs).identical(detector.detect(runs))
    content = json.loads((tmp_path / "detector/surprise.json").read_text())
    content["model"]["kind"] = "other"
    (tmp_path / "detector/surprise.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="calibrate again"):
        pdessl.load(tmp_path / "detector")


def stepper(condition=0):
    torch.manual_seed(0)
    surrogate = Surrogate(DilatedNetwork(channels=1, past=2, width=4, blocks=1, condition=condition))
    runs = simulate("burgers", "unlabelled", range(16))
    surrogate.set_statistics(runs.fields, torch.ones(16, 1) if condition else None)
    return surrogate.eval(), runs


def test_a_time_stepper_is_surprised_by_the_frames_it_errs_in(tmp_path):
    surrogate, runs = stepper()
    model = SurrogateModel.of(surrogate, Condition(), 8, runs.without_parameters())
    source = scores_of(model)
    assert isinstance(source, StepScores)
    test = simulate("burgers", "test", range(3)).without_parameters()
    found = source.scores(test)
    last = surrogate.rollout(test.fields[:, :, 18:20].float(), 1).double() - test.fields[:, :, 20:21].double()
    size = test.fields[:, :, 20].double().square().mean(dim=(1, 2))
    assert torch.allclose(found.values[:, 12, 0].exp(), last.square().mean(dim=(1, 2, 3)) / size, rtol=1e-5)
    assert torch.equal(found.time, test.time[:, 8:])
    detector = SurpriseDetector.fit(model, simulate("burgers", "validation", range(24)).without_parameters())
    noisy = test.fields.clone()
    noise = torch.randn(noisy[:, :, 20:].shape, generator=torch.Generator().manual_seed(0))
    noisy[:, :, 20:] += 2.0 * noise
    assert bool(detector.detect(test.replace(fields=noisy), rate=0.1).alarm.all())
    loaded = pdessl.load(detector.save(tmp_path / "d"))
    assert loaded.detect(test, rate=0.1).identical(detector.detect(test, rate=0.1))


def test_what_cannot_be_judged_is_refused_with_the_repair(kuramoto):
    law, sound = kuramoto
    detector = SurpriseDetector.fit(law, sound)
    longer = Trajectories.concatenate([sound[slice(0, 2)]])
    stretched = longer.replace(
        fields=torch.cat([longer.fields, longer.fields], dim=2), time=longer.time_step[:, None] * torch.arange(128)
    )
    with pytest.raises(FormatError, match=r"ds\.isel\(time=slice\(64\)\), or calibrate on runs as long"):
        detector.detect(stretched)
    assert detector.detect(stretched.window(slice(0, 64))).sizes["trajectory"] == 2  # the repair
    with pytest.raises(FormatError, match="Give longer runs"):
        detector.detect(sound.window(slice(0, 20)))
    with pytest.raises(DataError, match="Give 200 sound runs or more"):
        detector.threshold(0.01)
    many = torch.rand(200, 8, generator=torch.Generator().manual_seed(0)).double() + 1
    assert SurpriseDetector.fit(itself, series(many)).threshold(0.01) > 0  # the repair
    with pytest.raises(DataError, match="between 0 and 1"):
        detector.threshold(1.5)
    with pytest.raises(DataError, match="20 or more"):
        SurpriseDetector.fit(law, sound[slice(0, 6)])
    with pytest.raises(DataError, match="nothing to compare"):
        SurpriseDetector.fit(lambda runs: torch.ones(len(runs), 4), sound)
    with pytest.raises(FormatError, match="one number for each of the last frames"):
        SurpriseDetector.fit(PlainScores(lambda runs: torch.ones(3)), sound)
    with pytest.raises(FormatError, match="foresees nothing"):
        scores_of(torch.nn.Linear(2, 2))
    surrogate, runs = stepper(condition=1)
    told = SurrogateModel.of(surrogate, Condition("parameter", ("viscosity",)), 8, runs)
    with pytest.raises(FormatError, match="--condition operator"):
        scores_of(told)
    with pytest.raises(CheckpointError, match="Fit it again"):
        SurpriseDetector.fit(lambda runs: runs.fields.square().mean(dim=(1, 3)), sound).save("nowhere")


def test_the_width_of_calibration_is_that_of_shorter_runs(kuramoto):
    law, sound = kuramoto
    scores = LawScores(law).for_frames(64)
    assert scores.width == 6 and LawScores(law, width=4).for_frames(64).width == 4
    whole, part = (scores.scores(runs) for runs in (sound, sound.window(slice(0, 48))))
    # But for the level of the noise, which is that of the run, later frames do not count.
    assert torch.allclose(whole.values[:, 30:36], part.values[:, 30:36], atol=0.2)


def test_sound_runs_of_other_names_and_lengths(kuramoto, tmp_path):
    """A dimension of another name counts runs; of runs of several lengths the most common one sets the thresholds."""
    law, sound = kuramoto
    named = sound.to_xarray().rename(trajectory="member")
    assert pdessl.surprise(law, named, sound=named).identical(pdessl.surprise(law, named, sound=sound))
    for i in range(24):
        length = 50 if i in (3, 7) else 64
        run = sound[slice(i, i + 1)].window(slice(0, length)).to_xarray().isel(trajectory=0, drop=True)
        run.to_netcdf(tmp_path / f"run_{i:02d}.nc", engine="h5netcdf")
    detector = calibrated(law, tmp_path)
    assert detector.count == 11 and detector.declared.ranges["frames"] == (64.0, 64.0)
    found = surprise_of_files(detector, [tmp_path], rate=0.2)
    assert found.sizes["run"] == 24 and bool(found.time.notnull().any("frame").all())
    short = [str(file).endswith(("run_03.nc", "run_07.nc")) for file in found["file"].values]
    assert (found.time.isnull().any("frame").values == short).all()  # no frames beyond those they have
    plot_surprise(detector, [tmp_path], found, tmp_path / "s.svg")
    with pytest.raises(DataError, match="write the picture to a file ending in .png, .svg, .pdf"):
        plot_surprise(detector, [tmp_path], found, tmp_path / "s.gif")


def test_files_through_the_command_line(kuramoto, tmp_path, capsys):
    law, sound = kuramoto
    save_law(law, tmp_path / "law", {"x": "periodic"})
    sound.to_xarray().to_netcdf(tmp_path / "sound.nc", engine="h5netcdf")
    parts = [
        simulate("kuramoto_sivashinsky", "test", range(2), switch=switch).without_parameters().to_xarray()
        for switch in (None, Switch("hyperviscosity", 1.5, 30))
    ]
    xr.concat(parts, "trajectory").drop_vars("trajectory").to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    words = ["surprise", "--model", tmp_path / "law", "--sound", tmp_path / "sound.nc", tmp_path / "new.nc"]
    words += ["--out", tmp_path / "s.csv", "--plot", tmp_path / "s.png", "--save", tmp_path / "detector"]
    assert main([str(w) for w in words]) == 0
    printed = capsys.readouterr().out
    assert "run 2: alarm at time" in printed and "run 3: alarm at time" in printed
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "file,run,time,known,surprise,p_value,statistic,alarm"
    assert {line.split(",")[1] for line in lines[1:] if line.endswith("True")} >= {"2", "3"}
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    again = [
        str(w) for w in ("surprise", "--model", tmp_path / "detector", tmp_path / "new.nc", "--out", tmp_path / "s.nc")
    ]
    assert main(again) == 0
    with xr.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as found:
        assert found.alarm.values[2:].all() and found.attrs["calibration_runs"] == 24
    assert main([str(w) for w in ("surprise", "--model", tmp_path / "law", tmp_path / "new.nc")]) == 2
    assert "--sound" in capsys.readouterr().err
    # What cannot be written is refused before anything is read or calibrated.
    assert main(["surprise", "--model", "nowhere", "new.nc", "--out", "s.txt"]) == 2
    assert "write the surprise to a file ending in .csv, .nc" in capsys.readouterr().err
