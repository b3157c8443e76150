"""Surprise by a temporal JEPA; and detectors on networks, equations and features come back bitwise from disk."""

import json

import numpy as np
import pytest
import torch

import pdessl
from pdessl.data import Switch, simulate
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.experiments.latent_forecasts import foreseen
from pdessl.experiments.pretraining import pretrain
from pdessl.inference.feature_scores import FeatureScores, LatentScores
from pdessl.inference.known_equation import EquationScores
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.surprise import SurpriseDetector
from pdessl.inference.window_scores import Spread, WindowScores
from pdessl.models import (
    ConvEncoder,
    Encoder,
    GridActionPredictor,
    SpaceTimeTransformer,
    TokenPredictor,
    save_pretrained,
)
from pdessl.models.field_state import FieldState

FRAMES = slice(0, 26)


@pytest.fixture(scope="module")
def sound():
    return simulate("burgers", "validation", range(40)).without_parameters().window(FRAMES)


@pytest.fixture(scope="module")
def judged():
    return (
        simulate("burgers", "test", range(3), switch=Switch("viscosity", 3.0, 13)).without_parameters().window(FRAMES)
    )


def jepa(frames=8):
    torch.manual_seed(0)
    encoder = Encoder(SpaceTimeTransformer(1, (4, 16), width=8, depth=1, heads=2), [0.0], [0.4])
    return WindowScores(encoder.eval(), TokenPredictor(8, width=8, depth=1, heads=2).eval(), frames)


def test_scores_are_the_squared_errors_of_the_next_window_in_units_of_their_covariance(sound, judged):
    model = jepa().fitted(sound)
    found = model.scores(judged)
    assert found.values.shape == (3, 11, 2) and torch.equal(found.time, judged.time[:, 15:])
    t = 10  # past: frames 10 to 17, next: 18 to 25
    past, following = (judged.fields[:, :, a : a + 8] for a in (t, t + 8))
    every = torch.arange(16).expand(3, -1)
    with torch.no_grad():
        z = model.encoder.tokens(past), model.encoder.tokens(following)
        foreseen_ = model.predictor(z[0], every[:, :8], every[:, 8:], (4, 4))
    error = (z[1] - foreseen_).double()
    expected = (error @ model.roots[0]).square().mean(dim=2)
    torch.testing.assert_close(found.values[:, t, 0].exp(), expected.mean(dim=1), rtol=1e-4, atol=0)
    pooled = (error.mean(dim=1) @ model.roots[1]).square().mean(dim=1)
    torch.testing.assert_close(found.values[:, t, 1].exp(), pooled, rtol=1e-4, atol=0)
    # Where in space: a token stands for 16 nodes, its two times together.
    assert found.places.shape == (3, 11, 64)
    torch.testing.assert_close(found.places[:, t, ::16], expected.unflatten(1, (2, 4)).mean(dim=1), rtol=1e-4, atol=0)
    # What has been scored stays when a run goes on.
    cut = model.scores(judged.window(slice(0, 20)))
    torch.testing.assert_close(cut.values, found.values[:, :5], rtol=1e-5, atol=1e-6)


def own():
    """Runs of noise whose length is the same but for rounding."""
    base = simulate("burgers", "test", range(2)).without_parameters()
    fields = torch.randn(base.fields.shape, generator=torch.Generator().manual_seed(0))
    return base.replace(fields=fields, lengths=torch.tensor([[0.1 + 0.2], [0.3]], dtype=torch.float64))


def test_a_root_whitens_whatever_the_units():
    rows = torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = (
        rows @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]).double() * torch.tensor([1, 1e5, 1e-5])
    )
    spread = Spread()
    for part in rows.split(100):
        spread.add(part)
    torch.testing.assert_close(torch.cov((rows @ spread.root()).T), torch.eye(3, dtype=torch.float64))
    constant = FeatureScores.fit(
        lambda runs: torch.cat([runs.fields[:, 0, -1, :2], runs.lengths], dim=1).double(), own()
    )
    assert not constant.root[2].any() and constant.root[:2, :2].abs().max() > 0  # a length that is 0.1 + 0.2 or 0.3
    with pytest.raises(DataError, match="3 windows do not tell the covariance of 3 features. Give more runs"):
        few = Spread()
        few.add(rows[:3])
        few.root()


def test_what_a_jepa_cannot_judge_is_refused(sound):
    with pytest.raises(FormatError, match="Give runs of 16 frames or more"):
        jepa().fitted(sound.window(slice(0, 15)))
    with pytest.raises(DataError, match=r"SurpriseDetector\.fit"):
        jepa().scores(sound)


