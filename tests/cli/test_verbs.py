"""Every verb but the quickstart, through the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_line import at_command_line

import pdessl
from pdessl import catalog, cli
from pdessl.errors import CatalogError, CheckpointError, PdesslError
from pdessl.experiments.pretraining import default_precision, pretrain
from pdessl.solvers import FAMILIES

SMALL = [
    "data.batch_size=16",
    "model.encoder.init_args.width=4",
    "model.projector.init_args={in_features: 32, hidden: [16], out_features: 8}",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]
IGNORE = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_help_explains_the_verb_and_its_python_call(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"pdessl {verb}" in printed
    assert "In Python:" in printed


def test_inspect_prints_splits_and_ranges_or_json(small_store, capsys):
    assert cli.main(["inspect", str(small_store)]) == 0
    assert "viscosity" in capsys.readouterr().out
    assert cli.main(["inspect", str(small_store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["unlabelled"] == 32


def test_generate_refuses_a_folder_of_another_recipe_and_an_unknown_dataset(small_store, tmp_path, capsys):
    assert cli.main(["generate", "burgers", "--out", str(small_store)]) == 2
    assert "made by another recipe" in capsys.readouterr().err
    assert cli.main(["generate", "burgers_smal", "--out", str(tmp_path / "new")]) == 2
    assert "Did you mean 'burgers_small'?" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@IGNORE
def test_pretrain_saves_encoder_and_curves(small_store, tmp_path):
    words = [f"data.path={small_store}", *SMALL]
    whole = pretrain("burgers_vicreg", [*words, "trainer.max_epochs=2"], tmp_path / "whole")
    assert whole.curves["epoch"] == [1, 2]
    assert json.loads((tmp_path / "whole/history.json").read_text())["epoch"] == [1, 2]
    encoder = pdessl.load(tmp_path / "whole")
    runs = pdessl.open(small_store).load("test")
    assert torch.allclose(encoder(runs.fields), whole.task.eval()(runs.fields))


@IGNORE
def test_a_killed_pretraining_goes_on_from_its_checkpoint(small_store, tmp_path):
    words = ["pretrain", "--config", "burgers_vicreg", "--data", small_store, "--set", *SMALL, "trainer.max_epochs=3"]
    whole = at_command_line([*words, "--out", tmp_path / "whole"], tmp_path)
    assert whole.returncode == 0, whole.stderr[-3000:]
    killed = subprocess.Popen(
        [sys.executable, "-m", "pdessl.cli", *map(str, words), "--out", str(tmp_path / "part")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "part/last.ckpt").exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    checkpoint = torch.load(tmp_path / "part/last.ckpt", weights_only=True)
    assert checkpoint["epoch"] < 3
    resumed = at_command_line(
        [*words, "--out", tmp_path / "part", "--ckpt_path", tmp_path / "part/last.ckpt"], tmp_path
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    one, other = (pdessl.load(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    curves = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "part")]
    assert curves[0]["train/loss"] == curves[1]["train/loss"]


def test_pretrain_refuses_what_it_cannot_use(small_store, tmp_path):
    words = [f"data.path={small_store}", *SMALL]
    with pytest.raises(CatalogError, match="Did you mean 'burgers_vicreg'?"):
        pretrain("burger_vicreg", words, tmp_path / "run")
    with pytest.raises(PdesslError, match="objectiv"):
        pretrain("burgers_vicreg", [*words, "model.objectiv=1"], tmp_path / "run")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        pretrain("burgers_vicreg", words, tmp_path / "run", ckpt_path=tmp_path / "none.ckpt")
    torch.save({"pdessl_task": "TimeStepping", "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="written by TimeStepping; --ckpt_path resumes Pretraining only"):
        pretrain("burgers_vicreg", words, tmp_path / "run", ckpt_path=tmp_path / "other.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        pretrain("burgers_vicreg", words, tmp_path / "run", ckpt_path=tmp_path / "broken.ckpt")
    assert not (tmp_path / "run").exists()


def test_regress_and_timestep_refuse_a_folder_without_an_encoder(small_store, tmp_path, capsys):
    for verb in ("regress", "timestep"):
        out = tmp_path / "out"
        assert cli.main([verb, "--encoder", str(tmp_path), "--data", str(small_store), "--out", str(out)]) == 2
        assert "recipe.json" in capsys.readouterr().err
        assert not out.exists()


def test_a_gpu_trains_in_bfloat16_unless_the_recipe_says_otherwise():
    assert default_precision("auto", cuda=True) == "bf16-mixed"
    assert default_precision("cpu", cuda=True) == "32-true"
    assert default_precision("auto", cuda=False) == "32-true"


@pytest.mark.slow
def test_ctrl_c_ends_a_pretraining_with_code_130_and_nothing_half_written(small_store, tmp_path):
    words = [
        "pretrain",
        "--config",
        "burgers_vicreg",
        "--data",
        small_store,
        "--set",
        *SMALL,
        "trainer.max_epochs=5000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "pdessl.cli", *map(str, words), "--out", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started these tests in the background may have had it ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said[-2000:]
    assert "Traceback" not in said
    assert not (tmp_path / "run/encoder").exists()
    torch.load(tmp_path / "run/last.ckpt", weights_only=True)


GENERATED = {n: catalog.read("datasets", n) for n in catalog.names("datasets")}
GENERATED = {n: d for n, d in GENERATED.items() if "format" not in d}


# Those of two dimensions take minutes at full length: tests/data/test_datasets.py has them, with fewer frames.
@pytest.mark.parametrize(
    "name", [n for n, d in GENERATED.items() if FAMILIES[d["initial_condition"]["family"]].dimensions == 1]
)
def test_every_dataset_generates_at_tiny_size(name, tmp_path, capsys):
    splits = catalog.read("datasets", name)["splits"]
    size = ",".join(f"{split}=2" for split in splits)
    assert cli.main(["generate", name, "--out", str(tmp_path / "store"), "--size", size]) == 0
    assert "2 unlabelled" in capsys.readouterr().out
    assert cli.main(["inspect", str(tmp_path / "store")]) == 0
    assert pdessl.open(tmp_path / "store").load("test").fields.shape[0] == 2
