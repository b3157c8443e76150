"""Encoders that are told the grid get time step and grid spacing of every view, from every task and from embed."""

import pytest
import torch
from torch import nn

from pdessl.augmentation import LieAugmentation
from pdessl.models import ConvEncoder, Encoder, Projector, SpaceTimeTransformer, TokenPredictor, embed
from pdessl.objectives import BYOL, MaskedJEPA, TemporalJEPA, VICReg, VICRegL
from pdessl.tasks import MaskedPrediction, ParameterRegression, Pretraining, Probes, TemporalPrediction

from .toy import ShiftAndSlow, WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows", "ignore:.*eval mode")


class Stretch(nn.Module):
    """Views on a clock and in a box that are twice as large: their spacing is not that of the batch."""

    def forward(self, batch, generator=None):
        return batch.replace(
            time=2 * batch.time, space=tuple(2 * s for s in batch.space), lengths=2 * batch.lengths
        ), None


def convolutional():
    torch.manual_seed(0)
    return ConvEncoder(width=4, blocks=(1,), spacing=True)


def transformer():
    torch.manual_seed(0)
    return SpaceTimeTransformer(1, (1, 4), width=16, depth=1, heads=2, spacing=True)


TASKS = {
    "VICReg": lambda: Pretraining(convolutional(), Projector(8, (8,), 8), VICReg(), ShiftAndSlow()),
    "trunk": lambda: Pretraining(convolutional(), Projector(8, (8,), 8), VICReg(), Stretch(), projected="trunk"),
    "BYOL": lambda: Pretraining(
        convolutional(), Projector(8, (8,), 8), BYOL(nn.Linear(8, 8)), Stretch(), teacher={"start": 0.9}
    ),
    "VICRegL": lambda: Pretraining(
        convolutional(),
        Projector(8, (8,), 8),
        VICRegL(location_matches=4),
        LieAugmentation("burgers", {"space_translation": 0.5}),
    ),
    "temporal": lambda: TemporalPrediction(
        transformer(), TokenPredictor(16, width=16, depth=1, heads=2), TemporalJEPA(), frames=4
    ),
    "masked": lambda: MaskedPrediction(
        transformer(), TokenPredictor(16, width=16, depth=1, heads=2), MaskedJEPA(), teacher={"start": 0.9}
    ),
    "regression": lambda: ParameterRegression(convolutional(), "viscosity", augmentation=Stretch()),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_every_task_gives_the_spacing_of_the_view(name, tmp_path):
    task, seen = TASKS[name](), []

    inner = task.encoder.module
    for method in ("represent", "trunk", "tokens"):
        original = getattr(inner, method)

        def spy(*arguments, _original=original, **keywords):
            seen.append(keywords["spacing"] if "spacing" in keywords else arguments[-1])
            return _original(*arguments, **keywords)

        setattr(inner, method, spy)
    watching = [] if name == "regression" else [Probes(views=1 if name in ("VICReg", "temporal") else 0)]
    trainer(tmp_path, 1, callbacks=watching).fit(task, datamodule=WaveData(labels=name == "regression"))
    batch = waves(1)
    plain = torch.cat([batch.time_step, batch.grid_spacing[0]])
    values = torch.cat([s.reshape(-1, 2) for s in seen])
    stretched = name in ("trunk", "BYOL", "regression")
    # Validation without probe views embeds the trajectories as they are.
    ratios = (values / plain).round(decimals=6).unique().tolist()
    assert ratios == ([1.0, 2.0] if name in ("trunk", "BYOL") else [2.0] if stretched else [1.0])


def test_embed_gives_the_spacing_and_features_depend_on_it():
    encoder, batch = Encoder(convolutional()), waves(4)
    plain, stretched = embed(encoder, batch), embed(encoder, batch, Stretch(), views=2)
    assert plain.shape == stretched.shape == (4, 8)
    assert not torch.allclose(plain, stretched)
    assert torch.allclose(stretched, embed(encoder, Stretch()(batch)[0]))
