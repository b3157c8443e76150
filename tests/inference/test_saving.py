import dataclasses
import hashlib
import json
import math
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pdessl
from pdessl.errors import CheckpointError, StoreError
from pdessl.evaluation.novelty import area_under_roc
from pdessl.inference import HeadReadout, ParameterModel, Views, fit_parameter_model
from pdessl.models import ConvEncoder, Encoder, Head, load, save_pretrained

from .conftest import UNITS


def with_head(encoder):
    """The same network with a head of two features."""
    inner = encoder.module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = Encoder(ConvEncoder(**(inner.init_args | {"features": 2})), **encoder.statistics)
    found.module.load_state_dict(inner.state_dict(), strict=False)
    return found.eval()


def variants(encoder, labelled):
    views = Views(strengths={"galilean_boost": 0.3}, window=(16, 32), reflections=True, count=2)
    return {
        "folds": lambda: fit_parameter_model(encoder, labelled, units=UNITS),
        "calibration": lambda: fit_parameter_model(encoder, labelled[:30], labelled[30:]),
        "views": lambda: fit_parameter_model(encoder, labelled[:12], views=views, seed=5),
        "named reflections": lambda: fit_parameter_model(encoder, labelled, views=Views(reflections=("x,u",), count=2)),
        "neighbours": lambda: fit_parameter_model(encoder, labelled, readout="neighbours", novelty="neighbours"),
        "quantile": lambda: fit_parameter_model(encoder, labelled, interval="quantile"),
        "quantile, split": lambda: fit_parameter_model(encoder, labelled[:30], labelled[30:], interval="quantile"),
        "trunk": lambda: fit_parameter_model(with_head(encoder), labelled),
        "head": lambda: fit_parameter_model(
            encoder,
            labelled[:30],
            labelled[30:],
            readout=HeadReadout(Head(encoder.feature_dim).eval(), 0, [-2.0], [0.3]),
        ),
    }


