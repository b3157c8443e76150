"""TensorBoard and W&B as extras: by a short name, or one line that says what to install."""

import importlib.util

import pytest

from pdessl.cli import main
from pdessl.errors import PdesslError
from pdessl.experiments import loggers
from pdessl.experiments.loggers import with_loggers


def installed(*names):
    real = importlib.util.find_spec
    return lambda name, *more: (object() if name in names else None) if name in _EXTRAS else real(name, *more)


_EXTRAS = ("tensorboard", "wandb")


@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "{class_path: lightning.pytorch.loggers.WandbLogger}"])
def test_a_package_that_is_missing_is_told_in_a_line(logger, monkeypatch, capsys):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", installed())
    assert main(["pretrain", "--config", "burgers_vicreg", "--set", f"trainer.logger={logger}", "--print_config"]) == 2
    said = capsys.readouterr().err.strip()
    name = "tensorboard" if "tensorboard" in logger else "wandb"
    assert said.endswith(f"needs the package '{name}': pip install 'pdessl[{name}]'") and "\n" not in said


def test_short_names_are_lightnings_classes_in_the_folder_of_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", installed("tensorboard", "wandb"))
    recipe = {"out": str(tmp_path), "trainer": {"max_epochs": 2, "logger": ["tensorboard", "wandb", True]}}
    made = with_loggers(recipe)["trainer"]
    assert made["max_epochs"] == 2
    board, weights, other = made["logger"]
    assert board == {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(tmp_path), "name": "", "version": "tensorboard"},
    }
    assert weights["class_path"] == "lightning.pytorch.loggers.WandbLogger" and other is True
    assert with_loggers(with_loggers(recipe)) == with_loggers(recipe)
    for plain in (True, False, None, {"class_path": "CSVLogger"}):
        assert with_loggers({"trainer": {"logger": plain}})["trainer"]["logger"] == plain
    assert with_loggers({"data": {}}) == {"data": {}}


def test_one_of_several_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", installed("tensorboard"))
    with pytest.raises(PdesslError, match="wandb needs the package 'wandb'"):
        with_loggers({"trainer": {"logger": ["tensorboard", "wandb"]}})
