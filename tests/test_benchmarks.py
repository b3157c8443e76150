"""Every script of benchmarks/ runs to its end at tiny size, and prints what it is read for. No time is asserted."""

import importlib.util
import json
import logging
import os
import re
import runpy
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import pdessl
from pdessl.data import generate
from pdessl.experiments.stepping import Stepping

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

# script -> words of a command line for each run, and what the output has to hold
RUNS = {
    "augmentation": [
        ("--threads 1 --points 16 --batch 2 --sizes 2 --lines 2 --repeats 1", r"grid, every symmetry, 8 x 8 +\d"),
    ],
    "closed_box": [
        ("--points 20 --frames 4 --batch 2 --repeats 1", r"maccormack +float32 +\d+\.\d+ +\d\.\de-\d+"),
        ("--points 20 --frames 4 --batch 2 --trajectories 3", r"4 smoke trajectories, 20 x 20 x 4, maccormack"),
    ],
    "control": [
        ("--batches 1,2 --periods 6 --repeats 1", r"batch +2 +[\d,]+ periods/s +[\d,]+ steps/s"),
        ("--planning --episodes 1 --horizon 1 --repeats 1", r"cem +[\d.]+ ms +30\d\d candidates[^$]*newton +\d"),
    ],
    "discovery": [
        ("heat kdv --repeats 1 --no-baseline", r"kdv +\d+\.\d+ +\d+\.\d+ +\d+\+\d+"),
        ("heat --repeats 1", r"heat .* \d+x?\n"),
    ],
    "features": [("--runs 6 --views 2 --repeats 1", r"common draws, many runs \(ours\) +\d+\.\d+ s +\d+\.\d x")],
    "energy": [
        (
            "--only burgers --unlabelled 16 --labelled 3 --test 2 --conditions 2",
            r"'data': 'burgers'[^$]*'code_by_least_forecast_error': \d[^$]*'curvature_90_holds': \d",
        )
    ],
    "futures": [
        (
            "--only burgers --unlabelled 16 --runs 2 --head-steps 2 --members 1 --set trainer.max_epochs=1",
            r"Gaussian head[^$]*the solver, other draws of the force +1 steps: energy[^$]*burgers_unforced +deter",
        )
    ],
    "label_moving": [
        ("--labels 8 --seeds 1 --test 8 --views 1", r"noise 0.02  moved, noise made equal +8 labels +\d+\.\d+ %"),
    ],
    "law_rollouts": [("--only burgers --runs 2 --unlabelled 16", r"burgers +persistence \d[^$]*clean_start \d")],
    "loading": [
        ("--trajectories 8 --points 16 --stored 64 --repeats 1", r"pdessl, from disk +\d+ items/s[^$]*h5py +\d+"),
    ],
    "operators": [
        ("cost --runs 16,32", r"32 runs +\d+\.\d+ s, per run \d"),
        ("memory --runs 16", r"16 runs +\d+ MB +\d+\.\d+ s"),
    ],
    "physics_views": [
        ("--only burgers --labels 8 --draws 1 --views 2 --validation 8", r"burgers +every view +8 labels +\d+\.\d+ %"),
    ],
    "pretraining": [
        ("--threads 1 --batch 32 --steps 1 --repeats 1 --objectives W-MSE BYOL", r"W-MSE +\d+ +\d[^$]*BYOL +\d+ +\d"),
    ],
    "shooting": [("--only heat --runs 1", r"heat +\d+\.\d+ +\d+\.\d+ +\d")],
    "simulators": [
        ("--threads 1 --repeats 1 --size tiny", r"times ours[^$]*Burgers, 1024 points, 2 frames[^$]*KdV, two solitons"),
        ("ks --threads 1 --trajectories 2", r"2 KS trajectories, t <= 100, 256x128 kept, float32"),
    ],
    "stepping_protocol": [
        ("--only burgers --runs 2 --unlabelled 6 --steps 2 --tiny", r"Burgers, never seen +ours, one law for all +\d"),
    ],
    "timestep": [("--repeats 1 --tiny", r"2 x 3 x 16 x 16 +FNO +\d+\.\d+ s forward")],
    "simulators_2d": [("--grids 64 --steps 2 --batch 2 --repeats 1", r"navier_stokes_2d +64 +-?\d[^$]*gray_scott +64")],
}
# Have tests of their own: below, in test_results.py, test_attacks.py, experiments/test_own_files.py,
# inference/test_posterior.py and control/test_hierarchy.py.
ELSEWHERE = {
    "break_even", "closed_box_phiflow", "fuzz", "fuzz_layouts", "grouped", "kills", "own_files", "posterior", "tables",
    "two_levels", "far_ahead",
}  # fmt: skip


