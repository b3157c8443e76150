"""Groups: runs made at one setting, whose value nobody need know, and pairs of different runs drawn from them."""

# N trajectories, G groups, P pairs of an epoch, B pairs of a batch

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdessl.data.cuts import batch_edges
from pdessl.data.recipe import DatasetRecipe
from pdessl.data.selection import Selection
from pdessl.data.source import Source
from pdessl.errors import CatalogError, DataError, PdesslError, did_you_mean

__all__ = ["GroupPairs", "describe_groups", "group_keys", "group_numbers"]

LISTED = (".txt", ".csv")


class GroupPairs:
    """Pairs of two different runs of one group, drawn anew every epoch.

    Every run is in one pair of an epoch; where a group has an odd number of runs, one of them is in two. A run that is
    alone in its group is paired with itself: its two views are windows and symmetry views of one run, as without
    groups. A batch holds pairs of different groups wherever no group has more pairs than an epoch has batches, and as
    evenly many of each as can be otherwise.

    Args:
        groups: group of each run, shape (N,), int64, any numbers.

    Attributes:
        count: number of groups G.
        sizes: runs of each group, shape (G,), int64.
        alone: number of runs without another in their group.

    Raises:
        DataError: no group has two runs, or all runs are in one group, which tells nothing.
    """

    def __init__(self, groups: np.ndarray) -> None:
        _, self.groups = np.unique(groups, return_inverse=True)
        self.sizes = np.bincount(self.groups)
        self.count, self.alone = len(self.sizes), int((self.sizes == 1).sum())
        if self.alone == self.count:
            raise DataError(
                f"grouped: each of the {self.count} training runs is in a group of its own, so that there are no "
                "positives of two runs. Name what several runs share (grouped: file, or a recorded setting; pdessl "
                "inspect says what there is), or leave grouped out."
            )
        if self.count == 1:
            raise DataError(
                f"grouped: all {len(self.groups)} training runs are in one group: what they share tells none from "
                "another. Name a setting that differs between some of them, or leave grouped out."
            )

    @staticmethod
    def of(selections: Sequence[Selection], by: str | Sequence[str]) -> GroupPairs:
        """Return the pairs among trajectories of datasets; a group lies in one. See :func:`group_keys`."""
        found = [group_numbers(s, by) for s in selections if len(s)]
        starts = np.cumsum([0, *(numbers.max() + 1 for numbers in found)])
        return GroupPairs(np.concatenate([start + numbers for start, numbers in zip(starts, found, strict=False)]))

    def repeats(self, batch_size: int) -> int:
        """Return how many pairs of one group a batch has at most: 1 where there are groups enough."""
        batches = -(-len(self) // batch_size)
        most = (int(self.sizes.max()) + 1) // 2
        return -(-most // batches)

    def __len__(self) -> int:
        """Number of pairs of an epoch."""
        return int(((self.sizes + 1) // 2).sum())

    def epoch(self, stream: np.random.Generator, batch_size: int) -> np.ndarray:
        """Return the pairs of an epoch, shape (P, 2), int64, batch after batch as :func:`batch_edges` cuts them."""
        order = stream.permutation(len(self.groups))
        rank = stream.permutation(self.count)
        # Runs group by group, groups in random order, runs in random order inside.
        order = order[np.argsort(rank[self.groups[order]], kind="stable")]
        sizes = self.sizes[np.argsort(rank)]
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        place, size = np.arange(len(order)) - first, np.repeat(sizes, sizes)
        begins = np.flatnonzero(place % 2 == 0)
        # The last run of a group of odd size meets its first one.
        partner = np.where(place[begins] + 1 < size[begins], begins + 1, first[begins])
        pairs = np.stack([order[begins], order[partner]], axis=1)
        batches = len(batch_edges(len(pairs), batch_size)) - 1
        stream.permutation(len(pairs))  # not needed, but the order of batches in results/ was drawn after it
        # Dealt out in turn: neighbours, the pairs of one group, go to different batches. Larger batches come first.
        shuffled = stream.permutation(batches)
        larger = shuffled < len(pairs) % batches
        return np.concatenate([pairs[number::batches] for number in [*shuffled[larger], *shuffled[~larger]]])

    def __str__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        runs = f"{low}" if low == high else f"{low} to {high}"
        alone = f"; {self.alone} runs alone, whose pairs are two views of one run" if self.alone else ""
        return f"{self.count} groups of {runs} runs, {len(self)} pairs an epoch{alone}"


# ---------------------------------------------------------------------------------------- what makes a group


def group_keys(pool: Selection, by: str | Sequence[str] | None, option: str = "group_by") -> list[str]:
    """Return what identifies the group of each trajectory of a selection: equal texts, same group.

    Args:
        pool: trajectories of one dataset.
        by: ``file`` or None: the dataset's own groups (:meth:`pdessl.data.source.Source.groups`); ``trajectory``; the
            name of a recorded setting (a parameter, or an attribute, coordinate or index that a mapping reads as one),
            of which only equality counts; a file ``.txt`` or ``.csv`` with one name of a group per line, for every
            trajectory of the dataset in the order of its splits; or a list of these, all of which must agree.
        option: what the setting is called in messages.

    Raises:
        CatalogError: no such setting.
        DataError: a list of groups that is not as long as the dataset.
    """
    if by is not None and not isinstance(by, str):
        parts = [group_keys(pool, one, option) for one in by]
        return ["|".join(keys) for keys in zip(*parts, strict=True)]
    if by is None or by == "file":
        return [str(group) for group in pool.groups().tolist()]
    each = [f"{split} {row}" for split, row in zip(pool.split.tolist(), pool.rows.tolist(), strict=True)]
    if by == "trajectory":
        return each
    if by.endswith(LISTED):
        return _listed(pool, by, option)
    values = pool.parameter_values()
    if by not in values:
        shared = [_drawn_for(pool.source, by, split) for split in pool.splits]
        if max(shared) > 1:  # the split has no labels, but the recipe says which runs share the setting
            return [f"{s} {r // shared[s]}" for s, r in zip(pool.split.tolist(), pool.rows.tolist(), strict=True)]
        raise CatalogError(
            f"{option}: {pool.source.name} has no parameter '{by}'.{did_you_mean(by, values)} Expected file, "
            f"trajectory, a list of groups (.txt), or one of its parameters: {', '.join(values) or 'none'}."
        )
    # A value that is not known is like no other.
    return [float(v).hex() if v == v else f"unknown {own}" for v, own in zip(values[by], each, strict=True)]


def _drawn_for(source: Source, name: str, split: str) -> int:
    """Return how many consecutive trajectories of a split share a drawn parameter by the recipe of a store."""
    recipe = getattr(source, "recipe", None)
    drawn = recipe.parameters.get(name) if isinstance(recipe, DatasetRecipe) else None
    return 1 if drawn is None else drawn.shared_by(split)


def _listed(pool: Selection, path: str, option: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{option}: {path} cannot be read ({error}); expected one group per line.") from None
    sizes = pool.source.splits
    if len(lines) != sum(sizes.values()) or not all(lines):
        raise DataError(
            f"{option}: {path} has {sum(map(bool, lines))} groups, {pool.source.name} has {sum(sizes.values())} "
            f"trajectories ({', '.join(f'{n} {s}' for n, s in sizes.items())}). Write one group per line, for every "
            "trajectory in this order."
        )
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    return [lines[starts[pool.splits[s]] + r] for s, r in zip(pool.split.tolist(), pool.rows.tolist(), strict=True)]


def group_numbers(pool: Selection, by: str | Sequence[str]) -> np.ndarray:
    """Return the group of each trajectory as a number, shape (n,), int64, counted in the order of first appearance.

    Nothing of the values of a recorded setting is left in them, not even their order.

    Raises:
        CatalogError, DataError: see :func:`group_keys`.
        DataError: ``file``, and the runs of the dataset's own groups share none of the settings that are recorded.
    """
    keys = group_keys(pool, by, "grouped")
    if by == "file":
        _refuse_other_groups(pool)
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def _refuse_other_groups(pool: Selection) -> None:
    recipe = getattr(pool.source, "recipe", None)
    drawn = recipe.parameters.items() if isinstance(recipe, DatasetRecipe) else ()
    shares = {n: max(d.shared_by(split) for split in pool.splits) for n, d in drawn}
    shares = {name: number for name, number in shares.items() if number > 1}
    if len(set(shares.values())) > 1:
        raise DataError(f"grouped: {pool.source.name} has groups of {shares} runs; name one: grouped: {[*shares][0]}")
    varying = [n for n, values in pool.parameter_values().items() if len(np.unique(values)) > 1]
    by_index = (getattr(pool.source, "mapping", None) or {}).get("group_by") == "index"
    if (varying or by_index) and not _shared(pool):
        raise DataError(
            f"grouped: the own groups of {pool.source.name} share none of its parameters ({', '.join(varying)}), but "
            "something else (often the initial field). Name the setting whose equality makes a group:  grouped: NAME"
        )


def _shared(pool: Selection) -> list[str]:
    """Return the recorded parameters that differ between trajectories but not inside a group of several."""
    groups = np.unique(pool.groups(), return_inverse=True)[1]
    found = []
    for name, values in pool.parameter_values().items():
        low, high = np.full(groups.max() + 1, np.inf), np.full(groups.max() + 1, -np.inf)
        with np.errstate(invalid="ignore"):  # a value that is not known is like no other
            np.minimum.at(low, groups, values)
            np.maximum.at(high, groups, values)
        if len(np.unique(values)) > 1 and bool((low == high)[np.bincount(groups) > 1].all()):
            found.append(name)
    return found


def describe_groups(source: Source) -> dict[str, Any]:
    """Return which groups a dataset offers for positives of two runs, as plain data; empty where it has none.

    ``by``: what to give as ``grouped``; ``splits``: {name: [groups, smallest, largest]} of the splits that have
    groups of two runs or more.
    """
    names = [n for n, size in source.splits.items() if size]
    try:
        pools = {name: Selection.whole(source, [name]) for name in names}
        candidates = ["file", *(n for n in source.parameters if n not in source.constants)]
        for by in candidates:
            found = {name: held for name, pool in pools.items() if (held := _sizes(pool, by)) is not None}
            if found:
                return {"by": by, "splits": found}
    except PdesslError:  # incomplete, or damaged: other lines of the summary say so
        return {}
    return {}


def _sizes(pool: Selection, by: str) -> list[int] | None:
    try:
        sizes = np.bincount(group_numbers(pool, by))
    except (DataError, CatalogError):
        return None
    if len(sizes) < 2 or 2 * int((sizes == 1).sum()) > int(sizes.sum()):
        return None
    return [len(sizes), int(sizes.min()), int(sizes.max())]
