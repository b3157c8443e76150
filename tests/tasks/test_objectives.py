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
from pdessl.tasks import LocalViews, Pretraining
from pdessl.tasks.views import DrawnViews

from .toy import ShiftAndSlow, WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows", "ignore:.*batch")

STRENGTHS = {"space_translation": 0.5, "galilean_boost": 0.2}


def augmentation(**settings):
    return LieAugmentation(pdessl.symmetries("burgers"), STRENGTHS, window=(8, 16), **settings)


def task(objective, made_by=None, **settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(1, width=4, blocks=(1, 1), periodic=(True,))
    projector = Projector(encoder.feature_dim, (16,), 8)
    return Pretraining(encoder, projector, objective, made_by or augmentation(), **settings)


def one_step(learner):
    """The task as it is inside a fit, for one training step by hand."""
    learner.log_terms = lambda *arguments: None
    learner._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    return learner


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
        def forward(self, views):
            seen.append((len(views), views.global_views))
            return objectives.LeJEPA(slices=8)(views)

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
    learner = task(Spy(), Keep(augmentation()), views=3, local=LocalViews(small, 2))
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
    with pytest.raises(SchemaError, match="views 1 and projected 'features'"):
        task(VICReg(), views=1)
    with pytest.raises(SchemaError, match="count 0; expected at least 1"):
        LocalViews(augmentation(), 0)


@pytest.mark.parametrize("name", ["SIE", "BYOL", "VICRegL"])
def test_what_is_told_of_views_is_told_of_every_pair(name):
    """Over three views the terms are the mean over the pairs that the same three views make."""
    learner = one_step(task(OBJECTIVES[name](), views=3, teacher={"start": 0.9} if name == "BYOL" else None))
    learner.eval()
    views = learner.draw(WaveData().training[:8], torch.Generator().manual_seed(0))
    whole = learner.objective(views).total
    pairs = []
    for v, w in ((0, 1), (0, 2), (1, 2)):
        two = DrawnViews([views[v], views[w]], 2, views.moved, torch.Generator())
        pairs.append(learner.objective(two).total)
    torch.testing.assert_close(whole, sum(pairs) / 3)
    assert len({float(p.detach()) for p in pairs}) == 3


def test_forecasts_go_round_the_views():
    told = objectives.CrossForecast(nn.Identity(), horizon=1)
    calls = []

    def note(features, fields, start):
        calls.append((features, fields))
        return objectives.CrossForecastTerms(features.sum(), features.sum().detach())

    told.terms = note
    learner = one_step(task(objectives.WeightedSum({"agreement": VICReg(), "forecast": told}), views=3))
    learner.training_step(WaveData().training[:8], 0)
    assert len(calls) == 3
    assert len({float(fields.detach().sum()) for _, fields in calls}) == 3
    for v in range(3):  # view v + 1 is forecast from the features of view v, which the call before was to forecast
        torch.testing.assert_close(calls[v][0], learner.encoder.module(calls[v - 1][1]))


def test_each_half_of_the_features_is_asked_for_its_own_part(tmp_path):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    half = encoder.feature_dim // 2
    sie = SIE(GroupAction(6, 4), invariant=4, regulariser=None, prediction_variance=0.0, equivariance=0.0)
    learner = Pretraining(encoder, SplitProjector(encoder.feature_dim, (16,), 8), sie, augmentation())
    features = torch.randn(8, 2 * half, requires_grad=True)
    z = learner.projector(features)
    sie.terms(z, z.detach().flip(0), torch.zeros(8, 6)).loss.backward()
    assert features.grad[:, :half].abs().max() > 0
    assert features.grad[:, half:].abs().max() == 0  # nothing invariant is asked of the equivariant half
    with pytest.raises(SchemaError, match=r"first part of the projector has 2 columns .* SIE takes 4"):
        Pretraining(encoder, SplitProjector(encoder.feature_dim, (16,), 8, share=0.25), sie, augmentation())


def test_the_teacher_is_a_moving_average_of_encoder_and_projector(tmp_path):
    learner = task(BYOL(mlp()), teacher={"start": 0.0, "end": 0.0})
    trainer(tmp_path, 1, limit_val_batches=0).fit(learner, datamodule=WaveData())
    batch = WaveData().training[:4]
    learner.eval()
    torch.testing.assert_close(learner.teacher(batch), learner.projector(learner.encoder(batch.fields)))
    with pytest.raises(SchemaError, match="VICReg does not ask for a teacher; leave out"):
        one_step(task(VICReg(), teacher={"start": 0.9})).training_step(batch, 0)
    with pytest.raises(
        SchemaError, match=r"asks for a teacher's embedding, and there is no teacher; give .* teacher: "
    ):
        one_step(task(BYOL(mlp()))).training_step(batch, 0)


def test_matched_tokens_show_the_same_place():
    """Location matching must use where tokens lie in the trajectory: a view against itself matches token for token."""
    seen = {}

    def look(views):
        seen.update(positions=tuple(view.places for view in views), period=views.period)
        return (views[0].embedding - views[1].embedding).square().mean()

    learner = one_step(task(look))
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
    batch = WaveData().training[:8]
    with pytest.raises(SymmetryError, match=r"views move viscosity, and VICReg takes.*\(ParameterEquivariance of visc"):
        one_step(task(VICReg(), moving)).training_step(batch, 0)
    head = nn.Linear(ConvEncoder(width=4, blocks=(1, 1)).feature_dim, 1)
    shifts = objectives.ParameterEquivariance("viscosity", head)
    named = task(objectives.WeightedSum({"agreement": VICReg(), "shifts": shifts}), moving)
    assert torch.isfinite(one_step(named).training_step(batch, 0))
    told = task(SIE(GroupAction(7, 4), invariant=4), moving)
    assert torch.isfinite(one_step(told).training_step(batch, 0))


def distance(z, z_prime):
    """A plain loss of two embeddings."""
    return (z - z_prime).square().mean()


def test_a_bare_network_and_a_plain_loss_are_an_encoder_and_an_objective(tmp_path):
    """Neither inherits from anything of pdessl; a loss of two embeddings is the same as the objective made of it."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 3)

        def forward(self, x):
            return self.layer(x.mean(dim=(1, 2)))

    losses = []
    for objective in (distance, nn.MSELoss(), lambda views: distance(views[0].embedding, views[1].embedding)):
        torch.manual_seed(0)
        learner = Pretraining(Mean(), nn.Linear(3, 5), objective, ShiftAndSlow())
        run = trainer(tmp_path, 1)
        run.fit(learner, datamodule=WaveData())
        losses.append(float(run.callback_metrics["train/loss"]))
    assert losses[0] == losses[1] == losses[2] > 0
    features, trunk, tokens = learner.encoder(WaveData().training[:4])
    assert features.shape == (4, 3) and trunk is None and tokens is None
    assert torch.equal(features, learner.encoder(WaveData().training[:4].fields))
    with pytest.raises(SchemaError, match="<lambda> returned a tensor of shape"):
        one_step(task(lambda z, z_prime: z - z_prime)).training_step(WaveData().training[:4], 0)
    with pytest.raises(SchemaError, match="<lambda> returned a dict; expected pdessl.objectives.Terms"):
        one_step(task(lambda views: {})).training_step(WaveData().training[:4], 0)
    with pytest.raises(SchemaError, match="got a str as objective"):
        task("VICReg")


def test_views_are_made_on_first_use_and_once():
    """An objective that asks for nothing costs no pass of the encoder; two that ask for the same cost one."""
    calls = []

    def nothing(views):
        return torch.zeros((), requires_grad=True)

    for objective in (nothing, objectives.WeightedSum({"a": VICReg(), "b": VICReg()})):
        learner = one_step(task(objective))
        learner.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
        learner.training_step(WaveData().training[:8], 0)
        assert len(calls) == (0 if objective is nothing else 2)


def test_a_weighted_sum_is_the_sum_and_keeps_every_name_apart():
    torch.manual_seed(0)
    z, w = torch.randn(2, 12, 4)
    views = objectives.EmbeddedViews(z, w)
    first, second = VICReg(), objectives.BarlowTwins()
    found = objectives.WeightedSum({"v": first, "b": second, "again": first}, {"v": 0.5, "b": 3.0})(views)
    expected = 1.5 * first.terms(z, w).loss + 3 * second.terms(z, w).loss
    torch.testing.assert_close(found.total, expected)
    assert {"v_invariance", "again_invariance", "on_diagonal"} <= set(found.named)
    assert objectives.WeightedSum({"b": second, "v": first}).target_std == 1.0
    assert objectives.WeightedSum({"b": second}).target_std is None
    with pytest.raises(SchemaError, match=r"weight 2 for 'bb'.*Did you mean 'b'"):
        objectives.WeightedSum({"b": second}, {"bb": 2})
    with pytest.raises(SchemaError, match="no objectives"):
        objectives.WeightedSum({})
    with pytest.raises(
        SchemaError, match=r"asks for a teacher, and these views are embeddings alone.*objective\.terms"
    ):
        BYOL(nn.Identity())(views)
