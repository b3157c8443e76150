"""The collapse alarm rings on runs that collapse and only on those; weights are averaged."""

import logging
import re

import pytest
import torch
from torch import nn

from pdessl.errors import PdesslError, SchemaError
from pdessl.models import ConvEncoder, Projector
from pdessl.objectives import (
    BYOL,
    SIE,
    Diagnosis,
    LeJEPA,
    SimCLR,
    SimSiam,
    VICReg,
    VICRegL,
    collapse_diagnosis,
    variance_term,
)
from pdessl.objectives.diagnosis import CAUSES
from pdessl.tasks import AverageWeights, CollapseAlarm, Pretraining

from .toy import POINTS, ShiftAndSlow, WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:VICReg. with 8 rows")


def task(objective, learning_rate=1e-3, norm=True):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    projector = Projector(encoder.feature_dim, (16,), 16)
    if not norm:  # batch norms hold a spread up even where nothing asks for one
        projector = nn.Sequential(nn.Linear(encoder.feature_dim, 16), nn.ReLU(), nn.Linear(16, 16))
    return Pretraining(encoder, projector, objective, ShiftAndSlow(), learning_rate=learning_rate)


class Agreement(nn.Module):
    """Agreement with nothing against collapse, and a common offset that is better than none."""

    def forward(self, z, z_prime):
        return (z - z_prime).square().mean() + (z - 1).square().mean() + (z_prime - 1).square().mean()


def test_a_collapsing_run_rings_once_and_says_why(tmp_path, caplog):
    alarm = CollapseAlarm()
    run = trainer(tmp_path, 12, callbacks=[alarm])
    with caplog.at_level(logging.WARNING, logger="pdessl"):
        run.fit(task(Agreement(), 3e-2, norm=False), datamodule=WaveData())
    assert alarm.reason is not None and "collapse" in alarm.reason
    assert len([r for r in caplog.records if "collapse" in r.message]) == 1
    assert "monitor/collapsed" in run.callback_metrics


class Far(nn.Linear):
    """A linear map whose values lie far from the origin beside their spread."""

    def __init__(self, inputs):
        super().__init__(inputs, 16)
        nn.init.constant_(self.bias, 10.0)


class Flat(nn.Module):
    """An encoder of the first frame without norms: nothing holds its spread up."""

    in_channels, feature_dim = 1, 16

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x[:, 0, 0])


class Spreadless(nn.Module):
    """Nothing is asked for but rows that are alike."""

    def forward(self, z, z_prime):
        return z.var(dim=0).mean() + z_prime.var(dim=0).mean()


class Copies(nn.Module):
    """Every column may vary, and all must vary alike."""

    def forward(self, z, z_prime):
        return 100 * (z - z.mean(dim=1, keepdim=True)).square().mean() + variance_term(z) + variance_term(z_prime)


class Apart(nn.Module):
    """Drives embeddings to infinity."""

    def forward(self, z, z_prime):
        return -1e10 * z.square().mean()


class Noise(WaveData):
    """Fields that vary in as many ways as they have nodes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        for name in ("training", "labelled", "held_out"):
            given = getattr(self, name)
            setattr(self, name, given.replace(fields=torch.randn(given.fields.shape, generator=generator)))


def near():
    return Flat(nn.Linear(POINTS, 16))


CAUSING = {
    "complete collapse": (lambda: Flat(Far(POINTS)), nn.Identity, Spreadless, 3e-2),
    "projector collapse": (lambda: near().requires_grad_(False), lambda: Far(16), Spreadless, 3e-2),
    "dimensional collapse": (near, nn.Identity, Copies, 3e-2),
    "non-finite": (near, nn.Identity, Apart, 1e30),
}


@pytest.mark.parametrize("cause", CAUSING)
def test_every_cause_it_can_name_has_a_run_that_makes_it_ring(cause, tmp_path):
    torch.manual_seed(0)
    encoder, projector, objective, learning_rate = CAUSING[cause]
    learner = Pretraining(encoder(), projector(), objective(), ShiftAndSlow(), learning_rate=learning_rate, warmup=0.0)
    with pytest.raises(PdesslError, match=rf"stopped in epoch \d+: {cause}: .*{re.escape(CAUSES[cause])}"):
        trainer(tmp_path, 20, callbacks=[CollapseAlarm(stop_on_collapse=True)]).fit(learner, datamodule=Noise())


def rows_of_rank(rank, width=64, rows=64):
    """Rows whose effective rank is about ``rank``."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, width, generator=generator)


