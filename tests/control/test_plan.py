"""``pdessl plan`` from end to end, in Python and at the command line, and its report."""

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.control import EnergyLimit, Gradient, load_environment
from pdessl.errors import CatalogError, CheckpointError, DataError
from pdessl.evaluation.report import read_report

QUICK = {"burn_in": 5.0, "control.steps": 6}
WORDS = [f"{key}={value}" for key, value in QUICK.items()]


class Still:
    """A model that imagines rest whatever is done: plans made in it are no better than chance's start, zero."""

    def __init__(self, environment):
        self.environment = environment

    def imagine(self, situation, actions):
        return torch.zeros(*actions.shape[:3], self.environment.modes, dtype=torch.complex128)


def test_rows_are_measured_in_the_solver_from_the_same_starts():
    env = load_environment("ks_control_8", QUICK)
    limit = EnergyLimit(1e-6)
    found = pdessl.plan(env, planner=Gradient(2), episodes=2, horizon=3, every=3, guardrails=[limit], announce=str)
    rows = {row["title"]: row for row in found.rows()}
    assert list(rows) == ["no control", "random", "linear feedback (LQR)", "Gradient, the solver as model"]
    starts = [run.fields[:, 0] for run in found.episodes.values()]
    assert all(torch.equal(start, starts[0]) for start in starts)
    refused = rows["Gradient, the solver as model"]  # nothing keeps that limit: the fallback acts throughout
    assert refused["fallbacks"] == 1.0 and refused["breaches"] == 12
    assert refused["mean_cost"]["mean"] == rows["no control"]["mean_cost"]["mean"]
    assert rows["linear feedback (LQR)"]["gain"] == 1.0 and rows["no control"]["gain"] == 0.0
    for row, run in zip(found.rows(), found.episodes.values(), strict=True):
        means = run.costs.mean(dim=1)
        assert row["mean_cost"]["mean"] == pytest.approx(float(means.mean()), rel=1e-12)
        assert row["mean_cost"]["standard_error"] == pytest.approx(float(means.diff().abs()) / 2, rel=1e-9)


def test_a_model_that_knows_nothing_is_no_better_than_no_control():
    env = load_environment("ks_control_5", QUICK)
    found = pdessl.plan(env, Still(env), planner="cem", episodes=1, horizon=2, every=2, announce=str)
    rows = {row["title"]: row["mean_cost"]["mean"] for row in found.rows()}
    assert list(rows)[-2:] == ["cem, the solver as model", "cem, Still"]
    assert rows["cem, Still"] == pytest.approx(rows["no control"], rel=1e-9)
    assert rows["cem, the solver as model"] < 0.98 * rows["no control"]


