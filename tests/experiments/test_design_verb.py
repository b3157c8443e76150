"""``pdessl design``: the desk of a laboratory, the loop in the solver, the comparison, and the shipped studies."""

import csv
import json
import shutil

import pytest
import torch

import pdessl
from pdessl import catalog, cli
from pdessl.control.choosing import Record
from pdessl.control.rivals import load_problem
from pdessl.errors import CatalogError, DataError, FormatError, StoreError
from pdessl.experiments.design import drawn_noise
from pdessl.experiments.design_comparison import DesignComparison, compare_designs
from pdessl.experiments.laboratory import write_experiment
from pdessl.schema import dump_yaml, override, read_yaml

TINY = {
    "hypotheses": {
        "burgers": {"equation": "burgers", "parameters": {"viscosity": {"low": 0.2, "high": 0.8, "count": 3}}}
    },
    "domain": {"length": 6.283185307179586},
    "points": 32,
    "initial": {"wave_numbers": [1, 2], "amplitude": [0.1, 0.4]},
    "sensors": {"count": 1},
    "times": {"count": 2, "step": 0.1, "end": 0.4},
    "noise": 0.01,
}
PAIR = override(TINY, ["hypotheses.burgers.parameters.viscosity.count=2"])
STUDIES = [n for n in catalog.names("configs") if n.startswith("design/")]


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def filled(path, values):
    """Fill in a table of results, as a laboratory does."""
    rows = rows_of(path)
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows({**row, "value": value} for row, value in zip(rows, values, strict=True))


def test_a_laboratory_finds_the_truth_through_files(tmp_path):
    problem, truth = load_problem(TINY), 1
    for number in range(1, 7):
        found = pdessl.design(TINY, out=tmp_path, seed=2)
        if found.following is None:
            break
        folder = tmp_path / f"experiment_{number:03d}"
        waiting = pdessl.design(TINY, out=tmp_path, seed=2)  # nothing was read yet: the same one is waited for
        assert waiting.following == read_yaml(folder / "design.yaml") == found.following
        assert len(waiting.made) == number - 1 and not (tmp_path / f"experiment_{number + 1:03d}").exists()
        chosen = problem.space.read(found.following, "design.yaml")
        field = [float(row["u"]) for row in rows_of(folder / "initial.csv")]
        assert field == pytest.approx(problem.space.fields(chosen)[0].tolist(), abs=1e-7)
        filled(folder / "result.csv", problem.foreseen(chosen)[0, truth].tolist())
    assert list(found.answers)[0] == problem.answer_labels[truth] and max(found.answers.values()) >= 0.95
    report = json.loads((tmp_path / "report.json").read_text())["design"]
    assert len(report["experiments"]) == number - 1 and report["entropy"][0] > report["entropy"][-1]
    assert report["weights"][-1] == pytest.approx([found.answers[a] for a in problem.answer_labels])


def test_a_design_that_was_changed_counts_as_it_was_made_and_a_forbidden_one_is_refused(tmp_path):
    study = {**TINY, "limits": {"peak": 0.7}}
    first = pdessl.design(study, by="sobol", out=tmp_path)
    place = tmp_path / "experiment_001" / "design.yaml"
    other = {**first.following, "times": [0.1, 0.4]}
    place.write_text(dump_yaml(other))
    problem = load_problem(study)
    (tmp_path / "experiment_001" / "result.csv").write_text(
        f"time,sensor,value\n0.4,{other['sensors'][0]},\n0.1,{other['sensors'][0]},0.05\n"
    )  # another order, and a sensor that failed
    found = pdessl.design(study, by="sobol", out=tmp_path)
    chosen = problem.space.read(other, "it")
    expected = torch.softmax(-0.5 * ((problem.foreseen(chosen)[0, :, 0] - 0.05) / 0.01) ** 2, dim=0)
    assert torch.allclose(found.weights[-1], expected, atol=1e-6)
    terms = [{**t, "amplitude": 0.4, "phase": 1.5708} for t in other["initial"]["terms"]]
    place.write_text(dump_yaml({**other, "initial": {"mean": 0.0, "terms": terms}}))
    with pytest.raises(DataError, match=r"design.yaml: not admissible: 'limits.peak.* is 0.8, at most 0.7"):
        pdessl.design(study, by="sobol", out=tmp_path)


