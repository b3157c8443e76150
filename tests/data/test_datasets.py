"""Every dataset that is shipped, through the command line: it generates, it opens, and it is what its file says."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch

import pdessl
from pdessl import catalog, cli
from pdessl.data import load_recipe
from pdessl.data.recipe_checks import DatasetFile, ObservationSettings, SolverSettings
from pdessl.errors import CatalogError, SchemaError
from pdessl.solvers import FAMILIES, FORCINGS, SIMULATORS

MAPPED = [name for name in catalog.names("datasets") if "format" in catalog.read("datasets", name)]
GENERATED = [name for name in catalog.names("datasets") if name not in MAPPED]


def interval(recipe):
    return float(recipe.times[1] - recipe.times[0])


@pytest.mark.parametrize("name", GENERATED)
def test_it_generates_resolved_and_finite_data_and_opens_again(name, tmp_path, capsys):
    recipe, out, changes = load_recipe(name), tmp_path / "store", []
    if short := recipe.dimensions > 1:
        # Minutes of two-dimensional turbulence are left out: three frames on the dataset's own grid with its own steps.
        changes = ["--set", "observation.frames=3", "observation.start=0", f"observation.end={2 * interval(recipe)}"]
        recipe = load_recipe(recipe, overrides=changes[1:])
    sizes = ",".join(f"{split}={2 if split == 'test' else 1}" for split in recipe.splits)
    assert cli.main(["generate", name, "--out", str(out), "--size", sizes, *changes]) == 0, capsys.readouterr().err
    store = pdessl.open(out)
    assert store.complete and store.verify() == [] and store.rejected_draws == 0
    data = store.load("test").check_finite()
    assert data.fields.shape[0] == 2 and data.fields.shape[2] == recipe.observation["frames"]
    assert tuple(data.fields.shape[3:]) == recipe.observed and data.axis_names == recipe.axis_names
    assert set(recipe.content["fields"]) == set(data.field_names)
    assert set(recipe.parameters) <= set(data.parameters)
    assert recipe.records_coefficients == (set(recipe.parameters) != set(data.parameters))
    assert not store.load("unlabelled").parameters
    for parameter, distribution in recipe.parameters.items():
        values = data.parameters[parameter]
        assert distribution.low - 1e-12 <= values.min() and values.max() <= distribution.high + 1e-12
    found = pdessl.data.inspect(out)
    # A scheme that smooths what its grid cannot hold says so in its file; inspect warns of it all the same.
    smoothed = "scheme" in recipe.content["solver"].get("arguments", {})
    assert [text for text in found.warnings if not (smoothed and "under-resolved" in text)] == []
    assert cli.main(["inspect", str(out)]) == 0 and recipe.content["title"] in capsys.readouterr().out
    for field, level in zip(data.field_names, recipe.noise(data.field_names), strict=True):
        assert level == 0 or short or 0.01 < level / found["fields"][field]["rms"] < 0.15


@pytest.mark.parametrize("name", GENERATED)
def test_its_file_is_whole_and_names_an_equation_with_its_parameters(name):
    recipe = load_recipe(name)
    assert recipe.content["title"] and recipe.content["known"] and recipe.content["chosen"]
    assert list(recipe.splits) == ["unlabelled", "labelled", "validation", "test"]
    assert not recipe.splits["unlabelled"]["labels"] and recipe.times[-1] == recipe.observation["end"]
    declared = catalog.read("symmetries", recipe.equation).get("parameters", {})
    # A force has parameters that the equation of the symmetries does not have.
    assert {entry["name"] for entry in declared.values()} <= set(recipe.parameters)


@pytest.mark.parametrize("name", GENERATED)
def test_a_shard_fits_into_memory(name):
    recipe = load_recipe(name)
    fields = max(1, len(recipe.content["fields"]))
    values = recipe.shard_size * fields * recipe.observation["frames"] * math.prod(recipe.observed)
    assert 8 * values < 2 * 2**30


def test_the_sets_of_the_reference_paper_have_its_sizes():
    expected = {"kdv": (256, 128), "ks": (256, 128), "burgers": (448, 224)}
    for equation, grid in expected.items():
        recipe = load_recipe(f"reference_{equation}")
        assert (recipe.observation["frames"], *recipe.observed) == grid
        assert recipe.splits["unlabelled"]["size"] == 10000


def test_the_page_on_dataset_files_names_every_key_family_and_simulator():
    page = (Path(catalog.folders("datasets")[-1]) / "README.md").read_text()
    kinds = (DatasetFile, ObservationSettings, SolverSettings)
    keys = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    named = [*FAMILIES, *FORCINGS, *SIMULATORS, *keys, "float32", "float64"]
    assert [name for name in named if not re.search(rf"`[^`]*\b{name}\b[^`]*`", page)] == []


def test_an_alias_is_the_dataset_it_stands_for(capsys):
    assert load_recipe("ks").name == "reference_ks" and load_recipe("ks").hash == load_recipe("reference_ks").hash
    assert cli.main(["list", "datasets"]) == 0
    listed = capsys.readouterr().out
    assert "(also: ks)" in listed and all(f"  {name} " in listed for name in (*GENERATED, *MAPPED))
    with pytest.raises(CatalogError, match="no dataset named 'kss'"):
        load_recipe("kss")


def test_the_users_own_file_goes_before_an_alias(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    own = catalog.find("datasets", "burgers_small").read_text()
    (tmp_path / "datasets" / "ks.yaml").write_text(own)
    monkeypatch.setenv("PDESSL_PATH", str(tmp_path))
    assert load_recipe("ks").equation == "burgers"


def test_a_mapping_is_not_generated_and_the_message_says_what_it_is():
    with pytest.raises(SchemaError, match=r"maps files of another format.*pdessl inspect PATH"):
        load_recipe(MAPPED[0])


def test_overrides_and_arithmetic_on_the_command_line(tmp_path, capsys):
    words = ["generate", "burgers_small", "--size", "unlabelled=1,labelled=1,validation=1,test=3", "--workers", "1"]
    changes = ["--set", "observation.noise=0", "parameters.viscosity={distribution: uniform, low: 0.1, high: 0.11}"]
    for folder, more in (("double", []), ("single", ["--dtype", "float32"])):
        assert cli.main([*words, *changes, *more, "--out", str(tmp_path / folder)]) == 0
    double, single = (pdessl.open(tmp_path / folder) for folder in ("double", "single"))
    assert single.recipe.content["solver"]["precision"] == "float32" and double.recipe.hash != single.recipe.hash
    first, second = double.load("test"), single.load("test")
    assert first.parameters["viscosity"].min() >= 0.1 and first.parameters["viscosity"].max() <= 0.11
    difference = (first.fields - second.fields).abs().max()
    assert 0 < difference < 1e-5
    # What its file says need not be said again, but can be changed.
    assert cli.main([*words, *changes, "--dtype", "float64", "--resume", "--out", str(tmp_path / "double")]) == 0
    back = [*words, *changes, "solver.precision=float32", "--dtype", "float64", "--out", str(tmp_path / "back")]
    assert cli.main(back) == 0
    assert torch.equal(pdessl.open(tmp_path / "back").load("test").fields, first.fields)
    assert "burgers_small: 1 unlabelled, 1 labelled, 1 validation, 3 test; 18.4 kB" in capsys.readouterr().out
    assert cli.main([*words, "--out", str(tmp_path / "x"), "--set", "observation.nois=0"]) == 2
    assert "Did you mean 'noise'" in capsys.readouterr().err
    assert cli.main([*words, "--out", str(tmp_path / "x"), "--set", "noise"]) == 2
    assert "is not like section.key=value" in capsys.readouterr().err
    assert cli.main([*words[:-1], "many", "--out", str(tmp_path / "x")]) == 2
    assert "'many' is not a number of threads" in capsys.readouterr().err


def test_arithmetic_that_a_simulator_does_not_have_is_refused(monkeypatch):
    from pdessl.solvers import SIMULATORS, Burgers

    class Old(Burgers):
        def __init__(self, viscosity, domain_length=1.0, points=64, check_resolution=True, substeps=None, dtype=None):
            super().__init__(viscosity, domain_length, points)

    monkeypatch.setitem(SIMULATORS, "old", Old)
    with pytest.raises(SchemaError, match="solver.precision: Old calculates in float64 only"):
        load_recipe("burgers_small", overrides={"solver.simulator": "old", "solver.precision": "float32"})
    with pytest.raises(SchemaError, match="precision: expected 'float32' or 'float64', found 'float16'. Did you"):
        load_recipe("burgers_small", overrides={"solver.precision": "float16"})
