"""Two processes of Lightning's DDP train to the weights, and see the monitors, of one process with the joined batch."""

import os
import socket

import lightning
import pytest
import torch
from objectives.embeddings import on_processes
from torch import nn

from pdessl.errors import SchemaError
from pdessl.models import ConvEncoder, SpaceTimeTransformer, TokenPredictor, UNet
from pdessl.objectives import LeJEPA, MaskedJEPA, TemporalJEPA, VICReg
from pdessl.tasks import (
    LocalViews,
    MaskedPrediction,
    ParameterRegression,
    Pretraining,
    TemporalPrediction,
    TimeStepping,
)

from .toy import Held, trainer, waves

ROWS, STEPS = 8, 2
SHARES = (slice(0, 5), slice(5, 8))  # unequal on purpose
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders, samplers and precision


class InTurn(nn.Module):
    """Every second view is shifted and scaled: two processes and one make the same views of a row."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, batch, generator=None):
        self.calls += 1
        fields = torch.roll(batch.fields, 3, dims=-1) * 1.1 if self.calls % 2 else batch.fields
        return batch.replace(fields=fields), None


class Shorter(nn.Module):
    """Local views: the first frames."""

    def forward(self, batch, generator=None):
        return batch.window(slice(0, 6)), None


class Share(lightning.LightningDataModule):
    """The rows of each step and of validation, divided among the processes of the run."""

    def _loader(self, parts, keep=True):
        rows = SHARES[self.trainer.global_rank] if self.trainer.world_size > 1 else slice(None)
        batches = [p[rows] if keep else p[rows].without_parameters() for p in parts]
        return torch.utils.data.DataLoader(Held(batches), batch_size=None, shuffle=False)

    def train_dataloader(self):
        parts = waves(ROWS * STEPS, 1)
        return self._loader([parts[i * ROWS : (i + 1) * ROWS] for i in range(STEPS)])

    def val_dataloader(self):
        return [self._loader([waves(ROWS, 2)]), self._loader([waves(ROWS, 3)])]


def joint(objective, **settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1,), norm="group")
    projector = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    return Pretraining(encoder, projector, objective, InTurn(), learning_rate=1e-2, **settings)


def temporal():
    torch.manual_seed(0)
    encoder = SpaceTimeTransformer(1, (1, 4), width=16, depth=1, heads=2)
    return TemporalPrediction(
        encoder, TokenPredictor(16, width=16, depth=1, heads=2), TemporalJEPA(), frames=4, augmentation=InTurn()
    )


def masked(**settings):
    torch.manual_seed(0)
    encoder = SpaceTimeTransformer(1, (1, 4), width=16, depth=1, heads=2)
    masks = {"blocks": 2, "scale": (0.2, 0.6), "time_extent": (0.2, 0.6)}
    objective = MaskedJEPA(regulariser=None if "teacher" in settings else "vc", regularise=("target", "context"))
    return MaskedPrediction(
        encoder, TokenPredictor(16, width=16, depth=1, heads=2), objective, masks=masks, learning_rate=1e-2, **settings
    )


def regression():
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1,), norm="group")
    return ParameterRegression(encoder, "viscosity")


def stepping():
    """Windows as long as the runs, so that no start is drawn."""
    torch.manual_seed(0)
    network = UNet(past=2, bundle=2, width=4, condition=1)
    return TimeStepping(network, context=2, unroll=4, parameters=("viscosity",), learning_rate=1e-2)


MADE = {
    "VICReg": lambda: joint(VICReg()),
    "LeJEPA, local views": lambda: joint(LeJEPA(slices=16), views=3, local=LocalViews(Shorter(), 1)),
    "temporal": temporal,
    "masked, teacher": lambda: masked(teacher={"start": 0.5}),
    "masked, regularised": masked,
}


def fit(task, folder, **settings):
    run = trainer(folder, 1, use_distributed_sampler=False, **settings)
    run.fit(task.double(), datamodule=Share())
    values = {name: float(v) for name, v in run.callback_metrics.items() if name.startswith(("monitor/", "probe/"))}
    return [p.detach().double().flatten().tolist() for p in task.parameters()], values


def both_ranks(rank, port, folder):
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    settings = {"devices": 2, "strategy": "ddp"}  # gloo on CPUs
    found = {name: fit(make(), folder, **settings) for name, make in MADE.items()}
    found["stepping"] = fit(stepping(), folder, **settings)
    task = regression()
    fit(task, folder, **settings)
    return found | {"best": task.best["error"]}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return on_processes(both_ranks, port, str(tmp_path_factory.mktemp("ddp")))


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_two_processes_end_with_the_weights_and_monitors_of_one(processes, name, tmp_path):
    weights, values = fit(MADE[name](), tmp_path)
    before = [p.detach().double().flatten().tolist() for p in MADE[name]().parameters()]
    assert weights != before
    assert "monitor/rank_me" in values and "probe/viscosity_r2" in values
    for rank in processes:
        found, seen = rank[name]
        for mine, expected in zip(found, weights, strict=True):
            assert mine == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert seen == pytest.approx(values, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_a_stepper_to_the_weights_of_one(processes, tmp_path):
    weights, _ = fit(stepping(), tmp_path)
    assert weights != [p.detach().double().flatten().tolist() for p in stepping().parameters()]
    for rank in processes:
        for mine, expected in zip(rank["stepping"][0], weights, strict=True):
            assert mine == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.slow
def test_both_processes_keep_the_same_best_weights(processes):
    assert processes[0]["best"] == processes[1]["best"] > 0


def test_a_head_that_nothing_would_train_is_refused(tmp_path):
    encoder = SpaceTimeTransformer(1, (1, 4), width=16, depth=1, heads=2, features=8)
    with pytest.raises(SchemaError, match=r"TemporalPrediction on tokens.*head \(features=8\).*Leave features out"):
        TemporalPrediction(encoder, TokenPredictor(16, width=16, heads=2), TemporalJEPA(), frames=4)
    bare = Pretraining(
        ConvEncoder(width=4, blocks=(1,), features=4), nn.Identity(), VICReg(), InTurn(), projected="trunk"
    )
    with pytest.raises(
        SchemaError, match="VICReg on the trunk trains what lies below .*add an objective on the features"
    ):
        trainer(tmp_path, 1, use_distributed_sampler=False).fit(bare, datamodule=Share())
