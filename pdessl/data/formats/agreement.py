"""Files that are read as one dataset: what must be the same in all, and units, which are brought to one."""

# n trajectories of a file, X nodes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pdessl.data.formats.mapping import AxisRule, DatasetMapping
from pdessl.data.formats.part import Part
from pdessl.errors import FormatError
from pdessl.units import conversion, origin

__all__ = ["agree"]

_REAL_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian")


def agree(parts: Sequence[Part], mapping: DatasetMapping) -> tuple[dict[str, str], list[str]]:
    """Check that the parts of several files fit each other, and bring their numbers to one unit.

    The unit is that of the mapping where it names one, else that of the first file that states one. What a file states
    in the attribute ``units`` is converted by a factor; times since another date are shifted too. Where the mapping
    gives a ``scale``, that is the factor from the unit of the first file to the one it names.

    Args:
        parts: of all files; those in other units are changed.
        mapping: as the user gave it.

    Returns:
        The unit of fields, parameters, axes and ``time`` as far as known, and what a user should know.

    Raises:
        FormatError: other fields, axes or boundaries, or units that no factor leads between; both files are
            named.
    """
    first = parts[0]
    for part in parts[1:]:
        _same(part, first)
    units: dict[str, str] = {}
    warnings: list[str] = []
    for name, asked, rules, those in _quantities(parts, mapping):
        found = [_stated(part, rule) for part, rule in zip(those, rules, strict=True)]
        unit = _common(name, found, asked, rules, those, warnings)
        label = asked.unit or unit or rules[0].unit
        if label:
            units[name] = label
    return units, warnings


def _same(part: Part, first: Part) -> None:
    fields, axes = (tuple(part.mapping.fields), tuple(first.mapping.fields)), (part.axes, first.axes)
    for what, (a, b), repair in (
        ("fields", fields, f"fields: {_shared(fields)}"),
        ("axes", axes, f"space: {_shared(axes)}"),
        ("boundaries", (part.boundary, first.boundary), f"boundary: {_kinds(first, part)}"),
        ("value types", (part.dtype, first.dtype), "dtype: float32"),
    ):
        if a != b:
            raise FormatError(
                f"{part.label} has other {what} ({_words(a)}) than {first.label} ({_words(b)}). Open them apart, or "
                f"choose what they share in a mapping:  {repair}"
            )


def _shared(names: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    """Return a mapping's entry that names what two files share; NAME where that is nothing."""
    both = [n for n in names[1] if n in names[0]]
    return "{" + ", ".join(f"{n}: {{}}" for n in both or ["NAME"]) + "}"


def _kinds(first: Part, other: Part) -> str:
    """Return a mapping's entry that gives the axes on which two files differ the kind of the first file."""
    pairs = zip(first.axes, first.boundary, other.boundary, strict=False)
    return "{" + ", ".join(f"{axis}: {a}" for axis, a, b in pairs if a != b) + "}"


def _words(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _quantities(parts: Sequence[Part], mapping: DatasetMapping) -> list[tuple[str, Any, list[Any], list[Part]]]:
    """Return (name, rule of the user's mapping, rules, the parts they are of) of all that has a unit.

    Fields and axes are those of all parts; a parameter those that have it.
    """
    own = mapping.fields | mapping.space | mapping.parameters
    each = [p.mapping.fields | p.mapping.space | p.mapping.parameters for p in parts]
    labels = {name for part in parts for name in part.parameters}
    names = [n for n in each[0] if n not in labels and all(n in rules for rules in each)]
    found = [(n, own.get(n, AxisRule()), [rules[n] for rules in each], list(parts)) for n in names]
    for name in dict.fromkeys(n for rules in each for n in rules if n in labels):
        held = [(rules[name], part) for rules, part in zip(each, parts, strict=True) if name in part.parameters]
        found.append((name, own.get(name, AxisRule()), [rule for rule, _ in held], [part for _, part in held]))
    return [*found, ("time", mapping.time, [p.mapping.time for p in parts], list(parts))]


def _array(rule: Any) -> str | None:
    """Return the array that the numbers of a rule come from."""
    places = (getattr(rule, key, None) for key in ("dataset", "step", "extent_of", "length"))
    return next((place for place in places if isinstance(place, str)), None)


def _stated(part: Part, rule: Any) -> str:
    """Return the unit a file states of an array."""
    name = _array(rule)
    if name is None or name.endswith("*"):
        return ""
    attributes = part.container.attributes(part.prefixes[0] + name)
    return str(attributes.get("units") or attributes.get("unit") or "").strip()


def _common(
    name: str, found: Sequence[str], asked: Any, rules: Sequence[Any], parts: Sequence[Part], warnings: list[str]
) -> str:
    """Bring one quantity to one unit in all parts, and return that unit; empty where nothing states one."""
    stated = [i for i, unit in enumerate(found) if unit]
    if not stated:
        return ""
    lead = stated[0]
    unit = found[lead]
    if asked.unit and asked.scale == 1 and conversion(unit, asked.unit) is not None:
        unit = asked.unit  # else the user's word stands for what the files call otherwise
    for i, part in enumerate(parts):
        if not found[i]:
            if unit and rules[i].dataset is not None and i != lead:
                warnings.append(
                    f"{part.label} states no unit of {name}; its numbers are taken to be in '{unit}', as in "
                    f"{parts[lead].label}."
                )
            continue
        factor = conversion(found[i], unit)
        shift = _shift(found[i], found[lead], part, parts[lead]) if name == "time" else 0.0
        if factor is None or shift is None:
            raise FormatError(
                f"{part.label} has {name} in '{found[i]}', {parts[lead].label} in '{found[lead]}', and no factor leads "
                f"from one to the other. Write them in one unit, or open them apart."
            )
        if factor != 1 or shift:
            _bring(part, name, factor, shift * (conversion("s", unit) or 1.0))
    return unit


def _shift(unit: str, other: str, part: Part, lead: Part) -> float | None:
    """Return the seconds from the date one file counts its times from to that of another; None: not comparable."""
    here, there = origin(unit), origin(other)
    calendars = [
        str(p.container.attributes(p.prefixes[0] + (_array(p.mapping.time) or "")).get("calendar", "")).lower()
        for p in (part, lead)
    ]
    real = all(c in _REAL_CALENDARS for c in calendars)
    if here is None and there is None:
        return 0.0
    if not real and calendars[0] != calendars[1]:
        return None
    if isinstance(here, np.datetime64) and isinstance(there, np.datetime64):
        if here == there:
            return 0.0
        return float((here - there) / np.timedelta64(1, "s")) if real else None
    return 0.0 if here == there else None


def _bring(part: Part, name: str, factor: float, shift: float) -> None:
    if name in part.mapping.fields:
        part.rescale(name, factor)
    elif name == "time":
        part.time = replace(part.time, values=part.time.values * factor + shift)
    elif name in part.axes:
        axis = part.axes.index(name)
        nodes = part.space[axis]
        length = None if nodes.length is None else nodes.length * factor
        part.space[axis] = replace(nodes, values=nodes.values * factor, length=length)
    else:
        part.parameters[name] = part.parameters[name] * factor
