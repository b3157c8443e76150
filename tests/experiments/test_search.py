"""A search: draws that depend on what was seen alone, a search that was stopped, and a verdict on runs it never saw."""

import json
import shutil

import pytest
import torch

from pdessl import cli
from pdessl.errors import PdesslError, SchemaError, StoreError
from pdessl.experiments import search as searching
from pdessl.experiments.search import Dimension, Search, label_free
from pdessl.experiments.search_table import search_table
from pdessl.experiments.study import study

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
RATE = {"learning_rate": Dimension(1e-4, 1.0, log=True), "name": Dimension(choices=("a", [1, 2]))}


def finished(values):
    """A trial whose error is least at a rate of .01 and the second choice."""
    from math import log10

    error = 1 + (log10(values["learning_rate"]) + 2) ** 2 + (values["name"] == "a")
    return {"values": values, "result": {"error": error, "scores": {"rank": -error, "shared": error}}}


def searched(settings, workers=1):
    start, done = {"learning_rate": 0.5, "name": "a"}, {}
    while len(done) < settings.trials:
        for number, values in searching._drawn(settings, done, start, workers).items():
            done[number] = finished(values)
    return done


def test_the_first_trial_is_the_recipe_and_later_ones_go_where_it_was_better():
    done = searched(Search(RATE, trials=30, startup=8))
    assert done[0]["values"] == {"learning_rate": 0.5, "name": "a"}
    late = [done[n] for n in range(20, 30)]
    assert sum(t["values"]["name"] == [1, 2] for t in late) >= 7
    early, last = (sum(t["result"]["error"] for t in ts) / len(ts) for ts in ([done[n] for n in range(1, 8)], late))
    assert last < 0.75 * early
    best = searching._best(list(done.values()), "validation")
    assert 0.003 < best["values"]["learning_rate"] < 0.03
    assert best is searching._best(list(done.values()), "rank")  # more of it is better
    assert searching._best(list(done.values()), "shared")["result"]["error"] == max(
        t["result"]["error"] for t in done.values()
    )
    found = searching._spearman(list(done.values()))
    assert found["rank"] == pytest.approx(-1) and found["shared"] == pytest.approx(1) and "loss" not in found


def test_draws_are_a_function_of_what_was_seen():
    settings = Search(RATE, trials=12, startup=4)
    once, again = searched(settings), searched(settings)
    assert once == again
    half = {n: once[n] for n in range(6)}
    assert searching._drawn(settings, half, {"learning_rate": 0.5, "name": "a"}, 1) == {6: once[6]["values"]}
    assert searched(Search(RATE, trials=12, startup=4, seed=1)) != once
    assert len({json.dumps(t["values"]) for t in searched(settings, workers=3).values()}) == 12


def test_scores_without_labels_tell_what_views_share():
    stream = torch.Generator().manual_seed(0)
    run, view = torch.randn(400, 1, 6, generator=stream), torch.randn(400, 4, 6, generator=stream)
    for noise in (0.5, 2.0):
        found = label_free(run + noise * view)
        assert found["shared"] == pytest.approx(1 / (1 + noise**2), abs=0.03)
    assert label_free(view)["shared"] < 0.02 and label_free(run.expand(-1, 4, -1))["shared"] == pytest.approx(1)
    wide, narrow = label_free(run + 0.1 * view), label_free(run[..., :1] + 0.1 * view)
    assert wide["rank"] > 5 > 3 > narrow["rank"] and wide["lidar_rank"] > 5


def test_a_verdict_needs_two_seeds_and_two_standard_errors():
    def results(by_hand, found):
        def runs(name, errors):
            row = {"method": "frozen", "title": "t", "labels": 8}
            return [{"variant": name, "rows": [row | {"relative_error": {"mean": e, "values": [e]}}],
                     "monitors": {}, "seconds": 1.0} for e in errors]  # fmt: skip

        confirmed = {"study": {"target": "p", "labels": [8]}, "results": runs("h", by_hand) + runs("f", found)}
        trials = [{"number": n, "values": {"a.b": 1.0}, "result": {"error": 1.0 + n}} for n in range(14)]
        chosen = {"search": {"space": {"a.b": {}}, "select": "shared"}, "best": 12}
        return {"trials": trials, "spearman": {}, "confirmed": confirmed, **chosen}

    def said(*errors):
        return search_table(results(*errors), "h", "f")

    assert "are better" in said([5.0, 5.1, 4.9], [3.0, 3.1, 2.9]) and "are worse" in said([3.0, 3.1], [5.0, 5.1])
    assert "are no different" in said([5.0, 3.0], [3.5, 4.0])
    assert "says nothing of their uncertainty" in said([5.0], [3.0])
    # What a score without labels chose is shown, however far down it is by the error that it did not see.
    table = said([5.0], [3.0])
    assert "chosen by 'shared': trial 12." in table and "| 12 (f) | 1 | 13.00 |" in table and "| 0 (h) |" in table
    assert "| 9 |" in table and "| 10 |" not in table


