"""Which trajectories of a dataset are trained on, which are labelled, and which only ever score."""

# N trajectories, n of them chosen

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from pdessl.data.groups import group_keys
from pdessl.data.lengths import parts_of, split_of_part
from pdessl.data.selection import Selection
from pdessl.data.source import Source
from pdessl.errors import CatalogError, DataError, did_you_mean

__all__ = ["ROLES", "assign_roles", "labelled_rows"]

ROLES = ("unlabelled", "labelled", "validation", "test")
ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
DEFAULT_SHARES = {"labelled": 0.1, "validation": 0.1, "test": 0.1}


def assign_roles(
    source: Source,
    splits: Mapping[str, str | float] | None = None,
    group_by: str | Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Selection]:
    """Decide which trajectories serve as ``unlabelled``, ``labelled``, ``validation`` and ``test``.

    A dataset whose splits carry these names is used as it is. Else:

    * ``validation`` and ``test`` are the dataset's own splits of these names (``valid`` and ``val`` mean validation);
      those it lacks are a tenth each of the rest.
    * the rest is for training: ``unlabelled`` is all of it, without its labels, and ``labelled`` a tenth of it, with.

    Where some trajectories have a label and others none (files without the attribute), ``labelled`` are all that have
    one, ``unlabelled`` the others (all, where these are fewer), and nothing is taken out of them for validation or test
    unless ``splits`` says so: :func:`pdessl.regress` then leaves out labelled runs in turn.

    What scores is taken out of the rest in whole groups (a file that has one parameter value is a group), because a
    model can recognise a group: splitting within one would let it score on what it has seen. Groups are ordered by a
    hash of (seed, group) and dealt out in this order, so that the choice is the same in every version of the library
    and on every machine. Labelled trajectories only train, and are dealt one by one: whole groups would have few
    different labels, of ten files a single one.

    Args:
        source: the dataset.
        splits: changes to this rule, by role: the name of a split of the dataset, or (``labelled``, ``validation``,
            ``test``) the share that is taken out of the splits no role names, 0 for none; ``labelled`` is a share of
            what is left for training.
        group_by: what makes a group: ``file`` (the dataset's own groups, the default), ``trajectory``, or the name of a
            parameter, whose values then are all in training or all in one of the others; see
            :func:`pdessl.data.groups.group_keys`.
        seed: of the choice.

    Returns:
        One :class:`Selection` per role the dataset can serve. Only ``unlabelled`` and ``labelled`` overlap.

    Raises:
        DataError: a share out of range, a split used twice, or too few groups.
        CatalogError: no such role, split or parameter.
    """
    splits = dict(splits or {})
    for role, value in splits.items():
        _check(source, role, value)
    if not splits and any(name in source.splits for name in ("unlabelled", "labelled")):
        return {role: _whole(source, role) for role in ROLES if role in source.splits}
    known = {name: labelled_rows(source, name) for name in source.splits}
    together = np.concatenate([np.zeros(0, bool), *known.values()])
    mixed = bool(together.any() and not together.all())
    for role in ("validation", "test"):
        own = [name for name in ALIASES[role] if source.splits.get(name)]
        splits.setdefault(role, own[0] if own else 0.0 if mixed else DEFAULT_SHARES[role])
    mixed = mixed and "labelled" not in splits and "unlabelled" not in splits
    splits.setdefault("labelled", 0.0 if mixed else DEFAULT_SHARES["labelled"])
    named = {role: value for role, value in splits.items() if isinstance(value, str)}
    for role, name in named.items():
        other = [r for r, n in named.items() if n == name and r != role and {r, role} != {"unlabelled", "labelled"}]
        if other:
            raise DataError(f"{source.name}: split '{name}' cannot be both {role} and {other[0]}; that would leak.")
    chosen = {role: _whole(source, name) for role, name in named.items()}
    rest = [n for n, size in source.splits.items() if size and split_of_part(n) not in named.values()]
    pool = chosen["unlabelled"] if "unlabelled" in chosen else Selection.whole(source, rest)
    if not len(pool):
        raise DataError(f"{source.name}: nothing is left to train on; its splits are {dict(source.splits)}.")
    groups = group_keys(pool, group_by)
    shares = {r: splits[r] for r in ("test", "validation") if not isinstance(splits[r], str) and splits[r] > 0}
    dealt = _deal(groups, shares, seed, "split", source)
    chosen |= {role: pool[dealt == number] for number, role in enumerate(shares, 1)}
    training = pool[dealt == 0]
    chosen["unlabelled"] = training
    if mixed:
        has = np.zeros(len(training), dtype=bool)
        for number, name in enumerate(training.splits):
            places = training.split == number
            has[places] = known[name][training.rows[places]]
        if has.any():
            chosen["labelled"] = training[has]
        if 2 * int(has.sum()) <= len(has):
            chosen["unlabelled"] = training[~has]
    if not isinstance(splits["labelled"], str) and splits["labelled"] > 0:
        each = group_keys(training, "trajectory")
        some = _deal(each, {"labelled": splits["labelled"]}, seed, "labelled", source, keep=0)
        chosen["labelled"] = training[some == 1]
    return {role: chosen[role] for role in ROLES if role in chosen}


