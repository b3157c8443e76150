"""Floors of surprise: the known equation, distances of features, and world models."""

import numpy as np
import pytest
import torch

import pdessl
from pdessl.data import Switch, simulate
from pdessl.errors import DataError, FormatError
from pdessl.evaluation.classical import weak_form, weak_terms
from pdessl.experiments.pretraining import pretrain
from pdessl.inference.feature_scores import FeatureScores, LatentScores
from pdessl.inference.known_equation import EquationScores
from pdessl.inference.surprise import SurpriseDetector
from pdessl.models import ActionPredictor

CONSTANTS = {"steepening": 1.0, "antidiffusion": 1.0}


def runs(split, count, **given):
    return simulate("kuramoto_sivashinsky", split, range(count), **given).without_parameters()


@pytest.fixture(scope="module")
def sound():
    return runs("validation", 24)


def test_the_weak_form_is_the_minimum_of_the_sum_over_positions(sound):
    """The quadratics of all positions add up to that of the run; at its minimum nothing is left of noiseless runs."""
    clean = simulate("burgers", "test", range(3))
    terms = weak_terms("burgers", clean, ("viscosity",))
    assert terms.gram.shape == (3, 40 - 2 * terms.reach, 1, 1)
    found = terms.right.sum(dim=1)[:, 0] / terms.gram.sum(dim=1)[:, 0, 0]
    torch.testing.assert_close(weak_form("burgers", clean, "viscosity"), found)


def test_the_known_equation_notices_a_parameter_that_changes_and_no_symmetry(sound):
    source = EquationScores("kuramoto_sivashinsky_coefficients", ["hyperviscosity"], CONSTANTS, noise_level=0.065)
    detector = SurpriseDetector.fit(source, sound)
    changed = runs("test", 6, switch=Switch("hyperviscosity", 1.5, 32))
    found = detector.detect(changed, rate=0.1)
    assert bool(found.alarm.all()) and bool((found.alarm_time > changed.time[:, 32].numpy()).all())
    plain = runs("test", 6)
    moved = plain.replace(fields=-plain.fields.flip(3).roll(17, dims=3))
    same = (detector.detect(part, rate=0.1).statistic.values for part in (plain, moved))
    np.testing.assert_allclose(*same, atol=1e-3)
    # A position knows nothing of later frames: what has been scored stays when a run goes on.
    whole, part = source.scores(plain), source.scores(plain.window(slice(0, 60)))
    short = EquationScores(source.equation, source.unknown, CONSTANTS, half_width=(6, 6), noise_level=0.065)
    part = short.scores(plain.window(slice(0, 60)))
    # So is a detector's: the width is that of the calibration runs, whatever the length of the runs that are judged.
    judged = (detector.detect(part, rate=0.1) for part in (plain, plain.window(slice(0, 50))))
    first, cut = (found.statistic.values[:, :38] for found in judged)
    assert cut[:, -1].all() and np.isfinite(cut).all()
    np.testing.assert_allclose(first, cut, atol=1e-9)
    count = part.values.shape[1]
    torch.testing.assert_close(whole.values[:, :count], part.values, equal_nan=True)
    assert torch.equal(whole.known[:, :count], part.known) and torch.equal(part.known[:, -1], plain.time[:, 59])
    with pytest.raises(FormatError, match="34 to be surprised. Give longer runs"):
        short.scores(plain.window(slice(0, 30)))


def test_distances_are_those_of_mahalanobis_whatever_the_units_of_features():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.5], [0.0, 2.0]])

    def features(seen):
        return seen.fields[:, 0, -1, :2].double() @ mixing.double()

    def scaled(seen):
        return features(seen) * torch.tensor([1e6, 1e-6]).double() + 3.0

    base = runs("test", 2)
    drawn = torch.randn(2, 1, 64, 128, generator=generator)
    given = base.replace(fields=drawn)
    held = FeatureScores.fit(features, given, window=4, stride=1)
    found = held.scores(given)
    read = torch.stack([features(given.window(slice(t, t + 4))) for t in range(61)], dim=1)
    flat = read.flatten(0, 1)
    away = flat - flat.mean(dim=0)
    expected = torch.einsum("ni,ij,nj->n", away, torch.linalg.inv(torch.cov(flat.T)), away).reshape(2, 61) / 2
    torch.testing.assert_close(found.values[..., 0].exp(), expected)
    torch.testing.assert_close(FeatureScores.fit(scaled, given, 4, 1).scores(given).values, found.values)
    assert torch.equal(found.time, given.time[:, 3:])
    with pytest.raises(DataError, match="Give more runs"):
        FeatureScores.fit(lambda seen: seen.fields.flatten(1), given, window=63)
    with pytest.raises(FormatError, match="Give longer runs"):
        held.scores(given.window(slice(0, 3)))


def test_a_world_model_is_surprised_by_the_latents_it_errs_in():
    torch.manual_seed(0)
    predictor, given = ActionPredictor(128, 2, (4,), undetermined=1), runs("test", 2)
    acted = given.replace(actions=torch.randn(2, 2, 63, dtype=torch.float64))
    source = LatentScores(lambda states: states[:, 0, -1], predictor, frames=2)
    found = source.scores(acted)
    z = acted.fields[:, 0].float()
    t = 20
    with torch.no_grad():
        missed = z[:, t + 1] - predictor(z[:, t], acted.actions[:, :, t].float())
    seen = z[:, 1 : t + 2].double()
    size = seen.var(dim=1, correction=0).mean(dim=1)
    torch.testing.assert_close(
        found.values[:, t - 1, 0].exp(), missed.double().square().mean(dim=1) / size, rtol=1e-4, atol=0
    )
    assert torch.equal(found.time, acted.time[:, 2:])
    with pytest.raises(FormatError, match="reads 2 amplitudes in every frame; the runs have none"):
        source.scores(given)
    with pytest.raises(FormatError, match="expected 4 or more"):
        source.scores(acted.window(slice(0, 3)))


def test_surprise_takes_the_folder_of_a_world_model(tmp_path, ks22_store):
    words = [f"data.path={ks22_store}", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    pretrain("world/ks22_futures", words, tmp_path / "run")
    store = pdessl.open(ks22_store)
    calm = pdessl.Trajectories.concatenate([store.load("unlabelled"), store.load("labelled").without_parameters(())])
    odd = store.load("test").without_parameters(())
    noise = torch.randn(odd.fields[:, :, 20:].shape, generator=torch.Generator().manual_seed(0))
    fields = torch.cat([odd.fields[:, :, :20], odd.fields[:, :, 20:] + 3.0 * noise], dim=2)
    found = pdessl.surprise(tmp_path / "run", odd.replace(fields=fields), sound=calm, rate=0.1)
    # The noise begins in frame 20; an alarm before it is a false one.
    assert bool(found.alarm.all())
    assert float(odd.time[0, 20]) <= float(np.median(found.alarm_time.values)) <= float(odd.time[0, 23])
