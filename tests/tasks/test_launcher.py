"""Through the real launcher of Lightning a run on two processes is the run on one: views, losses, monitors, weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

# The same batches of at most 15 of 32 runs (11, 11, 10: shared unevenly), real views, no batch norm, double precision.
SCRIPT = """
import json, sys
import torch
from pdessl.experiments.pretraining import pretrain

torch.set_default_dtype(torch.float64)
for name, recipe in json.load(open("recipes.json")).items():
    pretrain(None, recipe | {"trainer.devices": int(sys.argv[1])}, f"{sys.argv[1]}/{name}")
"""

ENCODER = {
    "class_path": "pdessl.models.ConvEncoder",
    "init_args": {"width": 4, "blocks": [1], "norm": "group", "pool": "last", "periodic": [True]},
}
PROJECTOR = {"class_path": "pdessl.models.Projector", "init_args": {"in_features": 8, "hidden": [], "out_features": 6}}
VIEWS = {
    "class_path": "pdessl.augmentation.LieAugmentation",
    "init_args": {
        "algebra": "burgers", "strengths": {"space_translation": 0.5, "galilean_boost": 0.2}, "reflections": True,
        "window": [20, 48],
    },
}  # fmt: skip
NONE = {"class_path": "pdessl.augmentation.LieAugmentation", "init_args": {"algebra": "burgers", "strengths": {}}}


def objective(name, **arguments):
    return {"class_path": f"pdessl.objectives.{name}", "init_args": arguments}


def joint(chosen, views=VIEWS, encoder=ENCODER, **settings):
    model = {"encoder": encoder, "projector": PROJECTOR, "objective": chosen, "augmentation": views, **settings}
    return {"model": model, "data.batch_size": 15}


FORECASTER = {
    "class_path": "pdessl.models.TimeStepper", "init_args": {"past": 2, "width": 4, "blocks": 1, "condition": 8}
}  # fmt: skip
RECIPES = {
    "vicreg": joint(objective("VICReg")),
    "lejepa": joint(objective("LeJEPA", slices=8)),
    "simclr": joint(objective("SimCLR")),
    "forecast, identity views": joint(
        objective(
            "WeightedSum",
            objectives={
                "agreement": objective("VICReg"),
                "forecast": objective("CrossForecast", forecaster=FORECASTER, horizon=5),
            },
        ),
        NONE,
    ),
    "temporal": {
        "task": "TemporalPrediction",
        "model": {
            "encoder": ENCODER,
            "predictor": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 8}},
            "objective": objective("TemporalJEPA"),
            "frames": 6,
            "on_tokens": False,
        },
        "data.batch_size": 15,
    },
    "grouped": joint(objective("VICReg")) | {"data.grouped": "groups.txt", "data.batch_size": 5},
}  # fmt: skip
TRAINER = {
    "max_epochs": 2, "accelerator": "cpu", "strategy": "ddp", "enable_progress_bar": False
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(small_store, tmp_path_factory):
    """Folder with the runs of one process in ``1`` and those of two in ``2``."""
    folder = tmp_path_factory.mktemp("launched")
    every = {"data.path": str(small_store)} | {f"trainer.{name}": value for name, value in TRAINER.items()}
    (folder / "recipes.json").write_text(json.dumps({name: every | recipe for name, recipe in RECIPES.items()}))
    (folder / "groups.txt").write_text("\n".join(f"g{k % 4}" for k in range(64)))
    (folder / "train.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for processes in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "train.py", processes],
            capture_output=True, text=True, timeout=300, env=environment, cwd=folder,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_does_not_depend_on_the_number_of_processes(runs, name):
    one, two = (json.loads((runs / n / name / "history.json").read_text()) for n in "12")
    assert one.keys() == two.keys() and len(one["train/loss"]) == 2 and "monitor/rank_me" in one
    for term in one:
        # what is logged is float32; tails of ill-conditioned probes amplify round-off
        np.testing.assert_allclose(two[term], one[term], rtol=1e-3 if term.startswith("probe/") else 1e-5, atol=1e-6)
    assert one["train/loss"][0] != one["train/loss"][1]
    if "forecast" in name:
        assert one["train/persistence"] == pytest.approx(two["train/persistence"], rel=1e-6)
    weights = [load_file(runs / n / name / "encoder/model.safetensors") for n in "12"]
    for key, values in weights[0].items():
        np.testing.assert_allclose(weights[1][key], values, rtol=1e-6, atol=1e-9)
