"""Plain data -> frozen dataclasses: keys, types and ranges are checked, and a mistake is told with its place.

The dataclasses of settings are read here and not by jsonargparse, which reads the classes that recipes name (networks,
objectives, trainers). Measured with jsonargparse 4.53: it takes the texts 'yes' and '1' for true and 1, reads values
typed ``Any`` a second time and imports the classes named in them, drops an unknown key whose value is ``{}``, and
changes what it is given.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pdessl.errors import SchemaError, did_you_mean

__all__ = [
    "Count", "Finite", "Natural", "Positive", "Range", "Share", "Size", "Text", "check_keys", "fill", "place",
    "read_value",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """What a number may be, in an annotation: ``steps: Annotated[int, Range(1)] = 300``. It is finite in any case.

    Args:
        low, high: bounds that the number may have.
        above, below: bounds that it may not have.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Say whether a number lies in the range."""
        inside = self.low <= value <= self.high and self.above < value < self.below
        return inside and (isinstance(value, int) or math.isfinite(value))  # whole numbers may be too large for a float

    def __str__(self) -> str:
        """Return the bounds in words, ``from 1 to 6`` or ``>= 1 and < 2``."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"from {self.low:g} to {self.high:g}"
        bounds = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        told = [f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound)]
        return " and ".join(told) or "that is finite"


Count: TypeAlias = Annotated[int, Range(1)]
Size: TypeAlias = Annotated[int, Range(0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
Natural: TypeAlias = Annotated[float, Range(0)]
Share: TypeAlias = Annotated[float, Range(0, 1)]
Finite: TypeAlias = Annotated[float, Range()]
#: Text for which YAML may have read a number, such as the coefficient ``2`` of a formula.
Text: TypeAlias = str | int | float

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


def place(where: str, key: str) -> str:
    """Return the place of a key: ``file: section`` at the top of a file, ``file: section.key`` inside."""
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def check_keys(content: Any, allowed: Collection[str] | None, required: Collection[str], where: str) -> None:
    """Check that ``content`` is a mapping with no key but the allowed ones (None: any), and with all required ones.

    Raises:
        SchemaError: with ``where`` (file and key), and the nearest allowed spelling of an unknown key.
    """
    if not isinstance(content, Mapping):
        raise SchemaError(f"{where}: expected a mapping, found {content!r}.")
    for key in content:
        if not isinstance(key, str):
            raise SchemaError(f"{where}: expected keys that are text, found {key!r}; put it in quotes.")
        if allowed is not None and key not in allowed:
            raise SchemaError(
                f"{where}: unknown key '{key}'.{did_you_mean(key, allowed)} Keys: {', '.join(allowed) or 'none'}."
            )
    for key in required:
        if key not in content:
            raise SchemaError(f"{where}: missing key '{key}'. Needed: {', '.join(required)}.")


def fill(kind: type[T], content: Any, where: str) -> T:
    """Return a dataclass filled from a mapping; what the mapping leaves out has its default, and so has what is null.

    Args:
        kind: the dataclass. Its fields may be numbers, text, booleans, ``Literal`` words, tuples, mappings from names,
            further dataclasses, unions of these, each in ``Annotated`` with a :class:`Range`, and ``Any``.
        content: what the file holds there, see :func:`pdessl.schema.parse_yaml`.
        where: the file, or ``file: key``, for messages.

    An integer is good where a number is expected; text is not, nor is a boolean.

    Raises:
        SchemaError: an unknown key (the nearest is suggested), a missing one, a value of another type or out of its
            range, with file and key, what was expected, and what was found.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a dataclass is hashable
    needed = [f.name for f in dataclasses.fields(kind) if _has_no_default(f)]  # type: ignore[arg-type]
    check_keys(content, hints, needed, where)
    values = {
        key: read_value(hints[key], value, place(where, key))
        for key, value in content.items()
        if value is not None or key in needed or _fits(hints[key], None)
    }
    try:
        return kind(**values)
    except SchemaError as error:  # what a class checks itself, fields against each other
        raise SchemaError(f"{where}: {error}") from None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def read_value(hint: Any, value: Any, where: str) -> Any:
    """Return one value as its annotation says, see :func:`fill`.

    Raises:
        SchemaError: a value of another type, or out of its range.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated and _fits(hint, value):
        return _in_range(read_value(arguments[0], value, where), arguments[1:], hint, where)
    if origin in (typing.Union, types.UnionType):
        return read_value(_member(hint, arguments, value, where), value, where)
    if dataclasses.is_dataclass(hint):
        return fill(typing.cast(type, hint), value, where)
    if not _fits(hint, value):
        near = did_you_mean(value, map(str, arguments)) if origin is Literal and isinstance(value, str) else ""
        raise SchemaError(f"{where}: expected {_told(hint)}, found {value!r:.200}.{near}")
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(read_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin in (dict, Mapping):
        check_keys(value, None, (), where)
        return {key: read_value(arguments[1], inner, place(where, key)) for key, inner in value.items()}
    if hint is not float:
        return value
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise SchemaError(f"{where}: expected {_told(hint)}, found a number that is too large.") from None


def _in_range(value: Any, bounds: tuple[Any, ...], hint: Any, where: str) -> Any:
    """Check a number, or every number of a list, against the ranges of its annotation."""
    for bound in bounds:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(bound, Range) and isinstance(number, (int, float)) and not bound.holds(number):
                raise SchemaError(f"{where}: expected {_told(hint)}, found {value!r}.")
    return value


def _member(hint: Any, members: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return the member of a union that a value is meant for: the first that its kind fits."""
    for member in members:
        if _fits(member, value):
            return member
    # A list of the wrong length, say, is best explained by the only member that is a list.
    alike = [m for m in members if m is not type(None)]
    if len(alike) == 1:
        return alike[0]
    words = [w for m in members if typing.get_origin(m) is Literal for w in typing.get_args(m)]
    near = did_you_mean(value, words) if isinstance(value, str) else ""
    raise SchemaError(f"{where}: expected {_told(hint)}, found {value!r:.200}.{near}")


def _fits(hint: Any, value: Any) -> bool:
    """Say whether the kind of a value is that of the annotation; what is inside it, and ranges, come later."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(member, value) for member in arguments)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in arguments)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and (arguments[-1] is Ellipsis or len(arguments) == len(value))
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return hint is Any or (isinstance(value, hint) and (hint is bool or not isinstance(value, bool)))


def _told(hint: Any) -> str:
    """Return what a value may be, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([_told(arguments[0]), *(str(b) for b in arguments[1:] if isinstance(b, Range))])
    if origin in (typing.Union, types.UnionType):
        told = [_told(member) for member in arguments if member is not type(None)]
        return " or ".join(dict.fromkeys(told))
    if origin is Literal:
        return " or ".join(f"'{word}'" if isinstance(word, str) else str(word) for word in arguments)
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a mapping"
    return _WORDS[hint]