def test_no_result_is_written_over_when_an_experiment_was_taken_away_and_copies_are_none(tmp_path, capsys):
    study = tmp_path / "mine.yaml"
    study.write_text(dump_yaml({**TINY, "noise": 10.0}))  # never sure
    words = ["design", str(study), "--by", "sobol", "--out", str(tmp_path / "desk")]
    desk = tmp_path / "desk"
    for number in range(1, 4):
        assert cli.main(words) == 0
        place = desk / f"experiment_{number:03d}" / "result.csv"
        assert f"fill in {place}," in capsys.readouterr().out
        filled(place, [0.1 * number] * 2)
    shutil.rmtree(desk / "experiment_002")
    shutil.copytree(desk / "experiment_003", desk / "experiment_003 (copy)")
    shutil.copytree(desk / "experiment_001", desk / "experiment_999_old")
    (desk / "experiment_003").rename(desk / "experiment_1000")
    before = {path: path.read_bytes() for path in desk.glob("experiment*/*")}
    found = pdessl.design(study, by="sobol", out=desk)
    assert [float(read[0]) for read in found.observed] == pytest.approx([0.1, 0.3])
    assert found.folder == desk / "experiment_1001" and (found.folder / "result.csv").is_file()
    assert found.following not in found.made and all(path.read_bytes() == held for path, held in before.items())
    assert cli.main(words) == 0 and f"fill in {found.folder / 'result.csv'}," in capsys.readouterr().out
    with pytest.raises(StoreError, match="experiment_001 is there already, and may hold a result"):
        problem = load_problem(TINY)
        write_experiment(desk / "experiment_001", problem, problem.space.read(found.following, "it"))


@pytest.mark.parametrize(
    "text", ["time,sensor\n0.1,0\n", "time,sensor,value\n0.1,0,much\n", "time,sensor,value\n9,9,1\n"]
)
def test_another_table_than_was_written_is_refused(text, tmp_path):
    pdessl.design(TINY, by="sobol", out=tmp_path)
    (tmp_path / "experiment_001" / "result.csv").write_text(text)
    with pytest.raises(
        FormatError, match=r"result.csv: expected columns time, sensor, value and a row for each of time"
    ):
        pdessl.design(TINY, by="sobol", out=tmp_path)


def test_the_loop_in_the_solver_takes_a_truth_that_is_no_hypothesis_and_repeats_itself(tmp_path):
    told = []
    found = [
        pdessl.design(TINY, {"viscosity": 0.42}, experiments=4, seed=1, out=tmp_path, announce=told.append)
        for _ in range(2)
    ]
    assert torch.equal(found[0].weights, found[1].weights) and list(found[0].answers)[0] == "burgers: viscosity 0.4"
    assert len(told) == 2 * len(found[0].made) and told[0].startswith("burgers: viscosity")
    with pytest.raises(
        DataError, match="truth of burgers: dispersion, viscosity; expected a number for each of viscosity"
    ):
        pdessl.design(TINY, {"dispersion": 1.0})
    with pytest.raises(DataError, match="equation 'heat'; expected one of burgers"):
        pdessl.design(TINY, {"equation": "heat", "viscosity": 0.4})
    with pytest.raises(CatalogError, match="no way of choosing 'chance'.* information, separation"):
        pdessl.design(TINY, by="chance")
    with pytest.raises(DataError, match="until 2"):
        pdessl.design(TINY, until=2.0)


