"""Whatever a stranger puts into the JSON that is read: success, or one error of ours; no traceback, no hang."""

import copy
import json
from dataclasses import asdict

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pdessl
from pdessl import catalog
from pdessl.data.manifest import MANIFEST
from pdessl.data.recipe import load_recipe
from pdessl.data.store import Store
from pdessl.errors import PdesslError
from pdessl.evaluation.report import read_report, write_report
from pdessl.experiments import stepping_study
from pdessl.experiments.pretraining import pretraining_recipe
from pdessl.experiments.provenance import versions
from pdessl.experiments.quickstart import read_settings
from pdessl.experiments.study import _line
from pdessl.experiments.study_jobs import Job, Study, _kept
from pdessl.experiments.study_table import table
from pdessl.models import Head, load, save_pretrained
from pdessl.objectives import VICReg
from pdessl.operators import discover, save_law
from pdessl.tasks import Pretraining
from pdessl.tasks.checkpointing import check_checkpoint

HOSTILE = [None, True, -1, 0, 1e999, float("nan"), 10**400, "", "../x", "\x1b[2J", [], {}, [[]], {"a": {}}, "9" * 5000]
BOUNDED = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def places(content, path=()):
    """Yield the path of every value in nested data."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(content, number, value, drop):
    path = sorted(places(content), key=str)[number % len(list(places(content)))]
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if drop and isinstance(inner, dict):
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


MUTATIONS = (st.integers(0, 10**6), st.sampled_from(HOSTILE), st.booleans(), st.integers(0, 3))


def write(path, content, cut):
    text = json.dumps(content)
    path.write_text(text[: len(text) // 2] if cut == 3 else text)


@BOUNDED
@given(*MUTATIONS)
def test_manifests(small_store, tmp_path, number, value, drop, cut):
    content = json.loads((small_store / MANIFEST).read_text())
    write(tmp_path / MANIFEST, mutated(content, number, value, drop), cut)
    try:
        store = Store(tmp_path)
        assert all(size >= 0 for size in store.splits.values()) and store.command
        for split in store.splits:
            store.shards(split)
    except PdesslError as error:
        assert str(error)


@BOUNDED
@given(*MUTATIONS)
def test_saved_networks(tmp_path_factory, number, value, drop, cut):
    folder = save_pretrained(tmp_path_factory.mktemp("m"), Head(4))
    content = json.loads((folder / "recipe.json").read_text())
    write(folder / "recipe.json", mutated(content, number, value, drop), cut)
    try:
        load(folder)
    except PdesslError as error:
        assert str(error)


@BOUNDED
@given(st.binary(max_size=200), st.sampled_from(["report.json", "report.npz"]))
def test_reports(tmp_path, content, name):
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    try:
        read_report(tmp_path)
    except PdesslError as error:
        assert str(error)


REPORT = {
    "title": "t", "versions": {"python": "3"}, "machine": {"threads": 1}, "commands": ["x"], "seconds": {"a": 1.0},
    "recipe": {"a": [1, {"b": None}]},
}  # fmt: skip


@BOUNDED
@given(*MUTATIONS)
def test_reports_of_other_shapes(tmp_path, number, value, drop, cut):
    write(tmp_path / "report.json", mutated(REPORT, number, value, drop), cut)
    try:
        write_report(tmp_path / "again", *read_report(tmp_path))
    except PdesslError as error:
        assert str(error)


def answered(read):
    """What is read, or None where it is refused in words."""
    try:
        return read()
    except PdesslError as error:
        assert str(error).count("\n") == 0 and "--any-version" in str(error)
        return None


ERROR = {"mean": 1.0, "standard_error": None, "values": [1.0]}
ROW = {"method": "frozen", "title": "t", "group": "pretrained", "labels": 8, "relative_error": ERROR}
RESULT = {"rows": [ROW], "notes": [], "monitors": {"monitor/features_rank_me": 1.0}, "seconds": 1.0}


@BOUNDED
@given(*MUTATIONS)
def test_kept_results_of_a_study_are_shown_or_computed_again(tmp_path, number, value, drop, cut):
    job = Job("a", 0, {}, Study("viscosity", labels=(8,)), str(tmp_path), "data")
    content = {"hash": job.hash, "data": "data", "versions": versions(), "result": RESULT}
    write(tmp_path / "result.json", mutated(content, number, value, drop), cut)
    kept = answered(lambda: _kept(job))
    if kept is not None:
        assert table({"study": asdict(job.study), "results": [{"variant": "a", "seed": 0, **kept}]}) and _line(kept)


@BOUNDED
@given(*MUTATIONS)
def test_kept_results_of_a_study_of_time_steppers_are_shown_or_computed_again(tmp_path, number, value, drop, cut):
    held = {"variant": "a", "table": "| t |", "seconds": 1.0, "rows": [ROW]}
    content = {"hash": "h", "versions": versions(), "result": held}
    write(tmp_path / "result.json", mutated(content, number, value, drop), cut)
    kept = answered(lambda: stepping_study._kept(tmp_path, "h", "a"))
    assert kept is None or (kept["variant"] == "a" and isinstance(kept["table"], str))


def test_a_kept_result_of_a_study_of_time_steppers_is_used(tmp_path):
    held = {"variant": "a", "table": "| t |"}
    (tmp_path / "result.json").write_text(json.dumps({"hash": "h", "versions": versions(), "result": held}))
    assert stepping_study._kept(tmp_path, "h", "a") == held
    assert stepping_study._kept(tmp_path, "other", "a") is stepping_study._kept(tmp_path, "h", "b") is None


@settings(BOUNDED, max_examples=25)
@given(*MUTATIONS[:3], st.sampled_from(["burgers_vicreg", "burgers", "quickstart"]))
def test_recipes(tmp_path, number, value, drop, name):
    kind = "datasets" if name == "burgers" else "configs"
    content = mutated(catalog.read(kind, name), number, value, drop)
    path = tmp_path / "recipe.yaml"
    path.write_bytes(yaml.safe_dump(content, allow_unicode=False).encode(errors="replace"))
    try:
        {"burgers": load_recipe, "quickstart": read_settings}.get(name, pretraining_recipe)(path)
    except PdesslError as error:
        assert str(error)


STATE = {
    "epoch": 0, "global_step": 1, "pytorch-lightning_version": "2.6.0", "state_dict": {"a": torch.zeros(2)},
    "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "pdessl_task": "Pretraining",
}  # fmt: skip


@BOUNDED
@given(*MUTATIONS[:3])
def test_checkpoints(tmp_path, number, value, drop):
    task = Pretraining(Head(4), Head(4), VICReg(), Head(4))
    torch.save(mutated(STATE, number, value, drop), tmp_path / "last.ckpt")
    try:
        check_checkpoint(tmp_path / "last.ckpt", task)
    except PdesslError as error:
        assert str(error)


@pytest.mark.parametrize("name", [MANIFEST, "recipe.json", "parameter_model.json", "law.json"])
def test_deep_nesting_is_one_error(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(PdesslError):
        (pdessl.open if name == MANIFEST else pdessl.load)(tmp_path)


def test_an_infinite_whole_number_in_a_law_is_one_error(tmp_path):
    runs = pdessl.simulate("burgers_small", "unlabelled", range(24)).without_parameters()
    path = save_law(discover(runs, resamples=0), tmp_path)
    content = json.loads(path.read_text())
    for place, key in ((content, "count"), (content["projection"], "power")):
        kept, place[key] = place[key], float("inf")
        path.write_text(json.dumps(content))
        with pytest.raises(PdesslError, match="Find it again"):
            pdessl.load(tmp_path)
        place[key] = kept
