"""A world model from runs to a closed loop: trained, read out, saved, loaded, planned with; and a collapsed one."""

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.control import Gradient, VectorEnvironment, load_environment
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.evaluation.report import read_report
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.world import load_world, model_of
from pdessl.models import load, roll_out, save_pretrained

QUICK = {"burn_in": 5.0, "control.steps": 6}
WORDS = ["trainer.max_epochs=30", "data.batch_size=16", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


@pytest.fixture(scope="module")
def run(ks4_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "run"
    words = [f"data.path={ks4_store}", *WORDS, "trainer.check_val_every_n_epoch=30"]
    return pretrain("world/ks4", words, folder).folder


def test_read_outs_are_measured_on_other_runs_and_imagination_is_their_roll_out(run, ks4_store):
    env = load_environment("ks_control_4", QUICK)
    world = load_world(run, env)
    runs = pdessl.open(ks4_store).load("validation")
    fields = runs.fields[:, 0].flatten(0, 1)
    latent = pdessl.load(run)(fields[:, None, None])
    read = world.readout(latent)[:, 0]
    share = 1 - float((read - fields).square().sum() / (fields - fields.mean(dim=0)).square().sum())
    assert share == pytest.approx(float(world.readout.r2[0]), abs=1e-3) and share > 0.5
    energy = world.readout.observe(latent)[:, 0]
    assert float(torch.corrcoef(torch.stack([energy, fields.square().mean(dim=1)]))[0, 1]) > 0.9
    now = VectorEnvironment(env).reset([1, 2])
    actions = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    imagined = env.field(world.imagine(now, actions))
    start = world.encoder(now.observation.float()[:, None, None])
    by_hand = world.readout(roll_out(world.predictor, start, actions[:, 1].float()))[:, :, 0]
    assert torch.allclose(env.state(by_hand), env.state(imagined[:, 1]), atol=1e-3)
    priced = load_world(run, env, priced=True).energies(now, actions)
    assert priced.shape == (2, 3, 4) and world.energies(now, actions) is None


def test_the_command_plans_in_a_world_model_and_in_a_law(run, tmp_path, capsys):
    words = ["--environment", "ks_control_4", "--episodes", "2", "--horizon", "3", "--every", "3", "--no-oracle"]
    words += ["--search", "iterations=2", "--set", *(f"{k}={v}" for k, v in QUICK.items())]
    for model, price in ((str(run), "probe"), (str(run), "decoded"), ("law", "decoded")):
        out = tmp_path / "plan"
        assert cli.main(["plan", "--model", model, "--price", price, *words, "--out", str(out)]) == 0
        said = capsys.readouterr().out
        report, arrays = read_report(out)
        last = report["control"]["rows"][-1]
        assert last["title"] == ("gradient, the law found" if model == "law" else "gradient, the world model")
        assert last["training_periods"] == (400 if model == "law" else 320)
        error = arrays[f"control/imagined/{last['key']}"]
        assert error.shape == (3,) and (error.max() < 1e-6 if model == "law" else error.max() < 1.0)
        assert (out / "control.gif").stat().st_size > 1000 and last["title"] in said
        assert "the solver as model" not in said


def test_a_collapsed_model_is_flagged_and_its_plan_is_no_better_than_zero(run, tmp_path, capsys):
    for name in ("encoder", "predictor", "readout"):
        module = load(run / name)
        with torch.no_grad():
            for tensor in (*module.parameters(), *(b for k, b in module.named_buffers() if "normal" not in k)):
                tensor.zero_()
        save_pretrained(tmp_path / "flat" / name, module)
    said = []
    found = pdessl.plan(
        load_environment("ks_control_4", QUICK), tmp_path / "flat", planner=Gradient(2), episodes=2, horizon=2, every=2,
        oracle=False, announce=said.append,
    )  # fmt: skip
    rows = {row["title"]: row["mean_cost"]["mean"] for row in found.rows()}
    assert rows["Gradient, the world model"] == pytest.approx(rows["no control"], rel=1e-9)
    assert any("does not hold the state" in line for line in said)


def test_models_of_something_else_are_refused(run, tmp_path):
    with pytest.raises(ShapeError, match="5 and"):
        load_world(run, load_environment("ks_control_5", QUICK))
    with pytest.raises(DataError, match="trained on 'kuramoto_sivashinsky_coefficients'"):
        load_world(run, load_environment("burgers_target"))
    with pytest.raises(DataError, match="2 sensors"):
        load_world(run, load_environment("ks_control_4", QUICK | {"sensors.positions": [1.0, 2.0]}))
    with pytest.raises(CheckpointError, match="--config world/ks4"):
        model_of(tmp_path, load_environment("ks_control_4", QUICK))
    with pytest.raises(DataError, match="other actuators"):
        model_of("law", load_environment("ks_control_5", QUICK), _store(tmp_path))


def _store(folder):
    pdessl.generate("ks_control_4", folder / "d", size={"unlabelled": 2, "validation": 1}, overrides=QUICK)
    return folder / "d"
