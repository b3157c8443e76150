"""Argument parsers of the simple verbs, and readers of common argument forms."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pdessl.errors import PdesslError

__all__ = ["Parser", "integers", "sizes", "split_rules"]


class _HelpAll(argparse.Action):
    """Print everything there is to say about a verb, and stop."""

    def __init__(self, option_strings: Sequence[str], dest: str, **words: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **words)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        assert isinstance(parser, Parser)  # noqa: S101  (no other class adds it)
        print(parser.format_all())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An argument parser for one verb, whose mistakes are reported like all other errors of the user.

    Args:
        verb: the word after ``pdessl``.
        description: what the verb does, in the user's words.
        examples: lines to copy, shown at the end of ``--help``.
        python: the Python call that does the same.
    """

    def __init__(self, verb: str, description: str, examples: Sequence[str] = (), python: str = "") -> None:
        epilog = "Examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else ""
        if python:
            epilog += "\n\nIn Python:\n" + "\n".join(f"  {line}" for line in python.splitlines())
        super().__init__(
            prog=f"pdessl {verb}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--help-all",
            action=_HelpAll,
            help="this, and every key of the recipe that --set may change, where there is one",
        )

    def format_all(self) -> str:
        """Return the help of a verb and of all settings behind it; a verb with a recipe has more than its options."""
        return self.format_help()

    def add_changes(self, what: str, example: str, printed: bool = True) -> None:
        """Add ``--set KEY=VALUE``, spelled and read alike in every verb, and ``--print_config``.

        Args:
            what: the file whose values are changed, in the user's words.
            example: of a word.
            printed: whether the verb can print the file with all changes.
        """
        self.add_argument(
            "--set",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help=f"other values for keys of the {what}, as YAML, e.g. {example}; repeatable",
        )
        if printed:
            self.add_argument(
                "--print_config", action="store_true", help=f"print the {what} with all changes, ready to run, and stop"
            )

    def add_allowed(self) -> None:
        """Add ``--allow``, for recipes that name classes of the user's own."""
        self.add_argument(
            "--allow",
            action="append",
            default=[],
            metavar="MODULE",
            help="module or package of your own whose classes the recipe may name; importing it runs its code",
        )

    def require(self, options: argparse.Namespace, *names: str) -> None:
        """Refuse options that are missing, unless only the settings are to be printed."""
        missing = [f"--{name}" for name in names if getattr(options, name) is None]
        if missing and not options.print_config:
            self.error(f"the following arguments are required: {', '.join(missing)}")

    def mapping(self, options: argparse.Namespace) -> Any:
        """Return the mapping that ``--mapping`` names, with the changes of ``--set``; print it where that is asked for.

        None where files are to be recognised: what is recognised cannot be changed before it is.
        """
        if options.mapping is None:
            if options.set or options.print_config:
                self.error("--set and --print_config are about a mapping; give --mapping NAME ('pdessl list datasets')")
            return None
        from pdessl.data.formats import load_mapping
        from pdessl.schema import dump_yaml

        found = load_mapping(options.mapping, options.set)
        if options.print_config:
            print(dump_yaml(found.content), end="")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        dotted = re.search(r"unrecognized arguments: .*?--(\w+(?:\.\w+)+)", message)
        advice = f" Other values are given as  --set {dotted[1]}=VALUE ." if dotted else ""
        raise PdesslError(f"{self.prog}: {message}.{advice} '{self.prog} --help' explains the options.")


def integers(text: str) -> list[int]:
    """Read ``32,64,256`` as a list of positive whole numbers."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers like 32,64,256") from None
    if any(value <= 0 for value in values):
        raise argparse.ArgumentTypeError(f"'{text}': every number must be positive")
    return values


def sizes(text: str) -> dict[str, int] | int:
    """Read ``1000``, or ``unlabelled=2048,test=512``, as the sizes of a dataset's splits."""
    if "=" not in text:
        return integers(text)[0]
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor like unlabelled=2048,test=512")
    return {name.strip(): integers(value)[0] for name, value in pairs}


def split_rules(words: Sequence[str]) -> dict[str, str]:
    """Read ``labelled=known,test=0.2`` as which runs are in which split."""
    pairs = [part.split("=", 1) for word in words for part in word.split(",") if part]
    for pair in pairs:
        if len(pair) != 2 or not re.fullmatch(r"\w+", pair[0]) or not pair[1]:
            raise PdesslError(f"--split {'='.join(pair)}: expected NAME=RUNS, as in labelled=known,test=0.2")
    return {name: rule for name, rule in pairs}
