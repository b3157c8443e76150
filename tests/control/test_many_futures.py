"""Laws of planning over what is not determined: an unseen force, its futures, their average and their worst."""

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.control import (
    CEM,
    EnergyLimit,
    Gradient,
    Imagined,
    Oracle,
    Random,
    RecedingHorizon,
    VectorEnvironment,
    load_environment,
    run_episodes,
)
from pdessl.control.many_futures import Drawn, ManyFutures, draw_futures
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.evaluation.report import read_report
from pdessl.experiments.pretraining import pretrain

QUICK = {"control.steps": 6}
LINEAR = {"control.steps": 6, "unseen.amplitude": 0.7, "unseen.wave_numbers": [1, 3]}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(env, numbers, case="average", rails=()):
    now = VectorEnvironment(env).reset(range(len(numbers)))
    imagined = Imagined(env, Drawn(Oracle(env), numbers), now, rails)
    return ManyFutures(imagined, numbers.shape[1], case), Imagined(env, Oracle(env), now, rails)


def test_an_episode_with_an_unseen_force_is_the_simulators_run_bit_by_bit_alone_and_in_a_batch():
    env = load_environment("burgers_gusts", QUICK)
    runs = run_episodes(env, Random(env), [3, 8, 5])
    acting = env.acting(runs.actions, [3, 8, 5])
    assert acting.shape == (3, 6, 8 + 4)
    times = env.file.control.period * torch.arange(7, dtype=torch.float64)
    start = env.field(env.start([3, 8, 5]))
    with torch.no_grad():
        truth = env.simulator(acting.transpose(1, 2))(start[:, None], times).fields[:, 0]
    assert torch.equal(runs.fields, truth.float())
    alone = run_episodes(env, Random(env), [8])
    assert torch.equal(alone.fields[0], runs.fields[1])
    calm = env.field(env.rollout(env.start([3, 8, 5]), runs.actions))
    assert float((calm - truth).abs().max()) > 0.05  # the force is there, and ξ = 0 is another future


def test_the_force_has_the_deviation_of_the_file_and_no_memory():
    env = load_environment("burgers_gusts")
    xi = env.unseen(range(200))
    force = torch.einsum("btu,ux->btx", xi, env.source(torch.cat([torch.zeros(4, 8), torch.eye(4)], 1).double()))
    assert float(force.square().mean().sqrt()) == pytest.approx(env.file.unseen.amplitude, rel=0.02)
    assert abs(float((force[:, 1:] * force[:, :-1]).mean())) < 0.01


def test_the_average_of_a_quadratic_cost_of_a_linear_model_is_that_of_the_mean_and_a_trace_that_no_plan_moves():
    env = load_environment("advection_diffusion_control", LINEAR)
    plans, numbers = drawn(2, 5, 4, env.actuators), drawn(2, 7, 4, env.undetermined, seed=1)
    many, _ = problem(env, numbers)
    mean, _ = problem(env, numbers.mean(dim=1, keepdim=True))
    away = numbers - numbers.mean(dim=1, keepdim=True)
    still = torch.zeros(14, 4, env.actuators, dtype=torch.float64)
    rest = torch.zeros(14, env.modes, dtype=torch.complex128)
    moved = env.rollout(rest, torch.cat([still, away.flatten(0, 1)], dim=2))[:, 1:]
    trace = env.mean_square(moved).mean(dim=1).unflatten(0, (2, 7)).mean(dim=1)
    torch.testing.assert_close(many.cost(plans) - mean.cost(plans), trace[:, None].expand(2, 5), rtol=1e-9, atol=1e-12)
    assert float(trace.min()) > 1e-4


def test_the_worst_costs_more_than_the_average_and_one_future_has_no_other():
    env = load_environment("burgers_gusts", QUICK)
    plans, numbers = drawn(2, 5, 3, env.actuators).clamp(-1, 1), drawn(2, 4, 3, env.undetermined, seed=1)
    rails = [EnergyLimit(0.2)]
    several = {case: problem(env, numbers, case, rails)[0] for case in ("average", "worst")}
    each = torch.stack([problem(env, numbers[:, s : s + 1], "worst", rails)[0].cost(plans) for s in range(4)])
    torch.testing.assert_close(several["average"].cost(plans), each.mean(dim=0))
    torch.testing.assert_close(several["worst"].cost(plans), each.amax(dim=0))
    assert bool((several["worst"].cost(plans) > several["average"].cost(plans)).all())
    over = {case: found.limited(plans)[1] for case, found in several.items()}
    assert bool((over["worst"] >= over["average"]).all())
    kept = {case: torch.stack([found.keeps_limits(plans[:, n]) for n in range(5)]) for case, found in several.items()}
    assert bool((kept["average"] | ~kept["worst"]).all())