@pytest.fixture
def undisturbed():
    """Put back what a script may change in its process: processors, levels of loggers, filters of warnings."""
    names = ("lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    if processors is not None:
        os.sched_setaffinity(0, processors)


def test_no_script_is_left_out():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(RUNS) | ELSEWHERE


@pytest.mark.parametrize(
    "script, words, expected",
    [pytest.param(s, words, said, id=f"{s} {words.split()[0]}") for s, runs in RUNS.items() for words, said in runs],
)
def test_the_script_runs(script, words, expected, tmp_path, monkeypatch, capsys, undisturbed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words.split()])
    runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(expected, printed), printed


def test_the_comparison_with_phiflow_writes_its_table_and_picture(tmp_path, monkeypatch, capsys, undisturbed):
    # ΦFlow is seldom installed (tests/solvers/test_closed_box_phiflow.py compares with it where it is): here its part
    # is taken by our own solver, moved by a known amount, so that everything around it is run.
    spec = importlib.util.spec_from_file_location("closed_box_phiflow", FOLDER / "closed_box_phiflow.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def moved(smoke, steps):
        frames, seconds = script.our_frames(script.initial_smoke(len(smoke)), steps)
        return frames / 1.01, seconds

    monkeypatch.setattr(script, "phiflow_frames", moved)
    monkeypatch.setitem(sys.modules, "phi", types.SimpleNamespace(__version__="0"))
    monkeypatch.setattr(sys, "argv", ["closed_box_phiflow.py", "--points", "20", "--out", str(tmp_path)])
    script.main()
    table = (tmp_path / "results" / "closed_box_validation.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    numbers = [float(n) for row in re.findall(r"^\| \d+ \|.*", table, re.MULTILINE) for n in row.split("|")[3:6]]
    assert len(numbers) == 9 * 3 and np.allclose(numbers, 0.01, rtol=0.06)
    assert (tmp_path / "docs" / "simulators" / "closed_box_phiflow.png").stat().st_size > 1000


def test_what_a_surrogate_costs_is_set_against_the_solver(tmp_path, monkeypatch, capsys, undisturbed):
    size = {"unlabelled": 16, "labelled": 16, "validation": 1, "test": 4}
    generate("burgers_small", tmp_path / "data", size=size, progress=False)
    settings = Stepping(conditions=("none", "law"), context=9, steps=2, seeds=1, width=4, blocks=1)
    pdessl.timestep(None, tmp_path / "data", settings=settings, out=tmp_path / "run", announce=lambda line: None)
    words = [
        "--dataset",
        "burgers_small",
        "--runs",
        "3",
        "--labelled",
        "8",
        "--unlabelled",
        "16",
        "--substeps",
        "2",
        "--repeats",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["break_even.py", str(tmp_path / "run"), *words, "--out", str(tmp_path / "rows")])
    runpy.run_path(str(FOLDER / "break_even.py"), run_name="__main__")
    assert re.search(r"law +error \d[^\n]*ms a run, once[^$]*none +error \d", capsys.readouterr().out)
    rows = {r["model"]: r for r in json.loads((tmp_path / "rows").read_text())["rows"]}
    # A network that hardly trained errs more than the coarsest solver; what it cost once is counted.
    assert rows["none"]["once"] > 0 and rows["none"]["its_error"] <= rows["none"]["error"]
    assert {r.get("pays_after", "never").split()[-1] for r in rows.values()} <= {"never", "solves"}


def test_closed_forms_on_groups_write_their_rows_and_the_table_is_made_of_them(tmp_path, monkeypatch, undisturbed):
    size = {"unlabelled": 256, "labelled": 16, "validation": 8, "test": 8}
    generate("burgers_grouped", tmp_path / "data", size=size, progress=False)
    monkeypatch.chdir(tmp_path)
    run = ["grouped.py", "burgers", str(tmp_path / "data"), "--labels", "8", "--seeds", "2", "--out", "rows"]
    monkeypatch.setattr(sys, "argv", run)
    runpy.run_path(str(FOLDER / "grouped.py"), run_name="__main__")
    assert len(list((tmp_path / "rows").glob("burgers-*.json"))) >= 8
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    monkeypatch.setitem(tables["_table"].__globals__, "RESULTS", tmp_path)
    table = tables["written"]("<!-- table: grouped *.json where=case:burgers -->\n<!-- end of table -->")
    assert "| discriminant of moments | *grouped* |" in table and "| mean | – |" in table


@pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
def test_what_is_trained_by_gradient_leaves_a_row_with_both_ways_to_read_codes(
    tmp_path, monkeypatch, capsys, undisturbed
):
    words = ["amortised", "--only", "burgers", "--unlabelled", "64", "--epochs", "1", "--labels", "4", "--draws", "2"]
    monkeypatch.setattr(sys, "argv", ["operators.py", *words, "--out", str(tmp_path)])
    runpy.run_path(str(FOLDER / "operators.py"), run_name="__main__")
    row = json.loads((tmp_path / "gradient-burgers_amortised-seed0.json").read_text())
    assert row["steps"] == 1 and row["epochs"] == 1 and row["unlabelled"] == 64
    assert set(row["targets"]) == {"viscosity, minimised", "viscosity, amortised"}
    assert all(len(held["error"]["4"]) == 2 for held in row["targets"].values())
