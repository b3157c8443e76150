"""A pretraining in Python: of objects, resumed, of a recipe, and refused where something is missing."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import pdessl
from pdessl.errors import CheckpointError, SchemaError
from pdessl.models import ConvEncoder
from pdessl.objectives import VICReg

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


def views():
    return pdessl.LieAugmentation("burgers", {"space_translation": 0.5, "galilean_boost": 0.3}, window=(16, 32))


def network():
    torch.manual_seed(0)
    return ConvEncoder(width=4, blocks=(1,))


def test_objects_are_trained_saved_and_loaded(small_store, tmp_path):
    run = pdessl.pretrain(
        small_store, network(), VICReg(), views(), out=tmp_path / "run", epochs=2, batch_size=16, accelerator="cpu"
    )
    assert len(run.curves["epoch"]) == 2 and (tmp_path / "run/last.ckpt").is_file()
    loaded, test = pdessl.load(tmp_path / "run"), pdessl.open(small_store).load("test")
    with torch.no_grad():
        assert torch.equal(loaded(test.fields), run.task.encoder(test.fields))
    assert loaded.statistics["std"] != [1.0]  # of the data
    result = pdessl.regress(run.task.encoder, small_store, labels=(8,), seeds=1, announce=lambda line: None)
    assert result.model is not None and {r["method"] for r in result.rows} >= {"frozen", "law", "mean"}


class Own(nn.Module):
    feature_dim = 3

    def __init__(self):
        super().__init__()
        self.layer, self.init_args = nn.Linear(2, 3), {}

    def forward(self, fields):
        moments = [fields.mean((1, 2, 3)), fields.square().mean((1, 2, 3))]
        return self.layer(torch.stack(moments, dim=1))


class PowerCut(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(small_store, tmp_path):
    given = {"batch_size": 16, "accelerator": "cpu"}
    whole = pdessl.pretrain(small_store, network(), VICReg(), views(), out=tmp_path / "a", epochs=2, **given)
    with pytest.raises(RuntimeError, match="power cut"):
        pdessl.pretrain(
            small_store, network(), VICReg(), views(), out=tmp_path / "b", epochs=2, callbacks=[PowerCut()], **given
        )
    last = tmp_path / "b/last.ckpt"
    again = pdessl.pretrain(
        small_store, network(), VICReg(), views(), out=tmp_path / "b", epochs=2, ckpt_path=last, **given
    )
    one, other = (run.task.state_dict() for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_function_is_an_objective_and_a_bare_network_an_encoder(small_store, tmp_path):
    run = pdessl.pretrain(
        small_store, Own(), lambda z, w: (z - w).square().mean(), views(), out=tmp_path / "run", epochs=1,
        batch_size=16, accelerator="cpu",
    )  # fmt: skip
    assert run.curves["train/loss"][0] >= 0


def test_a_recipe_is_run_as_the_command_does(small_store, tmp_path):
    tiny = {"model.encoder.init_args.width": 4, "model.projector.init_args.in_features": 32, "data.batch_size": 16}
    tiny |= {"trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}}
    run = pdessl.pretrain(small_store, config="burgers_vicreg", overrides=tiny, out=tmp_path / "run")
    assert pdessl.load(run.folder).module.init_args["width"] == 4


def test_what_is_missing_or_said_twice_is_told(small_store, tmp_path):
    with pytest.raises(SchemaError, match="no objective, augmentation; give encoder, objective and augmentation"):
        pdessl.pretrain(small_store, network(), out=tmp_path)
    with pytest.raises(SchemaError, match="a recipe and encoder; a recipe names its own"):
        pdessl.pretrain(small_store, network(), config="burgers_vicreg", out=tmp_path)
    local = type("Local", (Own,), {"__module__": "nowhere"})
    with pytest.raises(CheckpointError, match="Local', which cannot be found"):  # told before anything is trained
        pdessl.pretrain(small_store, local(), VICReg(), views(), out=tmp_path)
    with pytest.raises(SchemaError, match="Linear has no attribute feature_dim"):
        pdessl.pretrain(small_store, nn.Linear(2, 2), VICReg(), views(), out=tmp_path)
