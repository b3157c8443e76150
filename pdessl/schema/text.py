"""The dialect of YAML: plain data only, the scalars of YAML 1.2, bounded in depth and in what aliases expand to."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pdessl.errors import SchemaError

__all__ = ["DEPTH", "dump_value", "dump_yaml", "parse_yaml", "read_yaml"]

DEPTH = 64  # of nested lists and mappings
_NODES = 100_000  # values of a file, those that aliases repeat counted each time
_TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2.2 (section 10.3.2): yes, no, on, off, nan, 1:30, 1_000 and dates are text; 1e-3 is a
# number. YAML 1.1, PyYAML's own, makes the name of a field y a boolean, 1:30 the number 90, and 1e-3 a text.
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Makes mappings, lists, text, numbers, true, false and null, and nothing else."""

    # Merge keys (<<) are no part of YAML 1.2 either; recipes share settings by them.
    yaml_implicit_resolvers = {"<": [(_TAG + "merge", re.compile(r"^(?:<<)$"))]}
    yaml_constructors = {
        tag: function
        for tag, function in yaml.SafeLoader.yaml_constructors.items()
        if tag in (None, *(_TAG + kind for kind in ("null", "bool", "str", "seq", "map")))
    }

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise yaml.composer.ComposerError(None, None, "an alias stands inside what it names", mark)
            self._count += self._sizes[id(node)]
        else:
            before, self._depth = self._count, self._depth + 1
            if self._depth > DEPTH:
                raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEPTH} levels", mark)
            node = super().compose_node(parent, index)
            self._depth, self._count = self._depth - 1, self._count + 1
            self._sizes[id(node)] = self._count - before
        if self._count > _NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {_NODES} values, aliases written out", mark)
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    try:
        return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)
    except ValueError:  # '!!int x', or thousands of digits
        raise yaml.constructor.ConstructorError(None, None, "not a whole number", node.start_mark) from None


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    try:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # '!!float x'
        raise yaml.constructor.ConstructorError(None, None, "not a number", node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads back as it was; text that either version of YAML takes for another is quoted.

    What aliases name is written out.
    """

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _LineDumper(_Dumper):
    """Writes text with line ends as one line, in double quotes."""

    def represent_str(self, data: str) -> yaml.Node:
        return self.represent_scalar(_TAG + "str", data, style=None if data.isprintable() else '"')


_LineDumper.add_representer(str, _LineDumper.represent_str)
_Loader.add_constructor(_TAG + "int", _integer)
_Loader.add_constructor(_TAG + "float", _float)
for _kind, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Read text in the dialect of this project.

    Plain data only: no tag makes an object. Scalars are those of YAML 1.2: ``1e-3`` is a number; ``yes``, ``no``,
    ``on``, ``off``, ``nan`` and ``inf`` are text (``.nan`` and ``.inf`` are numbers). No key is given twice; nesting,
    and what aliases expand to, are bounded.

    Args:
        text: of one document, UTF-8 where it is bytes.
        where: what it is, for messages.

    Raises:
        SchemaError: the text is not that.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader that knows fewer tags)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SchemaError(f"{where}: not YAML that can be read: {_told(error)}") from None


def _told(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + ", ".join(part for part in (error.context, error.problem) if part) + "."


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file whose top level is a mapping of named keys, see :func:`parse_yaml`.

    Raises:
        SchemaError: the file is not YAML, or its top level is not a mapping.
    """
    with open(path, "rb") as handle:
        content = parse_yaml(handle.read(), os.fspath(path))
    if not isinstance(content, dict):
        raise SchemaError(f"{path}: expected a mapping of keys at the top level, found {type(content).__name__}.")
    return content


def dump_yaml(content: Any) -> str:
    """Write plain data, or a dataclass, as a text that :func:`parse_yaml` reads back equal; tuples become lists."""
    return yaml.dump(_plain(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dump_value(value: Any) -> str:
    """Write one value as a single line that :func:`parse_yaml` reads back equal, for a word of a command line."""
    text = yaml.dump(_plain(value), Dumper=_LineDumper, default_flow_style=True, allow_unicode=True, width=2**30)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(content: Any) -> Any:
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {f.name: _plain(getattr(content, f.name)) for f in dataclasses.fields(content)}
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return content