KINDS = ("folds", "calibration", "views", "neighbours", "quantile", "quantile, split", "trunk", "head")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_predicts_bit_for_bit_the_same(tmp_path, encoder, labelled, held_out, kind):
    model = variants(encoder, labelled)[kind]()
    expected = model.predict(held_out[:10], level=0.7)
    state = torch.get_rng_state()
    assert model.save(tmp_path / "m") == tmp_path / "m"
    assert torch.equal(torch.get_rng_state(), state)
    loaded = pdessl.load(tmp_path / "m")
    assert isinstance(loaded, ParameterModel)
    assert loaded.predict(held_out[:10], level=0.7).identical(expected)
    assert (loaded.level, loaded.seed, loaded.views, loaded.format) == (0.9, model.seed, model.views, model.format)
    assert loaded.card() == model.card() == (tmp_path / "m" / "card.md").read_text()
    loaded.save(tmp_path / "again")
    for name in ("parameter_model.json", "parameter_model.safetensors", "encoder/model.safetensors"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_folder_holds_numbers_and_text_only_and_is_an_encoder_too(tmp_path, model, held_out):
    model.save(tmp_path / "run" / "model")
    files = sorted(str(p.relative_to(tmp_path / "run" / "model")) for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert files == [
        "card.md",
        "encoder/model.safetensors",
        "encoder/recipe.json",
        "parameter_model.json",
        "parameter_model.safetensors",
    ]
    assert isinstance(pdessl.load(tmp_path / "run"), ParameterModel)
    encoder = load(tmp_path / "run" / "model")
    assert torch.equal(encoder(held_out.fields), model.encoder(held_out.fields))


def test_load_still_loads_networks(tmp_path, encoder, held_out):
    save_pretrained(tmp_path / "encoder", encoder)
    for path in (tmp_path, tmp_path / "encoder"):
        assert torch.equal(pdessl.load(path)(held_out.fields), encoder(held_out.fields))
    with pytest.raises(CheckpointError, match="holds neither a model of parameters .* nor a network .* Check the path"):
        pdessl.load(tmp_path / "nothing")


def test_coverage_measured_on_intervals_without_an_end_is_saved_and_said(tmp_path, encoder, labelled, held_out):
    with pytest.warns(UserWarning, match="7 calibration runs are too few for level 0.9.* 7 runs allow 0.875 at most"):
        model = fit_parameter_model(encoder, labelled[:7], held_out=held_out)
    model.save(tmp_path)
    loaded = pdessl.load(tmp_path)
    assert loaded.record["coverage"]["viscosity"]["share"] == 1.0
    assert loaded.record["coverage"]["viscosity"]["width"] is None
    text = (tmp_path / "card.md").read_text()
    assert re.search(r"\| viscosity \| 90% \| 100.0% \| .* \| infinite \| 64 \|", text)
    assert "7 calibration runs allow intervals at level 0.875 at most; above it they are infinite." in text
    assert np.isfinite(loaded.predict(held_out, level=0.875).viscosity_high).all()


def test_an_infinite_threshold_survives(tmp_path, model, held_out):
    never = dataclasses.replace(model, novelty=dataclasses.replace(model.novelty, threshold=math.inf))
    never.save(tmp_path)
    assert (pdessl.load(tmp_path).predict(held_out[:2]).novelty == 0).all()
    assert "nothing is ever called novel" in (tmp_path / "card.md").read_text()


def test_what_a_head_forgets_is_seen_below_it(encoder, labelled, held_out):
    """Two features of a random head miss more noise; the layer below them does not."""
    whole = with_head(encoder)
    model = fit_parameter_model(whole, labelled)
    without = dataclasses.replace(model, trunk_novelty=None)
    assert model.features(held_out).shape == (64, 2)
    assert without.predict(held_out).viscosity.identical(model.predict(held_out).viscosity)
    noise = torch.randn(held_out.fields.shape, generator=torch.Generator().manual_seed(0))
    strange = held_out.replace(fields=held_out.fields + 0.1 * noise)
    areas = [area_under_roc(m.predict(held_out).novelty, m.predict(strange).novelty) for m in (without, model)]
    print(f"area {areas[0]:.3f} of features, {areas[1]:.3f} with the layer below")
    assert areas[1] > max(0.9, areas[0] + 0.3)
    assert float(model.predict(held_out).in_distribution.mean()) > 0.85


@pytest.fixture
def saved(tmp_path, model):
    return model.save(tmp_path / "m")


def rewrite(folder, change):
    """Edit the description as someone would who recomputes no checksum of it (it has none of itself)."""
    path = folder / "parameter_model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


FILES = ("parameter_model.safetensors", "encoder/model.safetensors", "encoder/recipe.json")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_or_cut_is_refused(saved, name):
    content = (saved / name).read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        (saved / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="truncated or was changed after the model was written"):
            pdessl.load(saved)
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}. Copy the whole folder"):
        pdessl.load(saved)


def test_an_encoder_of_another_model_is_refused(saved, model):
    with torch.no_grad():
        other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Flatten())
    save_pretrained(saved / "encoder", other[0])
    with pytest.raises(CheckpointError, match="encoder/.* is truncated or was changed"):
        pdessl.load(saved)


