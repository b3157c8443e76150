"""An inverse benchmark: published splits, routes that are right where they must be, rows that can be computed again."""

import json
import shutil

import numpy as np
import pytest
import torch

from pdessl import catalog, cli
from pdessl.data import load_recipe, simulate
from pdessl.errors import SchemaError, ShapeError, StoreError
from pdessl.evaluation.classical import least_squares
from pdessl.evaluation.energy_balance import energy_balance
from pdessl.evaluation.frame_terms import FrameTerms, frame_terms
from pdessl.experiments.cluster_jobs import _work
from pdessl.experiments.inverse_degradation import Degradation, degraded, despiked
from pdessl.experiments.inverse_network import Network, channels, tailor, train
from pdessl.experiments.inverse_routes import best_constant
from pdessl.experiments.inverse_sets import PLACES, Held, InverseSet, place_of, windows
from pdessl.experiments.inverse_table import inverse_table
from pdessl.experiments.study import study
from pdessl.inference.frame_shooting import shoot_frames, smoothed
from pdessl.inference.tailoring import Tailoring
from pdessl.schema import fill
from pdessl.solvers import KdV

NAME = "studies/inverse_benchmark"
SETS = {n: fill(InverseSet, v, n) for n, v in catalog.read("configs", NAME)["sets"].items()}
# As published: distinct values, and how many of them lie in each range.
PUBLISHED = {
    "kdv": {"low": 0.8, "high": 5.0, "values": 100, "in": 60, "middle": 20, "extreme": 20},
    # 28 values are published, where they lie is not: the counts are those of equal distances.
    "reaction": {"low": 0.005, "high": 0.1, "values": 28, "in": 11, "middle": 12, "extreme": 5},
    # 101 values are published, and ranges of their logarithms: counts of equal ratios, ends included.
    "flow": {"low": 1e-4, "high": 1e-2, "values": 101, "in": 62, "middle": 19, "extreme": 20},
    # Values of ours, in the proportions published.
    "forced flow": {"low": 0.04, "high": 0.12, "values": 41, "in": 26, "middle": 7, "extreme": 8},
}
# Twelve values of delta, of which six are trained on.
TINY = {
    "inverse": {
        "windows": [2],
        "noise": [0.01],
        "labels": [8],
        "seeds": 1,
        "degradations": {"low-pass": None, "uneven mesh": None},
    },
    "sets": {
        "kdv": {
            "changes": {"parameters": {"dispersion": {"count": 12}}, "observation": {"frames": 7, "end": 44.38}},
            "size": {"labelled": 24, "validation": 24, "test": 12},
        },
        "reaction": None,
        "flow": None,
        "forced flow": None,
    },
}


@pytest.fixture(scope="module")
def kdv():
    """Frames .73 apart, as published, of runs over the whole range."""
    recipe = load_recipe("pdeinvbench_kdv", overrides=["observation.frames=5", "observation.end=42.92"])
    return simulate(recipe, "test", range(0, 100, 11), workers=1)


def bare(runs):
    return runs.replace(parameters={"steepening": runs.parameters["steepening"]})


