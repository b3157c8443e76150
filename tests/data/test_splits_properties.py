"""Laws of splits on datasets that are drawn: a partition, in whole groups, a function of what is given."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_source import ToySource

from pdessl.data.splits import assign_roles
from pdessl.errors import DataError

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=100)
sizes = st.integers(1, 60)
names = st.lists(st.sampled_from(["train", "valid", "test", "all", "more"]), min_size=1, max_size=3, unique=True)
shares = st.fixed_dictionaries({}, optional={role: st.floats(0, 0.45) for role in ("labelled", "validation", "test")})
group_by = st.sampled_from([None, "file", "trajectory", "buoyancy"])


@st.composite
def sources(draw):
    return ToySource(per_group=draw(st.integers(1, 9)), **{name: draw(sizes) for name in draw(names)})


def members(selection):
    return [(selection.splits[s], r) for s, r in zip(selection.split.tolist(), selection.rows.tolist(), strict=True)]


def assigned(source, *given):
    try:
        return assign_roles(source, *given)
    except DataError:  # too few groups: tested by example
        assume(False)


@LAW
@given(sources(), shares, group_by, st.integers(0, 5))
def test_roles_are_a_partition_in_whole_groups(source, wanted, grouped, seed):
    roles = assigned(source, wanted, grouped, seed)
    apart = [role for role in ("unlabelled", "validation", "test") if role in roles]
    held = [member for role in apart for member in members(roles[role])]
    assert len(held) == len(set(held)) == sum(source.splits.values())
    assert set(held) == {(name, k) for name, size in source.splits.items() for k in range(size)}
    assert len(roles["unlabelled"])
    if "labelled" in roles:
        assert set(members(roles["labelled"])) <= set(members(roles["unlabelled"]))
    for role in ("validation", "test"):
        if role not in roles or set(roles[role].splits) != set(roles["unlabelled"].splits):
            continue  # a split of the dataset's own, taken as it is
        if grouped != "trajectory":
            assert not set(roles[role].groups().tolist()) & set(roles["unlabelled"].groups().tolist())
        # As much as was asked for, to half of the largest group.
        total = len(roles["unlabelled"]) + sum(
            len(roles[r]) for r in ("validation", "test") if r in roles and roles[r].splits == roles[role].splits
        )
        largest = 1 if grouped == "trajectory" else source.per_group
        share = wanted.get(role, 0.1)
        assert len(roles[role]) <= max(share * total + largest / 2, largest)


@LAW
@given(sources(), shares, group_by, st.integers(0, 5))
def test_the_choice_depends_on_nothing_but_what_is_given(source, wanted, grouped, seed):
    first, second = (assigned(source, wanted, grouped, seed) for _ in range(2))
    assert list(first) == list(second)
    for role, selection in first.items():
        assert np.array_equal(selection.rows, second[role].rows) and selection.splits == second[role].splits
        assert members(selection) == sorted(members(selection), key=lambda m: (selection.splits.index(m[0]), m[1]))


@LAW
@given(st.integers(12, 60), st.integers(0, 5))
def test_a_dataset_that_grows_keeps_the_order_in_which_groups_are_dealt(size, seed):
    # Groups are ordered by a hash of their own: of the first files, those that tested still stand before the others.
    whole, part = (
        set(members(assign_roles(ToySource(per_group=1, all=n), {"test": 0.2, "validation": 0}, None, seed)["test"]))
        for n in (size, size // 2)
    )
    kept = {m for m in whole if m[1] < size // 2}
    assert kept <= part or part <= kept