def test_a_write_that_was_interrupted_is_refused(saved):
    (saved / "parameter_model.json").unlink()
    with pytest.raises(CheckpointError, match="writing the model was interrupted, or not all was copied"):
        pdessl.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(kind="image_model"), "does not describe a model of parameters"),
        (lambda c: c.update(format=99), "has format 99; this version reads 2"),
        (lambda c: c.pop("sha256"), "key 'encoder' or 'sha256' is missing"),
        (lambda c: c["sha256"].update({"../x": "0"}), "names a file '../x' that no model has"),
        (lambda c: c.pop("views"), "is damaged"),
        (lambda c: c["targets"][0].update(scale="root"), "is damaged"),
        (lambda c: c["targets"][0]["estimators"].pop(), "is damaged"),
        (lambda c: c["targets"][0]["estimators"][0]["readout"].update(kind="pickle"), "readout of kind 'pickle'"),
        (lambda c: c["novelty"].update(method="magic"), "novelty method 'magic'"),
        (lambda c: c["input"].update(ranges=3), "is damaged"),
        (lambda c: c.update(level=7), "level 7.0, 1 views"),
        (lambda c: c["views"].update(count=10**12), "1000000000000 views"),
        (lambda c: c["views"].update(strengths={"no_such": 1.0}), "no_such"),
        (lambda c: c["input"].update(needed=[0, 1]), r"sizes \(0, 1\)"),
        (lambda c: c["input"].update(steps={"time": [0, 0], "x": [1, 1]}), r"steps \[0.0, 0.0, 1.0, 1.0\]"),
        (lambda c: c.update(targets=7), "is damaged"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        pdessl.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v * math.nan, "readout/weights holds values that are not finite"),
        (lambda v: v[:-1].contiguous(), "readout/weights has 111 rows for 112 features"),
        (None, "SafetensorError"),
    ],
)
def test_arrays_that_make_no_sense_are_refused_even_with_their_checksum(saved, change, message):
    """Whoever can write the folder can write its checksums; what is in it is numbers all the same."""
    path = saved / "parameter_model.safetensors"
    if change is None:
        path.write_bytes(pickle.dumps(slice(1)))
    else:
        arrays = load_file(path)
        arrays["targets/0/0/readout/weights"] = change(arrays["targets/0/0/readout/weights"])
        save_file(arrays, path)
    rewrite(saved, lambda c: c["sha256"].update({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))
    with pytest.raises(CheckpointError, match=f"is damaged .*{message}"):
        pdessl.load(saved)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000])
def test_a_description_that_is_no_object_is_refused(saved, text):
    (saved / "parameter_model.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read|does not describe"):
        pdessl.load(saved)


def test_what_cannot_be_saved_is_refused_and_an_old_model_stays_until_then(saved, model, held_out):
    with pytest.raises(CheckpointError, match="its record must be plain data"):
        model.with_record(trained_by=object()).save(saved)
    assert pdessl.load(saved).predict(held_out[:2]).identical(model.predict(held_out[:2]))
    blocked = saved / "card.md" / "sub"
    with pytest.raises(StoreError, match="cannot write the model to"):
        model.save(blocked)


def test_a_newer_model_takes_the_place_of_an_older_one(saved, encoder, labelled, held_out):
    other = fit_parameter_model(encoder, labelled[:20])
    other.save(saved)
    assert pdessl.load(saved).predict(held_out[:3]).identical(other.predict(held_out[:3]))
    assert not [f for f in os.listdir(saved) if "tmp" in f]


def test_a_copied_folder_works(saved, tmp_path, model, held_out):
    shutil.copytree(saved, tmp_path / "elsewhere")
    shutil.rmtree(saved)
    assert pdessl.load(tmp_path / "elsewhere").predict(held_out[:2]).identical(model.predict(held_out[:2]))


def test_the_card_says_what_a_user_must_know(encoder, labelled, held_out):
    model = fit_parameter_model(
        encoder,
        labelled,
        units=UNITS,
        held_out=held_out,
        record={"data": "burgers_small", "floors": {"predict the mean": 0.41, "power spectrum": 0.08}},
    )
    card = model.card()
    measured = model.record["coverage"]["viscosity"]["share"]
    low, high = (float(f(labelled.parameters["viscosity"])) for f in (torch.min, torch.max))
    for words in (
        "# Viscosity of burgers",
        f"| viscosity | length^2/time | 48 | {low:.4g} to {high:.4g} | log | ridge | CV+ with 10 folds, 48 runs",
        f"| viscosity | 90% | {measured:.1%} |",
        "the draw of 48 calibration runs moves the coverage by about ±4% besides",
        "* predict the mean: 0.41",
        "* power spectrum: 0.08",
        "* fields: u (length/time)",
        f"| time step | {2 / 23:.6g} | {2 / 23:.6g} |",
        f"| spacing along x | {2 * np.pi / 32:.6g} |",
        "* data: burgers_small",
        f"* torch: {torch.__version__}",
    ):
        assert words in card
    unmeasured = fit_parameter_model(encoder, labelled).card()
    assert "Not measured on held-out runs" in unmeasured
    assert "No floors were given" in unmeasured
