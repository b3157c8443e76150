"""docs/simulators.md names every simulator, family and dataset, and shows every picture there is."""

import re
from pathlib import Path

from pdessl import catalog
from pdessl.solvers import FAMILIES, SIMULATORS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "simulators.md").read_text(encoding="utf-8")


def test_every_simulator_family_and_dataset_is_named():
    generated = [name for name in catalog.names("datasets") if "format" not in catalog.read("datasets", name)]
    marked = set(re.findall(r"`(\w+)`", PAGE)) | set(re.findall(r"^    .*  (\w+)$", PAGE, re.MULTILINE))
    assert {*SIMULATORS, *FAMILIES, *generated} - marked == set()


def test_every_picture_is_shown_and_exists():
    shown = set(re.findall(r"!\[[^]]+\]\((simulators/\w+\.png)\)", PAGE))
    assert shown == {f"simulators/{path.name}" for path in (DOCS / "simulators").glob("*.png")}
