"""Embeddings of runs for posterior estimators; and the recipe with sbi, where it is installed."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from pdessl.data import simulate
from pdessl.errors import FormatError, ShapeError
from pdessl.inference.run_embedding import RunEmbedding
from pdessl.models import ConvEncoder, Encoder

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "posterior.py"


def test_an_embedding_is_the_standardised_features_and_nothing_of_it_is_trained():
    torch.manual_seed(0)
    runs = simulate("burgers_small", "unlabelled", range(12))
    encoder = Encoder(ConvEncoder(width=4, blocks=(1,)), [0.0], [0.6]).eval()
    embedding = RunEmbedding(encoder, runs)
    found = embedding(runs.fields)
    assert found.shape == (12, embedding.width) and found.dtype == torch.float32
    with torch.no_grad():
        expected = encoder(runs.fields).double()
    deviation = expected.std(dim=0)
    varied = deviation > 1e-9
    standard = ((expected - expected.mean(dim=0)) / deviation)[:, varied]
    torch.testing.assert_close(found[:, varied].double(), standard, rtol=1e-3, atol=1e-3)
    assert not found[:, ~varied].any()
    # A program that trains it finds nothing to train, and does not put the encoder into training mode.
    assert set(embedding.train().state_dict()) == {"mean", "scale"}
    assert not any(p.requires_grad for p in embedding.parameters())
    assert not encoder.training and not encoder.module.training
    wanted = runs.fields[:2].clone().requires_grad_()
    assert not embedding(wanted).requires_grad
    with pytest.raises(ShapeError, match=r"expected \(B, 1, 28, 32\)|expected \(B, "):
        embedding(runs.fields[:, :, 1:])
    longer = runs.replace(lengths=runs.lengths * torch.linspace(1, 2, 12)[:, None])
    with pytest.raises(FormatError, match="different lengths; fields alone do not tell them"):
        RunEmbedding(encoder, longer)


def test_the_recipe_with_sbi_runs(monkeypatch, capsys, tmp_path):
    pytest.importorskip("sbi", reason="pip install 'pdessl[sbi]' to estimate posteriors")
    monkeypatch.chdir(tmp_path)
    words = "--dataset burgers_small --simulations 48 --test 8 --draws 20 --epochs 2"
    monkeypatch.setattr(sys, "argv", ["posterior.py", *words.split()])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    assert re.search(r"'inside_90': \d[^$]*viscosities above the prior[^$]*'mmd_p': \d", capsys.readouterr().out)
