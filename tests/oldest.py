"""Print the lower bounds of pyproject.toml as constraints, for ``make test-oldest``: python tests/oldest.py."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BOUND = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?(>=|==)([0-9][0-9a-z.]*)(?:,<[0-9.]+)?")
# Packages of which an old dependency cannot take the newest, though it does not say so.
COMPANIONS = ("pyparsing<3.2",)  # matplotlib 3.8 calls functions that 3.3 warns of; warnings are errors here


def pins(text: str) -> dict[str, str]:
    """Package -> lowest version, of the dependencies and the extra ``test``."""
    project = tomllib.loads(text)["project"]
    found = {}
    for said in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        bound = BOUND.fullmatch(said)
        if bound is None:
            raise SystemExit(f"pyproject.toml: '{said}' has no lower bound of the form name>=1.2")
        found[bound[1]] = bound[3]
    return found


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in pins(PROJECT.read_text(encoding="utf-8")).items()), sep="\n")
    print(*COMPANIONS, sep="\n")
