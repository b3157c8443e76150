"""The README's Python examples are short, and what it says about commands and folders is true."""

import re
from pathlib import Path

import pdessl
from pdessl.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_examples_are_short_and_say_what_is_printed():
    """That they run is in tests/test_docs.py."""
    first, second = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line for line in first.splitlines() if line.strip()]
    assert len(lines[: [i for i, line in enumerate(lines) if "pdessl.pretrain" in line][0] + 1]) <= 8
    said = re.search(r'text\(\)\["x"\]\)\s+# (.*)', second).group(1).strip()
    assert pdessl.symmetries("burgers")["galilean_boost"].flow.text()["x"] == said


def test_every_folder_of_the_map_exists_and_every_package_is_in_it():
    named = set(re.findall(r"^\| `([a-z_/]+)/` \|", TEXT, flags=re.MULTILINE))
    assert all((ROOT / name).is_dir() for name in named)
    packages = {f"pdessl/{p.parent.name}" for p in (ROOT / "pdessl").glob("*/__init__.py")}
    assert packages <= named


def test_the_commands_exist():
    section = TEXT[TEXT.index("is a verb of its own") : TEXT.index("## In Python")]
    verbs = set(re.findall(r"`(?:pdessl )?([a-z]+)`", section))
    assert verbs | {"quickstart"} == set(VERBS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^    make (\w+)", TEXT, flags=re.MULTILINE)) <= targets


def test_pictures_are_there_and_small():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
        assert (ROOT / path).stat().st_size < 400_000
