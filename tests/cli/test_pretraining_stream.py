"""Pretraining on runs that are simulated meanwhile, through the command line."""

import json

import pytest
import torch

import pdessl
from pdessl import catalog
from pdessl.data import load_recipe, simulate
from pdessl.errors import PdesslError, StoreError
from pdessl.experiments.pretraining import pretrain

# As large as the windows of the shipped recipe.
# The recorded coefficients of the initial field, of either sign, are no targets of the online probe.
SEEN = {"observation.points": 64, "observation.frames": 36, "initial_condition.record": True}
STREAM = [
    "data.stream=burgers_small",
    f"data.overrides={json.dumps(SEEN)}",
    "data.size={labelled: 16, validation: 8}",
    "data.statistics_from=16",
    "data.batch_size=8",
    "data.batches=3",
    "model.encoder.init_args.width=4",
    "model.projector.init_args={in_features: 32, hidden: [16], out_features: 8}",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


@pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
def test_pretraining_on_a_stream_and_going_on_with_it(tmp_path):
    words = [*STREAM, "trainer.max_epochs=2"]
    run = pretrain("burgers_vicreg", words, tmp_path / "run")
    assert run.curves["epoch"] == [1, 2] and "probe/viscosity_r2" in run.curves
    assert not any("initial_sine" in name for name in run.curves)
    assert not list(tmp_path.rglob("*.nc"))
    runs = simulate(load_recipe("burgers_small", overrides=SEEN), "test", range(4))
    assert torch.allclose(pdessl.load(tmp_path / "run")(runs.fields), run.task.eval()(runs.fields))
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    # Two epochs of three batches: the third goes on with the seventh.
    assert state["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"used": 6}]
    words[-1] = "trainer.max_epochs=3"
    longer = pretrain("burgers_vicreg", words, tmp_path / "run", ckpt_path=tmp_path / "run" / "last.ckpt")
    assert longer.curves["epoch"] == [1, 2, 3]
    with pytest.raises(StoreError, match="Stream the dataset it was trained on"):
        pretrain("burgers_vicreg", [*words, "data.stream=burgers"], tmp_path / "x", tmp_path / "run" / "last.ckpt")


def test_a_recipe_may_ask_for_a_stream_and_mistakes_are_said(tmp_path):
    recipe = catalog.find("configs", "burgers_vicreg").read_text().replace("path: data/burgers", "stream: burgers_smal")
    (tmp_path / "mine.yaml").write_text(recipe)
    with pytest.raises(PdesslError, match="Did you mean 'burgers_small'"):
        pretrain(tmp_path / "mine.yaml", ["trainer.accelerator=cpu"], tmp_path / "run")
    with pytest.raises(PdesslError, match="crop"):
        pretrain("burgers_vicreg", ["data.stream=burgers_small", "data.crop.frames=8"], tmp_path / "run")
