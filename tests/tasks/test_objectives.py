"""Every joint-embedding objective trains through the task, with what it asks for besides two embeddings."""

import pytest
import torch
from torch import nn

import pdessl
from pdessl import objectives
from pdessl.augmentation import LieAugmentation
from pdessl.errors import SchemaError, SymmetryError
from pdessl.models import ConvEncoder, Projector, SplitProjector
from pdessl.objectives import BYOL, SIE, GroupAction, VICReg, VICRegL
from pdessl.tasks import Pretraining

from .toy import WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows", "ignore:.*batch")

STRENGTHS = {"space_translation": 0.5, "galilean_boost": 0.2}


def augmentation(**settings):
    return LieAugmentation(pdessl.symmetries("burgers"), STRENGTHS, window=(8, 16), **settings)


def task(objective, made_by=None, **settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    projector = Projector(encoder.feature_dim, (16,), 8)
    return Pretraining(encoder, projector, objective, made_by or augmentation(), **settings)


def mlp():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


OBJECTIVES = {
    "VICReg": VICReg,
    "BarlowTwins": objectives.BarlowTwins,
    "WMSE": objectives.WMSE,
    "MMCR": objectives.MMCR,
    "LeJEPA": objectives.LeJEPA,
    "SimCLR": objectives.SimCLR,
    "SimSiam": lambda: objectives.SimSiam(mlp()),
    "BYOL": lambda: BYOL(mlp()),
    "SIE": lambda: SIE(GroupAction(6, 4), invariant=4),
    "VICRegL": lambda: VICRegL(location_matches=4),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_trains_and_logs_its_terms(name, tmp_path):
    learner = task(OBJECTIVES[name](), teacher={"start": 0.9} if name == "BYOL" else None)
    before = [p.detach().clone() for p in learner.encoder.parameters()]
    run = trainer(tmp_path, 1)
    run.fit(learner, datamodule=WaveData(batch_size=16))
    assert torch.isfinite(run.callback_metrics["train/loss"])
    assert len([k for k in run.callback_metrics if k.startswith("train/")]) >= 2
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.encoder.parameters(), strict=True))


def test_every_view_reaches_the_objective_and_local_ones_are_smaller(tmp_path):
    seen = []

    class Spy(nn.Module):
        multi_view = True

        def forward(self, *embeddings, global_views):
            seen.append((len(embeddings), global_views))
            return objectives.LeJEPA(slices=8)(*embeddings, global_views=global_views)

    shapes = []

    class Keep(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, batch, generator=None):
            view, elements = self.inner(batch, generator)
            shapes.append(tuple(view.fields.shape[2:]))
            return view, elements

    small = Keep(LieAugmentation(pdessl.symmetries("burgers"), STRENGTHS, window=(4, 16)))
    learner = task(Spy(), Keep(augmentation()), views=3, local_views=2, local_augmentation=small)
    run = trainer(tmp_path, 1, limit_val_batches=0, limit_train_batches=1)
    run.fit(learner, datamodule=WaveData())
    assert seen == [(5, 3)]
    assert shapes == [(8, 16)] * 3 + [(4, 16)] * 2
    assert torch.isfinite(run.callback_metrics["train/loss"])


def test_objectives_of_two_views_train_on_more(tmp_path):
    learner = task(VICReg(), views=4)
    run = trainer(tmp_path, 1, limit_val_batches=0)
    run.fit(learner, datamodule=WaveData(batch_size=16))
    assert {"train/invariance", "train/variance", "train/covariance"} <= set(run.callback_metrics)
    with pytest.raises(SchemaError, match="SIE is told the element of two views, and got 3"):
        task(OBJECTIVES["SIE"](), views=3)
    with pytest.raises(SchemaError, match="BYOL is told the teacher of two views, and got 4"):
        task(OBJECTIVES["BYOL"](), local_views=2, local_augmentation=augmentation())
    with pytest.raises(SchemaError, match="views 1, local_views 0"):
        task(VICReg(), views=1)
    with pytest.raises(SchemaError, match="local_views 2 and local_augmentation NoneType"):
        task(VICReg(), local_views=2)


