"""The one path from runs to features: common draws, many runs at a time, every kind of encoder."""

import warnings

import numpy as np
import pytest
import torch

import pdessl
from pdessl import LieAugmentation
from pdessl.data import simulate
from pdessl.errors import CheckpointError, DataError, FormatError, ShapeError
from pdessl.inference import PhysicsEncoder, Views, features, fit_parameter_model
from pdessl.inference.readouts import CodeReadout, fit_estimator
from pdessl.models import bounded
from pdessl.models.ridge import fit_ridge_on_views
from pdessl.operators import discover

VIEWS = Views({"space_translation": 0.5, "galilean_boost": 0.3}, window=(16, 24), count=3)


def test_every_run_is_seen_through_the_same_draws(encoder, labelled):
    """Against the slow way: each run alone, its views made of one generator and averaged."""
    runs = labelled.without_parameters()[:7]
    augmentation = LieAugmentation("burgers", VIEWS.strengths, window=VIEWS.window)
    rows = []
    for run in runs:
        views, _ = augmentation(run[[0] * 3], torch.Generator().manual_seed(5))
        with torch.no_grad():
            rows.append(encoder(views.fields).double().mean(dim=0))
    found = features(encoder, runs, VIEWS, "burgers", seed=5)
    assert torch.allclose(found, torch.stack(rows), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, features(encoder, runs, VIEWS, "burgers", seed=6), rtol=1e-2)


@pytest.mark.parametrize("batch", [1, 6, 256])
def test_features_of_a_run_do_not_depend_on_its_company(encoder, labelled, batch):
    runs = labelled.without_parameters()
    together = features(encoder, runs, VIEWS, "burgers", batch=batch)
    alone = torch.cat([features(encoder, runs[[i]], VIEWS, "burgers") for i in (0, 13, 47)])
    assert torch.allclose(together[[0, 13, 47]], alone, rtol=1e-5, atol=1e-6)


def test_groups_of_equal_draws_need_whole_groups(labelled):
    augmentation = LieAugmentation("burgers", VIEWS.strengths, window=VIEWS.window)
    generator = torch.Generator().manual_seed(0)
    _, drawn = augmentation(labelled[:6], generator, common=3)
    for values in (drawn.relative["space_translation"], drawn.start[:, 0]):
        assert torch.equal(values[:3], values[3:]) and len(set(values[:3].tolist())) > 1
    with pytest.raises(ShapeError, match="5 trajectories are not made of groups of 3"):
        augmentation(labelled[:5], generator, common=3)


def test_what_is_no_encoder_is_refused(labelled):
    with pytest.raises(CheckpointError, match="list is no encoder"):
        features([], labelled)


@pytest.mark.parametrize("kind", ["ridge", "neighbours", "mean"])
def test_models_of_hand_made_features_are_saved_and_read_back_bitwise(labelled, held_out, tmp_path, kind):
    model = fit_parameter_model(PhysicsEncoder.of(labelled), labelled, readout=kind)
    again = pdessl.load(model.save(tmp_path / "m"))
    assert again.predict(held_out).equals(model.predict(held_out))
    assert isinstance(again.encoder, PhysicsEncoder)
    if kind == "mean":
        value = labelled.parameters["viscosity"].log().mean().exp()
        assert np.allclose(again.predict(held_out)["viscosity"], float(value))


def test_hand_made_features_of_views_are_those_of_the_views_and_are_averaged(labelled):
    """Against the slow way, as for a network above."""
    runs = labelled.without_parameters()[:4]
    encoder = PhysicsEncoder.of(runs, VIEWS)
    augmentation = LieAugmentation("burgers", VIEWS.strengths, window=VIEWS.window)
    rows = []
    for run in runs:
        views, _ = augmentation(run[[0] * 3], torch.Generator().manual_seed(5))
        rows.append(encoder.features(views))
    every = features(encoder, runs, VIEWS, "burgers", seed=5, average=False)
    torch.testing.assert_close(every, torch.stack(rows), rtol=1e-4, atol=1e-4)
    assert torch.equal(features(encoder, runs, VIEWS, "burgers", seed=5), every.mean(dim=1))
    balance = PhysicsEncoder.balance(runs)  # of whole runs, whatever views are drawn
    assert torch.equal(features(balance, runs, VIEWS, "burgers"), features(balance, runs))
    assert torch.equal(features(balance, runs, average=False)[:, 0], features(balance, runs))


