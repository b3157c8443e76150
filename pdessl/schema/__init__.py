"""YAML or words of a command line -> a typed value: one dialect, one way to change a value, one reader of settings.

* :func:`read_yaml`, :func:`parse_yaml`, :func:`dump_yaml`: the dialect, that of every file and of every ``KEY=VALUE``.
* :func:`override`, :func:`merge`, :func:`read_words`: other values laid over what a file says.
* :func:`fill`, :class:`Range`: plain data -> frozen dataclasses with types and ranges.
"""

from pdessl.schema.filling import (
    Count,
    Finite,
    Natural,
    Positive,
    Range,
    Share,
    Size,
    Text,
    check_keys,
    fill,
    place,
    read_value,
)
from pdessl.schema.overriding import Overrides, merge, override, read_words, write_words
from pdessl.schema.text import dump_yaml, parse_yaml, read_yaml

__all__ = [
    "Count",
    "Finite",
    "Natural",
    "Overrides",
    "Positive",
    "Range",
    "Share",
    "Size",
    "Text",
    "check_keys",
    "dump_yaml",
    "fill",
    "merge",
    "override",
    "parse_yaml",
    "place",
    "read_value",
    "read_words",
    "read_yaml",
    "write_words",
]
