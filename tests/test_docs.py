"""Every Python block of the README and of docs/ runs as it is printed, on tiny data under the names it mentions.

The blocks of a page share their names, from top to bottom. ``pdessl``, ``torch``, ``np`` and ``xr`` are imported.
``ds`` is a dataset of labelled Burgers runs (on the page on data: one with the names of another program).
The folder holds ``data/burgers`` (a store), ``data/NavierStokes2D_cond`` (PDEArena's layout),
``runs/x`` (a pretrained encoder) and ``new_runs.nc``. Three conventions:

* a block that ends in a comment ``# SomeError: text`` raises that error, and its message begins with that text;
* a block opened by ````` ```python no-run: REASON ````` is left out;
* one opened by ````` ```python needs: PACKAGE ````` is left out where that package is not installed.
"""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pdessl
from pdessl import errors
from pdessl.data import generate, simulate
from pdessl.models import ConvEncoder, Encoder, save_pretrained

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python(?P<words>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
RAISES = re.compile(r"^# (?P<kind>[A-Z]\w*(?:Error|Warning)): (?P<said>.*(?:\n# .*)*)\n*\Z", re.MULTILINE)
NEEDS = re.compile(r"needs: (?P<package>sbi)")  # extras that are not among those of the tests
MOST_LEFT_OUT = 2


def blocks(text):
    """(line of the first statement, words after ``python``, code) of every Python block."""
    return [
        (text[: found.start("code")].count("\n") + 1, found["words"].strip(), found["code"])
        for found in BLOCK.finditer(text)
    ]


def run(code, names, where, line=1):
    """Run one block as a reader would type it; see the module for those that end in an error."""
    compiled = compile("\n" * (line - 1) + code, where, "exec")
    expected = RAISES.search(code)
    if expected is None:
        exec(compiled, names)  # noqa: S102  (our own text)
        return
    with pytest.raises(getattr(errors, expected["kind"])) as raised:
        exec(compiled, names)  # noqa: S102  (our own text)
    said = " ".join(re.sub(r"^# ", "", expected["said"], flags=re.MULTILINE).split())
    assert " ".join(str(raised.value).split()).startswith(said)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The folder in which the pages are read."""
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    try:
        from layouts import pdearena_smoke
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("docs")
    generate(
        "burgers_small", folder / "data/burgers", size={"unlabelled": 32, "labelled": 32, "validation": 16, "test": 16}
    )
    smoke = folder / "data/NavierStokes2D_cond"
    smoke.mkdir()
    for mode, name in (
        ("train", "NavierStokes2D_train_1_0.30000_8.h5"),
        ("test", "NavierStokes2D_test_1_0.40000_3.h5"),
    ):
        pdearena_smoke(smoke / name, mode, float(name.split("_")[3]), n=8 if mode == "train" else 3, frames=18)
    runs = simulate("burgers_small", "labelled", range(32))
    torch.manual_seed(0)
    encoder = Encoder(ConvEncoder(width=8, blocks=(1, 1, 1)), [0.0], [0.6])
    with torch.no_grad():
        encoder(runs.fields)
    save_pretrained(folder / "runs/x", encoder)
    simulate("burgers_small", "test", range(8)).without_parameters().to_xarray().to_netcdf(folder / "new_runs.nc")
    return folder, runs.to_xarray()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_python_block_runs(page, stage, monkeypatch):
    folder, dataset = stage
    found = blocks(page.read_text(encoding="utf-8"))
    if not found:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(folder)
    foreign = {"time": "t", "viscosity": "nu"} if page.name == "data.md" else {}
    names = {"pdessl": pdessl, "torch": torch, "np": np, "xr": xr, "ds": dataset.rename(foreign)}
    for line, words, code in found:
        needed = NEEDS.fullmatch(words)
        if not words or (needed is not None and importlib.util.find_spec(needed["package"]) is not None):
            run(code, names, page.name, line)


def test_few_blocks_are_left_out_and_each_says_why():
    left_out = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(blocks(text)) == len(re.findall(r"^```py", text, re.MULTILINE)), (
            f"{page.name}: a block is not closed"
        )
        left_out += [words for _, words, _ in blocks(text) if words and not NEEDS.fullmatch(words)]
    assert len(left_out) <= MOST_LEFT_OUT
    assert all(re.fullmatch(r"no-run: .{15,}", words) for words in left_out), left_out


@pytest.mark.parametrize(
    "code, complaint",
    [
        ("import pdessl.nothing\n", ModuleNotFoundError),
        ("raise DataError('other')\n# DataError: this\n", AssertionError),
        ("pass\n# DataError: this\n", pytest.fail.Exception),
    ],
)
def test_a_block_that_does_not_do_what_it_says_is_found(code, complaint):
    with pytest.raises(complaint):
        run(code, {"DataError": errors.DataError}, "a page")
    run("raise DataError('this  and\\nthat')\n# DataError: this\n# and\n", {"DataError": errors.DataError}, "a page")