def test_without_anything_open_it_is_the_problem_of_the_likely_future():
    env = load_environment("burgers_gusts", QUICK)
    plans = drawn(2, 5, 3, env.actuators).clamp(-1, 1)
    for case in ("average", "worst"):
        many, one = problem(env, torch.zeros(2, 3, 3, env.undetermined, dtype=torch.float64), case)
        torch.testing.assert_close(many.cost(plans), one.cost(plans), rtol=1e-12, atol=0)
    calm = load_environment("burgers_gusts", QUICK | {"unseen.amplitude": 0.0})
    found = [
        run_episodes(calm, RecedingHorizon(calm, Oracle(calm), Gradient(2), 2, 2, futures=f, case="worst"), [4, 9])
        for f in (0, 2)
    ]
    torch.testing.assert_close(found[0].fields, found[1].fields, rtol=1e-6, atol=1e-9)


def test_plans_for_the_worst_keep_a_limit_that_plans_for_the_likely_future_pass():
    env = load_environment("burgers_gusts", {"control.steps": 6, "solver.substeps": 2})
    rails = [EnergyLimit(0.28)]
    passed = []
    for futures in (0, 4):
        controller = RecedingHorizon(env, Oracle(env), Gradient(5), 2, 1, rails, futures=futures, case="worst")
        energy = run_episodes(env, controller, range(5)).fields.double().square().mean(dim=2)
        passed.append(int((energy > 0.28).sum()))
    assert passed[1] < passed[0]


def test_futures_differ_between_rows_and_are_refused_where_nothing_is_open():
    env = load_environment("burgers_gusts", QUICK)
    numbers = draw_futures(Oracle(env), 3, 2, 4, torch.Generator().manual_seed(0))
    assert numbers.shape == (2, 3, 4, 4) and len(numbers.flatten().unique()) == 96
    calm = load_environment("burgers_target")
    with pytest.raises(DataError, match="Plan with futures=0, in an environment with an unseen force, or in a world"):
        draw_futures(Oracle(calm), 3, 2, 4, torch.Generator())
    with pytest.raises(DataError, match="leaves nothing open.*Plan in an environment with an unseen force"):
        pdessl.plan(calm, futures=3, announce=str)
    with pytest.raises(DataError, match="expected a number >= 0 and average or worst"):
        RecedingHorizon(env, Oracle(env), CEM(), 3, futures=2, case="best")
    with pytest.raises(ShapeError, match=r"expected \(2, 8\), one amplitude per actuator, or 12, with ξ"):
        env.step(env.start([0, 1]), torch.zeros(2, 9))
    with pytest.raises(SchemaError, match="keeps those below 21"):
        load_environment("burgers_gusts", {"unseen.wave_numbers": [1, 22]})


def test_the_command_plans_over_what_a_world_model_leaves_open(gusts_store, tmp_path, capsys):
    words = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
    with pytest.warns():  # what Lightning says about loaders and workers
        run = pretrain("world/gusts", [f"data.path={gusts_store}", *words], tmp_path / "run").folder
    line = f"plan --model {run} --environment burgers_gusts --episodes 2 --horizon 2 --every 2 --planner cem --search "
    line += "samples=8 elites=2 rounds=1 --futures 3 --case worst --energy-limit 9 --set control.steps=4 --no-oracle"
    assert cli.main([*line.split(), "--out", str(tmp_path / "plan")]) == 0
    report, arrays = read_report(tmp_path / "plan")
    titles = [row["title"] for row in report["control"]["rows"]]
    assert titles[-2:] == ["cem, the world model", "cem, the world model, worst of 3 futures"]
    assert report["recipe"]["futures"] == 3 and report["recipe"]["case"] == "worst"
    assert all(row["bad_cost"] >= row["mean_cost"]["mean"] for row in report["control"]["rows"])
    assert "worst of 3 futures" in capsys.readouterr().out and arrays["control/imagined/3"].shape == (2,)