def test_the_shipped_search_at_tiny_size_is_resumed_and_ends_as_one_that_was_not_stopped(small_store, tmp_path, capsys):
    words = [f"base.data.path={small_store}", "search.trials=3", "search.startup=2", "search.labels=8", "study.seeds=1",
             "study.draws=1", "study.labels=[8]", "study.methods=[frozen]", "base.trainer.max_epochs=1",
             "base.trainer.limit_train_batches=1"]  # fmt: skip
    said = []
    whole = study("search_burgers", tmp_path / "whole", words, announce=said.append)
    assert len([line for line in said if line.startswith("trial ")]) == 3
    first = whole["trials"][0]["values"]
    assert first["model.learning_rate"] == 2e-3 and first["model.augmentation.init_args.window"] == [32, 64]
    assert [r["variant"] for r in whole["confirmed"]["results"]] == ["by hand", "found"]
    assert all(set(t["result"]["scores"]) == {"rank", "shared", "lidar_rank", "loss"} for t in whole["trials"])
    assert "one seed each says nothing" in whole["table"] == (tmp_path / "whole/table.md").read_text()

    part = tmp_path / "part"  # stopped after the second trial was drawn
    shutil.copytree(tmp_path / "whole/trials", part / "trials")
    (part / "trials/0002.json").unlink()
    drawn = part / "trials/0001.json"
    drawn.write_text(json.dumps({k: v for k, v in json.loads(drawn.read_text()).items() if k != "result"}))
    again = study("search_burgers", part, words, announce=lambda line: None)

    def numbers(results):
        return [(t["number"], t["values"], t["result"]["error"], t["result"]["scores"]) for t in results["trials"]]

    assert numbers(again) == numbers(whole) and again["best"] == whole["best"]
    with pytest.raises(StoreError, match="trials of another search"):
        study("search_burgers", part, [*words, "search.labels=12"])
    assert cli.main(["study", "search_burgers", "--out", str(part), "--only", "x", "--set", *words]) == 2
    assert "is a search and has no variants" in capsys.readouterr().err


def test_a_space_that_cannot_be_searched_says_why(small_store, tmp_path, monkeypatch):
    data = f"base.data.path={small_store}"
    for words, said in (
        (["search.space={model.rate: {low: 0, high: 1}}"], "base has no value of model.rate"),
        (["base.model.learning_rate=1.0"], "search.space does not hold"),
        (["search.space={model.learning_rate: {low: 1, high: 0}}"], "expected low < high"),
        (["search.space={model.learning_rate: {low: 0, high: 1, log: true}}"], "low > 0"),
        (["search.select=luck"], "luck"),
        (["search.select=loss"], "losses of two objectives do not compare"),
        (["search.select=shared", "study.views.count=1"], "compares views of a run; give study.views"),
    ):
        with pytest.raises(SchemaError, match=said):
            study("search_burgers", tmp_path / "out", [data, *words])
    monkeypatch.setattr(searching, "_run", lambda trial: {"failed": "300 labels asked for"})
    for _ in range(2):  # nothing of it stays that would refuse the repaired recipe
        with pytest.raises(PdesslError, match="the first trial, failed: 300 labels"):
            study("search_burgers", tmp_path / "out", [data, "search.labels=300"])
        assert not list((tmp_path / "out").rglob("0*.json"))
    with pytest.raises(PdesslError, match="of the first: broken"):
        searching._best([{"result": {"failed": "broken"}}], "validation")
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(PdesslError, match=r"pip install 'pdessl\[search\]'"):
        study("search_burgers", tmp_path / "out", [data])