def labelled_rows(source: Source, split: str) -> np.ndarray:
    """Return which trajectories of a split have a label, (N,) bool: a value of a parameter that not all have."""
    values = [v for n, v in source.parameter_values(split).items() if n not in source.constants]
    some = [v for v in values if not np.isfinite(v).all()] or values
    return np.isfinite(np.stack(some)).any(axis=0) if some else np.zeros(source.splits[split], dtype=bool)


def _whole(source: Source, split: str) -> Selection:
    return Selection.whole(source, parts_of(split, source.splits))


def _check(source: Source, role: str, value: str | float) -> None:
    if role not in ROLES:
        raise CatalogError(f"no role '{role}'.{did_you_mean(role, ROLES)} Roles of splits: {', '.join(ROLES)}.")
    if isinstance(value, str):
        if value not in source.splits:
            raise CatalogError(
                f"{source.name} has no split '{value}' to serve as {role}.{did_you_mean(value, source.splits)} "
                f"Splits: {', '.join(source.splits)}."
            )
    elif role == "unlabelled":
        raise DataError("splits.unlabelled is what the others leave; give the shares of the others, or a split's name.")
    elif not 0 <= value <= 1 or (value == 1 and role != "labelled"):
        raise DataError(f"splits.{role}: expected the name of a split or a share between 0 and 1, found {value}.")


def _deal(
    groups: Sequence[str], shares: Mapping[str, float], seed: int, purpose: str, source: Source, keep: int = 1
) -> np.ndarray:
    """Deal whole groups out to some shares; return 0 for what is left and 1, 2, ... for the shares, shape (n,).

    Each share gets groups until it has its part of the trajectories, at least one group; ``keep`` groups at least are
    left over.
    """
    names, inverse, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    if len(names) < len(shares) + keep:
        raise DataError(
            f"{source.name}: {len(names)} groups of trajectories cannot be split into training, {', '.join(shares)}: a "
            f"group (trajectories that share a file or a value) is kept together. Bring more, name splits of the "
            f"dataset (splits: {{test: NAME}}), or split within groups, which leaks: group_by: trajectory"
        )
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed} {purpose} {names[i]}".encode()).digest())
    dealt = np.zeros(len(names), dtype=np.int64)
    left = list(order)
    for number, share in enumerate(shares.values(), 1):
        wanted, held = share * len(groups), 0
        must_stay = len(shares) - number + keep
        while left and (held == 0 or held + sizes[left[0]] / 2 < wanted) and len(left) > must_stay:
            group = left.pop(0)
            dealt[group] = number
            held += sizes[group]
    return dealt[inverse.reshape(-1)]
