"""Every shipped pretraining recipe runs through the real command line, at its small and its full size."""

import functools
import json
import re

import pytest
import torch

import pdessl
from pdessl import catalog, cli
from pdessl.experiments.pretraining import _command_line, _content, pretrain
from pdessl.schema import parse_yaml

ELSEWHERE = ("quickstart", "studies/", "regression/", "timestep/", "design/")
RECIPES = [n for n in catalog.names("configs") if not n.startswith(ELSEWHERE)]
STEP = [
    "data.batch_size=16",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_parses_against_the_real_signatures(name, capsys):
    presets = [[], *(["--preset", p] for p in catalog.read("configs", name).get("presets", {}))]
    for preset in presets:
        assert cli.main(["pretrain", "--config", name, *preset, "--print_config"]) == 0
        printed = parse_yaml(capsys.readouterr().out, "printed")
        assert printed["model"]["encoder"]["class_path"].startswith(("pdessl.models.", "pdessl.operators."))
        if preset:
            assert printed["model"]["encoder"]["init_args"]["width"] >= 64


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_a_step_as_it_is(name, store_of, tmp_path):
    words = [f"data.path={store_of(name)}", *STEP]
    if name.endswith("_distilled"):  # needs a law, whose folder the recipe names
        law = pdessl.discover(store_of(name), rank=1, half_width=(9, 6), resamples=0)
        pdessl.operators.save_law(law, tmp_path / "law")
        words.append(f"model.augmentation.init_args.law={tmp_path / 'law'}")
    if name.endswith("_slow"):  # stands on the latents of a world model
        below = pretrain(name.removesuffix("_slow"), words, tmp_path / "below").folder
        words.append(f"model.encoder.init_args.checkpoint={below}")
    run = pretrain(name, words, tmp_path / "run")
    assert len(run.curves["train/loss"]) == 1
    assert {"monitor/rank_me", "monitor/collapsed"} <= set(run.curves)
    # What the projector is given is watched: the code beside it may be narrow.
    assert ("monitor/trunk_rank_me" in run.curves) == (getattr(run.task, "projected", "features") == "trunk")
    assert pdessl.load(tmp_path / "run").feature_dim > 0


def test_frames_are_chosen_without_labels_and_the_recipe_says_which(smoke_grouped_store, tmp_path, caplog):
    words = [f"data.path={smoke_grouped_store}", *STEP, "data.batch_size=4"]
    window = ["model.augmentation.init_args.window=[8,28,28]", "model.encoder.init_args.stacked_frames=8"]
    with caplog.at_level("INFO"):
        run = pretrain("pretrain/smoke_velocity", [*words, *window], tmp_path / "run")
    said = next(m for m in caplog.messages if m.startswith("time: "))
    chosen = re.search(r"model\.augmentation\.init_args\.time=(\w+)$", said).group(1)
    assert chosen in ("random", "early", "late")
    # Four groups cannot be held out in turn: halves of runs choose.
    assert "split-half reliability: whole" in said and "4 groups of two runs or more are too few" in said
    assert run.task.augmentation.time == chosen
    kept = json.loads((tmp_path / "run/encoder/recipe.json").read_text())["provenance"]["recipe"]
    assert kept["model"]["augmentation"]["init_args"]["time"] == chosen


FULL = [n for n in RECIPES if "full" in catalog.read("configs", n).get("presets", {})]


def test_every_equation_has_its_recipes_at_full_size():
    for equation in ("burgers", "ks"):
        for method in ("vicreg", "sigreg", "jepa", "masked_jepa", "sie"):
            assert any(n.rpartition("/")[2].startswith(f"{equation}_{method}") for n in FULL)


@pytest.mark.parametrize("name", FULL)
def test_the_full_size_is_built_and_takes_a_step(name, store_of):
    smoke, grouped = name.endswith(("smoke_resnet", "smoke_velocity")), name.endswith("smoke_velocity")
    # The grid of the full size is in no test's data: a smaller window, the same network.
    window = ["model.augmentation.init_args.window=[16,28,28]"] if smoke else []
    words = [f"data.path={store_of(name)}", *STEP, "data.batch_size=4", *window]
    made = _command_line(_content(name, words, None, None, "full"), ())
    task = made.model.train()
    task.log_terms = lambda *arguments: None
    task._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    task.training_step(next(iter(made.datamodule.train_dataloader())), 0).backward()
    trained = [p for module in task.trained() for p in module.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert sum(p.numel() for p in task.encoder.parameters()) > 5e6
    # Of pairs of runs the embedding itself is read, nearly a function of what they share.
    assert task.encoder.feature_dim == (4 if grouped else 1024 if smoke else 256)
    assert not grouped or task.encoder.module.trunk_dim == 1024
    if hasattr(task, "projector"):
        width = 4 if grouped else 512
        assert task.projector(torch.randn(4, task.encoder.feature_dim)).shape == (4, width)


@pytest.mark.parametrize("name", ["burgers_vicreg", "burgers_jepa", "burgers_sie"])
def test_compiling_reaches_what_the_task_calls(name, small_store, tmp_path, monkeypatch):
    from torch._dynamo.utils import counters

    # Captured, but not turned into machine code: that takes a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    words = [f"data.path={small_store}", *STEP, "trainer.limit_val_batches=0"]
    compiled = pretrain(name, [*words, "compile=true"], tmp_path / "compiled")
    assert counters["stats"]["calls_captured"] > 20
    plain = pretrain(name, words, tmp_path / "plain")
    assert compiled.curves["train/loss"] == pytest.approx(plain.curves["train/loss"], rel=1e-4)
    assert "tokens" not in vars(compiled.task.encoder.module)


@pytest.mark.parametrize("name", ["vicreg", "sigreg", "sie", "jepa", "masked_jepa"])
def test_a_step_in_bfloat16_gives_the_loss_of_single_precision_and_finite_weights(name, small_store, tmp_path):
    words = [f"data.path={small_store}", *STEP, "trainer.limit_val_batches=1"]
    plain = pretrain(f"burgers_{name}", words, tmp_path / "plain")
    run = pretrain(f"burgers_{name}", [*words, "trainer.precision=bf16-mixed"], tmp_path / "bf16")
    assert run.curves["train/loss"] == pytest.approx(plain.curves["train/loss"], rel=0.05)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in run.task.parameters())


def test_a_run_that_collapses_is_stopped_at_the_command_line(small_store, tmp_path, capsys):
    words = ["data.batch_size=16", "model.learning_rate=1e-2", "model.objective.class_path=pdessl.objectives.SimSiam"]
    words += ["model.objective.init_args={predictor: torch.nn.Identity, stop_gradient: false}"]
    words += ["model.projector=torch.nn.Identity", "trainer.enable_progress_bar=false", "trainer.max_epochs=15"]
    words += ["trainer.accelerator=cpu", "monitor.stop_on_collapse=true", "monitor.patience=3"]
    where = ["--data", str(small_store), "--out", str(tmp_path / "run")]
    assert cli.main(["pretrain", "--config", "burgers_sigreg", *where, "--set", *words]) == 2
    said = capsys.readouterr().err
    assert re.search(r"stopped in epoch \d+: complete collapse: .* Raise the weight of the anti-collapse term", said)
    history = json.loads((tmp_path / "run/history.json").read_text())["monitor/collapsed"]
    assert len(history) < 15 and history[-2:] == [1, 1]
    assert not (tmp_path / "run/encoder").exists()


def test_task_and_preset_are_checked(capsys):
    assert cli.main(["pretrain", "--config", "burgers_jepa", "--preset", "huge"]) == 2
    assert "no preset 'huge'. Presets: full" in capsys.readouterr().err
    assert cli.main(["pretrain", "--config", "burgers_jepa", "--set", "task=Prediction"]) == 2
    assert "no task 'Prediction'" in capsys.readouterr().err
    assert cli.main(["pretrain", "--config", "ks_jep"]) == 2
    assert "Did you mean 'ks_jepa'?" in capsys.readouterr().err


def test_weights_are_chosen_without_labels(small_store, tmp_path, capsys):
    words = [f"data.path={small_store}", *STEP, "trainer.max_epochs=3"]
    run = pretrain("burgers_sigreg", [*words, "best=monitor/rank_me"], tmp_path / "best")
    assert (tmp_path / "best/best.ckpt").exists()
    assert run.curves["monitor/rank_me"][0] > 0
    pretrain("burgers_sigreg", [*words, "average_weights=2"], tmp_path / "mean")
    assert pdessl.load(tmp_path / "mean").feature_dim == 64
    arguments = ["pretrain", "--config", "burgers_sigreg", "--out", str(tmp_path / "probe"), "--set", *words]
    assert cli.main([*arguments, "best=probe/viscosity_r2"]) == 2
    assert "a probe sees labels" in capsys.readouterr().err
    assert cli.main([*arguments, "best=monitor/lidar", "average_weights=2"]) == 2
    assert "exclude each other" in capsys.readouterr().err
