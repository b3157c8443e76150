"""Units of one file beside those of another: by what factor their numbers differ, or that they measure other things."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np

__all__ = ["conversion", "origin"]

_PREFIXES = {
    "n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1, "": 1.0, "h": 1e2, "k": 1e3, "M": 1e6,
    "G": 1e9,
}  # fmt: skip
# symbol -> what one of it is in base units, and the powers of these
_UNITS: dict[str, tuple[float, dict[str, int]]] = {
    "m": (1.0, {"m": 1}),
    "s": (1.0, {"s": 1}),
    "g": (1e-3, {"kg": 1}),
    "K": (1.0, {"K": 1}),
    "Hz": (1.0, {"s": -1}),
    "N": (1.0, {"kg": 1, "m": 1, "s": -2}),
    "Pa": (1.0, {"kg": 1, "m": -1, "s": -2}),
    "J": (1.0, {"kg": 1, "m": 2, "s": -2}),
    "W": (1.0, {"kg": 1, "m": 2, "s": -3}),
}
# words that take no prefix
_WORDS: dict[str, tuple[float, dict[str, int]]] = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), _UNITS["s"]),
    **dict.fromkeys(("millisec", "msec", "millisecond", "milliseconds"), (1e-3, {"s": 1})),
    **dict.fromkeys(("microsec", "microsecond", "microseconds"), (1e-6, {"s": 1})),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), _UNITS["m"]),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), (60.0, {"s": 1})),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (3600.0, {"s": 1})),
    **dict.fromkeys(("d", "day", "days"), (86400.0, {"s": 1})),
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SINCE = re.compile(r"\s+since\s+", re.IGNORECASE)
_FACTOR = re.compile(r"(?P<divided>/?)\s*(?:(?P<word>[A-Za-zµμ_]+)\^?(?P<power>[-+]?\d{1,2}(?!\d))?|1)\s*")


def conversion(found: str, wanted: str) -> float | None:
    """Return the factor that takes numbers in one unit to another; None where they cannot be compared.

    Products and powers are read in the usual spellings (``m/s``, ``m s-1``, ``m**2 / s``, ``m²/s``), with the decimal
    prefixes n to G. A word that is no unit of the table (``length``, ``temperature``) stands for itself. Units with
    another zero, such as degrees Celsius, are such words too: no factor leads from one to the other. Of times since a
    date (``days since 2000-01-01``) the unit before ``since`` counts; :func:`origin` compares the dates.

    Args:
        found: unit of the numbers.
        wanted: unit they shall have.
    """
    if found == wanted and found:
        return 1.0
    one, other = _parsed(_SINCE.split(found)[0]), _parsed(_SINCE.split(wanted)[0])
    if one is None or other is None or one[1] != other[1]:
        return None
    factor = one[0] / other[0]
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-12) else factor


def origin(unit: str) -> np.datetime64 | str | None:
    """Return the date that times are counted from: None where the unit names none, its text where that is no date.

    Args:
        unit: such as ``days since 2000-01-01 06:00``.
    """
    parts = _SINCE.split(unit)
    if len(parts) != 2:
        return None
    text = re.sub(r"\s*(?:UTC|Z|[+-]00?:?00)$", "", parts[1].strip())
    match = re.fullmatch(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2})(\.\d+)?)?)?", text)
    if match is None:
        return text
    year, month, day, hour, minute, second = (int(v or 0) for v in match.groups()[:6])
    plain = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{match[7] or '.0'}"
    try:
        return np.datetime64(plain, "us")
    except ValueError:
        return text


def _parsed(text: str) -> tuple[float, dict[str, int]] | None:
    """Return the size of a unit in base units and the powers of these; None where it is empty or cannot be read."""
    plain = text.translate(_SUPERSCRIPTS).replace("**", "^")
    plain = re.sub(r"\s*/\s*", "/", re.sub(r"[*·]", " ", plain)).strip()
    if not plain:
        return None
    size, powers, place = 1.0, Counter[str](), 0
    while place < len(plain):
        match = _FACTOR.match(plain, place)
        if match is None or match.end() == place:
            return None
        place = match.end()
        if match["word"] is None:
            continue
        power = int(match["power"] or 1) * (-1 if match["divided"] else 1)
        scale, base = _unit(match["word"])
        size *= scale**power
        for name, exponent in base.items():
            powers[name] += power * exponent
    return size, {name: power for name, power in powers.items() if power}


def _unit(word: str) -> tuple[float, dict[str, int]]:
    if word in _WORDS:
        return _WORDS[word]
    for end in (word[-2:], word[-1:]):
        if end in _UNITS and word[: -len(end)] in _PREFIXES:
            scale, base = _UNITS[end]
            return _PREFIXES[word[: -len(end)]] * scale, base
    return 1.0, {word: 1}