def test_the_command_writes_a_report_and_says_what_is_out_of_reach(tmp_path, capsys):
    words = [
        "plan",
        "--environment",
        "ks_control_4",
        "--episodes",
        "2",
        "--horizon",
        "2",
        "--every",
        "2",
        "--seed",
        "3",
    ]
    words += ["--planner", "mppi", "--amplitude-limit", "9", "--set", *WORDS, "--out", str(tmp_path)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "No actuator reaches a wave of number 2 that grows with +0.22" in printed
    report, arrays = read_report(tmp_path)
    assert [row["title"] for row in report["control"]["rows"]] == ["no control", "random", "mppi, the solver as model"]
    assert arrays["control/field/2"].shape == (7, 64) and arrays["control/actions/2"].shape == (6, 4)
    assert report["control"]["rows"][2]["breaches"] == 0 and report["recipe"]["horizon"] == 2
    page = (tmp_path / "report.html").read_text()
    assert "mppi, the solver as model" in page and "<svg" in page and "cannot hold u = 0" in page
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/report.html").read_text() == page


def test_what_is_printed_is_an_environment_that_can_be_run(tmp_path, capsys):
    assert cli.main(["plan", "--environment", "burgers_target", "--set", "control.steps=3", "--print_config"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    mine, shipped = load_environment(path), load_environment("burgers_target", {"control.steps": 3})
    assert mine.file == shipped.file and mine.name == "mine"


def test_wrong_words_are_told(capsys):
    for words, said in (
        (["--planner", "cen"], "Did you mean 'cem'"),
        (["--planner", "lqr", "--critic", "1"], "a planner that searches"),
        (["--adapt", "-1"], "numbers >= 0"),
        (["--episodes", "0"], "at least one episode"),
        (["--horizon", "2"], "1 <= every <= horizon"),
        (["--energy-limit", "0"], "are above 0"),
        (["--set", "control.step=3"], "Did you mean 'steps'"),
    ):
        assert cli.main(["plan", "--environment", "advection_diffusion_control", *words]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["plan", "--environment", "ks_control"]) == 2
    assert "no environment named 'ks_control'" in capsys.readouterr().err
    assert cli.main(["plan"]) == 2
    assert "--environment" in capsys.readouterr().err
    with pytest.raises(CatalogError, match="Planners: gradient, cem"):
        pdessl.plan("ks_control_4", planner="best")
    with pytest.raises(DataError, match="at least one episode"):
        pdessl.plan("ks_control_4", episodes=-1)


@pytest.mark.parametrize("price", ["probe", "latent"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "a", "b"], "with several models:"),
        (["--model", "a", "--critic", "1"], "with a critic:"),
        (["--model", "a", "--energy-limit", "5", "--critic", "1"], "with guardrails and a critic:"),
        (["--model", "a", "--amplitude-limit", "5"], "with guardrails:"),
        (["--model", "a", "--planner", "lqr"], "with linear feedback alone:"),
        (["--model", "law"], "with no world model's folder:"),
        ([], "with no world model's folder:"),
    ],
)
def test_a_price_that_plans_would_not_cost_is_refused_before_anything_is_run(price, words, reason, capsys):
    assert cli.main(["plan", "--environment", "ks_control_4", "--price", price, *words]) == 2
    said = capsys.readouterr().err
    assert f"price '{price}' {reason}" in said and "Take the price 'decoded'" in said


def test_energies_are_not_read_where_the_target_is_another_field():
    with pytest.raises(DataError, match="price 'probe' with a target other than 0"):
        pdessl.plan("burgers_target", "a", price="probe", announce=str)
    with pytest.raises(CheckpointError, match="a holds no world model"):  # the latent of a target is there
        pdessl.plan("burgers_target", "a", price="latent", announce=str)


def test_linear_feedback_alone_needs_no_search_and_is_refused_where_it_cannot_work():
    found = pdessl.plan(load_environment("ks_control_8", QUICK), "law", planner="lqr", episodes=1, announce=str)
    rows = {row["title"]: row["mean_cost"]["mean"] for row in found.rows()}
    assert list(rows)[2:] == ["linear feedback (LQR)", "linear feedback (LQR), the law found"]
    assert rows["linear feedback (LQR), the law found"] == pytest.approx(rows["linear feedback (LQR)"], rel=1e-3)
    four = load_environment("ks_control_4", QUICK)
    for model in (None, "law"):
        with pytest.raises(DataError, match=r"cannot hold u = 0. No actuator reaches a wave of number 2 that grows"):
            pdessl.plan(four, model, planner="lqr", episodes=1, announce=str)
    with pytest.raises(DataError, match="Still has no linearisation"):
        pdessl.plan(four, Still(four), planner="lqr", episodes=1, announce=str)
    with pytest.raises(DataError, match="Still cannot be adapted"):
        pdessl.plan(four, Still(four), adapt=1, episodes=1, announce=str)


def test_environments_are_listed(capsys):
    assert cli.main(["list", "environments"]) == 0
    printed = capsys.readouterr().out
    assert "ks_control_4" in printed and "four actuators" in printed