def noisy(runs, share):
    drawn = torch.randn(runs.fields.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return runs.replace(fields=runs.fields.double() + share * runs.fields.double().std() * drawn)


@pytest.mark.parametrize("name", SETS)
def test_splits_are_those_published(name):
    of, expected = SETS[name], PUBLISHED[name]
    distribution = of.recipe().parameters[of.by]
    values = np.array(distribution.values) ** (1 / of.targets[of.by].root)
    assert len(values) == expected["values"]
    np.testing.assert_allclose([values[0], values[-1]], [expected["low"], expected["high"]])
    places = place_of(values, of.ranges)
    assert {p: int((places == p).sum()) for p in PLACES} == {p: expected[p] for p in PLACES}
    low, high = of.prior[of.by]
    assert low < values[0] and values[-1] < high


def test_every_split_has_all_values_in_turn():
    recipe = load_recipe("pdeinvbench_kdv", overrides=["parameters.dispersion.count=3"])
    found = recipe.parameters["dispersion"]
    drawn = [found.draw(np.random.default_rng(k), k) for k in range(5)]
    np.testing.assert_allclose(drawn, [0.64, 2.9**2, 25.0, 0.64, 2.9**2])
    assert (found.low, found.high) == (pytest.approx(0.64), pytest.approx(25.0))
    change = "parameters.dispersion={distribution: uniform, low: 1, high: 2, power: 2}"
    square = load_recipe("pdeinvbench_kdv", overrides=[change]).parameters["dispersion"]
    one, other = square.draw(np.random.default_rng(1)), np.random.default_rng(1).uniform(1, 2)
    assert one == pytest.approx(other**2)
    with pytest.raises(SchemaError, match="numbers > 0, or power 1"):
        load_recipe("pdeinvbench_kdv", overrides=["parameters.steepening={value: -1, power: 2}"])


def test_regenerated_runs_solve_their_equation():
    recipe = load_recipe("pdeinvbench_kdv", overrides=["observation.frames=12", "observation.end=40.55"])
    runs = simulate(recipe, "test", range(0, 100, 11), workers=1)
    found = least_squares("kdv_coefficients", bare(runs), "dispersion")
    torch.testing.assert_close(found, runs.parameters["dispersion"].double(), rtol=2e-4, atol=0)


@pytest.mark.parametrize("name", ["flow", "forced flow"])
def test_regenerated_flows_solve_their_equation(name):
    """Also where the force is not told: what it drives is left out of the equation."""
    of = SETS[name]
    early = ["observation.frames=2", "observation.start=0.5", "observation.end=0.52"]
    recipe = load_recipe(of.recipe(), overrides=early)
    runs = simulate(recipe, "test", [9, 24, 39], workers=1)
    assert runs.equation == recipe.equation and recipe.simulator.__name__ == "NavierStokes2D"
    truth = runs.parameters["viscosity"].double()
    given = {n: torch.full_like(truth, v) for n, v in recipe.constants.items()}
    found = frame_terms(recipe.equation, runs.replace(parameters=given), "viscosity").solve()[:, 0]
    torch.testing.assert_close(found, truth, rtol=1e-2, atol=0)
    if name == "flow":
        torch.testing.assert_close(energy_balance(runs)[:, 0], truth, rtol=1e-2, atol=0)


def test_the_rule_between_frames_is_of_second_order():
    x = 2 * torch.pi * torch.arange(128, dtype=torch.float64) / 128
    initial = (torch.sin(x) + 0.5 * torch.cos(2 * x))[None, None]
    solver = KdV(dispersion=9.0, domain_length=40.0, points=128, time_step=0.01, dtype=torch.float64)
    errors = []
    for step in (0.2, 0.1, 0.05):
        pair = bare(solver.solve(initial, torch.tensor([2.0, 2.0 + step])).trajectories)
        errors.append(float(frame_terms("kdv_coefficients", pair, "dispersion").solve() / 9 - 1))
    assert 3.5 < errors[0] / errors[1] < 4.5 and 3.5 < errors[1] / errors[2] < 4.5


def test_the_quadratic_is_the_residual_it_stands_for():
    gram = torch.tensor([[[2.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
    true = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    right = (gram @ true[..., None])[..., 0]
    terms = FrameTerms(gram, right, (true * right).sum(dim=1))
    torch.testing.assert_close(terms.solve(), true)
    assert float(terms.share(true)) == pytest.approx(0, abs=1e-12)
    assert float(terms.share(torch.zeros_like(true))) == 1.0


def test_shooting_between_frames_is_exact_on_clean_runs_and_near_on_noisy_ones(kdv):
    pair, truth = bare(kdv).window(slice(0, 2)), kdv.parameters["dispersion"].double()
    tries = torch.logspace(-1, 2, 5, dtype=torch.float64)[:, None]
    guess = torch.full((len(pair), 1), float("nan"), dtype=torch.float64)
    guess[0] = 1.0  # of the others the median counts
    found = shoot_frames(KdV, pair, "dispersion", guess, candidates=tries)
    torch.testing.assert_close(found.value[:, 0], truth, rtol=5e-4, atol=0)
    assert found.misfit.max() < 1e-2
    rough = noisy(pair, 0.01)
    near = shoot_frames(KdV, rough, "dispersion", guess, candidates=tries).value[:, 0]
    unfiltered = shoot_frames(KdV, rough, "dispersion", guess, candidates=tries, smooth=False).value[:, 0]
    error, other = ((v / truth - 1).abs().median() for v in (near, unfiltered))
    assert error < 0.02 and error < other
    with pytest.raises(ShapeError, match="2 frames or more"):
        shoot_frames(KdV, bare(kdv).window(slice(0, 1)), "dispersion", guess)


def test_the_filter_leaves_clean_fields_and_takes_noise_out(kdv):
    clean = kdv.fields.double()
    kept, factor = smoothed(clean)
    assert float((kept - clean).abs().max()) < 1e-3 * float(clean.std()) and bool((factor <= 1).all())
    fifth = torch.sin(10 * torch.pi * torch.arange(64, dtype=torch.float64) / 64).expand(1, 1, 2, 64)
    both = fifth + 0.1 * fifth**2  # every fifth wave number only
    torch.testing.assert_close(smoothed(both)[0], both, rtol=0, atol=1e-9)
    rough = noisy(kdv, 0.05).fields
    assert float((smoothed(rough)[0] - clean).norm()) < 0.7 * float((rough - clean).norm())


def test_the_best_constant_is_the_best(kdv):
    truth = kdv.parameters["dispersion"].double()[:, None]
    cost = ((best_constant(truth) - truth) / truth).abs().mean()
    assert all(cost <= ((c - truth) / truth).abs().mean() + 1e-12 for c in truth[:, 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inverse") / "data" / "kdv"


@pytest.fixture(scope="module")
def held(folder):
    content = catalog.read("configs", NAME)["sets"]["kdv"] | TINY["sets"]["kdv"]
    return Held.make(fill(InverseSet, content, "kdv"), folder)


def test_windows_depend_on_the_run_alone(held):
    runs = held.training
    every, some = windows(runs, 2, 0.1, 3, "a"), windows(runs[[4, 1]], 2, 0.1, 3, "a")
    assert torch.equal(every.fields[[4, 1]], some.fields) and torch.equal(every.time[[4, 1]], some.time)
    clean = windows(runs, 2, 0.0, 3, "a")
    share = (every.fields - clean.fields).flatten(1).std(dim=1) / runs.fields.double().flatten(1).std(dim=1)
    assert ((share - 0.1).abs() < 0.02).all()


def test_tailoring_at_the_truth_stays_and_elsewhere_moves_towards_it(held):
    settings = Network(width=4, stages=1, steps=2, learning_rates=(1e-3,), batch_size=4)
    looked_at = windows(held.validation, 2, 0.0, 0, "validation")
    trained = train(settings, held, held.training, 2, 0.0, 0, looked_at)
    said = trained.read(looked_at)[0]

    def pointing_at(values):
        hidden = held.of.hidden(values)
        return FrameTerms(torch.ones(len(values), 1, 1, dtype=torch.float64), hidden, hidden.square().sum(dim=1))

    def tailored(values):
        return tailor(trained, Tailoring(50, 3e-3, 0.0), held, looked_at, pointing_at(values))

    torch.testing.assert_close(tailored(said), said, rtol=5e-2, atol=0)
    aim = 1.3 * said
    assert (tailored(aim) / aim - 1).abs().mean() < 0.5 * (said / aim - 1).abs().mean()
    torch.testing.assert_close(trained.read(looked_at)[0], said)  # the network itself has not moved


def test_derivatives_as_channels_are_those_of_a_sine(held):
    runs = held.training[:2]
    x = runs.space[0].double()
    wave = 2 * torch.pi * 3 / 128.0
    field = torch.sin(wave * x)[:, None, None] * torch.tensor([1.0, 1.5], dtype=torch.float64)[:, None]
    pair = runs.window(slice(0, 2)).replace(fields=field)
    found = channels(pair, True)
    assert found.shape[1] == 5 and torch.equal(channels(pair, False), field.float())
    expected = [field, wave * torch.cos(wave * x)[:, None, None] * field.amax(-1, True).round(decimals=1)]
    torch.testing.assert_close(found[:, 1].double(), expected[1][:, 0], rtol=0, atol=2e-3 * wave)
    torch.testing.assert_close(found[:, 2].double(), -(wave**2) * field[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, 4, 0].double(), (field[:, 0, 1] - field[:, 0, 0]) / 0.73, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("held")
def test_the_shipped_study_at_tiny_size_is_resumed_and_its_rows_can_be_computed_again(folder, tmp_path, capsys):
    quick = ["best constant", "least squares between frames, smoothed", "network with derivatives, tailored"]
    every = [*quick, "weak form", "least squares between frames, robust"]
    small = {"width": 4, "stages": 1, "steps": 2, "learning_rates": [1e-3]}
    changes = TINY | {"routes": {quick[2]: {"network": small, "tailoring": {"steps": 2}}}}
    said, out = [], tmp_path / "out"
    for one in ("out", "whole"):
        shutil.copytree(folder, tmp_path / one / "data" / "kdv")
    study(NAME, out, changes, quick[:1], announce=said.append)
    first = (out / "rows/kdv-best_constant-frames2-noise0.01-labelsall-seed0.json").read_bytes()
    results = study(NAME, out, changes, every, announce=said.append)
    assert len(said) == 10, "what was there is not computed again"
    whole = study(NAME, tmp_path / "whole", changes, every, announce=said.append)

    def numbers(found):
        return [{n: v for n, v in row.items() if n != "seconds"} for row in found["results"]]

    assert numbers(results) == numbers(whole)
    rows = {r["route"]: r for r in results["results"] if "degraded" not in r}
    salted = {r["route"]: r["places"] for r in results["results"] if "degraded" in r and "places" in r}
    robust = "least squares between frames, robust"
    assert all(salted[robust][p]["error"] < 0.5 * salted[quick[1]][p]["error"] for p in PLACES)
    assert "**kdv, noise 1 %, salt and pepper**" in results["table"]
    assert "need 5 or more" in rows["weak form"]["refused"]
    near = rows[quick[1]]["places"]
    assert all(near[p]["error"] < 5 < near[p]["floor"] and near[p]["novel"] >= 0 for p in PLACES)
    assert (out / "rows/kdv-best_constant-frames2-noise0.01-labelsall-seed0.json").read_bytes() == first
    assert "| weak form | none | cannot |" in results["table"] == (out / "table.md").read_text()
    capsys.readouterr()
    path = out / "rows/kdv-least_squares_between_frames__smoothed-frames2-noise0.01-seed0.json"
    assert cli.main(["study", "rerun", str(path)]) == 0 and "the same numbers" in capsys.readouterr().out
    row = json.loads(path.read_text())
    row["places"]["in"]["error"] *= 2
    path.write_text(json.dumps(row))
    assert cli.main(["study", "rerun", str(path), "--out", str(out)]) == 1
    row["recipe"]["data"] = "another"
    path.write_text(json.dumps(row))
    assert cli.main(["study", "rerun", str(path)]) == 2 and "not the one this row" in capsys.readouterr().err
    path.write_text("{}")
    assert cli.main(["study", "rerun", str(path)]) == 2 and "no row of a study" in capsys.readouterr().err
    assert cli.main(["study", "rerun"]) == 2 and "pdessl study rerun ROW.json" in capsys.readouterr().err


def test_degradations_are_what_they_say():
    stream = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(shape, generator=stream, dtype=torch.float64)

    x = torch.arange(128, dtype=torch.float64) / 128
    slow, fast = (torch.cos(2 * torch.pi * k * x).expand(2, 1, 4, 128) for k in (3, 40))
    cut = degraded(slow + fast, Degradation(low_pass=20 / 64), draw)
    expected = slow * (1 + (3 / 20) ** 8) ** -0.5 + fast * (1 + 2**8) ** -0.5
    torch.testing.assert_close(cut, expected, rtol=0, atol=1e-10)
    salted = degraded(slow, Degradation(salt=0.1), draw)
    hit = salted != slow
    assert 0.05 < float(hit.double().mean()) < 0.15 and set(salted[hit].round(decimals=6).tolist()) == {-1.0, 1.0}
    errors = [float((degraded(f, Degradation(uneven=1.0), draw) - f).abs().max()) for f in (slow, 0 * slow + 2.0)]
    # Linear interpolation over at most two spacings: u'' h²/8.
    assert 1e-3 < errors[0] < (6 * torch.pi) ** 2 * (2 / 128) ** 2 / 8 and errors[1] < 1e-12
    plane = slow[..., None, :] * torch.sin(2 * torch.pi * x[::4])[:, None]
    moved = degraded(plane, Degradation(uneven=0.5), draw)
    assert moved.shape == plane.shape and 0 < float((moved - plane).abs().max()) < 0.05
    assert torch.equal(degraded(slow, Degradation(), draw), slow)


def test_outliers_go_and_clean_fields_stay(kdv):
    stream = torch.Generator().manual_seed(1)
    clean = kdv.fields.double()
    assert float((despiked(clean) - clean).square().mean().sqrt()) < 1e-2 * float(clean.std())
    salted = degraded(clean, Degradation(salt=0.02), lambda *s: torch.rand(s, generator=stream, dtype=torch.float64))
    before, after = ((f - clean).square().mean().sqrt() for f in (salted, despiked(salted)))
    assert after < 0.15 * before


@pytest.mark.usefixtures("held")
def test_a_cluster_gives_the_rows_of_one_machine(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    routes = ["best constant", "least squares between frames, smoothed"]
    for one in ("here", "there"):
        shutil.copytree(folder, tmp_path / one / "data" / "kdv")
    here = study(NAME, tmp_path / "here", TINY, routes, announce=lambda line: None)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, silence_logs=50
    ) as cluster:
        address = cluster.scheduler_address
        there = study(NAME, tmp_path / "there", TINY, routes, announce=lambda line: None, scheduler=address)
        with pytest.raises(SchemaError, match="share what is in memory; give --workers"):
            study("timestep_burgers", tmp_path / "steps", scheduler=address)
        with pytest.raises(StoreError, match="does not see .*--out FOLDER"):
            _work(str, 1, str(tmp_path / "nowhere" / "marker"), {})

    def numbers(found):
        return [{n: v for n, v in row.items() if n != "seconds"} for row in found["results"]]

    assert numbers(here) == numbers(there) and there["provenance"]["workers"] == "cluster"
    assert sorted(p.name for p in (tmp_path / "there/rows").iterdir()) == sorted(
        p.name for p in (tmp_path / "here/rows").iterdir()
    )
    assert not list((tmp_path / "there").glob(".*.tmp"))


def test_a_recipe_that_is_wrong_says_where(tmp_path):
    with pytest.raises(SchemaError, match="no degradation 'rain'. The study has: low-pass, salt and pepper"):
        study(NAME, tmp_path, {"routes": {"shooting": {"degradations": ["rain"]}}})
    alike = {"inverse": {"degradations": {"low pass": {"low_pass": 0.1}, "low_pass": {"low_pass": 0.2}}}}
    with pytest.raises(SchemaError, match="two jobs would write their rows into kdv-.*low_pass"):
        study(NAME, tmp_path, alike)
    with pytest.raises(SchemaError, match="no route 'shoting'.*Did you mean 'shooting'"):
        study(NAME, tmp_path, only=["shoting"])
    with pytest.raises(SchemaError, match="expected in, middle, extreme"):
        study(NAME, tmp_path, {"sets": {"kdv": {"ranges": {"in": [[2.0, 1.0]]}}}})


def test_a_table_has_the_mean_over_seeds_and_says_what_cannot_be():
    def row(seed, error):
        places = {p: {"error": error * (i + 1)} for i, p in enumerate(PLACES)}
        return {"set": "s", "route": "r", "labels": None, "noise": 0.01, "frames": 2, "seed": seed, "places": places}

    refused = {k: v for k, v in row(0, 1.0).items() if k != "places"} | {"route": "q", "refused": "why"}
    text = inverse_table([row(0, 1.0), row(1, 2.0), refused])
    assert "| r | none | 1.5 / 3 / 4.5 |" in text and "| q | none | cannot |" in text and "s, noise 1 %" in text
