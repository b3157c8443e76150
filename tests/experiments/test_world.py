"""A world model from runs to a closed loop: trained, read out, saved, loaded, planned with; and a collapsed one."""

import copy
import re
from dataclasses import replace

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.control import (
    EnergyLimit,
    Gradient,
    Imagined,
    Random,
    RecedingHorizon,
    Situation,
    VectorEnvironment,
    load_environment,
    record_runs,
    run_episodes,
)
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.evaluation.report import read_report
from pdessl.experiments.adapting import SOUND, SOUND_RUNS, _fewest, _quantile, adapt
from pdessl.experiments.planning import HELD_OUT
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
    priced = load_world(run, env, "probe").energies(now, actions)
    assert priced.shape == (2, 3, 4) and world.energies(now, actions) is None
    aimed = replace(now, target=env.start([5, 6]))
    assert load_world(run, env, "probe").energies(aimed, actions) is None
    latents, goals = world.latents(now, actions), world.encoded(env.field(aimed.target))
    scale = world.readout.field_weight.square().sum() / 64
    far = load_world(run, env, "latent")
    torch.testing.assert_close(
        far.energies(aimed, actions), scale * (latents - goals[:, None, None]).square().mean(dim=-1).double()
    )
    rest = world.encoded(torch.zeros(1, 64))
    torch.testing.assert_close(far.energies(now, actions), scale * (latents - rest).square().mean(dim=-1).double())
    problem = Imagined(env, far, aimed).cost(actions)
    torch.testing.assert_close(problem, far.energies(aimed, actions).mean(dim=-1))


def test_the_command_plans_in_a_world_model_and_in_a_law(run, tmp_path, capsys):
    words = ["--environment", "ks_control_4", "--episodes", "2", "--horizon", "3", "--every", "3", "--no-oracle"]
    words += ["--search", "iterations=2", "--set", *(f"{k}={v}" for k, v in QUICK.items())]
    for model, price in ((str(run), "latent"), (str(run), "decoded"), ("law", "decoded")):
        out = tmp_path / "plan"
        assert cli.main(["plan", "--model", model, "--price", price, *words, "--out", str(out)]) == 0
        said = capsys.readouterr().out
        report, arrays = read_report(out)
        last = report["control"]["rows"][-1]
        dreamed, came = (arrays[f"control/{name}/{last['key']}"] for name in ("dreamed", "came"))
        assert dreamed.shape == came.shape == (4, 64) and abs(dreamed[0] - came[0]).max() < 1e-6
        assert (came == arrays[f"control/field/{last['key']}"][:4]).all()
        assert bool(abs(dreamed - came).max() < 1e-3) is (model == "law")
        assert "the difference" in (out / "report.html").read_text()
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


def test_a_model_that_sees_sensors_plans_from_the_last_frames_of_them(ks4_store, tmp_path):
    words = [f"data.path={ks4_store}", "trainer.max_epochs=1", *WORDS[1:]]
    folder = pretrain("world/ks4_sensors", words, tmp_path / "run").folder
    places = {"sensors.positions": [11 / 8 * n for n in range(16)], "sensors.noise": 0.01}
    env = load_environment("ks_control_4", QUICK | places)
    world, vector = load_world(folder, env), VectorEnvironment(env)
    now = vector.reset([0, 1])
    assert torch.equal(now.last(3), torch.stack([now.observation] * 3, dim=1))
    seen = [now.observation]
    for _ in range(5):
        now, _ = vector.step(torch.zeros(2, 4))
        seen.append(now.observation)
    states = torch.rand(2, 4, 64).double()  # what is between the sensors does not matter
    states[..., ::4] = torch.stack(seen[-4:], dim=1)
    latent = pdessl.load(folder)(states.float()[:, None])
    actions = torch.rand(2, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        world.latents(now, actions)[:, 0], roll_out(world.predictor, latent, actions[:, 0].float())
    )
    found = pdessl.plan(env, folder, planner=Gradient(1), episodes=1, horizon=2, every=2, oracle=False, announce=str)
    assert list(found.episodes)[-1] == "Gradient, the world model"
    with pytest.raises(DataError, match="one frame that is seen whole"):
        adapt(world, lambda w: RecedingHorizon(env, w, Gradient(1), 2), [0])
    with pytest.raises(DataError, match="the model reads nodes"):
        load_world(folder, load_environment("ks_control_4", QUICK | {"sensors.positions": [0.0, 11.0]}))


