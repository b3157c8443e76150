"""Poor views with the codes of whole runs, and the objective that teaches an encoder these."""

import math

import pytest
import torch
from torch import nn

import pdessl
from pdessl.data import generate, simulate
from pdessl.errors import CheckpointError, DataError, SchemaError, ShapeError
from pdessl.experiments.pretraining import pretrain
from pdessl.objectives import CodeDistillation, EmbeddedViews
from pdessl.operators import DegradedViews, discover, save_law


@pytest.fixture(scope="module")
def runs():
    return simulate("heat", "unlabelled", range(24))


@pytest.fixture(scope="module")
def law(runs):
    return discover(runs, rank=1, half_width=(9, 6), resamples=0)


def test_views_are_parts_of_the_runs_with_the_noise_that_is_said(runs, law):
    views = DegradedViews(law, strides=(2,), shortest=0.5, noise=0.4)
    view, drawn = views(runs, torch.Generator().manual_seed(1))
    frames = view.fields.shape[2]
    cut = runs.fields[:, :, drawn.start : drawn.start + frames, ::2]
    added = (view.fields - cut).flatten(1).std(dim=1) / runs.fields.flatten(1).square().mean(dim=1).sqrt()
    assert torch.allclose(added, drawn.noise.to(added), rtol=0.1) and float(drawn.noise.max()) <= 0.4
    assert torch.equal(view.time, runs.time[:, drawn.start : drawn.start + frames])
    assert torch.equal(view.grid_spacing, 2 * runs.grid_spacing) and view.boundary == ("periodic",)
    assert torch.equal(view.lengths, runs.lengths) and frames >= runs.fields.shape[2] / 2
    assert torch.equal(drawn.codes, law.encode(runs)[0])


def test_whole_runs_are_a_view_of_themselves(runs, law, tmp_path):
    save_law(law, tmp_path)
    views = DegradedViews(tmp_path, strides=(1,), shortest=1.0, noise=0.0)
    view, drawn = views(runs, torch.Generator().manual_seed(0))
    assert torch.equal(view.fields, runs.fields) and (drawn.start, drawn.stride) == (0, 1)
    assert torch.equal(law.encode(view)[0], drawn.codes)


@pytest.mark.parametrize("wrong", [{"strides": ()}, {"strides": (0,)}, {"shortest": 0.0}, {"noise": -1.0}])
def test_settings_out_of_range_are_told(law, wrong):
    with pytest.raises(SchemaError, match="expected whole numbers from 1, a share"):
        DegradedViews(law, **wrong)
    with pytest.raises(CheckpointError, match="pdessl discover DATA"):
        DegradedViews("/not/there")


@pytest.mark.parametrize("logarithm", [True, False])
def test_the_loss_is_its_formula(logarithm):
    generator = torch.Generator().manual_seed(0)
    e, z = (3 * torch.randn(7, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    objective = CodeDistillation(2, logarithm).double()
    target = z.abs().log() if logarithm else z
    total = 0.0
    for r in range(2):
        mean = sum(target[:, r]) / 7
        deviation = math.sqrt(sum((target[:, r] - mean) ** 2) / 7)
        for i in range(7):
            d = abs(float(e[i, r] - (target[i, r] - mean) / deviation))
            total += (d * d / 2 if d <= 1 else d - 0.5) / 14
    terms = objective.terms(e, z)
    assert abs(float(terms.loss) - total) < 1e-9
    # The scale is that of the first batch, and of no later one.
    assert torch.equal(objective.terms(e, z).loss, terms.loss)
    assert not torch.equal(objective.terms(e[:3], z[:3]).loss, CodeDistillation(2, logarithm).terms(e[:3], z[:3]).loss)
    exact = (target - objective.mean) / objective.deviation
    assert float(objective.terms(exact, z).loss) < 1e-20


def test_what_does_not_fit_is_told():
    objective = CodeDistillation(2)
    with pytest.raises(ShapeError, match="give the encoder as many features"):
        objective.terms(torch.ones(4, 1), torch.ones(4, 1))
    with pytest.raises(DataError, match="NaN or infinite entries, first in view 2, row 1"):
        objective.terms(torch.ones(4, 2), torch.tensor([[1.0, 1.0], [math.nan, 1.0]]).repeat(2, 1))
    with pytest.raises(SchemaError, match="the rank of the law"):
        CodeDistillation(0)
    with pytest.raises(SchemaError, match="asks for the group element"):
        objective(EmbeddedViews(torch.ones(4, 2), torch.ones(4, 2)))


def test_the_recipe_trains_an_encoder_of_runs_on_other_grids(tmp_path):
    size = {"unlabelled": 32, "labelled": 4, "validation": 4, "test": 4}
    store = generate("burgers", tmp_path / "data", size=size).path
    found = pdessl.discover(store, half_width=(9, 13), rank=1, resamples=0)
    save_law(found, tmp_path / "law")
    given = {
        "data.path": str(store),
        "data.batch_size": 16,
        "model.augmentation.init_args.law": str(tmp_path / "law"),
        "model.encoder.init_args.width": 4,
        "trainer.max_epochs": 1,
        "trainer.enable_progress_bar": False,
    }
    run = pretrain("pretrain/burgers_distilled", given, tmp_path / "encoder")
    encoder = pdessl.load(run.folder)
    assert isinstance(encoder, nn.Module) and not encoder.training
    runs = pdessl.open(store).load("test")
    for seen in (runs, runs.replace(fields=runs.fields[..., ::2], space=(runs.space[0][:, ::2],))):
        with torch.no_grad():
            assert encoder(seen).features.shape == (4, 1)