def sources(name, unlabelled):
    torch.manual_seed(0)
    if name == "temporal jepa":
        return jepa()
    if name == "features alone":  # a JEPA on features, without tokens
        network = ConvEncoder(in_channels=1, width=4, blocks=[1], features=4, periodic=[True])
        return WindowScores(Encoder(network, [0.0], [0.4]).eval(), torch.nn.Identity(), 8, False, False)
    if name == "world model":
        predictor = GridActionPredictor(latent=1, actions=0, tokens=64, width=4, blocks=1)
        return LatentScores(Encoder(FieldState(64), [0.0], [0.4]).eval(), predictor.eval(), on_tokens=True)
    if name == "equation":
        return EquationScores("burgers", ["viscosity"], noise_level=0.02)
    if name == "hand-made features":
        return FeatureScores.fit(PhysicsEncoder.of(unlabelled.window(slice(0, 8))), unlabelled)
    network = ConvEncoder(in_channels=1, width=4, blocks=[1], features=4, periodic=[True])
    return FeatureScores.fit(Encoder(network, [0.0], [0.4]).eval(), unlabelled)


NAMES = ("temporal jepa", "features alone", "world model", "equation", "hand-made features", "features of an encoder")


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_but_one_on_a_function_comes_back_bitwise(name, sound, judged, tmp_path):
    detector = SurpriseDetector.fit(sources(name, sound), sound)
    loaded = pdessl.load(detector.save(tmp_path / "d"))
    assert isinstance(loaded, SurpriseDetector) and type(loaded.model) is type(detector.model)
    before, after = (d.detect(judged, rate=0.1, places=True) for d in (detector, loaded))
    assert before.identical(after) and bool(np.isfinite(before.statistic.values).any())
    if (tmp_path / "d" / "encoder").is_dir():
        other = detector.model.features if name == "features of an encoder" else detector.model.encoder
        save_pretrained(tmp_path / "other", Encoder(other.module, [0.1], [0.4]))  # the same weights, another scale
        for file in (tmp_path / "other").iterdir():
            kept = (tmp_path / "d" / "encoder" / file.name).read_bytes()
            (tmp_path / "d" / "encoder" / file.name).write_bytes(file.read_bytes())
            file.write_bytes(kept)
        with pytest.raises(CheckpointError, match="encoder/ is not the network that the detector was calibrated with"):
            pdessl.load(tmp_path / "d")
        for file in (tmp_path / "other").iterdir():
            (tmp_path / "d" / "encoder" / file.name).write_bytes(file.read_bytes())
    arrays = tmp_path / "d" / "scores.safetensors"
    if arrays.exists():
        arrays.write_bytes(arrays.read_bytes()[:-1] + b"\0")
        with pytest.raises(CheckpointError, match="calibrate again"):
            pdessl.load(tmp_path / "d")


def test_a_detector_that_was_tampered_with_is_refused(sound, tmp_path):
    folder = SurpriseDetector.fit(sources("equation", sound), sound).save(tmp_path / "d")
    content = json.loads((folder / "surprise.json").read_text())
    for wrong in ({"kind": "other"}, {"half_width": "wide"}, {"constants": None}):
        (folder / "surprise.json").write_text(json.dumps(content | {"model": content["model"] | wrong}))
        with pytest.raises(CheckpointError, match="calibrate again"):
            pdessl.load(folder)


def test_a_run_of_temporal_prediction_keeps_its_predictor_and_an_old_one_is_told_apart(small_store, sound, tmp_path):
    words = {
        "data.path": str(small_store), "data.batch_size": 16,
        "trainer.max_epochs": 1, "trainer.enable_progress_bar": False,
        "model.encoder.init_args": {"patch": [8, 8], "width": 16, "depth": 1, "heads": 2},
        "model.predictor.init_args": {"token_dim": 16, "width": 16, "depth": 1, "heads": 2},
    }  # fmt: skip
    run = pretrain("burgers_jepa", words, tmp_path / "run")
    found = foreseen(run.folder)
    assert isinstance(found, WindowScores) and found.frames == 16 and found.with_places
    kept = run.task.predictor.state_dict()
    assert all(torch.equal(kept[n], v) for n, v in found.predictor.state_dict().items())
    other = run.folder / "encoder" / "recipe.json"
    text = other.read_text()
    other.write_text(text.replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(CheckpointError):
        foreseen(run.folder)
    other.write_text(text)
    (run.folder / "predictor").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="holds an encoder and no predictor.*has to be trained again"):
        pdessl.surprise(run.folder, sound, sound=sound)
