"""Pretraining on files of another project, in their own layout, through the command line's path."""

import h5py
import numpy as np
import pytest
import torch
import yaml

import pdessl
from pdessl.experiments.pretraining import pretrain

RECIPE = {
    "model": {
        "encoder": {
            "class_path": "pdessl.models.ConvEncoder",
            "init_args": {
                "in_channels": 3,
                "width": 4,
                "blocks": [1],
                "periodic": [False, False],
                "stacked_frames": 4,
                "features": 8,
            },
        },
        "projector": {"class_path": "pdessl.models.Projector", "init_args": {"in_features": 8, "out_features": 16}},
        "objective": {"class_path": "pdessl.objectives.VICReg"},
        "augmentation": {
            "class_path": "pdessl.augmentation.LieAugmentation",
            "init_args": {"algebra": "boussinesq", "strengths": {}},
        },
    },
    "data": {
        "batch_size": 8,
        "crop": {"frames": 4, "points": [16, 12]},
        "group_by": "buoyancy",
        "memory": 0,
        "splits": {"labelled": 0.5},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
}


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps"),
    pytest.mark.filterwarnings("ignore:.*rows and width.*:UserWarning", "ignore:.*(collapse|spread).*:UserWarning"),
]


@pytest.fixture
def folder(tmp_path):
    folder, rng = tmp_path / "NavierStokes2D_cond", np.random.default_rng(0)
    folder.mkdir()
    for mode, count in (("train", 4), ("valid", 2), ("test", 2)):
        for number in range(count):
            buoyancy = 0.2 + 0.05 * number
            suffix = "_4" if mode == "train" else ""
            with h5py.File(folder / f"NavierStokes2D_{mode}_{number}_{buoyancy:.5f}{suffix}.h5", "w") as file:
                group = file.create_group(mode)
                for name in ("u", "vx", "vy"):
                    group[name] = rng.standard_normal((4, 8, 16, 16)).astype("f4").astype("f8")
                group["t"], group["dt"] = np.tile(np.linspace(18.0, 102.0, 8), (4, 1)), np.full(4, 1.5)
                for axis in "xy":
                    group[axis] = np.tile(np.linspace(0.0, 32.0, 16), (4, 1))
                    group[f"d{axis}"] = np.full(4, 32 / 15)
                group["buo_y"] = np.full(4, buoyancy)
    return folder


@pytest.mark.parametrize(("recipe", "words"), [("smoke_vicreg", []), ("smoke_resnet", ["stacked_frames=8"])])
def test_shipped_recipes_take_the_files_as_they_are(recipe, words, folder, tmp_path):
    words = [f"model.encoder.init_args.{word}" for word in words]
    words += ["model.augmentation.init_args.window=[8, 12, 12]", "data.batch_size=8", "trainer.max_epochs=1"]
    words += ["data.splits={labelled: 0.5}"]  # a tenth of 16 runs is too few for a probe
    words += ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    run = pretrain(recipe, [f"data.path={folder}", *words], tmp_path / "run")
    inner = pdessl.load(run.folder).module
    assert inner.in_channels == 3 and inner.init_args["periodic"] == [False, False]
    assert run.task.global_step >= 1 and "probe/buoyancy_r2" in run.curves


def test_smoke_files_are_pretrained_on_as_they_are(folder, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    run = pretrain(tmp_path / "recipe.yaml", [f"data.path={folder}"], tmp_path / "run")
    assert run.task.global_step == 2  # 16 trajectories in batches of 8
    encoder = pdessl.load(run.folder)
    whole = pdessl.open(folder).load("train").fields.transpose(0, 1).flatten(1)
    means = torch.tensor(encoder.statistics["mean"])
    torch.testing.assert_close(means, whole.mean(dim=1).float(), rtol=1e-4, atol=1e-6)
    assert "probe/buoyancy_r2" in run.curves