def test_ways_are_compared_under_the_same_noise(tmp_path):
    found = compare_designs(
        TINY, ("random", "sobol"), seeds=2, experiments=3, ceiling=False, out=tmp_path, announce=lambda _: None
    )
    again = compare_designs(TINY, ("sobol",), seeds=1, experiments=3, ceiling=False, announce=lambda _: None)
    assert torch.equal(found.records["sobol"][0].observed[-1], again.records["sobol"][0].observed[-1])
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    for row, way in zip(rows, ("random", "sobol"), strict=True):
        curves = [r.certainty(found.problem.answers, t) for r, t in zip(found.records[way], found.truths, strict=True)]
        held = [c.tolist() + [float(c[-1])] * (4 - len(c)) for c in curves]  # a run ends when an answer is certain
        assert row["weight_of_truth"] == pytest.approx([sum(ws) / 2 for ws in zip(*held, strict=True)])
        above = [[k for k, w in enumerate(c.tolist()) if w >= 0.95] for c in curves]
        assert row["needed"] == [a[0] if a else None for a in above]
        assert row["reached"] == f"{sum(map(bool, above))} of 2"


@pytest.mark.parametrize("needed, median", [((1, 3), "2"), ((1, None), "> 3"), ((None, 2, 1), "2"), ((2, 1), "1.5")])
def test_the_median_of_an_even_number_of_seeds_is_between_the_middle_ones(needed, median):
    def record(first):
        curve = [
            torch.tensor([w, 1 - w]) for w in (0.99 if first is not None and k >= first else 0.5 for k in range(4))
        ]
        return Record(weights=curve)

    found = DesignComparison(load_problem(PAIR), {"random": [record(n) for n in needed]}, [0] * len(needed), 0.95, 3)
    (row,) = found.rows()
    assert row["needed"] == list(needed) and row["median_needed"] == median


def test_the_noise_is_none_of_the_draws_that_the_search_knows():
    for seed in range(4):
        noise = drawn_noise(seed, 24, 2).flatten()
        for stream in range(seed, seed + 8):  # of the search: seed + 2 number, and one more
            draws = torch.randn(64, 2, generator=torch.Generator().manual_seed(stream), dtype=torch.float64)
            assert float(torch.cdist(noise[:, None], draws.flatten()[:, None]).min()) > 1e-9
        assert torch.equal(drawn_noise(seed, 3, 2), drawn_noise(seed, 24, 2)[:3])  # of experiment k, whatever follows
    many = drawn_noise(0, 2000, 2)
    assert float(many.mean().abs()) < 0.05 and float(many.std()) == pytest.approx(1, abs=0.05)
    with pytest.raises(DataError, match="seed -1: expected .* 0 or more"):
        pdessl.design(TINY, seed=-1)


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_runs_through_the_command_line(name, tmp_path, capsys):
    small = ["--set", "times.end=0.2", "times.step=0.1", "noise=0.2", "points=32", "initial.amplitude=[0,0.1]"]
    assert cli.main(["design", name, "--by", "sobol", "--out", str(tmp_path / "desk"), *small]) == 0
    printed = capsys.readouterr().out
    assert "next experiment" in printed and "fill in" in printed
    words = ["design", name, "--compare", "random", "equal", "--seeds", "1", "--experiments", "2", *small]
    assert cli.main([*words, "--out", str(tmp_path / "rows")]) == 0
    assert "exact-model optimum" in capsys.readouterr().out
    assert cli.main(["design", name, "--print_config", "--set", "noise=0.25"]) == 0
    assert "noise: 0.25" in capsys.readouterr().out


def test_the_command_line_makes_the_experiments_and_refuses_what_cannot_be(tmp_path, capsys):
    study = tmp_path / "mine.yaml"
    study.write_text(dump_yaml(TINY))
    assert cli.main(["design", str(study), "--truth", "viscosity=0.4", "--experiments", "3"]) == 0
    assert "burgers: viscosity 0.4" in capsys.readouterr().out
    assert cli.main(["design", str(study), "--set", "limits.peak=0.01"]) == 2
    assert "'limits.peak, of |u| at the start' <= 0.01 refuses 256" in capsys.readouterr().err
    assert cli.main(["design", str(study), "--set", "sensors.distance=9", "sensors.count=2"]) == 2
    assert "mine.yaml: sensors: 2 of them" in capsys.readouterr().err
    assert cli.main(["design", str(study), "--truth", "viscosity=0.4", "--compare"]) == 2
    assert "give one of them" in capsys.readouterr().err
