"""Which trajectories are trained on: disjoint, in whole groups, the same for ever."""

import numpy as np
import pytest
from toy_source import ToySource

import pdessl.data
from pdessl.data.splits import ROLES, assign_roles
from pdessl.errors import CatalogError, DataError


def members(selection):
    return {(selection.splits[s], r) for s, r in zip(selection.split.tolist(), selection.rows.tolist(), strict=True)}


def groups(selection):
    return set(selection.groups().tolist())


def test_a_store_is_used_as_its_splits_are_named(small_store):
    roles = assign_roles(small_store)
    assert list(roles) == list(ROLES)
    assert all(members(roles[r]) == {(r, k) for k in range(small_store.splits[r])} for r in ROLES)


def test_public_splits_serve_by_their_names():
    source = ToySource(train=80, valid=12, test=8)
    roles = assign_roles(source)
    assert members(roles["unlabelled"]) == {("train", k) for k in range(80)}
    assert members(roles["validation"]) == {("valid", k) for k in range(12)}
    assert members(roles["test"]) == {("test", k) for k in range(8)}
    assert members(roles["labelled"]) < members(roles["unlabelled"]) and len(roles["labelled"]) == 8
    assert len(groups(roles["labelled"])) > 4  # one by one: two groups would have two labels


SOURCES = {
    "one split": ToySource(all=100),
    "no test": ToySource(train=60, valid=20),
    "uneven groups": ToySource(per_group=7, all=101),
    "single trajectories": ToySource(per_group=1, all=50),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("group_by", [None, "file", "trajectory", "buoyancy"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_scores_is_never_trained_on(source, group_by, seed):
    roles = assign_roles(source, group_by=group_by, seed=seed)
    training, rest = roles["unlabelled"], [roles["validation"], roles["test"]]
    everything = [members(r) for r in (training, *rest)]
    assert sum(map(len, everything)) == len(set.union(*everything)) == len(source)
    assert members(roles["labelled"]) <= everything[0] and all(everything)
    carved = [r for r in rest if r.splits == training.splits]
    if group_by != "trajectory":
        for role in carved:
            assert not groups(role) & groups(training)
            values = [set(r.parameter_values()["buoyancy"].tolist()) for r in (role, training)]
            assert not values[0] & values[1]
    assert abs(len(roles["labelled"]) - 0.1 * len(training)) <= 1
    wanted = 0.1 * len(training.source.groups(training.splits[0]))
    assert all(abs(len(r) - wanted) <= source.per_group for r in carved)


def test_the_choice_is_pinned_for_every_version():
    """These numbers must never change: a model would be tested on what an older version trained it on."""
    roles = assign_roles(ToySource(all=40), seed=0)
    found = {role: sorted(groups(roles[role])) for role in ("unlabelled", "validation", "test")}
    assert found == {"unlabelled": [0, 1, 2, 3, 6, 7, 8, 9], "validation": [5], "test": [4]}
    assert roles["labelled"].rows.tolist() == [7, 26, 29]
    single = assign_roles(ToySource(all=40), group_by="trajectory", seed=3)
    assert single["test"].rows.tolist() == [13, 16, 26, 38]
    value = assign_roles(ToySource(all=40), group_by="buoyancy", seed=0)
    assert sorted(set(value["test"].parameter_values()["buoyancy"].round(3).tolist())) == [0.22]


def test_the_choice_by_value_does_not_depend_on_the_order_of_files():
    class Reversed(ToySource):
        def parameter_values(self, split):
            return {"buoyancy": super().parameter_values(split)["buoyancy"][::-1].copy()}

    one, other = (assign_roles(s(all=40), group_by="buoyancy") for s in (ToySource, Reversed))
    for role in ("unlabelled", "validation", "test"):
        values = [set(r[role].parameter_values()["buoyancy"].tolist()) for r in (one, other)]
        assert values[0] == values[1]


def test_roles_can_be_named_or_be_shares():
    source = ToySource(train=80, valid=20, test=20)
    roles = assign_roles(source, {"labelled": "valid", "validation": 0.25})
    assert members(roles["labelled"]) == {("valid", k) for k in range(20)}
    assert members(roles["test"]) == {("test", k) for k in range(20)}
    assert len(roles["validation"]) == 20 and len(roles["unlabelled"]) == 60
    pooled = assign_roles(source, {"validation": 0.1, "test": 0.2})
    assert len(pooled["test"]) == 24 and len(pooled["validation"]) == 12 and len(pooled["unlabelled"]) == 84
    assert {"train", "valid", "test"} == {s for s, _ in members(pooled["unlabelled"])}
    everything = assign_roles(source, {"unlabelled": "train", "labelled": 1.0, "validation": 0, "test": "test"})
    assert members(everything["labelled"]) == members(everything["unlabelled"]) == {("train", k) for k in range(80)}
    assert "validation" not in everything


def test_a_selection_over_several_splits_knows_its_parameters():
    source = ToySource(train=8, valid=8, test=4)
    pooled = assign_roles(source, {"validation": 0.3, "test": 0.2})["unlabelled"]
    for split, row, value in zip(pooled.split, pooled.rows, pooled.parameter_values()["buoyancy"], strict=True):
        assert value == source.parameter_values(pooled.splits[split])["buoyancy"][row]
    assert np.array_equal(pooled[2:5].rows, pooled.rows[2:5]) and pooled.shape == (2, 12, 6, 5)


def test_wishes_that_cannot_be_met():
    source = ToySource(train=80, valid=20, test=20)
    for wish, error, message in [
        ({"training": 0.5}, CatalogError, "no role 'training'.*Roles of splits: unlabelled, labelled"),
        ({"test": "tset"}, CatalogError, "no split 'tset' to serve as test. Did you mean 'test'"),
        ({"test": 1.2}, DataError, "splits.test: expected the name of a split or a share between 0 and 1, found 1.2"),
        ({"test": 1.0}, DataError, "splits.test"),
        ({"unlabelled": 0.5}, DataError, "what the others leave"),
        ({"test": "valid"}, DataError, "split 'valid' cannot be both"),
        ({"unlabelled": "train", "test": "train"}, DataError, "cannot be both.*that would leak"),
        ({"labelled": "train", "test": "test", "validation": "valid"}, DataError, "nothing is left to train on"),
    ]:
        with pytest.raises(error, match=message):
            assign_roles(source, wish)
    with pytest.raises(CatalogError, match="no parameter 'bouyancy'. Did you mean 'buoyancy'.*file, trajectory"):
        assign_roles(ToySource(all=40), group_by="bouyancy")
    with pytest.raises(DataError, match="2 groups of trajectories cannot be split .*group_by: trajectory"):
        assign_roles(ToySource(all=8))


def test_a_store_without_labels_in_a_split_is_no_leak(tmp_path):
    sizes = {"unlabelled": 3, "labelled": 0, "validation": 0, "test": 0}
    store = pdessl.data.generate("burgers_small", tmp_path / "s", size=sizes, progress=False)
    assert len(assign_roles(store)["labelled"]) == 0
