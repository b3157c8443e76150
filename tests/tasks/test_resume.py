"""Slices of SIGReg are part of what is resumed."""

import lightning
import pytest
import torch
from torch import nn

from pdessl.models import ConvEncoder
from pdessl.objectives import LeJEPA
from pdessl.tasks import Pretraining

from .toy import ShiftAndSlow, WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows")


class Keep(lightning.Callback):
    """Write a checkpoint in the middle of the run, between two epochs."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def task():
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1,))
    # Four slices only: which ones they are decides the gradient.
    return Pretraining(encoder, nn.Linear(8, 16), LeJEPA(weight=0.5, slices=4), ShiftAndSlow())


def resumed(folder, checkpoint):
    again = task()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1.0)
    trainer(folder, 2).fit(again, datamodule=WaveData(), ckpt_path=checkpoint, weights_only=True)
    return again


def test_a_resumed_run_draws_the_slices_of_the_uninterrupted_one(tmp_path):
    whole = task()
    trainer(tmp_path, 2, callbacks=[Keep(tmp_path / "first.ckpt")]).fit(whole, datamodule=WaveData())
    again = resumed(tmp_path, tmp_path / "first.ckpt")
    for (name, a), (_, b) in zip(whole.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    steps = [int(value) for name, value in whole.state_dict().items() if name.endswith("draws.step")]
    assert steps == [8]  # validation draws nothing that counts

    # The comparison can fail: with the count of slices lost the weights are others.
    content = torch.load(tmp_path / "first.ckpt", weights_only=True)
    counter = next(name for name in content["state_dict"] if name.endswith("draws.step"))
    content["state_dict"][counter].zero_()
    torch.save(content, tmp_path / "forgot.ckpt")
    other = resumed(tmp_path, tmp_path / "forgot.ckpt")
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))