def test_a_ridge_on_hand_made_features_is_fitted_on_every_view_and_saved_with_them(labelled, held_out, tmp_path):
    encoder = PhysicsEncoder.of(labelled, VIEWS)
    model = fit_parameter_model(encoder, labelled[:24], targets="viscosity", views=VIEWS)
    again = pdessl.load(model.save(tmp_path / "m"))
    assert again.predict(held_out).equals(model.predict(held_out))
    y = labelled[:24].parameters["viscosity"].double().log()
    every = features(encoder, labelled[:24].without_parameters(), VIEWS, "burgers", average=False)
    readout, left = fit_ridge_on_views(every, y)
    found = model.targets[0].estimator
    torch.testing.assert_close(found.readout.weights, readout.weights)
    assert found.left_out == pytest.approx(float(left.square().mean().sqrt()))
    seen = features(encoder, held_out.without_parameters(), VIEWS, "burgers")
    mine = bounded(readout.predict(seen)[:, 0], y).exp()
    np.testing.assert_allclose(again.predict(held_out)["viscosity"], mine, rtol=1e-6)


def test_hand_made_features_that_runs_lack_are_refused(labelled):
    encoder = PhysicsEncoder.of(labelled)
    with pytest.raises(FormatError, match="the runs have no 'u: log power along x"):
        encoder.features(labelled.replace(
            fields=labelled.fields[..., ::4], space=(labelled.space[0][:, ::4],)
        ))  # fmt: skip


def test_a_model_of_hand_made_features_reads_longer_runs_and_refuses_shorter_ones(labelled, held_out, tmp_path):
    frames = labelled.fields.shape[2]
    fitted = labelled.window(slice(0, frames - 4))
    again = pdessl.load(fit_parameter_model(PhysicsEncoder.of(fitted), fitted).save(tmp_path / "m"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that they are longer than those of training
        for length in (frames - 4, frames - 1, frames):
            found = again.predict(held_out.window(slice(0, length)))["viscosity"].values
            assert np.median(np.abs(found / held_out.parameters["viscosity"].numpy() - 1)) < 0.3
        with pytest.raises(FormatError, match=r"the runs have no .* shorter, than those of training"):
            again.predict(held_out.window(slice(0, frames - 12)))


@pytest.fixture(scope="module")
def runs():
    return simulate("burgers_small", "labelled", range(64))


@pytest.fixture(scope="module")
def law(runs):
    return discover(runs.without_parameters(), rank=1)


@pytest.mark.parametrize("count", [2, 4, 32])
def test_a_law_is_an_encoder_like_the_others(law, runs, held_out, tmp_path, count):
    model = fit_parameter_model(law, runs[:count])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        measured, found = model.measure(held_out), model.predict(held_out)
        again = pdessl.load(model.save(tmp_path / "m"))
        assert again.predict(held_out).equals(found)
    assert again.card() == model.card()
    assert measured.parameters["viscosity"].error < 15  # predict the mean: above 50
    if count < 6:
        with pytest.warns(UserWarning, match="Give six labelled runs or more"):
            assert np.isinf(model.predict(held_out)["viscosity_high"]).all()
    else:
        assert np.isfinite(found["viscosity_high"]).all()
        assert measured.parameters["viscosity"].coverage.honest


def test_one_label_is_too_few_for_a_law_and_five_for_a_ridge(law, encoder, runs, labelled):
    with pytest.raises(DataError, match="1 labelled runs; expected 2 or more"):
        fit_parameter_model(law, runs[:1])
    with pytest.raises(DataError, match="5 labelled runs; expected 6 or more"):
        fit_parameter_model(encoder, labelled[:5])


def test_leaving_out_chooses_the_affine_readout_where_codes_are_affine():
    z = torch.rand(24, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    affine, curved = (0.3 * z[:, 0]).log(), (z[:, 0] * 6).sin()
    assert isinstance(fit_estimator(z, affine, "best", scale="log").readout, CodeReadout)
    assert not isinstance(fit_estimator(z, curved, "best", scale="linear").readout, CodeReadout)
    # what is affine is not bounded by the labels
    beyond = fit_estimator(z, affine, "affine", scale="log").predict(torch.tensor([[30.0]], dtype=torch.float64))
    assert beyond[0] == pytest.approx(np.log(9.0))
