"""``pdessl list``: the equations, datasets, recipes and classes there are by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence

from pdessl import catalog
from pdessl.cli.parsing import Parser
from pdessl.errors import CatalogError, SchemaError, did_you_mean
from pdessl.written import say

__all__ = ["entries", "main"]

_CLASSES = {"encoders": "pdessl.models", "objectives": "pdessl.objectives"}


def _title(kind: str, name: str) -> str:
    try:
        content = catalog.read(kind, name)
    except SchemaError as error:
        return f"(cannot be read: {error})"
    return " ".join(str(content.get("title") or content.get("description") or "").split())


def _modules(kind: str) -> dict[str, str]:
    module = importlib.import_module(_CLASSES[kind])
    found = {}
    for name in module.__all__:
        value = getattr(module, name)
        advice = getattr(value, "choose_when", None)
        if inspect.isclass(value) and advice:
            found[name] = f"{module.__name__}.{name}: {(inspect.getdoc(value) or '').splitlines()[0]}"
            found[name] += f"\n      when: {advice}" if advice else ""
    return found


def entries(kind: str) -> dict[str, str]:
    """Return the names of a kind with a line about each.

    Args:
        kind: ``symmetries``, ``datasets``, ``configs``, ``environments``, ``encoders`` or ``objectives``.

    Raises:
        CatalogError: no such kind.
    """
    if kind in _CLASSES:
        return _modules(kind)
    if kind not in catalog.KINDS:
        known = (*catalog.KINDS, *_CLASSES)
        raise CatalogError(f"no kind '{kind}' to list.{did_you_mean(kind, known)} Kinds: {', '.join(known)}.")
    others: dict[str, list[str]] = {}
    for alias, name in catalog.aliases(kind).items():
        others.setdefault(name, []).append(alias)
    return {
        name: _title(kind, name) + (f" (also: {', '.join(others[name])})" if name in others else "")
        for name in catalog.names(kind)
    }


def main(arguments: Sequence[str]) -> int:
    """Print one kind, or the content folders."""
    parser = Parser(
        "list",
        "Print what there is by name: equations (symmetries), datasets, recipes (configs), environments, encoders,\n"
        "objectives.\n"
        "Folders of your own are found through the environment variable PDESSL_PATH.",
        examples=["pdessl list", "pdessl list datasets"],
        python="from pdessl import catalog\ncatalog.names('datasets')",
    )
    parser.add_argument(
        "kind",
        nargs="?",
        help="symmetries, datasets, configs, environments, encoders or objectives; default the first four",
    )
    options = parser.parse_args(arguments)
    for kind in [options.kind] if options.kind else catalog.KINDS:
        found = entries(kind)
        width = max(map(len, found), default=0)
        say(f"{kind}:" if found else f"{kind}: none")
        for name, line in found.items():
            say(f"  {name:<{width}}  {line}".rstrip())
    return 0