def test_forecasts_go_round_the_views():
    class Round(nn.Module):
        past = 1

        def __init__(self):
            super().__init__()
            self.calls = []

        def forward(self, features, fields, start):
            self.calls.append((features, fields))
            return objectives.CrossForecastTerms(features.sum(), features.sum().detach())

    told = Round()
    learner = task(VICReg(), views=3, forecast=told)
    learner.log_terms = lambda *arguments: None
    learner._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    learner.training_step(WaveData().training[:8], 0)
    assert len(told.calls) == 3
    assert len({float(fields.detach().sum()) for _, fields in told.calls}) == 3
    for v in range(3):  # view v + 1 is forecast from the features of view v, which the call before was to forecast
        torch.testing.assert_close(told.calls[v][0], learner.represent(told.calls[v - 1][1])[0])


def test_each_half_of_the_features_is_asked_for_its_own_part(tmp_path):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    half = encoder.feature_dim // 2
    sie = SIE(GroupAction(6, 4), invariant=4, regulariser=None, prediction_variance=0.0, equivariance=0.0)
    learner = Pretraining(encoder, SplitProjector(encoder.feature_dim, (16,), 8), sie, augmentation())
    learner.log_terms = lambda *arguments: None
    learner._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    features = torch.randn(8, 2 * half, requires_grad=True)
    z = learner.projector(features)
    sie(z, z.detach().flip(0), torch.zeros(8, 6)).loss.backward()
    assert features.grad[:, :half].abs().max() > 0
    assert features.grad[:, half:].abs().max() == 0  # nothing invariant is asked of the equivariant half
    with pytest.raises(SchemaError, match=r"first part of the projector has 2 columns .* SIE takes 4"):
        Pretraining(encoder, SplitProjector(encoder.feature_dim, (16,), 8, share=0.25), sie, augmentation())


def test_the_teacher_is_a_moving_average_of_encoder_and_projector(tmp_path):
    learner = task(BYOL(mlp()), teacher={"start": 0.0, "end": 0.0})
    trainer(tmp_path, 1, limit_val_batches=0).fit(learner, datamodule=WaveData())
    fields = WaveData().training.fields[:4]
    learner.eval()
    torch.testing.assert_close(learner.teacher(fields), learner.projector(learner.encoder(fields)))
    with pytest.raises(SchemaError, match="VICReg has no teacher"):
        task(VICReg(), teacher={"start": 0.9})


def test_matched_tokens_show_the_same_place():
    """Location matching must use where tokens lie in the trajectory: a view against itself matches token for token."""
    seen = {}

    class Spy(nn.Module):
        tokens = True

        def forward(self, z, z_prime, tokens, tokens_prime, positions, positions_prime, period):
            seen.update(positions=(positions, positions_prime), period=period)
            return (z - z_prime).square().mean()

    learner = task(Spy())
    learner.log_terms = lambda *arguments: None
    learner._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    batch = WaveData().training[:4]
    learner.training_step(batch, 0)
    first, second = seen["positions"]
    assert first.shape == second.shape == (4, 2 * 4, 2)
    assert torch.equal(seen["period"], torch.tensor([[torch.inf, 1.0]] * 4, dtype=torch.float64))
    # tokens along x lie a quarter of the period apart, along t as far as four of ten frames
    x = first.view(4, 2, 4, 2)[..., 1]
    torch.testing.assert_close(x.diff(dim=2), torch.full((4, 2, 3), 0.25))
    t = first.view(4, 2, 4, 2)[..., 0]
    torch.testing.assert_close(t.diff(dim=1), torch.full((4, 1, 4), 4 / 9))


def test_views_that_move_a_parameter_are_no_positives():
    moving = LieAugmentation(
        pdessl.symmetries("burgers"), STRENGTHS | {"viscosity_scaling": 0.2}, window=(8, 16), moves=("viscosity",)
    )
    with pytest.raises(SymmetryError, match=r"views move viscosity, and VICReg takes.*equivariance: viscosity"):
        task(VICReg(), moving)
    task(VICReg(), moving, equivariance="viscosity")
    told = task(SIE(GroupAction(7, 4), invariant=4), moving)
    told.log_terms = lambda *arguments: None
    told._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    assert torch.isfinite(told.training_step(WaveData().training[:8], 0))
