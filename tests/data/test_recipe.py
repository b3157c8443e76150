"""Dataset files are read strictly."""

import math

import numpy as np
import pytest

from pdessl.data import Distribution, load_recipe
from pdessl.errors import CatalogError, SchemaError
from pdessl.solvers import random_stream


def test_unknown_dataset_suggests_the_nearest():
    with pytest.raises(CatalogError, match="no dataset named 'burger_smal'. Did you mean 'burgers_small'"):
        load_recipe("burger_smal")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"observation.nois": 0.1}, "unknown key 'nois'. Did you mean 'noise'"),
        ({"observation.noise": -0.1}, "observation.noise: expected a number >= 0, found -0.1"),
        ({"observation.points": "many"}, "observation.points: expected an integer >= 2 or a mapping, found 'many'"),
        ({"observation.end": 0.0}, "observation.end: expected a number > 0"),
        ({"observation.start": 9.0}, "expected start < end"),
        ({"observation.noise": float("inf")}, "observation.noise: expected a number >= 0, found inf"),
        ({"observation.end": ".nan"}, "observation.end: expected a number > 0, found '.nan'"),
        (["observation.end=.nan"], "observation.end: expected a number > 0, found nan"),
        (["observation.noise=nan"], "observation.noise: expected a number >= 0 or a mapping, found 'nan'"),
        ({"observation.sampling": "cell_averages"}, "Did you mean 'cell_average'"),
        ({"solver.points": 100}, "100 is not a multiple of the 32 observed points. Use 128"),
        ({"solver.points": 4}, "solver.points: expected an integer >= 8, found 4"),
        ({"solver.time_step": 0.1}, "time_step or courant, not both"),
        ({"solver.courant": 0.0}, "solver.courant: expected a number > 0"),
        (
            {"parameters.viscosity": {"distribution": "log_uniform", "low": 0.0, "high": 1.0}},
            "parameters.viscosity.low: expected a number > 0, found 0.0",
        ),
        (
            {"parameters.viscosity": {"distribution": "log-uniform", "low": 0.1, "high": 1}},
            "Did you mean 'log_uniform'",
        ),
        ({"parameters.viscosity": {"distribution": "uniform", "low": 0.1}}, "missing key 'high'"),
        ({"parameters.viscosty": 0.1}, "unknown key 'viscosty'. Did you mean 'viscosity'"),
        ({"parameters.viscosity": None}, "missing key 'viscosity'"),
        ({"parameters.viscosity": "0.1"}, "parameters.viscosity: expected a number that is finite or a mapping"),
        ({"sed": None}, "unknown key 'sed'. Did you mean 'seed'"),
        ({"initial_condition.family": "sines"}, "Known: sine_series"),
        ({"initial_condition.wavenumbers": [1, 2]}, "Did you mean 'wave_numbers'"),
        ({"initial_condition.terms": 0}, "terms must be >= 1"),
        ({"splits.test.size": -1}, "splits.test.size: expected an integer >= 0, found -1"),
        ({"splits.test.labels": "no"}, "expected true or false"),
        ({"domain.length": -1.0}, "domain.length: expected > 0"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"shard_size": 0}, "shard_size: expected an integer >= 1"),
        ({"fields.w": {"unit": "m"}}, "fields: unknown key 'w'"),
        ({"solver.arguments": {"viscosity": 1.0}}, "solver.arguments: unknown key 'viscosity'"),
        ({"sed": 1}, "unknown key 'sed'. Did you mean 'seed'"),
    ],
)
def test_schema_errors_name_the_key_and_the_repair(overrides, message):
    with pytest.raises(SchemaError, match="burgers_small.*") as caught:
        load_recipe("burgers_small", overrides=overrides)
    assert message in str(caught.value)


def test_unknown_simulator_and_split():
    with pytest.raises(CatalogError, match="no simulator named 'burger'. Did you mean 'burgers'"):
        load_recipe("burgers_small", overrides={"solver.simulator": "burger"})
    with pytest.raises(CatalogError, match="is code of another package.*with --allow nowhere"):
        load_recipe("burgers_small", overrides={"solver.simulator": "nowhere.Solver"})
    with pytest.raises(CatalogError, match="cannot import simulator 'nowhere.Solver'"):
        load_recipe("burgers_small", overrides={"solver.simulator": "nowhere.Solver"}, allow=["nowhere"])
    with pytest.raises(CatalogError, match="is not a subclass"):
        load_recipe("burgers_small", overrides={"solver.simulator": "json.JSONDecoder"})
    with pytest.raises(CatalogError, match="has no split 'tests'. Did you mean 'test'"):
        load_recipe("burgers_small", size={"tests": 4})


def test_sizes_and_hash():
    recipe = load_recipe("burgers_small", size=7)
    assert recipe.splits["unlabelled"] == {"size": 7, "labels": False} and recipe.splits["test"]["size"] == 2
    assert recipe.hash != load_recipe("burgers_small").hash
    assert load_recipe("burgers_small", overrides={"about": "other words"}).hash == load_recipe("burgers_small").hash
    assert load_recipe("burgers_small", overrides={"seed": 1}).hash != load_recipe("burgers_small").hash


def test_one_number_is_the_size_of_the_first_split_and_the_others_shrink_with_it_but_do_not_grow():
    def sizes(size):
        return [split["size"] for split in load_recipe("burgers_small", size=size).splits.values()]

    assert sizes(None) == sizes(48) == [48, 16, 8, 8]
    assert sizes(12) == [12, 4, 2, 2] and sizes(1) == [1, 1, 1, 1] and sizes(0) == [0, 0, 0, 0]
    assert sizes(1000) == [1000, 16, 8, 8]
    assert sizes({"labelled": 5}) == [48, 5, 8, 8]
    with pytest.raises(SchemaError, match="expected an integer >= 0, found -3"):
        sizes(-3)


def test_the_size_on_disk_is_known_beforehand():
    recipe = load_recipe("boussinesq_small", size=1)
    t, x, y, fields = recipe.observation["frames"], *recipe.observed, len(recipe.content["fields"])
    assert recipe.nbytes == 4 * fields * t * x * y * 4


@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_the_drawn_range_is_the_documented_one(kind):
    distribution = Distribution.parse({"distribution": kind, "low": 0.01, "high": 0.1}, "here")
    values = np.array([distribution.draw(random_stream(0, "a", k, "physics")) for k in range(2000)])
    assert 0.01 <= values.min() < 0.0104 and 0.098 < values.max() <= 0.1
    middle = 0.055 if kind == "uniform" else math.sqrt(0.001)
    assert abs((values < middle).mean() - 0.5) < 0.04


def test_choice_and_constant():
    choice = Distribution.parse({"distribution": "choice", "values": [1, 2, 5]}, "here")
    assert {choice.draw(random_stream(0, "a", k, "physics")) for k in range(50)} == {1.0, 2.0, 5.0}
    assert Distribution.parse(3, "here").draw(random_stream(0, "a", 0, "physics")) == 3.0
