"""The page on choosing names every objective and encoder there is, and none that there is not; so does the command."""

import re
from pathlib import Path

import pytest

import pdessl.augmentation
import pdessl.models
import pdessl.objectives
import pdessl.tasks
from pdessl import catalog
from pdessl.cli.catalogs import entries

PAGE = Path(__file__).parent.parent / "docs/choosing.md"
TEXT = PAGE.read_text(encoding="utf-8")
PACKAGES = (pdessl.models, pdessl.objectives, pdessl.augmentation, pdessl.tasks)


@pytest.mark.parametrize("kind", ["objectives", "encoders"])
def test_every_one_that_exists_is_named_and_says_when(kind):
    found = entries(kind)
    assert len(found) >= 3
    for name, line in found.items():
        assert f"`{name}`" in TEXT, name
        assert "when: " in line


def test_encoders_are_listed_by_what_they_are():
    assert set(entries("encoders")) == {"ConvEncoder", "ConvNeXtEncoder", "EnergyEncoder", "SpaceTimeTransformer"}
    assert {"VICReg", "TemporalJEPA", "CrossForecast", "SIGReg"} <= set(entries("objectives"))


def test_everything_named_exists():
    words = set(re.findall(r"`([A-Za-z]\w+)`", TEXT))
    classes = {w for w in words if w[0].isupper() and w not in ("PARAMETER",)}
    assert len(classes) > 15
    for name in classes:
        assert any(hasattr(package, name) for package in PACKAGES), name
    recipes = {w for w in words if re.match(r"(burgers|ks|kdv|smoke)_", w)}
    assert len(recipes) >= 4
    for name in recipes:
        catalog.find("configs", name)


def test_it_is_advice_short_enough_to_read():
    assert len(TEXT.splitlines()) < 170  # a screen on routes, and the rest of before


def test_numbers_on_the_noise_floor_are_those_of_the_code():
    assert f"{pdessl.objectives.equilibrium_std(64, 512):.2f} for n = 64, D = 512" in TEXT
    for rows in (64, 32):
        assert f"{int(1 + 25 * (rows - 1) / 8)} at n = {rows}" in TEXT
