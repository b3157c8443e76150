"""Networks and objectives that are not pdessl's, in a recipe and in Python."""

import json
import re
import sys

import lightning
import pytest
import torch
import yaml
from command_line import at_command_line
from torch import nn

import pdessl
from pdessl import catalog, cli
from pdessl.augmentation import LieAugmentation
from pdessl.data import PDEDataModule
from pdessl.errors import CheckpointError, SchemaError
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.tasks import Pretraining

CODE = """
import torch
from torch import nn


class Spectrum(nn.Module):
    def __init__(self, feature_dim: int, gain: float = 1.0) -> None:
        super().__init__()
        self.feature_dim, self.gain = feature_dim, gain
        self.layer = nn.Linear(12, feature_dim)

    def forward(self, x):
        return self.layer(self.gain * torch.fft.rfft(x[:, 0], dim=-1).abs()[..., 1:13].mean(dim=1).log1p())


class Untold(Spectrum):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__(8)
        self.extra = layer


def agree(z, z_prime):
    return (z - z_prime).square().mean() - z.std(dim=0).clamp(max=1).mean()


class Agree(nn.Module):
    def forward(self, z, z_prime):
        return agree(z, z_prime)


class AgreeOnViews(nn.Module):
    def forward(self, views):
        return agree(views[0].embedding, views[1].embedding)
"""
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
VIEWS = {"algebra": "burgers", "strengths": {"space_translation": 0.5}, "window": [16, 64]}


@pytest.fixture
def run(tmp_path, monkeypatch, small_store):
    """``pdessl pretrain`` with a recipe that names classes of a file ``ownparts.py``."""
    (tmp_path / "ownparts.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)  # modules of the working folder are found once they are allowed
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "ownparts", raising=False)

    def call(encoder, objective="ownparts.Agree", allow=("ownparts",)):
        model = {
            "encoder": encoder,
            "projector": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 8}},
            "objective": objective,
            "augmentation": {"class_path": "pdessl.augmentation.LieAugmentation", "init_args": VIEWS},
        }
        trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
        recipe = {"model": model, "data": {"path": str(small_store), "batch_size": 16}, "trainer": trainer}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
        words = ["pretrain", "--config", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "run")]
        return cli.main([*words, *(word for name in allow for word in ("--allow", name))])

    return call


def test_a_recipe_names_classes_of_the_users_own(run, tmp_path, capsys):
    given = {"feature_dim": 8, "gain": 3.0}  # a gain that no shape of a weight shows
    assert run({"class_path": "ownparts.Spectrum", "init_args": given}) == 0
    assert re.search(r"pdessl\.load\('.*run', allow=\('ownparts',\)\) reads it", capsys.readouterr().out)
    encoder = pdessl.load(tmp_path / "run", allow=("ownparts",))
    assert encoder.module.gain == 3.0 and encoder(torch.randn(2, 1, 16, 64)).shape == (2, 8)
    curves = json.loads((tmp_path / "run/history.json").read_text())
    assert {"train/loss", "monitor/rank_me", "probe/viscosity_r2"} <= set(curves)


def test_a_recipe_names_a_loss_of_two_embeddings_or_of_views_a_class_or_a_function(run, tmp_path):
    losses = []
    for objective in ("ownparts.agree", {"class_path": "ownparts.Agree"}, {"class_path": "ownparts.AgreeOnViews"}):
        assert run({"class_path": "ownparts.Spectrum", "init_args": {"feature_dim": 8}}, objective) == 0
        losses.append(json.loads((tmp_path / "run/history.json").read_text())["train/loss"])
    assert losses[0] == losses[1] == losses[2]


def test_what_cannot_be_loaded_back_is_told_before_the_training(run, tmp_path, capsys):
    layer = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}
    assert run({"class_path": "ownparts.Untold", "init_args": {"layer": layer}}) == 2
    assert "cannot save a Untold" in capsys.readouterr().err
    assert not (tmp_path / "run/history.json").exists()


def test_a_class_that_python_does_not_find_is_told_how(run, capsys):
    assert run({"class_path": "nowhere.Spectrum"}, allow=("nowhere", "ownparts")) == 2
    said = capsys.readouterr().err
    assert "No module named 'nowhere'" in said and "set PYTHONPATH=FOLDER" in said


OWN = {"class_path": "ownparts.Spectrum", "init_args": {"feature_dim": 8}}


def test_a_class_of_the_users_own_is_not_imported_unless_it_is_allowed(run, tmp_path, capsys):
    (tmp_path / "ownparts.py").write_text("raise SystemExit('imported')")
    assert run(OWN, allow=()) == 2
    assert "pdessl pretrain: model.encoder.class_path: 'ownparts.Spectrum' is neither" in (
        said := capsys.readouterr().err
    )
    assert "--allow ownparts (in Python allow=('ownparts',))" in said and said.count("\n") == 1
    with pytest.raises(SystemExit, match="imported"):
        run(OWN)