def test_several_models_plan_together(run, capsys):
    words = ["--environment", "ks_control_4", "--episodes", "1", "--horizon", "2", "--every", "2", "--no-oracle"]
    words += ["--search", "iterations=1", "--set", *(f"{k}={v}" for k, v in QUICK.items())]
    assert cli.main(["plan", "--model", str(run), str(run), "--doubt", "2", *words]) == 0
    assert "gradient, 2 world models" in capsys.readouterr().out
    assert model_of([run, run], load_environment("ks_control_4", QUICK), announce=str).steps == 320


def test_the_price_of_a_model_that_is_made_already_is_its_own(run):
    env = load_environment("ks_control_4", QUICK)
    decoded, latent = load_world(run, env), load_world(run, env, "latent")
    for model, price, limits in (
        (latent, "decoded", [EnergyLimit(5.0)]),
        (latent, "probe", ()),
        (decoded, "latent", ()),
    ):
        with pytest.raises(DataError, match="plans would cost the decoded field all the same"):
            pdessl.plan(env, model, price=price, guardrails=limits, announce=str)
    found = pdessl.plan(env, latent, planner=Gradient(1), episodes=1, horizon=2, every=2, oracle=False, announce=str)
    assert list(found.episodes)[-1] == "Gradient, LatentWorld"


def test_linear_feedback_of_a_model_is_made_from_its_derivative_at_rest(run):
    env = load_environment("ks_control_4", QUICK)
    world = load_world(run, env)
    linear, d = world.linearised(), 24
    assert linear.transition.shape == (d, d) and linear.entry.shape == (d, 4)
    rest = world.encoded(torch.zeros(1, 64))
    exact = copy.deepcopy(world.predictor).double()
    generator = torch.Generator().manual_seed(0)
    move, push = torch.randn(d, generator=generator).double(), torch.randn(4, generator=generator).double()
    ends = [exact(rest.double() + sign * 1e-4 * move, sign * 1e-4 * push[None]) for sign in (1, -1)]
    slope = (ends[0] - ends[1])[0] / 2e-4
    torch.testing.assert_close(linear.transition @ move + linear.entry @ push, slope, rtol=1e-5, atol=1e-6)
    decoded = (world.readout.field_weight.double() @ move).square().mean()  # mean u² of the decoded field beside rest
    torch.testing.assert_close(move @ linear.square @ move, decoded, rtol=1e-9, atol=0)
    now = VectorEnvironment(env).reset([1, 2])
    seen = world.encoded(now.observation) - rest
    torch.testing.assert_close(world.coordinates(now), seen.double())
    assert float(world.coordinates(replace(now, observation=0 * now.observation)).abs().max()) < 1e-6


def test_a_model_learns_from_what_surprised_it_and_is_saved(run, tmp_path, capsys):
    words = ["--environment", "ks_control_4", "--episodes", "2", "--horizon", "4", "--every", "4", "--no-oracle"]
    words += ["--set", "burn_in=5", "control.steps=24", "--search", "iterations=2", "--critic", "1"]
    out = tmp_path / "better"
    assert cli.main(["plan", "--model", str(run), "--adapt", "1", *words, "--out", str(out)]) == 0
    report, _ = read_report(out)
    rows = {row["title"]: row for row in report["control"]["rows"]}
    first, adapted, last = list(rows)[-3:]
    assert (first, last) == ("gradient, the world model", "gradient, the world model, adapted, with a critic")
    assert rows[adapted]["training_periods"] == 320 + 6 * 24 + 2 * 24
    assert rows[last]["training_periods"] == rows[adapted]["training_periods"] + 2 * 24
    env = load_environment("ks_control_4", QUICK | {"control.steps": 24})
    again, world = load_world(out / "adapted", env), load_world(run, env)
    (note,) = (note for note in report["control"]["notes"] if "windows stored, with an error above" in note)
    was, now = map(float, re.search(r"not trained on: (\S+) as it was, (\S+) adapted", note).groups())
    steered = [_steered(env, model, HELD_OUT) for model in (world, again)]
    sound = torch.from_numpy(record_runs(env, range(SOUND, SOUND + SOUND_RUNS))["u"].values)
    floor = 1e-3 * float(sound.square().mean())
    for model, told in ((world, was), (again, now)):  # what the page says is of the episodes of its rows
        assert told == pytest.approx(_error(model, steered, floor), rel=2e-2)
    fields = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.encoded(fields), world.encoded(fields))  # the encoder stays
    assert pdessl.load(out / "critic").coordinates == again.environment.coordinates_count
    assert cli.main(["plan", "--model", "law", "--adapt", "1", *words]) == 2
    assert "cannot be adapted" in capsys.readouterr().err


