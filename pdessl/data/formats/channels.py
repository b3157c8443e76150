"""Which axis of a stored array is which: time, space, runs, or one entry of something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdessl.data.formats.container import Array, Container
from pdessl.data.formats.mapping import DatasetMapping, FieldRule
from pdessl.errors import FormatError

__all__ = ["Channel", "channel_of", "check_alike", "sizes_of"]


@dataclass(frozen=True)
class Channel:
    """Where a channel lies: the array, and for every stored axis the role it has, or the entry taken of it."""

    dataset: str
    roles: tuple[str | int, ...]
    rule: FieldRule


def channel_of(container: Container, mapping: DatasetMapping, rule: FieldRule, prefix: str, several: bool) -> Channel:
    """Return where a channel lies in a file.

    Args:
        container: the file.
        mapping: its mapping.
        rule: the channel's.
        prefix: put before the names of arrays.
        several: every run is a group of its own, so arrays have no axis of runs.

    Raises:
        FormatError: no such array, or axes that the mapping does not account for.
    """
    label = container.label
    found = container.find(prefix + rule.dataset)
    array = container.array(found)
    names = _fit(array, tuple(rule.dimensions or mapping.dimensions), several, label)
    select = mapping.get("select", {})
    taken = rule.component if isinstance(rule.component, tuple) else (rule.component,)
    components = iter([c for c in taken if c is not None])
    roles: list[str | int] = []
    for axis, size in zip(names, array.shape, strict=True):
        if axis in ("trajectory", "time", *mapping.axes):
            roles.append(axis)
            continue
        if axis == "component" and (number := next(components, None)) is not None:
            entry = number
        elif axis in select:
            entry = int(select[axis])
        elif size == 1:
            entry = 0
        else:
            other = ", or component: 0 in the field" if axis == "component" else ""
            if "trajectory" not in names:
                other += f". If its entries are runs:  trajectory: {axis}"
            raise FormatError(
                f"{label}: '{found}' has an extra dimension '{axis}' of size {size}. Choose one entry of it in the "
                f"mapping:  select: {{{axis}: 0}}{other}"
            )
        if not -size <= entry < size:
            raise FormatError(f"{label}: '{found}' has {size} entries along '{axis}', no number {entry}.")
        roles.append(entry % size)
    if next(components, None) is not None:
        raise FormatError(
            f"{label}: component {rule.component} of '{found}' is asked for, its axes are {', '.join(names)}. Name the "
            f"axis of the components:  dimensions: [..., component]"
        )
    named = [r for r in roles if isinstance(r, str)]
    if len(set(named)) != len(named):
        raise FormatError(f"{label}: '{found}' names a dimension twice: {', '.join(names)}.")
    return Channel(found.removeprefix(prefix), tuple(roles), rule)


def check_alike(container: Container, name: str, prefix: str, first: str) -> None:
    """Refuse an array of one group that is not as that of the first group, from which all else was concluded.

    Raises:
        FormatError: another shape (also one that would be repeated to fit), or numbers of another kind.
    """
    if prefix == first:
        return
    found, expected = container.array(prefix + name), container.array(first + name)
    if found.shape != expected.shape or found.dtype.kind != expected.dtype.kind:
        raise FormatError(
            f"{container.label}: array '{prefix + name}' has shape {found.shape} and holds {found.dtype}, "
            f"'{first + name}' has {expected.shape} and {expected.dtype}; the groups of a file are runs of one grid "
            "and length. Write those that differ to a file of their own."
        )


def _fit(array: Array, names: tuple[str, ...], several: bool, label: str) -> tuple[str, ...]:
    """Return one name per stored axis: a missing run axis is one run, axes of size 1 that are not named are dropped."""
    if several:
        names = tuple(n for n in names if n != "trajectory")
    if len(array.shape) == len(names):
        return names
    if len(array.shape) == len(names) - 1 and "trajectory" in names:
        return tuple(n for n in names if n != "trajectory")
    extra = len(array.shape) - len(names)
    single = [i for i, size in enumerate(array.shape) if size == 1]
    if extra > 0 and len(single) == extra:
        rest = iter(names)
        return tuple(f"axis {i}" if i in single else next(rest) for i in range(len(array.shape)))
    raise FormatError(
        f"{label}: '{array.name}' has {len(array.shape)} dimensions {array.shape}, the mapping names {len(names)}: "
        f"{', '.join(names)}. Name every axis:  dimensions: [...], and choose entries of further ones:  "
        f"select: {{level: 0}}"
    )


def sizes_of(container: Container, channels: Sequence[Channel], prefix: str, axes: Sequence[str]) -> dict[str, int]:
    """Return the size of every dimension, the same in all channels.

    Raises:
        FormatError: channels that differ, or a dimension that no channel has.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for channel in channels:
        array = container.array(prefix + channel.dataset)
        for role, size in zip(channel.roles, array.shape, strict=True):
            if isinstance(role, str):
                other, where = sizes.setdefault(role, (size, channel.dataset))
                if other != size:
                    raise FormatError(
                        f"{container.label}: '{channel.dataset}' has {size} entries along {role}, '{where}' has "
                        f"{other}. Check the order of 'dimensions' in the mapping; the shape is {array.shape}."
                    )
    for role in ("time", *axes):
        if role not in sizes:
            raise FormatError(
                f"{container.label}: no field has the dimension '{role}'; {channels[0].dataset} has "
                f"{', '.join(map(str, channels[0].roles))}. Name its dimensions:  "
                f"dimensions: [trajectory, time, {', '.join(axes)}]"
            )
    empty = [role for role, (size, _) in sizes.items() if size < 1]
    if empty:
        raise FormatError(f"{container.label}: the dimension '{empty[0]}' has no entries: the file holds no data.")
    return {role: size for role, (size, _) in sizes.items()}
