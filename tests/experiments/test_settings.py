"""Dataclasses of settings are filled strictly: keys, types, ranges, each mistake with its place."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from pdessl.errors import SchemaError
from pdessl.experiments.quickstart import Pipeline, read_settings
from pdessl.schema import Count, Positive, Range, Share, Text, dump_yaml, fill, parse_yaml


@dataclass(frozen=True)
class Inner:
    rates: tuple[Positive, ...] = (1e-3,)
    window: tuple[Count, Count] | None = None
    strengths: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    anything: Any = None
    on: bool = True
    some: bool | tuple[str, ...] = False
    level: Annotated[float, Range(above=0, below=1)] = 0.9
    seeds: Count = 3
    kind: Literal["adaptive", "constant"] | None = None
    many: dict[str, Inner] | None = None
    formula: Text = "x"
    step: Positive | str = "dt"
    share: Share = 1.0


def test_nested_values_are_converted():
    settings = fill(
        Outer,
        {"name": "a", "inner": {"rates": [1, 2.5], "window": [3, 4], "strengths": {"boost": 1}}, "on": False},
        "f.yaml",
    )
    assert settings == Outer("a", Inner((1.0, 2.5), (3, 4), {"boost": 1.0}), None, False)
    assert isinstance(settings.inner.rates[0], float)
    assert fill(Outer, {"name": "a", "some": ["x", "y"]}, "f.yaml").some == ("x", "y")
    assert fill(Outer, {"name": "a", "some": True}, "f.yaml").some is True
    assert fill(Outer, {"name": "a", "many": {"b": {"rates": [2]}}}, "f.yaml").many == {"b": Inner((2.0,))}
    assert [fill(Outer, {"name": "a", "formula": v}, "f.yaml").formula for v in (2, 0.5, "x*u")] == [2, 0.5, "x*u"]
    assert [fill(Outer, {"name": "a", "step": v}, "f.yaml").step for v in (2, "dx")] == [2.0, "dx"]


def test_what_is_free_stays_as_it_is_and_what_is_given_is_not_changed():
    given = {"name": "null", "anything": {"class_path": "os.system", "x": "3"}, "inner": {"rates": [1]}}
    settings = fill(Outer, given, "f.yaml")
    assert settings.anything == {"class_path": "os.system", "x": "3"} and settings.name == "null"
    assert given == {"name": "null", "anything": {"class_path": "os.system", "x": "3"}, "inner": {"rates": [1]}}


def test_null_is_the_default_unless_none_is_a_value():
    content = parse_yaml("name: a\ninner:\nseeds: null\nmany: null", "f.yaml")
    assert fill(Outer, content, "f.yaml") == Outer("a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "a", "iner": {}}, "f.yaml: unknown key 'iner'. Did you mean 'inner'? Keys: name, inner"),
        ({"name": "a", "iner": None}, "f.yaml: unknown key 'iner'"),
        ({"name": "a", "inner": {"rate": [1]}}, "f.yaml: inner: unknown key 'rate'. Did you mean 'rates'?"),
        ({"name": "a", "many": {"b": {"rate": [1]}}}, "f.yaml: many.b: unknown key 'rate'. Did you mean 'rates'?"),
        ({"name": "a", "inner": {"rates": 3}}, "f.yaml: inner.rates: expected a list, found 3"),
        ({"name": "a", "inner": {"rates": ["x"]}}, "f.yaml: inner.rates[0]: expected a number > 0, found 'x'"),
        ({"name": "a", "inner": {"rates": ["1"]}}, "inner.rates[0]: expected a number > 0, found '1'"),
        ({"name": "a", "inner": {"rates": [1, -1]}}, "f.yaml: inner.rates[1]: expected a number > 0, found -1"),
        ({"name": "a", "inner": {"window": [1, 2, 3]}}, "inner.window: expected a list of 2, found"),
        ({"name": "a", "inner": {"window": [0, 2]}}, "inner.window[0]: expected an integer >= 1, found 0"),
        ({"name": "a", "inner": {"strengths": [1]}}, "strengths: expected a mapping"),
        ({"name": "a", "inner": {"strengths": {1: 1}}}, "strengths: expected keys that are text, found 1; put it in q"),
        ({"name": "a", "inner": 3}, "f.yaml: inner: expected a mapping"),
        ({"name": "a", "on": 1}, "f.yaml: on: expected true or false"),
        ({"name": "a", "on": "yes"}, "f.yaml: on: expected true or false, found 'yes'"),
        ({"name": "a", "some": [1]}, "f.yaml: some[0]: expected text"),
        ({"name": "a", "some": 1}, "f.yaml: some: expected true or false or a list, found 1"),
        ({"name": "a", "level": 1}, "f.yaml: level: expected a number > 0 and < 1, found 1"),
        ({"name": "a", "level": float("nan")}, "f.yaml: level: expected a number > 0 and < 1, found nan"),
        ({"name": "a", "step": float("inf")}, "f.yaml: step: expected a number > 0, found inf"),
        ({"name": "a", "share": 1.5}, "f.yaml: share: expected a number from 0 to 1, found 1.5"),
        ({"name": "a", "seeds": True}, "f.yaml: seeds: expected an integer >= 1, found True"),
        ({"name": "a", "seeds": 2.0}, "f.yaml: seeds: expected an integer >= 1, found 2.0"),
        (
            {"name": "a", "kind": "adaptiv"},
            "expected 'adaptive' or 'constant', found 'adaptiv'. Did you mean 'adaptive",
        ),
        ({"name": 1}, "f.yaml: name: expected text, found 1"),
        ({"name": None}, "f.yaml: name: expected text, found None"),
        ({}, "f.yaml: missing key 'name'"),
        ([1], "f.yaml: expected a mapping, found"),
    ],
)
def test_every_mistake_names_the_key_and_what_was_expected(content, said):
    with pytest.raises(SchemaError) as caught:
        fill(Outer, content, "f.yaml")
    assert said in str(caught.value)


def test_a_check_between_fields_is_told_with_its_place():
    @dataclass(frozen=True)
    class Interval:
        low: float
        high: float

        def __post_init__(self):
            if self.low > self.high:
                raise SchemaError("expected low <= high.")

    with pytest.raises(SchemaError, match=r"f.yaml: domain: expected low <= high\."):
        fill(Interval, {"low": 2, "high": 1}, "f.yaml: domain")


@pytest.mark.parametrize("preset", [None, "tiny"])
def test_printed_settings_are_read_back_equal(preset):
    settings = read_settings("quickstart", preset, ["regression.scratch=null", "data.overrides.observation.noise=0.5"])
    assert fill(Pipeline, parse_yaml(dump_yaml(settings), "printed"), "printed") == settings
    assert settings.data.overrides["observation"]["noise"] == 0.5


def test_words_win_over_presets_however_either_is_spelled(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("""
pretraining: {overrides: {trainer: {max_epochs: 5}}}
presets: {short: {pretraining: {overrides: {trainer.max_epochs: 2, data.batch_size: 4}}}}
""")
    settings = read_settings(path, "short", ["pretraining.overrides.trainer.max_epochs=9"])
    assert settings.pretraining.overrides == {"trainer": {"max_epochs": 9}, "data": {"batch_size": 4}}
    assert read_settings(path, "short").pretraining.overrides["trainer"] == {"max_epochs": 2}
