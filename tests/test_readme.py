"""The README's Python example runs, and what it says about commands and folders is true."""

import contextlib
import io
import re
from pathlib import Path

from pdessl.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 18
    printed = io.StringIO()
    names = {}
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), names)  # noqa: S102  (our own text)
    first, *rest = printed.getvalue().splitlines()
    # What a comment beside a print says is what is printed.
    assert first == re.search(r'text\(\)\["x"\]\)\s+# (.*)', example).group(1).strip()
    predicted = names["probe"].predict(names["features"][32:]).exp()[:, 0]
    assert rest
    assert (predicted > 0).all()
    assert names["view"].fields.shape[-2:] == (16, 32)


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