@pytest.mark.parametrize(
    ("embeddings", "features", "rings"),
    [
        # What VICReg on Burgers' runs shows in 20 epochs, while the probe rises from 0.71 to 0.88.
        ((20, 10, 7, 7), (50, 45, 45, 45), False),
        ((20, 7, 3, 2), (50, 45, 45, 45), True),  # without the covariance term
        ((8, 8, 8, 8), (8, 8, 8, 8), False),  # data that vary in few ways
        ((8, 4, 2, 2), (12, 8, 4, 4), True),
        ((8, 4, 2, 2), (12, 9, 9, 9), False),
    ],
)
def test_few_dimensions_ring_where_the_features_have_lost_them_or_the_embeddings_nearly_all(
    embeddings, features, rings
):
    alarm = CollapseAlarm()
    state = type("Trainer", (), {"sanity_checking": False, "current_epoch": 0})()
    for of_z, of_features in zip(embeddings, features, strict=True):
        found = collapse_diagnosis(rows_of_rank(of_z), features=rows_of_rank(of_features), target_std=None)
        alarm.on_validation_end(state, type("Task", (), {"diagnosis": found})())
    assert (alarm.reason is not None) == rings


class Shrinking(nn.Module):
    """Asks for small numbers where an objective of this spread would not."""

    target_std = 1.0

    def forward(self, z, z_prime):
        return z.square().mean() + z_prime.square().mean()


def test_embeddings_that_shrink_below_what_the_objective_aims_at_ring(tmp_path):
    """A row keeps its shape: no number that is blind to scale shows it."""
    torch.manual_seed(0)
    learner = Pretraining(near(), nn.Linear(16, 16), Shrinking(), ShiftAndSlow(), learning_rate=3e-2, warmup=0.0)
    with pytest.raises(PdesslError, match=r"stopped in epoch \d+: .* collapse: .*largest std 0.0\d+ \(aim 1\)"):
        trainer(tmp_path, 20, callbacks=[CollapseAlarm(stop_on_collapse=True)]).fit(learner, datamodule=Noise())


def test_objectives_with_an_aim_for_the_spread_say_so():
    aims = {kind: getattr(kind, "target_std", None) for kind in (VICReg, LeJEPA, SIE, VICRegL, BYOL, SimCLR)}
    assert aims == {VICReg: 1.0, LeJEPA: 1.0, SIE: 1.0, VICRegL: 1.0, BYOL: None, SimCLR: None}


def test_a_resumed_alarm_remembers_the_highest_values_and_how_long_it_has_been_bad():
    state = type("Trainer", (), {"sanity_checking": False, "current_epoch": 0})()

    def told(alarm, rank):
        found = collapse_diagnosis(rows_of_rank(rank), features=rows_of_rank(rank), target_std=None)
        alarm.on_validation_end(state, type("Task", (), {"diagnosis": found})())

    first, second = CollapseAlarm(), CollapseAlarm()
    for rank in (10, 4):
        told(first, rank)
    second.load_state_dict(first.state_dict())
    told(second, 4)
    assert first.reason is None and second.reason is not None


def test_those_are_all_the_causes_it_can_name():
    ringing = {cause for cause in CAUSES if Diagnosis(cause, "", {}).collapsed}
    assert ringing == set(CAUSING)


def test_it_can_stop_the_run(tmp_path):
    run = trainer(tmp_path, 12, callbacks=[CollapseAlarm(stop_on_collapse=True)])
    with pytest.raises(PdesslError, match=r"stopped in epoch \d+: .*collapse.*Raise|look at"):
        run.fit(task(Agreement(), 3e-2, norm=False), datamodule=WaveData())
    assert run.current_epoch < 11


def test_a_sound_run_does_not_ring(tmp_path):
    alarm = CollapseAlarm(stop_on_collapse=True, patience=1)
    trainer(tmp_path, 6, callbacks=[alarm]).fit(task(VICReg()), datamodule=WaveData())
    assert alarm.reason is None


def test_simsiam_without_stop_gradient_collapses(tmp_path):
    alarm = CollapseAlarm()
    torch.manual_seed(1)
    learner = task(SimSiam(nn.Linear(16, 16), stop_gradient=False), 3e-2, norm=False)
    trainer(tmp_path, 15, callbacks=[alarm]).fit(learner, datamodule=WaveData())
    assert alarm.reason is not None


def test_the_encoder_ends_with_the_mean_of_its_last_weights(tmp_path):
    kept = []

    class Keep(AverageWeights):
        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            kept.append({k: v.clone() for k, v in pl_module.encoder.state_dict().items()})

    learner = task(VICReg())
    trainer(tmp_path, 4, callbacks=[Keep(3)]).fit(learner, datamodule=WaveData())
    for name, value in learner.encoder.state_dict().items():
        expected = kept[-1][name]
        if value.is_floating_point():
            expected = (kept[1][name] + kept[2][name] + kept[3][name]) / 3
        torch.testing.assert_close(value, expected, msg=name)
    # what is kept survives a checkpoint
    state = {"callback": Keep(3)}
    state["callback"].load_state_dict({"kept": kept[:2]})
    assert len(state["callback"].state_dict()["kept"]) == 2


def test_errors():
    with pytest.raises(SchemaError, match="patience 0"):
        CollapseAlarm(patience=0)
    with pytest.raises(SchemaError, match="epochs 1"):
        AverageWeights(1)