def test_windows_above_the_usual_error_are_stored_and_imagined_better_afterwards_and_others_are_measured(run):
    env = load_environment("ks_control_4", QUICK | {"control.steps": 24})
    world = load_world(run, env)
    before = {key: value.clone() for key, value in world.predictor.state_dict().items()}

    def steered(model):
        return RecedingHorizon(env, model, Gradient(2), 4, 4)

    found = adapt(world, steered, range(2), rounds=2, level=0.3, steps=40)
    assert min(found.stored) > 0 and found.periods == (6 + 2 * 2) * 24
    assert f"{found.stored[0]}, {found.stored[1]}" in str(found)
    others = [_steered(env, model, 100) for model in (world, found.world)]
    was, now = found.errors(*others)
    assert was == pytest.approx(_error(world, others, found.floor), rel=1e-3)
    assert now == pytest.approx(_error(found.world, others, found.floor), rel=1e-3)
    met = _steered(env, world, 0)  # the episodes of the first round
    assert found.errors(met)[1] < 0.8 * found.errors(met)[0]
    assert all(torch.equal(value, before[key]) for key, value in world.predictor.state_dict().items())
    with pytest.raises(DataError, match="0 rounds, level 0.9, episodes of 24"):
        adapt(world, steered, [0], rounds=0)


def _steered(env, model, seed):
    return run_episodes(env, RecedingHorizon(env, model, Gradient(2), 4, 4), range(seed, seed + 2))


def _error(model, runs, floor):
    """The mean error of windows of eight periods, each imagined by itself as a planner would."""
    env, errors = model.environment, []
    for run in runs:
        for fields, actions in zip(run.fields.double(), run.actions, strict=True):
            for start in range(0, env.steps - 7, 8):
                real = fields[start + 1 : start + 9]
                now = Situation(fields[None, start], env.state(fields[None, start]), None, start, (0,), ())
                dreamed = env.field(model.imagine(now, actions[None, None, start : start + 8])[0, 0])
                errors.append(float((dreamed - real).square().mean() / (real.square().mean() + floor)))
    return sum(errors) / len(errors)


def test_short_episodes_take_as_many_sound_runs_as_the_level_needs(run):
    env = load_environment("ks_control_4", QUICK | {"control.steps": 9})  # a window an episode
    world = load_world(run, env)

    def chance(model):
        return Random(env)

    found = adapt(world, chance, range(30), level=0.9, steps=1)
    assert found.periods == (9 + 30) * 9 and 0 < found.usual < 1e3
    assert adapt(world, chance, [0], level=0.5, steps=1).periods == (6 + 1) * 9
    short = load_environment("ks_control_4", QUICK | {"control.steps": 7})
    with pytest.raises(DataError, match="episodes of 7 periods; expected .* 8 periods or more"):
        adapt(load_world(run, short), chance, [0])


@pytest.mark.parametrize("level", [1e-3, 0.3, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_fewest_errors_that_have_a_quantile_are_needed_for_it(level):
    fewest = _fewest(level)
    assert _quantile(torch.arange(fewest).double(), level) == fewest - 1  # the largest
    assert fewest == 1 or (fewest - 1) < level * fewest - 1e-9  # one less: of n + 1, n are too few


def test_models_of_something_else_are_refused(run, tmp_path):
    with pytest.raises(ShapeError, match="5 and"):
        load_world(run, load_environment("ks_control_5", QUICK))
    with pytest.raises(DataError, match="trained on 'kuramoto_sivashinsky_coefficients'"):
        load_world(run, load_environment("burgers_target"))
    with pytest.raises(DataError, match="2 sensors at nodes .0, 32., the model reads the whole grid"):
        load_world(run, load_environment("ks_control_4", QUICK | {"sensors.positions": [0.0, 11.0]}))
    with pytest.raises(DataError, match="sensors between the nodes of its grid; .* 0.34375 apart"):
        load_world(run, load_environment("ks_control_4", QUICK | {"sensors.positions": [1.0, 2.0]}))
    with pytest.raises(CheckpointError, match="--config world/ks4"):
        model_of(tmp_path, load_environment("ks_control_4", QUICK))
    with pytest.raises(DataError, match="other actuators"):
        model_of("law", load_environment("ks_control_5", QUICK), _store(tmp_path))


def _store(folder):
    pdessl.generate("ks_control_4", folder / "d", size={"unlabelled": 2, "validation": 1}, overrides=QUICK)
    return folder / "d"
