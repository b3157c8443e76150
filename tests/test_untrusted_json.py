"""Whatever a stranger puts into the JSON that is read: success, or one error of ours; no traceback, no hang."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pdessl
from pdessl.data.manifest import MANIFEST
from pdessl.data.store import Store
from pdessl.errors import PdesslError
from pdessl.evaluation.report import read_report
from pdessl.models import Head, load, save_pretrained

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


@pytest.mark.parametrize("name", [MANIFEST, "recipe.json", "parameter_model.json", "law.json"])
def test_deep_nesting_is_one_error(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(PdesslError):
        (pdessl.open if name == MANIFEST else pdessl.load)(tmp_path)