NAMES = [
    "os.system", "pdessl.cli.main", "pdessl.cli.__main__.main", "json.tool.__main__.x", "antigravity.x",
    "torch.hub.load", "__main__.main", "subprocess.Popen", "torch.nn.parallel.distributed.os.system",
    "pdessl.data.generate", "torch.nn.parallel.distributed.warnings.warn", "pip.main",
    "torch.nn.init.warnings.warn", "pdessl.models.checkpoint.importlib.import_module",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_other_code_is_named_by_a_recipe(run, tmp_path, name, capsys):
    """As text, as a class, deep inside, as a callback, and in a file that stands for a class."""
    linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 8}}
    for place in (name, {"class_path": name}, {"class_path": "ownparts.Spectrum", "init_args": {"x": [{"y": name}]}}):
        assert run(linear, place) == 2
        said = capsys.readouterr().err
        assert f"'{name}'" in said and ("is neither" in said or "is imported there" in said), said
    (tmp_path / "part.yaml").write_text(f"class_path: {name}")
    assert run(linear, "part.yaml") == 2 and f"(part.yaml).class_path: '{name}'" in capsys.readouterr().err
    callbacks = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": name}}
    with pytest.raises(SchemaError, match="trainer.*on_fit_start"):
        check_allowed({"trainer": {"callbacks": [callbacks]}}, (), "recipe")
    assert "antigravity" not in sys.modules


def test_what_recipes_name_is_allowed():
    for name in ("torch.nn.Linear", "torch.nn.functional.mse_loss", "torch.optim.SGD", "pdessl.LieAugmentation"):
        check_allowed({"model": {"a": {"class_path": name}}}, (), "recipe")
    check_allowed({"trainer": {"callbacks": ["lightning.pytorch.callbacks.EarlyStopping", "Timer"]}}, (), "recipe")
    for recipe in catalog.names("configs"):
        content = catalog.read("configs", recipe)
        for part in (content, content.get("base") or {}, *(content.get("variants") or {}).values()):
            check_allowed({k: v for k, v in (part or {}).items() if k in ("model", "trainer")}, (), recipe)


class Mean(nn.Module):
    feature_dim = 3

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 3)

    def forward(self, x):
        return self.layer(x.mean(dim=(1, 2)).abs())


def test_any_network_and_any_criterion_in_python(small_store, tmp_path):
    network = Mean(64)
    views = LieAugmentation(VIEWS["algebra"], VIEWS["strengths"], window=VIEWS["window"])
    task = Pretraining(network, nn.Linear(3, 5), nn.MSELoss(), views)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    before = network.layer.weight.detach().clone()
    trainer.fit(task, datamodule=PDEDataModule(small_store, batch_size=16))
    assert not torch.equal(network.layer.weight, before)
    assert "probe/viscosity_r2" in trainer.callback_metrics
    with pytest.raises(CheckpointError, match=r"arguments \(width\) are not known. Set self\.init_args"):
        task.save_encoder(tmp_path / "encoder")


def test_a_simulator_of_a_dataset_is_imported_only_where_its_package_is_allowed(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from pathlib import Path\n\nfrom pdessl.solvers import Burgers\n\nPath('ran').touch()\n\n\n"
        "class Theirs(Burgers):\n    pass\n"
    )
    words = ["generate", "burgers_small", "--size", "2", "--set", "solver.simulator=theirs.Theirs"]
    refused = at_command_line([*words, "--out", tmp_path / "no"], tmp_path)
    assert refused.returncode == 2 and "--allow theirs" in refused.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "no").exists()
    # In the working folder, which is not on Python's path.
    done = at_command_line([*words, "--out", tmp_path / "yes", "--allow", "theirs"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    train = ["pretrain", "--config", "burgers_vicreg", "--set", "data.stream=burgers_small", "data.path=null"]
    train += ["data.overrides={solver.simulator: theirs.Theirs, observation.points: 64, observation.frames: 36}"]
    train += ["data.batches=1", "data.batch_size=4", "trainer.max_epochs=1", "trainer.limit_val_batches=0"]
    refused = at_command_line([*train, "--out", tmp_path / "run"], tmp_path)
    assert refused.returncode == 2 and "with --allow theirs" in refused.stderr and not (tmp_path / "ran").exists()
    done = at_command_line([*train, "--out", tmp_path / "run", "--allow", "theirs"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    # A store of it is read without.
    (tmp_path / "ran").unlink()
    looked = at_command_line(["inspect", tmp_path / "yes"], tmp_path)
    assert looked.returncode == 0 and not (tmp_path / "ran").exists()
    plain = at_command_line([*words[:-2], "--out", tmp_path / "plain"], tmp_path)
    assert plain.returncode == 0
    assert torch.equal(
        pdessl.open(tmp_path / "yes").load("test").fields, pdessl.open(tmp_path / "plain").load("test").fields
    )
