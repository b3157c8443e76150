"""The study of sizes: nested runs, rows one by one, interrupted as uninterrupted, at tiny size by the command line."""

import json

import pytest

from pdessl import cli
from pdessl.data import PDEDataModule, generate
from pdessl.errors import DataError, SchemaError
from pdessl.evaluation.sizes import sizes_figure, sizes_table
from pdessl.experiments.recipes import read_recipe
from pdessl.experiments.size_jobs import LAW, SizeJob, Sizes
from pdessl.experiments.study import study
from pdessl.schema import dump_yaml

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
GROUPED, UNGROUPED = "pretrained, grouped", "pretrained, two views of a run"
SUPERVISION = {
    "learning_rates": [1e-3],
    "steps": 2,
    "check_every": 1,
    "validation_runs": 4,
    "views": {"window": [24, 32]},
}
TINY = {
    "sizes": {
        "size": {"labelled": 16, "validation": 8, "test": 8},
        "changes": {"observation": {"points": 32, "frames": 24, "end": 2.0}},
        "runs": [32],
        "labels": [4, 8],
        "seeds": 1,
        "steps": 2,
        "views": {"count": 1},
        "floors": ["mean"],
        "supervised": SUPERVISION,
    },
    "base": {
        "model": {
            "encoder": {"init_args": {"width": 4, "blocks": [1]}},
            "projector": {"init_args": {"in_features": 8, "hidden": [8], "out_features": 8}},
            "augmentation": {"init_args": {"window": [16, 32]}},
        },
        "trainer": {"accelerator": "cpu"},
    },
    "variants": {
        GROUPED: {
            "model": {
                "encoder": {"init_args": {"width": 4, "blocks": [1]}},
                "augmentation": {"init_args": {"window": [24, 32]}},
            },
        },
    },
}  # fmt: skip


def errors(rows):
    return [(r["route"], r["runs"], r["labels"], r["seed"], r["error"]) for r in rows]


@pytest.mark.slow
def test_the_shipped_study_at_tiny_size_and_a_lost_row_is_the_same_again(tmp_path, capsys):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(dump_yaml(read_recipe("sizes", None, TINY)))
    assert cli.main(["study", str(path), "--out", str(out)]) == 0, capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    rows = results["rows"]
    assert not [r["refused"] for r in rows if "refused" in r]
    held = {(r["route"], r["runs"], r["labels"], r["seed"]) for r in rows}
    seeing, blind = {"law", GROUPED, UNGROUPED}, {"predict the mean", "supervised from scratch"}
    expected = {(route, 32 if route in seeing else None, n, 0) for route in seeing | blind for n in (4, 8)}
    assert held == expected and len(held) == len(rows)
    # The viscosity is in the law of these runs: a few labels calibrate it, which the mean cannot do.
    law = [r["error"] for r in rows if r["route"] == "law" and r["labels"] == 8]
    mean = [r["error"] for r in rows if r["route"] == "predict the mean" and r["labels"] == 8]
    assert max(law) < min(mean)
    assert (out / "sizes.svg").read_text().count("<svg") == 1
    assert results["table"] in capsys.readouterr().out and results["table"] == sizes_table(rows)
    # Stopped before its end: what was lost is computed again, to the same numbers, and nothing else.
    lost = next((out / "rows").glob("pretrained__grouped-runs32-seed0*"))
    before = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    lost.write_text("{")
    said = []
    again = study(path, out, announce=said.append)
    assert len(said) == 1
    assert [e[:4] for e in errors(again["rows"])] == [e[:4] for e in errors(rows)]
    assert [e[4] for e in errors(again["rows"])] == pytest.approx([e[4] for e in errors(rows)], rel=1e-6)
    assert {p for p, time in before.items() if p.stat().st_mtime_ns != time} == {lost}


def test_another_number_of_runs_or_seed_leaves_what_there_is():
    def job(route, seed, **changes):
        sizes = Sizes("viscosity", **{"runs": (8, 16), "seeds": 2, **changes})
        return SizeJob(route, 8, seed, sizes, {"data": {"path": "/a"}}, "hash", "out").hash

    assert job("net", 0) == job("net", 0, runs=(8, 16, 32), seeds=3, floors=("mean",))
    assert job("net", 0) != job("net", 0, steps=9) and job("net", 0) != job("net", 1)
    assert job(LAW, None) == job(LAW, None, runs=(8,), steps=9) != job(LAW, None, seeds=3)
    assert job(LAW, None) != job(LAW, None, labels=(4,))


def test_only_the_first_runs_are_seen_and_no_more_than_there_are(tmp_path):
    generate("burgers_small", tmp_path, size={"unlabelled": 12, "labelled": 4, "validation": 2, "test": 2})
    few, every = (PDEDataModule(tmp_path, batch_size=4, runs=n) for n in (8, None))
    assert few.unlabelled.fields.equal(every.unlabelled.fields[:8])
    assert sum(len(batch) for batch in few.train_dataloader()) == 8 and len(few.test) == 2
    assert few.statistics["u"].std != every.statistics["u"].std
    with pytest.raises(DataError, match="runs 13 exceeds the 12"):
        PDEDataModule(tmp_path, runs=13).setup()
    with pytest.raises(DataError, match="runs must be at least 1, found 0; leave it out"):
        PDEDataModule(tmp_path, runs=0)
    recipe = {"sizes": {"target": "viscosity", "runs": [16], "labels": [2]}, "base": {"data": {"path": str(tmp_path)}}}
    path = tmp_path / "more.yaml"
    path.write_text(dump_yaml(recipe))
    with pytest.raises(SchemaError, match="asks for 16, the store has 12"):
        study(path, tmp_path / "out")
    with pytest.raises(SchemaError, match="no route 'nobody'. Routes: law"):
        study(path, tmp_path / "out", only=["nobody"])
    with pytest.raises(SchemaError, match="base.data.stride does not"):
        study(path, tmp_path / "out", ["base.data.stride=2"])


def test_sizes_are_refused_that_make_no_curve():
    with pytest.raises(SchemaError, match=r"runs is \[8, 4\]; expected"):
        Sizes("viscosity", runs=(8, 4))
    with pytest.raises(SchemaError, match=r"size.unlabelled is the largest"):
        Sizes("viscosity", size={"unlabelled": 8})
    with pytest.raises(SchemaError, match=r"give sizes.dataset"):
        Sizes("viscosity").recipe()


def test_the_table_has_a_line_per_size_and_says_what_was_refused():
    rows = [
        {"route": "law", "runs": n, "labels": 4, "seed": k, "error": 10.0 / n + k, "seconds": 1.0}
        for n in (1, 2)
        for k in (0, 2)
    ]
    rows.append({"route": "other", "runs": 1, "labels": None, "seed": 0, "refused": "too few", "seconds": 0.0})
    text = sizes_table(rows)
    assert "| law | 1 | 11.00 ± 1.00 | 1 |" in text and "| law | 2 | 6.00 ± 1.00 | 1 |" in text
    assert "| other | 1 | - | 0 |" in text and "* other, 1 runs: too few" in text
    figure = sizes_figure(rows)
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 2
    assert sizes_figure(rows[-1:]) is None
