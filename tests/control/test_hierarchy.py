"""Laws of two time scales: blocks and codes, sub-goals that are reached, pumps and filters, two trained levels."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.control import (
    Gradient,
    Imagined,
    Newton,
    Oracle,
    RecedingHorizon,
    SlowOracle,
    TwoLevels,
    VectorEnvironment,
    load_environment,
    run_episodes,
)
from pdessl.control.hierarchy import _Blockwise
from pdessl.errors import CheckpointError, DataError, SchemaError
from pdessl.evaluation.report import read_report
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.slow_world import load_slow_world
from pdessl.experiments.world import load_world
from pdessl.models import Blocks, PooledEncoder, roll_out

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LINEAR = {"control.steps": 8}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_code_is_the_mean_of_its_piece_and_is_carried_out_as_it_is():
    blocks, codes = Blocks(6, 3), drawn(2, 4, 3 * 2)
    held = blocks.amplitudes(codes)
    assert held.shape == (2, 24, 2)
    torch.testing.assert_close(blocks.codes(held), codes)
    actions = drawn(2, 13, 2)  # a period over: left out
    torch.testing.assert_close(blocks.codes(actions)[:, 1, 2:4], actions[:, 8:10].mean(dim=1))
    whole = Blocks(4, 4)
    assert torch.equal(whole.amplitudes(whole.codes(actions)), actions[:, :12])
    with pytest.raises(SchemaError, match="pieces that divide the stride"):
        Blocks(5, 2)


def test_a_pump_moves_the_tracer_exactly_and_what_is_at_rest_stays():
    env = load_environment("tracer_ring", {"filters": [], "solver.substeps": 1})
    start, actions = env.start([0, 1]), drawn(2, 5, 1).clamp(-1, 1)
    k = torch.arange(env.modes, dtype=torch.float64)
    moved = 0.25 * actions[..., 0].cumsum(dim=1)[..., None] * k
    times = 0.25 * torch.arange(1, 6, dtype=torch.float64)[:, None]
    exact = start[:, None] * torch.polar((-0.0005 * k**2 * times).exp().expand_as(moved), -moved)
    torch.testing.assert_close(env.rollout(start, actions)[:, 1:], exact, rtol=1e-11, atol=1e-11)
    still = env.step(torch.zeros(2, env.modes, dtype=torch.complex128), actions[:, 0])
    assert float(still.abs().max()) == 0.0


def test_filters_take_what_comes_near_by_a_scheme_of_second_order():
    def ends(substeps):
        env = load_environment("tracer_ring", {"solver.substeps": substeps, "solver.points": 96})
        return env.field(env.rollout(env.start([0]), -torch.ones(1, 4, 1, dtype=torch.float64))[:, -1])

    fine = ends(40)
    errors = [float((ends(n) - fine).abs().max()) for n in (5, 10)]
    assert 3.5 < errors[0] / errors[1] < 4.6
    env = load_environment("tracer_ring")
    through, round_ = (env.field(env.rollout(env.start([0]), v * torch.ones(1, 20, 1)))[0] for v in (-1.0, 1.0))
    assert float(through[-1].sum() / through[0].sum()) < 0.1 and float(round_[14].sum() / round_[0].sum()) > 0.9


def test_overlap_is_one_without_arrival_and_nothing_at_the_target():
    env = load_environment("tracer_ring")
    target, none = env.target([0, 1]), torch.zeros(2, 1, dtype=torch.float64)
    torch.testing.assert_close(env.cost(target, none, target), torch.zeros(2, dtype=torch.float64))
    for state in (env.start([0, 1]), 0 * target):  # elsewhere, or lost
        torch.testing.assert_close(env.cost(state, none, target), torch.ones(2).double(), rtol=0, atol=0.05)
    with pytest.raises(SchemaError, match="cost.overlap is that with a target"):
        load_environment("tracer_ring", {"cost.target": None})
    with pytest.raises(SchemaError, match="expected the simulator advection_diffusion or heat"):
        load_environment("ks_control_4", {"actuators.kind": "pump"})
    with pytest.raises(DataError, match="use rollout"):
        env.simulator(torch.zeros(1, 1, 4))


def test_blocks_of_one_period_are_a_flat_plan():
    env = load_environment("advection_diffusion_control", {"control.steps": 3})
    now, plans = VectorEnvironment(env).reset([1, 2]), drawn(2, 4, 3, env.actuators).clamp(-1, 1)
    slow = _Blockwise(env, SlowOracle(env, Blocks(1, 1)), now)
    torch.testing.assert_close(slow.cost(plans), Imagined(env, Oracle(env), now).cost(plans))
    two = run_episodes(env, TwoLevels(env, SlowOracle(env, Blocks(1, 1)), Newton()), [1, 2])
    flat = run_episodes(env, RecedingHorizon(env, Oracle(env), Newton(), 3), [1, 2])
    torch.testing.assert_close(two.actions, flat.actions, rtol=0, atol=2e-5)


@pytest.mark.parametrize("every", [1, 4])
def test_the_fast_level_reaches_the_sub_goals_of_a_linear_model(every):
    env = load_environment("advection_diffusion_control", LINEAR)
    controller = TwoLevels(env, SlowOracle(env, Blocks(4, 1)), Newton(), every=every)
    world = VectorEnvironment(env)
    now = world.reset([1, 2])
    for step in range(8):
        now, _ = world.step(controller.act(now))
        if step % 4 == 3:
            missed = (env.coordinates(now.state) - controller.subgoal).square().sum(dim=1)
            assert float(missed.max()) < 1e-10 < 1e-3 < float(env.mean_square(now.state).min())
    assert controller.imagined > controller.evaluations > 0
    with pytest.raises(DataError, match="expected 1 <= every <= stride"):
        TwoLevels(env, SlowOracle(env, Blocks(4)), Newton(), every=5)


STEP = ["trainer.max_epochs=1", "data.batch_size=8", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]


@pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
def test_two_levels_are_trained_saved_and_planned_with_at_the_command_line(tracer_store, tmp_path, capsys, monkeypatch):
    words = [f"data.path={tracer_store}", *STEP]
    low = pretrain("world/tracer", words, tmp_path / "low")
    below = f"model.encoder.init_args.checkpoint={low.folder}"
    high = pretrain("world/tracer_slow", [*words, below, "model.horizon=3"], tmp_path / "high")
    task, env = high.task, load_environment("tracer_ring", {"control.steps": 12})
    frozen = task.encoder.module.lower.state_dict()
    assert all(torch.equal(frozen[name], value) for name, value in low.task.encoder.module.state_dict().items())
    runs = pdessl.open(tracer_store).load("validation")
    assert torch.equal(task.amplitudes(runs), task.blocks.codes(runs.actions.transpose(1, 2).float()))
    loaded = pdessl.load(high.folder)
    assert isinstance(loaded.module, PooledEncoder)
    assert torch.equal(loaded(runs.fields[:, :, :1]), task.eval().encoder(runs.fields[:, :, :1]))

    fast = load_world(low.folder, env)
    slow, now = load_slow_world(high.folder, fast), VectorEnvironment(env).reset([0, 1])
    codes = drawn(2, 3, 2, 1)
    first = loaded(now.observation.float()[:, None, None])
    by_hand = roll_out(slow.predictor, first, codes[:, 1].float())
    torch.testing.assert_close(slow.subgoals(now, codes[:, 1]), by_hand)
    actions = drawn(2, 3, 5, 1)
    end = fast.latents(now, actions)[:, :, -1]
    goal = slow._pooled.above(end[:, 1])
    missed = slow.missed(now, actions, goal)
    assert float(missed[:, 1].max()) < 1e-10 < float(missed[:, 0].min())
    other = load_world(low.folder, env)
    with torch.no_grad():
        other.encoder.module.linear.bias.add_(1.0)
    with pytest.raises(CheckpointError, match="trained on another encoder than that of --model"):
        load_slow_world(high.folder, other)
    with pytest.raises(CheckpointError, match="give it as --upper"):
        load_world(high.folder, env)
    with pytest.raises(DataError, match="stands on a world model"):
        load_slow_world(high.folder, Oracle(env))

    line = (
        f"plan --model {low.folder} --upper {high.folder} --environment tracer_ring --episodes 2 --horizon 3 --every 3"
    )
    line += " --planner icem --search samples=8 elites=2 rounds=1 --set control.steps=12"
    assert cli.main([*line.split(), "--out", str(tmp_path / "plan")]) == 0
    rows = read_report(tmp_path / "plan")[0]["control"]["rows"]
    ends = ["icem, two levels, the solver as models", "icem, two levels, the world models"]
    assert [row["title"] for row in rows][-2:] == ends and "two levels" in capsys.readouterr().out
    assert rows[-1]["imagined"] == rows[-2]["imagined"] > 0
    out, shape = tmp_path / "rows.json", "--episodes 2 --horizon 3 --every 3 --samples 8 --set control.steps=12"
    given = f"two_levels.py --low {low.folder} --high {high.folder} --out {out} {shape}"
    monkeypatch.setattr(sys, "argv", given.split())
    runpy.run_path(str(BENCHMARKS / "two_levels.py"), run_name="__main__")
    found = json.loads(out.read_text())["rows"]
    assert [row["periods"] for row in found if row["table"] == "errors"] == [5, 10, 5, 10]
    loops = {row["planner"]: row for row in found if row["table"] == "loops"}
    budgets = [loops[f"two levels, the {of}"]["imagined_per_episode"] for of in ("world models", "solver as both")]
    assert budgets[0] == budgets[1] > loops["no control"]["imagined_per_episode"] == 0

    far, figure = tmp_path / "far.json", tmp_path / "far.svg"
    shape = "--environment tracer_ring --episodes 3 --ahead 10 --set control.steps=20"
    given = f"far_ahead.py --low {low.folder} --high {high.folder} --data {tracer_store} --out {far} {shape}"
    monkeypatch.setattr(sys, "argv", given.split())
    runpy.run_path(str(BENCHMARKS / "far_ahead.py"), run_name="__main__")
    rows = json.loads(far.read_text())["rows"]
    assert [row["periods"] for row in rows] == [5, 10] * 6
    ends = [row for row in rows if row["quantity"] == "field"]
    told = {kind: [row["codes"] for row in ends if row["amplitudes"] == kind] for kind in ("zero", "smooth")}
    assert max(told["zero"]) < 1e-9 < min(told["smooth"])  # a code of no amplitudes leaves nothing out but rounding
    for row in rows:
        assert row["gain"] == pytest.approx(row["fast"] - row["slow"], rel=1e-6, abs=1e-9)
    monkeypatch.setattr(sys, "argv", f"far_ahead.py --draw {far} --out {figure}".split())
    runpy.run_path(str(BENCHMARKS / "far_ahead.py"), run_name="__main__")
    assert figure.read_text().count("<path") > 20
    with pytest.raises(DataError, match="upper goes with a planner that searches"):
        pdessl.plan(env, low.folder, upper=high.folder, planner=Gradient(1), rounds=1, announce=str)


def test_a_bump_is_a_gaussian_with_its_images():
    family = pdessl.solvers.Bump(2.0, 0.1, (0.95, 0.95))
    field = family.sample(1, points=48, length=3.0)[0, 0]
    x = 3.0 * torch.arange(48, dtype=torch.float64) / 48
    exact = sum(2.0 * torch.exp(-0.5 * ((x - 2.85 + 3.0 * n) / 0.3) ** 2) for n in range(-3, 4))
    torch.testing.assert_close(field, exact, rtol=0, atol=1e-6)
    assert math.isclose(float(field.mean()), 2.0 * 0.1 * math.sqrt(2 * math.pi), rel_tol=1e-9)
    with pytest.raises(SchemaError, match="expected 25 or more"):
        family.sample(1, points=16)
